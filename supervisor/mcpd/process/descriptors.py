"""How many descriptors this process may open yet: no server is started with those that clients and operators need."""

from __future__ import annotations

import os
import resource
from typing import Final

from mcpd.errors import SpawnError

RESERVED: Final = 32


def raise_limit() -> None:
    """Take the soft limit to the hard one: it is low for the sake of programs that use select(2); mcpd does not."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def check_left() -> None:
    """Raise SpawnError if a start would take descriptors that are kept for clients and operators."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    left = soft - _open_now()
    if left < RESERVED:
        text = f"{max(0, left)} descriptors are left, and {RESERVED} are kept for clients and operators"
        raise SpawnError("resources", f"{text}; raise the limit of open files (LimitNOFILE=, ulimit -n)")


def _open_now() -> int:
    try:
        return len(os.listdir("/proc/self/fd")) - 1  # but for the one of this look
    except OSError:  # none was left for the look itself
        return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
