"""Where the daemon's own log goes: streams that never fail, for a log must not end what it tells of."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final, TextIO

MAX_BYTES: Final = 4 * 1024 * 1024
KEEP: Final = 2


def print_what_can_be() -> None:
    """A terminal that has no arrows gets question marks, not an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


class LogStream(io.TextIOBase):
    """stderr, or another stream. What cannot be written is lost. While `divert` is set, complete lines go there."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._line = ""
        self.divert: Callable[[str], None] | None = None

    def write(self, text: str) -> int:
        divert = self.divert
        try:
            if divert is None:
                self._stream.write(self._line + text)
                self._line = ""
            else:
                *lines, self._line = (self._line + text).split("\n")
                for line in lines:
                    divert(line)
        except (OSError, ValueError):  # full, gone, or closed
            self._line = ""
        return len(text)

    def flush(self) -> None:
        if self.divert is None:
            try:
                self._stream.flush()
            except (OSError, ValueError):
                return

    def isatty(self) -> bool:
        return self._stream.isatty()


class LogFile(io.TextIOBase):
    """A file that is renamed to `.1`, `.2` when it has grown. What cannot be written is lost; the next line tries."""

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES, keep: int = KEEP) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._keep = keep
        self._descriptor = -1
        self._size = 0

    def write(self, text: str) -> int:
        data = text.encode("utf-8", "replace")
        try:
            if self._descriptor < 0:
                self._open()
            if self._size and self._size + len(data) > self._max_bytes:
                self._rotate()
            self._size += os.write(self._descriptor, data)
        except OSError:
            self.close()
        return len(text)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._descriptor = os.open(self._path, flags, 0o600)
        self._size = os.fstat(self._descriptor).st_size

    def _rotate(self) -> None:
        self.close()
        names = [self._path, *(self._path.with_name(f"{self._path.name}.{n}") for n in range(1, self._keep + 1))]
        for older, younger in zip(reversed(names), reversed(names[:-1]), strict=False):
            if younger.exists():
                younger.replace(older)
        self._open()
