"""One response of server-sent events, and clients that do not read theirs."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from mcpd.frontdoor.asgi import EVENT_STREAM
from mcpd.frontdoor.event_stream import QUIET_TICKS, EventStream, Streams
from mcpd.wire.sse import KEEP_ALIVE
from support.door import BOTH, TOKEN, Client, Events, call, open_door
from support.waiting import until

pytestmark = pytest.mark.anyio


class Wire:
    """ASGI by hand; the client leaves when `leave` is set."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.leave = asyncio.Event()
        self.aborted = False
        self.scope = {"extensions": {"mcpd.abort": self.abort}}

    def abort(self) -> None:
        self.aborted = True
        self.leave.set()

    async def receive(self) -> dict[str, Any]:
        await self.leave.wait()
        return {"type": "http.disconnect"}

    async def send(self, event: dict[str, Any]) -> None:
        self.sent.append(event)

    @property
    def body(self) -> bytes:
        return b"".join(event.get("body", b"") for event in self.sent)


async def test_events_go_out_until_the_stream_is_closed() -> None:
    wire, streams = Wire(), Streams()
    stream = EventStream(streams, wire.scope)
    stream.offer(b"a")
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        group.create_task(stream.run(wire.receive, wire.send, EVENT_STREAM))
        await asyncio.sleep(0)
        assert len(streams) == 1
        stream.offer(b"b")
        streams.close()

    assert wire.body == b"ab"
    assert wire.sent[-1]["more_body"] is False
    assert len(streams) == 0
    assert not stream.open
    assert not stream.offer(b"c")


async def test_a_client_that_leaves_ends_the_response() -> None:
    wire, streams = Wire(), Streams()
    stream = EventStream(streams, wire.scope)
    wire.leave.set()
    async with asyncio.timeout(5):
        await stream.run(wire.receive, wire.send, EVENT_STREAM)

    assert not stream.open
    assert streams.cut_off == 0


async def test_quiet_streams_get_a_comment() -> None:
    wire, streams = Wire(), Streams()
    stream = EventStream(streams, wire.scope)
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        group.create_task(stream.run(wire.receive, wire.send, EVENT_STREAM))
        await asyncio.sleep(0)
        for _ in range(QUIET_TICKS - 1):
            streams.tick()
        stream.offer(b"a")
        for _ in range(QUIET_TICKS):
            streams.tick()
        stream.close()

    assert wire.body == b"a" + KEEP_ALIVE


async def test_an_outbox_that_runs_over_cuts_the_client_off() -> None:
    wire, streams = Wire(), Streams()
    stream = EventStream(streams, wire.scope, limit=3)
    assert stream.offer(b"abc")
    assert not stream.offer(b"d")

    assert wire.aborted
    assert streams.cut_off == 1
    assert not stream.open


async def test_without_the_extension_a_client_is_left_to_the_server() -> None:
    stream = EventStream(Streams(), {}, limit=1)
    stream.offer(b"a")
    assert not stream.offer(b"b")
    assert not stream.open


async def test_a_client_that_does_not_read_is_cut_off_and_nobody_else_waits() -> None:
    async with open_door() as door, Client(door) as client:
        await client.initialize()
        session = client.http.headers["mcp-session-id"]
        stuck = socket.socket()
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stuck.connect(("127.0.0.1", door.port))
        with stuck:
            stuck.sendall(
                f"GET {client.path} HTTP/1.1\r\nHost: localhost\r\nAccept: {BOTH}\r\n"
                f"Authorization: Bearer {TOKEN}\r\nMcp-Session-Id: {session}\r\n\r\n".encode()
            )
            await until(lambda: door.context.streams)
            push = door.relay.session(session).push  # type: ignore[union-attr]
            frame = b'{"jsonrpc":"2.0","method":"notifications/x","params":{"data":"%b"}}' % (b"x" * 100_000)
            async with asyncio.timeout(20):
                while not door.context.streams.cut_off:
                    push.deliver(frame, False)
                    assert (await client.post(call(1, "echo"))).status_code == 200
            await until(lambda: not door.context.streams)
        async with client.listen() as response:
            assert (await Events(response).next())["id"].startswith("p")
