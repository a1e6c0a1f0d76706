"""Bounds on what a server uses: which of them the kernel keeps, which the daemon watches, which nobody can.

Pure. A limit of a process (setrlimit(2)) holds in every mode; a limit of the whole tree needs a control group
(cgroups(7)), else the daemon looks at it several times a second.
"""

from __future__ import annotations

import resource
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from mcpd.config.registry import LimitsSpec

SPARE_PIDS: Final = 6
"""Bubblewrap, the shell and the relay are no processes of the server's."""
LEAST_BACKSTOP: Final = 2**30


@dataclass(frozen=True, slots=True)
class Limits:
    """What is to be kept for one instance, and how."""

    rlimits: tuple[tuple[int, int], ...] = ()
    """(resource, value): set for every process, hard."""
    processes: int | None = None
    """RLIMIT_NPROC, set inside, where it counts the server's own."""
    memory: int | None = None
    pids: int | None = None
    """Of the whole tree: watched by the daemon, unless the control group keeps it."""
    cpu: float | None = None
    cgroup: bool = False
    """The three above are the control group's."""
    in_force: Mapping[str, str] = field(default_factory=dict)
    """Limit, and what keeps it; to be shown."""


NO_LIMITS: Final = Limits()


def limits(spec: LimitsSpec, *, controllers: frozenset[str], counts_processes: bool) -> Limits:
    """How the limits of an entry are kept where these controllers are delegated.

    `counts_processes`: a limit of processes that is set inside counts only those inside.
    """
    hard = {"memory", "pids"} <= controllers
    cpu_kept = hard and "cpu" in controllers
    in_force = {
        "memory": f"{size(spec.memory)} by {'cgroup' if hard else 'watchdog'}",
        "pids": f"{spec.pids} by {'cgroup' if hard else 'rlimit' if counts_processes else 'watchdog'}",
        "cpu": f"{spec.cpu:g} by cgroup" if cpu_kept else "not limited: no delegated cgroup",
        "nofile": f"{spec.nofile} by rlimit",
        "fsize": f"{size(spec.fsize)} by rlimit",
    }
    return Limits(
        rlimits=(
            (resource.RLIMIT_NOFILE, spec.nofile),
            (resource.RLIMIT_FSIZE, spec.fsize),
            (resource.RLIMIT_CORE, 0),
            (resource.RLIMIT_DATA, backstop(spec.memory)),
        ),
        processes=spec.pids + SPARE_PIDS if counts_processes else None,
        memory=spec.memory,
        pids=spec.pids,
        cpu=spec.cpu if cpu_kept else None,
        cgroup=hard,
        in_force=in_force,
    )


def backstop(memory: int) -> int:
    """For one process's private memory: far above the limit, as much of that is only reserved, but not endless.

    It bounds by how much a process can be over between two looks of the watchdog.
    """
    return memory + max(memory, LEAST_BACKSTOP)


def missing_for_cgroup(controllers: frozenset[str]) -> str:
    """Why `enforce = "cgroup"` cannot be had; empty: it can."""
    lacking = sorted({"memory", "pids", "cpu"} - controllers)
    return f"no control group with {', '.join(lacking)} is delegated to mcpd" if lacking else ""


def size(count: int) -> str:
    """As it would be written in a registry."""
    for unit, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if count % unit == 0 and count >= unit:
            return f"{count // unit}{name}"
    return f"{count}B"
