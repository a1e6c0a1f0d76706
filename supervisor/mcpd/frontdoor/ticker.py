"""One coarse timer for everything in the front door that is done now and then."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from mcpd.clock import Clock

TICK: Final = 5.0


class Ticker:
    """Calls each of `callbacks` every `period` seconds, on the loop. `now` is the time of the last tick: coarse,
    monotonic, and free to read."""

    __slots__ = ("_clock", "_handle", "_loop", "callbacks", "now", "period")

    def __init__(self, clock: Clock, period: float = TICK) -> None:
        self.callbacks: list[Callable[[], None]] = []
        self.period = period
        self.now = clock.monotonic()
        self._clock = clock
        self._loop: asyncio.AbstractEventLoop | None = None
        self._handle: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to tick, on the running loop."""
        self._loop = asyncio.get_running_loop()
        self._handle = self._loop.call_later(self.period, self._tick)

    def stop(self) -> None:
        """Never tick again."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _tick(self) -> None:
        assert self._loop is not None
        self._handle = self._loop.call_later(self.period, self._tick)
        self.beat()

    def beat(self) -> None:
        """What a tick does."""
        self.now = self._clock.monotonic()
        for callback in self.callbacks:
            callback()
