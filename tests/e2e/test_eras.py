"""The four cells: clients of either era before servers of either era, with the official client and a real daemon."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import anyio
import mcp_types as types
import pytest
from mcp import Client
from mcp.client.subscriptions import (
    PromptsListChanged,
    ResourceUpdated,
    Subscription,
    SubscriptionLost,
    ToolsListChanged,
)
from mcp.shared.exceptions import MCPError

from e2e.clients import Recorder, Way, text_of, transport
from support.daemon import DEADLINE, ROOT, Daemon, python_server, running

EVERYTHING = ROOT / "tests" / "contract" / "everything.py"
ROOTS = json.dumps(["file:///srv/of-the-registry"])
REGISTRY = (
    python_server("older", EVERYTHING, "--handshake-only", roots=ROOTS)
    + python_server("newer", EVERYTHING, era='"per-request"', roots=ROOTS)
    + python_server("either", EVERYTHING, era='"both"', roots=ROOTS)
)
HANDSHAKE, PER_REQUEST = "legacy", "2026-07-28"
WATCHED = "test://watched-resource"

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.timeout(120),
    pytest.mark.filterwarnings("ignore::mcp.MCPDeprecationWarning"),
]


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with running(REGISTRY) as daemon:
        yield daemon


@dataclass
class Use:
    """A client of `mode`, which sees `server` in one of the ways."""

    daemon: Daemon
    mode: str
    server: str
    way: Way
    client: Client
    heard: Recorder

    @property
    def passes_through(self) -> bool:
        """Whether client and server speak the same era without a handshake."""
        return self.mode == PER_REQUEST and self.server != "older"

    def uri(self, own: str) -> str:
        """What a URI that all servers list is called here: in the aggregate it is the first one's."""
        return f"mcpd+{self.server}:{own}" if self.way.scope == "all" and self.server != "older" else own

    async def call(self, own: str, **arguments: object) -> types.CallToolResult:
        return await self.client.call_tool(
            self.way.name(self.server, own), dict(arguments), progress_callback=self.heard.on_progress
        )

    async def told(self, own: str, **arguments: object) -> Any:
        """What a tool that asks its client was told, under its own keys for questions."""
        return json.loads(text_of(await self.call(own, **arguments)))


async def client_roots(_: Any) -> types.ListRootsResult:
    return types.ListRootsResult(roots=[types.Root(uri="file:///home/of-the-client")])  # type: ignore[arg-type]


def client_for(daemon: Daemon, mode: str, way: Way, heard: Recorder, *, asks: bool = True) -> Client:
    options = heard.callbacks(asks=asks) | {"mode": mode, "cache": None, "read_timeout_seconds": DEADLINE}
    if asks:
        options["list_roots_callback"] = client_roots
    if mode == PER_REQUEST:
        options["log_level"] = "info"
    return Client(transport(daemon, way), **options)


FEATURES: list[Callable[[Use], Awaitable[None]]] = []


def feature(check: Callable[[Use], Awaitable[None]]) -> Callable[[Use], Awaitable[None]]:
    FEATURES.append(check)
    return check


@feature
async def lists_calls_and_reads(use: Use) -> None:
    tools = {tool.name for tool in (await use.client.list_tools()).tools}
    assert use.way.name(use.server, "test_sampling") in tools
    assert use.way.name(use.server, "test_simple_prompt") in {p.name for p in (await use.client.list_prompts()).prompts}
    assert use.uri("test://static-text") in {one.uri for one in (await use.client.list_resources()).resources}
    assert text_of(await use.call("test_simple_text")) == "This is a simple text response for testing."
    (contents,) = (await use.client.read_resource(use.uri("test://static-text"))).contents
    assert isinstance(contents, types.TextResourceContents)
    assert (contents.uri, contents.text) == (
        use.uri("test://static-text"),
        "This is the content of the static text resource.",
    )
    with pytest.raises(MCPError) as refused:
        await use.client.read_resource(f"test://template/{use.server}/nothing")
    assert refused.value.error.code in {-32602, -32002 if use.mode == HANDSHAKE else -32602}


@feature
async def sampling(use: Use) -> None:
    told = await use.told("test_sampling", prompt="What is it?")

    assert told["answer"]["content"] == {"type": "text", "text": "forty-two"}
    (asked,) = use.heard.asked
    assert asked.messages[0].content.text == "What is it?"


@feature
async def elicitation_by_form(use: Use) -> None:
    told = await use.told("test_elicitation", message="Who are you?")

    assert told["answer"] == {"action": "accept", "content": {"username": "ada", "email": "ada@example.org"}}
    (asked,) = use.heard.asked
    assert asked.requested_schema["required"] == ["username", "email"]


@feature
async def elicitation_by_url(use: Use) -> None:
    told = await use.told("test_elicitation_url")

    assert told["answer"]["action"] == "accept"
    (asked,) = use.heard.asked
    assert (asked.mode, asked.url) == ("url", "https://example.org/sign-in")


@feature
async def input_for_a_prompt(use: Use) -> None:
    prompt = await use.client.get_prompt(use.way.name(use.server, "test_input_required_result_prompt"), {})

    (message,) = prompt.messages
    assert isinstance(message.content, types.TextContent)
    assert json.loads(message.content.text)["user_context"]["action"] == "accept"


@feature
async def several_questions_and_rounds(use: Use) -> None:
    told = await use.told("test_input_required_result_multi_round")

    assert sorted(told) == ["step1", "step2"]
    assert [asked.message[:6] for asked in use.heard.asked] == ["Step 1", "Step 2"]

    told = await use.told("test_input_required_result_multiple_inputs")

    assert told["greeting"]["content"]["text"] == "forty-two"
    assert told["user_name"]["action"] == "accept"


@feature
async def roots(use: Use) -> None:
    """A shared server of the handshake era is told the registry's; in the other era each request has its own."""
    told = await use.told("test_input_required_result_list_roots")

    of_the_client = use.passes_through
    assert [root["uri"] for root in told["client_roots"]["roots"]] == [
        "file:///home/of-the-client" if of_the_client else "file:///srv/of-the-registry"
    ]


@feature
async def progress(use: Use) -> None:
    await use.call("test_tool_with_progress")

    assert [(now, total) for now, total, _ in use.heard.progress] == [(0, 100), (50, 100), (100, 100)]


@feature
async def logging(use: Use) -> None:
    if use.mode == HANDSHAKE:
        await use.client.set_logging_level("info")

    await use.call("test_tool_with_logging")

    texts = ["Tool execution started", "Tool processing data", "Tool execution completed"]
    await use.heard.until(lambda: [log.data for log in use.heard.logs] == texts)


@feature
async def list_changes(use: Use) -> None:
    if use.mode == PER_REQUEST:
        async with use.client.listen(tools_list_changed=True, prompts_list_changed=True) as changes:
            await use.call("test_trigger_tool_change")
            await next_of(changes, ToolsListChanged)
            await use.call("test_trigger_prompt_change")
            await next_of(changes, PromptsListChanged)
    else:
        await use.call("test_trigger_tool_change")
        await use.heard.until(lambda: use.heard.notices_of(types.ToolListChangedNotification))
        await use.call("test_trigger_prompt_change")
        await use.heard.until(lambda: use.heard.notices_of(types.PromptListChangedNotification))


@feature
async def subscriptions(use: Use) -> None:
    uri = use.uri(WATCHED)
    if use.mode == PER_REQUEST:
        async with use.client.listen(resource_subscriptions=[uri]) as changes:
            assert changes.honored.resource_subscriptions == [uri]
            assert await updated_when_asked(use, lambda: next_of(changes, ResourceUpdated)) == ResourceUpdated(uri=uri)
    else:
        await use.client.subscribe_resource(uri)

        async def heard() -> Any:
            return await use.heard.until(lambda: use.heard.notices_of(types.ResourceUpdatedNotification))

        assert {notice.params.uri for notice in await updated_when_asked(use, heard)} == {uri}
        await use.client.unsubscribe_resource(uri)


@feature
async def cancellation(use: Use) -> None:
    before = int(text_of(await use.call("test_cancelled")))

    async with anyio.create_task_group() as group:
        group.start_soon(use.call, "test_wait")
        await use.heard.until(lambda: use.heard.progress)
        group.cancel_scope.cancel()

    with anyio.fail_after(DEADLINE):
        while int(text_of(await use.call("test_cancelled"))) == before:
            pass


async def next_of(changes: Subscription, kind: type[Any]) -> Any:
    """The next change of this kind; others may be of changes that were made before."""
    with anyio.fail_after(DEADLINE):
        while not isinstance(change := await anext(changes), kind):
            pass
    return change


async def updated_when_asked(use: Use, heard: Callable[[], Awaitable[Any]]) -> Any:
    """What `heard` gives, once the resource has changed. The server is told of subscriptions when it gets to it, so
    that the first change may come before."""
    found: list[Any] = []

    async def listen() -> None:
        found.append(await heard())
        group.cancel_scope.cancel()

    with anyio.fail_after(DEADLINE):
        async with anyio.create_task_group() as group:
            group.start_soon(listen)
            while True:
                await use.call("test_trigger_resource_update", uri=WATCHED)
                await anyio.sleep(0.02)
    return found[0]


WAYS = [
    *[(server, Way("http", server)) for server in ("older", "newer", "either")],
    *[(server, Way("http", "all")) for server in ("older", "newer")],
    *[(server, Way("stdio", "all")) for server in ("older", "newer", "either")],
]


@pytest.mark.parametrize(("server", "way"), WAYS, ids=lambda part: str(part))
@pytest.mark.parametrize("mode", [HANDSHAKE, PER_REQUEST])
@pytest.mark.parametrize("check", FEATURES, ids=lambda check: check.__name__)
async def test_every_feature_in_every_cell(
    daemon: Daemon, check: Callable[[Use], Awaitable[None]], mode: str, server: str, way: Way
) -> None:
    heard = Recorder()
    async with client_for(daemon, mode, way, heard) as client:
        await check(Use(daemon, mode, server, way, client, heard))


@pytest.mark.parametrize("server", ["older", "newer"])
@pytest.mark.parametrize("mode", [HANDSHAKE, PER_REQUEST])
async def test_a_client_is_not_asked_what_it_cannot_answer(daemon: Daemon, mode: str, server: str) -> None:
    way, heard = Way("http", server), Recorder()
    async with client_for(daemon, mode, way, heard, asks=False) as client:
        with pytest.raises(MCPError):
            await client.call_tool("test_sampling", {"prompt": "Anybody?"})
        assert text_of(await client.call_tool("test_simple_text", {}))


@pytest.mark.parametrize("scope", ["older", "newer", "either", "all"])
@pytest.mark.parametrize("transport", ["http", "stdio"])
async def test_a_client_that_finds_out_uses_the_newest_revision(daemon: Daemon, transport: str, scope: str) -> None:
    way, heard = Way(transport, scope), Recorder()
    async with client_for(daemon, "auto", way, heard) as client:
        assert client.protocol_version == "2026-07-28"
        assert client.server_info is not None
        assert client.server_info.name == ("mcpd" if scope == "all" else "everything")
        tool = way.name("older", "test_simple_text")
        assert text_of(await client.call_tool(tool, {})) == "This is a simple text response for testing."


async def test_a_client_by_connect_lives_through_the_end_of_the_daemon() -> None:
    """It never sends `initialize`: what it had under way ends with errors, and the next request is served."""
    with running(python_server("older", EVERYTHING, "--handshake-only")) as daemon:
        heard, lost = Recorder(), anyio.Event()
        async with client_for(daemon, PER_REQUEST, Way("stdio", "older"), heard) as client:

            async def wait() -> None:
                with pytest.raises(MCPError, match="lost while this request was in flight"):
                    await client.call_tool("test_wait", {}, progress_callback=heard.on_progress)
                lost.set()

            async with anyio.create_task_group() as group:
                group.start_soon(wait)
                await heard.until(lambda: heard.progress)
                async with client.listen(tools_list_changed=True) as changes:
                    await anyio.to_thread.run_sync(daemon.kill)
                    with pytest.raises(SubscriptionLost):
                        await next_of(changes, ToolsListChanged)
                await lost.wait()

            await anyio.to_thread.run_sync(daemon.start)
            assert text_of(await client.call_tool("test_simple_text", {}))
            async with client.listen(tools_list_changed=True) as changes:
                await client.call_tool("test_trigger_tool_change", {})
                await next_of(changes, ToolsListChanged)


async def test_sessions_have_instances_of_their_own_whatever_their_era() -> None:
    """Where the entry says `era = "both"`, too: one process a session, none of the other era beside it."""
    with running(python_server("own", EVERYTHING, era='"both"', sharing='"session"')) as daemon:
        ways = [(HANDSHAKE, Way("http", "own")), (PER_REQUEST, Way("http", "own")), (PER_REQUEST, Way("stdio", "own"))]
        async with AsyncExitStack() as stack:
            clients, heard = [], [Recorder() for _ in ways]
            for recorder, (mode, way) in zip(heard, ways, strict=True):
                clients.append(await stack.enter_async_context(client_for(daemon, mode, way, recorder)))
            for client in clients:
                told = json.loads(text_of(await client.call_tool("test_sampling", {"prompt": "What is it?"})))
                assert told["answer"]["content"] == {"type": "text", "text": "forty-two"}

            assert [len(one.asked) for one in heard] == [1, 1, 1]
            ready = [one for one in daemon.control.server("own").instances if one.state == "READY"]
            assert [one.key for one in ready] == ["own#1", "own#2", "own#3"]


@pytest.mark.parametrize("transport", ["http", "stdio"])
async def test_subscriptions_end_gracefully_when_the_daemon_stops(transport: str) -> None:
    with running(python_server("older", EVERYTHING, "--handshake-only")) as daemon:
        async with (
            client_for(daemon, PER_REQUEST, Way(transport, "older"), Recorder()) as client,
            client.listen(tools_list_changed=True) as changes,
        ):
            await anyio.to_thread.run_sync(daemon.stop)
            with anyio.fail_after(DEADLINE):
                assert [change async for change in changes if not isinstance(change, ToolsListChanged)] == []


async def test_what_runs_and_in_which_era(daemon: Daemon) -> None:
    assert {name: daemon.server(name)["era"] for name in ("older", "newer")} == {
        "older": "handshake",
        "newer": "per-request",
    }
