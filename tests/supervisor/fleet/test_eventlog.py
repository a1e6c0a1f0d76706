"""The memory of events: numbers, feeds at their own pace, gaps, and what outlives the daemon."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from mcpd.clock import SystemClock
from mcpd.control.view import Event, Gap
from mcpd.fleet.eventlog import TEXT_LIMIT, EventLog, Feed
from mcpd.store.store import Store

pytestmark = pytest.mark.anyio


def log(remembered: int = 5, store: Store | None = None) -> EventLog:
    return EventLog(SystemClock(), store, remembered)


def add(one: EventLog, count: int) -> None:
    for _ in range(count):
        one.add("time", reason="why")


def told(found: list[Event | Gap]) -> list[int | str]:
    return [entry.seq if isinstance(entry, Event) else f"gap {entry.missed}" for entry in found]


async def following(feed: Feed) -> int | str:
    async with asyncio.timeout(5):
        return told([await anext(feed)])[0]


def test_events_are_numbered_without_holes_and_carry_what_they_were_given() -> None:
    one = log()
    event = one.add("time", "time@2", 3, "READY", "EXITED", "signal: killed by SIGKILL")

    assert (event.seq, event.server, event.instance, event.generation) == (1, "time", "time@2", 3)
    assert (event.old, event.new, event.reason) == ("READY", "EXITED", "signal: killed by SIGKILL")
    assert one.add("other").seq == 2


@pytest.mark.parametrize(
    ("after", "expected"),
    [(0, [1, 2, 3]), (2, [3]), (3, []), (99, []), (-1, [3]), (-2, [2, 3]), (-99, [1, 2, 3])],
)
def test_where_a_feed_begins(after: int, expected: list[int]) -> None:
    one = log()
    add(one, 3)

    assert told(one.feed(after).take()) == expected


def test_what_is_forgotten_is_a_gap() -> None:
    one = log(remembered=3)
    add(one, 8)

    assert told(one.feed(2).take()) == ["gap 3", 6, 7, 8]
    assert told(one.feed(-8).take()) == ["gap 5", 6, 7, 8]


def test_what_was_taken_does_not_come_again() -> None:
    one = log()
    add(one, 2)
    feed = one.feed(0)

    assert told(feed.take()) == [1, 2]
    add(one, 1)
    assert told(feed.take()) == [3]
    assert feed.take() == []


async def test_a_feed_waits_for_what_comes_next() -> None:
    one = log()
    feed = one.feed(0)
    waiting = asyncio.ensure_future(following(feed))
    await asyncio.sleep(0)
    assert not waiting.done()

    add(one, 2)

    assert (await waiting, await following(feed)) == (1, 2)


async def test_a_reader_that_is_too_slow_gets_a_gap_and_hinders_nobody() -> None:
    one = log(remembered=3)
    slow, quick = one.feed(0), one.feed(0)
    seen = []
    for number in range(1, 11):
        add(one, 1)
        seen.append(await following(quick))
        assert seen[-1] == number

    assert [await following(slow) for _ in range(4)] == ["gap 7", 8, 9, 10]


async def test_take_in_the_middle_of_a_gap_gives_the_rest_of_it() -> None:
    one = log(remembered=2)
    add(one, 5)
    feed = one.feed(0)

    assert await following(feed) == "gap 3"
    assert told(feed.take()) == [4, 5]


async def test_many_readers_hear_the_same() -> None:
    one = log()
    feeds = [one.feed(0) for _ in range(50)]
    waiting = asyncio.gather(*map(following, feeds))
    await asyncio.sleep(0)

    add(one, 1)

    assert await waiting == [1] * 50
    assert not one._readers


async def test_a_closed_feed_ends_also_while_it_waits() -> None:
    feed = log().feed(0)
    reading = asyncio.ensure_future(collect(feed))
    await asyncio.sleep(0)

    feed.close()
    feed.close()

    async with asyncio.timeout(5):
        assert await reading == []


async def test_when_the_daemon_goes_down_feeds_end_behind_the_last_event() -> None:
    one = log()
    feed = one.feed(0)
    reading = asyncio.ensure_future(collect(feed))
    await asyncio.sleep(0)

    add(one, 2)
    one.close()

    async with asyncio.timeout(5):
        assert told(await reading) == [1, 2]


def test_a_reason_of_any_length_fits() -> None:
    assert len(log().add(reason="x" * 100_000).reason) < TEXT_LIMIT + 10


def test_numbers_and_history_go_on_in_the_next_daemon(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "mcpd.db")
    add(log(store=store), 7)
    store.close()
    store = Store.open(tmp_path / "mcpd.db")
    try:
        one = log(store=store)
        add(one, 1)

        assert told(one.feed(0).take()) == ["gap 3", 4, 5, 6, 7, 8]
    finally:
        store.close()


def test_a_history_with_a_hole_counts_from_behind_the_hole(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "mcpd.db")
    try:
        store.add_events([b'{"kind":"event","seq":%d,"at":1.0}' % seq for seq in (1, 2, 5, 6)])

        assert told(log(store=store).feed(0).take()) == ["gap 4", 5, 6]
    finally:
        store.close()


async def collect(feed: Feed) -> list[Event | Gap]:
    return [entry async for entry in feed]
