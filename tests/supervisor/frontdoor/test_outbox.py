"""The bounded queue in front of one reader."""

from __future__ import annotations

import asyncio

import pytest

from mcpd.frontdoor.outbox import Outbox, State

pytestmark = pytest.mark.anyio


async def test_what_is_offered_is_taken_in_order_and_joined() -> None:
    outbox = Outbox()
    assert outbox.offer(b"a")
    assert outbox.offer(b"b")
    assert outbox.held == 2

    assert await outbox.take() == b"ab"
    assert outbox.held == 0


async def test_a_waiting_reader_is_woken() -> None:
    outbox = Outbox()
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        reader = group.create_task(outbox.take())
        group.create_task(_later(outbox.offer, b"x"))

    assert reader.result() == b"x"


async def test_a_full_outbox_refuses_and_keeps_what_it_has() -> None:
    outbox = Outbox(limit=3)
    assert outbox.offer(b"ab")
    assert not outbox.offer(b"cd")
    assert outbox.offer(b"c")

    assert await outbox.take() == b"abc"
    assert outbox.offer(b"cd")


async def test_one_chunk_larger_than_the_limit_passes_when_nothing_waits() -> None:
    outbox = Outbox(limit=3)
    assert outbox.offer(b"abcdef")
    assert not outbox.offer(b"g")

    assert await outbox.take() == b"abcdef"


async def test_after_close_the_rest_is_taken_then_the_end() -> None:
    outbox = Outbox()
    outbox.offer(b"a")
    outbox.close()

    assert not outbox.offer(b"b")
    assert await outbox.take() == b"a"
    assert await outbox.take() is None


async def test_abort_throws_away_what_waits() -> None:
    outbox = Outbox()
    outbox.offer(b"a")
    outbox.abort()
    outbox.close()

    assert outbox.state is State.ABORTED
    assert outbox.held == 0
    assert await outbox.take() is None


async def test_close_wakes_a_waiting_reader() -> None:
    outbox = Outbox()
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        reader = group.create_task(outbox.take())
        group.create_task(_later(outbox.close))

    assert reader.result() is None


async def test_a_cancelled_reader_loses_nothing() -> None:
    outbox = Outbox()
    reader = asyncio.ensure_future(outbox.take())
    await _later(lambda: None)
    outbox.offer(b"a")
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader

    assert await outbox.take() == b"a"


async def _later(do, *arguments) -> None:  # type: ignore[no-untyped-def]
    await asyncio.sleep(0)
    do(*arguments)
