"""`Context` itself: where it is available, and what it says."""

from typing import Any

import mcp_types as types
import pytest
from mcp import Client

from mcpworker import Context, FastMCP
from mcpworker.errors import NotFoundError, ResourceError
from support.in_memory import LEGACY, MODERN, asked, in_memory, text_of
from support.worker_clients import Recorder

pytestmark = pytest.mark.anyio


@pytest.fixture
def server() -> FastMCP[Any]:
    return FastMCP("Contexts")


def test_outside_a_request_only_the_server_is_known(server: FastMCP[Any]) -> None:
    context = server.get_context()

    assert context.fastmcp is server
    for name in ("request_context", "request_id", "client_id", "session", "headers", "lifespan_context"):
        with pytest.raises(ValueError, match="Context is not available outside of a request"):
            getattr(context, name)


@pytest.mark.parametrize("mode", [LEGACY, MODERN])
async def test_get_context_is_the_requests_wherever_it_is_called(server: FastMCP[Any], mode: str) -> None:
    sub = FastMCP("Sub")

    def deep(of: FastMCP[Any]) -> str:
        context = of.get_context()
        return f"{context.fastmcp.name} {context.protocol_version}"

    @sub.tool()
    async def asynchronous() -> list[str]:
        return [deep(sub), deep(server)]

    @sub.tool()
    def synchronous() -> list[str]:
        return [deep(sub), deep(server)]

    server.mount("sub", sub)
    version = "2025-11-25" if mode == LEGACY else MODERN
    async with in_memory(server, mode) as client:
        for tool in ("sub_asynchronous", "sub_synchronous"):
            result = await client.call_tool(tool)
            assert result.structured_content == {"result": [f"Sub {version}", f"Contexts {version}"]}


async def test_what_is_known_of_the_client(server: FastMCP[Any]) -> None:
    @server.tool()
    async def who(ctx: Context) -> dict[str, Any]:
        able = ctx.client_capabilities
        return {
            "client": ctx.client_id,
            "id": ctx.request_id == str(ctx.request_context.request_id),
            "headers": ctx.headers,
            "roots": able is not None and able.roots is not None,
            "session": ctx.session is ctx.request_context.session,
        }

    async with in_memory(server, list_roots_callback=Recorder().on_roots) as client:
        result = await client.call_tool("who", meta={"client_id": "me"})  # type: ignore[typeddict-unknown-key]

    assert result.structured_content == {"client": "me", "id": True, "headers": None, "roots": True, "session": True}


async def test_read_resource_reads_text_bytes_templates_and_mounts(server: FastMCP[Any]) -> None:
    sub = FastMCP("Sub")
    sub.add_resource_fn(lambda: b"\xff", "data://bytes", name="bytes", mime_type="image/png")
    server.add_resource_fn(lambda x: f"x is {x}", "data://{x}", name="x")
    server.mount("sub", sub)

    @server.tool()
    async def fn(ctx: Context) -> list[str]:
        found = [*await ctx.read_resource("data://1"), *await ctx.read_resource("sub+data://bytes")]
        return [repr((item.content, item.mime_type)) for item in found]

    result = await asked(server, lambda client: client.call_tool("fn"))
    assert result.structured_content == {"result": ["('x is 1', 'text/plain')", "(b'\\xff', 'image/png')"]}


async def test_read_resource_says_what_is_wrong(server: FastMCP[Any]) -> None:
    server.add_resource_fn(lambda: types.InputRequiredResult(request_state="s"), "data://asks", name="asks")
    caught: list[Exception] = []

    @server.tool()
    async def fn(ctx: Context) -> str:
        for uri, kind in (("data://none", NotFoundError), ("data://asks", ResourceError)):
            with pytest.raises(kind) as error:
                await ctx.read_resource(uri)
            caught.append(error.value)
        return "done"

    assert text_of(await asked(server, lambda client: client.call_tool("fn"))) == "done"
    assert str(caught[0]) == "Unknown resource: data://none"
    assert "asks the client for input" in str(caught[1])


async def test_level_that_a_client_sets_is_obeyed(server: FastMCP[Any]) -> None:
    @server.tool()
    async def talk(ctx: Context) -> str:
        for level in ("debug", "info", "warning", "error", "critical"):
            await ctx.log(level, level)  # type: ignore[arg-type]
        return "said"

    recorder = Recorder()
    async with in_memory(server, logging_callback=recorder.on_log) as client:
        await set_level(client, "warning")
        await client.call_tool("talk")
        await client.list_tools()

    assert [level for level, _, _ in recorder.logs] == ["warning", "error", "critical"]


async def set_level(client: Client, level: types.LoggingLevel) -> None:
    request = types.SetLevelRequest(params=types.SetLevelRequestParams(level=level))
    await client.session.send_request(request, types.EmptyResult)


async def test_log_takes_any_data(server: FastMCP[Any]) -> None:
    @server.tool()
    async def talk(ctx: Context) -> str:
        await ctx.info({"a": [1, None]}, logger_name="l")
        return "said"

    recorder = Recorder()
    async with in_memory(server, logging_callback=recorder.on_log) as client:
        await client.call_tool("talk")
        await client.list_tools()

    assert recorder.logs == [("info", {"a": [1, None]}, "l")]


async def test_progress_is_for_those_who_asked(server: FastMCP[Any]) -> None:
    @server.tool()
    async def work(ctx: Context) -> str:
        await ctx.report_progress(1)
        return "done"

    recorder = Recorder()
    async with in_memory(server, message_handler=recorder.on_message) as client:
        assert text_of(await client.call_tool("work")) == "done"
        await client.list_tools()

    assert recorder.messages == []
