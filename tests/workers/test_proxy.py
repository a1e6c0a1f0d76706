"""`FastMCP.from_client`: what passes through a proxy, its kept session, and whose question a backend's question is."""

import asyncio
import base64
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import mcp_types as types
import pytest
from mcp import MCPError
from mcp.client.subscriptions import listen

from mcpworker import Client, Context, FastMCP
from mcpworker.client import SSETransport, StdioTransport, StreamableHttpTransport
from mcpworker.client.session import Era
from mcpworker.errors import ClientError
from mcpworker.proxy import FastMCPProxy
from support import sdk_server
from support.http_server import free_port, running, sdk_server_argv
from support.waiting import until

pytestmark = pytest.mark.anyio

SCRIPT = Path(sdk_server.__file__)
FOUR_CELLS = pytest.mark.parametrize(
    ("front", "back"),
    [(front, back) for front in ("handshake", "per-request") for back in ("handshake", "per-request")],
    ids=lambda era: era,
)


def stdio() -> StdioTransport:
    return StdioTransport(sys.executable, [str(SCRIPT)])


def text_of(content: list[types.ContentBlock]) -> str:
    [block] = content
    assert isinstance(block, types.TextContent)
    return block.text


# --- what a proxy is --------------------------------------------------------------------------------------------


async def test_from_client_makes_a_server_of_its_own_name_without_connecting() -> None:
    proxy = FastMCP.from_client(Client("http://127.0.0.1:9/sse"), name="ProxyServer", port=8123)
    assert isinstance(proxy, FastMCPProxy)
    assert isinstance(proxy, FastMCP)
    assert proxy.name == "ProxyServer"
    assert proxy.settings.port == 8123


async def test_anything_that_a_client_can_be_made_of_will_do() -> None:
    backend = FastMCP("Backend")

    @backend.tool()
    def hello() -> str:
        return "hi"

    for proxy in (FastMCP.from_client(backend), FastMCPProxy(client=backend), FastMCPProxy(Client(backend))):
        async with Client(proxy) as client:
            assert text_of(await client.call_tool("hello")) == "hi"


@FOUR_CELLS
async def test_every_kind_of_component_is_listed_as_the_backend_describes_it(front: Era, back: Era) -> None:
    async with Client(sdk_server.server) as direct:
        tools, resources = await direct.list_tools(), await direct.list_resources()
        templates, prompts = await direct.list_resource_templates(), await direct.list_prompts()
    proxy = FastMCP.from_client(Client(sdk_server.server, era=back))
    async with Client(proxy, era=front) as client:
        assert await client.list_tools() == tools
        assert await client.list_resources() == resources
        assert await client.list_resource_templates() == templates
        assert await client.list_prompts() == prompts


@FOUR_CELLS
async def test_every_kind_of_call_is_passed_on(front: Era, back: Era) -> None:
    proxy = FastMCP.from_client(Client(sdk_server.server, era=back))
    async with Client(proxy, era=front) as client:
        result = await client.call_tool_mcp("echo", {"text": "hello"})
        assert text_of(result.content) == "hello"
        assert result.structured_content == {"result": "hello"}
        [config] = await client.read_resource("data://config")
        assert isinstance(config, types.TextResourceContents)
        assert config.text == '{"theme": "dark"}'
        [message] = await client.get_prompt("greet", {"name": "Ann"})
        assert isinstance(message.content, types.TextContent)
        assert message.content.text == "Please greet Ann"
        ref = types.PromptReference(type="ref/prompt", name="greet")
        assert (await client.complete(ref, {"name": "name", "value": "x"})).values == ["xabc"]


async def test_template_parameters_reach_the_backend_as_they_were_written() -> None:
    proxy = FastMCP.from_client(sdk_server.server)
    async with Client(proxy) as client:
        [found] = await client.read_resource("users://a%20b%3Fc/profile")
    assert isinstance(found, types.TextResourceContents)
    assert found.text == "profile of a b?c"


async def test_a_blob_stays_the_bytes_that_it_is() -> None:
    proxy = FastMCP.from_client(sdk_server.server)
    async with Client(proxy) as client:
        [blob] = await client.read_resource("data://blob")
    assert isinstance(blob, types.BlobResourceContents)
    assert base64.b64decode(blob.blob) == b"\x00\xff\x10\x80"
    assert blob.mime_type == "application/octet-stream"
    resource = (await proxy.get_resources())["data://blob"]
    assert await resource.read() == b"\x00\xff\x10\x80"


@FOUR_CELLS
async def test_errors_of_tools_keep_their_text(front: Era, back: Era) -> None:
    proxy = FastMCP.from_client(Client(sdk_server.server, era=back))
    async with Client(proxy, era=front) as client:
        with pytest.raises(ClientError, match=r"^Error executing tool fail: no more paper$"):
            await client.call_tool("fail", {"reason": "no more paper"})
        with pytest.raises(ClientError, match=r"^Unknown tool: nope$"):
            await client.call_tool("nope")


async def test_errors_of_the_protocol_keep_code_and_text() -> None:
    proxy = FastMCP.from_client(sdk_server.server)
    async with Client(sdk_server.server) as direct, Client(proxy) as client:
        for ask in (lambda c: c.read_resource("data://nothing"), lambda c: c.get_prompt("nothing")):
            with pytest.raises(MCPError) as told:
                await ask(direct)
            with pytest.raises(MCPError) as passed:
                await ask(client)
            assert passed.value.error == told.value.error


async def test_a_backend_that_lacks_a_kind_has_none_of_it() -> None:
    from mcp.server.lowlevel import Server

    async def list_tools(context: object, params: object) -> types.ListToolsResult:
        return types.ListToolsResult(tools=[types.Tool(name="only", input_schema={"type": "object"})])

    proxy = FastMCP.from_client(Client(Server("bare", on_list_tools=list_tools)))
    async with Client(proxy) as client:
        assert [tool.name for tool in await client.list_tools()] == ["only"]
        assert await client.list_resources() == []
        assert await client.list_resource_templates() == []
        assert await client.list_prompts() == []
        ref = types.PromptReference(type="ref/prompt", name="greet")
        assert (await client.complete(ref, {"name": "name", "value": "x"})).values == []


async def test_what_is_added_to_the_proxy_wins() -> None:
    proxy = FastMCP.from_client(sdk_server.server)

    @proxy.tool()
    def echo(text: str) -> str:
        """Echo of the proxy."""
        return f"proxy: {text}"

    @proxy.tool()
    def extra() -> str:
        return "more"

    async with Client(proxy) as client:
        tools = {tool.name: tool for tool in await client.list_tools()}
        assert tools["echo"].description == "Echo of the proxy."
        assert {"extra", "pid"} <= set(tools)
        assert text_of(await client.call_tool("echo", {"text": "x"})) == "proxy: x"
        assert text_of(await client.call_tool("extra")) == "more"


async def test_a_proxy_shows_at_once_what_its_backend_gains() -> None:
    backend = FastMCP("Backend")
    async with Client(FastMCP.from_client(backend)) as client:
        assert await client.list_tools() == []
        backend.add_tool(lambda: "late", name="late")
        assert [tool.name for tool in await client.list_tools()] == ["late"]
        assert text_of(await client.call_tool("late")) == "late"


async def test_lists_are_kept_for_as_long_as_the_settings_say() -> None:
    asked: list[object] = []
    from mcp.server.lowlevel import Server

    async def list_tools(context: object, params: object) -> types.ListToolsResult:
        asked.append(params)
        return types.ListToolsResult(tools=[])

    backend = Server("counting", on_list_tools=list_tools)
    async with Client(FastMCP.from_client(Client(backend), cache_expiration_seconds=60)) as client:
        await client.list_tools()
        await client.list_tools()
    assert len(asked) == 1
    async with Client(FastMCP.from_client(Client(backend))) as client:
        await client.list_tools()
        await client.list_tools()
    assert len(asked) == 3


# --- what travels beside the answers ----------------------------------------------------------------------------


@FOUR_CELLS
async def test_progress_passes(front: Era, back: Era) -> None:
    seen: list[tuple[float, float | None, str | None]] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        seen.append((progress, total, message))

    proxy = FastMCP.from_client(Client(sdk_server.server, era=back))
    async with Client(proxy, era=front) as client:
        await client.call_tool("count", {"to": 2}, progress_handler=on_progress)
    assert seen == [(1, 2, "step 1"), (2, 2, "step 2")]


@FOUR_CELLS
async def test_cancellation_passes(front: Era, back: Era, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    started = asyncio.Event()

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        started.set()

    proxy = FastMCP.from_client(Client(stdio(), era=back))
    async with Client(proxy, era=front) as client, anyio.create_task_group() as group:

        async def call() -> None:
            await client.call_tool("wait_for_cancel", {"path": str(marker)}, progress_handler=on_progress)

        with anyio.fail_after(20):
            group.start_soon(call)
            await started.wait()
            group.cancel_scope.cancel()
            with anyio.CancelScope(shield=True):
                await until(marker.exists)


@FOUR_CELLS
async def test_log_messages_pass(front: Era, back: Era) -> None:
    seen: list[tuple[str, str | None, object]] = []

    def keep(message: types.LoggingMessageNotificationParams) -> None:
        seen.append((message.level, message.logger, message.data))

    proxy = FastMCP.from_client(Client(sdk_server.server, era=back))
    async with Client(proxy, era=front, log_handler=keep) as client:
        await client.call_tool("say", {"text": "careful"})
        assert seen == [("debug", "ref", "quiet careful"), ("warning", "ref", "careful")]
        seen.clear()
        await client.set_logging_level("warning")
        await client.call_tool("say", {"text": "careful"})
        assert seen == [("warning", "ref", "careful")]


async def test_the_level_that_a_client_asks_for_is_asked_of_the_backend() -> None:
    levels: list[str] = []
    from mcp.server.lowlevel import Server

    async def list_tools(context: object, params: object) -> types.ListToolsResult:
        return types.ListToolsResult(tools=[])

    async def call_tool(context: object, params: object) -> types.CallToolResult:
        return types.CallToolResult(content=[])

    async def set_level(context: object, params: types.SetLevelRequestParams) -> types.EmptyResult:
        levels.append(params.level)
        return types.EmptyResult()

    backend: Server[Any] = Server("leveled", on_list_tools=list_tools, on_call_tool=call_tool)
    backend.add_request_handler("logging/setLevel", types.SetLevelRequestParams, set_level)
    proxy = FastMCP.from_client(Client(backend))
    async with Client(proxy, era="handshake") as one, Client(proxy, era="handshake") as two:
        await one.call_tool("any")
        assert levels == []
        await one.set_logging_level("info")
        await one.call_tool("any")
        await two.set_logging_level("error")
        await two.call_tool("any")
        assert levels == ["info"], "the more verbose one is asked for already"
        await two.set_logging_level("debug")
        await two.call_tool("any")
        assert levels == ["info", "debug"]


@FOUR_CELLS
async def test_sampling_passes(front: Era, back: Era) -> None:
    def sample(messages: list[types.SamplingMessage], params: types.CreateMessageRequestParams, context: object) -> str:
        assert (params.max_tokens, params.system_prompt) == (7, "be brief")
        assert isinstance(messages[0].content, types.TextContent)
        return messages[0].content.text.upper()

    proxy = FastMCP.from_client(Client(sdk_server.server, era=back))
    async with Client(proxy, era=front, sampling_handler=sample) as client:
        assert text_of(await client.call_tool("ask_model", {"prompt": "word"})) == "model said: WORD"


@FOUR_CELLS
async def test_elicitation_passes(front: Era, back: Era) -> None:
    proxy = FastMCP.from_client(Client(stdio(), era=back))
    async with Client(proxy, era=front, elicitation_handler=lambda m, p, c: {"word": m}) as client:
        assert text_of(await client.call_tool("ask_user", {"question": "well?"})) == "user accept: {'word': 'well?'}"


@FOUR_CELLS
async def test_a_client_that_cannot_is_an_error_for_the_backend_at_once(front: Era, back: Era) -> None:
    proxy = FastMCP.from_client(Client(sdk_server.server, era=back))
    async with Client(proxy, era=front) as client:
        with pytest.raises((ClientError, MCPError), match="the client does not support sampling"):
            await client.call_tool("ask_model", {"prompt": "word"})
        with pytest.raises((ClientError, MCPError), match="the client does not support elicitation"):
            await client.call_tool("ask_user", {"question": "well?"})


async def test_handlers_of_the_scripts_own_client_stay_in_charge() -> None:
    logged: list[object] = []
    backend = Client(
        sdk_server.server,
        roots=["/srv/fixed"],
        sampling_handler=lambda m, p, c: "the proxy's model",
        elicitation_handler=lambda m, p, c: {"word": "the proxy's user"},
        log_handler=lambda message: logged.append(message.data),
    )
    seen: list[object] = []
    async with Client(FastMCP.from_client(backend), log_handler=lambda message: seen.append(message.data)) as client:
        assert text_of(await client.call_tool("ask_model", {"prompt": "x"})) == "model said: the proxy's model"
        assert "the proxy's user" in text_of(await client.call_tool("ask_user", {"question": "x"}))
        assert text_of(await client.call_tool("ask_roots")) == "file:///srv/fixed"
        await client.call_tool("say", {"text": "x"})
    assert logged == seen == ["quiet x", "x"]


async def test_roots_of_clients_are_not_told_to_the_backend() -> None:
    async with Client(FastMCP.from_client(sdk_server.server), roots=["/home/me"]) as client:
        with pytest.raises((ClientError, MCPError), match="List roots not supported"):
            await client.call_tool("ask_roots")


async def test_meta_of_a_call_passes_but_for_what_belongs_to_the_connection() -> None:
    backend = FastMCP("Backend")

    @backend.tool()
    def show(context: Context) -> dict[str, Any]:
        return dict(context.request_context.meta or {})

    async with Client(FastMCP.from_client(Client(backend, era="handshake")), era="handshake") as client:
        result = await client.session.call_tool("show", {}, meta={"client_id": "c1", "x/y": 1})  # type: ignore[typeddict-unknown-key]
    assert result.structured_content == {"client_id": "c1", "x/y": 1}


@FOUR_CELLS
async def test_changes_in_the_backend_reach_clients(front: Era, back: Era) -> None:
    backend = FastMCP("Backend")

    @backend.resource("data://x")
    def x() -> str:
        return "x"

    seen: list[str] = []
    news = asyncio.Event()

    async def keep(message: object) -> None:
        assert isinstance(message, types.Notification)
        if message.method != "notifications/message":
            seen.append(message.method)
            news.set()

    async def hear_of(change: Callable[[], object], method: str) -> None:
        """Make a change, again and again until it is told: when a stream is open on the far side cannot be seen."""
        with anyio.fail_after(20):
            while method not in seen:
                change()
                news.clear()
                with anyio.move_on_after(0.1):
                    await news.wait()

    proxy = FastMCP.from_client(Client(backend, era=back))
    async with Client(proxy, era=front, message_handler=keep) as client, contextlib.AsyncExitStack() as stack:
        await client.list_tools()
        if front == "handshake":
            params = types.SubscribeRequestParams(uri="data://y")
            await client.session.send_request(types.SubscribeRequest(params=params), types.EmptyResult)
        else:
            stream = listen(
                client.session,
                tools_list_changed=True,
                prompts_list_changed=True,
                resources_list_changed=True,
                resource_subscriptions=["data://y"],
            )
            await stack.enter_async_context(stream)
        names = iter(range(1000))
        tools = lambda: backend.add_tool(lambda: "late", name=f"late{next(names)}")  # noqa: E731
        await hear_of(tools, "notifications/tools/list_changed")
        prompts = lambda: backend.add_prompt(lambda: "late", name=f"late{next(names)}")  # noqa: E731
        await hear_of(prompts, "notifications/prompts/list_changed")
        await hear_of(lambda: backend.notify_resource_updated("data://y"), "notifications/resources/updated")
        backend.remove_resource("data://x")
        await until(lambda: "notifications/resources/list_changed" in seen, 20)


async def test_a_backend_that_refuses_to_be_followed_is_an_error_and_too_many_resources_are_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from mcp.server.lowlevel import Server

    asked: list[str] = []

    async def subscribe(context: object, params: types.SubscribeRequestParams) -> types.EmptyResult:
        asked.append(str(params.uri))
        if str(params.uri) == "data://secret":
            raise MCPError(types.INVALID_PARAMS, "not for you")
        return types.EmptyResult()

    async def listing(context: object, params: object) -> types.ListResourcesResult:
        return types.ListResourcesResult(resources=[])

    backend = Server("followed", on_list_resources=listing, on_subscribe_resource=subscribe)
    proxy = FastMCP.from_client(Client(backend))

    async def follow(client: Client, uri: str) -> None:
        params = types.SubscribeRequestParams(uri=uri)
        await client.session.send_request(types.SubscribeRequest(params=params), types.EmptyResult)

    async with Client(proxy, era="handshake") as client:
        await follow(client, "data://a")
        await follow(client, "data://a")
        with pytest.raises(MCPError, match="not for you"):
            await follow(client, "data://secret")
        assert asked == ["data://a", "data://secret"], "each is asked for once"
        monkeypatch.setattr("mcpworker.following.MAX_FOLLOWED", 2)
        with pytest.raises(MCPError, match="2 resources of this backend are followed already"):
            await follow(client, "data://b")
        await proxy._backend._drop(proxy._backend._connection)
        await client.list_resources()
        assert sorted(asked[2:]) == ["data://a", "data://secret"], "a new session is asked for all, whatever it says"


async def test_a_per_request_backend_that_tells_of_no_changes_is_none_the_worse() -> None:
    from mcp.server.lowlevel import Server

    async def listing(context: object, params: object) -> types.ListToolsResult:
        return types.ListToolsResult(tools=[types.Tool(name="t", input_schema={"type": "object"})])

    proxy = FastMCP.from_client(Client(Server("silent", on_list_tools=listing), era="per-request"))
    async with Client(proxy) as client:
        assert [tool.name for tool in await client.list_tools()] == ["t"]
        assert [tool.name for tool in await client.list_tools()] == ["t"]


async def test_messages_that_belong_to_no_call_go_to_the_proxys_log(monkeypatch: pytest.MonkeyPatch) -> None:
    from mcp.server.lowlevel import Server

    logged: list[str] = []
    done = asyncio.Event()

    def emit(record: logging.LogRecord) -> None:
        logged.append(record.getMessage())
        done.set()

    async def listing(context: Any, params: object) -> types.ListToolsResult:
        return types.ListToolsResult(tools=[])

    async def initialized(context: Any, params: object) -> None:
        params = types.LoggingMessageNotificationParams(level="warning", data="just so", logger="ref")
        await context.session.send_notification(types.LoggingMessageNotification(params=params))

    backend: Server[Any] = Server("talkative", on_list_tools=listing)
    backend.add_notification_handler("notifications/initialized", types.NotificationParams, initialized)
    handler = logging.Handler()
    monkeypatch.setattr(handler, "emit", emit)
    logging.getLogger("FastMCP.client").addHandler(handler)
    try:
        proxy = FastMCP.from_client(Client(backend))
        async with proxy._backend.held():
            assert await proxy.get_tools() == {}
            with anyio.fail_after(10):
                await done.wait()
    finally:
        logging.getLogger("FastMCP.client").removeHandler(handler)
    assert logged == ["server log [ref]: just so"]


# --- the kept session -------------------------------------------------------------------------------------------


async def test_one_backend_process_serves_all_requests() -> None:
    async with Client(FastMCP.from_client(stdio())) as client:
        pids = {text_of(await client.call_tool("pid")) for _ in range(5)}
        await client.list_tools()
        pids.add(text_of(await client.call_tool("pid")))
    assert len(pids) == 1
    with pytest.raises(ProcessLookupError):
        os.kill(int(pids.pop()), 0)


async def test_no_process_is_started_before_the_first_request_and_one_for_many_at_once() -> None:
    proxy = FastMCP.from_client(stdio())
    async with Client(proxy) as client:
        await client.ping()
        assert proxy._backend._connection is None
        pids: set[str] = set()

        async def call() -> None:
            pids.add(text_of(await client.call_tool("pid")))

        async with anyio.create_task_group() as group:
            for _ in range(8):
                group.start_soon(call)
    assert len(pids) == 1


async def test_sessions_of_the_proxy_share_the_backend_which_ends_with_the_last() -> None:
    proxy = FastMCP.from_client(stdio())
    async with Client(proxy) as outlasting:
        async with Client(proxy) as client:
            pid = text_of(await client.call_tool("pid"))
        assert text_of(await outlasting.call_tool("pid")) == pid
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), 0)


async def test_a_call_during_which_the_backend_dies_fails_and_the_next_one_has_a_new_backend() -> None:
    async with Client(FastMCP.from_client(stdio())) as client:
        first = text_of(await client.call_tool("pid"))
        with pytest.raises(ClientError, match="went away during the call; whether it did its work is not known"):
            await client.call_tool("die")
        second = text_of(await client.call_tool("pid"))
    assert first != second


async def test_a_backend_that_died_unnoticed_is_replaced_before_the_next_request() -> None:
    proxy = FastMCP.from_client(stdio())
    async with Client(proxy) as client:
        first = text_of(await client.call_tool("pid"))
        connection = proxy._backend._connection
        assert connection is not None
        os.kill(int(first), signal.SIGKILL)
        await until(lambda: not connection.alive)
        assert text_of(await client.call_tool("pid")) != first


@pytest.mark.parametrize(
    ("mode", "transport"),
    [
        ("sse", lambda port: SSETransport(f"http://127.0.0.1:{port}/sse")),
        ("streamable-http", lambda port: StreamableHttpTransport(f"http://127.0.0.1:{port}/mcp")),
    ],
    ids=["sse", "streamable-http"],
)
async def test_an_http_backend_that_was_restarted_is_reached_again(mode: str, transport: Callable[[int], Any]) -> None:
    port = free_port()
    proxy = FastMCP.from_client(Client(transport(port)))
    async with Client(proxy) as client:
        with running(sdk_server_argv(mode, port), port):
            first = text_of(await client.call_tool("pid"))
            assert text_of(await client.call_tool("pid")) == first
        connection = proxy._backend._connection
        assert connection is not None
        if mode == "sse":  # Streamable HTTP has no connection that would end
            await until(lambda: not connection.alive)
        with running(sdk_server_argv(mode, port), port):
            second = text_of(await client.call_tool("pid"))
            assert second != first
        with pytest.raises(ClientError, match=r"cannot be reached|went away"):
            await client.call_tool("pid")


async def test_arguments_that_are_repeated_in_headers_need_no_listing_before() -> None:
    port = free_port()
    backend = Client(f"http://127.0.0.1:{port}/mcp", era="per-request")
    with running(sdk_server_argv("streamable-http", port), port):
        async with Client(FastMCP.from_client(backend)) as client:
            assert text_of(await client.call_tool("route", {"region": "north"})) == "routed to north"


async def test_a_backend_that_cannot_be_reached_is_not_tried_again_at_once(tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    script = tmp_path / "server.py"
    script.write_text(f"open({str(starts)!r}, 'a').write('x')\nraise SystemExit(1)\n")
    proxy = FastMCP.from_client(StdioTransport(sys.executable, [str(script)]))
    async with Client(proxy) as client:
        with pytest.raises(MCPError, match=r"cannot be reached: Connection closed"):
            await client.list_tools()
        with pytest.raises(ClientError, match=r"the last attempt failed; the next one may be made in 0\.\d s"):
            await client.call_tool("pid")
    assert starts.read_text() == "x"


async def test_outside_of_a_run_each_request_has_a_connection_of_its_own() -> None:
    proxy = FastMCP.from_client(stdio())
    assert "echo" in await proxy.get_tools()
    assert proxy._backend._connection is None


async def test_a_client_that_the_script_has_connected_itself_is_used_as_it_is() -> None:
    async with Client(stdio()) as backend:
        pid = text_of(await backend.call_tool("pid"))
        async with Client(FastMCP.from_client(backend)) as client:
            assert text_of(await client.call_tool("pid")) == pid


# --- many clients, one backend ----------------------------------------------------------------------------------


async def test_answers_and_progress_find_the_client_that_called() -> None:
    proxy = FastMCP.from_client(stdio())
    seen: dict[int, list[str | None]] = {}

    async def one(number: int) -> None:
        async def on_progress(progress: float, total: float | None, message: str | None) -> None:
            seen.setdefault(number, []).append(message)

        async with Client(proxy) as client:
            for _ in range(5):
                assert text_of(await client.call_tool("echo", {"text": str(number)})) == str(number)
            await client.call_tool("count", {"to": number}, progress_handler=on_progress)

    async with Client(proxy), anyio.create_task_group() as group:
        for number in (1, 2, 3):
            group.start_soon(one, number)
    assert seen == {number: [f"step {i}" for i in range(1, number + 1)] for number in (1, 2, 3)}


async def test_a_question_that_may_be_anybodys_is_refused_and_then_clients_take_turns(tmp_path: Path) -> None:
    proxy = FastMCP.from_client(stdio())
    busy = asyncio.Event()
    asked: list[str] = []

    def answer(name: str) -> Callable[..., str]:
        def sample(messages: object, params: object, context: object) -> str:
            asked.append(name)
            return name

        return sample

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        busy.set()

    async with (
        Client(proxy, era="handshake", sampling_handler=answer("one")) as one,
        Client(proxy, era="handshake", sampling_handler=answer("two")) as two,
        anyio.create_task_group() as group,
    ):
        scope = anyio.CancelScope()

        async def occupy() -> None:
            with scope:
                await one.call_tool("wait_for_cancel", {"path": str(tmp_path / "m")}, progress_handler=on_progress)

        group.start_soon(occupy)
        with anyio.fail_after(20):
            await busy.wait()
            with pytest.raises((ClientError, MCPError), match="nobody knows whom to ask"):
                await two.call_tool("ask_model", {"prompt": "x"})
            assert asked == []

            # From now on the backend is known to ask, so that calls of different clients do not overlap.
            answers: list[str] = []

            async def ask() -> None:
                answers.append(text_of(await two.call_tool("ask_model", {"prompt": "x"})))

            group.start_soon(ask)
            assert [tool.name for tool in await two.list_tools()], "lists do not wait"
            assert answers == []
            scope.cancel()
            await until(lambda: answers)
    assert answers == ["model said: two"]
    assert asked == ["two"]


async def test_a_turn_that_does_not_come_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("mcpworker.backend.TURN_TIMEOUT", 0.05)
    proxy = FastMCP.from_client(stdio())
    proxy._backend._interactive = True
    busy = asyncio.Event()

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        busy.set()

    async with Client(proxy) as one, Client(proxy) as two, anyio.create_task_group() as group:

        async def occupy() -> None:
            await one.call_tool("wait_for_cancel", {"path": str(tmp_path / "m")}, progress_handler=on_progress)

        group.start_soon(occupy)
        with anyio.fail_after(20):
            await busy.wait()
            with pytest.raises(ClientError, match="is busy with another client's question"):
                await two.call_tool("pid")
        group.cancel_scope.cancel()


# --- mounted, imported, nested ----------------------------------------------------------------------------------


async def test_a_proxy_can_be_mounted() -> None:
    main = FastMCP("Main")
    main.mount("ref", FastMCP.from_client(stdio()))
    async with Client(main, sampling_handler=lambda m, p, c: "sampled") as client:
        assert "ref_echo" in [tool.name for tool in await client.list_tools()]
        assert "ref+data://config" in [str(resource.uri) for resource in await client.list_resources()]
        assert [t.uri_template for t in await client.list_resource_templates()] == ["ref+users://{name}/profile"]
        assert [prompt.name for prompt in await client.list_prompts()] == ["ref_greet"]
        assert text_of(await client.call_tool("ref_ask_model", {"prompt": "x"})) == "model said: sampled"
        [found] = await client.read_resource("ref+users://Ann/profile")
        assert isinstance(found, types.TextResourceContents)
        assert found.text == "profile of Ann"
        [message] = await client.get_prompt("ref_greet", {"name": "Ann"})
        assert isinstance(message.content, types.TextContent)
        ref = types.PromptReference(type="ref/prompt", name="ref_greet")
        assert (await client.complete(ref, {"name": "name", "value": "x"})).values == ["xabc"]
        pids = {text_of(await client.call_tool("ref_pid")) for _ in range(3)}
    assert len(pids) == 1
    with pytest.raises(ProcessLookupError):
        os.kill(int(pids.pop()), 0)


async def test_a_server_can_be_mounted_as_a_proxy_of_itself() -> None:
    main, sub = FastMCP("Main"), FastMCP("Sub")

    @sub.tool()
    async def ask(context: Context) -> str:
        return f"{context.fastmcp.name}: {(await context.sample('x')).text}"

    main.mount("sub", sub, as_proxy=True)
    async with Client(main, sampling_handler=lambda m, p, c: "sampled") as client:
        assert text_of(await client.call_tool("sub_ask")) == "Sub: sampled"


async def test_a_mounted_proxy_without_its_backend_does_not_break_the_list() -> None:
    main = FastMCP("Main")
    main.add_tool(lambda: "own", name="own")
    main.mount("gone", FastMCP.from_client(StdioTransport("/nonexistent/server", [])))
    async with Client(main) as client:
        assert [tool.name for tool in await client.list_tools()] == ["own"]
        assert text_of(await client.call_tool("own")) == "own"


async def test_a_proxy_can_be_imported() -> None:
    main = FastMCP("Main")
    await main.import_server("ref", FastMCP.from_client(stdio()))
    async with Client(main, sampling_handler=lambda m, p, c: "sampled") as client:
        assert "ref_echo" in [tool.name for tool in await client.list_tools()]
        assert text_of(await client.call_tool("ref_ask_model", {"prompt": "x"})) == "model said: sampled"
        [config] = await client.read_resource("ref+data://config")
        assert str(config.uri) == "ref+data://config"
        [found] = await client.read_resource("ref+users://Ann%20B/profile")
        assert isinstance(found, types.TextResourceContents)
        assert (found.text, str(found.uri)) == ("profile of Ann B", "ref+users://Ann%20B/profile")
        [message] = await client.get_prompt("ref_greet", {"name": "Ann"})
        assert isinstance(message.content, types.TextContent)
        pids = {text_of(await client.call_tool("ref_pid")) for _ in range(3)}
    assert len(pids) == 1
    with pytest.raises(ProcessLookupError):
        os.kill(int(pids.pop()), 0)


@FOUR_CELLS
async def test_a_proxy_of_a_proxy_passes_questions_to_the_client_in_front(front: Era, back: Era) -> None:
    inner = FastMCP.from_client(Client(sdk_server.server, era=back))
    outer = FastMCP.from_client(Client(inner, era=back))
    async with Client(outer, era=front, sampling_handler=lambda m, p, c: "far away") as client:
        assert text_of(await client.call_tool("ask_model", {"prompt": "x"})) == "model said: far away"


async def test_templates_of_a_proxy_can_be_asked_what_they_match() -> None:
    templates = await FastMCP.from_client(sdk_server.server).get_resource_templates()
    template = templates["users://{name}/profile"]
    assert template.matches("users://Ann/profile") == {"name": "Ann"}
    assert template.matches("users://Ann") is None
    assert template.parameters["required"] == ["name"]
    with pytest.raises(ValueError, match="does not end with"):
        template.under("other://{name}")


async def test_components_of_a_proxy_can_be_used_without_a_client_in_front() -> None:
    proxy = FastMCP.from_client(sdk_server.server)
    tool = (await proxy.get_tools())["echo"]
    result = await tool.run({"text": "direct"})
    assert isinstance(result, types.CallToolResult)
    assert text_of(result.content) == "direct"
    prompt = (await proxy.get_prompts())["greet"]
    [message] = await prompt.render({"name": "Ann"})
    assert isinstance(message.content, types.TextContent)
    assert message.content.text == "Please greet Ann"
