"""What happened to the fleet: a bounded memory of events, read by any number of feeds, each at its own pace."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter, deque

import msgspec

from mcpd.clock import Clock
from mcpd.control.view import Event, Gap
from mcpd.store.store import Store

REMEMBERED = 2000
TEXT_LIMIT = 2000
_EVENT = msgspec.json.Decoder(Event)


class EventLog:
    """Numbers events, keeps the last ones, hands each to the store. Goes on where the last daemon stopped counting."""

    def __init__(self, clock: Clock, store: Store | None, remembered: int = REMEMBERED) -> None:
        self._clock = clock
        self._store = store
        self._ring: deque[Event] = deque(maxlen=remembered)
        self._readers: set[Feed] = set()  # those that wait
        self._last = 0
        self._over = False
        self.transitions: Counter[tuple[str, str]] = Counter()
        """How often a server's instances came into a state, since the daemon started."""
        if store is not None:
            self._last = store.last_seq()
            self._recall(store.events(max(0, self._last - remembered), remembered))

    @property
    def last(self) -> int:
        """The number of the newest event."""
        return self._last

    def add(
        self, server: str = "", instance: str = "", generation: int = 0, old: str = "", new: str = "", reason: str = ""
    ) -> Event:
        """Something happened; `old` and `new` are empty where no state changed."""
        self._last += 1
        if len(reason) > TEXT_LIMIT:
            reason = reason[:TEXT_LIMIT] + " ..."
        event = Event(
            seq=self._last,
            at=self._clock.wall(),
            server=server,
            instance=instance,
            generation=generation,
            old=old,
            new=new,
            reason=reason,
        )
        self._ring.append(event)
        if new:
            self.transitions[server, new] += 1
        if self._store is not None:
            self._store.add_events([msgspec.json.encode(event)])
        self._wake()
        return event

    def feed(self, after: int) -> Feed:
        """Events numbered over `after`; a negative one means the last `-after` of them."""
        return Feed(self, max(0, self._last + after) if after < 0 else min(after, self._last))

    def close(self) -> None:
        """The daemon goes down: feeds end when they have told all."""
        self._over = True
        self._wake()

    def since(self, after: int, limit: int | None = None) -> list[Event | Gap]:
        """What is remembered of the events over `after`, a gap first if some are not."""
        if after >= self._last:
            return []
        oldest = self._ring[0].seq if self._ring else self._last + 1
        found: list[Event | Gap] = []
        if after + 1 < oldest:
            found.append(Gap(missed=oldest - after - 1))
        start = max(0, after + 1 - oldest)
        stop = len(self._ring) if limit is None else start + limit
        return [*found, *itertools.islice(self._ring, start, stop)]

    def of_server(self, server: str, limit: int) -> list[Event]:
        """The last events of a server that are remembered, oldest first."""
        found = itertools.islice((one for one in reversed(self._ring) if one.server == server), limit)
        return list(found)[::-1]

    def forget(self, server: str) -> None:
        """It is in no registry any more: its transitions are counted no longer."""
        for key in [one for one in self.transitions if one[0] == server]:
            del self.transitions[key]

    async def wait(self, feed: Feed) -> None:
        """Return when there is an event for `feed`, or when it or the log is closed."""
        self._readers.add(feed)
        try:
            while feed.open and not self._over and feed.after >= self._last:
                await feed.woken()
        finally:
            self._readers.discard(feed)

    def _wake(self) -> None:
        for feed in self._readers:
            feed.wake()

    def _recall(self, stored: list[bytes]) -> None:
        """The end of the history, as far back as no number is missing."""
        for event in map(_EVENT.decode, stored):
            if self._ring and event.seq != self._ring[-1].seq + 1:
                self._ring.clear()
            self._ring.append(event)
        if self._ring and self._ring[-1].seq != self._last:
            self._ring.clear()


class Feed:
    """A reader's place in the log; nothing is stored for it, so one that does not read costs nothing but its gap."""

    def __init__(self, log: EventLog, after: int) -> None:
        self.after = after
        self.open = True
        self._log = log
        self._told: deque[Event | Gap] = deque()  # a gap and the event behind it come as two
        self._wake = asyncio.Event()

    def take(self) -> list[Event | Gap]:
        """All that is there now."""
        found = [*self._told, *self._log.since(self.after)]
        self._told.clear()
        self.after = self._log.last
        return found

    def __aiter__(self) -> Feed:
        return self

    async def __anext__(self) -> Event | Gap:
        if not self._told:
            await self._log.wait(self)
            self._told.extend(self._log.since(self.after, limit=1) if self.open else ())
            if not self._told:
                raise StopAsyncIteration
            self.after = self._told[-1].seq if isinstance(self._told[-1], Event) else self.after
        return self._told.popleft()

    def close(self) -> None:
        """The reader is gone."""
        self.open = False
        self.wake()

    def wake(self) -> None:
        self._wake.set()

    async def woken(self) -> None:
        """Return at the next `wake`."""
        self._wake.clear()
        await self._wake.wait()
