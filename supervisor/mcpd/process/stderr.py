"""Where a server's stderr goes: a rotated file that can fail in any way without the child noticing.

The order of the world in here: reading goes on whatever happens (a child that cannot write its stderr hangs); writing
is tried, what cannot be written is counted, and the file is opened again later.
"""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path

from mcpd.clock import Clock, SystemClock
from mcpd.process.mask import Mask
from mcpd.process.pipes import read_some, waiting

MAX_BYTES = 4 * 1024 * 1024
KEEP = 3
RATE = 256 * 1024.0
BURST = 1024 * 1024.0
RECHECK = 1.0
RETRY_MAX = 30.0
NOISE_SAMPLE = 1024
TAIL = 8 * 1024
READ = 64 * 1024
SLOW_DOWN = 0.002
"""A child that floods is read this much slower (some 30 MB/s): drained all the same, but not at everybody's expense."""
SETTLE_AFTER = 1.0

_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class StderrLog:
    """The log file of one server: bounded in size and rate. No method raises or waits for more than a write(2).

    What is written here is masked already: which secrets there are to hide, each process knows of its own.
    """

    def __init__(
        self,
        path: Path,
        clock: Clock | None = None,
        *,
        max_bytes: int = MAX_BYTES,
        keep: int = KEEP,
        rate: float = RATE,
        burst: float = BURST,
    ) -> None:
        """`keep` older generations stand beside `path` as `.1` (the youngest), `.2`, …; `rate` is in bytes a second."""
        self.path = path
        self.written = 0
        self.suppressed = 0
        """Bytes left out because there were too many at once."""
        self.lost = 0
        """Bytes left out because the file could not be written; `error` says why."""
        self.error = ""
        self._clock = clock or SystemClock()
        self._max_bytes = max_bytes
        self._keep = keep
        self._rate = rate
        self._burst = burst
        self._allowance = burst
        self._refilled = self._clock.monotonic()
        self._untold = 0
        self._untold_lost = 0
        self._fd = -1
        self._size = 0
        self._identity = (0, 0)
        self._checked = 0.0
        self._retry_at = 0.0
        self._retry_delay = RECHECK
        self._mid_line = False

    @property
    def flooded(self) -> bool:
        """More came than is written; `settle` will say how much."""
        return self._untold > 0

    def write(self, data: bytes) -> None:
        """Append what the server wrote on stderr."""
        now = self._clock.monotonic()
        if not self._admit(len(data), now):
            self.suppressed += len(data)
            self._untold += len(data)
            return
        self._tell_suppressed(now)
        self._append(data, now)

    def noise(self, line: bytes) -> None:
        """Append a line that the server wrote on stdout and that is no message."""
        more = b" ..." if len(line) > NOISE_SAMPLE else b""
        self.write(self._at_line_start() + b"[stdout-noise] " + line[:NOISE_SAMPLE] + more + b"\n")

    def note(self, text: str) -> None:
        """Append a line of mcpd's own; not subject to the rate."""
        self._own_line(text, self._clock.monotonic())

    def settle(self) -> None:
        """Say how much was left out, if that has not been said yet."""
        self._tell_suppressed(self._clock.monotonic())

    def close(self) -> None:
        """Let go of the file; the next write opens it again."""
        self.settle()
        self._drop_file()

    def _admit(self, size: int, now: float) -> bool:
        self._allowance = min(self._burst, self._allowance + (now - self._refilled) * self._rate)
        self._refilled = now
        if self._allowance <= 0:
            return False
        self._allowance -= size
        return True

    def _tell_suppressed(self, now: float) -> None:
        if self._untold:
            count, self._untold = self._untold, 0
            self._own_line(f"{count} bytes suppressed: more than {self._rate / 1024:g} KiB/s", now)

    def _own_line(self, text: str, now: float) -> None:
        self._append(self._at_line_start() + b"[mcpd] " + text.encode("utf-8", "replace") + b"\n", now)

    def _at_line_start(self) -> bytes:
        return b"\n" if self._mid_line else b""

    def _append(self, data: bytes, now: float) -> None:
        if not self._ready(len(data), now):
            self._lose(len(data))
            return
        if self._untold_lost:
            count, self._untold_lost = self._untold_lost, 0
            data = f"[mcpd] {count} bytes lost: {self.error}\n".encode("utf-8", "replace") + data
        try:
            done = os.write(self._fd, data)
        except OSError as error:
            self._fail(error, now)
            self._lose(len(data))
            return
        self.written += done
        self._size += done
        self._mid_line = not data.endswith(b"\n")
        if done < len(data):
            self._fail(OSError(0, "no room for all of it"), now)
            self._lose(len(data) - done)
            return
        self._retry_delay = RECHECK

    def _lose(self, size: int) -> None:
        self.lost += size
        self._untold_lost += size

    def _ready(self, size: int, now: float) -> bool:
        """Have a file that is the one at `path` and has room."""
        try:
            if self._fd >= 0 and now - self._checked >= RECHECK:
                self._checked = now
                if self._identity != _identity_of(self.path):  # deleted, or rotated by somebody else
                    self._drop_file()
            if self._fd < 0:
                if now < self._retry_at:
                    return False
                self._open(now)
            if self._size + size > self._max_bytes and self._size > 0:
                self._rotate()
                self._open(now)
        except OSError as error:
            self._fail(error, now)
            return False
        return True

    def _open(self, now: float) -> None:
        try:
            fd = os.open(self.path, _FLAGS, 0o600)
        except FileNotFoundError:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(self.path, _FLAGS, 0o600)
        about = os.fstat(fd)
        if not stat.S_ISREG(about.st_mode):
            os.close(fd)
            raise OSError(0, f"{self.path} is not a regular file")
        self._fd, self._size, self._identity = fd, about.st_size, (about.st_dev, about.st_ino)
        self._checked = now
        self._mid_line = False

    def _rotate(self) -> None:
        self._drop_file()
        names = [self.path, *(self.path.with_name(f"{self.path.name}.{n}") for n in range(1, self._keep + 1))]
        if self._keep == 0:
            self.path.unlink(missing_ok=True)
        for older, younger in zip(reversed(names), reversed(names[:-1]), strict=False):
            if younger.exists():
                younger.replace(older)

    def _fail(self, error: OSError, now: float) -> None:
        self.error = error.strerror or str(error)
        self._drop_file()
        self._retry_at = now + self._retry_delay
        self._retry_delay = min(self._retry_delay * 2, RETRY_MAX)

    def _drop_file(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class StderrPump:
    """Reads a child's stderr into its log for as long as the child lives, its secrets masked, and remembers the end."""

    __slots__ = ("_fd", "_log", "_loop", "_masked", "_paused", "_settling", "tail")

    def __init__(self, loop: asyncio.AbstractEventLoop, fd: int, log: StderrLog, mask: Mask) -> None:
        """Owns `fd` from now on."""
        self._loop = loop
        self._fd = fd
        self._log = log
        self._masked = mask.stream()
        self._paused: asyncio.TimerHandle | None = None
        self._settling: asyncio.TimerHandle | None = None
        self.tail = b""
        """The last bytes that came, at most `TAIL`."""
        loop.add_reader(fd, self._readable)

    def finish(self) -> None:
        """Take what is in the pipe now, and close it."""
        if self._fd >= 0:
            left = waiting(self._fd)
            while left > 0 and (chunk := read_some(self._fd, min(left, READ))):
                left -= len(chunk)
                self._take(chunk)
            self._shut()
        self._keep(self._masked.rest())
        if self._settling is not None:
            self._settling.cancel()
            self._settling = None
        self._log.settle()

    def _readable(self) -> None:
        chunk = read_some(self._fd, READ)
        if chunk is None:
            return
        if not chunk:
            self._shut()
            return
        self._take(chunk)
        if self._log.flooded:
            self._loop.remove_reader(self._fd)
            self._paused = self._loop.call_later(SLOW_DOWN, self._resume)
            if self._settling is None:
                self._settling = self._loop.call_later(SETTLE_AFTER, self._settle)

    def _take(self, chunk: bytes) -> None:
        self._keep(self._masked.feed(chunk))

    def _keep(self, chunk: bytes) -> None:
        if not chunk:
            return
        self.tail = chunk[-TAIL:] if len(chunk) >= TAIL else (self.tail + chunk)[-TAIL:]
        self._log.write(chunk)

    def _resume(self) -> None:
        self._paused = None
        self._loop.add_reader(self._fd, self._readable)

    def _settle(self) -> None:
        self._settling = None
        self._log.settle()

    def _shut(self) -> None:
        if self._paused is not None:
            self._paused.cancel()
            self._paused = None
        self._loop.remove_reader(self._fd)
        os.close(self._fd)
        self._fd = -1


def _identity_of(path: Path) -> tuple[int, int] | None:
    try:
        about = path.stat(follow_symlinks=False)
    except FileNotFoundError:
        return None
    return about.st_dev, about.st_ino
