"""Mounting and importing: names, routing, lifespans, changes."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import mcp_types as types
import pytest
from mcp import Client

from mcpworker import Context, FastMCP
from mcpworker.compose import Mount, Mounts
from mcpworker.errors import NotFoundError
from support.worker_clients import Recorder

pytestmark = pytest.mark.anyio


def in_memory(server: FastMCP[Any], mode: str = "legacy", **options: Any) -> Client:
    return Client(server._mcp_server, mode=mode, cache=None, **options)  # type: ignore[arg-type]


def text_of(result: types.CallToolResult) -> str:
    return result.content[0].text  # type: ignore[union-attr]


def child(name: str = "Child") -> FastMCP[Any]:
    server = FastMCP(name)

    @server.tool()
    def hello(ctx: Context) -> str:
        return f"hello from {ctx.fastmcp.name}"

    @server.resource("data://config")
    def config() -> str:
        return name

    @server.resource("users://{user_id}/profile")
    def profile(user_id: int) -> str:
        return f"{name} {user_id}"

    @server.prompt()
    def greet(who: str) -> str:
        return f"{name} greets {who}"

    return server


@pytest.fixture
def parent() -> FastMCP[Any]:
    return FastMCP("Parent")


async def test_mounted_components_are_listed_under_their_prefix(parent: FastMCP[Any]) -> None:
    parent.mount("sub", child())

    assert set(await parent.get_tools()) == {"sub_hello"}
    assert set(await parent.get_resources()) == {"sub+data://config"}
    assert set(await parent.get_resource_templates()) == {"sub+users://{user_id}/profile"}
    assert set(await parent.get_prompts()) == {"sub_greet"}


async def test_mounted_components_run_in_the_mounted_server(parent: FastMCP[Any]) -> None:
    parent.mount("sub", child())

    async with in_memory(parent) as client:
        assert text_of(await client.call_tool("sub_hello")) == "hello from Child"
        [config] = (await client.read_resource("sub+data://config")).contents
        assert (config.uri, config.text) == ("sub+data://config", "Child")  # type: ignore[union-attr]
        [profile] = (await client.read_resource("sub+users://7/profile")).contents
        assert profile.text == "Child 7"  # type: ignore[union-attr]
        prompt = await client.get_prompt("sub_greet", {"who": "Ada"})
        assert prompt.messages[0].content.text == "Child greets Ada"  # type: ignore[union-attr]


async def test_mount_is_live(parent: FastMCP[Any]) -> None:
    sub = child()
    parent.mount("sub", sub)
    sub.add_tool(lambda: "late", name="late")

    async with in_memory(parent) as client:
        assert text_of(await client.call_tool("sub_late")) == "late"


async def test_mounts_nest(parent: FastMCP[Any]) -> None:
    middle = FastMCP("Middle")
    middle.mount("sub", child())
    parent.mount("top", middle)

    assert set(await parent.get_resources()) == {"top+sub+data://config"}
    async with in_memory(parent) as client:
        assert text_of(await client.call_tool("top_sub_hello")) == "hello from Child"


async def test_separators_may_be_chosen(parent: FastMCP[Any]) -> None:
    parent.mount("sub", child(), tool_separator="/", resource_separator=".", prompt_separator="-")

    assert set(await parent.get_tools()) == {"sub/hello"}
    assert set(await parent.get_resources()) == {"sub.data://config"}
    assert set(await parent.get_prompts()) == {"sub-greet"}


@pytest.mark.parametrize("first", ["a", "a-b"])
async def test_longest_prefix_wins_whatever_came_first(parent: FastMCP[Any], first: str) -> None:
    short, long = FastMCP("Short"), FastMCP("Long")
    short.add_tool(lambda: "Short", name="b-c")
    long.add_tool(lambda: "Long", name="c")
    for prefix, server in (("a", short), ("a-b", long))[:: 1 if first == "a" else -1]:
        parent.mount(prefix, server, tool_separator="-")

    async with in_memory(parent) as client:
        assert text_of(await client.call_tool("a-b-c")) == "Long"
        assert [tool.name for tool in (await client.list_tools()).tools] == ["a-b-c"]


async def test_shorter_prefix_is_tried_where_the_longer_has_nothing(parent: FastMCP[Any]) -> None:
    short = FastMCP("Short")
    short.add_tool(lambda: "short", name="b-only")
    parent.mount("a-b", FastMCP("Long"), tool_separator="-")
    parent.mount("a", short, tool_separator="-")

    async with in_memory(parent) as client:
        assert text_of(await client.call_tool("a-b-only")) == "short"


async def test_miss_is_told_by_its_full_name(parent: FastMCP[Any]) -> None:
    parent.mount("sub", child())

    async with in_memory(parent) as client:
        assert text_of(await client.call_tool("sub_nonsense")) == "Unknown tool: sub_nonsense"


async def test_own_component_wins_over_a_mounted_one(parent: FastMCP[Any]) -> None:
    parent.mount("sub", child())
    parent.add_tool(lambda: "own", name="sub_hello")

    async with in_memory(parent) as client:
        assert text_of(await client.call_tool("sub_hello")) == "own"


async def test_mounting_again_replaces(parent: FastMCP[Any]) -> None:
    parent.mount("sub", child("First"))
    parent.mount("sub", child("Second"))

    async with in_memory(parent) as client:
        assert text_of(await client.call_tool("sub_hello")) == "hello from Second"


async def test_unmounted_server_is_gone(parent: FastMCP[Any]) -> None:
    parent.mount("sub", child())
    parent.unmount("sub")

    assert await parent.get_tools() == {}
    with pytest.raises(KeyError):
        parent.unmount("sub")


@pytest.mark.parametrize("prefix", ["bad_prefix", "1st", "", "with space", "a:b"])
async def test_prefix_that_makes_no_uri_is_refused(parent: FastMCP[Any], prefix: str) -> None:
    with pytest.raises(ValueError, match="Resource prefix or separator would result in an invalid resource URI"):
        parent.mount(prefix, child())
    with pytest.raises(ValueError, match="invalid resource URI"):
        await parent.import_server(prefix, child())


async def test_server_cannot_contain_itself(parent: FastMCP[Any]) -> None:
    middle = FastMCP("Middle")
    parent.mount("middle", middle)

    with pytest.raises(ValueError, match="would contain itself"):
        parent.mount("self", parent)
    with pytest.raises(ValueError, match="would contain itself"):
        middle.mount("parent", parent)


async def test_mount_that_cannot_be_listed_is_left_out(parent: FastMCP[Any]) -> None:
    class Broken(FastMCP[Any]):
        async def get_tools(self) -> Any:
            raise ConnectionError("gone")

    parent.mount("broken", Broken("Broken"))
    parent.mount("sub", child())

    assert set(await parent.get_tools()) == {"sub_hello"}


async def test_listing_is_kept_as_long_as_the_settings_say() -> None:
    asked: list[str] = []

    class Counting(FastMCP[Any]):
        async def get_tools(self) -> Any:
            asked.append("tools")
            return await super().get_tools()

    sub = Counting("Counting")
    parent = FastMCP("Parent", cache_expiration_seconds=60)
    parent.mount("sub", sub)
    await parent.get_tools()
    await parent.get_tools()
    assert len(asked) == 1

    sub.add_tool(lambda: "x", name="x")
    assert set(await parent.get_tools()) == {"sub_x"}
    assert len(asked) == 2


async def test_import_copies_what_there_is_then(parent: FastMCP[Any]) -> None:
    sub = child()
    nested = child("Nested")
    sub.mount("deep", nested)
    await parent.import_server("sub", sub)
    sub.add_tool(lambda: "late", name="late")

    assert set(await parent.get_tools()) == {"sub_hello", "sub_deep_hello"}
    async with in_memory(parent) as client:
        assert text_of(await client.call_tool("sub_hello")) == "hello from Parent"
        [profile] = (await client.read_resource("sub+deep+users://7/profile")).contents
        assert profile.text == "Nested 7"  # type: ignore[union-attr]


async def test_import_obeys_on_duplicate() -> None:
    parent = FastMCP("Parent", on_duplicate_tools="error")
    await parent.import_server("sub", child())

    with pytest.raises(ValueError, match="Tool already exists: sub_hello"):
        await parent.import_server("sub", child())


# Lifespans --------------------------------------------------------------------------------------------------------


def recording(name: str, log: list[str]) -> Callable[[Any], Any]:
    @asynccontextmanager
    async def lifespan(server: FastMCP[Any]) -> AsyncIterator[dict[str, str]]:
        log.append(f"{name} opens in {server.name}")
        yield {"of": name}
        log.append(f"{name} closes")

    return lifespan


@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
async def test_lifespans_of_mounted_servers_are_entered_once_with_the_parents(mode: str) -> None:
    log: list[str] = []
    parent, middle, leaf = (FastMCP(name, lifespan=recording(name, log)) for name in ("parent", "middle", "leaf"))

    @leaf.tool()
    def whose(ctx: Context) -> str:
        return str(ctx.request_context.lifespan_context["of"])

    parent.mount("middle", middle)
    middle.mount("leaf", leaf)
    parent.mount("again", leaf)

    async with in_memory(parent, mode) as client:
        assert log == ["parent opens in parent", "middle opens in middle", "leaf opens in leaf"]
        assert text_of(await client.call_tool("middle_leaf_whose")) == "leaf"
        assert text_of(await client.call_tool("again_whose")) == "leaf"
    assert log[3:] == ["leaf closes", "middle closes", "parent closes"]


async def test_lifespan_of_a_server_mounted_while_serving_is_entered_at_its_first_use() -> None:
    log: list[str] = []
    parent = FastMCP("parent", lifespan=recording("parent", log))
    late = FastMCP("late", lifespan=recording("late", log))

    @late.tool()
    def whose(ctx: Context) -> str:
        return str(ctx.lifespan_context["of"])

    async with in_memory(parent) as client:
        parent.mount("late", late)
        assert text_of(await client.call_tool("late_whose")) == "late"
        assert text_of(await client.call_tool("late_whose")) == "late"
    assert log == ["parent opens in parent", "late opens in late", "late closes", "parent closes"]


async def test_failing_late_lifespan_is_that_calls_error_only() -> None:
    @asynccontextmanager
    async def failing(_: Any) -> AsyncIterator[None]:
        raise OSError("no database")
        yield

    parent = child("parent")
    late = FastMCP("late", lifespan=failing)
    late.add_tool(lambda: "x", name="x")

    async with in_memory(parent) as client:
        parent.mount("late", late)
        result = await client.call_tool("late_x")
        assert result.is_error
        assert "mounted server 'late' did not start: no database" in text_of(result)
        assert text_of(await client.call_tool("hello")) == "hello from parent"


# Changes ----------------------------------------------------------------------------------------------------------


async def test_change_in_a_nested_server_reaches_clients_of_the_outermost(parent: FastMCP[Any]) -> None:
    middle, leaf = FastMCP("Middle"), child("Leaf")
    parent.mount("middle", middle)
    middle.mount("leaf", leaf)
    recorder = Recorder()

    async with in_memory(parent, message_handler=recorder.on_message) as client:
        await client.session.send_request(
            types.SubscribeRequest(params=types.SubscribeRequestParams(uri="middle+leaf+data://config")),
            types.EmptyResult,
        )
        leaf.add_tool(lambda: "x", name="x")
        leaf.remove_prompt("greet")
        leaf.notify_resource_updated("data://config")
        await told(recorder, types.ToolListChangedNotification, types.PromptListChangedNotification)
        await told(recorder, types.ResourceUpdatedNotification)

    [update] = [item for item in recorder.messages if isinstance(item, types.ResourceUpdatedNotification)]
    assert update.params.uri == "middle+leaf+data://config"


async def test_change_after_unmount_is_not_told(parent: FastMCP[Any]) -> None:
    sub = child()
    parent.mount("sub", sub)
    recorder = Recorder()

    async with in_memory(parent, message_handler=recorder.on_message) as client:
        await client.list_tools()
        parent.unmount("sub")
        await told(
            recorder,
            types.ToolListChangedNotification,
            types.PromptListChangedNotification,
            types.ResourceListChangedNotification,
        )
        recorder.messages.clear()
        sub.add_prompt(lambda: "x", name="x")
        parent.add_tool(lambda: "y", name="y")
        await told(recorder, types.ToolListChangedNotification)

    assert not any(isinstance(item, types.PromptListChangedNotification) for item in recorder.messages)


async def test_change_from_a_thread_is_told(parent: FastMCP[Any]) -> None:
    recorder = Recorder()

    async with in_memory(parent, message_handler=recorder.on_message) as client:
        await client.list_tools()
        await anyio.to_thread.run_sync(lambda: parent.add_tool(lambda: "x", name="x"))
        await told(recorder, types.ToolListChangedNotification)


async def told(recorder: Recorder, *kinds: type) -> None:
    with anyio.fail_after(5):
        while not all(any(isinstance(item, kind) for item in recorder.messages) for kind in kinds):
            await anyio.lowlevel.checkpoint()


# Removing ---------------------------------------------------------------------------------------------------------


async def test_removing_what_is_not_there_is_an_error(parent: FastMCP[Any]) -> None:
    with pytest.raises(NotFoundError, match="Unknown tool: x"):
        parent.remove_tool("x")
    with pytest.raises(NotFoundError, match="Unknown resource: data://x"):
        parent.remove_resource("data://x")
    with pytest.raises(NotFoundError, match="Unknown prompt: x"):
        parent.remove_prompt("x")


async def test_resources_and_templates_can_be_removed() -> None:
    server = child()
    server.remove_resource("data://config")
    server.remove_resource("users://{user_id}/profile")

    assert await server.get_resources() == {}
    assert await server.get_resource_templates() == {}


def test_mounts_match_the_longest_prefix_first() -> None:
    mounts = Mounts()
    servers = {prefix: FastMCP(prefix) for prefix in ("a", "ab", "abc")}
    for prefix, server in servers.items():
        mounts.add(Mount(prefix, server, tool_separator=""))

    assert [(mount.prefix, rest) for mount, rest in mounts.for_tool("abcd")] == [
        ("abc", "d"),
        ("ab", "cd"),
        ("a", "bcd"),
    ]
