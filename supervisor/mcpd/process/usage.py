"""What a tree of processes uses right now, cheaply enough to be asked for all instances every second."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable

import msgspec

from mcpd.process.tree import Process

_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICK = float(os.sysconf("SC_CLK_TCK"))


class Usage(msgspec.Struct, frozen=True):
    """`rss` counts shared pages once a process (an upper bound), `pss` counts them once; both in bytes."""

    rss: int = 0
    pss: int | None = None
    cpu_seconds: float = 0.0
    processes: int = 0


def measure(processes: Iterable[Process], *, waited_for: Iterable[Process] = (), pss: bool = False) -> Usage:
    """Sum up `processes`; of `waited_for` (wrappers) only the processor time. PSS takes some 0.4 ms a process."""
    running = [process for process in processes if process.running]
    ticks = sum(process.cpu_ticks for process in (*running, *waited_for))
    return Usage(
        rss=sum(process.rss_pages for process in running) * _PAGE,
        pss=sum(_pss(process.pid) for process in running) if pss else None,
        cpu_seconds=ticks / _TICK,
        processes=len(running),
    )


def _pss(pid: int) -> int:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/smaps_rollup", "rb") as file:
        for line in file:
            if line.startswith(b"Pss:"):
                return int(line.split()[1]) * 1024
    return 0
