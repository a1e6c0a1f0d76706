"""Bytes in and out of descriptors: whole lines to read, and writing that never waits."""

from __future__ import annotations

import _socket
import fcntl
import os
import stat
from select import POLLOUT, poll

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing alone would take a tenth of the time that starting takes
    from collections.abc import Callable
    from typing import Final

CHUNK: Final = 256 * 1024
MAX_LINE: Final = 32 * 1024 * 1024  # twice what the daemon takes: it is the one to judge


def say(message: str) -> None:
    """One line for whoever reads this program's stderr; never waits for a reader."""
    ready = poll()
    ready.register(2, POLLOUT)
    try:
        if ready.poll(0) == [(2, POLLOUT)]:
            os.write(2, f"mcpctl connect: {message}\n".encode(errors="replace"))
    except OSError:
        pass  # nobody is there to be told


class Lines:
    """A buffer that is read into directly and holds whole lines to forward as they are, without a copy.

    It grows for a line that is longer than itself, up to MAX_LINE, and shrinks when that line has left.
    """

    __slots__ = ("data", "fill", "view")

    def __init__(self) -> None:
        self.data = bytearray(CHUNK)
        self.view = memoryview(self.data)
        self.fill = 0

    @property
    def full(self) -> bool:
        """Whether there is a line that is too long."""
        return self.fill >= MAX_LINE

    def room(self) -> memoryview:
        """Where the next bytes go."""
        if self.fill == len(self.data):
            self._resize(2 * self.fill)
        return self.view[self.fill :]

    def added(self, count: int) -> int:
        """`count` bytes came; returns up to where there are whole lines."""
        before = self.fill
        self.fill += count
        return self.data.rfind(b"\n", before, self.fill) + 1

    def whole(self) -> int:
        """Up to where there are whole lines."""
        return self.data.rfind(b"\n", 0, self.fill) + 1

    def consume(self, end: int) -> None:
        """`data[:end]` has been dealt with."""
        left = self.fill - end
        if left:
            self.data[:left] = self.data[end : self.fill]
        self.fill = left
        if len(self.data) > CHUNK and left < CHUNK:
            self._resize(CHUNK)

    def take(self) -> bytes | None:
        """The first whole line, taken out."""
        end = self.data.find(b"\n", 0, self.fill)
        if end < 0:
            return None
        line = bytes(self.data[:end])
        self.consume(end + 1)
        return line

    def clear(self) -> None:
        self.consume(self.fill)

    def _resize(self, size: int) -> None:
        data = bytearray(size)
        data[: self.fill] = self.data[: self.fill]
        self.data = data
        self.view = memoryview(data)


class Outlet:
    """Bytes on their way to a descriptor: written at once as far as they fit, the rest held until `flush`."""

    __slots__ = ("_send", "held")

    def __init__(self, send: Callable[[memoryview | bytes], int]) -> None:
        self._send = send
        self.held = bytearray()

    def write(self, data: memoryview | bytes) -> None:
        """Raises OSError if the other side is gone."""
        if not self.held:
            data = data[self._send(data) :]
        if data:
            self.held += data

    def flush(self) -> None:
        """Write of what is held as much as fits; raises OSError."""
        while self.held:
            sent = self._send(bytes(self.held[:CHUNK]))
            if not sent:
                return
            del self.held[:sent]


def widen(fd: int) -> None:
    """Let a pipe hold as much as is read at once, so that a large message passes in one piece (fcntl(2))."""
    try:
        if stat.S_ISFIFO(os.fstat(fd).st_mode) and fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ) < CHUNK:
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, CHUNK)
    except OSError:
        pass  # closed, or the user's share of pipe memory is used up: smaller pieces then


def stdout_outlet() -> tuple[Outlet, int]:
    """An outlet to stdout that never blocks, and the descriptor to poll for it.

    O_NONBLOCK belongs to the open file that others may share, so stdout's own is left alone: a socket is written to
    with MSG_DONTWAIT, a pipe is opened anew (proc(5), /proc/pid/fd). Files and terminals are written to as they are.
    """
    mode = os.fstat(1).st_mode
    if stat.S_ISSOCK(mode):
        out = _socket.socket(fileno=os.dup(1))

        def send(data: memoryview | bytes) -> int:
            try:
                return out.send(data, _socket.MSG_DONTWAIT)
            except BlockingIOError:
                return 0

        return Outlet(send), out.fileno()
    fd = 1
    if stat.S_ISFIFO(mode):
        try:  # noqa: SIM105 - contextlib would be loaded for this alone
            fd = os.open("/proc/self/fd/1", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            pass  # another user's pipe, or no /proc: a client that does not read then holds up its own requests too

    def write(data: memoryview | bytes) -> int:
        try:
            return os.write(fd, data)
        except BlockingIOError:
            return 0

    return Outlet(write), fd
