"""Keeps what is not protocol off the protocol's stream.

Descriptor 1 becomes standard error, for C libraries and for children; the wire gets a number of its own, that only
`sys.stdout.buffer` has. Text that is printed goes to standard error line by line, unless the line is a JSON-RPC
message: a server that is written by hand prints those.
"""

import io
import json
import os
import sys

__all__ = ["GuardedStdout", "protect_stdout"]


def protect_stdout() -> None:
    """Take standard output away from everything but servers; does nothing where it is closed."""
    import fcntl

    try:
        sys.stdout.flush()
        wire = fcntl.fcntl(1, fcntl.F_DUPFD_CLOEXEC, 3)
    except (AttributeError, OSError, ValueError):
        return
    try:
        diversion = os.dup(2)
    except OSError:
        diversion = os.open(os.devnull, os.O_WRONLY)
    os.dup2(diversion, 1)
    os.close(diversion)
    sys.stdout = sys.__stdout__ = GuardedStdout(wire)  # type: ignore[misc, assignment]


class GuardedStdout(io.TextIOBase):
    """Looks like standard output; its `buffer` is the wire, its text goes where it does no harm."""

    encoding = "utf-8"
    errors = "strict"
    newlines = None
    line_buffering = True

    def __init__(self, wire: int) -> None:
        self.buffer = io.BufferedWriter(io.FileIO(wire, "w"))
        self._line = ""

    def write(self, text: str) -> int:
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            self._write_line(line + "\n")
        return len(text)

    def _write_line(self, line: str) -> None:
        if _is_message(line):
            self.buffer.write(line.encode())
            self.buffer.flush()
        elif sys.stderr is not None:
            sys.stderr.write(line)

    def flush(self) -> None:
        if self._line and not self._line.startswith("{"):
            rest, self._line = self._line, ""
            if sys.stderr is not None:
                sys.stderr.write(rest)
        if sys.stderr is not None:
            sys.stderr.flush()

    def fileno(self) -> int:
        """Standard error's, in effect: whoever hands this to a child must not hand it the wire."""
        return 1

    def isatty(self) -> bool:
        return False

    def readable(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def reconfigure(self, **_: object) -> None:
        """Accepted and ignored: scripts call it to set an encoding, which is UTF-8 already."""

    def close(self) -> None:
        """Nothing: the wire belongs to the server that serves on it."""


def _is_message(line: str) -> bool:
    if not line.startswith("{") or '"jsonrpc"' not in line:
        return False
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False
