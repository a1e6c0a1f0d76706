"""Prompts: arguments, messages, failures."""

from typing import Annotated, Any

import mcp_types as types
import pytest
from mcp import MCPError
from pydantic import Field

from mcpworker import AssistantMessage, Context, FastMCP, Image, Message, UserMessage
from mcpworker.components.prompts import Prompt
from mcpworker.errors import PromptError
from support.in_memory import asked, in_memory

pytestmark = pytest.mark.anyio


@pytest.fixture
def server() -> FastMCP[Any]:
    return FastMCP("Prompts")


def message(text: str, role: str = "user") -> types.PromptMessage:
    return types.PromptMessage(role=role, content=types.TextContent(type="text", text=text))  # type: ignore[arg-type]


async def rendered(server: FastMCP[Any], name: str, **arguments: str) -> list[types.PromptMessage]:
    return (await asked(server, lambda client: client.get_prompt(name, arguments))).messages


async def test_arguments_are_described(server: FastMCP[Any]) -> None:
    @server.prompt(tags={"t"}, title="Title")
    def fn(a: str, ctx: Context, b: Annotated[int, Field(description="how many")] = 1) -> str:
        """Words."""
        return a

    async with in_memory(server) as client:
        [prompt] = (await client.list_prompts()).prompts
    assert (prompt.name, prompt.title, prompt.description) == ("fn", "Title", "Words.")
    assert [(item.name, item.required, item.description) for item in prompt.arguments or ()] == [
        ("a", True, None),
        ("b", False, "how many"),
    ]
    assert (await server.get_prompts())["fn"].tags == {"t"}


async def test_decorator_gives_the_function_back(server: FastMCP[Any]) -> None:
    def fn() -> str:
        return "x"

    assert server.prompt("other")(fn) is fn
    assert set(await server.get_prompts()) == {"other"}


@pytest.mark.parametrize(
    ("value", "messages"),
    [
        ("text", [message("text")]),
        (message("x", "assistant"), [message("x", "assistant")]),
        (UserMessage("x"), [message("x")]),
        (AssistantMessage("x"), [message("x", "assistant")]),
        (Message("x", role="assistant"), [message("x", "assistant")]),
        ({"role": "assistant", "content": "x"}, [message("x", "assistant")]),
        ({"role": "user", "content": {"type": "text", "text": "x"}}, [message("x")]),
        (
            ["a", AssistantMessage("b"), {"role": "user", "content": "c"}],
            [message("a"), message("b", "assistant"), message("c")],
        ),
        ({"a": 1}, [message('{"a": 1}')]),
        (5, [message("5")]),
        ([], []),
        (UserMessage([1, 2]), [message("[1, 2]")]),
        (UserMessage(None), [message("null")]),
    ],
)
async def test_values_become_messages(server: FastMCP[Any], value: Any, messages: list[types.PromptMessage]) -> None:
    server.add_prompt(lambda: value, name="x")

    assert await rendered(server, "x") == messages


async def test_message_may_be_an_image() -> None:
    content = UserMessage(Image(data=b"x")).content

    assert isinstance(content, types.ImageContent)


async def test_function_may_return_a_result_of_its_own(server: FastMCP[Any]) -> None:
    result = types.GetPromptResult(description="own", messages=[message("x")])
    server.add_prompt(lambda: result, name="x")

    async with in_memory(server) as client:
        assert (await client.get_prompt("x")).description == "own"


async def test_arguments_are_read_as_json_where_they_are_no_strings(server: FastMCP[Any]) -> None:
    @server.prompt()
    async def fn(numbers: list[float], flag: bool, count: int, text: str, either: str | int = "") -> str:
        return repr((numbers, flag, count, text, either))

    [item] = await rendered(server, "fn", numbers="[1, 2]", flag="true", count="3", text="[4]")
    assert item == message("([1.0, 2.0], True, 3, '[4]', '')")


async def test_argument_that_does_not_fit_is_named(server: FastMCP[Any]) -> None:
    @server.prompt()
    def fn(count: int) -> str:
        return str(count)

    with pytest.raises(MCPError, match=r"^Error rendering prompt fn: ") as caught:
        await rendered(server, "fn", count="many")
    assert caught.value.error.code == types.INVALID_PARAMS
    with pytest.raises(MCPError, match=r"Missing required arguments: {'count'}"):
        await rendered(server, "fn")


@pytest.mark.parametrize(("error", "code"), [(PromptError("no"), -32602), (RuntimeError("no"), -32603)])
async def test_failure_has_its_text(server: FastMCP[Any], error: Exception, code: int) -> None:
    @server.prompt()
    def fn() -> str:
        raise error

    with pytest.raises(MCPError, match=r"^Error rendering prompt fn: no$") as caught:
        await rendered(server, "fn")
    assert caught.value.error.code == code


async def test_lambda_needs_a_name(server: FastMCP[Any]) -> None:
    with pytest.raises(ValueError, match="You must provide a name for lambda functions"):
        server.add_prompt(lambda: "x")


async def test_prompt_can_be_rendered_without_a_client() -> None:
    prompt = Prompt.from_function(lambda a: f"x {a}", name="p")

    assert await prompt.render({"a": "1"}) == [message("x 1")]
    assert prompt.fn("2") == "x 2"
    asking = Prompt.from_function(lambda: types.InputRequiredResult(request_state="s"), name="q")
    with pytest.raises(PromptError, match="prompt q asks for input"):
        await asking.render()
