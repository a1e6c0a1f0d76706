"""A stream that writes by itself, before a socket that is full now and then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from mcpd.frontdoor.asgi import EVENT_STREAM
from mcpd.frontdoor.direct_stream import DirectStream
from mcpd.frontdoor.event_stream import QUIET_TICKS, Streams
from mcpd.wire.sse import KEEP_ALIVE
from support.waiting import until

pytestmark = pytest.mark.anyio


class Wire:
    """ASGI by hand: `send` waits while there is no room, as uvicorn's does while the transport is paused."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.ended = False
        self.room = asyncio.Event()
        self.room.set()
        self.gone = asyncio.Event()
        self.scope = {"extensions": {"mcpd.abort": self.gone.set}}

    async def receive(self) -> dict[str, Any]:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, event: dict[str, Any]) -> None:
        if not self.gone.is_set():
            await self.room.wait()
        if event["type"] == "http.response.body":
            self.sent.append(event["body"])
            if not event["more_body"]:
                self.ended = True
                self.gone.set()  # what ASGI says of a response that is complete

    async def turn(self) -> None:
        """Let everything happen that can."""
        for _ in range(5):
            await asyncio.sleep(0)


@asynccontextmanager
async def running(limit: int = 100) -> AsyncIterator[tuple[Wire, DirectStream, Streams]]:
    wire, streams = Wire(), Streams()
    stream = DirectStream(streams, wire.scope, limit)
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        task = group.create_task(stream.run(wire.receive, wire.send, EVENT_STREAM))
        await wire.turn()
        yield wire, stream, streams
        wire.gone.set()
        wire.room.set()
        await task
    assert len(streams) == 0
    assert not stream.open
    assert not stream.offer(b"late")


async def test_an_event_is_written_before_offer_returns() -> None:
    async with running() as (wire, stream, streams):
        assert len(streams) == 1
        assert stream.offer(b"a")
        assert stream.offer(b"b")
        assert wire.sent == [b"a", b"b"]


async def test_what_was_offered_before_the_response_began_comes_first() -> None:
    wire, streams = Wire(), Streams()
    stream = DirectStream(streams, wire.scope)
    stream.offer(b"a")
    stream.offer(b"b")
    stream.close()
    async with asyncio.timeout(10):
        await stream.run(wire.receive, wire.send, EVENT_STREAM)
    assert wire.sent == [b"ab", b""]
    assert wire.ended


async def test_what_does_not_fit_into_the_socket_waits_and_keeps_its_order() -> None:
    async with running() as (wire, stream, _):
        wire.room.clear()
        for event in (b"a", b"b", b"c"):
            assert stream.offer(event)
        assert wire.sent == []
        wire.room.set()
        await wire.turn()
        assert wire.sent == [b"a", b"bc"]
        assert stream.offer(b"d")
        assert wire.sent[-1] == b"d"


async def test_a_socket_may_be_full_again_at_once() -> None:
    async with running() as (wire, stream, _):
        wire.room.clear()
        stream.offer(b"a")
        stream.offer(b"b")
        wire.room.set()
        await asyncio.sleep(0)  # the first one is told
        wire.room.clear()
        await wire.turn()
        stream.offer(b"c")
        wire.room.set()
        await wire.turn()
        assert b"".join(wire.sent) == b"abc"


async def test_a_send_may_wait_more_than_once() -> None:
    async with running() as (wire, stream, _):
        plain = wire.send

        async def twice(event: dict[str, Any]) -> None:
            await asyncio.sleep(0.001)
            await asyncio.sleep(0.001)
            await plain(event)

        stream._send = twice
        stream.offer(b"a")
        stream.offer(b"b")
        await until(lambda: len(wire.sent) == 2)
        assert wire.sent == [b"a", b"b"]


async def test_a_reader_that_does_not_read_is_cut_off() -> None:
    async with running(limit=10) as (wire, stream, streams):
        wire.room.clear()
        assert stream.offer(b"a")
        assert stream.offer(b"12345")
        assert stream.offer(b"67890")
        assert not stream.offer(b"x")
        assert streams.cut_off == 1
        assert wire.gone.is_set()
        await wire.turn()
        assert len(streams) == 0


async def test_closing_ends_the_response_after_what_is_queued() -> None:
    async with running() as (wire, stream, _):
        wire.room.clear()
        stream.offer(b"a")
        stream.offer(b"b")
        stream.close()
        stream.close()
        assert not stream.offer(b"c")
        assert not wire.ended
        wire.room.set()
        await wire.turn()
        assert wire.sent == [b"a", b"b", b""]
        assert wire.ended


async def test_a_quiet_stream_is_kept_alive_and_a_slow_one_is_not_asked_to_be() -> None:
    async with running() as (wire, stream, streams):
        for _ in range(QUIET_TICKS):
            streams.tick()
        assert wire.sent == [KEEP_ALIVE]
        stream.offer(b"a")
        wire.room.clear()
        stream.offer(b"b")
        for _ in range(2 * QUIET_TICKS):
            streams.tick()
        wire.room.set()
        await wire.turn()
        assert wire.sent == [KEEP_ALIVE, b"a", b"b"]


async def test_a_client_may_leave_while_an_event_waits_for_room() -> None:
    async with running() as (wire, stream, streams):
        wire.room.clear()
        stream.offer(b"a")
        wire.gone.set()
        await wire.turn()
        assert len(streams) == 0
        wire.room.set()
        await wire.turn()
        assert wire.sent == []
