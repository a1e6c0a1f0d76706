"""A control group for each instance, where part of the tree was delegated to the daemon (cgroups(7), version 2).

systemd delegates with `Delegate=memory pids cpu`; nothing is touched that was not delegated.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

import msgspec

from mcpd.sandbox.limits import Limits

LEAF: Final = "daemon"
WANTED: Final = ("memory", "pids", "cpu")
CPU_PERIOD: Final = 100_000
_DELEGATED: Final = ("user.delegate", "trusted.delegate")


class CgroupHome(msgspec.Struct, frozen=True):
    """The directory below which instances get groups; `controllers` are those that can be used there."""

    path: Path
    controllers: frozenset[str]

    def create(self, name: str, limits: Limits) -> Cgroup:
        """A group with these limits. Raises OSError."""
        group = Cgroup(self.path / name)
        group.path.mkdir()
        try:
            for file, value in _settings(limits, self.controllers):
                (group.path / file).write_text(value)
        except OSError:
            group.remove()
            raise
        return group


class Cgroup(msgspec.Struct, frozen=True):
    """The group of one instance."""

    path: Path

    def add(self, pid: int) -> None:
        """Move a process in; all that it starts from then on is in it too. Raises OSError."""
        (self.path / "cgroup.procs").write_text(str(pid))

    def kill(self) -> bool:
        """SIGKILL to all in it, whatever they fork meanwhile (Linux 5.14); False: it could not be done so."""
        try:
            (self.path / "cgroup.kill").write_text("1")
        except OSError:
            return False
        return True

    def processes(self) -> int:
        return len(self._read("cgroup.procs").split())

    def oom_kills(self) -> int:
        """How many processes the kernel killed in it because memory.max was reached."""
        return self._counter("memory.events", "oom_kill")

    def memory_peak(self) -> int | None:
        text = self._read("memory.peak").strip()
        return int(text) if text.isdigit() else None

    def remove(self) -> bool:
        """Remove it; only an empty one can be."""
        try:
            self.path.rmdir()
        except OSError:
            return not self.path.exists()
        return True

    def _counter(self, file: str, key: str) -> int:
        for line in self._read(file).splitlines():
            name, _, value = line.partition(" ")
            if name == key and value.isdigit():
                return int(value)
        return 0

    def _read(self, file: str) -> str:
        with contextlib.suppress(OSError):
            return (self.path / file).read_text()
        return ""


def _settings(limits: Limits, controllers: frozenset[str]) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    if "memory" in controllers and limits.memory is not None:
        found += [("memory.max", str(limits.memory)), ("memory.oom.group", "1")]
        if os.path.exists("/proc/swaps"):  # without swap the kernel has no such file
            found.append(("memory.swap.max", "0"))
    if "pids" in controllers and limits.pids is not None:
        found.append(("pids.max", str(limits.pids)))
    if "cpu" in controllers and limits.cpu is not None:
        found.append(("cpu.max", f"{round(limits.cpu * CPU_PERIOD)} {CPU_PERIOD}"))
    return found


def claim(proc: Path = Path("/proc/self")) -> tuple[CgroupHome | None, str]:
    """Take over the daemon's own group, if it was delegated: the daemon moves to a leaf, its controllers are enabled.

    Returns the home, or None and why there is none. Called once, before any server is started.
    """
    mount = _mount_point(proc)
    own = _own_path(proc)
    if mount is None or own is None:
        return None, "there is no control group hierarchy of version 2"
    path = Path(f"{mount}{own}")
    if path.name == LEAF:  # DelegateSubgroup=, or an earlier self
        path = path.parent
    obstacle = _obstacle(path)
    if obstacle:
        return None, obstacle
    try:
        (path / LEAF).mkdir(exist_ok=True)
        (path / LEAF / "cgroup.procs").write_text(str(os.getpid()))
        available = set((path / "cgroup.controllers").read_text().split())
        wanted = [name for name in WANTED if name in available]
        (path / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in wanted))
    except OSError as error:
        return None, f"the control group {path} cannot be used: {error.strerror}"
    return CgroupHome(path, frozenset(wanted)), ""


def _obstacle(path: Path) -> str:
    remedy = "under systemd, set Delegate=memory pids cpu"
    if not os.access(path, os.W_OK) or not os.access(path / "cgroup.procs", os.W_OK):
        return f"the control group {path} is not delegated to mcpd; {remedy}"
    if os.geteuid() == 0 and not any(_is_marked(path, name) for name in _DELEGATED):
        return f"the control group {path} is not marked as delegated; {remedy}"
    try:
        available = set((path / "cgroup.controllers").read_text().split())
        inside = {int(pid) for pid in (path / "cgroup.procs").read_text().split()}
    except OSError as error:
        return f"the control group {path} cannot be read: {error.strerror}"
    if not {"memory", "pids"} <= available:
        return f"the control group {path} has no controllers memory and pids; {remedy}"
    if inside - {os.getpid()}:
        return f"the control group {path} holds other processes than mcpd; {remedy}"
    return ""


def _is_marked(path: Path, name: str) -> bool:
    with contextlib.suppress(OSError):
        return os.getxattr(path, name) == b"1"
    return False


def _mount_point(proc: Path) -> str | None:
    """proc(5), /proc/PID/mountinfo: the fifth field is the mount point, the file system's type follows " - "."""
    for line in (proc / "mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        if after.startswith("cgroup2 "):
            return before.split(" ")[4]
    return None


def _own_path(proc: Path) -> str | None:
    for line in (proc / "cgroup").read_text().splitlines():
        if line.startswith("0::"):
            return line[3:].rstrip("/") if line != "0::/" else ""
    return None
