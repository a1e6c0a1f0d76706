"""Values from the secrets directory, read when a server is started and never kept."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from mcpd.config.registry import Registry, SecretRef, ServerSpec
from mcpd.errors import ConfigError, Problem

LARGEST_SECRET: Final = 64 * 1024


class _Unusable(Exception):
    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


def resolve_env(spec: ServerSpec, registry: Registry) -> dict[str, str]:
    """The server's `env` with each secret in its place. Blocks on small files; call it when a process is started.

    Raises ConfigError with a problem for each secret that is not there or that others could read or change.
    """
    values: dict[str, str] = {}
    problems: list[Problem] = []
    for name, value in spec.env.items():
        try:
            values[name] = _read(value.secret, registry.daemon.secrets_dir) if isinstance(value, SecretRef) else value
        except _Unusable as error:
            problems.append(Problem(None, None, f"servers.{spec.name}.env.{name}", str(error), error.remedy))
    if problems:
        raise ConfigError(*problems)
    return values


def objections(spec: ServerSpec, directory: Path) -> Iterator[tuple[str, str, str]]:
    """Variable, message and remedy for each secret of `spec` that could not be read now."""
    for name, value in spec.env.items():
        if isinstance(value, SecretRef):
            try:
                _read(value.secret, directory)
            except _Unusable as error:
                yield name, str(error), error.remedy


def _read(name: str, directory: Path) -> str:
    try:
        folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        remedy = f"run `mkdir -m 700 {directory}` and put the secret in {directory / name}, mode 0600"
        raise _Unusable(f"the secrets directory {directory} does not exist", remedy) from None
    except OSError as error:
        message = f"the secrets directory {directory} cannot be opened: {error.strerror}"
        raise _Unusable(message, "let only mcpd's user read it") from None
    try:
        _check_private(os.fstat(folder), f"the secrets directory {directory}", f"chmod 700 {directory}")
        return _text(_content(name, folder, directory / name), directory / name)
    finally:
        os.close(folder)


def _content(name: str, folder: int, path: Path) -> bytes:
    # Relative to the checked directory, and no symbolic link: what was checked is what is read.
    # O_NONBLOCK: a fifo must not hold the daemon.
    try:
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        raise _Unusable(f"there is no secret {name!r}", f"put it in {path}, mode 0600") from None
    except OSError as error:
        message = f"the secret {path} cannot be opened: {error.strerror}"
        raise _Unusable(message, "make it a plain file that mcpd's user can read") from None
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise _Unusable(f"the secret {path} is not a plain file", "replace it with one")
        _check_private(status, f"the secret {path}", f"chmod 600 {path}")
        content = os.read(file, LARGEST_SECRET + 1)
    finally:
        os.close(file)
    if len(content) > LARGEST_SECRET:
        raise _Unusable(f"the secret {path} is over 64 KiB", "a variable is not the place for it")
    return content


def _check_private(status: os.stat_result, what: str, command: str) -> None:
    """Refuse what another user owns, reads or changes.

    systemd hands credentials to a service's user by an access control list on files that root owns, and the mask of
    such a list shows as the mode's group bits (acl(5)); so root's own group may read what root owns.
    """
    if status.st_uid not in (os.geteuid(), 0):
        raise _Unusable(f"{what} belongs to user {status.st_uid}", f"run `chown {os.geteuid()}` on it")
    forbidden = 0o027 if status.st_uid == 0 and status.st_gid == 0 else 0o077
    if status.st_mode & forbidden:
        raise _Unusable(f"{what} has mode {stat.S_IMODE(status.st_mode):04o}: others have access", f"run `{command}`")


def _text(content: bytes, path: Path) -> str:
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise _Unusable(f"the secret {path} is not UTF-8", "a variable holds text; encode it") from None
    if "\0" in text:
        raise _Unusable(f"the secret {path} holds a NUL character", "a variable holds text; encode it")
    return text.removesuffix("\n").removesuffix("\r") if text.endswith("\n") else text
