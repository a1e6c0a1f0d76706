"""Carries one client's lines between stdin, stdout and the daemon's socket, across restarts of the daemon.

Whole lines only: what either side wrote of a line before it died never reaches the other. Both directions are bounded:
while one side does not take what was read for it, nothing more is read.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from select import POLLERR, POLLHUP, POLLIN, POLLNVAL, POLLOUT, poll

from mcpd.cli.conversation import (
    INITIALIZE,
    INVALID_REQUEST,
    LOST,
    SERVER_UNAVAILABLE,
    Conversation,
    agreement,
    answer_id,
    changed_lists,
    error,
    quoted,
    request_ids,
)
from mcpd.cli.pipes import MAX_LINE, Lines, Outlet, say, stdout_outlet, widen

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing alone would take a tenth of the time that starting takes
    from collections.abc import Callable, Iterable
    from typing import Final

UNAVAILABLE: Final = 69  # EX_UNAVAILABLE (sysexits.h)
FAILED: Final = 1

GREETING_TIMEOUT: Final = 5.0
REPLAY_TIMEOUT: Final = 35.0  # a new daemon makes calls wait while a server is being started
FIRST_REQUEST_TIMEOUT: Final = 5.0
DRAIN_TIMEOUT: Final = 10.0
RECONNECT_TIMEOUT: Final = 60.0
RECONNECT_DELAY: Final = 0.05
RECONNECT_MAX_DELAY: Final = 1.0
SETTLE_TIMEOUT: Final = 5.0  # a daemon that has just started may not know yet what all of its servers offer
STABLE_AFTER: Final = 5.0

_GONE = POLLERR | POLLHUP | POLLNVAL
_GREETED = b'{"mcpd":1,"ok":true,'


class Ended(Exception):
    """The relay is over; `code` is the exit code, the text goes to stderr."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class ClientGone(Exception):
    """The client closed its side: nothing is left to do."""


class NotYet(Exception):
    """This connection to a new daemon cannot be used; another attempt may."""


class StdioRelay:
    """The life of one `mcpctl connect`. `reach` makes a connection to the daemon, `spawn` starts one first."""

    def __init__(
        self,
        view: str,
        reach: Callable[[], socket.socket],
        spawn: Callable[[], socket.socket] | None = None,
    ) -> None:
        self._view = view
        self._reach = reach
        self._spawn = spawn
        self._conversation = Conversation()
        self._poll = poll()
        self._stdin = Lines()
        self._received = Lines()
        self._down, self._out = stdout_outlet()
        widen(0)
        widen(1)
        self._up = Outlet(self._send_up)
        self._link: socket.socket | None = None
        self._link_broken = False
        self._daemon = b""
        self._connected_at = 0.0
        self._give_up_at = 0.0
        self._skipping = False  # the rest of a line that is too long
        self._end_at: float | None = None  # stdin has ended; answers are awaited until then

    def run(self) -> int:
        """Relay until the client is done; returns the exit code."""
        try:
            self._begin()
            while True:
                self._step()
        except ClientGone:
            return 0
        except Ended as ended:
            say(str(ended))
            self._refuse(str(ended))
            return ended.code

    # ------------------------------------------------------------- the steady state

    def _begin(self) -> None:
        try:
            link = self._connect()
        except (OSError, NotYet) as problem:
            raise Ended(FAILED, str(problem)) from None
        self._use(link)

    def _connect(self) -> socket.socket:
        try:
            link = self._reach()
        except Ended:
            if self._spawn is None:
                raise
            say("no mcpd is running: starting one")
            link = self._spawn()
        try:
            self._greet(link)
        except BaseException:
            link.close()
            raise
        return link

    def _use(self, link: socket.socket) -> None:
        """Relay over this connection from now on."""
        self._connected_at = time.monotonic()
        self._arm()
        end = self._received.whole()
        if end:
            self._pass_down(end)

    def _arm(self) -> None:
        """Poll for what can be done now, and for nothing else: a peer that hung up is reported over and over."""
        link = self._link
        assert link is not None
        _watch(self._poll, 0, POLLIN if self._end_at is None and not self._up.held else 0)
        _watch(self._poll, link.fileno(), (0 if self._down.held else POLLIN) | (POLLOUT if self._up.held else 0))
        self._poll.register(self._out, POLLOUT if self._down.held else 0)

    def _step(self) -> None:
        busy = bool(self._up.held), bool(self._down.held)
        link = self._link
        assert link is not None
        for fd, event in self._poll.poll(self._time_left()):
            if fd == 0:
                self._read_stdin()
            elif fd == self._out:
                self._stdout_event(event)
            else:
                if event & POLLOUT:
                    self._flush_up()
                if event & ~POLLOUT and not self._down.held:
                    self._read_link(link)
        if self._link is None:
            self._recover()
        elif (bool(self._up.held), bool(self._down.held)) != busy:
            self._arm()
        if self._end_at is not None:
            self._check_end(self._end_at)

    def _time_left(self) -> float | None:
        """How long to wait for something to happen, in milliseconds."""
        return None if self._end_at is None else max(0.0, self._end_at - time.monotonic()) * 1000

    def _check_end(self, end_at: float) -> None:
        if not (self._conversation.waits or self._up.held or self._down.held):
            raise ClientGone
        if time.monotonic() >= end_at:
            raise Ended(FAILED, f"stdin ended, and not all answers came within {DRAIN_TIMEOUT:.0f} s")

    def _read_stdin(self) -> None:
        lines = self._stdin
        try:
            count = os.readv(0, (lines.room(),))
        except OSError as problem:
            if problem.errno not in (errno.EIO, errno.EBADF, errno.ECONNRESET):
                raise
            count = 0
        if not count:
            self._end_of_stdin()
            return
        end = lines.added(count)
        if self._skipping:
            end = self._skip(end)
        if end:
            self._pass_up(end)
        elif lines.full:
            self._down_line(error(b"null", INVALID_REQUEST, f"a message is longer than {MAX_LINE} bytes"))
            self._skipping = True
            lines.clear()

    def _skip(self, end: int) -> int:
        """Drop what belongs to the line that is too long; returns up to where there are whole lines then."""
        lines = self._stdin
        if not end:
            lines.clear()
            return 0
        self._skipping = False
        lines.take()
        return lines.whole()

    def _end_of_stdin(self) -> None:
        lines = self._stdin
        self._poll.unregister(0)
        if lines.fill and not self._skipping:  # a last line without its line break
            lines.room()[0] = 0x0A
            self._pass_up(lines.added(1))
        self._end_at = time.monotonic() + DRAIN_TIMEOUT

    def _pass_up(self, end: int) -> None:
        """Forward the client's whole lines; only then see what they were."""
        lines, conversation = self._stdin, self._conversation
        if conversation.stale:
            whole = bytes(lines.data[:end])
            kept = [line for line in whole.splitlines(keepends=True) if not conversation.answers_stale(line[:-1])]
            data = b"".join(kept)
            self._send_or_drop(data)
            conversation.client_said(data, len(data))
        else:
            self._send_or_drop(lines.view[:end])
            conversation.client_said(lines.data, end)
        lines.consume(end)

    def _send_or_drop(self, data: memoryview | bytes) -> None:
        """To the daemon; once it is gone, whatever it still said is read first, and then all of this is answered."""
        if self._link_broken:
            return
        try:
            self._up.write(data)
        except OSError:
            self._break_link()

    def _flush_up(self) -> None:
        try:
            self._up.flush()
        except OSError:
            self._break_link()

    def _break_link(self) -> None:
        self._link_broken = True
        self._up.held.clear()

    def _send_up(self, data: memoryview | bytes) -> int:
        assert self._link is not None
        try:
            return self._link.send(data)
        except BlockingIOError:
            return 0

    def _read_link(self, link: socket.socket) -> None:
        lines = self._received
        try:
            count = link.recv_into(lines.room())
        except BlockingIOError:
            return
        except OSError:
            count = 0
        if not count:
            self._drop_link()
            return
        end = lines.added(count)
        if end:
            self._pass_down(end)
        elif lines.full:
            raise Ended(FAILED, f"the daemon sent a message longer than {MAX_LINE} bytes")

    def _pass_down(self, end: int) -> None:
        """Forward the daemon's whole lines; only then see what they were."""
        lines, conversation = self._received, self._conversation
        if conversation.stale:
            for line in bytes(lines.data[: end - 1]).split(b"\n"):
                self._down_line_of_daemon(line)
        else:
            self._write_down(lines.view[:end])
            conversation.server_said(lines.data, end)
        lines.consume(end)

    def _down_line_of_daemon(self, line: bytes) -> None:
        repeated = self._conversation.repeats_stale(line)
        if repeated is not None:  # its answer could not be told from the one to the old daemon
            why = "the client may still answer a request of this id, made before mcpd restarted"
            self._send_or_drop(error(repeated, SERVER_UNAVAILABLE, why) + b"\n")
            return
        self._down_line(line)
        self._conversation.server_said(line + b"\n", len(line) + 1)

    def _down_line(self, line: bytes) -> None:
        self._write_down(line + b"\n")

    def _write_down(self, data: memoryview | bytes) -> None:
        try:
            self._down.write(data)
        except OSError:
            raise ClientGone from None

    def _stdout_event(self, event: int) -> None:
        if event & _GONE:
            raise ClientGone
        try:
            self._down.flush()
        except OSError:
            raise ClientGone from None

    # ------------------------------------------------------------- a daemon comes

    def _greet(self, link: socket.socket) -> None:
        """Say which view is wanted (local_socket, the hello); raises Ended if there is none of that name."""
        self._link, self._link_broken = link, False
        self._up.held.clear()
        self._received.clear()
        link.setblocking(False)
        deadline = time.monotonic() + GREETING_TIMEOUT
        self._up.write(b'{"mcpd":1,"view":%b}\n' % quoted(self._view))
        line = self._next_line(link, deadline)
        if not line.startswith(_GREETED):
            self._refused(line)
        self._daemon = line.partition(b'"daemon":"')[2].partition(b'"')[0]

    def _refused(self, line: bytes) -> None:
        import json

        try:
            told = json.loads(line)["error"]
            code, message = str(told["code"]), str(told["message"])
        except (ValueError, LookupError, TypeError):
            raise Ended(FAILED, "what listens there is not mcpd, or of another version") from None
        raise NotYet(message) if code == "overloaded" else Ended(FAILED, message)

    def _next_line(self, link: socket.socket, deadline: float) -> bytes:
        """The next line of the daemon; raises NotYet if none comes in time or the connection ends."""
        lines = self._received
        while (line := lines.take()) is None:
            if not self._wait(deadline, link):
                raise NotYet("mcpd did not answer in time")
            try:
                count = link.recv_into(lines.room())
            except BlockingIOError:
                continue
            if not count:
                raise NotYet("mcpd closed the connection")
            lines.added(count)
            if lines.full:
                raise NotYet("mcpd sent a line without an end")
        return line

    def _wait(self, deadline: float, link: socket.socket | None = None) -> bool:
        """Wait until the daemon said something, or the deadline (then False).

        Meanwhile what is held is written, and nothing is read from the client; raises ClientGone if it leaves while
        there is no daemon.
        """
        listening = link is None and self._end_at is None
        while (left := deadline - time.monotonic()) > 0:
            waiting = poll()
            if listening:
                waiting.register(0, 0)  # only to hear it hang up
            waiting.register(self._out, POLLOUT if self._down.held else 0)
            if link is not None:
                waiting.register(link, POLLIN | (POLLOUT if self._up.held else 0))
            for fd, event in waiting.poll(left * 1000):
                if fd == 0:
                    if not _readable(0.0):
                        raise ClientGone
                    listening = False  # it said something more before it left
                elif fd == self._out:
                    self._stdout_event(event)
                elif event & ~POLLOUT:
                    return True
                else:
                    self._up.flush()
        return False

    # ------------------------------------------------------------- a daemon goes

    def _drop_link(self) -> None:
        """The connection is gone: tell the client of everything that was under way on it."""
        assert self._link is not None
        self._poll.unregister(self._link)
        self._link.close()
        self._link = None
        self._up.held.clear()
        self._received.clear()
        for line in self._conversation.lost(LOST):
            self._down_line(line)
        if self._end_at is not None:
            self._wait_for_stdout()
            raise Ended(UNAVAILABLE, "the daemon went away after the client had finished sending")
        if time.monotonic() - self._connected_at > STABLE_AFTER:
            self._give_up_at = time.monotonic() + RECONNECT_TIMEOUT
        elif not self._give_up_at:
            self._give_up_at = self._connected_at + RECONNECT_TIMEOUT

    def _wait_for_stdout(self) -> None:
        deadline = time.monotonic() + GREETING_TIMEOUT
        while self._down.held and time.monotonic() < deadline:
            self._wait(min(deadline, time.monotonic() + RECONNECT_DELAY))

    def _recover(self) -> None:
        """Find the daemon that follows, and bring it to where the last one was; raises Ended if none comes in time."""
        say("the connection to mcpd was lost; waiting for it to come back")
        before = self._daemon
        delay = RECONNECT_DELAY
        settle_at: float | None = None
        while True:
            try:
                link = self._reach()
                try:
                    self._greet(link)
                    differs = self._replay(link)
                except BaseException:
                    link.close()
                    self._link = None
                    raise
                if differs is None:
                    break
                link.close()
                self._link = None
                settle_at = settle_at or time.monotonic() + SETTLE_TIMEOUT
                if time.monotonic() >= settle_at:
                    raise Ended(0, f"{differs}: the client has to start a new session")
                problem: Exception = NotYet(differs)
            except (OSError, NotYet) as found:
                problem = found
            except Ended as found:
                if found.code != UNAVAILABLE:
                    raise
                problem = found
            if time.monotonic() + delay > self._give_up_at:
                raise Ended(UNAVAILABLE, f"mcpd did not come back: {problem}")
            self._wait(time.monotonic() + delay * (0.5 + os.urandom(1)[0] / 512))
            delay = min(delay * 1.6, RECONNECT_MAX_DELAY)
        say("connected again" + (", to a new mcpd" if self._daemon != before else ""))
        self._use(link)

    def _replay(self, link: socket.socket) -> str | None:
        """Make the new session what the old one was. Returns what differs, if the client cannot go on."""
        conversation = self._conversation
        first = conversation.initialize
        if first is None:
            return None
        answer = self._exchange(link, [first])
        if INITIALIZE in conversation.awaited.values():
            self._down_line(answer)
            conversation.server_said(answer + b"\n", len(answer) + 1)
            return None
        new = agreement(answer)
        if new is None:
            raise NotYet("the new mcpd refused to initialize")
        if conversation.initialize_answer is not None and new != agreement(conversation.initialize_answer):
            return "the servers offer other capabilities since mcpd restarted"
        settings = conversation.settings()
        if settings:
            self._exchange(link, settings)
        if conversation.initialized is not None:
            for line in changed_lists(new[1]):
                self._down_line(line)
        return None

    def _exchange(self, link: socket.socket, lines: Iterable[bytes]) -> bytes:
        """Send these lines, and wait for all answers, which are not for the client; returns the last one."""
        deadline = time.monotonic() + REPLAY_TIMEOUT
        awaited: set[bytes] = set()
        for line in lines:
            awaited.update(request_ids(line))
            self._up.write(line + b"\n")
        answer = b""
        while awaited:
            line = self._next_line(link, deadline)
            id = answer_id(line)
            if id in awaited:
                awaited.discard(id)
                answer = line
            else:
                self._down_line_of_daemon(line)
            if len(self._down.held) > MAX_LINE:
                raise Ended(FAILED, "the client does not read")
        return answer

    # ------------------------------------------------------------- no daemon

    def _refuse(self, why: str) -> None:
        """Answer the requests that wait, so that the client can show why; without a session, its first one."""
        conversation = self._conversation
        deadline = time.monotonic() + (0.0 if conversation.initialize else FIRST_REQUEST_TIMEOUT)
        refused = [error(id, SERVER_UNAVAILABLE, why) for id in conversation.awaited]
        try:
            while not refused or _readable(0.0):
                if not _readable(max(0.0, deadline - time.monotonic())):
                    break
                count = os.readv(0, (self._stdin.room(),))
                if not count or self._stdin.full:
                    break
                self._stdin.added(count)
                while (line := self._stdin.take()) is not None:
                    refused += [error(id, SERVER_UNAVAILABLE, why) for id in request_ids(line)]
            for line in refused:
                self._down_line(line)
            self._wait_for_stdout()
        except (OSError, ClientGone):
            pass  # it left: nobody is there to be told


def _readable(timeout: float) -> bool:
    """Whether stdin has something to read, or has ended, within so many seconds."""
    waiting = poll()
    waiting.register(0, POLLIN)
    return any(event & POLLIN for _, event in waiting.poll(timeout * 1000))


def _watch(polled: poll, fd: int, events: int) -> None:
    """Poll `fd` for these events; for none, not at all."""
    if events:
        polled.register(fd, events)
    else:
        try:  # noqa: SIM105 - contextlib would be loaded for this alone
            polled.unregister(fd)
        except KeyError:
            pass  # was not polled
