"""Looks at what a tree of processes uses, where no control group bounds it, and ends it when that is too much.

The sum of RSS counts shared pages several times, but is cheap: only when it is over the limit is PSS asked for, which
decides. Files in memory that are mapped nowhere (memfd_create(2)) are in neither, and are added now and then. Between
two looks a process can overstep by what it can touch in that time; `limits.backstop` bounds that.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from collections.abc import Iterable
from typing import ClassVar, Final, Literal, Protocol

import msgspec

from mcpd.process.tree import Process
from mcpd.process.usage import measure
from mcpd.sandbox.cgroup import Cgroup
from mcpd.sandbox.limits import Limits

PERIOD: Final = 0.25
QUIET_PERIOD: Final = 1.0  # where nothing was done between the last looks
SLOT: Final = 0.1  # of a period: looks that fall into the same one are made in one turn of the loop
CROWD: Final = 100  # with more servers than these each is looked at less often, so that all looks together cost no more
MEMORY_FILES_EVERY: Final = 4
_MIB = 2**20


class Overstep(msgspec.Struct, frozen=True):
    """Which limit was not kept, with the figure."""

    failure: Literal["oom-kill", "overstep"]
    text: str


class Watched(Protocol):
    """What the watchdog needs of a child."""

    def members(self) -> list[Process]: ...
    def overstepped(self, what: Overstep) -> None: ...


class Watchdog:
    """Looks every `PERIOD` until it is stopped, or has found an overstep; less often at a tree that does nothing, and
    where there is a crowd of them."""

    looking: ClassVar[int] = 0  # how many there are

    def __init__(self, loop: asyncio.AbstractEventLoop, child: Watched, limits: Limits) -> None:
        self._loop = loop
        self._child = child
        self._limits = limits
        self._looks = 0
        self._files = 0
        self._period = PERIOD
        self._seen: list[tuple[int, int, int]] = []
        self._timer: asyncio.TimerHandle | None = None
        if not limits.cgroup and (limits.memory is not None or limits.pids is not None):
            Watchdog.looking += 1
            self._set_timer()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            Watchdog.looking -= 1

    def _look(self) -> None:
        members = self._child.members()
        found = self._judge(members)
        self._looks += 1
        seen = [(process.pid, process.cpu_ticks, process.rss_pages) for process in members]
        self._period = min(2 * self._period, QUIET_PERIOD) if seen == self._seen else PERIOD
        self._seen = seen
        if found is not None:
            self.stop()
            self._child.overstepped(found)
        else:
            self._set_timer()

    def _set_timer(self) -> None:
        """At the beginning of a slot: to wake up for each of some hundred servers costs more than to look."""
        period = self._period * max(1.0, Watchdog.looking / CROWD)
        slot = SLOT * period
        self._timer = self._loop.call_at((self._loop.time() + period) // slot * slot, self._look)

    def _judge(self, members: list[Process]) -> Overstep | None:
        limits = self._limits
        if limits.memory is not None:
            if self._looks % MEMORY_FILES_EVERY == 0:
                self._files = open_memory_files(members)
            if measure(members).rss + self._files > limits.memory:
                used = memory_used(members, self._files)
                if used > limits.memory:
                    return Overstep("oom-kill", f"memory: {used // _MIB} MiB used, limit {limits.memory // _MIB} MiB")
        if limits.pids is not None and limits.processes is None and (count := threads(members)) > limits.pids:
            return Overstep("overstep", f"pids: {count} processes and threads, limit {limits.pids}")
        return None


def memory_used(members: Iterable[Process], memory_files: int) -> int:
    """PSS, with files in memory counted once whether they are mapped or not (proc(5), smaps_rollup)."""
    private = shared = 0
    for process in members:
        with contextlib.suppress(OSError), open(f"/proc/{process.pid}/smaps_rollup", "rb") as file:
            found = {line.split()[0]: int(line.split()[1]) * 1024 for line in file if line.startswith(b"Pss")}
            in_files = found.get(b"Pss_Shmem:", 0)
            private += found.get(b"Pss:", 0) - in_files
            shared += in_files
    return private + max(shared, memory_files)


def open_memory_files(members: Iterable[Process]) -> int:
    """Bytes in memory files that these processes hold open, each file once."""
    found: dict[tuple[int, int], int] = {}
    for process in members:
        folder = f"/proc/{process.pid}/fd"
        with contextlib.suppress(OSError):
            for name in os.listdir(folder):
                with contextlib.suppress(OSError):
                    if os.readlink(f"{folder}/{name}").startswith("/memfd:"):
                        status = os.stat(f"{folder}/{name}")
                        if stat.S_ISREG(status.st_mode):
                            found[status.st_dev, status.st_ino] = status.st_blocks * 512
    return sum(found.values())


def threads(members: Iterable[Process]) -> int:
    count = 0
    for process in members:
        with contextlib.suppress(OSError):
            count += len(os.listdir(f"/proc/{process.pid}/task"))
    return count


def overstep_of(group: Cgroup, limits: Limits) -> Overstep | None:
    """What the kernel did in a control group whose process has ended."""
    if group.oom_kills() and limits.memory is not None:
        peak = group.memory_peak()
        used = f"{peak // _MIB} MiB used, " if peak is not None else ""
        return Overstep("oom-kill", f"memory: {used}limit {limits.memory // _MIB} MiB")
    return None
