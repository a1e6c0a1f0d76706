"""How long to wait before a server that keeps dying is started again.

The rules (docs/lifecycle.md): delay n is `delay * (max / delay) ** (min(n, steps) / steps)` with equal
jitter, so between half of it and all of it; the first failure after a stable run costs no delay, once, nor does the
first failure of a server that has been READY at all; n is forgotten only after a stable run; more than
`burst` automatic starts within `interval` are too many.
"""

from __future__ import annotations

from collections import deque
from typing import Literal

import msgspec


class BackoffPolicy(msgspec.Struct, frozen=True):
    """The numbers, in seconds; `action` is what happens when the start limit is hit."""

    delay: float = 0.5
    max_delay: float = 60.0
    steps: int = 7
    stable_after: float = 30.0
    burst: int = 5
    interval: float = 600.0
    action: Literal["backoff", "fail"] = "backoff"

    def nominal(self, n: int) -> float:
        """The delay after the n-th failure in a row (from 0), before jitter."""
        longest = max(self.delay, self.max_delay)
        growth: float = (longest / self.delay) ** (min(n, self.steps) / self.steps)
        return self.delay * growth


class Wait(msgspec.Struct, frozen=True):
    """Start again after `delay`. `limited`: the start limit is hit, so it is the longest."""

    delay: float
    limited: bool = False


class GiveUp:
    """Do not start again: the start limit is hit, and the policy is to fail then."""


class Backoff:
    """What is remembered of past failures."""

    def __init__(self, policy: BackoffPolicy) -> None:
        self.policy = policy
        self.failures = 0
        self._spare = 0  # how many failures still cost no delay
        self._proved = False  # whether it has been READY since somebody asked for it
        self._starts: deque[float] = deque()

    def failed(self, at: float, luck: float) -> Wait | GiveUp:
        """It ended and should be started again. `luck` is a random number of [0, 1)."""
        if self._limit_hit(at):
            if self.policy.action == "fail":
                return GiveUp()
            self.failures += 1
            return Wait(_jitter(max(self.policy.delay, self.policy.max_delay), luck), limited=True)
        if self._spare:
            self._spare -= 1
            return Wait(0.0)
        delay = self.policy.nominal(self.failures)
        self.failures += 1
        return Wait(_jitter(delay, luck))

    def started(self, at: float) -> None:
        """It was started again without anybody asking."""
        self._starts.append(at)
        while len(self._starts) > self.policy.burst:  # older ones never decide
            self._starts.popleft()

    def was_ready(self, seconds: float) -> None:
        """It was READY for that long, without a break, and is no more."""
        if seconds >= self.policy.stable_after:
            self.failures = 0
            self._spare = 1
        elif not self._proved:
            self._spare = 1
        self._proved = True

    def reset(self) -> None:
        """Forget all: somebody asked for a start."""
        self.failures = 0
        self._spare = 0
        self._proved = False
        self._starts.clear()

    def _limit_hit(self, at: float) -> bool:
        since = at - self.policy.interval
        return sum(start > since for start in self._starts) >= self.policy.burst


class RestartAlarm:
    """Notices that servers are restarted more often than one broken one would be: something common is wrong.

    It only tells; each server's own rules decide.
    """

    def __init__(self, burst: int = 30, interval: float = 60.0) -> None:
        self.text = f"{burst} restarts of servers within {interval:g} s: look for what they have in common"
        self._starts: deque[float] = deque(maxlen=burst)
        self._interval = interval

    def restarted(self, at: float) -> bool:
        """A server is started again by itself; True if that is one too many, at most once an interval."""
        self._starts.append(at)
        too_many = len(self._starts) == self._starts.maxlen and at - self._starts[0] < self._interval
        if too_many:
            self._starts.clear()
        return too_many


def _jitter(delay: float, luck: float) -> float:
    """Equal jitter: full jitter may give 0."""
    return delay * (0.5 + luck / 2)
