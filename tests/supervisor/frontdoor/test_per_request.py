"""The era without a handshake over HTTP, by hand: what goes over the wire, through ASGI and below it."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest

from mcpd.frontdoor import per_request
from mcpd.routing.info import Lists
from support import door as door_module
from support.door import OTHER_TOKEN, TOKEN, Client, Door, Events, initialize, open_door
from support.waiting import until

pytestmark = pytest.mark.anyio

PREFIX = "io.modelcontextprotocol/"
VERSION = "2026-07-28"
META: dict[str, Any] = {PREFIX + "protocolVersion": VERSION, PREFIX + "clientCapabilities": {}}
REMOVED = ("initialize", "ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe")
NAMES = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}


@pytest.fixture(autouse=True, params=["direct", "asgi"])
def lane(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door_module, "DIRECT", request.param == "direct")


def message(method: str, /, id: Any = 1, meta: Any = META, **params: Any) -> dict[str, Any]:
    found = {**params} if meta is None else {**params, "_meta": meta}
    return {"jsonrpc": "2.0", "id": id, "method": method, "params": found}


def echo(id: Any = 1, **arguments: Any) -> dict[str, Any]:
    return message("tools/call", id, name="echo", arguments=arguments)


def headers_for(sent: dict[str, Any]) -> dict[str, str]:
    """The headers that a good client sends with this."""
    method, params = sent["method"], sent["params"]
    found = {"mcp-protocol-version": VERSION, "mcp-method": method}
    if method in NAMES and NAMES[method] in params:
        found["mcp-name"] = params[NAMES[method]]
    return found


class Caller(Client):
    """A client of this era."""

    async def ask(self, sent: dict[str, Any], **headers: str | None) -> httpx2.Response:
        """POST it as a good client does, but for these headers; None: left out."""
        merged = headers_for(sent) | {name.replace("_", "-"): value for name, value in headers.items()}
        kept = {name: value for name, value in merged.items() if value is not None}
        return await self.http.post(self.path, content=json.dumps(sent).encode(), headers=kept)

    @asynccontextmanager
    async def streaming(self, sent: dict[str, Any]) -> AsyncIterator[Events]:
        """A POST whose answer is a stream; leaving the block closes the connection."""
        body = json.dumps(sent).encode()
        async with self.http.stream("POST", self.path, content=body, headers=headers_for(sent)) as response:
            yield Events(response)


@asynccontextmanager
async def calling(**settings: Any) -> AsyncIterator[tuple[Door, Caller]]:
    async with open_door(**settings) as door, Caller(door) as client:
        await client.ask(echo())  # a path's first request goes through ASGI
        yield door, client


def error_of(response: httpx2.Response) -> tuple[int, int]:
    """Status and JSON-RPC code of a refusal, which names its request."""
    found = response.json()
    assert found["id"] == 1
    return response.status_code, found["error"]["code"]


# requests


async def test_a_request_needs_no_session_and_is_answered_as_json() -> None:
    async with calling() as (_, client):
        response = await client.ask(echo("a", word="hi"))

        assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
        assert "mcp-session-id" not in response.headers
        assert (response.json()["id"], response.json()["result"]["resultType"]) == ("a", "complete")
        assert json.loads(response.json()["result"]["content"][0]["text"]) == {"word": "hi"}


async def test_what_the_request_says_of_its_client_is_not_for_the_child() -> None:
    async with calling() as (door, client):
        await client.ask(message("tools/call", 2, {**META, "example.org/mine": 7}, name="echo", arguments={}))
        assert door.child.calls[-1]["params"] == {
            "name": "echo",
            "arguments": {},
            "_meta": {"example.org/mine": 7},
        }


async def test_discover() -> None:
    async with calling() as (_, client):
        result = (await client.ask(message("server/discover"))).json()["result"]
        assert result["supportedVersions"] == [VERSION]
        assert "tools" in result["capabilities"]
        assert {"resultType", "ttlMs", "cacheScope"} <= result.keys()


async def test_a_session_id_means_nothing() -> None:
    async with calling() as (_, client):
        assert (await client.ask(echo(), mcp_session_id="0" * 32)).status_code == 200


async def test_sessions_are_served_beside() -> None:
    async with calling() as (_, client):
        assert (await client.post(initialize(), mcp_protocol_version="2025-11-25")).status_code == 200
        assert (await client.post(initialize(), mcp_method="initialize")).status_code == 200


async def test_blanks_around_headers_do_not_matter() -> None:
    async with calling() as (door, client):
        body = json.dumps(echo()).encode()
        head = (
            f"POST {client.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {TOKEN}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
            f"MCP-Protocol-Version:\t{VERSION}  \r\nMcp-Method: \ttools/call \t\r\nMcp-Name:echo \r\n\r\n"
        )
        reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
        writer.write(head.encode() + body)
        async with asyncio.timeout(10):
            assert (await reader.read()).startswith(b"HTTP/1.1 200 OK\r\n")
        writer.close()


@pytest.mark.parametrize(
    ("body", "code"),
    [(b"{", -32700), (b"[]", -32600), (b"7", -32600), (b'{"jsonrpc":"2.0","id":1,"result":{}}', -32600)],
)
async def test_what_is_no_request_is_refused(body: bytes, code: int) -> None:
    async with calling() as (_, client):
        response = await client.post(body, mcp_protocol_version=VERSION)
        assert (response.status_code, response.json()["error"]["code"]) == (400, code)


async def test_notifications_are_accepted_and_dropped() -> None:
    async with calling() as (door, client):
        before = len(door.child.calls)
        for method in ("notifications/initialized", "notifications/cancelled", "notifications/roots/list_changed"):
            response = await client.post({"jsonrpc": "2.0", "method": method}, mcp_protocol_version=VERSION)
            assert (response.status_code, response.content) == (202, b"")
        await client.ask(echo())
        assert len(door.child.calls) == before + 1


# the ladder of checks


WITHOUT: dict[str, dict[str, Any]] = {
    "metadata": message("tools/list", meta=None),
    "an object": message("tools/list", meta=7),
    "a revision": message("tools/list", meta={PREFIX + "clientCapabilities": {}}),
    "capabilities": message("tools/list", meta={PREFIX + "protocolVersion": VERSION}),
    "capabilities as an object": message("tools/list", meta={**META, PREFIX + "clientCapabilities": 7}),
    "a revision as text": message("tools/list", meta={**META, PREFIX + "protocolVersion": 7}),
}


@pytest.mark.parametrize("sent", WITHOUT.values(), ids=WITHOUT.keys())
async def test_metadata_is_looked_at_first(sent: dict[str, Any]) -> None:
    async with calling() as (_, client):
        assert error_of(await client.ask(sent)) == (400, -32602)
        assert error_of(await client.ask(sent, mcp_method="other/thing")) == (400, -32602)


DIFFERENT: dict[str, tuple[dict[str, Any], dict[str, str | None]]] = {
    "no revision": (echo(), {"mcp_protocol_version": None}),
    "another revision": (echo(), {"mcp_protocol_version": "2025-11-25"}),
    "a revision that is not served": (
        message("tools/list", meta={**META, PREFIX + "protocolVersion": "v999.0.0"}),
        {},
    ),
    "no method": (echo(), {"mcp_method": None}),
    "another method": (echo(), {"mcp_method": "tools/list"}),
    "the method in capitals": (echo(), {"mcp_method": "Tools/Call"}),
    "no name": (echo(), {"mcp_name": None}),
    "another name": (echo(), {"mcp_name": "hold"}),
    "spoilt base64": (echo(), {"mcp_name": "=?base64?ZWNobw?="}),
    "no URI": (message("resources/read", uri="a://b"), {"mcp_name": None}),
}


@pytest.mark.parametrize(("sent", "headers"), DIFFERENT.values(), ids=DIFFERENT.keys())
async def test_headers_and_body_must_agree(sent: dict[str, Any], headers: dict[str, str | None]) -> None:
    async with calling() as (_, client):
        assert error_of(await client.ask(sent, **headers)) == (400, -32020)


@pytest.mark.parametrize("name", ["MCP-Protocol-Version", "Mcp-Method", "mcp-name"])
async def test_headers_that_stand_twice_agree_with_nothing(name: str) -> None:
    async with calling() as (_, client):
        sent = echo()
        once = headers_for(sent)
        twice = [*once.items(), (name, once[name.lower()])]
        response = await client.http.post(client.path, content=json.dumps(sent).encode(), headers=twice)
        assert error_of(response) == (400, -32020)


async def test_a_name_may_be_written_in_base64() -> None:
    async with calling() as (_, client):
        assert (await client.ask(echo(), mcp_name="=?base64?ZWNobw==?=")).status_code == 200
        far = message("prompts/get", name="Grüße")
        encoded = f"=?base64?{base64.b64encode('Grüße'.encode()).decode()}?="
        assert (await client.ask(far, mcp_name=encoded)).status_code == 200


async def test_a_revision_that_is_not_served() -> None:
    async with calling() as (_, client):
        sent = message("tools/list", meta={**META, PREFIX + "protocolVersion": "v999.0.0"})
        response = await client.ask(sent, mcp_protocol_version="v999.0.0")
        assert error_of(response) == (400, -32022)
        assert response.json()["error"]["data"] == {"supported": [VERSION], "requested": "v999.0.0"}


@pytest.mark.parametrize("path", ["/servers/one/mcp", "/mcp"])
@pytest.mark.parametrize("method", REMOVED)
async def test_methods_of_the_handshake_are_not_found(method: str, path: str) -> None:
    async with open_door() as door, Caller(door, path) as client:
        assert error_of(await client.ask(message(method))) == (404, -32601)


async def test_parameters_that_are_repeated_in_headers() -> None:
    schema = {
        "type": "object",
        "properties": {
            "region": {"type": "string", "x-mcp-header": "Region"},
            "count": {"type": "integer", "x-mcp-header": "Count"},
        },
    }
    tool = json.dumps({"name": "echo", "inputSchema": schema}).encode()
    async with calling() as (door, client):
        door.relay.catalogue("one", Lists(tools=(tool,)))

        async def status(arguments: dict[str, Any], **headers: str) -> tuple[int, int]:
            response = await client.ask(echo(**arguments), **headers)
            return error_of(response) if response.status_code != 200 else (200, 0)

        assert await status({}) == (200, 0)
        assert await status({"region": "eu", "count": 3}, mcp_param_region="eu", mcp_param_count="3") == (200, 0)
        assert await status({"region": "Hello"}, mcp_param_region="=?base64?SGVsbG8=?=") == (200, 0)
        assert await status({"region": "Hello"}, mcp_param_region="=?base64?SGVsbG8?=") == (400, -32020)
        assert await status({"region": "eu"}) == (400, -32020)
        assert await status({"region": "eu"}, mcp_param_region="us") == (400, -32020)
        assert await status({}, mcp_param_region="eu") == (400, -32020)


# answers


@pytest.mark.parametrize(
    ("code", "status"),
    [(-32600, 400), (-32601, 404), (-32602, 400), (-32603, 200), (-32021, 400), (-32000, 200), (7, 200)],
)
async def test_the_status_follows_the_error_of_the_child(code: int, status: int) -> None:
    async with calling() as (door, client):
        asked = asyncio.ensure_future(client.ask(message("tools/call", name="hold", arguments={})))
        await until(lambda: door.child.held)
        door.child.say({"id": door.child.held[0], "error": {"code": code, "message": "no", "data": {"x": 1}}})
        response = await asked
        assert error_of(response) == (status, code)
        assert response.json()["error"]["data"] == {"x": 1}


async def test_progress_makes_the_answer_a_stream() -> None:
    async with calling() as (_, client):
        sent = message("tools/call", "s", {**META, "progressToken": "mine"}, name="steps", arguments={"count": 3})
        async with client.streaming(sent) as events:
            notices = [await events.message() for _ in range(3)]
            answer = await events.message()
            assert await events.ended()

        assert [notice["params"]["progressToken"] for notice in notices] == ["mine"] * 3
        assert [notice["params"]["progress"] for notice in notices] == [0, 1, 2]
        assert (answer["id"], answer["result"]["resultType"]) == ("s", "complete")


async def test_log_messages_come_only_if_the_request_asks_for_them() -> None:
    async with calling() as (_, client):
        quiet = await client.ask(message("tools/call", name="shout", arguments={}))
        assert quiet.headers["content-type"] == "application/json"
        sent = message("tools/call", 1, {**META, PREFIX + "logLevel": "warning"}, name="shout", arguments={})
        async with client.streaming(sent) as events:
            assert (await events.message())["params"] == {"level": "error", "data": "loud"}
            assert (await events.message())["result"]["content"][0]["text"] == "shouted"


async def test_a_slow_answer_becomes_a_stream_that_is_kept_alive() -> None:
    async with calling() as (door, client):

        async def slow() -> None:
            await until(lambda: door.child.held)
            door.pass_time(per_request.STREAM_AFTER + 1)

        waiting = asyncio.ensure_future(slow())
        async with client.streaming(message("tools/call", name="hold", arguments={})) as events:
            await waiting
            for _ in range(4):
                door.pass_time(1)
            assert (await events.next())[""] == "keep-alive"
            door.child.release()
            assert (await events.message())["result"]["content"][0]["text"] == "released"


async def test_closing_the_connection_cancels_the_call() -> None:
    async with calling() as (door, client):
        asked = asyncio.ensure_future(client.ask(message("tools/call", name="hold", arguments={})))
        await until(lambda: door.child.held)
        asked.cancel()
        await asyncio.wait([asked])
        await until(lambda: door.child.cancelled == door.child.held)


async def test_closing_the_stream_cancels_the_call() -> None:
    async with calling() as (door, client):
        sent = message("tools/call", 1, {**META, PREFIX + "logLevel": "debug"}, name="hold", arguments={})
        asked = asyncio.ensure_future(until(lambda: door.child.held))
        asked.add_done_callback(
            lambda _: door.child.say({"method": "notifications/message", "params": {"level": "info", "data": "on"}})
        )
        async with client.streaming(sent) as events:
            assert (await events.message())["params"]["data"] == "on"
        await until(lambda: door.child.cancelled == door.child.held)


async def test_an_answered_call_is_not_cancelled() -> None:
    async with calling() as (door, client):
        await client.ask(echo())
    assert not door.child.cancelled


async def test_a_connection_serves_one_request_after_the_other() -> None:
    async with calling() as (_, client):
        for id in range(5):
            assert (await client.ask(echo(id))).json()["id"] == id
            refused = await client.ask(message("ping", id))
            assert (refused.status_code, refused.json()["id"]) == (404, id)


# questions


ABLE = {**META, PREFIX + "clientCapabilities": {"sampling": {}}}
SAMPLE = {"role": "assistant", "content": {"type": "text", "text": "yes"}, "model": "m"}


async def test_a_question_of_the_child_is_answered_by_calling_again() -> None:
    async with calling() as (_, client):
        asked = (await client.ask(message("tools/call", 1, ABLE, name="ask", arguments={}))).json()["result"]
        assert asked["resultType"] == "input_required"
        ((key, question),) = asked["inputRequests"].items()
        assert question == {"method": "sampling/createMessage", "params": {"messages": [], "maxTokens": 1}}

        answers = {"inputResponses": {key: SAMPLE}, "requestState": asked["requestState"]}
        answered = await client.ask(message("tools/call", 2, ABLE, name="ask", arguments={}, **answers))
        assert json.loads(answered.json()["result"]["content"][0]["text"]) == SAMPLE


async def test_a_call_that_waits_for_its_client_does_not_hold_up_the_end_of_the_server() -> None:
    async with calling() as (door, client):
        await client.ask(message("tools/call", 1, ABLE, name="ask", arguments={}))
        assert door.relay.in_flight("one") == 1
        assert door.relay.oldest_call("one") is None


async def test_nobody_else_may_answer() -> None:
    async with calling() as (door, client), Caller(door, token=OTHER_TOKEN) as other:
        asked = (await client.ask(message("tools/call", 1, ABLE, name="ask", arguments={}))).json()["result"]
        retry = message("tools/call", 1, ABLE, name="ask", arguments={}, requestState=asked["requestState"])
        assert error_of(await other.ask(retry)) == (400, -32602)


async def test_a_client_is_not_asked_what_it_cannot_answer() -> None:
    async with calling() as (_, client):
        told = (await client.ask(message("tools/call", name="ask", arguments={}))).json()["result"]
        error = json.loads(told["content"][0]["text"])
        assert (error["code"], error["data"]) == (-32021, {"requiredCapabilities": {"sampling": {}}})


# subscriptions


def listen(id: Any = "sub", **wanted: Any) -> dict[str, Any]:
    return message("subscriptions/listen", id, notifications=wanted)


async def test_a_subscription_is_acknowledged_filtered_and_tagged() -> None:
    tag = {PREFIX + "subscriptionId": "sub"}
    async with calling() as (door, client), client.streaming(listen(toolsListChanged=True)) as events:
        acknowledged = await events.message()
        assert acknowledged["method"] == "notifications/subscriptions/acknowledged"
        assert acknowledged["params"] == {"notifications": {"toolsListChanged": True}, "_meta": tag}

        door.child.say({"method": "notifications/prompts/list_changed"})
        door.child.say({"method": "notifications/tools/list_changed"})
        changed = await events.message()
        assert (changed["method"], changed["params"]) == ("notifications/tools/list_changed", {"_meta": tag})


async def test_a_subscription_to_a_resource() -> None:
    async with calling() as (door, client):
        async with client.streaming(listen(resourceSubscriptions=["a://b"])) as events:
            await events.message()
            await until(lambda: door.child.calls[-1]["method"] == "resources/subscribe")
            door.child.say({"method": "notifications/resources/updated", "params": {"uri": "a://b"}})
            assert (await events.message())["params"]["uri"] == "a://b"
        await until(lambda: door.child.calls[-1]["method"] == "resources/unsubscribe")


async def test_a_subscription_ends_with_an_answer_when_the_daemon_stops() -> None:
    async with calling() as (door, client), client.streaming(listen()) as events:
        await events.message()
        door.relay.end_sessions()
        ended = await events.message()
        assert (ended["id"], ended["result"]["resultType"]) == ("sub", "complete")
        assert ended["result"]["_meta"] == {PREFIX + "subscriptionId": "sub"}
        assert await events.ended()


async def test_a_quiet_subscription_is_kept_alive_and_gone_with_its_connection() -> None:
    async with calling() as (door, client):
        async with client.streaming(listen()) as events:
            await events.message()
            for _ in range(4):
                door.pass_time(1)
            assert (await events.next())[""] == "keep-alive"
            assert len(list(door.relay.sessions)) == 1
        await until(lambda: not list(door.relay.sessions))


# bounds


async def test_subscriptions_count_as_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    async with calling() as (door, client):
        door.context.quota.limit = 1
        async with client.streaming(listen("a")) as events:
            await events.message()
            refused = await client.ask(listen(1))
            assert error_of(refused) == (429, -32000)
            assert int(refused.headers["retry-after"]) > 0
        await until(lambda: not door.context.quota.total())
        async with client.streaming(listen("b")) as events:
            await events.message()


async def test_requests_of_one_principal_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    async with calling(max_in_flight=2) as (door, client), Caller(door, token=OTHER_TOKEN) as other:
        held = [
            asyncio.ensure_future(client.ask(message("tools/call", id, name="hold", arguments={}))) for id in (2, 3)
        ]
        await until(lambda: len(door.child.held) == 2)

        assert error_of(await client.ask(echo())) == (429, -32000)
        assert (await other.ask(echo())).status_code == 200

        door.child.release()
        await asyncio.wait(held, return_when=asyncio.FIRST_COMPLETED)
        assert (await client.ask(echo())).status_code == 200
        door.child.release()
        await asyncio.wait(held)


async def test_a_child_that_does_not_read_is_told_at_once() -> None:
    async with calling() as (door, client):
        door.child.full = True
        assert error_of(await client.ask(echo())) == (503, -32000)
        door.child.full = False
        assert (await client.ask(echo())).status_code == 200


async def test_a_server_that_is_not_there() -> None:
    async with open_door() as door, Caller(door, "/servers/two/mcp", token=TOKEN) as client:
        assert (await client.ask(echo())).status_code == 404
