"""What is known of an instance: a state, and the data that only this state has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from mcpd.lifecycle.events import Result
from mcpd.lifecycle.states import Goal, State


@dataclass(frozen=True, slots=True)
class Exit:
    """How an incarnation ended: the word for it, and the words for people."""

    result: Result
    text: str

    def __str__(self) -> str:
        return f"{self.result}: {self.text}" if self.text else str(self.result)


@dataclass(frozen=True, slots=True)
class Stopped:
    state: ClassVar[State] = State.STOPPED
    since: float


@dataclass(frozen=True, slots=True)
class Starting:
    state: ClassVar[State] = State.STARTING
    since: float


@dataclass(frozen=True, slots=True)
class Initializing:
    state: ClassVar[State] = State.INITIALIZING
    since: float


@dataclass(frozen=True, slots=True)
class Ready:
    state: ClassVar[State] = State.READY
    since: float


@dataclass(frozen=True, slots=True)
class NotReady:
    state: ClassVar[State] = State.NOT_READY
    since: float
    why: str


@dataclass(frozen=True, slots=True)
class Stopping:
    """`cause` is set if it was condemned: then that is why it ended, however it ends."""

    state: ClassVar[State] = State.STOPPING
    since: float
    goal: Goal
    cause: Exit | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """The phase of EXITED."""

    state: ClassVar[State] = State.EXITED
    since: float
    goal: Goal
    exit: Exit


@dataclass(frozen=True, slots=True)
class Waiting:
    """The phase of BACKOFF: the next try is at `until`; `limited`: the start limit is hit."""

    state: ClassVar[State] = State.BACKOFF
    since: float
    until: float
    exit: Exit
    limited: bool = False


@dataclass(frozen=True, slots=True)
class Failed:
    state: ClassVar[State] = State.FAILED
    since: float
    exit: Exit


@dataclass(frozen=True, slots=True)
class Abandoned:
    state: ClassVar[State] = State.ABANDONED
    since: float
    goal: Goal
    exit: Exit


@dataclass(frozen=True, slots=True)
class Disabled:
    state: ClassVar[State] = State.DISABLED
    since: float


@dataclass(frozen=True, slots=True)
class Idle:
    state: ClassVar[State] = State.IDLE
    since: float


Phase: TypeAlias = (
    Stopped
    | Starting
    | Initializing
    | Ready
    | NotReady
    | Stopping
    | Ended
    | Waiting
    | Failed
    | Abandoned
    | Disabled
    | Idle
)
