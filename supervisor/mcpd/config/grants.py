"""Paths that an operator grants to a server: which of them would be a hole in the wall.

Asked when the registry is loaded, and again each time before a server is started: links may have changed since.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from mcpd.config.settings import DaemonSettings

Objection = tuple[str, str]

_SYSTEM: Final = ("/proc", "/sys", "/run")
_PERSONAL: Final = (".ssh", ".gnupg", ".aws")


class Protected(msgspec.Struct, frozen=True):
    """Real paths of what no server may have: nothing in these, and nothing that they are in."""

    closed: tuple[tuple[str, str], ...]
    """Path, and what it is."""
    unwritable: tuple[tuple[str, str], ...]
    """The same for what may be read."""
    home: str


def protected(daemon: DaemonSettings, registry: Path, home: Path) -> Protected:
    """What is protected for this daemon."""
    code = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    closed = [(path, path) for path in _SYSTEM]
    closed += [(str(home / name), f"your keys ({home / name})") for name in _PERSONAL]
    closed += [
        (str(daemon.state_dir), "daemon.state_dir"),
        (str(daemon.runtime_dir), "daemon.runtime_dir"),
        (str(daemon.secrets_dir), "daemon.secrets_dir"),
        (str(daemon.logs_dir), "daemon.logs_dir"),
    ]
    unwritable = [
        (str(registry), "the registry"),
        (str(registry.parent / "servers.d"), "the registry (servers.d)"),
        (code, "mcpd itself"),
        (sys.prefix, "mcpd's own environment"),
        (sys.base_prefix, "mcpd's own interpreter"),
        ("/usr", "the system"),
        ("/etc", "the system's configuration"),
        ("/boot", "the system"),
    ]
    return Protected(
        tuple((os.path.realpath(path), what) for path, what in closed),
        tuple((os.path.realpath(path), what) for path, what in unwritable),
        os.path.realpath(home),
    )


def objection(path: str, guarded: Protected, *, writing: bool) -> Objection | None:
    """Message and remedy where `path` must not be granted. Compares real paths, ancestors and descendants."""
    try:
        os.lstat(path)
    except OSError as error:
        return f"{path!r} cannot be granted: {error.strerror}", "make it, or correct the path"
    real = os.path.realpath(path)
    if real != os.path.normpath(path):
        return f"{path!r} is, or goes through, a symbolic link", f"write {real!r}, if that is what you mean"
    if real == "/":
        return "'/' cannot be granted", "name the directories that the server needs"
    keys = next((one for one in _somebodys_keys(real) if one not in (path for path, _ in guarded.closed)), None)
    if keys is not None:
        return f"{path!r} cannot be granted: somebody's keys are there ({keys})", "grant another directory, beside them"
    for other, what in (*guarded.closed, *(guarded.unwritable if writing else ())):
        if is_within(other, real):
            return f"{path!r} cannot be granted: {what} is in it", "name the directories that the server needs"
        if is_within(real, other):
            return f"{path!r} cannot be granted: it is in {what}", "grant another directory"
    return None


def _somebodys_keys(real: str) -> Iterator[str]:
    """Directories of keys, of any user: those that a path is in, and those that lie in it."""
    parts = real.split("/")
    for at, part in enumerate(parts):
        if part in _PERSONAL:
            yield "/".join(parts[: at + 1])
    for name in _PERSONAL:
        if os.path.isdir(f"{real}/{name}"):
            yield f"{real}/{name}"


def is_within(path: str, directory: str) -> bool:
    """Whether `path` is `directory` or something below it; both are real paths."""
    return path == directory or path.startswith(directory.rstrip("/") + "/")
