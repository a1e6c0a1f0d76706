"""The official client against the front door, over Streamable HTTP and HTTP+SSE."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import mcp_types as types
import pytest
from mcp import ClientSession
from mcp.client.client import Client as OfficialClient
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client

from support.door import TOKEN, Door, open_door

pytestmark = pytest.mark.anyio

HEADERS = {"authorization": f"Bearer {TOKEN}"}


@asynccontextmanager
async def session(
    door: Door, transport: str, path: str = "/servers/one", **callbacks: Any
) -> AsyncIterator[ClientSession]:
    if transport == "sse":
        streams: Any = sse_client(f"{door.url}{path}/sse", headers=HEADERS)
        async with streams as (read, write), ClientSession(read, write, **callbacks) as made:
            await made.initialize()
            yield made
    else:
        async with (
            httpx2.AsyncClient(headers=HEADERS, trust_env=False, timeout=30) as http,
            streamable_http_client(f"{door.url}{path}/mcp", http_client=http) as (read, write),
            ClientSession(read, write, **callbacks) as made,
        ):
            await made.initialize()
            yield made


@pytest.mark.parametrize("transport", ["streamable-http", "sse"])
async def test_tools_are_listed_and_called(transport: str) -> None:
    async with open_door("one", "two") as door, session(door, transport, "") as made:
        listed = await made.list_tools()
        assert {tool.name for tool in listed.tools} >= {"one__echo", "two__echo"}
        result = await made.call_tool("two__echo", {"word": "hi"})
        assert result.content[0].text == '{"word": "hi"}'  # type: ignore[union-attr]


@pytest.mark.parametrize("transport", ["streamable-http", "sse"])
async def test_progress_reaches_its_caller(transport: str) -> None:
    steps: list[float] = []

    async def progress(done: float, total: float | None, message: str | None) -> None:
        steps.append(done)

    async with open_door() as door, session(door, transport) as made:
        await made.call_tool("steps", {"count": 4}, progress_callback=progress)
        assert steps == [0, 1, 2, 3]


@pytest.mark.parametrize("transport", ["streamable-http", "sse"])
async def test_a_server_may_ask_for_a_sample(transport: str) -> None:
    async def sample(context: Any, params: types.CreateMessageRequestParams) -> types.CreateMessageResult:
        content = types.TextContent(type="text", text="sampled")
        return types.CreateMessageResult(role="assistant", content=content, model="m")

    async with open_door() as door, session(door, transport, sampling_callback=sample) as made:
        result = await made.call_tool("ask", {})
        assert "sampled" in result.content[0].text  # type: ignore[union-attr]


@pytest.mark.parametrize("transport", ["streamable-http", "sse"])
async def test_changes_of_lists_arrive_without_a_call(transport: str) -> None:
    changed = asyncio.Event()

    async def heard(message: Any) -> None:
        if isinstance(message, types.ToolListChangedNotification):
            changed.set()

    async with open_door() as door, session(door, transport, message_handler=heard) as made:
        await made.send_ping()
        door.child.say({"method": "notifications/tools/list_changed"})
        async with asyncio.timeout(10):
            await changed.wait()


async def test_twenty_sessions_at_once_get_their_own_answers() -> None:
    async with open_door() as door:

        async def use(number: int) -> None:
            transport = "sse" if number % 2 else "streamable-http"
            async with session(door, transport) as made:
                for turn in range(3):
                    result = await made.call_tool("echo", {"n": number, "turn": turn})
                    assert result.content[0].text == f'{{"n": {number}, "turn": {turn}}}'  # type: ignore[union-attr]

        async with asyncio.TaskGroup() as group:
            for number in range(20):
                group.create_task(use(number))


async def test_a_client_of_both_eras_finds_a_way() -> None:
    """It asks with `server/discover` first; whatever the answer is, calls must work."""
    async with open_door() as door, httpx2.AsyncClient(headers=HEADERS, trust_env=False, timeout=30) as http:
        transport = streamable_http_client(f"{door.url}/servers/one/mcp", http_client=http)
        async with OfficialClient(transport, mode="auto") as made:
            result = await made.call_tool("echo", {"word": "hi"})
            assert result.content[0].text == '{"word": "hi"}'  # type: ignore[union-attr]


async def test_the_client_s_end_of_a_session_is_its_end() -> None:
    async with open_door() as door:
        async with session(door, "streamable-http"):
            assert door.context.quota.total() == 1
        assert door.context.quota.total() == 0
