"""The official client, connected to a server script in every way there is."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import mcp_types as types
from mcp import Client, StdioServerParameters, stdio_client
from mcp.client.sse import sse_client

SCRIPTS = Path(__file__).parent.parent / "workers" / "scripts"
LAUNCHER = Path(__file__).parents[2] / "workers" / "mcpworker" / "launcher" / "__main__.py"

CONNECTIONS = ("stdio-legacy", "stdio-modern", "sse-legacy", "sse-modern", "http-legacy", "http-modern")
LEGACY, MODERN = "legacy", "2026-07-28"


class Recorder:
    """What a client was told, and the answers that it gives."""

    def __init__(self) -> None:
        self.logs: list[tuple[str, Any, str | None]] = []
        self.messages: list[Any] = []
        self.questions: list[str] = []
        self.sampled: list[types.CreateMessageRequestParams] = []
        self.action = "accept"

    async def on_log(self, params: types.LoggingMessageNotificationParams) -> None:
        self.logs.append((params.level, params.data, params.logger))

    async def on_message(self, message: Any) -> None:
        self.messages.append(message)

    async def on_sampling(self, _: Any, params: types.CreateMessageRequestParams) -> types.CreateMessageResult:
        self.sampled.append(params)
        return types.CreateMessageResult(
            role="assistant", content=types.TextContent(type="text", text="forty-two"), model="m"
        )

    async def on_elicitation(self, _: Any, params: types.ElicitRequestParams) -> types.ElicitResult:
        self.questions.append(params.message)
        content: dict[str, str | int | float | bool | list[str] | None] = {"name": f"Ada{len(self.questions)}"}
        return types.ElicitResult(action=self.action, content=content if self.action == "accept" else None)  # type: ignore[arg-type]

    async def on_roots(self, _: Any) -> types.ListRootsResult:
        return types.ListRootsResult(roots=[types.Root(uri="file:///home/ada")])

    def callbacks(self) -> dict[str, Any]:
        return {
            "logging_callback": self.on_log,
            "message_handler": self.on_message,
            "sampling_callback": self.on_sampling,
            "elicitation_callback": self.on_elicitation,
            "list_roots_callback": self.on_roots,
        }


def stdio_parameters(script: str | Path, *arguments: str, launcher: bool = False, **more: Any) -> StdioServerParameters:
    """The command for a script: by the launcher, or as a plain program."""
    path = SCRIPTS / script if isinstance(script, str) else script
    argv = [str(LAUNCHER)] if launcher else []
    return StdioServerParameters(command=sys.executable, args=[*argv, str(path), *arguments], **more)


@asynccontextmanager
async def connected(kind: str, target: Any, recorder: Recorder | None = None, **options: Any) -> AsyncIterator[Client]:
    """A client of `target` - stdio parameters or a base URL - by a transport and in an era."""
    transport, era = kind.split("-")
    if recorder is not None:
        options = {**recorder.callbacks(), **options}
    server: Any = target
    if transport == "stdio":
        server = stdio_client(target)
    elif transport == "sse":
        server = sse_client(f"{target}/sse")
    elif transport == "http":
        server = f"{target}/mcp"
    async with Client(server, mode=LEGACY if era == "legacy" else MODERN, cache=None, **options) as client:
        yield client
