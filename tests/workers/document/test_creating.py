"""The document, "Creating a Server": the constructor's arguments."""

from pathlib import Path

import pytest

from support.document import LAUNCHER, SNIPPETS, Way, over_stdio, run_script, write_script

pytestmark = pytest.mark.anyio


async def test_the_name_identifies_the_server_to_its_clients(way: Way, tmp_path: Path) -> None:
    """'You typically provide a name for your server, which helps identify it in client applications'."""
    async with way.connect(tmp_path, SNIPPETS["create"]) as client:
        assert client.server_info is not None
        assert client.server_info.name == "MyAssistantServer"
        assert client.instructions is None


async def test_the_instructions_reach_the_client(way: Way, tmp_path: Path) -> None:
    """'instructions: (Optional) Description of how to interact with this server.'"""
    async with way.connect(tmp_path, SNIPPETS["create"], "mcp = mcp_with_instructions") as client:
        assert client.server_info is not None
        assert client.server_info.name == "HelpfulAssistant"
        assert client.instructions == (
            "This server provides data analysis tools. Call get_average() to analyze numerical data."
        )


async def test_the_name_defaults_to_fastmcp(tmp_path: Path) -> None:
    """'name: (Optional) A human-readable name for your server. Defaults to "FastMCP".'"""
    script = write_script(tmp_path, "from fastmcp import FastMCP\nmcp = FastMCP()\nmcp.run()")
    async with over_stdio([*LAUNCHER, str(script)]) as client:
        assert client.server_info is not None
        assert client.server_info.name == "FastMCP"


LIFESPAN = """
from contextlib import asynccontextmanager
from fastmcp import Context, FastMCP

def note(text):
    with open({journal!r}, "a") as file:
        file.write(text + "\\n")

@asynccontextmanager
async def lifespan(server):
    note(f"startup of {{server.name}}")
    yield {{"database": "open"}}
    note("shutdown")

mcp = FastMCP("Living", lifespan=lifespan)

@mcp.tool()
def look(context: Context) -> str:
    note("call")
    return context.request_context.lifespan_context["database"]
"""


async def test_the_lifespan_is_startup_and_shutdown_logic(way: Way, tmp_path: Path) -> None:
    """'lifespan: (Optional) An async context manager function for server startup and shutdown logic.'"""
    journal = tmp_path / "journal"
    async with way.connect(tmp_path, LIFESPAN.format(journal=str(journal))) as client:
        result = await client.call_tool("look", {})
        assert result.content[0].text == "open"  # type: ignore[union-attr]
    assert journal.read_text().splitlines() == ["startup of Living", "call", "shutdown"]


def test_tags_belong_to_the_server(tmp_path: Path) -> None:
    """'tags: (Optional) A set of strings to tag the server itself.'"""
    script = write_script(
        tmp_path,
        "from fastmcp import FastMCP\nmcp = FastMCP(tags={'a', 'b'})\nassert mcp.tags == {'a', 'b'}\n"
        "assert FastMCP().tags == set()\nmcp.run()",
    )
    assert run_script(script) == (0, "")


def test_settings_are_keyword_arguments(tmp_path: Path) -> None:
    """'**settings: Keyword arguments corresponding to additional ServerSettings configuration'."""
    script = write_script(
        tmp_path,
        "from fastmcp import FastMCP\nmcp = FastMCP('x', host='127.0.0.1', port=1234, log_level='ERROR')\n"
        "assert (mcp.settings.host, mcp.settings.port, mcp.settings.log_level) == ('127.0.0.1', 1234, 'ERROR')",
    )
    assert run_script(script) == (0, "")
