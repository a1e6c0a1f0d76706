"""Heads that come again: remembered when they may be, forgotten in time, and never taken for another request's."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from mcpd.frontdoor import heads, protocol
from mcpd.frontdoor.heads import TIMES, Head, Heads, without_length
from supervisor.frontdoor.test_protocol import Raw, connected
from support.door import BOTH, TOKEN, Client, Door, call, open_door

pytestmark = pytest.mark.anyio

FIELDS = [(b"host", b"localhost"), (b"content-length", b"3")]
PLAIN = b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\n"
KEY = b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Length: \r\n\r\n"


def met(raw: bytes = PLAIN, fields: list[tuple[bytes, bytes]] | None = None) -> Heads:
    found = Heads()
    for _ in range(TIMES):
        found.meet(raw, Head(b"/mcp?a=b", fields or FIELDS))
    return found


def test_a_head_is_kept_when_it_comes_again() -> None:
    found = Heads()
    for length in (b"3", b"40"):
        found.meet(PLAIN.replace(b"3", length), Head(b"/mcp?a=b", FIELDS))
    assert not found.known

    found.meet(PLAIN, Head(b"/mcp?a=b", FIELDS))
    kept = found.known[KEY]
    assert (kept.path, kept.query) == (b"/mcp", b"a=b")


@pytest.mark.parametrize(
    ("raw", "length"),
    [
        (PLAIN, 3),
        (PLAIN.replace(b"Content-Length", b"content-length"), 3),
        (PLAIN.replace(b": 3", b": 0123"), 123),
        (PLAIN.replace(b": 3", b": 3 "), -1),
        (PLAIN.replace(b": 3", b": +3"), -1),
        (PLAIN.replace(b": 3", b":3"), -1),
        (PLAIN.replace(b": 3", b": "), -1),
        (PLAIN.replace(b": 3", b": 1234567890"), -1),
        (PLAIN.replace(b"Content-Length: 3\r\n", b""), -1),
        (PLAIN.replace(b"Host", b"X-Content-Length: 5\r\nHost"), 3),
    ],
)
def test_the_length_is_taken_out_of_a_head(raw: bytes, length: int) -> None:
    key, found = without_length(raw)
    assert found == length
    assert not key or key.replace(b"ength: \r", b"ength: %d\r" % length) == raw.replace(b"0123", b"123")


def test_a_head_that_is_not_used_is_forgotten() -> None:
    found = met()
    found.age()
    assert KEY not in found.known
    assert found.find(KEY) is found.known[KEY]

    found.age()
    found.age()
    assert found.find(KEY) is None


@pytest.mark.parametrize(
    ("raw", "fields"),
    [
        (PLAIN.replace(b"localhost\r\n", b"localhost\n"), FIELDS),
        (PLAIN.replace(b"localhost", b"local\rhost"), FIELDS),
        (PLAIN.replace(b"localhost", b"localhost\r\n folded"), FIELDS),
        (b"\r\n" + PLAIN, FIELDS),
        (PLAIN, FIELDS[:1]),
        (PLAIN.replace(b"Host: localhost", b"Content-Length: 3"), [FIELDS[1], FIELDS[1]]),
        (
            PLAIN.replace(b"Content-Length: 3", b"Transfer-Encoding: chunked"),
            [FIELDS[0], (b"transfer-encoding", b"chunked")],
        ),
        (PLAIN.replace(b"localhost", b"h" * heads.LONGEST), FIELDS),
    ],
)
def test_a_head_that_could_be_read_otherwise_is_not_kept(raw: bytes, fields: list[tuple[bytes, bytes]]) -> None:
    assert not met(raw, fields).known


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads, "MOST", 10)
    found = Heads()
    for number in range(100):
        raw = PLAIN.replace(b"localhost", b"%d" % number)
        for _ in range(TIMES):
            found.meet(raw, Head(b"/", FIELDS))
        assert len(found.known) <= 10
    monkeypatch.setattr(heads, "MOST", 1000)
    monkeypatch.setattr(heads, "MOST_BYTES", 1000)
    assert len(met().known) == 1


# through the front door


VERSION = "2026-07-28"
META = {"io.modelcontextprotocol/protocolVersion": VERSION, "io.modelcontextprotocol/clientCapabilities": {}}


def stateless(number: int, tool: str = "echo", pad: int = 0, named: str = "echo") -> bytes:
    """A call of the era without sessions; its head is always the same but for the length."""
    message = call(number, tool, pad="x" * pad)
    message["params"]["_meta"] = META
    body = json.dumps(message).encode()
    lines = [f"Mcp-Method: tools/call\r\nMcp-Name: {named}\r\nMcp-Protocol-Version: {VERSION}"]
    return _post(lines, body)


def in_session(id: str, number: int, tool: str = "echo", pad: int = 0) -> bytes:
    return _post([f"Mcp-Session-Id: {id}"], json.dumps(call(number, tool, pad="x" * pad)).encode())


def _post(lines: list[str], body: bytes) -> bytes:
    head = ["POST /servers/one/mcp HTTP/1.1", "Host: localhost", f"Authorization: Bearer {TOKEN}", f"Accept: {BOTH}"]
    head += ["Content-Type: application/json", *lines, f"Content-Length: {len(body)}"]
    return ("\r\n".join(head) + "\r\n\r\n").encode() + body


def known(door: Door) -> dict[bytes, Head]:
    return door.listener._server.server_state.heads.known  # type: ignore[attr-defined, no-any-return]


@asynccontextmanager
async def warm(**settings: Any) -> AsyncIterator[tuple[Door, str, Raw]]:
    """A connection whose next small calls have known heads, of either era."""
    async with open_door(**settings) as door, Client(door) as client, connected(door) as raw:
        await client.initialize()
        id = client.http.headers["mcp-session-id"]
        for number in range(4):
            raw.send(stateless(number))
            assert (await raw.answer())["id"] == number
            raw.send(in_session(id, number))
            assert (await raw.answer())["id"] == number
        assert len(known(door)) == 2
        yield door, id, raw


async def test_requests_with_a_known_head_are_served_as_others_are() -> None:
    async with warm() as (door, id, raw):
        for number in range(5):
            raw.send(stateless(number), in_session(id, number + 1))
            assert [(await raw.answer())["id"] for _ in range(2)] == [number, number + 1]
        assert len(known(door)) == 2


async def test_a_body_that_comes_in_pieces_and_the_next_request_with_it() -> None:
    async with warm() as (door, id, raw):
        for request in (stateless(5), in_session(id, 6)):
            both = request + request
            for cut in (len(request) - 150, len(request) - 1, len(request), len(request) + 1, len(both) - 1):
                raw.send(both[:cut])
                await raw.writer.drain()
                async with connected(door) as other:  # when this is answered, what was sent before is there
                    other.send(in_session(id, 1))
                    await other.answer()
                raw.send(both[cut:])
                answers = [await raw.answer() for _ in range(2)]
                assert answers[0]["id"] == answers[1]["id"] in (5, 6)


async def test_many_requests_in_a_row_that_are_answered_at_once() -> None:
    async with warm() as (_, id, raw):
        said = {"jsonrpc": "2.0", "method": "notifications/initialized"}
        for count in (1, 2, 3, 2000):
            raw.send(_post([f"Mcp-Session-Id: {id}"], json.dumps(said).encode()) * count)
            for _ in range(count):
                assert (await raw.response())[0] == 202
        raw.send(in_session(id, 1))
        assert (await raw.answer())["id"] == 1


async def test_a_large_body_behind_a_known_head() -> None:
    async with warm() as (_, id, raw):
        for number in range(5):
            raw.send(stateless(number, pad=300_000), in_session(id, number, pad=300_000))
            for _ in range(2):
                answer = await raw.answer()
                assert answer["id"] == number
                assert len(answer["result"]["content"][0]["text"]) > 300_000


async def test_a_call_under_way_holds_back_a_request_with_a_known_head() -> None:
    async with warm() as (door, id, raw):
        before = len(door.child.calls)
        raw.send(in_session(id, 1, "hold"))
        await door.child.arrived(before + 1)
        raw.send(in_session(id, 2), stateless(3))
        door.child.release()
        assert [(await raw.answer())["id"] for _ in range(3)] == [1, 2, 3]


async def test_headers_and_body_are_compared_each_time() -> None:
    async with warm() as (_, _, raw):
        for _ in range(3):
            raw.send(stateless(1, "hold"))
            status, _, body = await raw.response()
            assert (status, json.loads(body)["error"]["code"]) == (400, -32020)
            raw.send(stateless(1))
            assert (await raw.answer())["id"] == 1
            raw.send(stateless(2, named="hold"))
            status, _, body = await raw.response()
            assert (status, json.loads(body)["error"]["code"]) == (400, -32020)


async def test_a_token_is_looked_at_each_time() -> None:
    async with warm() as (door, id, raw):
        door.app._guard._authenticator._verify = lambda token: None  # type: ignore[attr-defined]
        for request in (stateless(1), in_session(id, 1)):
            raw.send(request)
            assert (await raw.response())[0] == 401


async def test_a_session_is_looked_for_each_time() -> None:
    async with warm() as (_, id, raw):
        raw.send(f"DELETE /servers/one/mcp HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n".encode())
        raw.send(f"Mcp-Session-Id: {id}\r\n\r\n".encode())
        assert (await raw.response())[0] in (200, 204)
        raw.send(in_session(id, 1))
        assert (await raw.response())[0] == 404
        raw.send(stateless(1))
        assert (await raw.answer())["id"] == 1


async def test_a_body_that_never_comes_behind_a_known_head_is_given_up() -> None:
    async with warm() as (door, id, raw):
        raw.send(in_session(id, 1)[:-5])
        async with connected(door) as other:
            other.send(in_session(id, 2))
            await other.answer()
        after = asyncio.get_running_loop().time() + protocol.Bounds().request_timeout + 5
        for connection in list(door.listener._server.server_state.connections):
            connection.expire(after)  # type: ignore[attr-defined]
        assert (await raw.closed()).startswith(b"HTTP/1.1 408 ")


async def test_refusals_are_not_remembered() -> None:
    async with warm() as (door, _, raw):
        for _ in range(4):
            raw.send(in_session("0" * 32, 1))
            assert (await raw.response())[0] == 404
        assert len(known(door)) == 2


async def test_a_request_that_turns_out_to_be_for_asgi() -> None:
    """Without session and revision it is the body that says of which era a request is."""
    async with warm() as (_, _, raw):
        old = json.dumps(
            {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "2025-06-18"}}
        )
        new = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "server/discover", "params": {"_meta": META}})
        size = max(len(old), len(new))
        for _ in range(3):
            raw.send(_post([], new.ljust(size).encode()))
            status, _, body = await raw.response()
            assert (status, json.loads(body)["error"]["code"]) == (400, -32020)
            raw.send(_post([], old.ljust(size).encode()))
            assert (await raw.answer())["result"]["protocolVersion"] == "2025-06-18"
