"""The official client, connected to a daemon in every way that people use."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import httpx2
import mcp_types as types
from mcp import Client, StdioServerParameters, stdio_client
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client

from support.daemon import BIN, DEADLINE, Daemon

SERVERS = Path(__file__).parent / "servers"
VIEW = "some"  # the view that the registries of these tests define


@dataclass(frozen=True)
class Way:
    """A transport (`http`, `sse`, `stdio`) to one server (`scope` is its name), to a view, or to all."""

    transport: str
    scope: str

    def __str__(self) -> str:
        return f"{self.transport}-{self.scope}"

    @property
    def path(self) -> str:
        """The path of the endpoint."""
        below = {"all": "", "view": f"/views/{VIEW}"}.get(self.scope, f"/servers/{self.scope}")
        return f"{below}/{'sse' if self.transport == 'sse' else 'mcp'}"

    @property
    def connect(self) -> list[str]:
        """The arguments of `mcpctl connect`."""
        return {"all": [], "view": ["--view", VIEW]}.get(self.scope, [self.scope])

    def name(self, server: str, own: str) -> str:
        """What a server's tool or prompt is called here."""
        return f"{server}__{own}" if self.scope in ("all", "view") else own

    def of(self, server: str) -> Way:
        """The same transport to another server, unless all are seen this way anyhow."""
        return self if self.scope in ("all", "view") else Way(self.transport, server)


TRANSPORTS = ("http", "sse", "stdio")


class Recorder:
    """What a client was told and asked, and the answers that it gives."""

    def __init__(self) -> None:
        self.logs: list[types.LoggingMessageNotificationParams] = []
        self.notices: list[Any] = []
        self.asked: list[Any] = []
        self.progress: list[tuple[float, float | None, str | None]] = []
        self._news = anyio.Event()

    async def until(self, fact: Callable[[], Any], deadline: float = DEADLINE) -> Any:
        """Wait until `fact` is true; it is looked at whenever something was told. Returns what it gave."""
        with anyio.fail_after(deadline):
            while not (found := fact()):
                self._news = anyio.Event()
                await self._news.wait()
        return found

    def notices_of(self, kind: type[Any]) -> list[Any]:
        return [notice for notice in self.notices if isinstance(notice, kind)]

    async def on_log(self, params: types.LoggingMessageNotificationParams) -> None:
        self.logs.append(params)
        self._news.set()

    async def on_message(self, message: Any) -> None:
        self.notices.append(message)
        self._news.set()

    async def on_progress(self, progress: float, total: float | None, message: str | None) -> None:
        self.progress.append((progress, total, message))
        self._news.set()

    async def on_sampling(self, _: Any, params: types.CreateMessageRequestParams) -> types.CreateMessageResult:
        self.asked.append(params)
        content = types.TextContent(type="text", text="forty-two")
        return types.CreateMessageResult(role="assistant", content=content, model="oracle")

    async def on_elicitation(self, _: Any, params: types.ElicitRequestParams) -> types.ElicitResult:
        self.asked.append(params)
        return types.ElicitResult(action="accept", content={"username": "ada", "email": "ada@example.org"})

    def callbacks(self, *, asks: bool = True) -> dict[str, Any]:
        """Arguments of `Client`; without `asks` it has no capability to be asked anything."""
        questions: dict[str, Any] = {
            "sampling_callback": self.on_sampling,
            "elicitation_callback": self.on_elicitation,
        }
        return {
            "logging_callback": self.on_log,
            "message_handler": self.on_message,
            **(questions if asks else {}),
        }


@asynccontextmanager
async def connected(
    daemon: Daemon, way: Way, recorder: Recorder | None = None, *, asks: bool = True, mode: str = "legacy"
) -> AsyncIterator[Client]:
    """A client with a session of its own. `mode`: see `mcp.Client`; "legacy" is the handshake era."""
    options = (recorder or Recorder()).callbacks(asks=asks)
    options |= {"mode": mode, "cache": None, "read_timeout_seconds": DEADLINE}
    async with Client(transport(daemon, way), **options) as client:
        yield client


def transport(daemon: Daemon, way: Way) -> Any:
    """What `Client` is given to reach the daemon."""
    if way.transport == "stdio":
        program = StdioServerParameters(
            command=str(BIN / "mcpctl"), args=["connect", *way.connect], env=daemon.env, cwd=daemon.home
        )
        return stdio_client(program)
    if way.transport == "sse":
        return sse_client(daemon.url + way.path, headers=daemon.headers)
    return _streamable(daemon.url + way.path, daemon.headers)


@asynccontextmanager
async def _streamable(url: str, headers: dict[str, str]) -> AsyncIterator[Any]:
    async with (
        httpx2.AsyncClient(headers=headers, timeout=httpx2.Timeout(DEADLINE, read=None)) as http,
        streamable_http_client(url, http_client=http) as streams,
    ):
        yield streams


def text_of(result: types.CallToolResult) -> str:
    """The one text of a result."""
    (content,) = result.content
    assert isinstance(content, types.TextContent)
    return content.text
