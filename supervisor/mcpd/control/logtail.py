"""The end of a log file, and what comes after it, across rotations."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import Final

CHUNK: Final = 64 * 1024
MAX_TAIL: Final = 2 * 1024 * 1024


class LogTail:
    """Reads a file that its writer renames to `.1` and begins anew; each call takes milliseconds at most.

    The file need not be there yet. Rotated away between two calls of `more` it is read to its end first; what was
    rotated twice in between is lost, which the writer's own limit of rate rules out for polls a second apart.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = -1

    def last(self, lines: int) -> bytes:
        """The last `lines` lines, of the rotated files too if the newest is too short; at most 2 MiB. Call it first."""
        if not self._open() or lines <= 0:
            if self._fd >= 0:
                os.lseek(self._fd, 0, os.SEEK_END)
            return b""
        size = os.fstat(self._fd).st_size
        tail = _last_lines(self._fd, size, lines, MAX_TAIL)
        os.lseek(self._fd, size, os.SEEK_SET)
        number = 1
        while (missing := lines - _count(tail)) > 0 and len(tail) < MAX_TAIL:
            older = _read_tail(self.path.with_name(f"{self.path.name}.{number}"), missing, MAX_TAIL - len(tail))
            if older is None:
                break
            tail = older + tail
            number += 1
        return tail

    def more(self) -> bytes:
        """At most 64 KiB of what was added since the last call; empty if nothing was."""
        if self._fd < 0 and not self._open():
            return b""
        if chunk := self._read():
            return chunk
        if not self._rotated():
            return b""
        # Between the empty read and the rename something may have been written: only now is the old file final.
        if chunk := self._read():
            return chunk
        self.close()
        return self._read() if self._open() else b""

    def close(self) -> None:
        """Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _read(self) -> bytes:
        position, size = os.lseek(self._fd, 0, os.SEEK_CUR), os.fstat(self._fd).st_size
        if size < position:  # truncated in place, by somebody's `> file`
            os.lseek(self._fd, 0, os.SEEK_SET)
        return os.read(self._fd, CHUNK)

    def _open(self) -> bool:
        fd = _open_regular(self.path)
        if fd is None:
            return False
        self._fd = fd
        return True

    def _rotated(self) -> bool:
        ours = os.fstat(self._fd)
        try:
            theirs = self.path.stat(follow_symlinks=False)
        except OSError:
            return False  # between rename and creation, or deleted: stay with what is open until there is another
        return (ours.st_dev, ours.st_ino) != (theirs.st_dev, theirs.st_ino)


def _open_regular(path: Path) -> int | None:
    """A descriptor, or None if there is no such regular file (a link could lead anywhere, a FIFO would block)."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        return None
    return fd


def _read_tail(path: Path, lines: int, most: int) -> bytes | None:
    fd = _open_regular(path)
    if fd is None:
        return None
    with contextlib.closing(os.fdopen(fd, "rb", buffering=0)):
        return _last_lines(fd, os.fstat(fd).st_size, lines, most)


def _last_lines(fd: int, size: int, lines: int, most: int) -> bytes:
    """Read backwards until there are `lines` line breaks before the last byte."""
    start, blocks, breaks, length = size, list[bytes](), 0, 0
    while start > 0 and length < most and breaks <= lines:
        step = min(CHUNK, start, most - length)
        start -= step
        block = os.pread(fd, step, start)
        blocks.append(block)
        length += len(block)
        breaks += block.count(b"\n")
    tail = b"".join(reversed(blocks))
    pieces = tail.split(b"\n")  # not splitlines: a lone CR is a progress bar's, not the end of a line
    return b"\n".join(pieces[-(lines + tail.endswith(b"\n")) :])


def _count(tail: bytes) -> int:
    return tail.count(b"\n") + (not tail.endswith(b"\n") and tail != b"")
