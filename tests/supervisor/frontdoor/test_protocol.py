"""HTTP/1.1 on raw sockets: what a polite client never sends, and what comes back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from mcpd.frontdoor import protocol, streamable_http
from mcpd.frontdoor.listener import KEEP_ALIVE
from support import door as door_module
from support.door import BOTH, TOKEN, Client, Door, call, initialize, open_door
from support.waiting import until

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True, params=["direct", "asgi"])
def lane(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(door_module, "DIRECT", request.param == "direct")
    lane: str = request.param
    return lane


class Raw:
    """One connection, byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, *data: bytes) -> None:
        self.writer.writelines(data)

    async def response(self) -> tuple[int, dict[str, str], bytes]:
        """The next response: status, headers, body (an event stream's is left unread)."""
        async with asyncio.timeout(10):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:] if line)}
            length = int(headers.get("content-length", 0))
            return int(head[0].split()[1]), headers, await self.reader.readexactly(length)

    async def answer(self) -> Any:
        status, _, body = await self.response()
        assert status == 200
        return json.loads(body)

    async def closed(self) -> bytes:
        """What comes until the other side closes."""
        async with asyncio.timeout(10):
            try:
                return await self.reader.read()
            except ConnectionResetError:
                return b""


@asynccontextmanager
async def connected(door: Door) -> AsyncIterator[Raw]:
    reader, writer = await asyncio.open_connection("127.0.0.1", door.port, limit=2**24)
    try:
        yield Raw(reader, writer)
    finally:
        writer.close()


def head(session: str, length: int | None, *more: str, path: str = "/servers/one/mcp") -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {TOKEN}", f"Accept: {BOTH}"]
    lines += ["Content-Type: application/json", f"Mcp-Session-Id: {session}", *more]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def post(session: str, message: Any, *more: str) -> bytes:
    body = message if isinstance(message, bytes) else json.dumps(message).encode()
    return head(session, len(body), *more) + body


@asynccontextmanager
async def session(**settings: Any) -> AsyncIterator[tuple[Door, str, Raw]]:
    async with open_door(**settings) as door, Client(door) as client, connected(door) as raw:
        await client.initialize()
        yield door, client.http.headers["mcp-session-id"], raw


async def test_many_requests_on_one_connection() -> None:
    async with session() as (_, id, raw):
        for number in range(5):
            raw.send(post(id, call(number, "echo")))
            assert (await raw.answer())["id"] == number


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with session() as (door, id, raw):
        raw.send(post(id, call(1, "hold")), post(id, call(2, "echo")), post(id, call(3, "echo")))
        await door.child.arrived(1)
        door.child.release()

        assert [(await raw.answer())["id"] for _ in range(3)] == [1, 2, 3]


async def test_a_pipelined_request_waits_for_a_stream() -> None:
    async with session() as (_, id, raw):
        raw.send(post(id, call(1, "steps", progress="p", count=2)), post(id, call(2, "echo")))
        status, headers, _ = await raw.response()
        assert (status, headers["content-type"]) == (200, "text/event-stream")
        async with asyncio.timeout(10):
            streamed = await raw.reader.readuntil(b"0\r\n\r\n")

        assert b'"done"' in streamed
        assert (await raw.answer())["id"] == 2


async def test_a_request_that_comes_byte_by_byte() -> None:
    async with session() as (_, id, raw):
        for byte in post(id, call(1, "echo", word="slow")):
            raw.send(bytes([byte]))
            await raw.writer.drain()
        assert (await raw.answer())["id"] == 1


async def test_a_chunked_body() -> None:
    async with session() as (_, id, raw):
        body = json.dumps(call(1, "echo")).encode()
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:10], body[10:])) + b"0\r\n\r\n"
        raw.send(head(id, None, "Transfer-Encoding: chunked"), chunks)
        assert (await raw.answer())["id"] == 1


async def test_a_client_that_asks_before_it_sends() -> None:
    async with session() as (_, id, raw):
        body = json.dumps(call(1, "echo")).encode()
        raw.send(head(id, len(body), "Expect: 100-continue"))
        assert (await raw.response())[0] == 100
        raw.send(body)
        assert (await raw.answer())["id"] == 1


@pytest.mark.parametrize("declared", [True, False])
async def test_after_a_body_that_is_too_long_the_answer_still_arrives(declared: bool) -> None:
    async with session(max_body=1024) as (_, id, raw):
        body = b"x" * 200_000
        if declared:
            raw.send(head(id, len(body)), body)
        else:
            raw.send(head(id, None, "Transfer-Encoding: chunked"), b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
        assert (await raw.response())[0] == 413


@pytest.mark.parametrize("old", ["HTTP/1.0", "close"])
async def test_connections_that_are_not_kept(old: str) -> None:
    async with session() as (_, id, raw):
        request = post(id, call(1, "echo"), "Connection: close") if old == "close" else post(id, call(1, "echo"))
        raw.send(request.replace(b"HTTP/1.1", b"HTTP/1.0", 1) if old == "HTTP/1.0" else request)
        status, headers, body = await raw.response()

        assert (status, headers["connection"], json.loads(body)["id"]) == (200, "close", 1)
        assert await raw.closed() == b""


async def test_a_request_to_upgrade_is_just_a_request() -> None:
    async with session() as (_, id, raw):
        raw.send(post(id, call(1, "echo"), "Connection: Upgrade", "Upgrade: h2c"))
        assert (await raw.response())[0] in (200, 400)


async def test_big_answers_of_direct_calls() -> None:
    async with session() as (_, id, raw):
        for size in (10, 70_000, 2_000_000, 10):
            raw.send(post(id, call(size, "big", size=size)))
            assert len((await raw.answer())["result"]["content"][0]["text"]) == size


async def test_a_client_that_leaves_while_its_call_is_under_way() -> None:
    async with session() as (door, id, raw):
        raw.send(post(id, call(1, "hold")))
        await door.child.arrived(1)
        before = door.listener.connections
        raw.writer.close()
        await until(lambda: door.listener.connections < before)
        door.child.release()
        async with connected(door) as again:
            again.send(post(id, call(3, "echo")))
            assert (await again.answer())["id"] == 3
        assert not door.child.cancelled


async def test_a_client_that_left_before_its_answer_became_a_stream() -> None:
    async with session() as (door, id, raw):
        raw.send(post(id, call(1, "hold")))
        await door.child.arrived(1)
        before = door.listener.connections
        raw.writer.close()
        await until(lambda: door.listener.connections < before)
        door.pass_time(streamable_http.STREAM_AFTER + 1)
        await until(lambda: door.context.counters.streamed and not door.context.streams)
        door.child.release()
        async with connected(door) as again:
            again.send(post(id, call(3, "echo")))
            assert (await again.answer())["id"] == 3


async def test_the_end_of_the_daemon_lets_a_call_finish() -> None:
    async with session() as (door, id, raw):
        door.listener._server._on_stop = lambda: None  # the daemon lets its servers finish first
        raw.send(post(id, call(1, "hold")))
        await door.child.arrived(1)
        door.listener.stop()
        await until(lambda: not any(one.is_serving() for one in door.listener._server.servers))
        door.child.release()
        status, headers, _ = await raw.response()

        assert (status, headers["connection"]) == (200, "close")


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET\r\n\r\n",
        b"POST /mcp HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n",
        b"POST /servers/one/mcp HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST /servers/one/mcp HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"\r\n\r\n\r\n nonsense",
    ],
)
async def test_what_is_not_http_is_refused_and_closed(garbage: bytes) -> None:
    async with session() as (_, _, raw):
        raw.send(garbage)
        assert (await raw.closed()).startswith(b"HTTP/1.1 400 ")


async def test_garbage_behind_a_call_ends_the_connection() -> None:
    async with session() as (door, id, raw):
        raw.send(post(id, call(1, "hold")))
        await door.child.arrived(1)
        raw.send(b"\x00\x00 nonsense\r\n\r\n")
        assert b"200 OK" not in await raw.closed()
        door.child.release()


async def test_a_head_without_end_is_cut_off() -> None:
    async with session() as (_, _, raw):
        raw.send(b"GET /mcp HTTP/1.1\r\nHost: localhost\r\n")
        for number in range(40):
            raw.send(b"X-%d: %b\r\n" % (number, b"y" * 4000))
        assert (await raw.closed()).startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize("begun", [b"", b"POST /mcp HTTP/1.1\r\nHo", None])
async def test_a_request_that_is_never_complete_is_given_up(begun: bytes | None, lane: str) -> None:
    async with session() as (door, id, raw):
        raw.send(head(id, 100) + b"{" if begun is None else begun)
        await until(lambda: door.listener.connections == 2)
        # what was sent is there when a later request on another connection is answered
        async with Client(door) as other:
            await other.initialize()
        now = asyncio.get_running_loop().time()
        for connection in list(door.listener._server.server_state.connections):
            connection.expire(now + protocol.Bounds().request_timeout - 5)  # type: ignore[attr-defined]
        assert not raw.reader.at_eof()
        for connection in list(door.listener._server.server_state.connections):
            connection.expire(now + protocol.Bounds().request_timeout + 5)  # type: ignore[attr-defined]
        got = await raw.closed()

        assert got.startswith(b"HTTP/1.1 408 ") or (begun is None and lane == "asgi")


async def test_a_connection_without_a_next_request_is_closed() -> None:
    async with session() as (door, id, raw):
        raw.send(post(id, call(1, "echo")))
        await raw.answer()
        now = asyncio.get_running_loop().time()
        for connection in list(door.listener._server.server_state.connections):
            connection.expire(now + KEEP_ALIVE - 5)  # type: ignore[attr-defined]
        raw.send(post(id, call(2, "echo")))
        assert (await raw.answer())["id"] == 2

        now = asyncio.get_running_loop().time()
        for connection in list(door.listener._server.server_state.connections):
            connection.expire(now + KEEP_ALIVE + 5)  # type: ignore[attr-defined]
        assert await raw.closed() == b""


async def test_a_call_that_takes_long_is_not_given_up() -> None:
    async with session() as (door, id, raw):
        raw.send(post(id, call(1, "hold")))
        await door.child.arrived(1)
        now = asyncio.get_running_loop().time()
        for connection in list(door.listener._server.server_state.connections):
            connection.expire(now + 3600)  # type: ignore[attr-defined]
        door.child.release()
        assert (await raw.answer())["id"] == 1


async def test_a_client_that_does_not_read_its_answers_waits_for_itself() -> None:
    async with session() as (door, id, raw):
        raw.writer.transport.pause_reading()  # type: ignore[attr-defined]
        raw.send(*(post(id, call(number, "big", size=1_000_000)) for number in range(30)))
        async with connected(door) as other:
            other.send(post(id, call("o", "echo")))
            assert (await other.answer())["id"] == "o"
        raw.writer.transport.resume_reading()  # type: ignore[attr-defined]
        assert [(await raw.answer())["id"] for _ in range(30)] == list(range(30))


async def test_an_unexpected_fault_is_an_error_of_that_request(monkeypatch: pytest.MonkeyPatch, lane: str) -> None:
    async with session() as (door, id, raw):

        def fail(*arguments: Any) -> None:
            raise RuntimeError("a bug")

        monkeypatch.setattr(door.relay, "submit", fail)
        raw.send(post(id, call(1, "echo")))
        assert (await raw.response())[0] == 500
        monkeypatch.undo()
        assert door.context.counters.errors == 1
        async with connected(door) as again:
            again.send(post(id, call(2, "echo")))
            assert (await again.answer())["id"] == 2


async def test_a_path_is_known_after_its_first_request(lane: str) -> None:
    async with open_door() as door, connected(door) as raw:
        assert not door.app.knows(b"/servers/one/mcp")
        body = json.dumps(initialize()).encode()
        raw.send(head("", len(body)).replace(b"Mcp-Session-Id: \r\n", b""), body)
        assert (await raw.answer())["result"]["protocolVersion"] == "2025-11-25"
        assert door.app.knows(b"/servers/one/mcp") == (lane == "direct")
        assert not door.app.knows(b"/nothing")


# bounds


async def test_connections_are_bounded() -> None:
    async with session() as (door, _, raw):
        bounds = type(next(iter(door.listener._server.server_state.connections))).bounds  # type: ignore[attr-defined]
        object.__setattr__(bounds, "connections", door.listener.connections)
        reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
        async with asyncio.timeout(10):
            assert await reader.read() == b""
        writer.close()
        assert bounds.limited["connections"] == 1
        assert not raw.reader.at_eof()


async def test_a_client_that_takes_nothing_is_cut_off() -> None:
    async with session() as (door, id, raw):
        raw.writer.transport.pause_reading()  # type: ignore[attr-defined]
        for number in range(64):
            raw.send(post(id, call(number, "big", size=2**20)))
        await door.child.arrived(4)
        everybody = door.listener._server.server_state.connections
        [mine] = await until(lambda: [one for one in everybody if one.flow.write_paused])
        now = asyncio.get_running_loop().time()
        mine.expire(now)  # type: ignore[attr-defined]
        mine.expire(now + protocol.UNREAD_TIMEOUT - 5)  # type: ignore[attr-defined]
        assert not mine.transport.is_closing()
        mine.expire(now + protocol.UNREAD_TIMEOUT + 5)  # type: ignore[attr-defined]
        assert mine.transport.is_closing()
        assert mine.bounds.limited["slow-reader"] == 1  # type: ignore[union-attr]
