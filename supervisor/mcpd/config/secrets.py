"""Secrets: from the secrets directory, else a command, else the system's keyring; fetched when a server is started."""

from __future__ import annotations

import importlib
import os
import stat
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from mcpd.config.registry import Registry, SecretRef, ServerSpec
from mcpd.config.settings import DaemonSettings
from mcpd.errors import ConfigError, Problem

LARGEST_SECRET: Final = 64 * 1024
COMMAND_TIMEOUT: Final = 30.0


class _Unusable(Exception):
    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


class _Absent(_Unusable):
    """It is not there; it may be elsewhere."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a server is started with. `env`: variables with values; `files`: variable -> (name, content) of those whose
    value is to be the path of a file. `repr` shows no value."""

    env: Mapping[str, str] = field(repr=False)
    files: Mapping[str, tuple[str, str]] = field(default_factory=dict, repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)
    """All secret values among them."""


def uses_secrets(spec: ServerSpec) -> bool:
    return any(not isinstance(value, str) for value in spec.env.values())


def resolve(spec: ServerSpec, registry: Registry) -> Resolved:
    """The server's `env` with each secret fetched. Blocks: a command may take its time. Not for the event loop.

    Raises ConfigError with a problem for each secret that cannot be had, or that others could read or change.
    """
    env: dict[str, str] = {}
    files: dict[str, tuple[str, str]] = {}
    secrets: list[str] = []
    problems: list[Problem] = []
    for name, value in spec.env.items():
        if isinstance(value, str):
            env[name] = value
            continue
        wanted = value.secret if isinstance(value, SecretRef) else value.secret_file
        try:
            found = _fetch(wanted, registry.daemon)
        except _Unusable as error:
            problems.append(Problem(None, None, f"servers.{spec.name}.env.{name}", str(error), error.remedy))
            continue
        secrets.append(found)
        if isinstance(value, SecretRef):
            env[name] = found
        else:
            files[name] = (wanted, found)
    if problems:
        raise ConfigError(*problems)
    return Resolved(env, files, tuple(secrets))


def objections(spec: ServerSpec, settings: DaemonSettings) -> Iterator[tuple[str, str, str]]:
    """Variable, message and remedy for each secret of `spec` that could not be read now; commands are not run."""
    for name, value in spec.env.items():
        if isinstance(value, str):
            continue
        try:
            _read(value.secret if isinstance(value, SecretRef) else value.secret_file, settings.secrets_dir)
        except _Absent as error:
            if not (settings.secret_command or settings.secret_keyring):
                yield name, str(error), error.remedy
        except _Unusable as error:
            yield name, str(error), error.remedy


def _fetch(name: str, settings: DaemonSettings) -> str:
    try:
        return _read(name, settings.secrets_dir)
    except _Absent:
        if settings.secret_command:
            return _ask_command(name, settings.secret_command)
        if settings.secret_keyring:
            return _ask_keyring(name, settings.secret_keyring)
        raise


def _ask_command(name: str, command: Sequence[str]) -> str:
    """What a command prints that is told the secret's name, in the place of {name} or as its last argument."""
    named = [word.replace("{name}", name) for word in command]
    argv = named if named != list(command) else [*command, name]
    what = f"secret_command ({argv[0]}) for {name!r}"
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=COMMAND_TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        remedy = "it must not ask anybody; unlock what it needs beforehand"
        raise _Unusable(f"{what} did not end within {COMMAND_TIMEOUT:g} s", remedy) from None
    except OSError as error:
        raise _Unusable(f"{what} cannot be run: {error.strerror}", "see daemon.secret_command") from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().split("\n")[0][:200]
        raise _Unusable(f"{what} failed ({done.returncode}): {said}", "run it by hand as mcpd's user")
    if not done.stdout or len(done.stdout) > LARGEST_SECRET:
        raise _Unusable(f"{what} printed {'nothing' if not done.stdout else 'over 64 KiB'}", "see what it prints")
    return _text(done.stdout, f"that {what} printed")


def _ask_keyring(name: str, service: str) -> str:
    """The password of the user `name` for the service, as `keyring set SERVICE NAME` has stored it."""
    try:
        keyring: Any = importlib.import_module("keyring")
    except ImportError:
        remedy = "install mcpd-supervisor[keyring]"
        raise _Unusable("daemon.secret_keyring needs the package keyring", remedy) from None
    try:
        found = keyring.get_password(service, name)
    except Exception as error:  # noqa: BLE001 - backends raise what they like
        message = f"the keyring cannot be asked for {name!r}: {type(error).__name__}"
        raise _Unusable(message, f"try `keyring get {service} {name}` as mcpd's user") from None
    if not isinstance(found, str) or not found:
        raise _Unusable(f"the keyring has no {name!r} of {service!r}", f"run `keyring set {service} {name}`")
    return _text(found.encode(), f"of the keyring, {name!r},")


def _read(name: str, directory: Path) -> str:
    try:
        folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        remedy = f"run `mkdir -m 700 {directory}` and put the secret in {directory / name}, mode 0600"
        raise _Absent(f"the secrets directory {directory} does not exist", remedy) from None
    except OSError as error:
        message = f"the secrets directory {directory} cannot be opened: {error.strerror}"
        raise _Unusable(message, "let only mcpd's user read it") from None
    try:
        _check_private(os.fstat(folder), f"the secrets directory {directory}", f"chmod 700 {directory}")
        return _text(_content(name, folder, directory / name), str(directory / name))
    finally:
        os.close(folder)


def _content(name: str, folder: int, path: Path) -> bytes:
    # Relative to the checked directory, and no symbolic link: what was checked is what is read.
    # O_NONBLOCK: a fifo must not hold the daemon.
    try:
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        raise _Absent(f"there is no secret {name!r}", f"put it in {path}, mode 0600") from None
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


def _text(content: bytes, what: str) -> str:
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise _Unusable(f"the secret {what} is not UTF-8", "a variable holds text; encode it") from None
    if "\0" in text:
        raise _Unusable(f"the secret {what} holds a NUL character", "a variable holds text; encode it")
    return text.removesuffix("\n").removesuffix("\r") if text.endswith("\n") else text
