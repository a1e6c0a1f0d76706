"""Completion of arguments."""

import enum
from typing import Annotated, Any, Literal

import mcp_types as types
import pytest
from mcp import Client, MCPError

from mcpworker import FastMCP
from mcpworker.completion import choices_of
from support.in_memory import LEGACY, MODERN, asked, in_memory

pytestmark = pytest.mark.anyio


class Size(enum.Enum):
    SMALL = "small"
    LARGE = 2


@pytest.mark.parametrize(
    ("annotation", "choices"),
    [
        (Literal["a", "b", 3], ["a", "b", "3"]),
        (Literal["a"] | None, ["a"]),
        (Annotated[Literal["a"], "x"], ["a"]),
        (Size, ["small", "2"]),
        (bool, ["true", "false"]),
        (str, []),
        (None, []),
        (list[Literal["a"]], []),
    ],
)
def test_choices_of_an_annotation(annotation: Any, choices: list[str]) -> None:
    assert choices_of(annotation) == choices


@pytest.fixture
def server() -> FastMCP[Any]:
    server = FastMCP("Completion")
    server.add_prompt(lambda name: name, name="open")
    server.add_resource_fn(lambda x: x, "data://{x}", name="x")

    @server.prompt()
    def closed(size: Size, other: str = "") -> str:
        return str(size)

    return server


async def values(server: FastMCP[Any], reference: Any, name: str, value: str, mode: str = LEGACY) -> list[str]:
    result = await asked(server, lambda client: client.complete(reference, {"name": name, "value": value}), mode)
    return result.completion.values


PROMPT, TEMPLATE = types.PromptReference(name="open"), types.ResourceTemplateReference(uri="data://{x}")


@pytest.mark.parametrize("mode", [LEGACY, MODERN])
async def test_completer_of_the_server_is_asked(server: FastMCP[Any], mode: str) -> None:
    seen: list[Any] = []

    @server.completion()
    async def complete(reference: Any, argument: Any, known: Any) -> list[str]:
        seen.append((type(reference).__name__, argument.name, known and known.arguments))
        return [argument.value + "!"]

    async def question(client: Client) -> Any:
        await client.complete(TEMPLATE, {"name": "x", "value": "b"}, context_arguments={"y": "1"})
        return await client.complete(PROMPT, {"name": "name", "value": "a"})

    assert (await asked(server, question, mode)).completion.values == ["a!"]
    assert seen == [("ResourceTemplateReference", "x", {"y": "1"}), ("PromptReference", "name", None)]


async def test_choices_fill_in_where_the_completer_knows_nothing(server: FastMCP[Any]) -> None:
    @server.completion()
    def complete(*_: Any) -> None:
        return None

    assert await values(server, types.PromptReference(name="closed"), "size", "s") == ["small"]
    assert await values(server, types.PromptReference(name="closed"), "other", "s") == []


async def test_at_most_a_hundred_values_are_sent(server: FastMCP[Any]) -> None:
    @server.completion()
    def complete(*_: Any) -> list[str]:
        return [str(number) for number in range(150)]

    completion = (await asked(server, lambda c: c.complete(PROMPT, {"name": "name", "value": ""}))).completion
    assert (len(completion.values), completion.total, completion.has_more) == (100, 150, True)


async def test_completion_made_by_the_author_is_sent_as_it_is(server: FastMCP[Any]) -> None:
    made = types.Completion(values=["x"], total=7, has_more=True)

    @server.completion()
    def complete(*_: Any) -> types.Completion:
        return made

    assert (await asked(server, lambda c: c.complete(PROMPT, {"name": "name", "value": ""}))).completion == made


async def test_mounted_server_completes_its_own(server: FastMCP[Any]) -> None:
    @server.completion()
    def complete(reference: Any, *_: Any) -> list[str]:
        return [getattr(reference, "name", None) or reference.uri]

    parent = FastMCP("Parent")
    parent.mount("sub", server)

    assert await values(parent, types.PromptReference(name="sub_open"), "name", "") == ["open"]
    template = types.ResourceTemplateReference(uri="sub+data://{x}")
    assert await values(parent, template, "x", "") == ["data://{x}"]


async def test_unknown_reference_is_named(server: FastMCP[Any]) -> None:
    with pytest.raises(MCPError, match="Unknown prompt: nonsense"):
        await values(server, types.PromptReference(name="nonsense"), "x", "")
    with pytest.raises(MCPError, match="Unknown resource template: a://b"):
        await values(server, types.ResourceTemplateReference(uri="a://b"), "x", "")


async def test_failing_completer_says_why(server: FastMCP[Any]) -> None:
    @server.completion()
    def complete(*_: Any) -> list[str]:
        raise RuntimeError("no index")

    with pytest.raises(MCPError, match="Error completing argument name: no index"):
        await values(server, PROMPT, "name", "")


@pytest.mark.parametrize("how", ["nothing", "choices", "completer", "mounted"])
async def test_capability_is_claimed_only_where_something_is_completed(how: str) -> None:
    server = FastMCP("x")
    server.add_prompt(lambda name: name, name="open")
    inner = FastMCP("inner") if how == "mounted" else server
    if how in ("choices", "mounted"):

        @inner.prompt()
        def closed(flag: bool) -> str:
            return str(flag)

    if how == "completer":
        server.completion()(lambda *_: [])
    if how == "mounted":
        server.mount("in", inner)

    async with in_memory(server) as client:
        assert (client.server_capabilities.completions is not None) is (how != "nothing")
