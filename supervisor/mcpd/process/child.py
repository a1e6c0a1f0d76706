"""A running child: its pipes, what is known of its processes, and the news of its end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import signal
from typing import Protocol

import msgspec

from mcpd.process import tree
from mcpd.process.exits import ExitStatus, failed, from_bubblewrap, from_wait
from mcpd.process.mask import NO_SECRETS, Mask
from mcpd.process.oversteps import ended_at_limit
from mcpd.process.pipes import QUEUE_LIMIT, FrameReader, FrameWriter, read_some
from mcpd.process.stderr import StderrLog, StderrPump
from mcpd.process.stop import Ending, StopLadder, StopOutcome
from mcpd.process.usage import Usage, measure
from mcpd.process.watchdog import Overstep, Watchdog, overstep_of
from mcpd.sandbox.cgroup import Cgroup
from mcpd.sandbox.limits import NO_LIMITS, Limits
from mcpd.wire.lines import MAX_LINE

EOF_GRACE = 0.1
"""A process that ends closes its stdout a moment before its end is known; only one that lives on "closed stdout"."""
STATUS_READ = 4096


class ChildEvents(Protocol):
    """Who is told; each method is called on the event loop and must not raise."""

    def frame(self, frame: bytes) -> None:
        """One complete line of stdout, without its line break."""

    def noise(self, kind: str, sample: bytes) -> None:
        """What was on stdout and is no frame: an "overlong" line (discarded) or an "unfinished" one (at its end)."""

    def stdout_closed(self) -> None:
        """The process closed its stdout and lives on."""

    def stdin_broken(self) -> None:
        """The process closed its stdin; `offer` returns False from now on."""

    def exited(self, status: ExitStatus) -> None:
        """The process has ended and was reaped; all that it wrote has been delivered. Exactly once."""


class Descriptors(msgspec.Struct, frozen=True):
    """mcpd's ends of a child's pipes, and the pidfd; all owned by the `Child` that gets them."""

    stdin: int
    stdout: int
    stderr: int
    status: int
    pidfd: int


class Child:
    """A process started by `launch.spawn`. Lives on the event loop that was running then; needs no task."""

    def __init__(
        self,
        pid: int,
        fds: Descriptors,
        events: ChildEvents,
        log: StderrLog,
        *,
        cookie: str,
        wrapped: bool,
        started_at: float,
        mask: Mask = NO_SECRETS,
        limits: Limits = NO_LIMITS,
        cgroup: Cgroup | None = None,
        queue_limit: int = QUEUE_LIMIT,
        line_limit: int = MAX_LINE,
    ) -> None:
        """`wrapped`: bubblewrap is the process, the server is below it; `cookie` marks this child's processes alone;
        `mask` takes its secrets out of its stderr."""
        loop = asyncio.get_running_loop()
        self.pid = pid
        self.started_at = started_at
        self.status: ExitStatus | None = None
        self._loop = loop
        self._events = events
        self._cookie = cookie
        self._wrapped = wrapped
        self._server: tree.Process | None = None
        self._init: tree.Process | None = None
        self._init_fd = -1
        self._left: list[tree.Process] = []
        self._reported: int | None = None
        self._exec_error: str | None = None
        self._status_text = b""
        self._pidfd = fds.pidfd
        self._status_fd = fds.status
        self._eof_timer: asyncio.TimerHandle | None = None
        self._ending = Ending(loop, self)
        self.limits = limits
        self._cgroup = cgroup
        self._overstep: Overstep | None = None
        self._watchdog = Watchdog(loop, self, limits)
        self._stdin = FrameWriter(loop, fds.stdin, self._stdin_broken, queue_limit)
        self._stdout = FrameReader(loop, fds.stdout, self._frame, self._noise, self._stdout_ended, line_limit)
        self._stderr = StderrPump(loop, fds.stderr, log, mask)
        self.offer = self._stdin.offer
        """offer(frame: bytes) -> bool: take a frame for stdin; False if the queue is full or stdin is gone."""
        loop.add_reader(fds.status, self._status_readable)
        loop.add_reader(fds.pidfd, self._ended)

    # -- Asked by the owner ------------------------------------------------------------------------------------------

    @property
    def server_pid(self) -> int | None:
        """The server's own process, seen from here; None while it is not known yet, or is gone."""
        if not self._wrapped:
            return self.pid if self.status is None else None
        server = self._server_process()
        return server.pid if server is not None else None

    @property
    def stderr_tail(self) -> bytes:
        """The last KiBs of stderr, also after the end."""
        return self._stderr.tail

    @property
    def queued(self) -> int:
        """Bytes taken by `offer` that the child's pipe has not taken yet."""
        return self._stdin.queued

    async def stop(self, ladder: StopLadder) -> StopOutcome:
        """End the process and all of its tree; return when that is so, or is known not to be possible (ABANDONED).

        Goes on if the caller is cancelled. A second call makes it faster, never slower. After the end by itself it
        returns as soon as nothing of the tree is left.
        """
        self._ending.begin(ladder)
        return await asyncio.shield(self._ending.done)

    def usage(self, *, pss: bool = False) -> Usage:
        """What the tree uses now; wrappers count only for their processor time. Some 0.05 ms a process."""
        if self.status is not None:
            return Usage()
        top = self._init.pid if self._init is not None else self.pid
        own = tree.look_up(top)
        if own is None:
            return Usage()
        below = tree.descendants(top)
        if self._wrapped:
            return measure(below, waited_for=(own,), pss=pss)
        return measure((own, *below), pss=pss)

    def members(self) -> list[tree.Process]:
        """The server's processes, wrappers not among them."""
        if self.status is not None:
            return []
        if self._wrapped:
            return tree.descendants(self._init.pid) if self._init is not None and self._init_alive() else []
        own = tree.look_up(self.pid)
        return [own, *tree.descendants(self.pid)] if own is not None else []

    def overstepped(self, what: Overstep) -> None:
        """It used more than it may: end it. `exited` will say why."""
        self._overstep = what
        self.kill_tree()

    def kill(self) -> None:
        """SIGKILL to the whole tree, at once and without waiting; for when there is no time left for `stop`."""
        self.kill_tree()

    # -- Asked by the stop ladder ------------------------------------------------------------------------------------

    def close_stdin(self) -> None:
        self._stdin.close()

    def signal_tree(self, *numbers: int) -> None:
        """Signal the server and all below it, but not bubblewrap: on SIGTERM that would kill them all at once."""
        if self._wrapped:
            members = tree.descendants(self._init.pid) if self._init is not None and self._init_alive() else []
            tree.signal_each(members, *numbers)
            return
        below = {process.pid: process for process in (*tree.descendants(self.pid), *tree.carriers(self._cookie))}
        below.pop(self.pid, None)
        for number in numbers if self.status is None else ():
            tree.signal_pidfd(self._pidfd, number)
        tree.signal_each(below.values(), *numbers)

    def kill_tree(self) -> None:
        if self._cgroup is not None:
            self._cgroup.kill()
        if self._init_fd >= 0:
            tree.signal_pidfd(self._init_fd, signal.SIGKILL)
        else:
            tree.signal_each(self._members(), signal.SIGKILL)
        if self.status is None:
            tree.signal_pidfd(self._pidfd, signal.SIGKILL)

    def remains(self) -> int:
        """How many processes of the tree are left, the reaped leader not counted."""
        if self._init_fd < 0:
            return len(self._members()) + (self.status is None)
        if not self._init_alive():
            tree.reap_pidfd(self._init_fd)
            if self.status is not None:
                os.close(self._init_fd)
                self._init_fd = -1
                self._left = []
                self._cookie = ""  # the namespace is empty: there is nothing to look for any more
                self._leave_cgroup()
            return int(self.status is None)
        return 1 + (self.status is None)

    def _members(self) -> list[tree.Process]:
        """Without a namespace to ask: all that carry the cookie, descend from the process, or were its session."""
        if not self._cookie:
            return []
        found = {p.pid: p for p in (*self._left, *tree.carriers(self._cookie))}
        if self.status is None:
            found.update((process.pid, process) for process in tree.descendants(self.pid))
        found.pop(self.pid, None)
        running = []
        for process in found.values():
            now = tree.look_up(process.pid)
            if now is None or now.started != process.started:
                continue
            if now.running:
                running.append(now)
            elif now.parent == os.getpid():  # an orphan that became ours; nobody else collects it
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(now.pid, os.WNOHANG)
        if self.status is not None:
            self._left = running
            if not running:
                self._leave_cgroup()
        return running

    def _leave_cgroup(self) -> None:
        if self._cgroup is not None and self._cgroup.remove():
            self._cgroup = None

    # -- Told by the loop --------------------------------------------------------------------------------------------

    def _frame(self, frame: bytes) -> None:
        self._events.frame(frame)

    def _noise(self, kind: str, sample: bytes) -> None:
        self._events.noise(kind, sample)

    def _stdin_broken(self) -> None:
        if self.status is None:
            self._events.stdin_broken()

    def _stdout_ended(self) -> None:
        if self.status is None:
            self._eof_timer = self._loop.call_later(EOF_GRACE, self._events.stdout_closed)

    def _status_readable(self) -> None:
        chunk = read_some(self._status_fd, STATUS_READ)
        if chunk is None:
            return
        if not chunk:
            self._close_status()
            return
        lines = (self._status_text + chunk).split(b"\n")
        self._status_text = lines.pop()[:STATUS_READ]
        for line in lines:
            self._take_status(line)

    def _take_status(self, line: bytes) -> None:
        with contextlib.suppress(ValueError, TypeError, AttributeError):
            news = json.loads(line)
            if isinstance(pid := news.get("child-pid"), int):
                self._found_init(pid)
            if isinstance(code := news.get("exit-code"), int):
                self._reported = code
            if isinstance(text := news.get("exec-error"), str):
                self._exec_error = text

    def _found_init(self, pid: int) -> None:
        """Hold on to process 1 of the namespace: when it has ended, nothing in there is left (pid_namespaces(7))."""
        process = tree.look_up(pid)
        if process is None or process.parent != self.pid:  # bubblewrap is not reaped, so its pid is still its own
            return
        try:
            pidfd = tree.open_process(process)
        except OSError:  # no descriptor free: the cookie finds them too
            return
        if pidfd is not None:
            self._init, self._init_fd = process, pidfd

    def _ended(self) -> None:
        try:
            info = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:  # somebody else collected it; how it ended is lost
            status = ExitStatus(code=0)
        else:
            if info is None:
                return
            status = from_wait(info)
        if self._status_fd >= 0:
            self._status_readable()
            self._close_status()
        if self._init_fd < 0:
            self._left = tree.in_session(self.pid)  # while the number is still its own
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = -1
        if self._eof_timer is not None:
            self._eof_timer.cancel()
        self._stderr.finish()
        self._stdout.finish()
        self._stdin.close()
        self._watchdog.stop()
        self.status = self._explained(status)
        self._ending.exited()
        self._events.exited(self.status)

    def _explained(self, status: ExitStatus) -> ExitStatus:
        overstep = self._overstep
        if overstep is None and self._cgroup is not None:
            overstep = overstep_of(self._cgroup, self.limits)
        if overstep is not None:
            code = None if status.signal is not None else status.code
            return ExitStatus(code=code, signal=status.signal, failure=overstep.failure, detail=overstep.text)
        if self._exec_error is not None and not self._wrapped:
            return failed(status.code, "exec", self._exec_error)
        own = from_bubblewrap(status, self._reported, self._stderr.tail) if self._wrapped else status
        return ended_at_limit(own, self.limits, self._stderr.tail)

    def _close_status(self) -> None:
        if self._status_fd >= 0:
            self._loop.remove_reader(self._status_fd)
            os.close(self._status_fd)
            self._status_fd = -1

    def _init_alive(self) -> bool:
        if self._init_fd < 0:
            return False
        poll = select.poll()
        poll.register(self._init_fd, select.POLLIN)
        return not poll.poll(0)

    def _server_process(self) -> tree.Process | None:
        if self._init is None or not self._init_alive():
            return None
        if self._server is None:
            for pid in tree.children(self._init.pid)[:1]:  # orphans come after it
                self._server = tree.look_up(pid)
        return self._server
