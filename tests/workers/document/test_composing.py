"""The document, "Composing Servers": `mount` is a live link, `import_server` a static copy."""

from pathlib import Path

import pytest

from support.document import SNIPPETS, Way

pytestmark = pytest.mark.anyio

ADDER = """
@mcp.tool()
def add_later() -> str:
    sub.add_tool(lambda: "added", name="later")
    return "done"
"""
IMPORTED = """
from fastmcp import FastMCP
import asyncio

main = FastMCP(name="Main")
sub = FastMCP(name="Sub")

@sub.tool()
def hello():
    return "hi"

@sub.resource("data://x")
def x() -> str:
    return "x of sub"

@sub.prompt()
def ask() -> str:
    return "ask of sub"

asyncio.run(main.import_server("sub", sub))
"""


async def test_a_mounted_server_is_part_of_the_main_one(way: Way, tmp_path: Path) -> None:
    """'FastMCP supports composing multiple servers together'; the document's example."""
    async with way.connect(tmp_path, SNIPPETS["compose"], "mcp = main") as client:
        assert client.server_info is not None
        assert client.server_info.name == "Main"
        assert [tool.name for tool in (await client.list_tools()).tools] == ["sub_hello"]
        result = await client.call_tool("sub_hello", {})
        assert [block.text for block in result.content] == ["hi"]  # type: ignore[union-attr]


async def test_mount_is_a_live_link(way: Way, tmp_path: Path) -> None:
    """'mount (live link)'."""
    async with way.connect(tmp_path, SNIPPETS["compose"], "mcp = main", ADDER) as client:
        await client.call_tool("add_later", {})
        assert "sub_later" in [tool.name for tool in (await client.list_tools()).tools]
        result = await client.call_tool("sub_later", {})
        assert [block.text for block in result.content] == ["added"]  # type: ignore[union-attr]


async def test_import_server_is_a_static_copy(way: Way, tmp_path: Path) -> None:
    """'import_server (static copy)'."""
    async with way.connect(tmp_path, IMPORTED, "mcp = main", ADDER) as client:
        await client.call_tool("add_later", {})
        assert [tool.name for tool in (await client.list_tools()).tools] == ["sub_hello", "add_later"]
        result = await client.call_tool("sub_hello", {})
        assert [block.text for block in result.content] == ["hi"]  # type: ignore[union-attr]
        [contents] = (await client.read_resource("sub+data://x")).contents
        assert contents.text == "x of sub"  # type: ignore[union-attr]
        [message] = (await client.get_prompt("sub_ask")).messages
        assert message.content.text == "ask of sub"  # type: ignore[union-attr]
