"""A child's stdin and stdout as frames: raw non-blocking descriptors, bounded queues, no task and no future.

Both work on any event loop that has `add_reader` and `add_writer`.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import sys
import termios
from collections import deque
from collections.abc import Callable, Iterable
from enum import Enum, auto

from mcpd.wire.lines import MAX_LINE, LineSplitter, Overlong

SMALL_READ = 64 * 1024
LARGE_READ = 256 * 1024
"""Reads begin small, because the buffer of a large one costs more (mmap) than a small message takes altogether."""
FRAMES_A_TURN = 256
"""After so many frames the other descriptors of the loop have their turn."""
BATCH = 128 * 1024
"""Small frames are joined up to about this size for one write."""
WRITES_A_TURN = 8
QUEUE_LIMIT = 16 * 1024 * 1024

_NOTHING = memoryview(b"")


class _Flow(Enum):
    IDLE = auto()
    SCHEDULED = auto()  # a flush will run in the next iteration of the loop
    BLOCKED = auto()  # the pipe is full; the loop watches it
    CLOSED = auto()


class FrameWriter:
    """A child's stdin: frames in, lines out, in order, never blocking, bounded in bytes."""

    __slots__ = ("_current", "_fd", "_flow", "_frames", "_limit", "_loop", "_on_broken", "queued")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, fd: int, on_broken: Callable[[], None], limit: int = QUEUE_LIMIT
    ) -> None:
        """Owns `fd` from now on; `on_broken` is called once, from the loop, when nobody reads it any more."""
        self._loop = loop
        self._fd = fd
        self._on_broken = on_broken
        self._limit = limit
        self._frames: deque[bytes] = deque()
        self._current = _NOTHING
        self._flow = _Flow.IDLE
        self.queued = 0
        """Bytes taken and not yet in the pipe."""

    def offer(self, frame: bytes) -> bool:
        """Take `frame` for writing, or return False: the queue is full, or the pipe is gone.

        Raises ValueError for a frame with a line break: it would be two messages to the child.
        """
        if b"\n" in frame or b"\r" in frame:
            raise ValueError("a frame has no line breaks; remove them where it is made")
        size = len(frame) + 1
        flow = self._flow
        if self.queued + size > self._limit or flow is _Flow.CLOSED:
            return False
        self._frames.append(frame)
        self.queued += size
        if flow is _Flow.IDLE:
            self._flow = _Flow.SCHEDULED
            self._loop.call_soon(self._flush)
        return True

    def close(self) -> None:
        """Write what goes without waiting, drop the rest, and let the child see the end."""
        if self._flow is _Flow.SCHEDULED:
            self._flush()
        self._shut()

    def _flush(self) -> None:
        if self._flow is _Flow.CLOSED:
            return
        for _ in range(WRITES_A_TURN):
            if not self._current:
                if not self._frames:
                    self._become(_Flow.IDLE)
                    return
                self._current = memoryview(self._batch())
            try:
                written = os.write(self._fd, self._current)
            except BlockingIOError:
                self._become(_Flow.BLOCKED)
                return
            except OSError:  # EPIPE: the child closed its end
                self._shut()
                self._on_broken()
                return
            self.queued -= written
            if written < len(self._current):
                self._current = self._current[written:]
                self._become(_Flow.BLOCKED)
                return
            self._current = _NOTHING
        if self._flow is not _Flow.BLOCKED:  # a blocked one is called again by the loop
            self._loop.call_soon(self._flush)

    def _batch(self) -> bytes:
        frames = self._frames
        if len(frames) == 1:
            return frames.popleft() + b"\n"
        parts: list[bytes] = []
        size = 0
        while frames and size < BATCH:
            parts.append(frames.popleft())
            size += len(parts[-1]) + 1
        parts.append(b"")
        return b"\n".join(parts)

    def _become(self, flow: _Flow) -> None:
        if flow is self._flow:
            return
        if flow is _Flow.BLOCKED:
            self._loop.add_writer(self._fd, self._flush)
        elif self._flow is _Flow.BLOCKED:
            self._loop.remove_writer(self._fd)
        self._flow = flow

    def _shut(self) -> None:
        if self._flow is _Flow.CLOSED:
            return
        self._become(_Flow.CLOSED)
        self._frames.clear()
        self._current = _NOTHING
        self.queued = 0
        os.close(self._fd)


class FrameReader:
    """A child's stdout: bytes in, complete frames out; one read each time the descriptor is ready."""

    __slots__ = ("_backlog", "_fd", "_loop", "_on_end", "_on_frame", "_on_noise", "_size", "_splitter")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        fd: int,
        on_frame: Callable[[bytes], None],
        on_noise: Callable[[str, bytes], None],
        on_end: Callable[[], None],
        limit: int = MAX_LINE,
    ) -> None:
        """Owns `fd` from now on; `on_end` is called once when the child closed its end, not after `finish`."""
        self._loop = loop
        self._fd = fd
        self._on_frame = on_frame
        self._on_noise = on_noise
        self._on_end = on_end
        self._splitter = LineSplitter(limit)
        self._size = SMALL_READ
        self._backlog: deque[bytes | Overlong] = deque()
        loop.add_reader(fd, self._readable)

    def finish(self) -> None:
        """Deliver what is in the pipe now, and close it. More may be written by a grandchild for ever: not read."""
        if self._fd < 0:
            return
        self._emit(self._backlog)
        self._backlog.clear()
        left = waiting(self._fd)
        while left > 0 and (chunk := read_some(self._fd, min(left, LARGE_READ))):
            left -= len(chunk)
            self._emit(self._splitter.feed(chunk))
        self._shut()

    def _readable(self) -> None:
        chunk = read_some(self._fd, self._size)
        if chunk is None:
            return
        if not chunk:
            self._shut()
            self._on_end()
            return
        self._size = LARGE_READ if len(chunk) >= SMALL_READ else SMALL_READ
        frames = self._splitter.feed(chunk)
        if len(frames) <= FRAMES_A_TURN:
            self._emit(frames)
            return
        self._backlog.extend(frames)
        self._loop.remove_reader(self._fd)
        self._go_on()

    def _go_on(self) -> None:
        backlog = self._backlog
        if self._fd < 0:
            return
        self._emit([backlog.popleft() for _ in range(min(FRAMES_A_TURN, len(backlog)))])
        if backlog:
            self._loop.call_soon(self._go_on)
        elif self._fd >= 0:
            self._loop.add_reader(self._fd, self._readable)

    def _emit(self, frames: Iterable[bytes | Overlong]) -> None:
        for frame in frames:
            if isinstance(frame, bytes):
                self._on_frame(frame)
            else:
                self._on_noise("overlong", frame.sample)

    def _shut(self) -> None:
        self._loop.remove_reader(self._fd)
        os.close(self._fd)
        self._fd = -1
        if half := self._splitter.pending:
            self._on_noise("unfinished", half)


def read_some(fd: int, size: int) -> bytes | None:
    """What is there, at most `size` bytes; b"" at the end of the stream, None if there is nothing yet."""
    try:
        return os.read(fd, size)
    except BlockingIOError:
        return None
    except OSError:
        return b""


def waiting(fd: int) -> int:
    """How many bytes lie in the pipe (ioctl(2), FIONREAD)."""
    count = bytearray(4)
    with contextlib.suppress(OSError):
        fcntl.ioctl(fd, termios.FIONREAD, count)
    return int.from_bytes(count, sys.byteorder)
