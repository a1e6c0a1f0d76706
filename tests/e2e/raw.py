"""Clients without a library: what is on the wire is what the test says, and what came is looked at as it is."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2

from support.daemon import DEADLINE, Daemon
from support.raw_stdio import RawServer

INITIALIZE: dict[str, Any] = {
    "protocolVersion": "2025-11-25",
    "capabilities": {},
    "clientInfo": {"name": "raw", "version": "1"},
}
BOTH = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}


def request(identifier: object, method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": identifier, "method": method, "params": params}


def call(identifier: object, tool: str, **arguments: Any) -> dict[str, Any]:
    return request(identifier, "tools/call", name=tool, arguments=arguments)


class Connect(RawServer):
    """A conversation with `mcpctl connect`, line by line."""

    def __init__(self, daemon: Daemon, *arguments: str) -> None:
        super().__init__(daemon.connect_argv(*arguments), env=daemon.env, cwd=daemon.home)

    def initialize(self, **params: Any) -> dict[str, Any]:
        return super().initialize(**{**INITIALIZE, **params})

    def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        self.send(message)
        return self.answer(message["id"])

    def end_input(self) -> None:
        """Close its stdin."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.stdin = None

    def ended(self) -> tuple[int, str]:
        """Wait for the end: exit code, and what was on stderr."""
        _, errors = self.process.communicate(timeout=DEADLINE)
        return self.process.returncode, errors.decode()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.communicate()


@contextmanager
def connect(daemon: Daemon, *arguments: str, initialized: bool = True) -> Iterator[Connect]:
    """`mcpctl connect`, that does not outlive the block."""
    one = Connect(daemon, *arguments)
    try:
        if initialized:
            assert "result" in one.initialize()
        yield one
    finally:
        one.close()


class Http:
    """Requests to one endpoint."""

    def __init__(self, daemon: Daemon, path: str = "/mcp") -> None:
        self.url = daemon.url + path
        self.client = httpx2.Client(headers={**daemon.headers, **BOTH}, timeout=DEADLINE)

    def post(self, body: object, **headers: str | None) -> httpx2.Response:
        """POST a message; bytes as they are. A header whose value is None is not sent."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.send("POST", content, **headers)

    def send(self, method: str, content: bytes | None = None, **headers: str | None) -> httpx2.Response:
        wanted = self.client.build_request(method, self.url, content=content)
        for name, value in headers.items():
            name = name.replace("_", "-")
            wanted.headers.pop(name, None)
            if value is not None:
                wanted.headers[name] = value
        return self.client.send(wanted)

    def open_session(self, **params: Any) -> str:
        """`initialize`; the session's id, which all further requests carry."""
        answer = self.post(request(0, "initialize", **{**INITIALIZE, **params}))
        assert answer.status_code == 200, answer.text
        session = answer.headers["mcp-session-id"]
        self.client.headers["Mcp-Session-Id"] = session
        version = answer.json()["result"]["protocolVersion"]
        if version >= "2025-06-18":
            self.client.headers["MCP-Protocol-Version"] = version
        assert self.post({"jsonrpc": "2.0", "method": "notifications/initialized"}).status_code == 202
        return str(session)


@contextmanager
def http(daemon: Daemon, path: str = "/mcp", *, session: bool = False, **params: Any) -> Iterator[Http]:
    """A client for an endpoint, with a session if wanted."""
    one = Http(daemon, path)
    with one.client:
        if session:
            one.open_session(**params)
        yield one


def events(response: httpx2.Response) -> Iterator[dict[str, Any]]:
    """The messages of an event stream as they come."""
    for line in response.iter_lines():
        if line.startswith("data:") and (data := line.removeprefix("data:").strip()):
            yield json.loads(data)
