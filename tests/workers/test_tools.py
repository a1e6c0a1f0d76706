"""Tools: registration, description, calls."""

from typing import Any

import anyio
import mcp_types as types
import pytest
from mcp import MCPError

from mcpworker import Context, FastMCP
from mcpworker.components.tools import Tool
from mcpworker.errors import InvalidSignature
from support.in_memory import LEGACY, MODERN, in_memory, logged, text_of

pytestmark = pytest.mark.anyio


@pytest.fixture
def server() -> FastMCP[Any]:
    return FastMCP("Tools")


async def the_tool(server: FastMCP[Any]) -> types.Tool:
    async with in_memory(server) as client:
        [tool] = (await client.list_tools()).tools
        return tool


async def test_decorator_gives_the_function_back(server: FastMCP[Any]) -> None:
    def add(a: int, b: int) -> int:
        return a + b

    assert server.tool()(add) is add
    assert add(1, 2) == 3


async def test_decorator_without_call_is_explained(server: FastMCP[Any]) -> None:
    for decorator, text in (
        (server.tool, "Use @tool() instead of @tool"),
        (server.prompt, "Use @prompt() instead of @prompt"),
        (server.resource, "Use @resource('uri') instead of @resource"),
    ):
        with pytest.raises(TypeError, match=r"was used incorrectly. Did you forget to call it") as caught:
            decorator(lambda: None)  # type: ignore[operator]
        assert text in str(caught.value)


async def test_name_and_description_come_from_the_function_or_the_decorator(server: FastMCP[Any]) -> None:
    @server.tool()
    def plain() -> None:
        """First line.

        Second line.
        """

    @server.tool("other", "Described elsewhere.", {"a"})
    def named() -> None:
        """Not this."""

    @server.tool()
    def bare() -> None: ...

    tools = await server.get_tools()
    assert tools["plain"].description == "First line.\n\nSecond line."
    assert (tools["other"].description, tools["other"].tags) == ("Described elsewhere.", {"a"})
    assert tools["bare"].description == ""


async def test_tags_stay_on_the_server(server: FastMCP[Any]) -> None:
    server.add_tool(lambda: None, name="x", tags={"secret"})

    assert "secret" not in (await the_tool(server)).model_dump_json()


async def test_title_hints_icons_and_meta_are_listed(server: FastMCP[Any]) -> None:
    @server.tool(
        title="Title",
        annotations=types.ToolAnnotations(idempotent_hint=True),
        icons=[types.Icon(src="https://example.org/i.png")],
        meta={"example.org/x": 1},
    )
    def fn() -> None: ...

    tool = await the_tool(server)
    assert tool.title == "Title"
    assert tool.annotations is not None
    assert tool.annotations.idempotent_hint is True
    assert tool.icons is not None
    assert tool.icons[0].src == "https://example.org/i.png"
    assert tool.meta == {"example.org/x": 1}


async def test_lambda_needs_a_name(server: FastMCP[Any]) -> None:
    with pytest.raises(ValueError, match="You must provide a name for lambda functions"):
        server.add_tool(lambda: None)


async def test_methods_become_tools(server: FastMCP[Any]) -> None:
    class Counter:
        count = 0

        def step(self, by: int = 1) -> int:
            self.count += by
            return self.count

    counter = Counter()
    server.add_tool(counter.step)

    async with in_memory(server) as client:
        assert text_of(await client.call_tool("step", {"by": 3})) == "3"
    assert counter.count == 3


async def test_tool_made_elsewhere_can_be_added_under_another_name(server: FastMCP[Any]) -> None:
    tool = Tool.from_function(lambda: "x", name="x")
    server.add_tool(tool, name="y")

    async with in_memory(server) as client:
        assert [item.name for item in (await client.list_tools()).tools] == ["y"]
        assert text_of(await client.call_tool("y")) == "x"
    assert repr(tool) == "FunctionTool('x')"


async def test_unusable_signature_is_refused_when_the_tool_is_added(server: FastMCP[Any]) -> None:
    with pytest.raises(InvalidSignature):

        @server.tool()
        def fn(*args: int) -> None: ...

    assert await server.get_tools() == {}


@pytest.mark.parametrize("mode", [LEGACY, MODERN])
async def test_protocol_error_raised_by_a_tool_stays_one(server: FastMCP[Any], mode: str) -> None:
    @server.tool()
    def fn() -> None:
        raise MCPError(-32042, "look there", {"url": "x"})

    async with in_memory(server, mode) as client:
        with pytest.raises(MCPError, match="look there") as caught:
            await client.call_tool("fn")
    assert (caught.value.error.code, caught.value.error.data) == (-32042, {"url": "x"})


async def test_exception_without_words_is_told_by_its_name(server: FastMCP[Any]) -> None:
    @server.tool()
    def fn() -> None:
        raise LookupError

    async with in_memory(server) as client:
        assert text_of(await client.call_tool("fn")) == "Error executing tool fn: LookupError"


async def test_traceback_goes_to_the_log_and_not_to_the_client(server: FastMCP[Any]) -> None:
    @server.tool()
    def fn() -> None:
        raise RuntimeError("broken")

    with logged("tools") as records:
        async with in_memory(server) as client:
            text = text_of(await client.call_tool("fn"))

    assert "Traceback" not in text
    [record] = [item for item in records if item.exc_info]
    assert record.getMessage() == "tool 'fn' raised an exception"


async def test_tool_may_answer_by_a_result_of_its_own(server: FastMCP[Any]) -> None:
    @server.tool()
    def fn() -> types.CallToolResult:
        return types.CallToolResult(content=[types.TextContent(type="text", text="own")], is_error=True)

    async with in_memory(server) as client:
        result = await client.call_tool("fn")
    assert (text_of(result), result.is_error) == ("own", True)


async def test_blocking_tools_run_side_by_side(server: FastMCP[Any]) -> None:
    import threading

    barrier = threading.Barrier(3)

    @server.tool()
    def meet() -> str:
        barrier.wait(10)
        return "met"

    async with in_memory(server) as client, anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(client.call_tool, "meet")
    assert not barrier.broken


@pytest.mark.parametrize("mode", [LEGACY, MODERN])
async def test_cancelled_call_is_cancelled_in_the_tool(server: FastMCP[Any], mode: str) -> None:
    began, cancelled = anyio.Event(), anyio.Event()

    @server.tool()
    async def wait(ctx: Context) -> None:
        began.set()
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            cancelled.set()
            raise

    async with in_memory(server, mode) as client, anyio.create_task_group() as group:
        group.start_soon(client.call_tool, "wait")
        await began.wait()
        group.cancel_scope.cancel()
    with anyio.fail_after(5):
        await cancelled.wait()


async def test_context_in_a_tool_under_postponed_annotations(server: FastMCP[Any]) -> None:
    namespace: dict[str, Any] = {}
    exec(
        "from __future__ import annotations\n"
        "from mcpworker import Context\n"
        "def fn(ctx: Context, a: list[int]) -> str:\n"
        "    return f'{ctx.fastmcp.name} {a}'\n",
        namespace,
    )
    server.add_tool(namespace["fn"])

    assert set((await the_tool(server)).input_schema["properties"]) == {"a"}
    async with in_memory(server) as client:
        assert text_of(await client.call_tool("fn", {"a": [1]})) == "Tools [1]"
