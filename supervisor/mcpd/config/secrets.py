"""Where the secrets of a registry are kept: in files of a private directory; else a command or the keyring knows them.

What is here looks at files; commands are run by whoever starts servers (`fleet.vault`).
"""

from __future__ import annotations

import importlib.util
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from mcpd.config import programs
from mcpd.config.registry import SecretFile, SecretRef, ServerSpec
from mcpd.config.settings import DaemonSettings

LARGEST_SECRET: Final = 64 * 1024
NAME_PLACE: Final = "{name}"
"""In the place of this `daemon.secret_command` is told the secret's name."""


class Unusable(Exception):
    """A secret that cannot be had; the message names it, and never its value."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


class Absent(Unusable):
    """It is not in the directory; it may be elsewhere."""


def wanted(spec: ServerSpec) -> dict[str, SecretRef | SecretFile]:
    """The variables of a server that have to do with secrets."""
    return {variable: value for variable, value in spec.env.items() if not isinstance(value, str)}


def objections(spec: ServerSpec, settings: DaemonSettings) -> Iterator[tuple[str, str, str]]:
    """Variable, message and remedy for each secret of `spec` that could not be read now; commands are not run."""
    for variable, value in wanted(spec).items():
        try:
            content = read(value.name, settings.secrets_dir)
            if isinstance(value, SecretRef):
                as_text(content, value.name)
        except Absent as error:
            if not command_for(value.name, settings):
                yield variable, str(error), error.remedy
        except Unusable as error:
            yield variable, str(error), error.remedy


def objections_to_sources(settings: DaemonSettings, path: str) -> Iterator[tuple[str, str, str, bool]]:
    """Setting, message, remedy, and whether it is only that something is not installed. `path`: the daemon's PATH."""
    if settings.secret_command:
        program = settings.secret_command[0]
        if "/" in program and not program.startswith("/"):
            yield "secret_command", f"{program!r} is a relative path", "write an absolute one", False
        elif programs.resolve(program, path) is None:
            message = f"there is no program {program!r}" + ("" if "/" in program else " on mcpd's PATH")
            yield "secret_command", message, "install it, or write its absolute path; it is run without a shell", True
        if settings.secret_keyring:
            yield "secret_keyring", "secret_command is set too, and would always be asked", "keep one of them", False
    elif settings.secret_keyring.startswith("-"):
        yield "secret_keyring", "a service cannot begin with '-'", "choose another name", False
    elif settings.secret_keyring and importlib.util.find_spec("keyring") is None:
        message, remedy = "needs the package keyring", "install mcpd-supervisor[keyring]"
        yield "secret_keyring", message, remedy, True


def command_for(name: str, settings: DaemonSettings) -> tuple[str, ...]:
    """What prints the secret if it is not in the directory; nothing: nobody else is asked.

    The keyring is asked by a command, too: a process can be ended where its service waits for somebody to unlock it.
    """
    if settings.secret_command:
        named = tuple(word.replace(NAME_PLACE, name) for word in settings.secret_command)
        return named if named != settings.secret_command else (*named, name)
    if settings.secret_keyring:
        return (sys.executable, "-P", "-m", "keyring", "get", settings.secret_keyring, name)
    return ()


def read(name: str, directory: Path) -> bytes:
    """A secret from the directory. Raises Absent if it is not there, Unusable if others could read or change it."""
    try:
        folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        remedy = f"run `mkdir -m 700 {directory}` and put the secret in {directory / name}, mode 0600"
        raise Absent(f"the secrets directory {directory} does not exist", remedy) from None
    except OSError as error:
        message = f"the secrets directory {directory} cannot be opened: {error.strerror}"
        raise Unusable(message, "let only mcpd's user read it") from None
    try:
        _check_private(os.fstat(folder), f"the secrets directory {directory}", f"chmod 700 {directory}")
        return _content(name, folder, directory / name)
    finally:
        os.close(folder)


def _content(name: str, folder: int, path: Path) -> bytes:
    # Relative to the checked directory, and no symbolic link: what was checked is what is read.
    # O_NONBLOCK: a fifo must not hold the daemon.
    try:
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        raise Absent(f"there is no secret {name!r}", f"put it in {path}, mode 0600") from None
    except OSError as error:
        message = f"the secret {path} cannot be opened: {error.strerror}"
        raise Unusable(message, "make it a plain file that mcpd's user can read") from None
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise Unusable(f"the secret {path} is not a plain file", "replace it with one")
        _check_private(status, f"the secret {path}", f"chmod 600 {path}")
        content = os.read(file, LARGEST_SECRET + 1)
    finally:
        os.close(file)
    if len(content) > LARGEST_SECRET:
        raise Unusable(f"the secret {path} is over 64 KiB", "a variable is not the place for it")
    if not content.strip():
        raise Unusable(f"the secret {path} is empty", "write it into the file")
    return content


def _check_private(status: os.stat_result, what: str, command: str) -> None:
    """Refuse what another user owns, reads or changes.

    systemd hands credentials to a service's user by an access control list on files that root owns, and the mask of
    such a list shows as the mode's group bits (acl(5)); so root's own group may read what root owns.
    """
    if status.st_uid not in (os.geteuid(), 0):
        raise Unusable(f"{what} belongs to user {status.st_uid}", f"run `chown {os.geteuid()}` on it")
    forbidden = 0o027 if status.st_uid == 0 and status.st_gid == 0 else 0o077
    if status.st_mode & forbidden:
        raise Unusable(f"{what} has mode {stat.S_IMODE(status.st_mode):04o}: others have access", f"run `{command}`")


def as_text(content: bytes, name: str) -> str:
    """A secret as the value of a variable: without one line break at its end, which editors and commands put there.

    Raises Unusable for what no variable can hold (execve(2) takes strings without NUL).
    """
    remedy = f"a variable holds text; encode it, or use {{ secret_file = {name!r} }}"
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise Unusable(f"the secret {name!r} is not UTF-8", remedy) from None
    if "\0" in text:
        raise Unusable(f"the secret {name!r} holds a NUL character", remedy)
    return text.removesuffix("\n").removesuffix("\r") if text.endswith("\n") else text
