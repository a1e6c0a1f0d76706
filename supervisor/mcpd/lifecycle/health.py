"""What probes, bytes and calls say about an instance that runs: alive, busy, wedged, ready, noisy.

Evidence, not probe answers alone (docs/lifecycle.md): any answer is life, an error too; so is any byte. A server that
works on calls in one thread cannot answer a probe, so with calls in flight its silence is excused for as long as a
call may take, counted from its last byte or the first call it left unanswered. Calls that come and time out meanwhile
do not prolong that: a server that is wedged under steady traffic is found.
"""

from __future__ import annotations

from collections import deque
from enum import Enum

import msgspec

from mcpd.config.registry import ProbeSpec

NOISE_WINDOW = 60.0
NOISE_LIMIT = 60
OVERLONG_LIMIT = 3


class Life(Enum):
    """What a probe's end says about an instance."""

    ALIVE = "alive"
    BUSY = "busy"  # silent, with calls in flight that may still take as long
    SUSPECT = "suspect"  # silent, but not often enough yet
    DEAD = "dead"  # silent too often with nothing to do
    WEDGED = "wedged"  # silent for longer than a call may take


class Evidence(msgspec.Struct, frozen=True):
    """What is known when a probe ends, by its answer or by its timeout. All times are monotonic seconds.

    `last_byte`: when anything was last heard on its stdout. `oldest_call`: when the oldest call in flight began, None
    if there is none.
    """

    at: float
    asked_at: float
    answered: bool
    last_byte: float
    oldest_call: float | None


class Liveness:
    """Whether it lives; asked once a probe."""

    def __init__(self, spec: ProbeSpec, call_timeout: float) -> None:
        self.failures = 0
        self._threshold = spec.failure_threshold
        self._call_timeout = call_timeout
        self._silent_since: float | None = None  # since when calls wait and nothing was heard

    def judge(self, seen: Evidence) -> Life:
        if seen.answered or seen.last_byte >= seen.asked_at:
            self.failures = 0
            self._silent_since = None
            return Life.ALIVE
        if seen.oldest_call is None:
            self._silent_since = None
            self.failures += 1
            return Life.DEAD if self.failures >= self._threshold else Life.SUSPECT
        if self._silent_since is None:
            self._silent_since = seen.oldest_call
        self._silent_since = max(self._silent_since, seen.last_byte)
        return Life.BUSY if seen.at - self._silent_since < self._call_timeout else Life.WEDGED


class Readiness:
    """Whether it should get calls; READY to begin with, since it has just been initialised."""

    def __init__(self, spec: ProbeSpec) -> None:
        self.ready = True
        self._spec = spec
        self._row = 0  # probes in a row that say the opposite of `ready`

    def judge(self, answered: bool) -> bool:
        """Whether it is ready, now that a probe was answered or not."""
        self._row = 0 if answered == self.ready else self._row + 1
        threshold = self._spec.failure_threshold if self.ready else self._spec.success_threshold
        if self._row >= threshold:
            self.ready = answered
            self._row = 0
        return self.ready


class NoiseMeter:
    """How much comes on stdout that is no message. A banner is forgiven, a stream of it is not."""

    def __init__(self) -> None:
        self.total = 0
        self._recent: deque[float] = deque(maxlen=NOISE_LIMIT + 1)
        self._overlong: deque[float] = deque(maxlen=OVERLONG_LIMIT)

    def heard(self, at: float, overlong: bool = False) -> None:
        self.total += 1
        self._recent.append(at)
        if overlong:
            self._overlong.append(at)

    def too_much(self, at: float) -> bool:
        """More than `NOISE_LIMIT` within a minute: it should get no new calls until that is over."""
        return len(self._recent) > NOISE_LIMIT and at - self._recent[0] < NOISE_WINDOW

    def hopeless(self, at: float) -> bool:
        """`OVERLONG_LIMIT` overlong lines within a minute: its stdout cannot be trusted, it should be restarted."""
        return len(self._overlong) == OVERLONG_LIMIT and at - self._overlong[0] < NOISE_WINDOW
