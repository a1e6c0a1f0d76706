"""The states of an instance, and the one table of which event leads from which state where.

A pair that is not in the table raises `IllegalTransition`; pairs that change nothing are in it too. Where a pair
names several states, the machine (`machine.py`) chooses among these and no others. The diagram in
`docs/lifecycle.md` is drawn from this table.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from mcpd.errors import McpdError
from mcpd.lifecycle.events import (
    Condemned,
    Disable,
    Event,
    Exited,
    Gone,
    Initialized,
    Outlived,
    Readied,
    Reset,
    Rest,
    Restart,
    Spawned,
    SpawnFailed,
    Start,
    Stop,
    TimerFired,
    Unready,
    WrongEra,
)


class State(StrEnum):
    """Where an instance is in its life (docs/lifecycle.md)."""

    STOPPED = "STOPPED"  # nothing runs, nothing is to run
    STARTING = "STARTING"  # waits for its turn (`after`, a free start slot) or is being executed
    INITIALIZING = "INITIALIZING"  # the process runs; the handshake and the first lists are under way
    READY = "READY"
    NOT_READY = "NOT_READY"  # runs, but gets no new calls
    STOPPING = "STOPPING"  # is being drained and ended
    EXITED = "EXITED"  # its process is gone; what is left of its tree is being ended
    BACKOFF = "BACKOFF"  # will be started again
    FAILED = "FAILED"  # will not be started again unless somebody asks for it
    ABANDONED = "ABANDONED"  # would not die, not even by SIGKILL; still owned, still tried
    DISABLED = "DISABLED"  # switched off in the registry
    IDLE = "IDLE"  # lazy: nothing runs, the first use starts it


LIVE = frozenset({State.INITIALIZING, State.READY, State.NOT_READY})
"""Its process runs and nobody wants to end it."""
HELD = LIVE | {State.STOPPING, State.EXITED, State.ABANDONED}
"""Something of it may still run: no other incarnation may be started."""
SETTLED = frozenset(
    {State.STOPPED, State.READY, State.NOT_READY, State.BACKOFF, State.FAILED, State.ABANDONED, State.DISABLED}
    | {State.IDLE}
)
"""What a start or a stop can come to; in the other states it is still under way."""


class Goal(StrEnum):
    """What is to become of an instance once it is gone."""

    POLICY = "policy"  # it left by itself, or was condemned: its restart policy decides
    STOP = "stop"
    START = "start"
    DISABLE = "disable"
    REST = "rest"


class IllegalTransition(McpdError):
    """An event came in a state in which it cannot come: an error in mcpd."""

    def __init__(self, state: State, event: Event, target: State | None = None) -> None:
        to = "" if target is None else f" to {target}"
        super().__init__(f"{type(event).__name__} cannot lead from {state}{to}")
        self.state = state
        self.event = event


def _to(*states: State) -> frozenset[State]:
    return frozenset(states)


_S = State
_AFTERMATH = _to(_S.STOPPED, _S.STARTING, _S.BACKOFF, _S.FAILED, _S.DISABLED, _S.IDLE)

TRANSITIONS: Mapping[tuple[State, type[Event]], frozenset[State]] = {
    # Nothing runs.
    (_S.STOPPED, Start): _to(_S.STARTING),
    (_S.STOPPED, Restart): _to(_S.STARTING),
    (_S.STOPPED, Stop): _to(_S.STOPPED),
    (_S.STOPPED, Disable): _to(_S.DISABLED),
    (_S.STOPPED, Rest): _to(_S.IDLE),
    (_S.STOPPED, Reset): _to(_S.STOPPED),
    (_S.IDLE, Start): _to(_S.STARTING),
    (_S.IDLE, Restart): _to(_S.STARTING),
    (_S.IDLE, Stop): _to(_S.STOPPED),
    (_S.IDLE, Disable): _to(_S.DISABLED),
    (_S.IDLE, Rest): _to(_S.IDLE),
    (_S.IDLE, Reset): _to(_S.IDLE),
    (_S.DISABLED, Start): _to(_S.STARTING),
    (_S.DISABLED, Restart): _to(_S.STARTING),
    (_S.DISABLED, Stop): _to(_S.STOPPED),
    (_S.DISABLED, Disable): _to(_S.DISABLED),
    (_S.DISABLED, Rest): _to(_S.IDLE),
    (_S.DISABLED, Reset): _to(_S.DISABLED),
    (_S.FAILED, Start): _to(_S.STARTING),
    (_S.FAILED, Restart): _to(_S.STARTING),
    (_S.FAILED, Stop): _to(_S.STOPPED),
    (_S.FAILED, Disable): _to(_S.DISABLED),
    (_S.FAILED, Rest): _to(_S.IDLE),
    (_S.FAILED, Reset): _to(_S.STOPPED),
    (_S.BACKOFF, TimerFired): _to(_S.STARTING),
    (_S.BACKOFF, Start): _to(_S.STARTING),
    (_S.BACKOFF, Restart): _to(_S.STARTING),
    (_S.BACKOFF, Stop): _to(_S.STOPPED),
    (_S.BACKOFF, Disable): _to(_S.DISABLED),
    (_S.BACKOFF, Rest): _to(_S.IDLE),
    (_S.BACKOFF, Reset): _to(_S.STARTING),
    # On the way up. No process belongs to STARTING: the spawn and its event are one step.
    (_S.STARTING, Spawned): _to(_S.INITIALIZING),
    (_S.STARTING, SpawnFailed): _to(_S.BACKOFF, _S.FAILED),
    (_S.STARTING, Start): _to(_S.STARTING),
    (_S.STARTING, Restart): _to(_S.STARTING),
    (_S.STARTING, Stop): _to(_S.STOPPED),
    (_S.STARTING, Disable): _to(_S.DISABLED),
    (_S.STARTING, Rest): _to(_S.IDLE),
    (_S.STARTING, Reset): _to(_S.STARTING),
    (_S.INITIALIZING, Initialized): _to(_S.READY),
    (_S.INITIALIZING, Exited): _to(_S.EXITED),
    (_S.INITIALIZING, Condemned): _to(_S.STOPPING),
    (_S.INITIALIZING, WrongEra): _to(_S.STOPPING),
    (_S.INITIALIZING, Start): _to(_S.INITIALIZING),
    (_S.INITIALIZING, Restart): _to(_S.STOPPING),
    (_S.INITIALIZING, Stop): _to(_S.STOPPING),
    (_S.INITIALIZING, Disable): _to(_S.STOPPING),
    (_S.INITIALIZING, Rest): _to(_S.STOPPING),
    (_S.INITIALIZING, Reset): _to(_S.INITIALIZING),
    # Up.
    (_S.READY, Unready): _to(_S.NOT_READY),
    (_S.READY, Exited): _to(_S.EXITED),
    (_S.READY, Condemned): _to(_S.STOPPING),
    (_S.READY, Start): _to(_S.READY),
    (_S.READY, Restart): _to(_S.STOPPING),
    (_S.READY, Stop): _to(_S.STOPPING),
    (_S.READY, Disable): _to(_S.STOPPING),
    (_S.READY, Rest): _to(_S.STOPPING),
    (_S.READY, Reset): _to(_S.READY),
    (_S.NOT_READY, Readied): _to(_S.READY),
    (_S.NOT_READY, Unready): _to(_S.NOT_READY),
    (_S.NOT_READY, Exited): _to(_S.EXITED),
    (_S.NOT_READY, Condemned): _to(_S.STOPPING),
    (_S.NOT_READY, Start): _to(_S.NOT_READY),
    (_S.NOT_READY, Restart): _to(_S.STOPPING),
    (_S.NOT_READY, Stop): _to(_S.STOPPING),
    (_S.NOT_READY, Disable): _to(_S.STOPPING),
    (_S.NOT_READY, Rest): _to(_S.STOPPING),
    (_S.NOT_READY, Reset): _to(_S.NOT_READY),
    # On the way down. What is wanted may change until the end: it only changes what comes after it.
    (_S.STOPPING, Exited): _to(_S.EXITED),
    (_S.STOPPING, Outlived): _to(_S.ABANDONED),
    (_S.STOPPING, Condemned): _to(_S.STOPPING),
    (_S.STOPPING, WrongEra): _to(_S.STOPPING),
    (_S.STOPPING, Start): _to(_S.STOPPING),
    (_S.STOPPING, Restart): _to(_S.STOPPING),
    (_S.STOPPING, Stop): _to(_S.STOPPING),
    (_S.STOPPING, Disable): _to(_S.STOPPING),
    (_S.STOPPING, Rest): _to(_S.STOPPING),
    (_S.STOPPING, Reset): _to(_S.STOPPING),
    (_S.EXITED, Gone): _AFTERMATH,
    (_S.EXITED, Outlived): _to(_S.ABANDONED),
    (_S.EXITED, Condemned): _to(_S.EXITED),
    (_S.EXITED, WrongEra): _to(_S.EXITED),
    (_S.EXITED, Start): _to(_S.EXITED),
    (_S.EXITED, Restart): _to(_S.EXITED),
    (_S.EXITED, Stop): _to(_S.EXITED),
    (_S.EXITED, Disable): _to(_S.EXITED),
    (_S.EXITED, Rest): _to(_S.EXITED),
    (_S.EXITED, Reset): _to(_S.EXITED),
    (_S.ABANDONED, TimerFired): _to(_S.ABANDONED),
    (_S.ABANDONED, Exited): _to(_S.ABANDONED),
    (_S.ABANDONED, Gone): _AFTERMATH,
    (_S.ABANDONED, Outlived): _to(_S.ABANDONED),
    (_S.ABANDONED, Condemned): _to(_S.ABANDONED),
    (_S.ABANDONED, WrongEra): _to(_S.ABANDONED),
    (_S.ABANDONED, Start): _to(_S.ABANDONED),
    (_S.ABANDONED, Restart): _to(_S.ABANDONED),
    (_S.ABANDONED, Stop): _to(_S.ABANDONED),
    (_S.ABANDONED, Disable): _to(_S.ABANDONED),
    (_S.ABANDONED, Rest): _to(_S.ABANDONED),
    (_S.ABANDONED, Reset): _to(_S.ABANDONED),
}


def expect(state: State, event: Event) -> frozenset[State]:
    """The states that may follow; raises IllegalTransition if `event` cannot come in `state`."""
    targets = TRANSITIONS.get((state, type(event)))
    if targets is None:
        raise IllegalTransition(state, event)
    return targets


def check(state: State, event: Event, target: State) -> None:
    """Raise IllegalTransition unless the table has it."""
    if target not in expect(state, event):
        raise IllegalTransition(state, event, target)
