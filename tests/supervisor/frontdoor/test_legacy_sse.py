"""HTTP+SSE, over real HTTP: the stream that is a session, and its POSTs."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from urllib.parse import urljoin

import httpx2
import pytest
from mcp import ClientSession
from mcp.client.sse import sse_client

from mcpd.errors import Overloaded
from mcpd.frontdoor.context import Quota
from mcpd.frontdoor.event_stream import QUIET_TICKS
from support import door as doors
from support.door import OTHER_TOKEN, TOKEN, Door, Events, call, initialize, open_door
from support.waiting import until

pytestmark = pytest.mark.anyio


@pytest.fixture(params=[True, False], ids=["direct", "asgi"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """POSTs are answered below ASGI, or above: no client can tell."""
    monkeypatch.setattr(doors, "DIRECT", request.param)


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    async with open_door("one", "two", views={"both": ("one", "two")}, max_body=100_000) as made:
        yield made


class Client:
    """One session by hand."""

    def __init__(self, door: Door, path: str = "/servers/one/sse", token: str = TOKEN) -> None:
        headers = {"authorization": f"Bearer {token}"}
        self.http = httpx2.AsyncClient(base_url=door.url, timeout=10, headers=headers, trust_env=False)
        self.path = path
        self.endpoint = ""
        self.events: Events
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Client:
        accept = {"accept": "text/event-stream"}
        response = await self._stack.enter_async_context(self.http.stream("GET", self.path, headers=accept))
        self.events = Events(response)
        first = await self.events.next()
        assert first["event"] == "endpoint"
        self.endpoint = first["data"]
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.leave()
        await self.http.aclose()

    async def leave(self) -> None:
        """Close the stream."""
        await self._stack.aclose()

    async def post(self, message: Any, url: str = "", **headers: str) -> httpx2.Response:
        content = message if isinstance(message, bytes) else json.dumps(message).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        headers = {"content-type": "application/json", **named}
        return await self.http.post(url or urljoin(self.path, self.endpoint), content=content, headers=headers)

    async def say(self, message: Any) -> None:
        response = await self.post(message)
        assert (response.status_code, response.content) == (202, b""), response.text

    async def ask(self, message: Any) -> Any:
        await self.say(message)
        return await self.hear()

    async def hear(self) -> Any:
        event = await self.events.next()
        assert event["event"] == "message"
        return json.loads(event["data"])

    async def open(self, version: str = "2024-11-05", **capabilities: Any) -> Any:
        answer = await self.ask(initialize(version, **capabilities))
        assert answer["result"]["protocolVersion"] == version
        await self.say({"jsonrpc": "2.0", "method": "notifications/initialized"})
        return answer["result"]


@asynccontextmanager
async def opened(door: Door, path: str = "/servers/one/sse") -> AsyncIterator[Client]:
    async with Client(door, path) as client:
        await client.open()
        yield client


@pytest.mark.parametrize(
    ("path", "messages", "echo"),
    [
        ("/sse", "/messages/?session_id=", "one__echo"),
        ("/sse/", "/messages/?session_id=", "two__echo"),
        ("/servers/one/sse", "/servers/one/messages/?session_id=", "echo"),
        ("/views/both/sse", "/views/both/messages/?session_id=", "two__echo"),
    ],
)
async def test_the_first_event_names_where_to_post(door: Door, path: str, messages: str, echo: str) -> None:
    async with Client(door, path) as client:
        assert client.endpoint.startswith(messages)
        assert len(client.endpoint) == len(messages) + 32
        await client.open()
        answer = await client.ask(call(1, echo, text="hi"))
        assert json.loads(answer["result"]["content"][0]["text"]) == {"text": "hi"}


async def test_everything_comes_on_the_stream(door: Door) -> None:
    async with Client(door) as client:
        await client.open(sampling={})
        await client.say(call("a", "steps", progress=7, count=3))
        heard = [await client.hear() for _ in range(4)]
        assert [one["params"] for one in heard[:3]] == [{"progressToken": 7, "progress": n} for n in range(3)]
        assert heard[3]["id"] == "a"

        door.child.say({"method": "notifications/tools/list_changed"})
        assert (await client.hear())["method"] == "notifications/tools/list_changed"

        asked = await client.ask(call(2, "ask"))
        assert asked["method"] == "sampling/createMessage"
        answer = await client.ask({"jsonrpc": "2.0", "id": asked["id"], "result": {"text": "sampled"}})
        assert answer["id"] == 2
        assert "sampled" in str(answer)


async def test_every_revision_with_a_handshake_is_spoken(door: Door) -> None:
    for version in ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"):
        async with Client(door) as client:
            await client.open(version)


async def test_the_official_client_is_at_home(door: Door) -> None:
    url, headers = f"{door.url}/servers/one/sse", {"authorization": f"Bearer {TOKEN}"}
    async with sse_client(url, headers=headers) as streams, ClientSession(*streams) as session:
        assert (await session.initialize()).server_info.name == "one"
        assert await session.send_ping() is not None


async def test_clients_get_their_own_answers_only(door: Door) -> None:
    async with opened(door) as one, opened(door) as other:
        for number in range(20):
            await one.say(call(number, "echo", me="one"))
            await other.say(call(number, "echo", me="other"))
        for number in range(20):
            for client, name in ((one, "one"), (other, "other")):
                answer = await client.hear()
                assert answer["id"] == number
                assert json.loads(answer["result"]["content"][0]["text"]) == {"me": name}


async def test_a_closed_stream_ends_the_session_and_its_calls(door: Door) -> None:
    async with opened(door) as client:
        await client.say(call(1, "hold"))
        await until(lambda: bool(door.child.held))
        assert door.context.quota.total() == 1
        endpoint = client.endpoint
        await client.leave()
        await until(lambda: door.child.cancelled == door.child.held)
        assert not door.relay.sessions
        assert door.context.quota.total() == 0
        assert len(door.context.streams) == 0
        assert (await client.post(call(2, "echo"), endpoint)).status_code == 404
        assert door.context.counters.sessions_closed["stream"] == 1


async def test_a_cancelled_call_is_not_answered(door: Door) -> None:
    async with opened(door) as client:
        await client.say(call(1, "hold"))
        await client.say({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}})
        assert (await client.ask(call(2, "echo")))["id"] == 2


async def test_the_relay_may_end_the_session(door: Door) -> None:
    async with opened(door) as client:
        await client.say(call(1, "hold"))
        await until(lambda: bool(door.child.held))
        door.child.release()
        door.relay.end_sessions()
        assert (await client.hear())["id"] == 1
        assert await client.events.ended()
        assert (await client.post(call(2, "echo"))).status_code == 404


@pytest.mark.parametrize("other", ["token", "view", "id", "none"])
async def test_a_session_is_of_use_to_its_principal_on_its_view_only(door: Door, other: str) -> None:
    async with opened(door) as client:
        headers, url = {}, client.endpoint
        match other:
            case "token":
                headers = {"authorization": f"Bearer {OTHER_TOKEN}"}
            case "view":
                url = url.replace("/one/", "/two/")
            case "id":
                url = url[:-1] + ("0" if url[-1] != "0" else "1")
            case "none":
                url = url.partition("?")[0]
        response = await client.post(call(1, "echo"), url, **headers)
        assert response.status_code == (400 if other == "none" else 404)
        assert response.json()["error"]["code"] == -32600
        assert not door.child.calls or door.child.calls[-1].get("method") != "tools/call"


async def test_the_session_id_may_stand_among_other_parameters(door: Door) -> None:
    async with opened(door) as client:
        path, _, query = client.endpoint.partition("?")
        assert (await client.post(call(1, "echo"), f"{path}?a=b&{query}")).status_code == 202
        assert (await client.post(call(2, "echo"), f"{path.rstrip('/')}?{query}")).status_code == 202
        assert [(await client.hear())["id"] for _ in range(2)] == [1, 2]


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        (b"{", {}, 400, -32700),
        (b"", {}, 400, -32700),
        (b'{"jsonrpc":"1.0","id":3,"method":"ping"}', {}, 400, -32600),
        (b'[{"jsonrpc":"2.0","id":3,"method":"ping"}]', {}, 400, -32600),
        (b"{}", {"content_type": "text/plain"}, 415, -32600),
        (b"[" + b" " * 100_000, {}, 413, -32600),
    ],
)
async def test_what_is_no_message_is_refused(
    door: Door, body: bytes, headers: dict[str, str], status: int, code: int
) -> None:
    async with opened(door) as client:
        response = await client.post(body, **headers)
        assert response.status_code == status
        assert response.json()["error"]["code"] == code
        assert (await client.ask(call(1, "echo")))["id"] == 1


async def test_overload_is_503_with_a_time_to_try_again(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any) -> Any:
        raise Overloaded("too many calls", retry_after=3.0)

    async with opened(door) as client:
        with monkeypatch.context() as patch:
            patch.setattr(door.relay, "submit", full)
            response = await client.post(call(9, "echo"))
        assert (response.status_code, response.headers["retry-after"]) == (503, "3")
        assert response.json()["id"] == 9
        monkeypatch.setattr(door.relay, "open_session", full)
        refused = await client.http.get("/sse")
        assert refused.status_code == 503
        assert door.context.quota.total() == 1


async def test_sessions_of_a_principal_are_bounded(door: Door) -> None:
    object.__setattr__(door.context, "quota", Quota(1))
    async with opened(door) as client:
        assert (await client.http.get("/sse")).status_code == 429
        assert (await client.ask(call(1, "echo")))["id"] == 1


async def test_messages_of_a_batch_are_answered_one_by_one(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = [call(1, "echo"), {"jsonrpc": "1.0"}, {"jsonrpc": "2.0", "method": "notifications/x"}, call(2, "echo")]
    async with Client(door) as client:
        await client.open("2025-03-26")
        await client.say(batch)
        heard = [await client.hear() for _ in range(3)]
        assert sorted(str(one["id"]) for one in heard) == ["1", "2", "None"]

        def full(*args: Any) -> Any:
            raise Overloaded("too many calls")

        monkeypatch.setattr(door.relay, "submit", full)
        assert (await client.ask([call(3, "echo")]))["error"]["message"] == "too many calls"


async def test_clients_of_the_other_era_are_sent_back_to_initialize(door: Door) -> None:
    async with Client(door) as client:
        answer = await client.ask({"jsonrpc": "2.0", "id": 1, "method": "server/discover", "params": {}})
        assert answer["error"]["code"] == -32601
        await client.open()


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [("POST", "/sse", "GET"), ("DELETE", "/servers/one/sse", "GET"), ("GET", "/messages/", "POST")],
)
async def test_other_methods_are_not_answered(door: Door, method: str, path: str, allow: str) -> None:
    async with Client(door) as client:
        response = await client.http.request(method, path, headers={"content-type": "application/json"})
        assert (response.status_code, response.headers["allow"]) == (405, allow)


async def test_streams_are_for_those_who_may_and_want_them(door: Door) -> None:
    async with httpx2.AsyncClient(base_url=door.url, trust_env=False) as stranger:
        assert (await stranger.get("/sse")).status_code == 401
        headers = {"authorization": f"Bearer {TOKEN}", "accept": "application/json"}
        assert (await stranger.get("/sse", headers=headers)).status_code == 406
        headers["accept"] = "text/event-stream"
        assert (await stranger.get("/servers/nobody/sse", headers=headers)).status_code == 404


async def test_a_quiet_stream_is_kept_alive(door: Door) -> None:
    async with opened(door) as client:
        for _ in range(QUIET_TICKS):
            door.context.streams.tick()
        assert "" in await client.events.next()
        assert (await client.ask(call(1, "echo")))["id"] == 1


async def test_a_client_that_does_not_read_is_cut_off_and_nobody_else(door: Door) -> None:
    async with opened(door) as good, Client(door) as bad:
        await bad.open()
        for number in range(40):
            if (await bad.post(call(number, "big", size=1_000_000))).status_code == 404:
                break
        assert door.context.streams.cut_off == 1
        await until(lambda: len(door.relay.sessions) == 1)
        assert (await good.ask(call(1, "echo")))["id"] == 1


async def test_a_slow_client_gets_everything_in_order(door: Door) -> None:
    async with opened(door) as client:
        for number in range(60):
            await client.say(call(number, "big", size=60_000))
        assert [(await client.hear())["id"] for _ in range(60)] == list(range(60))
        assert door.context.streams.cut_off == 0
