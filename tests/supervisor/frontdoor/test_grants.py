"""Tokens with limits, through every HTTP transport: what they may not use is not there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from mcpd.wire.principal import Grants
from support.door import BOTH, TOKEN, Client, Door, Events, call, open_door

pytestmark = pytest.mark.anyio

ONE = Grants(servers=frozenset({"one"}))
ECHO = Grants(tools=frozenset({("one", "echo")}))
PAIR = Grants(views=frozenset({"pair"}))
TOKENS = {"one" * 10: ONE, "echo" * 10: ECHO, "pair" * 10: PAIR}
ONE_TOKEN, ECHO_TOKEN, PAIR_TOKEN = TOKENS
NEWER = "2026-07-28"


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    views = {"pair": ("one", "two"), "rest": ("three",)}
    async with open_door("one", "two", "three", views=views, grants=TOKENS) as door:
        yield door


async def tools(client: Client) -> list[str]:
    answer = await client.post({"jsonrpc": "2.0", "id": 5, "method": "tools/list"})
    return [tool["name"] for tool in answer.json()["result"]["tools"]]


def servers(names: list[str]) -> set[str]:
    return {name.partition("__")[0] for name in names}


@pytest.mark.parametrize(
    ("token", "path", "seen"),
    [
        (TOKEN, "/mcp", {"one", "two", "three"}),
        (ONE_TOKEN, "/mcp", {"one"}),
        (ONE_TOKEN, "/views/pair/mcp", {"one"}),
        (PAIR_TOKEN, "/mcp", {"one", "two"}),
        (PAIR_TOKEN, "/views/pair/mcp", {"one", "two"}),
        (ECHO_TOKEN, "/mcp", {"one"}),
    ],
)
async def test_lists_show_what_is_granted(door: Door, token: str, path: str, seen: set[str]) -> None:
    async with Client(door, path, token) as client:
        await client.initialize()
        assert servers(await tools(client)) == seen


@pytest.mark.parametrize(
    ("token", "path"),
    [
        (ONE_TOKEN, "/servers/two/mcp"),
        (ONE_TOKEN, "/views/rest/mcp"),
        (PAIR_TOKEN, "/servers/three/mcp"),
        (PAIR_TOKEN, "/views/rest/mcp"),
        (ECHO_TOKEN, "/servers/two/mcp"),
    ],
)
async def test_a_hidden_endpoint_is_answered_like_one_that_is_not_there(door: Door, token: str, path: str) -> None:
    kind = path.split("/")[1]
    async with Client(door, path, TOKEN) as known:
        await known.initialize()  # the path is in the cache now
    async with Client(door, path, token) as client, Client(door, f"/{kind}/unknown/mcp", token) as unknown:
        for message in (call(1, "echo"), {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {}}):
            hidden, absent = await client.post(message), await unknown.post(message)
            assert hidden.status_code == absent.status_code == 404
            name = path.split("/")[2]
            assert hidden.text.replace(f"'{name}'", "'unknown'") == absent.text
            assert path not in hidden.json()["error"]["data"]["endpoints"]
        sse = path.removesuffix("mcp") + "sse"
        assert (await client.http.get(sse, headers={"accept": "text/event-stream"})).status_code == 404


async def test_calls_go_where_they_may_only(door: Door) -> None:
    async with Client(door, "/mcp", ECHO_TOKEN) as client:
        await client.initialize()
        assert await tools(client) == ["one__echo"]
        assert "result" in (await client.post(call(1, "one__echo", x=1))).json()
        for tool in ("one__big", "two__echo", "one__none"):
            refused = (await client.post(call(2, tool))).json()["error"]
            assert refused["message"] == f"Unknown tool: {tool}"
    assert [len(child.calls) for child in door.children.values()] == [1, 0, 0]


async def test_on_a_server_s_own_endpoint_too(door: Door) -> None:
    async with Client(door, "/servers/one/mcp", ECHO_TOKEN) as client:
        await client.initialize()
        assert await tools(client) == ["echo"]
        assert "error" in (await client.post(call(2, "big", size=1))).json()
        refused = await client.post({"jsonrpc": "2.0", "id": 3, "method": "resources/list"})
        assert refused.json()["error"]["code"] == -32601
    assert door.children["one"].calls == []


async def test_over_http_and_sse(door: Door) -> None:
    async with Client(door, "/sse", ECHO_TOKEN) as client, client.listen() as response:
        events = Events(response)
        endpoint = (await events.next())["data"]

        async def ask(message: dict[str, Any]) -> dict[str, Any]:
            accepted = await client.http.post(endpoint, json=message)
            assert accepted.status_code == 202, accepted.text
            return await events.message()

        params = {"protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
        await ask({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params})
        listed = await ask({"jsonrpc": "2.0", "id": 1, "method": "tools/list"})
        assert [tool["name"] for tool in listed["result"]["tools"]] == ["one__echo"]
        assert "error" in await ask(call(2, "two__echo"))
        foreign = await client.http.post(endpoint, json=call(3, "one__echo"), headers=bearer(TOKEN))
        assert foreign.status_code == 404


async def test_without_a_handshake(door: Door) -> None:
    async def ask(path: str, method: str, name: str = "", **params: Any) -> Any:
        meta = {
            "io.modelcontextprotocol/protocolVersion": NEWER,
            "io.modelcontextprotocol/clientCapabilities": {},
            "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "1"},
        }
        headers = {"mcp-protocol-version": NEWER, "mcp-method": method, **({"mcp-name": name} if name else {})}
        if name:
            params["name"] = name
        message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": meta}}
        async with Client(door, path, ECHO_TOKEN) as client:
            return await client.http.post(path, json=message, headers=headers)

    for _ in range(2):  # through ASGI, then below it
        listed = (await ask("/mcp", "tools/list")).json()
        assert [tool["name"] for tool in listed["result"]["tools"]] == ["one__echo"]
        assert "result" in (await ask("/mcp", "tools/call", "one__echo", arguments={})).json()
        assert (await ask("/mcp", "tools/call", "two__echo", arguments={})).status_code == 400
        assert (await ask("/servers/two/mcp", "tools/list")).status_code == 404


async def test_metrics_are_for_tokens_without_limits(door: Door) -> None:
    async with Client(door, "/metrics", ONE_TOKEN) as client:
        assert (await client.http.get("/metrics")).status_code == 403
        assert (await client.http.get("/metrics", headers=bearer(TOKEN))).status_code == 200


async def test_a_session_is_of_no_use_to_another_token(door: Door) -> None:
    async with Client(door, "/mcp", ONE_TOKEN) as client:
        await client.initialize()
        stolen = await client.http.post("/mcp", json=call(1, "two__echo"), headers=bearer(PAIR_TOKEN))
        assert stolen.status_code == 404


async def test_sessions_of_somebody_end_when_they_shall(door: Door) -> None:
    async with Client(door, "/mcp", ONE_TOKEN) as gone, Client(door, "/mcp", PAIR_TOKEN) as stays:
        await gone.initialize()
        await stays.initialize()
        assert door.relay.end_sessions_of(ONE_TOKEN) == 1
        assert (await gone.post(call(1, "one__echo"))).status_code == 404
        assert (await stays.post(call(1, "one__echo"))).status_code == 200
    assert door.context.quota.total() == 1


async def test_wrong_tokens_are_slowed_down_and_right_ones_of_this_machine_are_not(door: Door) -> None:
    async with Client(door, "/mcp") as client:
        answers = [await client.http.post("/mcp", json={}, headers=bearer(f"wrong{n}")) for n in range(12)]
        assert [answer.status_code for answer in answers] == [401] * 11 + [429]
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 6
        assert "wrong tokens" in answers[-1].json()["error"]["message"]
        await client.initialize()
        door.clock.ahead += 60
        assert (await client.http.post("/mcp", json={}, headers=bearer("wrong"))).status_code == 401
        shown = (await client.http.get("/metrics")).text
        assert 'mcpd_http_limited_total{limit="auth"} 1.0' in shown


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}", "accept": BOTH}
