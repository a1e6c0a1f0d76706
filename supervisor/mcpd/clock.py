"""Time, as a parameter: everything that waits or measures asks a `Clock`."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """A monotonic clock for deadlines; a wall clock for what people read."""

    def monotonic(self) -> float:
        """Seconds from an arbitrary start; never goes back (clock_gettime(2), CLOCK_MONOTONIC)."""
        ...

    def wall(self) -> float:
        """Seconds since 1970-01-01 UTC, for logs and listings only."""
        ...


class SystemClock:
    """The clock of the machine."""

    def monotonic(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time()
