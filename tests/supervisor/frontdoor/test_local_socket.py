"""The local socket, over a real one, on both loops that may run it."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from mcpd.errors import Overloaded, ServerFault
from mcpd.fleet.relay import Relay
from mcpd.frontdoor import local_socket
from mcpd.frontdoor.local_socket import LocalSocket
from mcpd.frontdoor.outbox import OUTBOX_LIMIT
from mcpd.frontdoor.peers import Peers
from mcpd.frontdoor.sockets import UnixSocket
from support.door import call, initialize
from support.echo_relay import EchoChild, registry, relay_for
from support.waiting import until

pytestmark = pytest.mark.anyio
MAX_LINE = 100_000


@pytest.fixture(params=[True, False], ids=["uvloop", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": request.param}


class Peer:
    """A client of the socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def say(self, *messages: Any) -> None:
        for message in messages:
            self.writer.write(message if isinstance(message, bytes) else json.dumps(message).encode() + b"\n")
        await self.writer.drain()

    async def hear(self) -> Any:
        async with asyncio.timeout(10):
            line = await self.reader.readline()
        assert line.endswith(b"\n"), f"the connection ended after {line!r}"
        return json.loads(line)

    async def over(self) -> bool:
        """Whether the connection ends without another word."""
        async with asyncio.timeout(10):
            try:
                return await self.reader.read() == b""
            except ConnectionResetError:
                return True

    async def open(self, version: str = "2025-11-25", **capabilities: Any) -> None:
        await self.say({"mcpd": 1, "view": "server:one"}, initialize(version, **capabilities))
        assert (await self.hear())["ok"] is True
        assert (await self.hear())["result"]["protocolVersion"] == version
        await self.say({"jsonrpc": "2.0", "method": "notifications/initialized"})


class Place:
    """What a test needs of the listener."""

    def __init__(self, local: LocalSocket, path: Path, relay: Relay, child: EchoChild) -> None:
        self.local = local
        self.path = path
        self.relay = relay
        self.child = child

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Peer]:
        reader, writer = await asyncio.open_unix_connection(str(self.path), limit=1 << 24)
        try:
            yield Peer(reader, writer)
        finally:
            writer.close()

    async def deserted(self) -> None:
        """Return when no connection is open."""
        await until(lambda: not self.local.connections)


@asynccontextmanager
async def listening(path: Path, uids: tuple[int, ...] = (os.getuid(),), **settings: Any) -> AsyncIterator[Place]:
    relay, children = relay_for(registry("one", "two", **settings))
    unix = UnixSocket(path)
    local = LocalSocket(relay, unix.socket, "d4e5", MAX_LINE, Peers(uids))
    await local.start()
    try:
        yield Place(local, path, relay, children["one"])
    finally:
        local.close()
        unix.close()
        await until(lambda: not local.connections)


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with listening(tmp_path / "mcp.sock") as made:
        yield made


@pytest.mark.parametrize("view", ["all", "server:one"])
async def test_the_hello_names_the_view_and_is_answered_with_the_daemon(place: Place, view: str) -> None:
    async with place.connect() as peer:
        await peer.say({"mcpd": 1, "view": view})
        assert await peer.hear() == {"mcpd": 1, "ok": True, "daemon": "d4e5"}
        (session,) = place.relay.sessions
        assert (str(session.view), session.transport, session.principal) == (view, "stdio", f"local:{os.getuid()}")


@pytest.mark.parametrize(
    "hello",
    [
        b"GET / HTTP/1.1\r\n",
        b"{}\n",
        b"[]\n",
        b'{"mcpd":2,"view":"all"}\n',
        b'{"mcpd":1}\n',
        b'{"mcpd":1,"view":7}\n',
        b'{"mcpd":1,"view":"everything"}\n',
        b'{"mcpd":1,"view":"all:x"}\n',
        b'{"mcpd":1,"view":"server:"}\n',
        b'{"mcpd":1,"view":"view:"}\n',
        b'{"mcpd":1,"mcpd":1,"view":"all"}\n',
        b'{"mcpd":1,"view":"' + b"x" * 5000 + b'"}\n',
        b"x" * (MAX_LINE + 1) + b"\n",
    ],
)
async def test_what_is_no_hello_ends_the_connection(place: Place, hello: bytes) -> None:
    async with place.connect() as peer:
        await peer.say(hello)
        assert (await peer.hear())["error"]["code"] == "bad-hello"
        assert await peer.over()
        assert not place.relay.sessions


@pytest.mark.parametrize("view", ["server:nobody", "view:nothing"])
async def test_an_unknown_view_is_told(place: Place, view: str) -> None:
    async with place.connect() as peer:
        await peer.say({"mcpd": 1, "view": view})
        error = (await peer.hear())["error"]
        assert error["code"] == "not-found"
        assert view.partition(":")[2] in error["message"]
        assert await peer.over()


async def test_a_client_that_says_nothing_is_not_kept(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_socket, "HELLO_TIMEOUT", 0.01)
    async with place.connect() as peer:
        assert (await peer.hear())["error"]["code"] == "bad-hello"
        assert await peer.over()


async def test_connections_are_bounded(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_socket, "MAX_CONNECTIONS", 1)
    async with place.connect() as first:
        await first.open()
        async with place.connect() as second:
            assert (await second.hear())["error"]["code"] == "overloaded"
            assert await second.over()
        await first.say({"jsonrpc": "2.0", "id": 1, "method": "ping"})
        assert (await first.hear())["id"] == 1


async def test_sessions_are_bounded_by_the_relay(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any) -> Any:
        raise Overloaded("no more sessions")

    monkeypatch.setattr(place.local.relay, "open_session", full)
    async with place.connect() as peer:
        await peer.say({"mcpd": 1, "view": "all"})
        assert (await peer.hear())["error"] == {"code": "overloaded", "message": "no more sessions"}


async def test_other_errors_of_the_relay_are_told(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any) -> Any:
        raise ServerFault("no view is to be had")

    monkeypatch.setattr(place.local.relay, "open_session", broken)
    async with place.connect() as peer:
        await peer.say(b'{"mcpd":1,"view":"all"}\n{"jsonrpc":"2.0","id":1,"method":"ping"}\n')
        assert (await peer.hear())["error"] == {"code": "failed", "message": "no view is to be had"}
        assert await peer.over()


async def test_other_users_do_not_get_in(tmp_path: Path) -> None:
    async with listening(tmp_path / "mcp.sock", uids=(os.getuid() + 1,)) as place, place.connect() as peer:
        error = (await peer.hear())["error"]
        assert error["code"] == "forbidden"
        assert f"not for user {os.getuid()}" in error["message"]
        assert await peer.over()
        assert (tmp_path / "mcp.sock").stat().st_mode & 0o777 == 0o600


async def test_messages_go_both_ways_as_they_are(place: Place) -> None:
    async with place.connect() as peer:
        await peer.open(sampling={})
        await peer.say(call(1, "echo", text="a"), call("1", "steps", progress="p", count=2), call(3, "ask"))
        heard = [await peer.hear() for _ in range(5)]
        assert json.loads(heard[0]["result"]["content"][0]["text"]) == {"text": "a"}
        assert [one["params"] for one in heard[1:3]] == [{"progressToken": "p", "progress": n} for n in (0, 1)]
        assert heard[3]["id"] == "1"
        assert heard[4]["method"] == "sampling/createMessage"
        await peer.say({"jsonrpc": "2.0", "id": heard[4]["id"], "result": {"text": "sampled"}})
        assert "sampled" in str(await peer.hear())


async def test_what_belongs_to_no_call_comes_too(place: Place) -> None:
    async with place.connect() as peer:
        await peer.open()
        place.child.say({"method": "notifications/tools/list_changed"})
        assert (await peer.hear())["method"] == "notifications/tools/list_changed"


async def test_hello_and_messages_may_come_in_any_pieces(place: Place) -> None:
    lines = (
        json.dumps({"mcpd": 1, "view": "all"})
        + "\n"
        + json.dumps(initialize())
        + "\r\n\n"
        + json.dumps(call(1, "x"))
        + "\n"
    )
    for size in (1, 7, len(lines)):
        async with place.connect() as peer:
            for at in range(0, len(lines), size):
                await peer.say(lines[at : at + size].encode())
            assert (await peer.hear())["ok"]
            assert [(await peer.hear())["id"] for _ in range(2)] == [0, 1]


async def test_bad_lines_are_answered_and_the_next_one_counts(place: Place) -> None:
    async with place.connect() as peer:
        await peer.open()
        await peer.say(b"{\n", b'{"jsonrpc":"1.0","id":7,"method":"x"}\n', b"x" * (MAX_LINE + 1) + b"\n", b'{"id":1}\n')
        errors = [(await peer.hear())["error"]["code"] for _ in range(4)]
        assert errors == [-32700, -32600, -32600, -32600]
        await peer.say(call(1, "echo"))
        assert (await peer.hear())["id"] == 1


@pytest.mark.parametrize(
    ("start", "end", "id"),
    [
        ('{"jsonrpc":"2.0","id":7,"method":"x","params":{"a":"', '","id":9}}', 7),
        ('{"jsonrpc": "2.0", "id": "s-1", "method": "x", "params": {"a": "', '"}}', "s-1"),
        ('{"method":"x","params":{"a":"', '"},"jsonrpc":"2.0","id":8}', 8),
        ('{"method":"x","params":{"a":"', '","id":8}}', None),
        ('{"jsonrpc":"2.0","id":7,"result":{"a":"', '"}}', None),
        ('{"result":{"a":"', '"},"jsonrpc":"2.0","id":8}', None),
    ],
)
async def test_a_request_that_is_too_long_is_answered(place: Place, start: str, end: str, id: Any) -> None:
    """Its client would wait for ever otherwise. What is no request has no answer."""
    async with place.connect() as peer:
        await peer.open()
        await peer.say((start + "x" * 2**20 + end + "\n").encode(), call(1, "echo"))
        refused = await peer.hear()
        assert (refused["id"], refused["error"]["code"]) == (id, -32600)
        assert (await peer.hear())["id"] == 1


async def test_batches_are_part_of_one_revision_only(place: Place) -> None:
    batch = [call(1, "echo"), {"jsonrpc": "1.0"}, {"jsonrpc": "2.0", "method": "notifications/x"}, call(2, "echo")]
    async with place.connect() as peer:
        await peer.open("2025-06-18")
        await peer.say(batch)
        error = await peer.hear()
        assert (error["id"], error["error"]["code"]) == (None, -32600)
    async with place.connect() as peer:
        await peer.open("2025-03-26")
        await peer.say(batch, [])
        heard = [await peer.hear() for _ in range(4)]
        assert sorted(str(one["id"]) for one in heard) == ["1", "2", "None", "None"]


async def test_what_follows_the_end_of_a_session_is_dropped(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    async with place.connect() as peer:
        await peer.open("2025-03-26")
        taken = []

        def last(session: Any, message: Any, sink: Any) -> None:
            if message.is_request:
                taken.append(message.key)
                place.relay.end_sessions()

        monkeypatch.setattr(place.local.relay, "submit", last)
        await peer.say([call(1, "echo"), call(2, "echo")], call(3, "echo"))
        assert await peer.over()
        assert taken == [b"1"]


async def test_only_requests_are_of_an_era(place: Place) -> None:
    async with place.connect() as peer:
        ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
        await peer.say({"mcpd": 1, "view": "server:one"}, {"jsonrpc": "2.0", "method": "notifications/x"}, ping)
        await peer.hear()
        assert (await peer.hear()) == {"jsonrpc": "2.0", "id": 1, "result": {}}


META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {"sampling": {}},
}


def asked(id: Any, method: str, meta: dict[str, Any] = META, **params: Any) -> dict[str, Any]:
    """A request that stands for itself."""
    return {"jsonrpc": "2.0", "id": id, "method": method, "params": {**params, "_meta": meta}}


async def test_requests_that_stand_for_themselves_need_no_initialize(place: Place) -> None:
    async with place.connect() as peer:
        await peer.say({"mcpd": 1, "view": "server:one"}, asked("a", "server/discover"))
        await peer.hear()
        found = await peer.hear()
        assert (found["id"], found["result"]["supportedVersions"]) == ("a", ["2026-07-28"])

        await peer.say(asked(2, "tools/call", name="echo", arguments={"x": 1}))
        answer = await peer.hear()
        assert (answer["result"]["resultType"], answer["result"]["content"][0]["text"]) == ("complete", '{"x": 1}')
        assert "_meta" not in place.child.calls[-1]["params"]


async def test_requests_that_stand_for_themselves_are_known_with_escaped_slashes_too(place: Place) -> None:
    """As PHP writes them, unless it is told not to."""
    async with place.connect() as peer:
        await peer.say({"mcpd": 1, "view": "server:one"})
        await peer.say(json.dumps(asked("a", "server/discover")).replace("/", "\\/").encode() + b"\n")
        await peer.hear()
        assert "result" in await peer.hear()


async def test_both_eras_on_one_connection(place: Place) -> None:
    async with place.connect() as peer:
        await peer.open()
        await peer.say(call(1, "echo"), asked(2, "tools/call", name="echo", arguments={}))

        answers = {answer["id"]: "resultType" in answer["result"] for answer in [await peer.hear(), await peer.hear()]}
        assert answers == {1: False, 2: True}


async def test_a_session_may_speak_of_the_other_era(place: Place) -> None:
    async with place.connect() as peer:
        await peer.open()
        await peer.say(call(1, "echo", text="io.modelcontextprotocol/protocolVersion"))
        assert "resultType" not in (await peer.hear())["result"]


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ({"jsonrpc": "2.0", "id": 7, "method": "server/discover"}, -32602),
        (asked(7, "tools/list", {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}), -32602),
        (asked(7, "tools/list", {**META, "io.modelcontextprotocol/protocolVersion": "1999-01-01"}), -32022),
        (asked(7, "initialize"), -32601),
        (asked(7, "ping"), -32601),
    ],
)
async def test_requests_that_cannot_stand_for_themselves(place: Place, message: dict[str, Any], code: int) -> None:
    async with place.connect() as peer:
        await peer.say({"mcpd": 1, "view": "server:one"}, message)
        await peer.hear()
        refused = await peer.hear()
        assert (refused["id"], refused["error"]["code"]) == (7, code)
        if code == -32022:
            assert refused["error"]["data"] == {"supported": ["2026-07-28"], "requested": "1999-01-01"}


async def test_an_id_in_use_is_refused(place: Place) -> None:
    async with place.connect() as peer:
        await peer.say({"mcpd": 1, "view": "server:one"}, *[asked(7, "tools/call", name="hold", arguments={})] * 2)
        await peer.hear()
        assert (await peer.hear())["error"]["code"] == -32600
        await until(lambda: bool(place.child.held))
        place.child.release()
        assert (await peer.hear())["result"]["content"][0]["text"] == "released"


async def test_a_request_that_stands_for_itself_can_be_cancelled(place: Place) -> None:
    async with place.connect() as peer:
        await peer.say({"mcpd": 1, "view": "server:one"}, asked(7, "tools/call", name="hold", arguments={}))
        await peer.hear()
        await until(lambda: bool(place.child.held))
        await peer.say({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 7}})
        await until(lambda: place.child.cancelled == place.child.held)
        place.child.release()
        await peer.say(asked(7, "tools/call", name="echo", arguments={}))
        assert (await peer.hear())["result"]["content"][0]["text"] == "{}"


async def test_a_subscription_lives_until_it_is_cancelled(place: Place) -> None:
    async with place.connect() as peer:
        wanted = {"notifications": {"toolsListChanged": True}}
        await peer.say({"mcpd": 1, "view": "server:one"}, asked("s", "subscriptions/listen", **wanted))
        await peer.hear()
        tag = {"io.modelcontextprotocol/subscriptionId": "s"}
        acknowledged = await peer.hear()
        assert acknowledged["method"] == "notifications/subscriptions/acknowledged"
        assert acknowledged["params"] == {**wanted, "_meta": tag}

        place.child.say({"method": "notifications/tools/list_changed"})
        changed = await peer.hear()
        assert (changed["method"], changed["params"]["_meta"]) == ("notifications/tools/list_changed", tag)

        await peer.say({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "s"}})
        await peer.say(asked(1, "server/discover"))
        assert (await peer.hear())["id"] == 1
        place.child.say({"method": "notifications/tools/list_changed"})
        await peer.say(asked(2, "server/discover"))
        assert (await peer.hear())["id"] == 2


async def test_a_subscription_ends_gracefully_with_the_daemon(place: Place) -> None:
    async with place.connect() as peer:
        await peer.say({"mcpd": 1, "view": "server:one"}, asked("s", "subscriptions/listen", notifications={}))
        await peer.hear()
        await peer.hear()
        place.relay.end_sessions()
        assert (await peer.hear())["result"]["resultType"] == "complete"


async def test_what_a_client_was_asked_is_given_up_with_its_connection(place: Place) -> None:
    async with place.connect() as peer:
        await peer.say({"mcpd": 1, "view": "server:one"}, asked(7, "tools/call", name="ask", arguments={}))
        await peer.hear()
        result = (await peer.hear())["result"]
        assert result["resultType"] == "input_required"
    await place.deserted()

    async with place.connect() as peer:  # another client, though it is the same user
        retry = asked(1, "tools/call", name="ask", arguments={}, requestState=result["requestState"])
        await peer.say({"mcpd": 1, "view": "server:one"}, retry)
        await peer.hear()
        assert (await peer.hear())["error"]["code"] == -32602
    ticking = asyncio.ensure_future(place.relay.run())
    await until(lambda: bool(place.child.cancelled))
    ticking.cancel()


async def test_requests_of_a_closed_connection_are_cancelled(place: Place) -> None:
    async with place.connect() as peer:
        await peer.say({"mcpd": 1, "view": "server:one"}, asked(7, "tools/call", name="hold", arguments={}))
        await until(lambda: bool(place.child.held))
    await place.deserted()
    await until(lambda: place.child.cancelled == place.child.held)


async def test_overload_is_told_to_whom_it_concerns(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    async with place.connect() as peer:
        await peer.open()

        def full(*args: Any) -> None:
            raise Overloaded("too many calls", retry_after=2.0)

        with monkeypatch.context() as patch:
            patch.setattr(place.local.relay, "submit", full)
            await peer.say({"jsonrpc": "2.0", "method": "notifications/x"}, call(1, "echo"))
            error = (await peer.hear())["error"]
        assert error == {"code": -32000, "message": "too many calls", "data": {"retryAfter": 2.0}}


async def test_a_closed_connection_closes_its_session_and_calls(place: Place) -> None:
    async with place.connect() as peer:
        await peer.open()
        await peer.say(call(1, "hold"))
        await until(lambda: bool(place.child.held))
    await place.deserted()
    await until(lambda: place.child.cancelled == place.child.held)
    assert not place.relay.sessions


async def test_a_session_that_ends_closes_the_connection_after_what_was_said(place: Place) -> None:
    async with place.connect() as peer:
        await peer.open()
        await peer.say(call(1, "hold"))
        await until(lambda: bool(place.child.held))
        place.child.release()
        place.relay.end_sessions()
        assert (await peer.hear())["id"] == 1
        assert await peer.over()


async def test_the_end_of_the_daemon_closes_everything(place: Place) -> None:
    async with place.connect() as peer, place.connect() as silent:
        await peer.open()
        await until(lambda: len(place.local.connections) == 2)
        place.local.close()
        assert await peer.over()
        assert await silent.over()
        await place.deserted()
        assert not place.relay.sessions
        with pytest.raises(OSError):
            await asyncio.open_unix_connection(str(place.path))


async def test_a_client_that_does_not_read_is_cut_off_and_nobody_else(place: Place) -> None:
    async with place.connect() as good:
        await good.open()
        with socket.socket(socket.AF_UNIX) as bad:
            bad.connect(str(place.path))
            lines = [{"mcpd": 1, "view": "server:one"}, initialize()]
            lines += [call(number, "big", size=1_000_000) for number in range(1, 20)]
            bad.sendall(b"".join(json.dumps(line).encode() + b"\n" for line in lines))
            await until(lambda: place.local.limited["slow-reader"] == 1)
            await until(lambda: len(place.local.connections) == 1)
        await good.say(call(1, "echo"))
        assert (await good.hear())["id"] == 1


async def test_a_large_answer_reaches_a_client_that_reads(place: Place) -> None:
    async with place.connect() as peer:
        await peer.open()
        await peer.say(call(1, "big", size=OUTBOX_LIMIT + 1))
        assert len((await peer.hear())["result"]["content"][0]["text"]) == OUTBOX_LIMIT + 1


async def test_nothing_more_is_read_from_a_client_that_takes_no_answers(place: Place) -> None:
    """Its requests stay in its own buffers; it gets every answer once it reads."""
    count = 400
    payload = b"".join(
        json.dumps(call(number, "echo", text="x" * 5000)).encode() + b"\n" for number in range(1, count + 1)
    )
    with socket.socket(socket.AF_UNIX) as slow:
        slow.connect(str(place.path))
        slow.sendall(b'{"mcpd":1,"view":"server:one"}\n' + json.dumps(initialize()).encode() + b"\n")
        writer = threading.Thread(target=slow.sendall, args=(payload,))
        writer.start()
        await until(lambda: any(one.paused for one in place.local.connections))
        assert len(place.child.calls) < count
        with slow.makefile("rb") as answers:
            for number in range(-1, count + 1):
                line = json.loads(await asyncio.to_thread(answers.readline))
                if number > 0:
                    assert line["id"] == number
        writer.join()
    assert not place.local.limited
