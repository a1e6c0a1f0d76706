"""Which limit a process ended at, where the kernel refused it something: by its signal, or by its last words.

setrlimit(2): too large a file is SIGXFSZ or EFBIG, too many open files are EMFILE, too many processes EAGAIN, too much
memory ENOMEM. What a server does then is its own affair; most end, and say why in their last line.
"""

from __future__ import annotations

import re
import resource
import signal
from typing import Final

from mcpd.process.exits import ExitStatus
from mcpd.sandbox.limits import Limits, size

LAST_WORDS: Final = 512
_LINES: Final = 40
_WORDS: Final = {
    "nofile": re.compile(rb"Too many open files|\bEMFILE\b"),
    "fsize": re.compile(rb"File too large|\bEFBIG\b|File size limit exceeded"),
    "pids": re.compile(
        rb"can't start new thread|[Cc]annot fork|fork: .*Resource temporarily unavailable|pthread_create.*unavailable"
        rb"|spawn.*\bEAGAIN\b|BlockingIOError: \[Errno 11\]|unable to create (?:new )?native thread"
    ),
    "memory": re.compile(rb"^MemoryError\b|Cannot allocate memory|\bENOMEM\b|std::bad_alloc"),
}


def ended_at_limit(status: ExitStatus, limits: Limits, stderr: bytes) -> ExitStatus:
    """`status`, with the limit at which it ended as its reason, if it was one."""
    if status.failure is not None or (status.code == 0 and status.signal is None):
        return status
    figures = _figures(limits)
    found = "fsize" if status.signal == signal.SIGXFSZ else _told(stderr)
    if found is None or found not in figures:
        return status
    how = "" if status.signal == signal.SIGXFSZ else ", by its last words on stderr"
    return ExitStatus(status.code, status.signal, status.core, "limit", f"{found}: limit {figures[found]}{how}")


def _told(stderr: bytes) -> str | None:
    """The limit that the last words are about: the last line, or with node, which goes on, the last that is one."""
    lines = [line[-LAST_WORDS:] for line in stderr.splitlines() if line.strip()][-_LINES:]
    last = lines[-1:] if not any(line.startswith(b"Node.js v") for line in lines[-1:]) else lines
    return next((name for line in reversed(last) for name, words in _WORDS.items() if words.search(line)), None)


def _figures(limits: Limits) -> dict[str, str]:
    """The limits that are kept by refusing."""
    found = {}
    for what, value in limits.rlimits:
        if what == resource.RLIMIT_NOFILE:
            found["nofile"] = f"{value} open files"
        elif what == resource.RLIMIT_FSIZE:
            found["fsize"] = f"{size(value)} a file"
        elif what == resource.RLIMIT_DATA:
            found["memory"] = f"{size(value)} of private memory a process"
    if limits.pids is not None and (limits.processes is not None or limits.cgroup):
        found["pids"] = f"{limits.pids} processes and threads"
    return found
