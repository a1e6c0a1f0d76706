"""A process that serves the real relay, with the children of `echo_relay`, on a local socket: a daemon to be killed.

    local_daemon.py SOCKET [--capabilities JSON] [NAME…]

Prints a line when it listens, then each message that a child gets, as JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import queue
import secrets
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

SUPPORT = Path(__file__).resolve().parent


class LocalDaemon:
    """The process, from a test's side."""

    def __init__(self, socket: Path, *names: str, capabilities: dict[str, Any] | None = None) -> None:
        command = [sys.executable, str(Path(__file__)), str(socket), *names]
        if capabilities is not None:
            command += ["--capabilities", json.dumps(capabilities)]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        self._said: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        assert self._next() == {"listening": True}

    def _read(self) -> None:
        """Take what it prints, so that it never waits for a test."""
        assert self._process.stdout is not None
        with self._process.stdout as output:
            for line in output:
                if line.endswith(b"\n"):
                    self._said.put(json.loads(line))
        self._said.put(None)

    def __enter__(self) -> LocalDaemon:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.kill()

    def got(self, method: str) -> dict[str, Any]:
        """The next message of that method that a child gets."""
        while (message := self._next()).get("method") != method:
            pass
        return message

    def kill(self) -> list[dict[str, Any]]:
        """kill -9; returns what children got that was not asked for before."""
        self._process.kill()
        self._process.wait()
        self._reader.join()
        rest = []
        while not self._said.empty():
            rest.append(self._said.get())
        return [message for message in rest if message is not None]

    def _next(self) -> dict[str, Any]:
        message = self._said.get(timeout=20)
        assert message is not None, "the daemon ended"
        return message


async def _serve(path: Path, names: list[str], capabilities: dict[str, Any] | None) -> None:
    from mcpd.frontdoor.local_socket import LocalSocket
    from mcpd.frontdoor.peers import Peers
    from mcpd.frontdoor.sockets import UnixSocket
    from support import echo_relay

    if capabilities is not None:
        echo_relay.CAPABILITIES = capabilities
    relay, children = echo_relay.relay_for(echo_relay.registry(*names))
    for child in children.values():
        child.calls = _Printed()
    listening = UnixSocket(path)
    local = LocalSocket(relay, listening.socket, secrets.token_hex(8), 4 * 2**20, Peers())
    await local.start()
    print(json.dumps({"listening": True}), flush=True)
    await asyncio.Event().wait()


class _Printed(list[dict[str, Any]]):
    def append(self, message: dict[str, Any]) -> None:
        print(json.dumps(message), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("socket", type=Path)
    parser.add_argument("names", nargs="*", default=["one"])
    parser.add_argument("--capabilities", type=json.loads)
    options = parser.parse_args()
    sys.path.insert(0, str(SUPPORT.parent))
    import uvloop

    uvloop.run(_serve(options.socket, options.names, options.capabilities))


if __name__ == "__main__":
    main()
