"""Carries one client's lines between stdin, stdout and the daemon's socket, across restarts of the daemon.

Whole lines only: what either side wrote of a line before it died never reaches the other. Both directions are bounded:
while one side does not take what was read for it, nothing more is read.
"""

from __future__ import annotations

import errno
import os
import time
from select import POLLERR, POLLHUP, POLLIN, POLLNVAL, POLLOUT, poll

from mcpd.cli.conversation import (
    INITIALIZE,
    INVALID_REQUEST,
    LOST,
    SERVER_UNAVAILABLE,
    Conversation,
    agreement,
    changed_lists,
    error,
    request_ids,
)
from mcpd.cli.daemon_link import FAILED, GREETING_TIMEOUT, UNAVAILABLE, DaemonLink, Ended, NotYet
from mcpd.cli.pipes import MAX_LINE, Lines, say, stdout_outlet, widen

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing alone would take a tenth of the time that starting takes
    import _socket
    from collections.abc import Callable
    from typing import Final

FIRST_REQUEST_TIMEOUT: Final = 5.0
DRAIN_TIMEOUT: Final = 10.0
RECONNECT_TIMEOUT: Final = 60.0
RECONNECT_DELAY: Final = 0.05
RECONNECT_MAX_DELAY: Final = 1.0
REPLAY_TIMEOUT: Final = 35.0  # a new daemon makes calls wait while a server is being started
SETTLE_TIMEOUT: Final = 5.0  # a daemon that has just started may not know yet what all of its servers offer
STABLE_AFTER: Final = 5.0

_GONE = POLLERR | POLLHUP | POLLNVAL


class ClientGone(Exception):
    """The client closed its side: nothing is left to do."""


class StdioRelay:
    """The life of one `mcpctl connect`.

    `reach` makes a connection to the daemon (raising Ended if there is none), `spawn` starts one first. A daemon that
    went away is waited for `patience` seconds.
    """

    def __init__(
        self,
        view: str,
        reach: Callable[[], _socket.socket],
        spawn: Callable[[], _socket.socket] | None = None,
        patience: float = RECONNECT_TIMEOUT,
    ) -> None:
        self._view = view
        self._reach = reach
        self._spawn = spawn
        self._patience = patience
        self._conversation = Conversation()
        self._poll = poll()
        self._stdin = Lines()
        self._down, self._out = stdout_outlet()
        widen(0)
        widen(1)
        self._link: DaemonLink | None = None
        self._connected_at = 0.0
        self._give_up_at = 0.0
        self._skipping = False  # the rest of a line that is too long
        self._end_at: float | None = None  # stdin has ended; answers are awaited until then

    def run(self) -> int:
        """Relay until the client is done; returns the exit code."""
        try:
            self._use(self._first_link())
            while True:
                self._step()
        except ClientGone:
            return 0
        except Ended as ended:
            say(str(ended))
            self._refuse(str(ended))
            return ended.code

    def _first_link(self) -> DaemonLink:
        try:
            return self._greeted(self._reach_or_spawn())
        except (OSError, NotYet) as problem:
            raise Ended(FAILED, str(problem)) from None

    def _reach_or_spawn(self) -> _socket.socket:
        try:
            return self._reach()
        except Ended:
            if self._spawn is None:
                raise
            say("no mcpd is running: starting one")
            return self._spawn()

    def _greeted(self, connected: _socket.socket) -> DaemonLink:
        link = DaemonLink(connected, self._wait)
        try:
            link.greet(self._view)
        except BaseException:
            link.close()
            raise
        return link

    # ------------------------------------------------------------- the steady state

    def _use(self, link: DaemonLink) -> None:
        """Relay over this connection from now on."""
        self._link = link
        self._connected_at = time.monotonic()
        end = link.lines.whole()
        if end:
            self._pass_down(link, end)
        self._arm(link)

    def _arm(self, link: DaemonLink) -> None:
        """Poll for what can be done now, and for nothing else: a peer that hung up is reported over and over."""
        down, up = bool(self._down.held), bool(link.up.held)
        _watch(self._poll, 0, POLLIN if self._end_at is None and not up else 0)
        _watch(self._poll, link.socket.fileno(), (0 if down else POLLIN) | (POLLOUT if up else 0))
        self._poll.register(self._out, POLLOUT if down else 0)

    def _step(self) -> None:
        link = self._link
        assert link is not None
        held = bool(link.up.held), bool(self._down.held)
        for fd, event in self._poll.poll(self._time_left()):
            if fd == 0:
                self._read_stdin(link)
            elif fd == self._out:
                self._stdout_event(event)
            else:
                self._link_event(link, event)
            if self._link is None:
                self._recover(link.daemon)
                return
        if (bool(link.up.held), bool(self._down.held)) != held:
            self._arm(link)
        if self._end_at is not None:
            self._check_end(link, self._end_at)

    def _time_left(self) -> float | None:
        """How long to wait for something to happen, in milliseconds."""
        return None if self._end_at is None else max(0.0, self._end_at - time.monotonic()) * 1000

    def _check_end(self, link: DaemonLink, end_at: float) -> None:
        if not (self._conversation.waits or link.up.held or self._down.held):
            raise ClientGone
        if time.monotonic() >= end_at:
            raise Ended(FAILED, f"stdin ended, and not all answers came within {DRAIN_TIMEOUT:.0f} s")

    def _link_event(self, link: DaemonLink, event: int) -> None:
        if event & POLLOUT:
            link.flush()
        if event & ~POLLOUT and not self._down.held:
            end = link.receive()
            if end:
                self._pass_down(link, end)
            elif end is None:
                self._drop(link)

    def _read_stdin(self, link: DaemonLink) -> None:
        lines = self._stdin
        count = _read(lines)
        if not count:
            self._end_of_stdin(link)
            return
        end = lines.added(count)
        if self._skipping:
            end = self._skip(end)
        if end:
            self._pass_up(link, end)
        elif lines.full:
            self._say_down(error(b"null", INVALID_REQUEST, f"a message is longer than {MAX_LINE} bytes"))
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

    def _end_of_stdin(self, link: DaemonLink) -> None:
        lines = self._stdin
        self._poll.unregister(0)
        self._end_at = time.monotonic() + DRAIN_TIMEOUT
        if lines.fill and not self._skipping:  # a last line without its line break
            lines.room()[0] = 0x0A
            self._pass_up(link, lines.added(1))

    def _pass_up(self, link: DaemonLink, end: int) -> None:
        """Forward the client's whole lines; only then see what they were."""
        lines, conversation = self._stdin, self._conversation
        if conversation.stale:
            every = bytes(lines.data[: end - 1]).split(b"\n")
            data = b"".join([line + b"\n" for line in every if not conversation.answers_stale(line)])
            link.send(data)
            conversation.client_said(data, len(data))
        else:
            link.send(lines.view[:end])
            conversation.client_said(lines.data, end)
        lines.consume(end)

    def _pass_down(self, link: DaemonLink, end: int) -> None:
        """Forward the daemon's whole lines; only then see what they were."""
        lines, conversation = link.lines, self._conversation
        if conversation.stale:
            for line in bytes(lines.data[: end - 1]).split(b"\n"):
                self._pass_line_down(link, line)
        else:
            self._write_down(lines.view[:end])
            conversation.server_said(lines.data, end)
        lines.consume(end)

    def _pass_line_down(self, link: DaemonLink, line: bytes) -> None:
        """Forward a line of a new daemon, unless it asks under an id that the client may still hold from the old one:
        the two answers could not be told apart."""
        repeated = self._conversation.repeats_stale(line)
        if repeated is None:
            self._say_down(line)
            self._conversation.server_said(line + b"\n", len(line) + 1)
        else:
            why = "the client may still answer a request of this id, made before mcpd restarted"
            link.send(error(repeated, SERVER_UNAVAILABLE, why) + b"\n")

    def _say_down(self, line: bytes) -> None:
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

    # ------------------------------------------------------------- the daemon goes, and comes back

    def _drop(self, link: DaemonLink) -> None:
        """The connection is gone: tell the client of everything that was under way on it."""
        self._poll.unregister(link.socket)
        link.close()
        self._link = None
        for line in self._conversation.lost(LOST):
            self._say_down(line)
        if self._end_at is not None:
            self._wait_for_stdout()
            raise Ended(UNAVAILABLE, "the daemon went away after the client had finished sending")
        if time.monotonic() - self._connected_at > STABLE_AFTER:
            self._give_up_at = time.monotonic() + self._patience
        elif not self._give_up_at:
            self._give_up_at = self._connected_at + self._patience

    def _recover(self, before: bytes) -> None:
        """Find the daemon that follows, and bring it to where the last one was; raises Ended if none comes in time."""
        say("the connection to mcpd was lost; waiting for it to come back")
        delay = RECONNECT_DELAY
        settle_at: float | None = None
        while True:
            try:
                link = self._greeted(self._reach())
                differs = self._replay(link)
                if differs is None:
                    break
                settle_at = settle_at or time.monotonic() + SETTLE_TIMEOUT
                if time.monotonic() >= settle_at:
                    raise Ended(0, f"{differs}: the client has to start a new session")
                problem = differs
            except (OSError, NotYet) as found:
                problem = str(found)
            except Ended as found:
                if found.code != UNAVAILABLE:
                    raise
                problem = str(found)
            if time.monotonic() + delay > self._give_up_at:
                raise Ended(UNAVAILABLE, f"mcpd did not come back within {self._patience:.0f} s: {problem}")
            self._wait(time.monotonic() + delay * (0.5 + os.urandom(1)[0] / 512))
            delay = min(delay * 1.6, RECONNECT_MAX_DELAY)
        say("connected again" + (", to a new mcpd" if link.daemon != before else ""))
        self._use(link)

    def _replay(self, link: DaemonLink) -> str | None:
        """Make the new session what the old one was. Returns what differs, if the client cannot go on; then, and if it
        raises, the connection is closed."""
        try:
            differs = self._replayed(link)
        except BaseException:
            link.close()
            raise
        if differs is not None:
            link.close()
        return differs

    def _replayed(self, link: DaemonLink) -> str | None:
        conversation = self._conversation
        if conversation.initialize is None:
            return None
        answer = self._exchange(link, [conversation.initialize])
        if INITIALIZE in conversation.awaited.values():
            self._pass_line_down(link, answer)
            return None
        new = agreement(answer)
        if new is None:
            raise NotYet("the new mcpd refused to initialize")
        if conversation.initialize_answer is not None and new != agreement(conversation.initialize_answer):
            return "the servers offer other capabilities since mcpd restarted"
        self._exchange(link, conversation.settings())
        if conversation.initialized is not None:
            for line in changed_lists(new[1]):
                self._say_down(line)
        return None

    def _exchange(self, link: DaemonLink, lines: list[bytes]) -> bytes:
        def aside(line: bytes) -> None:
            self._pass_line_down(link, line)
            if len(self._down.held) > MAX_LINE:
                raise Ended(FAILED, "the client does not read")

        return link.exchange(lines, time.monotonic() + REPLAY_TIMEOUT, aside)

    def _wait(self, deadline: float, link: DaemonLink | None = None) -> bool:
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
                waiting.register(link.socket, POLLIN | (POLLOUT if link.up.held else 0))
            for fd, event in waiting.poll(left * 1000):
                if fd == 0:
                    if not _readable(0.0):
                        raise ClientGone
                    listening = False  # it said something more before it left
                elif fd == self._out:
                    self._stdout_event(event)
                elif event & ~POLLOUT:
                    return True
                elif link is not None:
                    link.flush()
        return False

    def _wait_for_stdout(self) -> None:
        deadline = time.monotonic() + GREETING_TIMEOUT
        while self._down.held and time.monotonic() < deadline:
            self._wait(min(deadline, time.monotonic() + RECONNECT_DELAY))

    # ------------------------------------------------------------- no daemon

    def _refuse(self, why: str) -> None:
        """Answer the requests that wait, so that the client can show why; without a session, its first one."""
        conversation = self._conversation
        deadline = time.monotonic() + (0.0 if conversation.initialize else FIRST_REQUEST_TIMEOUT)
        refused = list(conversation.awaited)
        lines = self._stdin
        while self._end_at is None and (_readable(0.0) or (not refused and _readable(deadline - time.monotonic()))):
            count = _read(lines)
            if not count or lines.full:
                break
            lines.added(count)
            while (line := lines.take()) is not None:
                refused += request_ids(line)
        try:
            for id in refused:
                self._say_down(error(id, SERVER_UNAVAILABLE, why))
            self._wait_for_stdout()
        except ClientGone:
            pass  # nobody is there to be told


def _read(lines: Lines) -> int:
    """Read what stdin has; 0 at its end."""
    try:
        return os.readv(0, (lines.room(),))
    except OSError as problem:
        if problem.errno not in (errno.EIO, errno.EBADF, errno.ECONNRESET):
            raise
        return 0


def _readable(timeout: float) -> bool:
    """Whether stdin has something to read, or a file's end, within so many seconds; not if it was hung up."""
    waiting = poll()
    waiting.register(0, POLLIN)
    return any(event & POLLIN for _, event in waiting.poll(max(0.0, timeout) * 1000))


def _watch(polled: poll, fd: int, events: int) -> None:
    """Poll `fd` for these events; for none, not at all."""
    if events:
        polled.register(fd, events)
    else:
        try:  # noqa: SIM105 - contextlib would be loaded for this alone
            polled.unregister(fd)
        except KeyError:
            pass  # was not polled
