"""Runs the snippets of the document as servers, black box: a process, a transport, the official client."""

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mcp import Client, StdioServerParameters
from mcp.client.sse import sse_client
from mcp.client.stdio import stdio_client

from support.http_server import free_port, running

_SNIPPETS_FILE = Path(__file__).parent.parent / "workers" / "document" / "snippets.md"
_BLOCK = re.compile(r"^## (\S+)\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)

SNIPPETS: dict[str, str] = dict(_BLOCK.findall(_SNIPPETS_FILE.read_text()))
LAUNCHER = [sys.executable, "-m", "mcpworker"]
COMPONENTS = "\n".join(SNIPPETS[name] for name in ("create", "tool", "resource", "template", "prompt"))
REVISIONS = {"legacy": "2025-11-25", "auto": "2026-07-28"}
"""The client's mode, and the revision that it comes to with this framework: one of each era."""


@dataclass(frozen=True)
class Way:
    """How a client reaches a script: a transport, and an era."""

    transport: str
    mode: str

    @contextlib.asynccontextmanager
    async def connect(self, folder: Path, *parts: str, **client: Any) -> AsyncIterator[Client]:
        """Serve `mcp` of a script made of `parts`; yield the official client, connected."""
        if self.transport == "stdio":
            script = write_script(folder, *parts, "if __name__ == '__main__':\n    mcp.run()\n")
            async with over_stdio([*LAUNCHER, str(script)], mode=self.mode, **client) as connected:
                yield connected
            return
        with serving_sse(folder, *parts) as url:
            async with over_sse(url, mode=self.mode, **client) as connected:
                yield connected


WAYS = [Way(transport, mode) for transport in ("stdio", "sse") for mode in ("legacy", "auto")]


def write_script(folder: Path, *parts: str, name: str = "server.py") -> Path:
    """Write a script into `folder`."""
    path = folder / name
    path.write_text("\n".join(parts))
    return path


@contextlib.asynccontextmanager
async def over_stdio(
    argv: list[str],
    *,
    mode: str = "legacy",
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    **client: Any,
) -> AsyncIterator[Client]:
    """Start a command and yield the official client, connected."""
    parameters = StdioServerParameters(command=argv[0], args=argv[1:], env=dict(env or {}), cwd=cwd)
    transport = stdio_client(parameters, errlog=sys.__stderr__)  # type: ignore[arg-type]
    async with Client(transport, mode=mode, **client) as connected:
        assert connected.protocol_version == REVISIONS[mode]
        yield connected


@contextlib.asynccontextmanager
async def over_sse(url: str, *, mode: str = "legacy", **client: Any) -> AsyncIterator[Client]:
    """Connect to an SSE endpoint and yield the official client."""
    async with Client(sse_client(url), mode=mode, **client) as connected:
        assert connected.protocol_version == REVISIONS[mode]
        yield connected


@contextlib.contextmanager
def serving_sse(folder: Path, *parts: str, name: str = "sse_server.py") -> Iterator[str]:
    """Serve `mcp` of a script made of `parts` over SSE; yield the URL of the endpoint."""
    port = free_port()
    main = f"if __name__ == '__main__':\n    mcp.run(transport='sse', host='127.0.0.1', port={port})\n"
    script = write_script(folder, *parts, main, name=name)
    with running([*LAUNCHER, str(script)], port, cwd=folder):
        yield f"http://127.0.0.1:{port}/sse"


def run_script(path: Path, *, env: Mapping[str, str] | None = None, argv: list[str] | None = None) -> tuple[int, str]:
    """Run a script with an empty stdin to its end; return its exit code, and what it wrote to stderr."""
    finished = subprocess.run(
        [*(argv or LAUNCHER), str(path)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=path.parent,
        env={**os.environ, **(env or {})},
    )
    assert finished.stdout == "", "nothing but the protocol goes to stdout"
    return finished.returncode, finished.stderr
