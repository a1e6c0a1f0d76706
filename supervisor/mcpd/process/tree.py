"""Finding processes that belong together, and signalling exactly those: by pidfd and start time, never by pid alone.

A pid says nothing for longer than its process lives. Here a process is (pid, start time): the pidfd is opened first,
then the start time is compared, so a signal can only reach the process that was meant (pidfd_open(2), proc(5)).
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import hashlib
import os
import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from mcpd.sandbox.policy import COOKIE

STRAY_GRACE = 2.0
STRAY_KILL = 3.0
ADOPTED_AGE = 1.0
_PR_SET_CHILD_SUBREAPER = 36
_PAGE = 4096


class Process(msgspec.Struct, frozen=True):
    """A process at one moment (proc(5), /proc/PID/stat); `started` is in clock ticks since boot.

    Made for every process of every server several times a second, as all that follows is called: hence the short ways.
    """

    pid: int
    parent: int
    session: int
    state: str
    started: int
    cpu_ticks: int
    rss_pages: int
    threads: int = 0  # 0: not known

    @property
    def running(self) -> bool:
        return self.state not in "ZX"


def look_up(pid: int) -> Process | None:
    """The process that has this number now."""
    try:
        fields = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split(None, 22)
    except OSError:
        return None
    if len(fields) < 22:
        return None
    return Process(
        pid=pid,
        parent=int(fields[1]),
        session=int(fields[3]),
        state=fields[0].decode(),
        started=int(fields[19]),
        cpu_ticks=int(fields[11]) + int(fields[12]) + int(fields[13]) + int(fields[14]),
        rss_pages=int(fields[21]),
        threads=int(fields[17]),
    )


def _read(path: str) -> bytes:
    """A file of procfs, without what Python's files do beside reading. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        content = chunk = os.read(descriptor, _PAGE)
        while len(chunk) > _PAGE // 2:  # a record that did not fit any more comes with the next read (seq_file)
            chunk = os.read(descriptor, _PAGE)
            content += chunk
        return content
    finally:
        os.close(descriptor)


def descendants(pid: int) -> list[Process]:
    """All processes below `pid`, parents before children; those of `pid` itself that were reparented away are not."""
    found: list[Process] = []
    seen = {pid}
    level = [(pid, 0)]
    while level:
        below = [child for parent, threads in level for child in children(parent, threads) if child not in seen]
        seen.update(below)
        level = []
        for child in below:
            process = look_up(child)
            if process is not None:
                found.append(process)
            level.append((child, process.threads if process is not None else 0))
    return found


def children(pid: int, threads: int = 0) -> list[int]:
    """The direct children of all threads of `pid`, oldest first (proc(5), /proc/PID/task/TID/children). `threads`: how
    many it has, if that is known."""
    if not _HAS_CHILDREN_FILES:
        return [process.pid for process in everyone() if process.parent == pid]
    found: list[int] = []
    try:
        tasks = os.listdir(f"/proc/{pid}/task") if threads != 1 else [str(pid)]
    except OSError:
        return found
    for thread in tasks:
        with contextlib.suppress(OSError):
            found += map(int, _read(f"/proc/{pid}/task/{thread}/children").split())
    return found


def everyone() -> Iterator[Process]:
    """All processes that can be seen from here."""
    for name in os.listdir("/proc"):
        if name.isdigit() and (process := look_up(int(name))) is not None:
            yield process


_HAS_CHILDREN_FILES = os.path.exists("/proc/thread-self/children")  # CONFIG_PROC_CHILDREN; some kernels have none


def carriers(cookie: str) -> list[Process]:
    """All running processes whose environment has this cookie, or one that begins with it and a dot."""
    mark = f"\0{COOKIE}={cookie}".encode()
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit() or not _carries(name, mark):
            continue
        process = look_up(int(name))
        # once more: the number may have become another's
        if process is not None and process.running and _carries(name, mark) and look_up(process.pid) == process:
            found.append(process)
    return found


def _carries(pid: str, mark: bytes) -> bool:
    try:
        environ = b"\0" + _read(f"/proc/{pid}/environ") + b"\0"
    except OSError:
        return False
    return mark + b"\0" in environ or mark + b"." in environ


def in_session(leader: int) -> list[Process]:
    """The running processes of the session that `leader` began, itself not counted. `leader` must not be reaped yet."""
    return [p for p in everyone() if p.session == leader and p.pid != leader and p.running]


def open_process(process: Process) -> int | None:
    """A pidfd of just this process, or None if it is gone. The caller closes it. Raises OSError when out of fds."""
    try:
        pidfd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return None
    now = look_up(process.pid)
    if now is None or now.started != process.started:
        os.close(pidfd)
        return None
    return pidfd


def signal_each(processes: Iterable[Process], *numbers: int) -> int:
    """Send the signals to every one of `processes` that still lives; return how many got them."""
    reached = 0
    for process in processes:
        pidfd = open_process(process)
        if pidfd is None:
            continue
        try:
            reached += all(signal_pidfd(pidfd, number) for number in numbers)
        finally:
            os.close(pidfd)
    return reached


def signal_pidfd(pidfd: int, number: int) -> bool:
    """True if the signal went out (kill(2) permission rules hold)."""
    try:
        signal.pidfd_send_signal(pidfd, signal.Signals(number))
    except OSError:
        return False
    return True


# -- Processes that became ours because their parents died -----------------------------------------------------------


def become_subreaper() -> bool:
    """Make orphans of this process's descendants its own children (prctl(2), PR_SET_CHILD_SUBREAPER).

    Needed where there is no pid namespace to hold them. Whoever calls this has to call `reap_adopted` now and then.
    """
    failed: int = ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    return not failed


class Adopted:
    """Collects dead children that nobody here started (orphans, when subreaper or PID 1).

    A zombie counts as nobody's after `ADOPTED_AGE`: whoever starts a process collects it at once.
    """

    def __init__(self) -> None:
        self._seen: dict[tuple[int, int], float] = {}

    def reap(self) -> int:
        """Collect what has been dead for long enough; return how many. Cheap; call it from a timer."""
        if not _has_dead_children():
            self._seen.clear()
            return 0
        now = time.monotonic()
        dead = {
            (process.pid, process.started)
            for pid in children(os.getpid())
            if (process := look_up(pid)) is not None and process.state == "Z"
        }
        self._seen = {key: self._seen.get(key, now) for key in dead}
        count = 0
        for (pid, _), since in self._seen.items():
            if now - since >= ADOPTED_AGE:
                with contextlib.suppress(ChildProcessError):
                    count += os.waitpid(pid, os.WNOHANG)[0] == pid
        return count


def _has_dead_children() -> bool:
    """Whether any child waits to be collected; nothing is."""
    try:
        return os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return False


def reap_pidfd(pidfd: int) -> None:
    """Collect a dead process if it has become our child; if it is somebody else's, they do."""
    with contextlib.suppress(ChildProcessError, BlockingIOError):
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)


# -- Strays: what a killed daemon left behind ------------------------------------------------------------------------


def cookie_for(runtime_dir: Path) -> str:
    """A word that marks the processes of the daemon of this directory and survives its death; no secret."""
    return hashlib.sha256(f"{os.getuid()}:{runtime_dir.resolve()}".encode()).hexdigest()[:24]


def find_strays(cookie: str) -> list[Process]:
    """Processes with this cookie that are older than this one: of an earlier daemon of the same runtime directory.

    To be called only by the holder of the directory's lock. This process and those above it are never among them.
    """
    own = look_up(os.getpid())
    if own is None:
        return []
    above = {own.pid}
    parent: Process | None = own
    while parent is not None and parent.parent not in above:
        above.add(parent.parent)
        parent = look_up(parent.parent)
    return [process for process in carriers(cookie) if process.pid not in above and process.started < own.started]


async def end_strays(cookie: str, *, grace: float = STRAY_GRACE, kill: float = STRAY_KILL) -> tuple[int, int]:
    """End all strays: SIGTERM, then SIGKILL after `grace`. Returns (found, still there `kill` seconds later)."""
    strays = find_strays(cookie)
    if not strays:
        return 0, 0
    found = len(strays)
    signal_each(strays, signal.SIGTERM, signal.SIGCONT)
    await _all_gone(strays, grace)
    deadline = time.monotonic() + kill
    while (left := find_strays(cookie)) and time.monotonic() < deadline:  # one that forks may leave a new one
        signal_each(left, signal.SIGKILL)
        await _all_gone(left, min(kill, 0.2))
    return found, len(left)


async def _all_gone(processes: list[Process], timeout: float) -> None:
    """Return when all of them have ended, or after `timeout`."""
    loop = asyncio.get_running_loop()
    gone: asyncio.Future[None] = loop.create_future()
    pidfds: set[int] = set()

    def ended(pidfd: int) -> None:
        loop.remove_reader(pidfd)
        pidfds.discard(pidfd)
        os.close(pidfd)
        if not pidfds and not gone.done():
            gone.set_result(None)

    for process in processes:
        pidfd = open_process(process)
        if pidfd is not None:
            pidfds.add(pidfd)
            loop.add_reader(pidfd, ended, pidfd)
    try:
        if pidfds:
            await asyncio.wait({gone}, timeout=timeout)
    finally:
        for pidfd in list(pidfds):
            ended(pidfd)
