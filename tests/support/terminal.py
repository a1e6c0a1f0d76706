"""Programs run as people run them: with their output piped, or on a terminal of some width."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping
from pathlib import Path

DEADLINE = 30.0
ESCAPES = re.compile(r"\x1b(?:\[[0-9;?]*[A-Za-z]|\][^\x07]*\x07)")


def program(name: str) -> str:
    """`mcpd` or `mcpctl`, as installed beside this interpreter."""
    return str(Path(sys.executable).with_name(name))


MCPCTL = program("mcpctl")


def environment(home: Path, **more: str) -> dict[str, str]:
    """Nothing of the user's own settings."""
    return {"PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8", "TERM": "xterm", "TZ": "UTC", **more}


def run(
    *argv: str, env: Mapping[str, str], stdin: str | None = None, timeout: float = DEADLINE
) -> subprocess.CompletedProcess[str]:
    """Run to the end, without a terminal."""
    return subprocess.run(
        argv, env=env, input=stdin or "", capture_output=True, text=True, timeout=timeout, check=False
    )


def run_on_terminal(
    *argv: str, env: Mapping[str, str], width: int = 100, interrupt_at: str | None = None
) -> tuple[int, str]:
    """Run on a terminal: exit code, and all that it was sent. `interrupt_at`: press Ctrl-C when this was shown."""
    pid, terminal = pty.fork()
    if pid == 0:
        try:
            os.execve(argv[0], argv, dict(env))
        finally:
            os._exit(127)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
    shown, deadline, interrupted = b"", time.monotonic() + DEADLINE, False
    try:
        while True:
            assert select.select([terminal], [], [], max(0.0, deadline - time.monotonic()))[0], shown.decode()
            try:
                chunk = os.read(terminal, 65536)
            except OSError:  # EIO: the other side is closed
                break
            shown += chunk
            if interrupt_at is not None and not interrupted and interrupt_at.encode() in shown:
                os.write(terminal, b"\x03")
                interrupted = True
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        raise
    finally:
        os.close(terminal)
        _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), shown.decode().replace("\r\n", "\n")


def plain(shown: str) -> str:
    """Without colours and cursor movements."""
    return ESCAPES.sub("", shown)
