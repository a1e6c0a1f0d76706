"""What the worker benchmarks share: the servers that are compared, and a client that costs next to nothing.

The client writes and reads lines of JSON itself. A client of the SDK would take more time than the servers do, and
make all of them look alike.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

LAUNCHER = Path(__file__).parent.parent / "workers" / "mcpworker" / "launcher" / "__main__.py"
REVISION = "2025-06-18"

ECHO = """
{imports}
mcp = {construct}

@mcp.tool()
def echo(text: str) -> str:
    return text

mcp.run()
"""
EMPTY = "{imports}\nmcp = {construct}\nmcp.run()\n"
KINDS = {
    "mcpworker": ("from mcpworker import FastMCP", 'FastMCP("echo", log_level="WARNING")'),
    "sdk": ("from mcp.server.mcpserver import MCPServer", 'MCPServer("echo", log_level="WARNING")'),
    "fastmcp": ("from fastmcp import FastMCP", 'FastMCP("echo")'),
}


@dataclass(frozen=True)
class Peer:
    """One of the servers that are compared."""

    name: str
    argv: tuple[str, ...]


class Session:
    """A server process that has been initialized."""

    def __init__(self, peer: Peer) -> None:
        environment = {**os.environ, "FASTMCP_SHOW_CLI_BANNER": "false", "FASTMCP_SHOW_SERVER_BANNER": "false"}
        environment |= {"FASTMCP_LOG_LEVEL": "WARNING", "FASTMCP_CHECK_FOR_UPDATES": "off"}
        self._process = subprocess.Popen(
            peer.argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        client = {"protocolVersion": REVISION, "capabilities": {}, "clientInfo": {"name": "bench", "version": "1"}}
        self.write(frame(0, "initialize", client))
        answer = self.read()
        if "result" not in answer:
            raise RuntimeError(f"{peer.name} does not initialize: {answer}")

    def initialized(self) -> None:
        """Tell the server that calls follow."""
        self.write(b'{"jsonrpc":"2.0","method":"notifications/initialized"}\n')

    def write(self, data: bytes) -> None:
        """Send lines."""
        self._stdin.write(data)
        self._stdin.flush()

    def read_line(self) -> bytes:
        """Return the next line."""
        line = self._stdout.readline()
        if not line:
            raise RuntimeError(f"the server ended with {self._process.wait()}")
        return line

    def read(self) -> dict[str, Any]:
        """Return the next message that is an answer."""
        while True:
            message: dict[str, Any] = json.loads(self.read_line())
            if "id" in message and "method" not in message:
                return message

    def close(self) -> None:
        """End the input, and the process if that does not end it."""
        self._stdin.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._stdout.close()


def frame(number: int, method: str, params: dict[str, Any]) -> bytes:
    """Return a request as a line."""
    return json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}).encode() + b"\n"


@contextlib.contextmanager
def peers(template: str, options: argparse.Namespace) -> Iterator[list[Peer]]:
    """Make the servers that the options ask for."""
    with tempfile.TemporaryDirectory(prefix="worker-bench-") as name:
        folder = Path(name)
        pythons = {"mcpworker": [sys.executable, str(LAUNCHER)], "sdk": [sys.executable]}
        if not options.without_fastmcp:
            pythons["fastmcp"] = [install_fastmcp(folder / "venv", options.fastmcp)]
        made = []
        for kind, python in pythons.items():
            imports, construct = KINDS[kind]
            script = folder / f"{kind}_server.py"
            script.write_text(template.format(imports=imports, construct=construct))
            made.append(Peer(kind, (*python, str(script))))
        yield made


def install_fastmcp(folder: Path, requirements: list[str]) -> str:
    """Install fastmcp into an environment of its own; return its interpreter."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = str(folder / "bin" / "python")
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements], check=True
    )
    show = "import importlib.metadata as m; print('fastmcp', m.version('fastmcp'), 'on mcp', m.version('mcp'))"
    print(subprocess.run([python, "-c", show], check=True, capture_output=True, text=True).stdout, end="")
    # Compiled before it is measured, as ours is.
    subprocess.run([python, "-c", "import fastmcp"], check=True, capture_output=True)
    return python


def arguments(description: str, rounds: int) -> argparse.ArgumentParser:
    """Return the parser of what all worker benchmarks take."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rounds", type=int, default=rounds, help="rounds; in each, every server has its turn")
    parser.add_argument(
        "--fastmcp",
        nargs="+",
        default=["fastmcp"],
        metavar="REQUIREMENT",
        help="what to install for the comparison, such as fastmcp==2.2.2 mcp==1.6.0 (default: the newest fastmcp)",
    )
    parser.add_argument("--without-fastmcp", action="store_true", help="compare with the SDK only; needs no network")
    parser.add_argument("--check", action="store_true", help="exit with 1 where a target is missed")
    return parser


def report(title: str, unit: str, samples: dict[str, list[float]], *, higher_is_better: bool) -> dict[str, float]:
    """Print medians, and ours as a ratio to each of the others; return the ratios."""
    print(f"\n{title}")
    ours = median(samples["mcpworker"])
    ratios = {}
    for name, values in samples.items():
        line = f"  {name:<10} {median(values):>10.1f} {unit}   ({min(values):.1f} .. {max(values):.1f})"
        if name != "mcpworker":
            # Round by round, so that what slows the machine down slows both sides of a ratio.
            pairs = zip(samples["mcpworker"], values, strict=True)
            ratios[name] = median(mine / theirs for mine, theirs in pairs)
            line += f"   mcpworker/{name} = {ratios[name]:.2f}"
        print(line)
    assert ours > 0
    print(f"  {'higher' if higher_is_better else 'lower'} is better; medians of {len(samples['mcpworker'])} rounds")
    return ratios


def now() -> float:
    """Return seconds on a clock that only goes forward."""
    return time.perf_counter()
