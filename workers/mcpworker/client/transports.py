"""How a client reaches a server: one class a way, and the inference of the way from what a script passes."""

import abc
import os
import shutil
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import urlsplit

import anyio
import httpx2
from mcp.client.session import ClientSession
from mcp.client.sse import sse_client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.server.lowlevel import Server
from mcp.server.mcpserver import MCPServer
from mcp.shared._httpx_utils import create_mcp_http_client
from mcp.shared.memory import create_client_server_memory_streams
from typing_extensions import Unpack

from mcpworker.client.session import Era, SessionKwargs, Streams, WatchedStream, open_session

SERVER_SHUTDOWN_GRACE = 2.0
"""Seconds that an in-memory server gets for its lifespans' ends before it is cancelled."""

NOT_FOUND = 404

LAUNCHER = Path(__file__).parent.parent / "launcher" / "__main__.py"
"""By path and not by `-m`: this interpreter may itself have got the framework by path."""

SSE_CONNECT_TIMEOUT = 30.0
"""Seconds until an SSE endpoint must have named its message path; without it a client of a wrong URL waits for ever."""


class ClientTransport(abc.ABC):
    """A way to reach a server. A subclass of one's own needs `connect_session` only."""

    @abc.abstractmethod
    def connect_session(self, **session_kwargs: Unpack[SessionKwargs]) -> AbstractAsyncContextManager[ClientSession]:
        """Open a connection and yield a session that has greeted the server; a new one for each call."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class StreamTransport(ClientTransport):
    """A transport that is a pair of message streams; it greets the server in the era that it speaks."""

    era: Era = "auto"

    @abc.abstractmethod
    def streams(self) -> AbstractAsyncContextManager[Streams]:
        """Open a connection: a process, a stream of events, a pair of queues."""

    @asynccontextmanager
    async def connect_session(self, **session_kwargs: Unpack[SessionKwargs]) -> AsyncIterator[ClientSession]:
        """See `ClientTransport`; the era is `self.era`."""
        async with open_session(self.streams, self.era, session_kwargs) as session:
            yield session


class FastMCPTransport(StreamTransport):
    """A server in this process: a `FastMCP`, or one of the SDK's server classes. Each session runs it anew."""

    def __init__(self, mcp: Any) -> None:
        self.server: Any = mcp

    @asynccontextmanager
    async def streams(self) -> AsyncIterator[Streams]:
        """Run the server in a task beside the session; at the end it has time to close its lifespans."""
        lowlevel = lowlevel_server(self.server)
        async with (
            create_client_server_memory_streams() as (client_streams, (server_read, server_write)),
            anyio.create_task_group() as group,
        ):
            ended = anyio.Event()

            async def serve() -> None:
                try:
                    await lowlevel.run(server_read, server_write, lowlevel.create_initialization_options())
                finally:
                    ended.set()

            group.start_soon(serve)
            try:
                yield client_streams
            finally:
                with anyio.CancelScope(shield=True):
                    await client_streams[1].aclose()
                    await server_write.aclose()
                    with anyio.move_on_after(SERVER_SHUTDOWN_GRACE):
                        await ended.wait()
                group.cancel_scope.cancel()

    def __repr__(self) -> str:
        return f"<FastMCP(server={getattr(self.server, 'name', self.server)!r})>"


def lowlevel_server(server: Any) -> Server[Any]:
    """Return the SDK's low-level server inside `server`.

    Raises:
        TypeError: there is none.
    """
    for candidate in (server, getattr(server, "_mcp_server", None), getattr(server, "_lowlevel_server", None)):
        if isinstance(candidate, Server):
            return candidate
    raise TypeError(f"{server!r} is not a server: pass a FastMCP, or one of the server classes of the mcp SDK")


class StdioTransport(StreamTransport):
    """A server that is a command, spoken to over its stdin and stdout.

    The process gets the few variables that the SDK deems safe (HOME, PATH, ...) and `env`.
    """

    def __init__(
        self,
        command: str,
        args: list[str],
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
    ) -> None:
        self.command = command
        self.args = list(args)
        self.env = dict(env) if env is not None else None
        self.cwd = os.fspath(cwd) if cwd is not None else None

    def streams(self) -> AbstractAsyncContextManager[Streams]:
        """Start the command; at the end its stdin is closed, and what is left of its tree is killed."""
        parameters = StdioServerParameters(command=self.command, args=self.args, env=self.env, cwd=self.cwd)
        return stdio_client(parameters, errlog=_error_stream())

    def __repr__(self) -> str:
        return f"<{type(self).__name__}(command={self.command!r}, args={self.args!r})>"


def _error_stream() -> TextIO:
    """Return a stderr that a child can be given: one with a descriptor, which a captured one has not."""
    try:
        sys.stderr.fileno()
    except (AttributeError, OSError, ValueError):
        return sys.__stderr__ or sys.stderr
    return sys.stderr


class PythonStdioTransport(StdioTransport):
    """A server that is a Python script.

    Without `python_cmd` this interpreter runs it, by the launcher of this framework, so that `import fastmcp`
    works where no package of that name is installed.
    """

    def __init__(
        self,
        script_path: str | os.PathLike[str],
        args: list[str] | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        python_cmd: str | None = None,
    ) -> None:
        script = _script(script_path, ".py", "Python")
        runner = [str(LAUNCHER)] if python_cmd is None or python_cmd == sys.executable else []
        super().__init__(python_cmd or sys.executable, [*runner, str(script), *(args or [])], env, cwd)
        self.script_path = script


class FastMCPStdioTransport(StdioTransport):
    """A server that is a Python script with a FastMCP object, run by the command line of this framework."""

    def __init__(
        self,
        script_path: str | os.PathLike[str],
        args: list[str] | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
    ) -> None:
        script = _script(script_path, ".py", "Python")
        super().__init__(sys.executable, ["-m", "mcpworker", "run", str(script), *(args or [])], env, cwd)
        self.script_path = script


class NodeStdioTransport(StdioTransport):
    """A server that is a JavaScript file."""

    def __init__(
        self,
        script_path: str | os.PathLike[str],
        args: list[str] | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        node_cmd: str = "node",
    ) -> None:
        script = _script(script_path, ".js", "JavaScript")
        super().__init__(node_cmd, [str(script), *(args or [])], env, cwd)
        self.script_path = script


def _script(path: str | os.PathLike[str], suffix: str, language: str) -> Path:
    script = Path(path)
    if not script.is_file():
        raise FileNotFoundError(f"Script not found: {script}")
    if script.suffix != suffix:
        raise ValueError(f"Not a {language} script: {script}")
    return script


class UvxStdioTransport(StdioTransport):
    """A server that is a Python package, run by `uvx`."""

    def __init__(
        self,
        tool_name: str,
        tool_args: list[str] | None = None,
        project_directory: str | None = None,
        python_version: str | None = None,
        with_packages: list[str] | None = None,
        from_package: str | None = None,
        env_vars: Mapping[str, str] | None = None,
    ) -> None:
        options: list[str] = []
        if python_version:
            options += ["--python", python_version]
        if from_package:
            options += ["--from", from_package]
        for package in with_packages or []:
            options += ["--with", package]
        env = {**os.environ, **env_vars} if env_vars else None
        super().__init__("uvx", [*options, tool_name, *(tool_args or [])], env, _directory(project_directory))
        self.tool_name = tool_name


class NpxStdioTransport(StdioTransport):
    """A server that is a Node package, run by `npx`."""

    def __init__(
        self,
        package: str,
        args: list[str] | None = None,
        project_directory: str | None = None,
        env_vars: Mapping[str, str] | None = None,
        use_package_lock: bool = True,
    ) -> None:
        if shutil.which("npx") is None:
            raise ValueError("Command 'npx' not found: install Node.js, or extend PATH by the directory that has it")
        options = ["--prefer-offline"] if use_package_lock else []
        env = {**os.environ, **env_vars} if env_vars else None
        super().__init__("npx", [*options, package, *(args or [])], env, _directory(project_directory))
        self.package = package


def _directory(path: str | None) -> str | None:
    if path is not None and not Path(path).is_dir():
        raise NotADirectoryError(f"Project directory not found: {path}")
    return path


class SSETransport(StreamTransport):
    """A server behind HTTP+SSE (revision 2024-11-05)."""

    def __init__(self, url: str, headers: Mapping[str, str] | None = None) -> None:
        self.url = _http_url(url)
        self.headers = dict(headers or {})

    @asynccontextmanager
    async def streams(self) -> AsyncIterator[Streams]:
        """Open the event stream; bounded, as an endpoint that is no SSE endpoint may never say so."""
        with anyio.fail_after(SSE_CONNECT_TIMEOUT) as deadline:
            async with sse_client(self.url, headers=self.headers) as pair:
                deadline.deadline = float("inf")
                yield pair

    def __repr__(self) -> str:
        return f"<SSE(url={self.url!r})>"


class StreamableHttpTransport(StreamTransport):
    """A server behind Streamable HTTP (revisions from 2025-03-26 on)."""

    def __init__(self, url: str, headers: Mapping[str, str] | None = None) -> None:
        self.url = _http_url(url)
        self.headers = dict(headers or {})

    @asynccontextmanager
    async def streams(self) -> AsyncIterator[Streams]:
        """Make an HTTP client; the first request is the one that connects."""
        forgotten = anyio.Event()

        async def look_at(response: httpx2.Response) -> None:
            # 2025-11-25 transports, session management: 404 to a request with a session id means that it is over
            if response.status_code == NOT_FOUND and "mcp-session-id" in response.request.headers:
                forgotten.set()

        async with create_mcp_http_client(headers=self.headers) as http_client:
            http_client.event_hooks = {"response": [*http_client.event_hooks.get("response", []), look_at]}
            async with streamable_http_client(self.url, http_client=http_client) as (read, write):
                yield WatchedStream(read, forgotten=forgotten), write

    def __repr__(self) -> str:
        return f"<StreamableHttp(url={self.url!r})>"


def _http_url(url: str) -> str:
    if not str(url).startswith(("http://", "https://")):
        raise ValueError(f"Invalid HTTP/S URL provided: {url!r}")
    return str(url)


class WSTransport(ClientTransport):
    """A name only: the WebSocket transport left the SDK with its version 2, and no revision of MCP has it."""

    def __init__(self, url: str) -> None:
        raise ValueError(f"{url}: WebSocket is no transport of MCP; use the server's http:// endpoint")

    def connect_session(self, **session_kwargs: Unpack[SessionKwargs]) -> AbstractAsyncContextManager[ClientSession]:
        """Never reached: no object can be made."""
        raise NotImplementedError


def infer_transport(transport: Any) -> ClientTransport:
    """Return the transport that `transport` means.

    A transport is itself; a `FastMCP` runs in memory; a path of a `.py` or `.js` file is started; an HTTP URL is an
    SSE endpoint, or a Streamable HTTP one if its last part is `mcp`; `{"mcpServers": {name: {...}}}` with one server
    is what it says.

    Raises:
        ValueError: it means none.
    """
    if isinstance(transport, ClientTransport):
        return transport
    if isinstance(transport, Server | MCPServer) or isinstance(getattr(transport, "_mcp_server", None), Server):
        return FastMCPTransport(transport)
    if isinstance(transport, Mapping):
        return _from_config(transport)
    if isinstance(transport, str | os.PathLike):
        return _from_text(transport)
    if "://" in str(transport):  # pydantic's AnyUrl and its like
        return _from_text(str(transport))
    raise ValueError(f"Could not infer a valid transport from: {transport}")


def _from_text(text: str | os.PathLike[str]) -> ClientTransport:
    path = Path(text)
    if path.exists():
        if path.suffix == ".py":
            return PythonStdioTransport(path)
        if path.suffix == ".js":
            return NodeStdioTransport(path)
        raise ValueError(f"Unsupported script type: {text}")
    url = os.fspath(text)
    if url.startswith(("ws://", "wss://")):
        return WSTransport(url)
    if url.startswith(("http://", "https://")):
        return _from_url(url, {})
    raise ValueError(f"Could not infer a valid transport from: {text}")


def _from_url(url: str, headers: Mapping[str, str]) -> ClientTransport:
    # The document's URLs are SSE endpoints. `/mcp` is where all SDKs put Streamable HTTP, and no SSE endpoint.
    if urlsplit(url).path.rstrip("/").endswith("/mcp"):
        return StreamableHttpTransport(url, headers)
    return SSETransport(url, headers)


def _from_config(config: Mapping[str, Any]) -> ClientTransport:
    servers = config.get("mcpServers", {})
    if len(servers) != 1:
        raise ValueError(f"Invalid transport dictionary: `mcpServers` must name one server, it names {len(servers)}")
    [(name, server)] = servers.items()
    if "command" in server:
        return StdioTransport(server["command"], list(server.get("args", [])), server.get("env"), server.get("cwd"))
    if "url" not in server:
        raise ValueError(f"Cannot determine transport type of server {name!r}: it has neither `command` nor `url`")
    headers = server.get("headers", {})
    match server.get("type", server.get("transport")):
        case "sse":
            return SSETransport(server["url"], headers)
        case "http" | "streamable-http":
            return StreamableHttpTransport(server["url"], headers)
        case _:
            return _from_url(server["url"], headers)
