"""The rounds in which a per-request server asks before it answers."""

from collections.abc import Callable

import mcp_types as types
import pytest
from mcp import MCPError
from mcp.server.lowlevel import Server

from mcpworker.client import Client, input_rounds

pytestmark = pytest.mark.anyio

Answer = types.CallToolResult | types.InputRequiredResult


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the pauses between rounds."""
    monkeypatch.setattr(input_rounds, "STATE_ONLY_DELAY", 0)


def asking(answer: Callable[[types.CallToolRequestParams], Answer]) -> Client:
    """Return a client of a server whose only tool answers by `answer`."""

    async def call_tool(context: object, params: types.CallToolRequestParams) -> Answer:
        return answer(params)

    async def list_tools(context: object, params: object) -> types.ListToolsResult:
        return types.ListToolsResult(tools=[types.Tool(name="t", input_schema={"type": "object"})])

    server = Server("asking", on_call_tool=call_tool, on_list_tools=list_tools)
    return Client(server, era="per-request", sampling_handler=lambda m, p, c: "model", roots=["/srv"])


def done(text: str) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(type="text", text=text)])


async def test_a_server_that_wants_nothing_but_time_is_asked_again_with_its_state() -> None:
    states: list[str | None] = []

    def answer(params: types.CallToolRequestParams) -> Answer:
        states.append(params.request_state)
        assert params.input_responses is None
        if len(states) < 4:
            return types.InputRequiredResult(request_state=f"state {len(states)}")
        return done("finished")

    async with asking(answer) as client:
        [block] = await client.call_tool("t")
    assert isinstance(block, types.TextContent)
    assert block.text == "finished"
    assert states == [None, "state 1", "state 2", "state 3"]


async def test_several_questions_of_one_round_are_answered_together() -> None:
    message = types.SamplingMessage(role="user", content=types.TextContent(type="text", text="x"))
    sampling = types.CreateMessageRequest(params=types.CreateMessageRequestParams(messages=[message], max_tokens=1))

    def answer(params: types.CallToolRequestParams) -> Answer:
        if params.input_responses is None:
            requests: dict[str, types.InputRequest] = {"a": sampling, "b": types.ListRootsRequest()}
            return types.InputRequiredResult(input_requests=requests, request_state="s")
        assert params.request_state == "s"
        return done(",".join(type(params.input_responses[key]).__name__ for key in ("a", "b")))

    async with asking(answer) as client:
        [block] = await client.call_tool("t")
    assert isinstance(block, types.TextContent)
    assert block.text == "CreateMessageResult,ListRootsResult"


async def test_a_question_that_is_refused_ends_the_call() -> None:
    elicitation = types.ElicitRequest(
        params=types.ElicitRequestFormParams(message="?", requested_schema={"type": "object", "properties": {}})
    )

    def answer(params: types.CallToolRequestParams) -> Answer:
        return types.InputRequiredResult(input_requests={"a": elicitation}, request_state="s")

    async with asking(answer) as client:
        with pytest.raises(MCPError, match=r"(?i)elicitation"):
            await client.call_tool("t")


async def test_a_server_that_never_stops_asking_is_given_up() -> None:
    rounds = 0

    def answer(params: types.CallToolRequestParams) -> Answer:
        nonlocal rounds
        rounds += 1
        return types.InputRequiredResult(request_state="again")

    async with asking(answer) as client:
        with pytest.raises(MCPError, match="asked for input more than 10 times"):
            await client.call_tool("t")
    assert rounds == input_rounds.MAX_ROUNDS + 1


async def test_an_answer_in_the_last_round_counts() -> None:
    rounds = 0

    def answer(params: types.CallToolRequestParams) -> Answer:
        nonlocal rounds
        rounds += 1
        return done("at last") if rounds == 11 else types.InputRequiredResult(request_state="again")

    async with asking(answer) as client:
        [block] = await client.call_tool("t")
    assert isinstance(block, types.TextContent)
    assert block.text == "at last"
