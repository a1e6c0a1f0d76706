"""What a systemd unit takes from its processes, done by hand: so that it can be tried where systemd is not pid 1.

Run as a program: `python unit_cage.py UNIT HOME COMMAND...` applies the unit's walls to itself and becomes COMMAND,
which may write below HOME only. Done: NoNewPrivileges, CapabilityBoundingSet, SystemCallFilter,
RestrictAddressFamilies, and, for root, a user of its own, ProtectSystem=strict, ProtectProc, ProtectKernelModules and
PrivateDevices. Not done: what could only take away less than that (RestrictRealtime, LockPersonality,
RestrictSUIDSGID, and the one kind of namespace that RestrictNamespaces does not list), and ProtectHome and PrivateTmp,
since interpreters and tests' files may be there; where the interpreter is in a closed directory, that is opened.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

USER = 61_180
"""Not of the range that a daemon which is root gives to servers; nobody's."""
_ALLOW, _EPERM, _EAFNOSUPPORT = 0x7FFF0000, 0x00050001, 0x00050061
_EQUAL = 4
_FAMILIES = {"AF_UNIX": 1, "AF_INET": 2, "AF_INET6": 10, "AF_NETLINK": 16}
_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 24, 38
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")


def settings(unit: Path) -> dict[str, list[str]]:
    """All values of each key, over all sections."""
    found: dict[str, list[str]] = {}
    for line in unit.read_text().splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith(("#", ";")):
            found.setdefault(key.strip(), []).append(value.strip())
    return found


def system_calls(groups: Iterable[str]) -> set[str]:
    """The names in sets such as @system-service, as this machine's systemd has them, and single names."""
    names: set[str] = set()
    for group in groups:
        if not group.startswith("@"):
            names.add(group)
            continue
        listed = subprocess.run(
            ["systemd-analyze", "syscall-filter", "--no-pager", group], capture_output=True, text=True, check=True
        ).stdout
        names |= system_calls(
            line.strip() for line in listed.splitlines()[1:] if line.strip() and not line.strip().startswith("#")
        )
    return names


class _Comparison(ctypes.Structure):
    _fields_ = (("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


def filter_system_calls(unit: dict[str, list[str]]) -> None:
    """Two filters, like systemd's; what is refused fails with EPERM, or EAFNOSUPPORT."""
    library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    library.seccomp_init.restype = ctypes.c_void_p
    allowed = system_calls(word for line in unit["SystemCallFilter"] for word in line.split())
    calls = ctypes.c_void_p(library.seccomp_init(_EPERM))
    for name in allowed | system_calls(["@default"]):
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number >= 0:
            _check(library.seccomp_rule_add_exact_array(calls, _ALLOW, number, 0, None), name)
    families = ctypes.c_void_p(library.seccomp_init(_ALLOW))
    known = {_FAMILIES[name] for line in unit["RestrictAddressFamilies"] for name in line.split()}
    number = library.seccomp_syscall_resolve_name(b"socket")
    for family in set(range(64)) - known:
        only = _Comparison(0, _EQUAL, family, 0)
        _check(library.seccomp_rule_add_exact_array(families, _EAFNOSUPPORT, number, 1, ctypes.byref(only)), "socket")
    for one in (families, calls):  # the wider one first: loading needs seccomp(2) or prctl(2)
        _check(library.seccomp_load(one), "seccomp_load")


def _check(result: int, what: str) -> None:
    if result != 0:
        raise OSError(-result, what)


def build_walls(home: str) -> None:
    """Mounts of a namespace of its own, in which the user finds what it needs and writes below `home` alone."""
    os.chown(home, USER, USER)
    for folder, _, files in os.walk(home):
        for name in ("", *files):
            os.chown(os.path.join(folder, name), USER, USER, follow_symlinks=False)
    devices = os.path.join(home, ".dev")
    os.mkdir(devices)
    script = ["umask 022", "mount --make-rprivate /", 'mount -t tmpfs -o mode=0755,size=64k none "$DEV"']
    script += [f'touch "$DEV/{name}" && mount --bind /dev/{name} "$DEV/{name}"' for name in _DEVICES]
    script += ['mkdir "$DEV/shm" "$DEV/pts"', 'mount --rbind "$DEV" /dev']
    for place in _closed_to_others([sys.base_prefix, sys.prefix]):
        script += _opened(place)
    if os.path.isdir("/usr/lib/modules"):
        script += ["mount -t tmpfs -o mode=0000,ro none /usr/lib/modules"]
    script += ['mount --bind "$HOME" "$HOME"', "mount -o remount,bind,ro /"]
    script += ["mount -t proc -o nosuid,nodev,noexec,hidepid=invisible proc /proc"]
    environ = {"PATH": os.environ["PATH"], "HOME": home, "DEV": devices}
    subprocess.run(["/bin/sh", "-euc", "\n".join(script)], env=environ, check=True)


def _closed_to_others(paths: Iterable[str]) -> list[tuple[str, str]]:
    """The outermost directory that others may not enter, and the path in it."""
    found = []
    for path in {os.path.realpath(path) for path in paths}:
        for parent in reversed(Path(path).parents):
            if not parent.stat().st_mode & 0o001:
                found.append((str(parent), path))
                break
    return found


def _opened(place: tuple[str, str]) -> list[str]:
    parent, path = place
    return [
        'mkdir "$HOME/.keep"',
        f'mount --bind "{path}" "$HOME/.keep"',
        f'mount -t tmpfs -o mode=0755,size=64k none "{parent}"',
        f'mkdir -p "{path}"',
        f'mount --bind "$HOME/.keep" "{path}"',
        'umount "$HOME/.keep" && rmdir "$HOME/.keep"',
    ]


def give_up_rights() -> None:
    """No capability, not by any program either, and no way to get some."""
    libc = ctypes.CDLL(None, use_errno=True)
    if os.geteuid() == 0:
        for capability in range(64):
            libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)  # EINVAL past the last one
        os.setgroups([])
        os.setresgid(USER, USER, USER)
        os.setresuid(USER, USER, USER)
    _check(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")


def main(unit: str, home: str, *command: str) -> None:
    """See above."""
    if os.geteuid() == 0:
        _check(ctypes.CDLL(None, use_errno=True).unshare(0x20000), "unshare")  # CLONE_NEWNS
        build_walls(home)
    os.chdir(home)
    values = settings(Path(unit))
    program = shutil.which(command[0])
    assert program is not None, command
    os.umask(0o077)
    give_up_rights()
    filter_system_calls(values)
    os.execv(program, [program, *command[1:]])


if __name__ == "__main__":
    main(*sys.argv[1:])
