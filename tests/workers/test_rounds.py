"""Calls that take several rounds (2026-07-28): parked, continued, given up."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import mcp_types as types
import pytest
from mcp import Client, MCPError
from pydantic import BaseModel

from mcpworker import Context, FastMCP, rounds
from mcpworker.errors import CapabilityError
from support.in_memory import LEGACY, MODERN, asked, in_memory, logged, text_of
from support.worker_clients import Recorder

pytestmark = pytest.mark.anyio


class Answer(BaseModel):
    name: str


@pytest.fixture
def server() -> FastMCP[Any]:
    server = FastMCP("Rounds")
    server.ended = []  # type: ignore[attr-defined]

    @server.tool()
    async def ask(ctx: Context, times: int = 1) -> str:
        names = []
        try:
            for number in range(times):
                answer = await ctx.elicit(f"question {number}", Answer)
                names.append(answer.data.name if answer.action == "accept" else answer.action)
        finally:
            server.ended.append(len(names))  # type: ignore[attr-defined]
        return " ".join(names)

    return server


@asynccontextmanager
async def manual(server: FastMCP[Any], **options: Any) -> AsyncIterator[Client]:
    """A client that may be asked, and whose rounds the test drives itself."""
    recorder = Recorder()
    async with in_memory(server, MODERN, **{**recorder.callbacks(), **options}) as client:
        yield client


async def one_round(
    client: Client, tool: str, arguments: dict[str, Any], state: str | None = None, **answers: Any
) -> types.CallToolResult | types.InputRequiredResult:
    responses = {key: types.ElicitResult(action="accept", content={"name": value}) for key, value in answers.items()}
    return await client.session.call_tool(
        tool, arguments, input_responses=responses or None, request_state=state, allow_input_required=True
    )


async def first_round(client: Client, tool: str = "ask", **arguments: Any) -> types.InputRequiredResult:
    result = await one_round(client, tool, arguments)
    assert isinstance(result, types.InputRequiredResult)
    return result


async def test_first_round_has_the_question_and_a_state(server: FastMCP[Any]) -> None:
    async with manual(server) as client:
        result = await first_round(client)

    assert result.input_requests is not None
    assert [request.params.message for request in result.input_requests.values()] == ["question 0"]  # type: ignore[union-attr]
    assert result.request_state


async def test_state_does_not_show_what_it_names(server: FastMCP[Any]) -> None:
    async with manual(server) as client:
        state = (await first_round(client)).request_state

    assert state is not None
    assert "parked" not in state


async def test_answer_continues_the_call(server: FastMCP[Any]) -> None:
    async with manual(server) as client:
        first = await first_round(client, times=2)
        second = await one_round(client, "ask", {"times": 2}, first.request_state, q1="Ada")
        assert isinstance(second, types.InputRequiredResult)
        assert list(second.input_requests or ()) == ["q2"]
        last = await one_round(client, "ask", {"times": 2}, second.request_state, q2="Bob")

    assert isinstance(last, types.CallToolResult)
    assert text_of(last) == "Ada Bob"


async def test_round_without_the_answer_asks_again(server: FastMCP[Any]) -> None:
    async with manual(server) as client:
        first = await first_round(client)
        again = await one_round(client, "ask", {}, first.request_state, q99="nobody asked")
        assert isinstance(again, types.InputRequiredResult)
        assert list(again.input_requests or ()) == ["q1"]
        last = await one_round(client, "ask", {}, again.request_state, q1="Ada")

    assert isinstance(last, types.CallToolResult)
    assert text_of(last) == "Ada"


async def test_state_is_good_for_one_round(server: FastMCP[Any]) -> None:
    async def question(client: Client) -> Any:
        first = await first_round(client)
        await one_round(client, "ask", {}, first.request_state, q1="Ada")
        return await one_round(client, "ask", {}, first.request_state, q1="Ada")

    with pytest.raises(MCPError, match="this call can no longer be continued"):
        await raised_by(server, question)


async def test_state_belongs_to_its_call(server: FastMCP[Any]) -> None:
    async def other_arguments(client: Client) -> Any:
        first = await first_round(client)
        return await one_round(client, "ask", {"times": 2}, first.request_state, q1="Ada")

    async def invented(client: Client) -> Any:
        return await one_round(client, "ask", {}, "parked:invented", q1="Ada")

    for question in (other_arguments, invented):
        with pytest.raises(MCPError, match="Invalid or expired requestState"):
            await raised_by(server, question)


async def raised_by(server: FastMCP[Any], question: Any) -> Any:
    recorder = Recorder()

    async with in_memory(server, MODERN, **recorder.callbacks()) as client:
        try:
            return await question(client)
        except MCPError as error:
            caught = error
    raise caught


async def test_parked_call_ends_with_the_server(server: FastMCP[Any]) -> None:
    async with manual(server) as client:
        await first_round(client)
        assert server.ended == []  # type: ignore[attr-defined]

    assert server.ended == [0]  # type: ignore[attr-defined]


async def test_parked_call_is_given_up_after_a_while(server: FastMCP[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "PARKED_SECONDS", 0.05)
    with logged("rounds") as records:
        async with manual(server) as client:
            await first_round(client)
            with anyio.fail_after(5):
                while not server.ended:  # type: ignore[attr-defined]
                    await anyio.lowlevel.checkpoint()

    assert [record.getMessage() for record in records] == ["no answer for 0.05 seconds; the call is given up"]


async def test_oldest_parked_call_makes_room(server: FastMCP[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "MAX_PARKED", 2)
    async with manual(server) as client:
        states = [(await first_round(client)).request_state for _ in range(3)]
        with anyio.fail_after(5):
            while not server.ended:  # type: ignore[attr-defined]
                await anyio.lowlevel.checkpoint()
        assert len(server.ended) == 1  # type: ignore[attr-defined]
        last = await one_round(client, "ask", {}, states[2], q1="Ada")
        assert isinstance(last, types.CallToolResult)


async def test_number_of_questions_is_bounded(server: FastMCP[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "MAX_QUESTIONS", 2)
    recorder = Recorder()
    async with in_memory(server, MODERN, **recorder.callbacks()) as client:
        result = await client.call_tool("ask", {"times": 3})

    assert result.is_error
    assert text_of(result) == "Error executing tool ask: one call may ask its client at most 2 questions"


async def test_client_that_leaves_within_a_round_ends_the_call(server: FastMCP[Any]) -> None:
    began = anyio.Event()

    @server.tool()
    async def work(ctx: Context) -> str:
        began.set()
        try:
            await anyio.sleep_forever()
        finally:
            server.ended.append("work")  # type: ignore[attr-defined]
        return "never"

    async with manual(server) as client, anyio.create_task_group() as group:
        group.start_soon(one_round, client, "work", {})
        await began.wait()
        group.cancel_scope.cancel()
    assert server.ended == ["work"]  # type: ignore[attr-defined]


async def test_error_after_an_answer_is_the_calls(server: FastMCP[Any]) -> None:
    @server.tool()
    async def fail(ctx: Context) -> str:
        await ctx.elicit("?", Answer)
        raise MCPError(-32042, "later")

    async def question(client: Client) -> Any:
        return await client.call_tool("fail")

    with pytest.raises(MCPError, match="later"):
        await raised_by(server, question)


async def test_context_speaks_for_the_round_that_is_on(server: FastMCP[Any]) -> None:
    @server.tool()
    async def talk(ctx: Context) -> str:
        before = ctx.request_id
        await ctx.elicit("?", Answer)
        await ctx.info("after the answer")
        await ctx.report_progress(1, 2)
        return f"{before != ctx.request_id} {ctx.lifespan_context} {ctx.fastmcp.name}"

    recorder = Recorder()
    steps: list[float] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        steps.append(progress)

    async with in_memory(server, MODERN, **recorder.callbacks(), log_level="info") as client:
        result = await client.call_tool("talk", progress_callback=on_progress)

    assert text_of(result) == "True {} Rounds"
    assert ("info", "after the answer", None) in recorder.logs
    assert steps == [1]


async def test_word_while_the_call_is_parked_is_dropped(server: FastMCP[Any]) -> None:
    @server.tool()
    async def chatter(ctx: Context) -> str:
        async def talk() -> None:
            while True:
                await ctx.info("psst")
                await ctx.report_progress(1)
                await anyio.lowlevel.checkpoint()

        async with anyio.create_task_group() as group:
            group.start_soon(talk)
            answer = await ctx.elicit("?", Answer)
            group.cancel_scope.cancel()
        return answer.action

    async with manual(server, log_level="info") as client:
        first = await first_round(client, "chatter")
        for _ in range(20):
            await anyio.lowlevel.checkpoint()
        last = await one_round(client, "chatter", {}, first.request_state, q1="Ada")

    assert isinstance(last, types.CallToolResult)
    assert text_of(last) == "accept"


async def test_call_that_ends_by_itself_while_it_is_parked_is_answered_in_the_next_round(server: FastMCP[Any]) -> None:
    ended = anyio.Event()

    @server.tool()
    async def impatient(ctx: Context) -> str:
        with anyio.move_on_after(0.01):
            await ctx.elicit("?", Answer)
        ended.set()
        return "went on without"

    async with manual(server) as client:
        first = await first_round(client, "impatient")
        with anyio.fail_after(5):
            await ended.wait()
            last = await one_round(client, "impatient", {}, first.request_state, q1="Ada")

    assert isinstance(last, types.CallToolResult)
    assert text_of(last) == "went on without"


async def test_function_that_keeps_its_own_state_is_called_again() -> None:
    server = FastMCP("Own")

    @server.tool()
    def count(ctx: Context) -> Any:
        number = int(ctx.request_state or 0) + 1
        if number < 3:
            return types.InputRequiredResult(request_state=str(number))
        return f"{number} {ctx.input_responses}"

    for options in ({}, Recorder().callbacks()):
        async with in_memory(server, MODERN, **options) as client:
            assert text_of(await client.call_tool("count")) == "3 None"


@pytest.mark.parametrize("mode", [LEGACY, MODERN])
async def test_each_kind_of_question_gets_its_kind_of_answer(mode: str) -> None:
    server = FastMCP("Kinds")

    @server.tool()
    async def everything(ctx: Context) -> list[str]:
        text = await ctx.sample(["one", types.SamplingMessage(role="assistant", content=[])], temperature=0.5)
        tools = await ctx.sample("use a tool", tools=[types.Tool(name="t", input_schema={"type": "object"})])
        url = await ctx.elicit_url("Sign in", "https://example.org", "e1")
        form = await ctx.elicit("Who?", Answer)
        roots = await ctx.list_roots()
        return [text.text, tools.stop_reason, url.action, form.data.name, str(roots[0].uri)]

    async def sample(_: Any, params: types.CreateMessageRequestParams) -> Any:
        if params.tools:
            use = types.ToolUseContent(type="tool_use", name="t", id="1", input={})
            return types.CreateMessageResultWithTools(role="assistant", content=[use], model="m", stop_reason="toolUse")
        assert (params.temperature, params.max_tokens) == (0.5, 512)
        return types.CreateMessageResult(
            role="assistant", content=types.TextContent(type="text", text="hi"), model="m", stop_reason="endTurn"
        )

    recorder = Recorder()
    options = {**recorder.callbacks(), "sampling_callback": sample}
    able = types.SamplingCapability(tools=types.SamplingToolsCapability())
    async with in_memory(server, mode, **options, sampling_capabilities=able) as client:
        result = await client.call_tool("everything")

    assert result.structured_content == {"result": ["hi", "toolUse", "accept", "Ada2", "file:///home/ada"]}


@pytest.mark.parametrize("mode", [LEGACY, MODERN])
async def test_answer_that_does_not_fit_is_an_error_of_the_call(server: FastMCP[Any], mode: str) -> None:
    async def wrong(_: Any, params: Any) -> types.ElicitResult:
        return types.ElicitResult(action="accept", content={"name": 5 if params.message == "question 1" else "x"})

    async def empty(_: Any, params: Any) -> types.ElicitResult:
        return types.ElicitResult(action="accept")

    for callback, said in ((wrong, "the client's answer does not fit the question"), (empty, "but sent no answer")):
        async with in_memory(server, mode, elicitation_callback=callback) as client:
            result = await client.call_tool("ask", {"times": 2})
        assert result.is_error
        assert said in text_of(result)


async def test_client_without_tools_in_sampling_is_not_asked_for_them() -> None:
    server = FastMCP("Sampling")

    @server.tool()
    async def fn(ctx: Context) -> str:
        with pytest.raises(CapabilityError, match="the client does not support roots"):
            await ctx.list_roots()
        await ctx.sample("x", tools=[])
        return "never"

    async def sample(_: Any, __: Any) -> Any:
        raise AssertionError("asked")

    async with in_memory(server, LEGACY, sampling_callback=sample) as client:
        result = await client.call_tool("fn")
    assert text_of(result) == "Error executing tool fn: the client does not support tools in sampling"


async def test_schema_that_the_protocol_has_no_form_for_is_refused(server: FastMCP[Any]) -> None:
    class Nested(BaseModel):
        inner: Answer

    @server.tool()
    async def nested(ctx: Context) -> str:
        await ctx.elicit("?", Nested)
        return "never"

    async with in_memory(server, LEGACY, **Recorder().callbacks()) as client:
        result = await client.call_tool("nested")
    assert "is not a valid PrimitiveSchemaDefinition" in text_of(result)


async def test_nothing_is_parked_for_a_client_that_cannot_be_asked(server: FastMCP[Any]) -> None:
    result = await asked(server, lambda client: client.call_tool("ask"), MODERN)

    assert text_of(result) == "Error executing tool ask: the client does not support elicitation"
