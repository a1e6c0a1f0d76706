"""What the HTTP transports share: made once by the app, handed to each."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from mcpd.config.settings import FrontdoorSettings
from mcpd.errors import TooMany
from mcpd.frontdoor.event_stream import Streams
from mcpd.frontdoor.metrics import Counters
from mcpd.frontdoor.relay import Relay
from mcpd.frontdoor.ticker import Ticker


class Quota:
    """How many sessions each principal has open, over all transports."""

    __slots__ = ("_held", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._held: Counter[str] = Counter()

    def full(self, principal: str) -> bool:
        return self._held[principal] >= self.limit

    def take(self, principal: str) -> None:
        """Count one more; raises TooMany at the limit."""
        if self.full(principal):
            why = f"{principal} has {self.limit} sessions open already; close some with DELETE, or try later"
            raise TooMany(why, 10.0, limit="sessions")
        self._held[principal] += 1

    def give(self, principal: str) -> None:
        """Count one less."""
        self._held[principal] -= 1
        if not self._held[principal]:
            del self._held[principal]

    def total(self) -> int:
        return self._held.total()


@dataclass(frozen=True, slots=True)
class Context:
    """The surroundings of a transport."""

    relay: Relay
    settings: FrontdoorSettings
    ticker: Ticker
    streams: Streams = field(default_factory=Streams)
    counters: Counters = field(default_factory=Counters)
    quota: Quota = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "quota", Quota(self.settings.max_sessions))
