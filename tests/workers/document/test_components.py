"""The document, "Components": tools, resources, templates, prompts."""

import json
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import mcp_types as types
import pytest
from mcp import Client

from support.document import COMPONENTS, Way, over_sse, serving_sse

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def sse_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One server for all tests over SSE."""
    with serving_sse(tmp_path_factory.mktemp("components"), COMPONENTS) as url:
        yield url


def connect(way: Way, folder: Path, url: str) -> AbstractAsyncContextManager[Client]:
    """Connect to a server that has the document's components."""
    return over_sse(url, mode=way.mode) if way.transport == "sse" else way.connect(folder, COMPONENTS)


async def test_a_tool_is_a_function_that_the_client_can_call(way: Way, tmp_path: Path, sse_url: str) -> None:
    """'Tools are functions that the client can call to perform actions or access external systems.'"""
    async with connect(way, tmp_path, sse_url) as client:
        [tool] = (await client.list_tools()).tools
        assert (tool.name, tool.description) == ("multiply", "Multiplies two numbers together.")
        assert tool.input_schema["required"] == ["a", "b"]
        assert {name: part["type"] for name, part in tool.input_schema["properties"].items()} == {
            "a": "number",
            "b": "number",
        }
        result = await client.call_tool("multiply", {"a": 3, "b": 2.5})
        assert not result.is_error
        assert [block.text for block in result.content] == ["7.5"]  # type: ignore[union-attr]
        assert result.structured_content == {"result": 7.5}
        wrong = await client.call_tool("multiply", {"a": 3, "b": "many"})
        assert wrong.is_error


async def test_a_resource_exposes_data_that_the_client_can_read(way: Way, tmp_path: Path, sse_url: str) -> None:
    """'Resources expose data sources that the client can read.'"""
    async with connect(way, tmp_path, sse_url) as client:
        [resource] = (await client.list_resources()).resources
        assert str(resource.uri) == "data://config"
        assert resource.description == "Provides the application configuration."
        [contents] = (await client.read_resource("data://config")).contents
        assert isinstance(contents, types.TextResourceContents)
        assert json.loads(contents.text) == {"theme": "dark", "version": "1.0"}


async def test_a_template_is_a_resource_with_parameters(way: Way, tmp_path: Path, sse_url: str) -> None:
    """'Resource templates are parameterized resources that allow the client to request specific data.'"""
    async with connect(way, tmp_path, sse_url) as client:
        [template] = (await client.list_resource_templates()).resource_templates
        assert template.uri_template == "users://{user_id}/profile"
        assert template.description == "Retrieves a user's profile by ID."
        [contents] = (await client.read_resource("users://42/profile")).contents
        assert isinstance(contents, types.TextResourceContents)
        assert json.loads(contents.text) == {"id": 42, "name": "User 42", "status": "active"}
        with pytest.raises(Exception, match="Error reading resource users://nobody/profile"):
            await client.read_resource("users://nobody/profile")


async def test_a_prompt_is_a_reusable_message_template(way: Way, tmp_path: Path, sse_url: str) -> None:
    """'Prompts are reusable message templates for guiding the LLM.'"""
    async with connect(way, tmp_path, sse_url) as client:
        [prompt] = (await client.list_prompts()).prompts
        assert (prompt.name, prompt.description) == (
            "analyze_data",
            "Creates a prompt asking for analysis of numerical data.",
        )
        assert [(argument.name, argument.required) for argument in prompt.arguments or []] == [("data_points", True)]
        result = await client.get_prompt("analyze_data", {"data_points": "[1, 2.5]"})
        [message] = result.messages
        assert message.role == "user"
        assert isinstance(message.content, types.TextContent)
        assert message.content.text == "Please analyze these data points: 1.0, 2.5"
