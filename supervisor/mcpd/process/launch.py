"""Start a process from its plan, or say plainly why not; either way nothing is left half done."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import resource
import secrets
import shlex
import signal
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from mcpd.errors import SpawnError
from mcpd.process import leash
from mcpd.process.child import Child, ChildEvents, Descriptors
from mcpd.process.exits import EXEC_MARK, GATE_MARK
from mcpd.process.mask import NO_SECRETS, Mask
from mcpd.process.pipes import QUEUE_LIMIT
from mcpd.process.stderr import StderrLog
from mcpd.sandbox.cgroup import Cgroup
from mcpd.sandbox.policy import COOKIE, DATA_FD, DEFAULT_PATH, LaunchPlan, become
from mcpd.wire.lines import MAX_LINE

STDOUT_PIPE = 256 * 1024
"""Larger than the default 64 KiB for large results; not more, as a user's pipes share 64 MiB (pipe(7))."""
_RESOURCES = {errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM, errno.ENOSPC}
_STDIN, _STDOUT, _STATUS, _GATE, _ABOVE = 3, 4, 5, 6, 64
_TAKE_PIPES = f'exec "$@" <&{_STDIN} >&{_STDOUT} {_STDIN}<&- {_STDOUT}>&-'
"""Bubblewrap keeps descriptors 0 to 2 open in its own processes while they live: with the pipes there nobody would
see that the server closed its stdin or stdout. All others they close: the pipes go in as those, and are moved last."""
_WAIT_AT_GATE = ("/bin/sh", "-c", f'read -r _ <&{_GATE} && exec "$@" {_GATE}<&-', GATE_MARK)
"""What goes before the wrapper: it waits until limits are set on it, so that all that it starts has them."""
IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)


def spawn(
    plan: LaunchPlan,
    events: ChildEvents,
    stderr: StderrLog,
    *,
    mask: Mask = NO_SECRETS,
    queue_limit: int = QUEUE_LIMIT,
    line_limit: int = MAX_LINE,
) -> Child:
    """Start a process; must be called in the main thread, with the event loop running.

    In the main thread because the kernel sends the death signal when the *thread* that forked ends (prctl(2)).
    Raises SpawnError: `exec` (the command cannot be executed), `sandbox` (what contains it cannot),
    `resources` (out of descriptors, processes, memory: worth another try).
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("children are started from the main thread only")
    if plan.wrapper and not os.access(plan.wrapper[0], os.X_OK):
        raise SpawnError("sandbox", f"{plan.wrapper[0]}: not there, or not executable; install bubblewrap again")
    if plan.host_files:
        check_command(plan.argv, plan.env, plan.cwd)
    cookie = f"{plan.cookie}.{secrets.token_hex(8)}"
    with contextlib.ExitStack() as group_made, contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
        try:
            stdin_r, stdin_w = _pipe(theirs, ours)
            stdout_r, stdout_w = _pipe(ours, theirs)
            stderr_r, stderr_w = _pipe(ours, theirs)
            status_r, status_w = _pipe(ours, theirs)
            with contextlib.suppress(OSError):  # over the user's share: the default size will do
                fcntl.fcntl(stdout_r, fcntl.F_SETPIPE_SZ, STDOUT_PIPE)
            for fd in (stdin_w, stdout_r, stderr_r, status_r):
                os.set_blocking(fd, False)
            gate_r, gate_w = _pipe(theirs, theirs)
            ends = _Ends(*(_high(fd, theirs) for fd in (stdin_r, stdout_w, stderr_w, status_w, gate_r)))
            data = [_high(_memory_file(content, theirs), theirs) for content in plan.data]
            cgroup = _cgroup(plan, cookie, group_made)
            pid = _start(plan, cookie, ends, data)
        except OSError as error:
            raise _spawn_error(error, plan) from error
        pidfd = open_pidfd(pid)
        if plan.wrapper:
            _open_gate(plan, pid, gate_w, cgroup)
        ours.pop_all()
        group_made.pop_all()
    return Child(
        pid,
        Descriptors(stdin_w, stdout_r, stderr_r, status_r, pidfd),
        events,
        stderr,
        cookie=cookie,
        mask=mask,
        wrapped=bool(plan.wrapper),
        limits=plan.limits,
        cgroup=cgroup,
        started_at=time.monotonic(),
        queue_limit=queue_limit,
        line_limit=line_limit,
    )


class _Ends(NamedTuple):
    """The child's ends of its pipes, as numbered here."""

    stdin: int
    stdout: int
    stderr: int
    status: int
    gate: int


def _pipe(reads: contextlib.ExitStack, writes: contextlib.ExitStack) -> tuple[int, int]:
    """A pipe, each end closed by its owner's stack."""
    read, write = os.pipe()
    reads.callback(os.close, read)
    writes.callback(os.close, write)
    return read, write


def _high(fd: int, stack: contextlib.ExitStack) -> int:
    """The same end under a number that none of the child's has, so that no dup2 overwrites the source of another."""
    copy: int = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _ABOVE)
    stack.callback(os.close, copy)
    return copy


def _memory_file(content: bytes, stack: contextlib.ExitStack) -> int:
    """A file without a name, to be read from its beginning."""
    fd = os.memfd_create("mcpd", os.MFD_CLOEXEC)
    stack.callback(os.close, fd)
    os.write(fd, content)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _cgroup(plan: LaunchPlan, cookie: str, stack: contextlib.ExitStack) -> Cgroup | None:
    if not plan.limits.cgroup or plan.cgroups is None:
        return None
    group = plan.cgroups.create(cookie, plan.limits)
    stack.callback(group.remove)
    return group


def _open_gate(plan: LaunchPlan, pid: int, gate: int, cgroup: Cgroup | None) -> None:
    """Set limits on the process that waits, then let it go on. If they cannot be set it is ended."""
    try:
        for what, value in plan.limits.rlimits:
            hard = resource.prlimit(pid, what)[1]
            value = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.prlimit(pid, what, (value, value))
        if cgroup is not None:
            cgroup.add(pid)
        os.write(gate, b"\n")
    except OSError as error:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise SpawnError("resources", f"limits could not be set: {error.strerror}") from error


def _inside(plan: LaunchPlan) -> list[str]:
    """What runs first inside: it becomes the server's user, sets the limit that counts there, and moves the pipes."""
    words: list[str] = []
    if plan.user is not None and plan.setpriv is not None:
        words += become(plan.setpriv, plan.user)
    script = _TAKE_PIPES
    if plan.limits.processes is not None:  # bash calls it -u, dash -p
        script = f"ulimit -u {plan.limits.processes} 2>/dev/null || ulimit -p {plan.limits.processes} && {script}"
    if plan.user is not None:  # only now: the directory may be closed to everybody but this user
        script = f"cd -- {shlex.quote(plan.cwd)} && {{ {script}; }}"
    return [*words, "/bin/sh", "-c", script, EXEC_MARK]


def _leash(plan: LaunchPlan) -> list[str]:
    user = f"{plan.user.uid}:{plan.user.gid}" if plan.user is not None else "-"
    kept = ",".join(f"{what}={value}" for what, value in plan.limits.rlimits) or "-"
    return [sys.executable, "-I", "-S", leash.__file__, str(_STATUS), str(os.getpid()), user, kept, plan.cwd]


def _start(plan: LaunchPlan, cookie: str, ends: _Ends, data: list[int]) -> int:
    """Fork and exec; returns the pid. posix_spawn(3): quick, safe with threads, and exec errors come back."""
    seal()
    if plan.wrapper:
        argv = [*_WAIT_AT_GATE, *plan.wrapper, "--json-status-fd", str(_STATUS), "--", *_inside(plan), *plan.argv]
        placed = [(ends.stdin, _STDIN), (ends.stdout, _STDOUT), (ends.stderr, 1), (ends.stderr, 2), (ends.gate, _GATE)]
        placed += [(fd, DATA_FD + at) for at, fd in enumerate(data)]
        opened = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)]
    else:
        argv = [*_leash(plan), *plan.argv]
        placed = [(ends.stdin, 0), (ends.stdout, 1), (ends.stderr, 2)]
        opened = []
    return os.posix_spawn(
        argv[0],
        argv,
        {**plan.env, COOKIE: cookie},
        file_actions=[
            *opened,
            *((os.POSIX_SPAWN_DUP2, source, target) for source, target in (*placed, (ends.status, _STATUS))),
        ],
        setsid=True,
        setsigmask=(),
        setsigdef=IGNORED_BY_PYTHON,
    )


def seal() -> None:
    """Have no other descriptor inherited: Python opens its own that way, but those from before the start, and some of
    libraries, are not."""
    if _close_range is not None and not _close_range(3, _LAST_FD, _CLOSE_RANGE_CLOEXEC):
        return
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        with contextlib.suppress(OSError):
            if fd > 2 and os.get_inheritable(fd):
                os.set_inheritable(fd, False)


_LAST_FD = 2**32 - 1
_CLOSE_RANGE_CLOEXEC = 4
_close_range = getattr(
    ctypes.CDLL(None), "close_range", None
)  # glibc 2.34; before linux 5.11 it fails (close_range(2))
if _close_range is not None:
    _close_range.argtypes = (ctypes.c_uint, ctypes.c_uint, ctypes.c_int)


def open_pidfd(pid: int) -> int:
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise SpawnError("resources", f"no pidfd for the new process: {error.strerror}") from error


def _spawn_error(error: OSError, plan: LaunchPlan) -> SpawnError:
    if error.errno in _RESOURCES:
        return SpawnError("resources", f"starting {plan.argv[0]}: {error.strerror}")
    if plan.wrapper:
        return SpawnError("sandbox", f"{plan.wrapper[0]}: {error.strerror}")
    return SpawnError("exec", f"{sys.executable}: {error.strerror}")


# -- What can be known before the start ------------------------------------------------------------------------------


def check_command(argv: tuple[str, ...], env: Mapping[str, str], cwd: str) -> None:
    """Raise SpawnError("exec") if execvp(3) would fail on the host's files; it is the kernel that has the last word."""
    if not os.path.isdir(cwd):
        raise SpawnError("exec", f"cwd {cwd}: no such directory; make it or set another one")
    program = _find(argv[0], env, cwd)
    if program is None:
        raise SpawnError(
            "exec", f"{argv[0]}: not found on PATH ({env.get('PATH', DEFAULT_PATH)}); write its absolute path"
        )
    _check_file(program, program)
    with contextlib.suppress(OSError), open(program, "rb") as file:
        line = file.readline(256)
        if line.startswith(b"#!") and (words := line[2:].split()):
            interpreter = os.path.join(cwd, os.fsdecode(words[0]))
            _check_file(interpreter, f"{program}: its interpreter {os.fsdecode(words[0])}")


def _find(name: str, env: Mapping[str, str], cwd: str) -> str | None:
    if "/" in name:
        return os.path.join(cwd, name)
    for folder in env.get("PATH", DEFAULT_PATH).split(":"):
        candidate = os.path.join(cwd, folder, name)
        if os.path.isfile(candidate) and os.access(candidate, os.X_OK):
            return candidate
    return None


def _check_file(path: str, called: str) -> None:
    if not Path(path).exists():
        raise SpawnError("exec", f"{called}: no such file; install it or correct the entry")
    if not os.path.isfile(path):
        raise SpawnError("exec", f"{called}: not a file")
    if not os.access(path, os.X_OK):
        raise SpawnError("exec", f"{called}: not executable; chmod +x it, or name its interpreter in command")
