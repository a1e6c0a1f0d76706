"""Every feature over every transport and in both eras, with the official client: black box, real processes."""

import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack

import anyio
import mcp_types as types
import pytest
from mcp import Client, MCPError

from support.http_server import free_port, running
from support.worker_clients import CONNECTIONS, SCRIPTS, Recorder, connected, stdio_parameters

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, str]]:
    """One SSE and one Streamable HTTP server for the module."""
    ports = {"sse": free_port(), "http": free_port()}
    script = str(SCRIPTS / "features.py")
    with (
        running([sys.executable, script, "sse", str(ports["sse"])], ports["sse"]),
        running([sys.executable, script, "streamable-http", str(ports["http"])], ports["http"]),
    ):
        yield {kind: f"http://127.0.0.1:{port}" for kind, port in ports.items()}


def target_of(kind: str, servers: dict[str, str]) -> object:
    transport = kind.split("-")[0]
    return stdio_parameters("features.py") if transport == "stdio" else servers[transport]


@pytest.fixture(scope="module", params=CONNECTIONS)
async def peer(request: pytest.FixtureRequest, servers: dict[str, str]) -> AsyncIterator[tuple[Client, Recorder]]:
    """A client that can do everything, and what it was told."""
    recorder = Recorder()
    async with connected(request.param, target_of(request.param, servers), recorder, log_level="info") as client:
        yield client, recorder


@pytest.fixture
def client(peer: tuple[Client, Recorder]) -> Client:
    return peer[0]


@pytest.fixture
def recorder(peer: tuple[Client, Recorder]) -> Recorder:
    recorder = peer[1]
    recorder.__init__()  # type: ignore[misc]
    return recorder


def text_of(result: types.CallToolResult) -> str:
    [block] = result.content
    assert isinstance(block, types.TextContent)
    return block.text


async def test_server_says_who_it_is(client: Client) -> None:
    await client.list_tools()

    info = client.server_info
    if info is not None:  # a client that pins 2026-07-28 without asking knows nothing
        assert (info.name, info.version) == ("Features", "1.2.3")
    if client.protocol_version != "2026-07-28":
        assert client.instructions == "Everything once."


async def test_tool_is_listed_with_schema_title_and_hints(client: Client) -> None:
    tools = {tool.name: tool for tool in (await client.list_tools()).tools}

    assert tools["echo"].description == "Give back what came."
    assert tools["echo"].title == "Echo"
    assert tools["echo"].annotations is not None
    assert tools["echo"].annotations.read_only_hint is True
    assert tools["echo"].input_schema["properties"]["text"]["type"] == "string"
    assert tools["shift"].input_schema["required"] == ["point"]
    assert tools["shift"].output_schema is not None
    assert set(tools["shift"].output_schema["properties"]) == {"x", "y"}


async def test_context_is_no_argument(client: Client) -> None:
    tools = {tool.name: tool for tool in (await client.list_tools()).tools}

    assert set(tools["sample"].input_schema["properties"]) == {"question"}


async def test_tool_answers(client: Client) -> None:
    assert text_of(await client.call_tool("echo", {"text": "héllo"})) == "héllo"


async def test_model_argument_and_result_are_structured(client: Client) -> None:
    result = await client.call_tool("shift", {"point": {"x": "1"}, "by": 2})

    assert result.structured_content == {"x": 3, "y": 2}
    assert text_of(result) == '{"x": 3, "y": 2}'


async def test_object_sent_as_json_text_is_understood(client: Client) -> None:
    result = await client.call_tool("shift", {"point": '{"x": 5}'})

    assert result.structured_content == {"x": 6, "y": 1}


async def test_media_become_content_blocks_after_the_data(client: Client) -> None:
    result = await client.call_tool("media")

    assert [block.type for block in result.content] == ["text", "image", "audio", "resource"]
    assert result.content[0].text == '["first", {"second": 2}]'  # type: ignore[union-attr]


async def test_stray_print_does_not_reach_the_client(client: Client) -> None:
    assert text_of(await client.call_tool("noisy")) == "quiet"


async def test_crash_tells_the_model_its_reason(client: Client) -> None:
    result = await client.call_tool("crash")

    assert result.is_error
    assert text_of(result) == "Error executing tool crash: secret reason"


async def test_foreseen_failure_tells_the_model_its_reason(client: Client) -> None:
    result = await client.call_tool("refuse")

    assert result.is_error
    assert text_of(result) == "Error executing tool refuse: not today"


async def test_unknown_tool_is_named(client: Client) -> None:
    result = await client.call_tool("nonsense")

    assert result.is_error
    assert text_of(result) == "Unknown tool: nonsense"


async def test_wrong_argument_is_an_error_result(client: Client) -> None:
    result = await client.call_tool("shift", {"point": {"x": "many"}})

    assert result.is_error
    assert text_of(result).startswith("Error executing tool shift: ")
    assert "valid integer" in text_of(result)


async def test_sync_tool_runs_off_the_loop(client: Client) -> None:
    assert text_of(await client.call_tool("thread_name")).startswith("mcpworker-")


async def test_lifespan_value_reaches_tools(client: Client) -> None:
    assert text_of(await client.call_tool("lifespan_state")) == "ready"


async def test_progress_reaches_the_caller(client: Client) -> None:
    seen: list[tuple[float, float | None, str | None]] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        seen.append((progress, total, message))

    await client.call_tool("progress", progress_callback=on_progress)

    assert seen == [(1, 3, "step 1"), (2, 3, "step 2"), (3, 3, "step 3")]


async def test_log_messages_arrive(client: Client, recorder: Recorder) -> None:
    await client.call_tool("talk")
    with anyio.fail_after(5):
        while not any(level == "error" for level, _, _ in recorder.logs):
            await anyio.lowlevel.checkpoint()

    assert ("info", "i", None) in recorder.logs
    assert ("error", "e", "here") in recorder.logs
    debug_wanted = client.protocol_version != "2026-07-28"  # there, the client said info on each request
    assert (("debug", "d", None) in recorder.logs) is debug_wanted


async def test_tool_samples_the_clients_model(client: Client, recorder: Recorder) -> None:
    result = await client.call_tool("sample", {"question": "Why?"})

    assert text_of(result) == "model says forty-two"
    [params] = recorder.sampled
    assert (params.system_prompt, params.max_tokens) == ("be brief", 7)


async def test_tool_asks_the_user_twice_and_runs_once(client: Client, recorder: Recorder) -> None:
    before = text_of(await client.call_tool("ask")).rsplit(" ", 1)
    recorder.questions.clear()

    after = text_of(await client.call_tool("ask")).rsplit(" ", 1)

    assert recorder.questions == ["Who?", "Really Ada1?"]
    assert after[0] == "Ada1 accept"
    assert int(after[1]) == int(before[1]) + 1


async def test_declined_question_is_no_error(client: Client, recorder: Recorder) -> None:
    recorder.action = "decline"

    assert text_of(await client.call_tool("ask")) == "decline"


async def test_questions_side_by_side_are_all_answered(client: Client, recorder: Recorder) -> None:
    answer = text_of(await client.call_tool("ask_both"))

    assert sorted(answer.split()) == ["Ada1", "Ada2"]
    assert sorted(recorder.questions) == ["left", "right"]


async def test_tool_learns_the_clients_roots(client: Client) -> None:
    assert text_of(await client.call_tool("roots")) == "file:///home/ada"


async def test_tool_reads_a_resource_of_its_server(client: Client) -> None:
    assert text_of(await client.call_tool("read_own")) == '{"theme": "dark"}'


async def test_resources_and_templates_are_listed(client: Client) -> None:
    resources = {item.uri: item for item in (await client.list_resources()).resources}
    templates = {item.uri_template: item for item in (await client.list_resource_templates()).resource_templates}

    assert resources["data://config"].name == "config"
    assert resources["data://config"].description == "The configuration."
    assert resources["data://config"].mime_type == "text/plain"
    assert templates["users://{user_id}/profile"].name == "profile"
    assert templates["users://{user_id}/profile"].description == "A user's profile."
    assert "tree://{path*}" in templates


@pytest.mark.parametrize(
    ("uri", "text"),
    [
        ("data://config", '{"theme": "dark"}'),
        ("users://7/profile", '{"id": 7, "server": "Features"}'),
        ("tree://a/b%20c/d", "a/b c/d"),
    ],
)
async def test_resource_is_read(client: Client, uri: str, text: str) -> None:
    [item] = (await client.read_resource(uri)).contents

    assert isinstance(item, types.TextResourceContents)
    assert (item.text, item.uri) == (text, uri)


async def test_bytes_are_a_blob(client: Client) -> None:
    [item] = (await client.read_resource("data://bytes")).contents

    assert isinstance(item, types.BlobResourceContents)
    assert (item.blob, item.mime_type) == ("AP8=", "application/octet-stream")


async def test_unknown_resource_is_named(client: Client) -> None:
    with pytest.raises(MCPError, match=r"^Unknown resource: data://nonsense$"):
        await client.read_resource("data://nonsense")


async def test_failing_resource_says_why(client: Client) -> None:
    with pytest.raises(MCPError, match=r"^Error reading resource broken://x: no disk$"):
        await client.read_resource("broken://x")


async def test_parameter_that_climbs_out_is_refused(client: Client) -> None:
    with pytest.raises(MCPError, match=r"holds '..', an absolute path or NUL"):
        await client.read_resource("tree://a/../../etc/passwd")


async def test_resource_may_ask_the_user(client: Client) -> None:
    [item] = (await client.read_resource("asks://who")).contents

    assert item.text.startswith("Ada")  # type: ignore[union-attr]


async def test_prompt_is_listed_with_arguments(client: Client) -> None:
    prompts = {item.name: item for item in (await client.list_prompts()).prompts}

    assert prompts["analyze"].description == "Analyze points."
    assert [(item.name, item.required) for item in prompts["analyze"].arguments or ()] == [
        ("points", True),
        ("style", False),
    ]


async def test_prompt_decodes_json_arguments(client: Client) -> None:
    result = await client.get_prompt("analyze", {"points": "[1, 2.5]", "style": "long"})

    assert result.messages[0].content.text == "long: 3.5"  # type: ignore[union-attr]


async def test_prompt_may_ask_the_user(client: Client) -> None:
    result = await client.get_prompt("interview")

    assert result.messages[0].content.text.startswith("Interview Ada")  # type: ignore[union-attr]


async def test_missing_prompt_argument_is_named(client: Client) -> None:
    with pytest.raises(MCPError, match=r"Missing required arguments: {'points'}"):
        await client.get_prompt("analyze")


async def test_unknown_prompt_is_named(client: Client) -> None:
    with pytest.raises(MCPError, match=r"^Unknown prompt: nonsense$"):
        await client.get_prompt("nonsense")


async def test_choices_of_a_prompt_argument_are_completed(client: Client) -> None:
    reference = types.PromptReference(name="analyze")

    result = await client.complete(reference, {"name": "style", "value": "l"})

    assert result.completion.values == ["long"]


@pytest.mark.parametrize("kind", CONNECTIONS)
async def test_client_hears_of_a_tool_added_and_removed(kind: str, servers: dict[str, str]) -> None:
    recorder = Recorder()
    name = f"new_{kind.replace('-', '_')}"
    async with connected(kind, target_of(kind, servers), recorder) as client, AsyncExitStack() as stack:
        if kind.endswith("modern"):
            changes = await stack.enter_async_context(client.listen(tools_list_changed=True))
        await client.call_tool("grow", {"name": name})
        with anyio.fail_after(5):
            if kind.endswith("modern"):
                assert type(await anext(aiter(changes))).__name__ == "ToolsListChanged"
            else:
                while not any(isinstance(item, types.ToolListChangedNotification) for item in recorder.messages):
                    await anyio.lowlevel.checkpoint()
        assert name in {tool.name for tool in (await client.list_tools()).tools}
        await client.call_tool("shrink", {"name": name})
        assert name not in {tool.name for tool in (await client.list_tools()).tools}


@pytest.mark.parametrize("kind", CONNECTIONS)
async def test_subscriber_hears_of_its_resource_only(kind: str, servers: dict[str, str]) -> None:
    recorder = Recorder()
    async with connected(kind, target_of(kind, servers), recorder) as client, AsyncExitStack() as stack:
        if kind.endswith("modern"):
            listening = client.listen(resource_subscriptions=["data://config"])
            changes = await stack.enter_async_context(listening)
        else:
            request = types.SubscribeRequest(params=types.SubscribeRequestParams(uri="data://config"))
            await client.session.send_request(request, types.EmptyResult)
        await client.call_tool("touch", {"uri": "data://other"})
        await client.call_tool("touch", {"uri": "data://config"})
        with anyio.fail_after(5):
            if kind.endswith("modern"):
                assert (await anext(aiter(changes))).uri == "data://config"  # type: ignore[union-attr]
            else:
                found: list[str] = []
                while not found:
                    await anyio.lowlevel.checkpoint()
                    updates = (types.ResourceUpdatedNotification,)
                    found = [item.params.uri for item in recorder.messages if isinstance(item, updates)]
                assert found == ["data://config"]


@pytest.mark.parametrize("kind", CONNECTIONS)
async def test_client_that_cannot_is_not_asked(kind: str, servers: dict[str, str]) -> None:
    async with connected(kind, target_of(kind, servers)) as client:
        for tool, arguments, missing in (
            ("ask", {}, "elicitation"),
            ("sample", {"question": "Why?"}, "sampling"),
            ("roots", {}, "roots"),
        ):
            result = await client.call_tool(tool, arguments)
            assert result.is_error
            assert text_of(result) == f"Error executing tool {tool}: the client does not support {missing}"
