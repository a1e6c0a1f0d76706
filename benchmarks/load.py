"""Calls over MCP as fast as answers come: so many clients, each with one call under way, on bare sockets.

Every call carries a text that no other has, and an answer counts only if it brings that text back to who sent it.
`Stdio` speaks to a child with nothing in between.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Literal

Transport = Literal["streamable", "stateless", "sse"]
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "load", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
PATIENCE = 30.0


@dataclass
class Figures:
    """What one load gave; `cpu`: seconds of processor time a thousand calls, of what was asked for it."""

    seconds: float
    latencies: list[float] = field(repr=False)  # seconds
    cpu: float = 0.0

    @property
    def calls(self) -> int:
        return len(self.latencies)

    @property
    def rate(self) -> float:
        return self.calls / self.seconds

    @property
    def p50(self) -> float:
        return median(self.latencies)


class Client:
    """One client: a connection for its requests and, with HTTP+SSE, one on which the answers come."""

    def __init__(self, number: int, port: int, path: str, transport: Transport, tool: str, payload: int) -> None:
        self.number, self.transport, self.tool = number, transport, tool
        self.filler = "x" * payload
        self.calls = 0
        self.sent_at = 0.0
        self.expected = b""
        self.received = bytearray()
        self.headers = ["content-type: application/json", "accept: application/json, text/event-stream"]
        self.path = path
        self.requests = self.answers = self._connect(port)
        if transport == "sse":
            self.answers = self._connect(port)
            self.answers.sendall(
                f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\naccept: text/event-stream\r\n\r\n".encode()
            )
            stream = self._until(self.answers, b"\r\n\r\n", after=b"data: /")
            self.path = "/" + stream.rpartition(b"data: /")[2].split(b"\r\n")[0].decode().strip()
        if transport == "stateless":
            self.headers += ["mcp-protocol-version: 2026-07-28", "mcp-method: tools/call", f"mcp-name: {tool}"]
        else:
            self._initialize()

    def _connect(self, port: int) -> socket.socket:
        made = socket.create_connection(("127.0.0.1", port), PATIENCE)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made

    def _initialize(self) -> None:
        about = {"capabilities": {}, "clientInfo": {"name": "load", "version": "1"}, "protocolVersion": "2025-06-18"}
        self._post({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": about})
        head = self._until(self.requests, b"\r\n\r\n").decode().lower()
        if not head.startswith(("http/1.1 200", "http/1.1 202")):
            raise ValueError(f"initialize was refused: {head} {bytes(self.received)!r}")
        if self.transport == "sse":
            self._until(self.answers, b"serverInfo")
        else:
            length = int(head.partition("content-length: ")[2].split("\r\n")[0])
            while len(self.received) < length:
                self.received += self.requests.recv(1 << 16)
            self.received.clear()
            id = head.partition("mcp-session-id: ")[2].split("\r\n")[0]
            self.headers += [f"mcp-session-id: {id}", "mcp-protocol-version: 2025-06-18"]
        self._post({"jsonrpc": "2.0", "method": "notifications/initialized"})
        self._until(self.requests, b"\r\n\r\n")

    def _until(self, connection: socket.socket, mark: bytes, after: bytes = b"") -> bytes:
        """What comes up to `mark`, at the setup, when nothing else is under way."""
        got = bytearray()
        while mark not in got[max(0, got.find(after)) :] or after not in got:
            chunk = connection.recv(1 << 16)
            if not chunk:
                raise ConnectionError(f"closed after {bytes(got[:300])!r}")
            got += chunk
        head, _, rest = got.partition(mark)
        if not after and mark == b"\r\n\r\n":
            self.received[:] = rest
            return bytes(head)
        return bytes(got)

    def _post(self, message: dict[str, object]) -> None:
        body = json.dumps(message, separators=(",", ":")).encode()
        head = [f"POST {self.path} HTTP/1.1", "host: 127.0.0.1", *self.headers, f"content-length: {len(body)}", "", ""]
        self.requests.sendall("\r\n".join(head).encode() + body)

    def call(self) -> None:
        self.calls += 1
        text = f"{self.number}.{self.calls}:{self.filler}"
        params: dict[str, object] = {"name": self.tool, "arguments": {"text": text}}
        if self.transport == "stateless":
            params["_meta"] = META
        self.expected = f'"{self.number}.{self.calls}:'.encode()
        self.received.clear()
        self.sent_at = time.perf_counter()
        self._post({"jsonrpc": "2.0", "id": self.calls, "method": "tools/call", "params": params})

    def take(self) -> bool:
        """Read what is there of the answer; True when it is complete. Raises if it is not the right one."""
        chunk = self.answers.recv(1 << 18)
        if not chunk:
            raise ConnectionError("closed in the middle of a call")
        self.received += chunk
        if self.transport == "sse":
            complete = self.received.find(self.expected) >= 0 and self.received.endswith(b"\r\n")
        else:
            end = self.received.find(b"\r\n\r\n")
            if end < 0:
                return False
            at = self.received.lower().find(b"content-length: ", 0, end)
            length = int(self.received[at + 16 : self.received.find(b"\r\n", at)])
            complete = len(self.received) >= end + 4 + length
        if complete and self.received.find(self.expected) < 0:
            raise ValueError(f"not the answer to this call: {bytes(self.received[:400])!r}")
        return complete

    def drain(self) -> None:
        """With HTTP+SSE: the 202s, which interest nobody."""
        if self.requests is not self.answers:
            self.requests.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                self.requests.recv(1 << 16)
            self.requests.setblocking(True)

    def close(self) -> None:
        """End the session: as many as a benchmark opens one after the other would be too many to leave open."""
        if self.transport == "streamable":
            head = [f"DELETE {self.path} HTTP/1.1", "host: 127.0.0.1", *self.headers, "", ""]
            self.requests.sendall("\r\n".join(head).encode())
            self._until(self.requests, b"\r\n\r\n")
        self.requests.close()
        self.answers.close()


def load(
    port: int,
    path: str,
    transport: Transport,
    clients: int,
    seconds: float,
    payload: int = 100,
    tool: str = "echo",
    cpu: Callable[[], float] = lambda: 0.0,
) -> Figures:
    """Keep `clients` calls under way for `seconds`. `cpu` tells what the other side has used so far: it is asked before
    the first call and after the last. Raises OSError or ValueError at the first that goes wrong."""
    everyone = [Client(number, port, path, transport, tool, payload) for number in range(clients)]
    with selectors.DefaultSelector() as selector:
        for client in everyone:
            selector.register(client.answers, selectors.EVENT_READ, client)
        latencies: list[float] = []
        used, began = cpu(), time.perf_counter()
        for client in everyone:
            client.call()
        running = clients
        while running:
            ready = selector.select(PATIENCE)
            if not ready:
                raise TimeoutError(f"{running} calls have no answer after {PATIENCE:g} s")
            for key, _ in ready:
                client = key.data
                if not client.take():
                    continue
                now = time.perf_counter()
                latencies.append(now - client.sent_at)
                client.drain()
                if now - began < seconds:
                    client.call()
                else:
                    running -= 1
                    selector.unregister(client.answers)
        took, used = time.perf_counter() - began, cpu() - used
    for client in everyone:
        client.close()
    return Figures(took, latencies, used / len(latencies) * 1000)


class Stdio:
    """A conversation over the pipes of a command: the child itself, or something that leads to it."""

    def __init__(self, command: list[str]) -> None:
        self.began = time.perf_counter()
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin, self.stdout = self.process.stdin.fileno(), self.process.stdout.fileno()
        self.calls = 0
        about = {"capabilities": {}, "clientInfo": {"name": "load", "version": "1"}, "protocolVersion": "2025-06-18"}
        self.ask({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": about}, b"serverInfo")
        self.first_answer = time.perf_counter() - self.began
        os.write(self.stdin, b'{"jsonrpc":"2.0","method":"notifications/initialized"}\n')

    def ask(self, message: dict[str, object], expected: bytes) -> None:
        os.write(self.stdin, json.dumps(message, separators=(",", ":")).encode() + b"\n")
        line = b""
        while not line.endswith(b"\n"):
            chunk = os.read(self.stdout, 1 << 16)
            if not chunk:
                raise ConnectionError(f"it ended, after {line!r}")
            line += chunk
        if expected not in line:
            raise ValueError(f"not the answer to this call: {line!r}")

    def load(self, seconds: float, payload: int = 100, tool: str = "echo") -> Figures:
        """One call after the other."""
        latencies: list[float] = []
        filler = "x" * payload
        began = time.perf_counter()
        while (sent_at := time.perf_counter()) - began < seconds:
            self.calls += 1
            params = {"name": tool, "arguments": {"text": f"{self.calls}:{filler}"}}
            asked = {"jsonrpc": "2.0", "id": self.calls, "method": "tools/call", "params": params}
            self.ask(asked, f'"{self.calls}:'.encode())
            latencies.append(time.perf_counter() - sent_at)
        return Figures(time.perf_counter() - began, latencies)

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(10)
        self.process.stdout.close()
