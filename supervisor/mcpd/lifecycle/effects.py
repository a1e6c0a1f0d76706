"""What a machine asks for: to be carried out in order, by somebody who has processes, tasks and a clock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from mcpd.lifecycle.phases import Exit
from mcpd.lifecycle.states import State


@dataclass(frozen=True, slots=True)
class Launch:
    """Start a process, when its turn has come; answer with Spawned or SpawnFailed."""

    generation: int


@dataclass(frozen=True, slots=True)
class CancelLaunch:
    """Nothing is to be started any more; nothing is answered."""


@dataclass(frozen=True, slots=True)
class Handshake:
    """Speak with the new process; answer with Initialized or Condemned."""


@dataclass(frozen=True, slots=True)
class Admit:
    """It may get calls: it is READY for the first time in this incarnation."""


@dataclass(frozen=True, slots=True)
class Suspend:
    """It is to get no new calls."""

    why: str


@dataclass(frozen=True, slots=True)
class Resume:
    """It may get calls again."""


@dataclass(frozen=True, slots=True)
class Detach:
    """It answers nothing any more: whoever waits for it is told why."""

    why: str


@dataclass(frozen=True, slots=True)
class End:
    """End it and all of its tree; answer with Gone or Outlived. `drain`: first let it finish what it was given."""

    drain: bool


@dataclass(frozen=True, slots=True)
class Record:
    """An incarnation is over: remember how it ended."""

    exit: Exit
    generation: int


@dataclass(frozen=True, slots=True)
class SetTimer:
    """Send TimerFired at this time."""

    at: float


@dataclass(frozen=True, slots=True)
class CancelTimer:
    """TimerFired must not come any more."""


@dataclass(frozen=True, slots=True)
class Changed:
    """The state changed; comes after the effects that belong to it."""

    old: State
    new: State
    why: str


Effect: TypeAlias = (
    Launch
    | CancelLaunch
    | Handshake
    | Admit
    | Suspend
    | Resume
    | Detach
    | End
    | Record
    | SetTimer
    | CancelTimer
    | Changed
)
