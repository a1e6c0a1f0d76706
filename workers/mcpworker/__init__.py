"""The framework in which MCP server scripts are written.

    from mcpworker import FastMCP

    mcp = FastMCP("Greeter")

    @mcp.tool()
    def greet(name: str) -> str:
        return f"Hello, {name}!"

    mcp.run()

Names are imported when they are first used (PEP 562): the protocol SDK below takes most of a second to import.
"""

import importlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from mcpworker import client, settings
    from mcpworker.client import Client
    from mcpworker.components.prompts import AssistantMessage, Message, UserMessage
    from mcpworker.context import Context
    from mcpworker.media import Audio, File, Image
    from mcpworker.server import FastMCP

__all__ = [
    "AssistantMessage",
    "Audio",
    "Client",
    "Context",
    "FastMCP",
    "File",
    "Image",
    "Message",
    "UserMessage",
    "client",
    "settings",
]

__version__ = "0.1.0"

_HOMES = {
    "AssistantMessage": "mcpworker.components.prompts",
    "Audio": "mcpworker.media",
    "Client": "mcpworker.client",
    "Context": "mcpworker.context",
    "FastMCP": "mcpworker.server",
    "File": "mcpworker.media",
    "Image": "mcpworker.media",
    "Message": "mcpworker.components.prompts",
    "UserMessage": "mcpworker.components.prompts",
}
_MODULES = frozenset({"client", "settings"})


def __getattr__(name: str) -> "Any":
    if name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
    elif name in _MODULES:
        value = importlib.import_module(f"mcpworker.{name}")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
