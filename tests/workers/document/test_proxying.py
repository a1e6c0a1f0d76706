"""The document, "Proxying Servers": bridge transports, or add a frontend to existing servers."""

import os
from pathlib import Path

import pytest

from support.document import COMPONENTS, SNIPPETS, Way, run_script, serving_sse, write_script

pytestmark = pytest.mark.anyio

USE = "mcp = proxy"
INSPECT = "print(type(proxy).__mro__[1].__name__, proxy.name, backend.transport)"


def test_the_documents_proxy_is_a_server_and_has_not_connected_yet(tmp_path: Path) -> None:
    """'Now use the proxy like any FastMCP server'; nothing is reached before the first request."""
    code, errors = run_script(write_script(tmp_path, SNIPPETS["proxy"], INSPECT))
    assert (code, errors) == (0, "FastMCP ProxyServer <SSE(url='http://example.com/mcp/sse')>\n")


async def test_a_remote_sse_server_is_exposed_locally(way: Way, tmp_path: Path) -> None:
    """'you can expose a remote SSE server locally via stdio'; the document's snippet with a URL that exists."""
    with serving_sse(tmp_path, COMPONENTS, name="backend.py") as url:
        snippet = SNIPPETS["proxy"].replace("http://example.com/mcp/sse", url)
        async with way.connect(tmp_path, snippet, USE) as client:
            assert client.server_info is not None
            assert client.server_info.name == "ProxyServer"
            await use(client)


async def test_a_local_stdio_server_is_exposed_by_any_transport(way: Way, tmp_path: Path) -> None:
    """'or vice versa', 'for any MCP server (local or remote)'."""
    backend = write_script(tmp_path, COMPONENTS, "mcp.run()", name="backend.py")
    snippet = SNIPPETS["proxy"].replace("http://example.com/mcp/sse", os.fspath(backend))
    async with way.connect(tmp_path, snippet, USE) as client:
        await use(client)


async def use(client: object) -> None:
    """Use one component of each kind."""
    assert [tool.name for tool in (await client.list_tools()).tools] == ["multiply"]  # type: ignore[attr-defined]
    result = await client.call_tool("multiply", {"a": 3, "b": 2})  # type: ignore[attr-defined]
    assert [block.text for block in result.content] == ["6.0"]
    [contents] = (await client.read_resource("users://7/profile")).contents  # type: ignore[attr-defined]
    assert "User 7" in contents.text
    [message] = (await client.get_prompt("analyze_data", {"data_points": "[1]"})).messages  # type: ignore[attr-defined]
    assert message.content.text == "Please analyze these data points: 1.0"
