"""One connection of `mcpctl connect` to a daemon: the hello, lines in and out, and requests of its own."""

from __future__ import annotations

import time

from mcpd.cli.conversation import answer_id, quoted, request_ids
from mcpd.cli.pipes import MAX_LINE, Lines, Outlet

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing alone would take a tenth of the time that starting takes
    import _socket
    from collections.abc import Callable, Iterable
    from typing import Final

UNAVAILABLE: Final = 69  # EX_UNAVAILABLE (sysexits.h)
FAILED: Final = 1
GREETING_TIMEOUT: Final = 5.0

_GREETED = b'{"mcpd":1,"ok":true,'


class Ended(Exception):
    """The relay is over; `code` is the exit code, the text goes to stderr."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class NotYet(Exception):
    """This connection cannot be used; another attempt may."""


class DaemonLink:
    """A connection. `wait(deadline, link)` waits until it can be read; False at the deadline."""

    __slots__ = ("_wait", "broken", "daemon", "lines", "socket", "up")

    def __init__(self, connected: _socket.socket, wait: Callable[[float, DaemonLink], bool]) -> None:
        connected.setblocking(False)
        self.socket = connected
        self.lines = Lines()
        self.up = Outlet(self._send)
        self.broken = False
        self.daemon = b""  # which one it is: another one after a restart
        self._wait = wait

    def greet(self, view: str) -> None:
        """Say which view is wanted (the hello of frontdoor/local_socket.py).

        Raises Ended if there is none of that name, NotYet if another attempt may succeed.
        """
        self.send(b'{"mcpd":1,"view":%b}\n' % quoted(view))
        line = self.next_line(time.monotonic() + GREETING_TIMEOUT)
        if not line.startswith(_GREETED):
            raise _refusal(line)
        self.daemon = line.partition(b'"daemon":"')[2].partition(b'"')[0]

    def send(self, data: memoryview | bytes) -> None:
        """To the daemon. If it is gone this is dropped: what it still said has to be read before anything follows."""
        if self.broken:
            return
        try:
            self.up.write(data)
        except OSError:
            self._break()

    def flush(self) -> None:
        """Send of what is held as much as fits."""
        try:
            self.up.flush()
        except OSError:
            self._break()

    def receive(self) -> int | None:
        """Read what is there; returns up to where there are whole lines, None at the end of the connection.

        Raises Ended for a line that is too long.
        """
        lines = self.lines
        try:
            count = self.socket.recv_into(lines.room())
        except BlockingIOError:
            return 0
        except OSError:
            return None
        if not count:
            return None
        end = lines.added(count)
        if not end and lines.full:
            raise Ended(FAILED, f"the daemon sent a message longer than {MAX_LINE} bytes")
        return end

    def next_line(self, deadline: float) -> bytes:
        """The next line of the daemon; raises NotYet if none comes in time or the connection ends."""
        while (line := self.lines.take()) is None:
            if not self._wait(deadline, self):
                raise NotYet("mcpd did not answer in time")
            if self.receive() is None:
                raise NotYet("mcpd closed the connection")
        return line

    def exchange(self, requests: Iterable[bytes], deadline: float, aside: Callable[[bytes], None]) -> bytes:
        """Send these lines and wait for all answers to them; returns the last. Lines that are no answer to them go to
        `aside`. Raises NotYet."""
        awaited: set[bytes] = set()
        for line in requests:
            awaited.update(request_ids(line))
            self.send(line + b"\n")
        answer = b""
        while awaited:
            line = self.next_line(deadline)
            id = answer_id(line)
            if id in awaited:
                awaited.discard(id)
                answer = line
            else:
                aside(line)
        return answer

    def close(self) -> None:
        self.socket.close()

    def _send(self, data: memoryview | bytes) -> int:
        try:
            return self.socket.send(data)
        except BlockingIOError:
            return 0

    def _break(self) -> None:
        self.broken = True
        self.up.held.clear()


def _refusal(line: bytes) -> Exception:
    """What the answer to a hello means that is no welcome."""
    import json

    try:
        told = json.loads(line)["error"]
        code, message = str(told["code"]), str(told["message"])
    except (ValueError, LookupError, TypeError):
        return Ended(FAILED, "what listens there is not mcpd, or of another version")
    return NotYet(message) if code == "overloaded" else Ended(FAILED, message)
