"""A server process spoken to line by line, for what a client library would hide."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

DEADLINE = 20.0
INITIALIZE: dict[str, Any] = {
    "jsonrpc": "2.0",
    "id": 0,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "raw", "version": "1"},
    },
}


class RawServer:
    """A child process, and what it writes, line by line."""

    def __init__(self, argv: list[str], **popen: Any) -> None:
        self.process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **popen
        )
        self._buffer = b""
        self.others: list[dict[str, Any]] = []
        """Messages that came before answers."""

    def send(self, *messages: Any) -> None:
        """Write messages; bytes as they are."""
        data = b"".join(m if isinstance(m, bytes) else json.dumps(m).encode() + b"\n" for m in messages)
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def line(self) -> bytes:
        """The next line of its output, or what is left at the end of it."""
        assert self.process.stdout is not None
        end = time.monotonic() + DEADLINE
        while b"\n" not in self._buffer:
            ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"nothing came in time; so far {self._buffer!r}"
            data = os.read(self.process.stdout.fileno(), 1 << 16)
            if not data:
                break
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def answer(self, identifier: object) -> dict[str, Any]:
        """The response to a request; every line before it must be a message as well, and is kept in `others`."""
        while True:
            message: dict[str, Any] = json.loads(self.line())
            if message.get("id") == identifier and "method" not in message:
                return message
            self.others.append(message)

    def initialize(self, **params: Any) -> dict[str, Any]:
        self.send({**INITIALIZE, "params": {**INITIALIZE["params"], **params}})
        answer = self.answer(0)
        self.send({"jsonrpc": "2.0", "method": "notifications/initialized"})
        return answer

    def call(self, tool: str, arguments: dict[str, Any] | None = None, identifier: int = 1) -> dict[str, Any]:
        self.send(
            {
                "jsonrpc": "2.0",
                "id": identifier,
                "method": "tools/call",
                "params": {"name": tool, "arguments": arguments or {}},
            }
        )
        return self.answer(identifier)

    def finish(self, signal_number: int | None = None) -> tuple[int, bytes, str]:
        """End its input, or signal it; its code, the rest of its output, and its errors."""
        if signal_number is not None:
            self.process.send_signal(signal_number)
            # Its input stays open: the signal alone has to end it.
            self.process.wait(timeout=DEADLINE)
        output, errors = self.process.communicate(timeout=DEADLINE)
        return self.process.returncode, self._buffer + (output or b""), errors.decode()


@contextmanager
def raw_server(script: str | Path, *arguments: str, python: str = sys.executable, **popen: Any) -> Iterator[RawServer]:
    """A child that runs a script; it does not outlive the block."""
    server = RawServer([python, str(script), *arguments], **popen)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.process.send_signal(signal.SIGKILL)
        server.process.wait()
        for stream in (server.process.stdin, server.process.stdout, server.process.stderr):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()
