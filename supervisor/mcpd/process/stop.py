"""The ladder by which a child is ended, and how far down it had to go.

Close stdin, wait; SIGTERM (+SIGCONT) to all of the tree, wait; SIGKILL, wait; then nothing of the tree may be left. It
runs on the loop's timers and not in its caller: a caller that is cancelled does not stop a stop.
"""

from __future__ import annotations

import asyncio
import signal
from enum import StrEnum
from typing import Protocol

import msgspec

from mcpd.process.exits import ExitStatus

FIRST_LOOK = 0.001
LONGEST_LOOK = 0.05


class Rung(StrEnum):
    """What ended the process."""

    ALREADY_GONE = "already-gone"
    STDIN_CLOSED = "stdin-closed"
    TERMINATED = "terminated"
    KILLED = "killed"
    ABANDONED = "abandoned"  # it, or something of its tree, is still there


class StopLadder(msgspec.Struct, frozen=True):
    """Seconds to wait on each rung; 0 skips the rung's wait but not the rung."""

    stdin: float = 5.0
    term: float = 5.0
    kill: float = 5.0

    @classmethod
    def of(cls, stop_timeout: float) -> StopLadder:
        """`stop_timeout` of the registry: before SIGTERM, and again before SIGKILL."""
        return cls(stop_timeout, stop_timeout)

    def faster(self, other: StopLadder) -> StopLadder:
        return StopLadder(min(self.stdin, other.stdin), min(self.term, other.term), min(self.kill, other.kill))


DEFAULT_LADDER = StopLadder()


class StopOutcome(msgspec.Struct, frozen=True):
    """`status` is None only if the process itself could not be ended; `left` processes of its tree are still there."""

    rung: Rung
    status: ExitStatus | None
    seconds: float
    left: int = 0


class Stoppable(Protocol):
    """What the ladder needs of a child."""

    @property
    def status(self) -> ExitStatus | None: ...
    def close_stdin(self) -> None: ...
    def signal_tree(self, *numbers: int) -> None: ...
    def kill_tree(self) -> None: ...
    def remains(self) -> int: ...


class Ending:
    """One descent of the ladder. `exited` has to be called when the process was reaped, whoever ended it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, child: Stoppable) -> None:
        self._loop = loop
        self._child = child
        self._ladder = DEFAULT_LADDER
        self._rung: Rung | None = None
        self._began = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._deadline = 0.0
        self.done: asyncio.Future[StopOutcome] = loop.create_future()

    def begin(self, ladder: StopLadder) -> None:
        """Start the descent; if it is under way, go on at the faster of both ladders."""
        if self.done.done():
            if self.done.result().rung is Rung.ABANDONED:
                self._try_again(ladder)
        elif self._rung is None:
            self._ladder = ladder
            self._began = self._loop.time()
            self._enter(Rung.STDIN_CLOSED)
        else:
            self._ladder = ladder.faster(self._ladder)
            if self._child.status is None:
                self._wait(min(self._deadline, self._loop.time() + self._patience(self._rung)))

    def exited(self) -> None:
        """The process is reaped: end what it left behind, then resolve `done`."""
        if self._rung is None:
            self._rung = Rung.ALREADY_GONE
            self._began = self._loop.time()
        self._deadline = self._loop.time() + self._ladder.kill
        self._sweep(FIRST_LOOK)

    def _enter(self, rung: Rung) -> None:
        self._rung = rung
        match rung:
            case Rung.STDIN_CLOSED:
                self._child.close_stdin()
            case Rung.TERMINATED:
                self._child.signal_tree(signal.SIGTERM, signal.SIGCONT)
            case Rung.KILLED:
                self._child.kill_tree()
            case _:
                self._resolve(Rung.ABANDONED)
                return
        self._wait(self._loop.time() + self._patience(rung))

    def _wait(self, deadline: float) -> None:
        self._cancel_timer()
        self._deadline = deadline
        self._timer = self._loop.call_at(deadline, self._too_late)

    def _too_late(self) -> None:
        following = {Rung.STDIN_CLOSED: Rung.TERMINATED, Rung.TERMINATED: Rung.KILLED}
        self._enter(following.get(self._rung or Rung.ABANDONED, Rung.ABANDONED))

    def _patience(self, rung: Rung) -> float:
        waits = {Rung.STDIN_CLOSED: self._ladder.stdin, Rung.TERMINATED: self._ladder.term}
        return waits.get(rung, self._ladder.kill)

    def _sweep(self, pause: float) -> None:
        self._cancel_timer()
        if not self._child.remains():
            self._resolve(self._rung or Rung.ALREADY_GONE)
        elif self._loop.time() >= self._deadline:
            self._resolve(Rung.ABANDONED)
        else:
            self._child.kill_tree()
            self._timer = self._loop.call_later(pause, self._sweep, min(pause * 2, LONGEST_LOOK))

    def _try_again(self, ladder: StopLadder) -> None:
        self.done = self._loop.create_future()
        self._ladder = ladder
        if self._child.status is None:
            self._enter(Rung.KILLED)
        else:
            self.exited()

    def _resolve(self, rung: Rung) -> None:
        self._cancel_timer()
        if not self.done.done():
            left = self._child.remains() if rung is Rung.ABANDONED else 0
            self.done.set_result(StopOutcome(rung, self._child.status, self._loop.time() - self._began, left))

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
