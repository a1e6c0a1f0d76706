"""Servers over HTTP as real processes, on free loopback ports."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

DEADLINE = 30.0


def free_port() -> int:
    """Return a port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def running(argv: list[str], port: int, **popen: object) -> Iterator[subprocess.Popen[bytes]]:
    """Run `argv`, which is going to listen on `port`; yield when it does; end and reap it afterwards."""
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, **popen)  # type: ignore[call-overload]
    try:
        wait_for_port(process, port)
        yield process
    finally:
        process.terminate()
        try:
            process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def wait_for_port(process: subprocess.Popen[bytes], port: int) -> None:
    """Return when something accepts on `port`; fail when the process ends first, or at the deadline."""
    end = time.monotonic() + DEADLINE
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        if process.poll() is not None:
            raise AssertionError(f"ended with {process.returncode}: {process.stderr.read().decode()}")  # type: ignore[union-attr]
        assert time.monotonic() < end, "nobody listens"
        # A retry of a connection attempt has no event to wait on but the passing of time.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.02)


def sdk_server_argv(transport: str, port: int) -> list[str]:
    """Return the command that serves `support.sdk_server` over HTTP."""
    script = Path(__file__).parent / "sdk_server.py"
    return [sys.executable, os.fspath(script), transport, str(port)]
