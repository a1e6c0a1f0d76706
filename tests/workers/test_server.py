"""The server object: what it is called, what it takes, what it offers to code."""

from contextlib import asynccontextmanager
from typing import Any

import httpx2
import mcp_types as types
import pytest
from mcp import Client as SDKClient
from mcp.client.streamable_http import streamable_http_client
from pydantic import BaseModel

from mcpworker import Context, FastMCP
from support.in_memory import LEGACY, MODERN, in_memory, text_of
from support.worker_clients import Recorder

pytestmark = pytest.mark.anyio


def test_name_has_a_default_and_shows_in_the_repr() -> None:
    assert FastMCP().name == "FastMCP"
    assert repr(FastMCP("Mine")) == "FastMCP('Mine')"
    assert FastMCP("x", "do this").instructions == "do this"
    assert FastMCP("x").instructions is None


def test_tags_are_kept() -> None:
    assert FastMCP("x", tags={"a", "b"}).tags == {"a", "b"}
    assert FastMCP("x").tags == set()


def test_annotations_may_name_the_lifespans_value() -> None:
    assert FastMCP[dict[str, int]].__origin__ is FastMCP  # type: ignore[attr-defined]


async def test_client_learns_who_the_server_is() -> None:
    server = FastMCP("Mine", "do this", version="3", title="My server", website_url="https://example.org")
    async with in_memory(server) as client:
        info = client.server_info
        assert info is not None
        assert (info.name, info.version, info.title, info.website_url) == (
            "Mine",
            "3",
            "My server",
            "https://example.org",
        )
        assert client.instructions == "do this"


@pytest.mark.parametrize("mode", [LEGACY, "auto"])
async def test_capabilities_are_what_the_server_does(mode: str) -> None:
    async with in_memory(FastMCP("x"), mode) as client:
        able = client.server_capabilities

    assert able.tools is not None
    assert able.tools.list_changed is True
    assert able.resources is not None
    assert (able.resources.list_changed, able.resources.subscribe) == (True, True)
    assert able.prompts is not None
    assert able.prompts.list_changed is True
    assert able.logging is not None
    assert able.completions is None


async def test_lifespan_gets_the_server_and_is_run_for_each_session() -> None:
    log: list[str] = []

    @asynccontextmanager
    async def lifespan(server: FastMCP[Any]) -> Any:
        log.append(f"open {server.name}")
        yield 5
        log.append("close")

    server = FastMCP("Mine", lifespan=lifespan)

    @server.tool()
    def value(ctx: Context) -> int:
        return int(ctx.lifespan_context)

    for _ in range(2):
        async with in_memory(server) as client:
            assert text_of(await client.call_tool("value")) == "5"
    assert log == ["open Mine", "close"] * 2


async def test_default_lifespan_gives_an_empty_dictionary() -> None:
    server = FastMCP("x")

    @server.tool()
    def value(ctx: Context) -> str:
        return repr(ctx.request_context.lifespan_context)

    async with in_memory(server) as client:
        assert text_of(await client.call_tool("value")) == "{}"


async def test_lifespan_that_fails_ends_the_start() -> None:
    @asynccontextmanager
    async def lifespan(_: Any) -> Any:
        raise OSError("no database")
        yield

    async def start() -> None:
        async with in_memory(FastMCP("x", lifespan=lifespan), MODERN):
            raise AssertionError("it started")

    with pytest.raises(OSError, match="no database"):
        await start()


async def test_mount_as_proxy_gives_the_mounted_server_a_session_of_its_own() -> None:
    log: list[str] = []

    @asynccontextmanager
    async def lifespan(server: FastMCP[Any]) -> Any:
        log.append("open")
        yield {}
        log.append("close")

    sub = FastMCP("Sub", lifespan=lifespan)
    sub.add_tool(lambda: "x", name="x")
    parent = FastMCP("Parent")
    parent.mount("sub", sub, as_proxy=True)

    async with in_memory(parent) as client:
        assert log == []
        assert [tool.name for tool in (await client.list_tools()).tools] == ["sub_x"]
        assert text_of(await client.call_tool("sub_x")) == "x"
        assert log == ["open"]


@pytest.mark.parametrize("options", [{"json_response": True}, {"stateless_http": True}])
@pytest.mark.parametrize("mode", [LEGACY, MODERN])
async def test_http_application_serves_in_its_other_ways(options: dict[str, bool], mode: str) -> None:
    class Answer(BaseModel):
        name: str

    server = FastMCP("x")

    @server.tool()
    async def ask(ctx: Context) -> str:
        return (await ctx.elicit("?", Answer)).action

    server.add_tool(lambda: "x", name="x")
    app = server.streamable_http_app(host="127.0.0.1", **options)
    async with app.router.lifespan_context(app):
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:1") as http:
            peer = streamable_http_client("http://127.0.0.1:1/mcp", http_client=http)
            callbacks = Recorder().callbacks()
            async with SDKClient(peer, mode=mode, cache=None, **callbacks) as client:  # type: ignore[arg-type]
                assert text_of(await client.call_tool("x")) == "x"
                result = await client.call_tool("ask")
                if mode == MODERN:
                    assert text_of(result) == "accept"
                else:
                    assert result.is_error
                    assert "no way to ask the client" in text_of(result) or "does not support" in text_of(result)


def test_stdio_is_the_default_transport(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    async def run_stdio_async(self: FastMCP[Any]) -> None:
        calls.append(self.name)

    monkeypatch.setattr(FastMCP, "run_stdio_async", run_stdio_async)
    FastMCP("a").run()
    FastMCP("b").run("stdio")

    assert calls == ["a", "b"]


async def test_unknown_cursor_and_fields_do_no_harm() -> None:
    server = FastMCP("x")
    server.add_tool(lambda: "x", name="x")

    async with in_memory(server) as client:
        params = types.PaginatedRequestParams(cursor="nonsense")
        assert len((await client.session.list_tools(params=params)).tools) == 1
        await client.session.send_ping()
