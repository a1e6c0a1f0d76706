"""The isolation that a running process really has, read from /proc (proc(5), namespaces(7)): not what was asked for."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from typing import Final

import msgspec

NAMESPACES: Final = ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup")
_SECCOMP: Final = {"0": "none", "1": "strict", "2": "filter"}
_LIMITS: Final = {
    "Max processes": "processes",
    "Max open files": "nofile",
    "Max file size": "fsize",
    "Max data size": "data",
    "Max core file size": "core",
}
_KERNELS_OWN: Final = frozenset({"proc", "devpts", "devtmpfs", "mqueue", "sysfs", "cgroup2"})


class Isolation(msgspec.Struct, frozen=True):
    """What the kernel says of one process."""

    own_namespaces: tuple[str, ...]
    """Those that are not this daemon's."""
    shared_namespaces: tuple[str, ...]
    uids: tuple[int, ...]
    """Real, effective, saved and file system's, as seen from here."""
    capabilities: int
    """Effective, permitted, inheritable, ambient and bounding, all in one."""
    no_new_privileges: bool
    seccomp: str
    writable: tuple[str, ...]
    """Mount points inside that may be written to, but for the kernel's own file systems."""
    limits: Mapping[str, int | None]
    """Hard limits; None: there is none."""

    @property
    def holes(self) -> tuple[str, ...]:
        """What a server under `strict` would not have; empty for one that is contained."""
        found = [f"shares the {name} namespace" for name in self.shared_namespaces if name not in ("user", "cgroup")]
        if 0 in self.uids:
            found.append("runs as root")
        elif "user" in self.shared_namespaces and os.geteuid() in self.uids:
            found.append("runs as mcpd's own user, in its user namespace")
        if self.capabilities:
            found.append(f"has capabilities ({self.capabilities:#x})")
        if not self.no_new_privileges:
            found.append("can gain privileges")
        if self.seccomp != "filter":
            found.append("has no system-call filter")
        if "/" in self.writable:
            found.append("can write to its root")
        return tuple(found)


def read_back(pid: int) -> Isolation | None:
    """What the process with this pid has; None if it is gone, or not ours to look at."""
    try:
        with open(f"/proc/{pid}/status") as file:
            status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
        with open(f"/proc/{pid}/mountinfo") as file:
            mounts = [line.split(" ") for line in file]
        own, shared = _namespaces(pid)
        kept = _limits(pid)
    except OSError:
        return None
    capabilities = 0
    for key in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        capabilities |= int(status.get(key, "0"), 16)
    return Isolation(
        own_namespaces=own,
        shared_namespaces=shared,
        uids=tuple(map(int, status["Uid"].split())),
        capabilities=capabilities,
        no_new_privileges=status.get("NoNewPrivs") == "1",
        seccomp=_SECCOMP.get(status.get("Seccomp", ""), "unknown"),
        writable=_writable(mounts),
        limits=kept,
    )


def _namespaces(pid: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    own: list[str] = []
    shared: list[str] = []
    for name in NAMESPACES:
        with contextlib.suppress(FileNotFoundError):
            same = os.readlink(f"/proc/{pid}/ns/{name}") == os.readlink(f"/proc/self/ns/{name}")
            (shared if same else own).append(name)
    return tuple(own), tuple(shared)


def _writable(mounts: list[list[str]]) -> tuple[str, ...]:
    found: dict[str, bool] = {}
    for fields in mounts:
        rest = fields[fields.index("-") + 1 :]
        if rest[0] in _KERNELS_OWN:
            found.pop(fields[4], None)
        else:
            found[fields[4]] = "rw" in fields[5].split(",") and "rw" in rest[2].rstrip("\n").split(",")
    return tuple(path for path, is_writable in found.items() if is_writable)


def _limits(pid: int) -> dict[str, int | None]:
    found: dict[str, int | None] = {}
    with open(f"/proc/{pid}/limits") as file:
        for line in file:
            name, hard = line[:26].rstrip(), line[47:68].strip()
            if name in _LIMITS:
                found[_LIMITS[name]] = int(hard) if hard.isdigit() else None
    return found
