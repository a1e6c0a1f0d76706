"""A client and a `FastMCP` server in one process, for what does not depend on the transport."""

from typing import TYPE_CHECKING, Any

import mcp_types as types
from mcp import Client

if TYPE_CHECKING:
    from mcpworker import FastMCP

LEGACY, MODERN = "legacy", "2026-07-28"


def in_memory(server: "FastMCP[Any]", mode: str = LEGACY, **options: Any) -> Client:
    """The official client, connected to a server object."""
    return Client(server._mcp_server, mode=mode, cache=None, **options)  # type: ignore[arg-type]


def text_of(result: types.CallToolResult) -> str:
    """The text of a result that is one text."""
    [block] = result.content
    assert isinstance(block, types.TextContent)
    return block.text
