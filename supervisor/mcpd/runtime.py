"""The daemon's private directories, and the lock that says that only one daemon has them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import stat
from pathlib import Path
from types import TracebackType
from typing import Self

from mcpd.control.trust import is_reachable, was_given
from mcpd.errors import ConfigError, McpdError, Problem

LOCK_FILE = "mcpd.lock"
HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""The signals that say something to the daemon."""


class AlreadyRunning(McpdError):
    """Another daemon has the runtime directory."""


class RuntimeDir:
    """The runtime directory, held by flock(2) for as long as the context lasts.

    The kernel lets go of the lock when the process ends, however it ends; the pid in the file is for people.
    Raises ConfigError if the directory cannot be used, AlreadyRunning if another daemon has it.
    """

    def __init__(self, path: Path, *, passable: bool = False) -> None:
        """`passable`: others may reach what is in it if they know its name, and its own mode lets them."""
        self._path = path
        self._passable = passable

    def __enter__(self) -> Self:
        make_private(self._path, "daemon.runtime_dir", passable=self._passable)
        lock = self._path / LOCK_FILE
        try:
            self._descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as problem:
            raise _unusable(lock, "daemon.runtime_dir", problem.strerror or str(problem)) from None
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(self._descriptor, 20, 0).decode(errors="replace").strip() or "unknown"
            os.close(self._descriptor)
            raise AlreadyRunning(
                f"mcpd is already running (pid {pid}) with the runtime directory {self._path}; "
                "stop it with `mcpd stop`, or set another daemon.runtime_dir"
            ) from None
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, b"%d\n" % os.getpid(), 0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)


def make_private(path: Path, key: str, *, passable: bool = False) -> None:
    """Make a directory (and those above it) that only this user may enter, or others only pass through; raises
    ConfigError where it cannot be so."""
    mode = 0o711 if passable else 0o700
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = os.lstat(path)
        if not stat.S_ISDIR(found.st_mode):
            raise _unusable(path, key, "it is a symbolic link; name the directory that it leads to")
        if found.st_uid != os.geteuid():
            raise _unusable(path, key, f"it belongs to user {found.st_uid}")
        if stat.S_IMODE(found.st_mode) & 0o077 != mode & 0o077:
            os.chmod(path, mode)
    except OSError as problem:
        raise _unusable(path, key, problem.strerror or str(problem)) from None


def useless_because(path: Path) -> str:
    """Why the members of a group would not get to a socket in this directory, or their tools not believe what is there;
    empty if they do."""
    directory = os.fspath(path)
    if not is_reachable(directory):
        return "a directory above it is closed to others"
    if os.getuid() and not was_given(directory, os.getuid()):
        return "its directory is not one that root made for this user, so mcpctl of others does not trust it"
    return ""


def _unusable(path: Path, key: str, why: str) -> ConfigError:
    return ConfigError(Problem(path, None, key, f"cannot be used: {why}", f"set another {key} in the registry"))
