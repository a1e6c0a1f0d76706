"""What a machine asks for: to be carried out in order, by somebody who has processes, tasks and a clock."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from mcpd.lifecycle.phases import Exit
from mcpd.lifecycle.states import State


class Launch(msgspec.Struct, frozen=True):
    """Start a process, when its turn has come; answer with Spawned or SpawnFailed."""

    generation: int


class CancelLaunch(msgspec.Struct, frozen=True):
    """Nothing is to be started any more; nothing is answered."""


class Handshake(msgspec.Struct, frozen=True):
    """Speak with the new process; answer with Initialized or Condemned."""


class Admit(msgspec.Struct, frozen=True):
    """It may get calls: it is READY for the first time in this incarnation."""


class Suspend(msgspec.Struct, frozen=True):
    """It is to get no new calls."""

    why: str


class Resume(msgspec.Struct, frozen=True):
    """It may get calls again."""


class Detach(msgspec.Struct, frozen=True):
    """It answers nothing any more: whoever waits for it is told why."""

    why: str


class End(msgspec.Struct, frozen=True):
    """End it and all of its tree; answer with Gone or Outlived. `drain`: first let it finish what it was given."""

    drain: bool


class Record(msgspec.Struct, frozen=True):
    """An incarnation is over: remember how it ended."""

    exit: Exit
    generation: int


class SetTimer(msgspec.Struct, frozen=True):
    """Send TimerFired at this time."""

    at: float


class CancelTimer(msgspec.Struct, frozen=True):
    """TimerFired must not come any more."""


class Changed(msgspec.Struct, frozen=True):
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
