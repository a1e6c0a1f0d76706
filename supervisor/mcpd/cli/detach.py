"""A daemon that goes on by itself: started and waited for, and stopped and waited for."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mcpd.cli import render
from mcpd.cli.announce import announce
from mcpd.cli.failures import FAILED, Failed
from mcpd.control.client import ControlClient, NoDaemon
from mcpd.control.messages import SOCKET_NAME

if TYPE_CHECKING:
    from mcpd.config.registry import Registry

LOG_NAME: Final = "mcpd.log"
START_TIMEOUT: Final = 30.0
POLL: Final = 0.05
SETTLE: Final = 10.0
SHOWN_LINES: Final = 10
LARGEST_SHOWN: Final = 64 * 1024


def detach(registry: Registry, *, unsandboxed: bool, log_file: Path | None, quiet: bool) -> None:
    """Start the daemon in a session of its own; return when it is up. Raises Failed."""
    client = ControlClient(registry.daemon.runtime_dir / SOCKET_NAME)
    if (other := _pid_of(client)) is not None:
        raise Failed(f"mcpd is running already (pid {other})", "`mcpd stop` stops it, `mcpctl list` shows its servers")
    if log_file is None:
        registry.daemon.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Not in logs/: there a server's name is the name of its file, and a server may be called mcpd.
        log_file = registry.daemon.state_dir / LOG_NAME
    log_file = Path(os.path.abspath(log_file))
    argv = [sys.executable, "-P", "-m", "mcpd", "start", "--quiet"]  # -P: not what lies in the current directory
    argv += ["--config", str(registry.path), "--log-file", str(log_file)]
    argv += ["--unsandboxed"] if unsandboxed else []
    with open(
        log_file, "ab", opener=_private
    ) as log:  # for what is no log line: an import that fails, a crash of the interpreter
        began = log.tell()
        child = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/"
        )
    _await_up(client, child, log_file, began)
    if not quiet:
        out = render.console()
        announce(client, out, patience=SETTLE)
        render.show(f"log: {log_file}\n", out)
    child.returncode = 0  # it is not waited for: from here on it is nobody's child but init's


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)


def _pid_of(client: ControlClient) -> int | None:
    try:
        return client.daemon().pid
    except NoDaemon:
        return None


def _await_up(client: ControlClient, child: subprocess.Popen[bytes], log_file: Path, began: int) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    pause = threading.Event()
    while _pid_of(client) != child.pid:
        if (code := child.poll()) is not None:
            said = _end_of(log_file, began)
            raise Failed(f"mcpd ended with exit code {code}\n{said}".rstrip(), f"see {log_file}", code or FAILED)
        if time.monotonic() >= deadline:
            child.terminate()
            raise Failed(f"mcpd is not up after {START_TIMEOUT:g} s", f"see {log_file}")
        pause.wait(POLL)


def _end_of(log_file: Path, began: int) -> str:
    """The last lines that were written since `began`."""
    with log_file.open("rb") as log:
        size = log.seek(0, os.SEEK_END)
        log.seek(max(began if began <= size else 0, size - LARGEST_SHOWN))
        lines = log.read().decode("utf-8", "replace").splitlines()
    return "\n".join(lines[-SHOWN_LINES:])


def stop_daemon(client: ControlClient, timeout: float) -> int:
    """Ask the daemon to end and wait until its process is gone; returns its pid. Raises NoDaemon and Failed."""
    pid = client.daemon().pid
    deadline = time.monotonic() + timeout
    try:
        process: int | None = os.pidfd_open(pid)  # before it is asked: afterwards the number may be another's
    except OSError:
        process = None  # it is in another pid namespace: then the socket has to tell
    try:
        client.shutdown()
        gone = _await_exit(process, deadline) if process is not None else _await_silence(client, deadline)
    finally:
        if process is not None:
            os.close(process)
    if not gone:
        raise Failed(f"mcpd (pid {pid}) is still running after {timeout:g} s", "`mcpctl list` shows what it waits for")
    return pid


def _await_exit(process: int, deadline: float) -> bool:
    """A pidfd is readable when its process has ended (pidfd_open(2))."""
    return bool(select.select([process], [], [], max(0.0, deadline - time.monotonic()))[0])


def _await_silence(client: ControlClient, deadline: float) -> bool:
    pause = threading.Event()
    while _pid_of(client) is not None:
        if time.monotonic() >= deadline:
            return False
        pause.wait(POLL)
    return True
