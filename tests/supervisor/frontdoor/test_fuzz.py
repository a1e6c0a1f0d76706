"""Random bytes and random requests on real sockets: always an answer or a closed connection, never a fault."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.door import BOTH, TOKEN, Client, Door, call, open_door

METHODS = ["GET", "POST", "DELETE", "PUT", "OPTIONS", "HEAD", "get", "P\x00ST"]
PATHS = ["/mcp", "/servers/one/mcp", "/sse", "/messages/", "/messages/?session_id=x", "/%00", "/servers/%ff/mcp", "*"]
PATHS += ["/healthz", "/readyz/", "/metrics", "/metrics?x=%", "//metrics", "/.well-known/oauth-protected-resource"]
PATHS += ["/.well-known/oauth-protected-resource/servers/one/mcp", '/.well-known/oauth-protected-resource/%ff%00/"x']
HEADERS = {
    "host": ["localhost", "127.0.0.1:1", "evil.example", "", "[::1", "a\tb"],
    "authorization": [f"Bearer {TOKEN}", "Bearer", "Basic x", ""],
    "accept": [BOTH, "*/*", "application/json", "text/event-stream", ";,;q=", ""],
    "content-type": ["application/json", "application/json; charset=latin-1", "text/plain", ";"],
    "mcp-protocol-version": ["2025-11-25", "2026-07-28", "x", ""],
    "last-event-id": ["c1-1", "p1-0", "-", "c99999999999999999999-1", "\xff"],
    "origin": ["http://localhost", "null", "http://[", "://"],
    "expect": ["100-continue"],
    "connection": ["close", "keep-alive", "upgrade"],
    "upgrade": ["websocket", "h2c"],
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
MEMBERS = st.fixed_dictionaries(
    {},
    optional={
        "jsonrpc": st.just("2.0") | JSON,
        "id": st.integers(0, 3) | JSON,
        "method": st.sampled_from(["initialize", "tools/call", "tools/list", "ping", "notifications/cancelled"]) | JSON,
        "params": st.just({"name": "echo", "arguments": {}}) | JSON,
        "result": JSON,
        "error": JSON,
    },
)
BODY = st.binary(max_size=60) | (MEMBERS | st.lists(MEMBERS, max_size=3) | JSON).map(lambda m: json.dumps(m).encode())


@st.composite
def requests(draw: st.DrawFn) -> tuple[bytes, dict[str, str], bytes]:
    """Request line, headers, body; nearly right more often than not."""
    line = f"{draw(st.sampled_from(METHODS))} {draw(st.sampled_from(PATHS))} HTTP/1.1"
    headers = {name: draw(st.sampled_from(HEADERS[name])) for name in draw(st.sets(st.sampled_from(sorted(HEADERS))))}
    for name in ("host", "authorization", "accept", "content-type"):
        if draw(st.integers(0, 3)):
            headers[name] = HEADERS[name][0]
    return line.encode("latin-1"), headers, draw(BODY)


async def exchange(door: Door, data: bytes) -> bytes:
    """Send, say that nothing more comes, and read a moment's worth of what comes back."""
    reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
    try:
        writer.write(data)
        writer.write_eof()
        async with asyncio.timeout(5):
            return await reader.read(65536)
    except ConnectionError:
        return b""
    finally:
        writer.close()


def check(door: Door, answer: bytes) -> None:
    assert not answer.startswith(b"HTTP/1.1 5") or answer.startswith(b"HTTP/1.1 503")
    assert door.context.counters.errors == 0


async def still_serves(door: Door) -> None:
    async with Client(door) as client:
        await client.initialize()
        assert (await client.post(call(1, "echo"))).status_code == 200
        await client.delete()


def run(examples: list[bytes], within_session: bool, caplog: pytest.LogCaptureFixture) -> Any:
    async def go() -> None:
        async with open_door() as door, Client(door) as client:
            await client.initialize("2025-03-26")
            id = client.http.headers["mcp-session-id"].encode()
            for data in examples:
                check(door, await exchange(door, data.replace(b"SESSION", id) if within_session else data))
            await still_serves(door)
        assert not [record for record in caplog.records if record.levelname == "ERROR"]

    return go()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(examples=st.lists(requests(), min_size=5, max_size=20), with_session=st.booleans())
def test_requests_that_are_nearly_right(
    examples: list[tuple[bytes, dict[str, str], bytes]], with_session: bool, caplog: pytest.LogCaptureFixture
) -> None:
    wire = []
    for line, headers, body in examples:
        if with_session:
            headers = {**headers, "mcp-session-id": "SESSION"}
        if line.startswith(b"GET") and "text/event-stream" in headers.get("accept", "*/*"):
            headers["connection"] = "close"
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode("latin-1")
        wire.append(line + b"\r\n" + head + b"content-length: %d\r\n\r\n" % len(body) + body)
    asyncio.run(run(wire, with_session, caplog))


def test_random_bytes(caplog: pytest.LogCaptureFixture) -> None:
    chance = random.Random(4)
    good = (
        f"POST /servers/one/mcp HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nAccept: {BOTH}\r\n"
        "Content-Type: application/json\r\nMcp-Session-Id: SESSION\r\nContent-Length: 46\r\n\r\n"
        '{"jsonrpc":"2.0","id":1,"method":"tools/list"}'
    ).encode()
    examples = [chance.randbytes(chance.randrange(1, 300)) for _ in range(150)]
    for _ in range(300):
        data = bytearray(good)
        for _ in range(chance.randrange(1, 5)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        examples.append(bytes(data))
    asyncio.run(run(examples, True, caplog))
