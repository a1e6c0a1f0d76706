"""Everything that a server can offer, through every transport and every kind of endpoint, with the official client."""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import anyio
import mcp_types as types
import pytest
from mcp import Client
from mcp.shared.exceptions import MCPError

from e2e.clients import SERVERS, TRANSPORTS, VIEW, Recorder, Way, connected, text_of
from support.daemon import ROOT, Daemon, python_server, running, script_server

EVERYTHING = ROOT / "tests" / "contract" / "everything.py"
REGISTRY = (
    python_server("everything", EVERYTHING)
    + script_server("workshop", SERVERS / "workshop.py")
    + python_server("library", SERVERS / "library.py")
)

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("ignore::mcp.MCPDeprecationWarning")]


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with running(REGISTRY, views=f'[views.{VIEW}]\nservers = ["library", "everything", "workshop"]') as daemon:
        yield daemon


@dataclass
class Use:
    """One client's session: `name` tells what something is called in it."""

    daemon: Daemon
    way: Way
    client: Client
    heard: Recorder

    def name(self, own: str, server: str = "everything") -> str:
        return self.way.name(server, own)

    async def call(self, own: str, server: str = "everything", **arguments: object) -> types.CallToolResult:
        return await self.client.call_tool(self.name(own, server), dict(arguments))


Feature = Callable[[Use], Awaitable[None]]
FEATURES: dict[str, tuple[Feature, str]] = {}


def feature(server: str = "everything") -> Callable[[Feature], Feature]:
    """A check that is made in every way; by `/servers/…` it is made with `server`."""

    def add(check: Feature) -> Feature:
        FEATURES[check.__name__] = check, server
        return check

    return add


@feature()
async def introduces_itself(use: Use) -> None:
    offered = use.client.server_capabilities
    assert use.client.protocol_version == "2025-11-25"
    assert use.client.server_info is not None
    assert use.client.server_info.name == ("everything" if use.way.scope == "everything" else "mcpd")
    assert offered.tools
    assert offered.tools.list_changed
    assert offered.resources
    assert offered.resources.subscribe
    assert offered.prompts
    assert offered.logging is not None
    assert offered.completions is not None
    assert isinstance(await use.client.send_ping(), types.EmptyResult)


@feature()
async def lists(use: Use) -> None:
    tools = {tool.name: tool for tool in await all_pages(use.client.list_tools, "tools")}
    prompts = {prompt.name: prompt for prompt in await all_pages(use.client.list_prompts, "prompts")}
    resources = {resource.uri for resource in await all_pages(use.client.list_resources, "resources")}
    templates = await use.client.list_resource_templates()

    assert tools[use.name("test_sampling")].input_schema["required"] == ["prompt"]
    assert "$anchor" in json.dumps(tools[use.name("json_schema_2020_12_tool")].input_schema)
    assert [a.name for a in prompts[use.name("test_prompt_with_arguments")].arguments or ()] == ["arg1", "arg2"]
    assert {"test://static-text", "test://static-binary", "test://watched-resource"} <= resources
    assert "test://template/{id}/data" in [one.uri_template for one in templates.resource_templates]
    if use.way.scope in ("all", "view"):
        assert {use.name("echo", "workshop"), use.name("book-7", "library")} <= tools.keys()
    else:
        assert all(name.startswith(("test_", "json_")) for name in tools)


@feature()
async def calls(use: Use) -> None:
    mixed = await use.call("test_multiple_content_types")
    failed = await use.call("test_error_handling")
    echoed = await use.call("json_schema_2020_12_tool", name="Ada", address={"city": "\u00c5lesund \U0001f600"})

    assert [content.type for content in mixed.content] == ["text", "image", "resource"]
    assert failed.is_error
    assert text_of(failed) == "This tool intentionally returns an error for testing"
    assert json.loads(text_of(echoed)) == {"name": "Ada", "address": {"city": "\u00c5lesund \U0001f600"}}
    with pytest.raises(MCPError, match="no_such_tool") as refused:
        await use.call("no_such_tool")
    assert refused.value.error.code == types.INVALID_PARAMS


@feature()
async def reads(use: Use) -> None:
    text = await use.client.read_resource("test://static-text")
    blob = await use.client.read_resource("test://static-binary")
    templated = await use.client.read_resource("test://template/17/data")

    assert isinstance(text.contents[0], types.TextResourceContents)
    assert text.contents[0].text == "This is the content of the static text resource."
    assert isinstance(blob.contents[0], types.BlobResourceContents)
    assert base64.b64decode(blob.contents[0].blob).startswith(b"\x89PNG")
    assert isinstance(templated.contents[0], types.TextResourceContents)
    assert json.loads(templated.contents[0].text)["id"] == "17"
    with pytest.raises(MCPError, match="not found") as refused:
        await use.client.read_resource("test://nowhere")
    assert refused.value.error.code == -32002


@feature()
async def prompts(use: Use) -> None:
    filled = await use.client.get_prompt(use.name("test_prompt_with_arguments"), {"arg1": "one", "arg2": "two"})

    content = filled.messages[0].content
    assert isinstance(content, types.TextContent)
    assert content.text == "Prompt with arguments: arg1='one', arg2='two'"
    with pytest.raises(MCPError, match="no_such_prompt"):
        await use.client.get_prompt(use.name("no_such_prompt"))


@feature()
async def completes(use: Use) -> None:
    prompt = types.PromptReference(type="ref/prompt", name=use.name("test_prompt_with_arguments"))
    template = types.ResourceTemplateReference(type="ref/resource", uri="test://template/{id}/data")

    of_prompt = await use.client.complete(prompt, {"name": "arg1", "value": "par"})
    of_template = await use.client.complete(template, {"name": "id", "value": "test"})

    assert of_prompt.completion.values == ["paris", "park", "party"]
    assert of_template.completion.values == ["test", "testing"]


@feature()
async def subscribes(use: Use) -> None:
    def updated() -> list[str]:
        return [notice.params.uri for notice in use.heard.notices_of(types.ResourceUpdatedNotification)]

    await use.client.subscribe_resource("test://watched-resource")
    await use.client.subscribe_resource("test://static-text")
    await use.call("test_trigger_resource_update", uri="test://watched-resource")
    await use.heard.until(lambda: updated() == ["test://watched-resource"])

    await use.client.unsubscribe_resource("test://watched-resource")
    await use.call("test_trigger_resource_update", uri="test://watched-resource")
    await use.call("test_trigger_resource_update", uri="test://static-text")
    await use.heard.until(lambda: "test://static-text" in updated())
    assert updated() == ["test://watched-resource", "test://static-text"]


@feature()
async def reports_progress(use: Use) -> None:
    result = await use.client.call_tool(
        use.name("test_tool_with_progress"), {}, progress_callback=use.heard.on_progress
    )

    assert text_of(result) == "Tool with progress executed successfully"
    await use.heard.until(lambda: len(use.heard.progress) == 3)
    assert use.heard.progress == [(n, 100, f"Completed step {n} of 100") for n in (0, 50, 100)]


@feature("workshop")
async def cancels(use: Use) -> None:
    key = f"cancelled-{use.way}"
    async with anyio.create_task_group() as group:

        async def call() -> None:
            await use.client.call_tool(
                use.name("hold", "workshop"), {"key": key}, progress_callback=use.heard.on_progress
            )

        group.start_soon(call)
        await use.heard.until(lambda: use.heard.progress)
        group.cancel_scope.cancel()  # the SDK sends notifications/cancelled

    assert text_of(await use.call("how_ended", "workshop", key=key)) == "cancelled"


@feature()
async def logs(use: Use) -> None:
    await use.client.set_logging_level("error")
    await use.call("test_tool_with_logging")
    await use.call("test_logging_tool")
    await use.heard.until(lambda: use.heard.logs)
    assert [(log.level, log.data) for log in use.heard.logs] == [("error", "only for those who asked for it")]

    await use.client.set_logging_level("debug")
    await use.call("test_tool_with_logging")
    await use.heard.until(lambda: len(use.heard.logs) == 4)
    assert [log.data for log in use.heard.logs][1:] == [
        "Tool execution started",
        "Tool processing data",
        "Tool execution completed",
    ]


@feature()
async def is_asked_for_samples(use: Use) -> None:
    result = await use.call("test_sampling", prompt="What is six times nine?")

    (asked,) = use.heard.asked
    assert asked.messages[0].content.text == "What is six times nine?"
    assert json.loads(text_of(result))["answer"]["content"]["text"] == "forty-two"


@feature()
async def is_asked_for_input(use: Use) -> None:
    result = await use.call("test_elicitation", message="Who are you?")

    (asked,) = use.heard.asked
    assert asked.message == "Who are you?"
    assert set(asked.requested_schema["properties"]) == {"username", "email"}
    assert json.loads(text_of(result))["answer"] == {
        "action": "accept",
        "content": {"username": "ada", "email": "ada@example.org"},
    }


@feature("library")
async def turns_pages(use: Use) -> None:
    tools = [tool.name for tool in await all_pages(use.client.list_tools, "tools")]
    resources = [resource.uri for resource in await all_pages(use.client.list_resources, "resources")]
    first = await use.client.list_tools()

    assert [name for name in tools if "book-" in name] == [use.name(f"book-{n}", "library") for n in range(1200)]
    assert [uri for uri in resources if uri.startswith("shelf:")] == [f"shelf://{n}" for n in range(30)]
    assert len(first.tools) == (100 if use.way.scope == "library" else 1000), "the server's own pages, or mcpd's"
    assert text_of(await use.call("book-1199", "library")) == "book-1199"


async def all_pages(list_page: Callable[..., Awaitable[Any]], member: str) -> list[Any]:
    """The entries of all pages of a list."""
    found: list[Any] = []
    cursor = None
    while True:
        page = await list_page(cursor=cursor)
        found += getattr(page, member)
        cursor = page.next_cursor
        if cursor is None:
            return found


@pytest.mark.parametrize("check", FEATURES)
@pytest.mark.parametrize("scope", ["all", "server", "view"])
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_feature_works_through(daemon: Daemon, transport: str, scope: str, check: str) -> None:
    feature, server = FEATURES[check]
    way = Way(transport, server if scope == "server" else scope)
    heard = Recorder()
    async with connected(daemon, way, heard) as client:
        await feature(Use(daemon, way, client, heard))


async def test_change_of_a_list_reaches_every_client_that_sees_it(daemon: Daemon) -> None:
    ways = [Way(transport, scope) for transport in TRANSPORTS for scope in ("all", "workshop", "view")]
    recorders = {way: Recorder() for way in [*ways, Way("http", "library")]}

    async with AsyncExitStack() as stack:
        clients = {
            way: await stack.enter_async_context(connected(daemon, way, heard)) for way, heard in recorders.items()
        }
        await clients[ways[0]].call_tool("workshop__grow", {"name": "grown"})
        for way in ways:
            heard = recorders[way]
            await heard.until(lambda heard=heard: heard.notices_of(types.ToolListChangedNotification))
            tools = [tool.name for tool in await all_pages(clients[way].list_tools, "tools")]
            assert way.name("workshop", "grown") in tools
        stranger = Way("http", "library")
        await clients[stranger].send_ping()
        assert recorders[stranger].notices == []


@pytest.mark.parametrize("scope", ["all", "everything", "view"])
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_client_without_the_capability_is_not_asked(daemon: Daemon, transport: str, scope: str) -> None:
    way = Way(transport, scope)
    async with connected(daemon, way, asks=False) as client:
        with pytest.raises(MCPError, match="does not support"):
            await client.call_tool(way.name("everything", "test_sampling"), {"prompt": "Anybody?"})


@pytest.mark.parametrize("scope", ["all", "everything", "view"])
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_client_that_would_speak_any_revision_is_served(daemon: Daemon, transport: str, scope: str) -> None:
    """As people run it: the client asks with 2026-07-28 first, and falls back where it must."""
    way = Way(transport, scope)
    async with connected(daemon, way, mode="auto") as client:
        result = await client.call_tool(way.name("everything", "test_simple_text"))

    assert text_of(result) == "This is a simple text response for testing."
