"""Command lines for bubblewrap (bwrap(1)); `--json-status-fd` and the command itself are added at the start."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import msgspec

HOME = "/home/mcp"
HOST_NAME = "mcp"
EGRESS_SOCKET = "/run/mcpd/egress.sock"
UNIX_FILTER = "/run/mcpd/filter"

_CAPABILITIES_TO_DROP_THE_USER = ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP")
_USR_DIRECTORIES = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")


class Host(msgspec.Struct, frozen=True):
    """What of the host's system directories there is."""

    links: tuple[tuple[str, str], ...] = ()
    """(/bin, usr/bin), …: where directories of the root are links into /usr."""
    directories: tuple[str, ...] = ("/usr",)
    """/usr, and /bin, /lib, … where they are directories."""
    settings: tuple[str, ...] = ()
    """What may be read of /etc."""


class Bind(msgspec.Struct, frozen=True):
    """A path of the host, seen inside."""

    source: str
    target: str
    writable: bool = False


@dataclass(frozen=True, slots=True)
class Box:
    """Everything that the wall around a server is made of."""

    host: Host
    binds: tuple[Bind, ...]
    links: tuple[tuple[str, str], ...]
    """(path, target)"""
    files: Mapping[str, int] = field(default_factory=dict)
    """Path inside, and the descriptor with its content."""
    filter: int = -1
    """The descriptor with the system-call filter."""
    cwd: str = HOME
    tmp_size: int = 64 * 2**20
    home: Bind | None = None
    """None: a private one that is gone with the server."""
    share_network: bool = False
    user_namespace: bool = True
    """False: the daemon is root; the user is changed by the first program inside."""
    forbid_user_namespaces: bool = True


def pid_namespace(bwrap: str, cwd: str, files: Mapping[str, int]) -> tuple[str, ...]:
    """A process table of its own over the host's files: no protection, but killing its first process kills all.

    `--die-with-parent` has the kernel end everything when the daemon is gone, be it by SIGKILL. `files`: path ->
    descriptor of what the server alone sees there.
    """
    words = [bwrap, "--dev-bind", "/", "/", "--unshare-pid", "--proc", "/proc", "--die-with-parent"]
    return (*words, *_in_memory(files, {"/"}), "--chdir", cwd)


def pid_namespace_for_user(
    bwrap: str, cwd: str, files: Mapping[str, int], covers: Iterable[str], binds: Iterable[Bind], home: str | None
) -> tuple[str, ...]:
    """The same for a root that becomes another user inside.

    `covers` are directories that this user could not enter: an empty one takes the place of each, with only what the
    server needs in it, and `home` is an empty one that it may write to.
    """
    words = [bwrap, "--dev-bind", "/", "/", "--unshare-pid", "--proc", "/proc", "--die-with-parent"]
    words += _capabilities()
    places = dict.fromkeys(covers, "0755")
    if home is not None:
        places[home] = "1777"
    for place in sorted(places):
        words += ["--perms", places[place], "--size", str(64 * 2**20), "--tmpfs", place]
    there = {"/", *places}
    words += _binds(binds, there)
    return (*words, *_in_memory(files, there), "--chdir", cwd)


def contained(bwrap: str, box: Box) -> tuple[str, ...]:
    """Namespaces of its own for everything, and of the host's files only what is named."""
    words = [bwrap, "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    if not box.share_network:
        words += ["--unshare-net"]
    if box.user_namespace:
        words += ["--unshare-user", "--cap-drop", "ALL"]
        if box.forbid_user_namespaces:
            words += ["--disable-userns", "--assert-userns-disabled"]
    else:
        words += _capabilities()
    words += ["--die-with-parent", "--new-session", "--hostname", HOST_NAME]
    words += _system(box)
    there = {"/", "/usr", "/etc", "/home", "/tmp", HOME, "/run"}  # noqa: S108 - the private one
    words += _binds(box.binds, there)
    for path, target in box.links:
        words += [*_ways(path, there), "--symlink", target, path]
    for path, fd in box.files.items():
        words += [*_ways(path, there), "--perms", "0444", "--ro-bind-data", str(fd), path]
    words += ["--remount-ro", "/run", "--remount-ro", "/dev", "--remount-ro", "/"]
    return (*words, "--chdir", box.cwd, "--seccomp", str(box.filter))


def _capabilities() -> list[str]:
    """None, but those by which root becomes somebody else; with the next step they are gone."""
    words = ["--cap-drop", "ALL"]
    for name in _CAPABILITIES_TO_DROP_THE_USER:
        words += ["--cap-add", name]
    return words


def _system(box: Box) -> list[str]:
    """The system's programs and libraries, and fresh instances of everything that can be written to."""
    words: list[str] = []
    for directory in box.host.directories:
        words += ["--ro-bind", directory, directory]
    for path, target in box.host.links:
        words += ["--symlink", target, path]
    words += ["--perms", "0755", "--dir", "/etc"]  # else bubblewrap makes it, for itself alone
    for path in box.host.settings:
        words += ["--ro-bind-try", path, path]
    words += ["--proc", "/proc", "--dev", "/dev"]
    if not box.user_namespace:  # its owner inside is the kernel's root until the user is changed
        words += ["--ro-bind", "/proc/sys", "/proc/sys"]
    owner = "0700" if box.user_namespace else "1777"  # as root the user inside is another one than who makes it
    size = str(box.tmp_size)
    for place in ("/tmp", "/dev/shm"):  # noqa: S108 - private ones
        words += ["--perms", "1777", "--size", size, "--tmpfs", place]
    words += ["--perms", "0755", "--size", str(2**20), "--tmpfs", "/run", "--perms", "0755", "--dir", "/home"]
    if box.home is None:
        return [*words, "--perms", owner, "--size", size, "--tmpfs", HOME]
    return [*words, "--perms", "0755", "--dir", HOME, "--bind", box.home.source, HOME]


def _binds(binds: Iterable[Bind], there: set[str]) -> list[str]:
    """Binds, the outer before the inner; the directories on the way to each can be passed by anybody."""
    words: list[str] = []
    bound: list[str] = ["/usr"]
    for bind in sorted(binds, key=lambda one: (one.target.count("/"), one.target, one.writable)):
        if not any(_within(bind.target, place) for place in bound):
            words += _ways(bind.target, there)
        words += ["--bind" if bind.writable else "--ro-bind", bind.source, bind.target]
        bound.append(bind.target)
    return words


def _in_memory(files: Mapping[str, int], there: set[str]) -> list[str]:
    """Files over the host's: a file system in memory takes the place of each's directory."""
    words: list[str] = []
    folders = sorted({os.path.dirname(path) for path in files})
    for folder in folders:
        words += [*_ways(f"{folder}/", there), "--perms", "0755", "--tmpfs", folder]
    for path, fd in files.items():
        words += ["--perms", "0444", "--ro-bind-data", str(fd), path]
    for folder in folders:
        words += ["--remount-ro", folder]
    return words


def _ways(path: str, there: set[str]) -> list[str]:
    """Makes the directories above `path` that are not `there` yet."""
    words: list[str] = []
    for parent in _parents(path):
        if parent not in there:
            words += ["--perms", "0755", "--dir", parent]
            there.add(parent)
    return words


def _parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(2, len(parts))]


def _within(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory + "/")
