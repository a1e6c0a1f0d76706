"""What is known of an instance: a state, and the data that only this state has."""

from __future__ import annotations

from typing import ClassVar, TypeAlias

import msgspec

from mcpd.lifecycle.events import Result
from mcpd.lifecycle.states import Goal, State


class Exit(msgspec.Struct, frozen=True):
    """How an incarnation ended: the word for it, and the words for people."""

    result: Result
    text: str

    def __str__(self) -> str:
        return f"{self.result}: {self.text}" if self.text else str(self.result)


class Stopped(msgspec.Struct, frozen=True):
    state: ClassVar[State] = State.STOPPED
    since: float


class Starting(msgspec.Struct, frozen=True):
    state: ClassVar[State] = State.STARTING
    since: float


class Initializing(msgspec.Struct, frozen=True):
    state: ClassVar[State] = State.INITIALIZING
    since: float


class Ready(msgspec.Struct, frozen=True):
    state: ClassVar[State] = State.READY
    since: float


class NotReady(msgspec.Struct, frozen=True):
    state: ClassVar[State] = State.NOT_READY
    since: float
    why: str


class Stopping(msgspec.Struct, frozen=True):
    """`cause` is set if it was condemned: then that is why it ended, however it ends."""

    state: ClassVar[State] = State.STOPPING
    since: float
    goal: Goal
    cause: Exit | None = None


class Ended(msgspec.Struct, frozen=True):
    """The phase of EXITED."""

    state: ClassVar[State] = State.EXITED
    since: float
    goal: Goal
    exit: Exit


class Waiting(msgspec.Struct, frozen=True):
    """The phase of BACKOFF: the next try is at `until`; `limited`: the start limit is hit."""

    state: ClassVar[State] = State.BACKOFF
    since: float
    until: float
    exit: Exit
    limited: bool = False


class Failed(msgspec.Struct, frozen=True):
    state: ClassVar[State] = State.FAILED
    since: float
    exit: Exit


class Abandoned(msgspec.Struct, frozen=True):
    state: ClassVar[State] = State.ABANDONED
    since: float
    goal: Goal
    exit: Exit


class Disabled(msgspec.Struct, frozen=True):
    state: ClassVar[State] = State.DISABLED
    since: float


class Idle(msgspec.Struct, frozen=True):
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
