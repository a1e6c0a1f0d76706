"""`Client`: requests, handlers, and the life of its connection, against the SDK's own server class."""

import asyncio
import contextlib
import datetime
import logging
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import mcp_types as types
import pytest
from mcp import MCPError

from mcpworker.client import Client, StdioTransport
from mcpworker.client.session import Era
from mcpworker.errors import ClientError
from support import sdk_server
from support.waiting import until

pytestmark = pytest.mark.anyio

BOTH_ERAS = pytest.mark.parametrize("era", ["handshake", "per-request"])
SCRIPT = Path(sdk_server.__file__)


def stdio_client(**kwargs: object) -> Client:
    return Client(StdioTransport(sys.executable, [str(SCRIPT)]), **kwargs)  # type: ignore[arg-type]


def text_of(content: list[types.ContentBlock]) -> str:
    [block] = content
    assert isinstance(block, types.TextContent)
    return block.text


# --- requests ---------------------------------------------------------------------------------------------------


@BOTH_ERAS
async def test_lists_are_bare_lists(era: Era) -> None:
    async with Client(sdk_server.server, era=era) as client:
        assert "echo" in [tool.name for tool in await client.list_tools()]
        assert [str(resource.uri) for resource in await client.list_resources()] == ["data://config", "data://blob"]
        assert [t.uri_template for t in await client.list_resource_templates()] == ["users://{name}/profile"]
        assert [prompt.name for prompt in await client.list_prompts()] == ["greet"]


@BOTH_ERAS
async def test_results_are_bare_lists(era: Era) -> None:
    async with Client(sdk_server.server, era=era) as client:
        assert text_of(await client.call_tool("echo", {"text": "hello"})) == "hello"
        [config] = await client.read_resource("data://config")
        assert isinstance(config, types.TextResourceContents)
        assert config.text == '{"theme": "dark"}'
        [message] = await client.get_prompt("greet", {"name": "Ann"})
        assert isinstance(message.content, types.TextContent)
        assert message.content.text == "Please greet Ann"
        ref = types.PromptReference(type="ref/prompt", name="greet")
        assert (await client.complete(ref, {"name": "name", "value": "x"})).values == ["xabc"]


@BOTH_ERAS
async def test_a_failing_tool_raises_client_error_with_its_text(era: Era) -> None:
    async with Client(sdk_server.server, era=era) as client:
        with pytest.raises(ClientError, match="no more paper"):
            await client.call_tool("fail", {"reason": "no more paper"})


async def test_a_failing_tool_is_a_plain_result_of_call_tool_mcp() -> None:
    async with Client(sdk_server.server) as client:
        result = await client.call_tool_mcp("fail", {"reason": "no more paper"})
    assert result.is_error


async def test_whole_results_keep_structured_content_and_description() -> None:
    async with Client(sdk_server.server) as client:
        assert (await client.call_tool_mcp("echo", {"text": "x"})).structured_content == {"result": "x"}
        assert (await client.get_prompt_mcp("greet", {"name": "x"})).description == "Ask for a greeting."


async def test_an_error_of_the_protocol_comes_out_as_it_is() -> None:
    async with Client(sdk_server.server) as client:
        with pytest.raises(MCPError, match="Unknown resource"):
            await client.read_resource("data://nothing")


async def test_an_exception_in_the_block_comes_out_without_a_group() -> None:
    with pytest.raises(KeyError, match="mine"):
        async with Client(sdk_server.server):
            raise KeyError("mine")


@BOTH_ERAS
async def test_ping_is_answered(era: Era) -> None:
    async with Client(sdk_server.server, era=era) as client:
        assert await client.ping() is None  # type: ignore[func-returns-value]


@BOTH_ERAS
async def test_the_greeting_is_kept(era: Era) -> None:
    async with Client(sdk_server.server, era=era) as client:
        assert client.initialize_result.instructions == "Everything once."
        info = client.session.server_info
        assert info is not None
        assert (info.name, info.version) == ("Reference", "7.8.9")


async def test_all_pages_of_a_list_are_fetched_and_a_cursor_that_returns_ends_it() -> None:
    asked: list[str | None] = []
    pages = {None: ("a", "1"), "1": ("b", "2"), "2": ("c", "1")}

    async def list_tools(context: object, params: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        cursor = params.cursor if params else None
        asked.append(cursor)
        name, following = pages[cursor]
        return types.ListToolsResult(
            tools=[types.Tool(name=name, input_schema={"type": "object"})], next_cursor=following
        )

    from mcp.server.lowlevel import Server

    async with Client(Server("paged", on_list_tools=list_tools)) as client:
        assert [tool.name for tool in await client.list_tools()] == ["a", "b", "c"]
    assert asked == [None, "1", "2"]


# --- handlers ---------------------------------------------------------------------------------------------------


@BOTH_ERAS
async def test_sampling_is_answered_by_text(era: Era) -> None:
    asked: list[types.CreateMessageRequestParams] = []

    async def sample(
        messages: list[types.SamplingMessage], params: types.CreateMessageRequestParams, context: object
    ) -> str:
        asked.append(params)
        [message] = messages
        assert isinstance(message.content, types.TextContent)
        return message.content.text.upper()

    async with Client(sdk_server.server, era=era, sampling_handler=sample) as client:
        assert text_of(await client.call_tool("ask_model", {"prompt": "word"})) == "model said: WORD"
    assert [(params.max_tokens, params.system_prompt) for params in asked] == [(7, "be brief")]


async def test_sampling_is_answered_by_a_whole_result() -> None:
    def sample(messages: object, params: object, context: object) -> types.CreateMessageResult:
        content = types.TextContent(type="text", text="whole")
        return types.CreateMessageResult(role="assistant", model="m", content=content)

    async with Client(sdk_server.server, sampling_handler=sample) as client:
        assert text_of(await client.call_tool("ask_model", {"prompt": "word"})) == "model said: whole"


@BOTH_ERAS
async def test_an_exception_in_a_handler_is_an_error_with_its_text(era: Era) -> None:
    def sample(messages: object, params: object, context: object) -> str:
        raise RuntimeError("model is asleep")

    async with Client(sdk_server.server, era=era, sampling_handler=sample) as client:
        with pytest.raises((MCPError, ClientError), match="model is asleep"):
            await client.call_tool("ask_model", {"prompt": "word"})
        assert text_of(await client.call_tool("echo", {"text": "alive"})) == "alive"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"word": "yes"}, "user accept: {'word': 'yes'}"),
        (None, "user decline: None"),
        (types.ElicitResult(action="cancel"), "user cancel: None"),
    ],
)
@BOTH_ERAS
async def test_elicitation_is_answered(era: Era, answer: object, expected: str) -> None:
    async with Client(sdk_server.server, era=era, elicitation_handler=lambda m, p, c: answer) as client:  # type: ignore[arg-type, return-value]
        assert text_of(await client.call_tool("ask_user", {"question": "well?"})) == expected


async def test_an_exception_in_the_elicitation_handler_is_an_error_with_its_text() -> None:
    async def elicit(message: str, params: object, context: object) -> None:
        raise RuntimeError("user is asleep")

    async with Client(sdk_server.server, elicitation_handler=elicit) as client:
        with pytest.raises((MCPError, ClientError), match="user is asleep"):
            await client.call_tool("ask_user", {"question": "well?"})


@BOTH_ERAS
async def test_roots_are_a_list_or_a_function(era: Era) -> None:
    async with Client(sdk_server.server, era=era, roots=["/srv/a", "file:///srv/b"]) as client:
        assert text_of(await client.call_tool("ask_roots")) == "file:///srv/a,file:///srv/b"
    async with Client(sdk_server.server, era=era, roots=lambda context: [Path("/srv/c")]) as client:
        assert text_of(await client.call_tool("ask_roots")) == "file:///srv/c"


async def test_a_root_that_is_none_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match=r"invalid root 'relative/path': give a file:// URI"):
        Client(sdk_server.server, roots=["relative/path"])


@BOTH_ERAS
async def test_log_messages_reach_the_handler(era: Era) -> None:
    messages: list[tuple[str, str | None, object]] = []

    def keep(message: types.LoggingMessageNotificationParams) -> None:
        messages.append((message.level, message.logger, message.data))

    async with Client(sdk_server.server, era=era, log_handler=keep) as client:
        await client.call_tool("say", {"text": "careful"})
    assert messages == [("debug", "ref", "quiet careful"), ("warning", "ref", "careful")]


async def test_log_messages_without_a_handler_go_to_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    logger = logging.getLogger("FastMCP.client")
    lines: list[tuple[str, str]] = []
    handler = logging.Handler()
    monkeypatch.setattr(handler, "emit", lambda record: lines.append((record.levelname, record.getMessage())))
    monkeypatch.setattr(logger, "level", logging.DEBUG)
    logger.addHandler(handler)
    try:
        async with Client(sdk_server.server, era="handshake") as client:
            await client.call_tool("say", {"text": "careful"})
    finally:
        logger.removeHandler(handler)
    assert lines == [("DEBUG", "server log [ref]: quiet careful"), ("WARNING", "server log [ref]: careful")]


async def test_the_level_of_a_per_request_server_is_set_for_the_requests_that_follow() -> None:
    levels: list[str] = []
    async with Client(sdk_server.server, era="per-request", log_handler=lambda m: levels.append(m.level)) as client:
        await client.set_logging_level("warning")
        await client.call_tool("say", {"text": "careful"})
    assert levels == ["warning"]


@BOTH_ERAS
async def test_progress_reaches_the_handler_of_the_call_or_of_the_client(era: Era) -> None:
    general: list[float] = []
    special: list[tuple[float, float | None, str | None]] = []

    async def on_any(progress: float, total: float | None, message: str | None) -> None:
        general.append(progress)

    async def on_this(progress: float, total: float | None, message: str | None) -> None:
        special.append((progress, total, message))

    async with Client(sdk_server.server, era=era, progress_handler=on_any) as client:
        await client.call_tool("count", {"to": 2})
        await client.call_tool("count", {"to": 1}, progress_handler=on_this)
    assert general == [1, 2]
    assert special == [(1, 1, "step 1")]


async def test_notifications_reach_the_message_handler() -> None:
    seen: list[type] = []

    async def keep(message: object) -> None:
        seen.append(type(message))

    async with Client(sdk_server.server, era="handshake", message_handler=keep) as client:
        await client.call_tool("say", {"text": "x"})
    assert seen == [types.LoggingMessageNotification] * 2


@BOTH_ERAS
async def test_client_notifications_are_accepted_in_both_eras(era: Era) -> None:
    async with Client(sdk_server.server, era=era, roots=[]) as client:
        await client.progress("token", 1, 2)
        await client.send_roots_list_changed()
        assert text_of(await client.call_tool("echo", {"text": "alive"})) == "alive"


# --- the connection ---------------------------------------------------------------------------------------------


async def test_outside_of_the_block_there_is_no_session() -> None:
    client = Client(sdk_server.server)
    with pytest.raises(RuntimeError, match=r"Client is not connected. Use 'async with client:' context manager first."):
        await client.list_tools()
    async with client:
        assert client.is_connected()
    assert not client.is_connected()
    with pytest.raises(RuntimeError, match="Client is not connected"):
        _ = client.session


async def test_the_block_can_be_entered_again_inside() -> None:
    client = stdio_client()
    async with client:
        outer = text_of(await client.call_tool("pid"))
        async with client:
            assert text_of(await client.call_tool("pid")) == outer
        assert client.is_connected()
        assert text_of(await client.call_tool("pid")) == outer
    assert not client.is_connected()


async def test_tasks_that_enter_at_once_share_a_session_which_the_last_one_closes() -> None:
    client = stdio_client()
    first_left = asyncio.Event()

    async def short() -> str:
        async with client:
            found = text_of(await client.call_tool("pid"))
        first_left.set()
        return found

    async def long() -> str:
        async with client:
            await first_left.wait()
            return text_of(await client.call_tool("pid"))

    one, two = await asyncio.gather(short(), long())
    assert one == two
    assert not client.is_connected()


async def test_each_time_it_is_entered_anew_it_connects_anew() -> None:
    client = stdio_client()
    async with client:
        first = text_of(await client.call_tool("pid"))
    async with client:
        assert text_of(await client.call_tool("pid")) != first


async def test_the_process_is_gone_when_the_block_is_left() -> None:
    async with stdio_client() as client:
        pid = int(text_of(await client.call_tool("pid")))
        os.kill(pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_server_that_dies_fails_the_call_and_ends_the_connection() -> None:
    async with stdio_client() as client:
        with pytest.raises(MCPError, match="Connection closed"):
            await client.call_tool("die")
        assert not client.is_connected()


async def test_a_server_that_does_not_start_is_an_error_and_the_client_stays_usable(tmp_path: Path) -> None:
    script = tmp_path / "server.py"
    script.write_text("raise SystemExit(1)")
    client = Client(StdioTransport(sys.executable, [str(script)]))
    with pytest.raises(MCPError, match="Connection closed"):
        async with client:
            pytest.fail("connected to nothing")
    assert not client.is_connected()
    script.write_text(SCRIPT.read_text())
    async with client:
        assert text_of(await client.call_tool("echo", {"text": "now"})) == "now"


async def test_a_command_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(FileNotFoundError):
        async with Client(StdioTransport("/nonexistent/server", [])):
            pytest.fail("connected to nothing")


async def test_a_cancelled_opener_leaves_no_process(tmp_path: Path) -> None:
    marker = tmp_path / "pid"
    script = tmp_path / "server.py"
    script.write_text(f"import os, sys\nopen({str(marker)!r} + '.tmp', 'w').write(str(os.getpid()))\n"
                      f"os.rename({str(marker)!r} + '.tmp', {str(marker)!r})\nsys.stdin.read()\n")  # fmt: skip
    client = Client(StdioTransport(sys.executable, [str(script)]))

    async def enter() -> None:
        async with client:
            pytest.fail("the server never answers")

    opener = asyncio.get_running_loop().create_task(enter())
    await until(marker.exists, 20)
    opener.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opener
    with pytest.raises(ProcessLookupError):
        os.kill(int(marker.read_text()), 0)
    assert not client.is_connected()


async def test_a_cancelled_call_cancels_the_tool(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    started = asyncio.Event()

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        started.set()

    async with Client(sdk_server.server) as client, anyio.create_task_group() as group:
        with anyio.fail_after(10):

            async def call() -> None:
                await client.call_tool("wait_for_cancel", {"path": str(marker)}, progress_handler=on_progress)

            group.start_soon(call)
            await started.wait()
            group.cancel_scope.cancel()
            with anyio.CancelScope(shield=True):
                await until(marker.exists)
    assert marker.read_text() == "cancelled"


@pytest.mark.parametrize("timeout", [0.2, datetime.timedelta(milliseconds=200)])
async def test_a_request_waits_no_longer_than_the_read_timeout(
    tmp_path: Path, timeout: float | datetime.timedelta
) -> None:
    async with Client(sdk_server.server, read_timeout_seconds=timeout) as client:
        with pytest.raises(MCPError, match="timed out"):
            await client.call_tool("wait_for_cancel", {"path": str(tmp_path / "marker")})


async def test_close_ends_the_session_for_all_who_use_it() -> None:
    async with stdio_client() as client:
        await client.close()
        assert not client.is_connected()
        with pytest.raises(MCPError, match="Connection closed"):
            await client.call_tool("pid")


# --- eras -------------------------------------------------------------------------------------------------------


async def test_the_greeting_is_the_handshake_unless_the_server_refuses_it() -> None:
    async with Client(sdk_server.server) as client:
        assert client.session.protocol_version == "2025-11-25"


@contextlib.asynccontextmanager
async def per_request_only() -> AsyncIterator[tuple[object, object]]:
    """A server that knows `server/discover` and no handshake."""
    from mcp.shared.memory import create_client_server_memory_streams
    from mcp.shared.message import SessionMessage

    async def serve(read: object, write: object) -> None:
        async for message in read:  # type: ignore[attr-defined]
            request = message.message
            if request.method == "server/discover":
                result = types.DiscoverResult(
                    supported_versions=["2026-07-28"], capabilities=types.ServerCapabilities(), ttl_ms=0,
                    cache_scope="public", result_type="complete", instructions="modern",
                ).model_dump(by_alias=True, exclude_none=True, mode="json")  # fmt: skip
                answer: types.JSONRPCMessage = types.JSONRPCResponse(jsonrpc="2.0", id=request.id, result=result)
            else:
                error = types.ErrorData(code=types.METHOD_NOT_FOUND, message="no such method")
                answer = types.JSONRPCError(jsonrpc="2.0", id=request.id, error=error)
            await write.send(SessionMessage(answer))  # type: ignore[attr-defined]

    async with create_client_server_memory_streams() as (client_side, server_side), anyio.create_task_group() as group:
        group.start_soon(serve, *server_side)
        yield client_side
        group.cancel_scope.cancel()


async def test_a_server_that_refuses_the_handshake_is_greeted_per_request() -> None:
    from mcpworker.client.transports import StreamTransport

    class Modern(StreamTransport):
        def streams(self) -> contextlib.AbstractAsyncContextManager[tuple[object, object]]:
            return per_request_only()

    async with Client(Modern()) as client:
        assert client.session.protocol_version == "2026-07-28"
        assert client.initialize_result.instructions == "modern"
    with pytest.raises(MCPError, match="no such method"):
        async with Client(Modern(), era="handshake"):
            pytest.fail("the handshake was refused")


async def test_a_transport_of_ones_own_needs_connect_session_only() -> None:
    from mcp.client.session import ClientSession

    from mcpworker.client import ClientTransport, FastMCPTransport

    class Mine(ClientTransport):
        @contextlib.asynccontextmanager
        async def connect_session(self, **kwargs: object) -> AsyncIterator[ClientSession]:  # type: ignore[override]
            async with (
                FastMCPTransport(sdk_server.server).streams() as (read, write),
                ClientSession(read, write, **kwargs) as session,  # type: ignore[arg-type]
            ):
                await session.initialize()
                yield session

    async with Client(Mine()) as client:
        assert client.is_connected()
        assert text_of(await client.call_tool("echo", {"text": "mine"})) == "mine"
    with pytest.raises(ValueError, match=r"era='auto': <Mine> greets servers in its own way"):
        Client(Mine(), era="auto")
