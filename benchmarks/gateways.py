"""What is measured: mcpd and the floor as processes, started, asked for what they cost, and ended."""

from __future__ import annotations

import compileall
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
CHILD = [sys.executable, str(HERE / "child.py")]
TICK = os.sysconf("SC_CLK_TCK")
END_LIMIT = 60.0
START_LIMIT = 60.0


@dataclass
class Gateway:
    """A running one, reached at a port of loopback; `pid` is the process itself, its children not counted."""

    name: str
    pid: int
    port: int
    home: Path
    started_at: float

    def cpu(self) -> float:
        """Seconds of processor time so far (proc(5))."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(") ")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def rss(self) -> int:
        """Bytes of resident memory now."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) * 1024

    def path(self, transport: str, server: str = "s0") -> str:
        """Where a transport is served."""
        end = "sse" if transport == "sse" else "mcp"
        return f"/{end}" if self.name == "floor" else f"/servers/{server}/{end}"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@contextlib.contextmanager
def floor(command: list[str] = CHILD) -> Iterator[Gateway]:
    """The floor with one child."""
    port = free_port()
    with _process("floor", [sys.executable, str(HERE / "floor.py"), "--port", str(port), "--", *command], port) as one:
        yield one


def compile_ahead() -> None:
    """Have the byte code of mcpd ready, as that of every installed package is: an editable install makes none, and
    where PYTHONDONTWRITEBYTECODE is set the first start makes none either."""
    for root in ("supervisor", "workers"):
        compileall.compile_dir(HERE.parent / root, quiet=1)


@contextlib.contextmanager
def mcpd(servers: int = 1, command: list[str] = CHILD, more: str = "", script: Path | None = None) -> Iterator[Gateway]:
    """`mcpd start` as users start it, but with open access as the floor has it; `more` is for each server's entry.

    Each server is `command`, or the script.
    """
    compile_ahead()
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="mcpd-bench-") as folder:
        config = Path(folder) / "mcpd.toml"
        lines = ['[daemon]\nstate_dir = "state"\nruntime_dir = "run"\nlog_level = "error"']
        lines.append(f'[frontdoor]\nport = {port}\nauth = "none"')
        what = f"command = {json.dumps(command)}" if script is None else f"script = {json.dumps(str(script))}"
        entry = f"{what}\n{more}\n"
        lines += [f'[servers.s{n}]\nenv = {{ CHILD_NAME = "s{n}" }}\n{entry}' for n in range(servers)]
        config.write_text("\n".join(lines))
        argv = [sys.executable, "-m", "mcpd", "start", "--quiet", "--config", str(config)]
        with _process("mcpd", argv, port, Path(folder)) as one:
            yield one


def end(process: subprocess.Popen[bytes]) -> None:
    """End it in order, or by SIGKILL if it takes longer than a daemon may."""
    process.terminate()
    try:
        process.wait(END_LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextlib.contextmanager
def _process(name: str, argv: list[str], port: int, home: Path = HERE) -> Iterator[Gateway]:
    began = time.perf_counter()
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1.0).close()
                break
            except OSError:
                if process.poll() is not None or time.perf_counter() - began > START_LIMIT:
                    raise SystemExit(f"{name} did not start: {' '.join(argv)}") from None
                time.sleep(0.002)
        yield Gateway(name, process.pid, port, home, began)
    finally:
        end(process)
