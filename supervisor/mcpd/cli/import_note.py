"""What an import left behind, so that it can be undone: a note beside the registry, secrets, a copy of the file."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from mcpd.cli.failures import Failed
from mcpd.config import edit
from mcpd.config.rewrite import Edit
from mcpd.errors import NotFound

BACKUP: Final = ".before-import"
ATTEMPTS: Final = 100


class Secret(msgspec.Struct, frozen=True):
    """A file that the import made, and what it wrote there."""

    path: str
    sha256: str

    def __str__(self) -> str:
        return self.path


class Note(msgspec.Struct, frozen=True):
    """`file` was changed from `backup` (None: it was made) to what has `sha256`."""

    source: str
    file: str
    backup: str | None
    sha256: str
    names: tuple[str, ...]
    secrets: tuple[Secret, ...]


def note_of(source: Path, change: Edit, backup: Path | None, secrets: Sequence[Secret], names: Sequence[str]) -> Note:
    """What is to be remembered of an import that was just done."""
    return Note(
        source=str(source),
        file=str(change.file),
        backup=str(backup) if backup is not None else None,
        sha256=_sha256(change.after.encode()),
        names=tuple(names),
        secrets=tuple(secrets),
    )


def write_secrets(directory: Path, secrets: Mapping[str, str]) -> tuple[Secret, ...]:
    """Make the files, 0600 in a directory of 0700; all or none. Raises Failed if one is there with another content."""
    if not secrets:
        return ()
    made: list[Secret] = []
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, value in secrets.items():
            content = f"{value}\n".encode()
            if _make(directory / name, content):
                made.append(Secret(str(directory / name), _sha256(content)))
    except BaseException:
        remove_secrets(made)
        raise
    return tuple(made)


def _make(path: Path, content: bytes) -> bool:
    """False: it is there already, and says the same."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        if path.is_file() and path.read_bytes() == content:
            return False
        raise Failed(
            f"{path}: there is such a secret already, with another value", "move it away, or use --inline"
        ) from None
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        os.unlink(path)
        raise
    return True


def remove_secrets(secrets: Sequence[Secret]) -> None:
    """Those that still are as they were made."""
    for secret in secrets:
        path = Path(secret.path)
        with contextlib.suppress(FileNotFoundError):
            if path.is_file() and not path.is_symlink() and _sha256(path.read_bytes()) == secret.sha256:
                path.unlink()


def remember(registry: Path, note: Note) -> None:
    """Only the last import is remembered."""
    place = _place(registry)
    descriptor, temporary = tempfile.mkstemp(prefix=f"{place.name}.", dir=place.parent)
    with open(descriptor, "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(note), indent=2))
    os.replace(temporary, place)


def noted(registry: Path) -> Note | None:
    """The last import, if it is not undone."""
    place = _place(registry)
    try:
        return msgspec.json.decode(place.read_bytes(), type=Note)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        raise Failed(
            f"{place}: cannot be read: {error}", "remove it; `mcpctl remove NAME` takes out one server"
        ) from None


def forget(registry: Path) -> None:
    _place(registry).unlink(missing_ok=True)


def undoing(registry: Path, done: Note) -> Edit:
    """The file as it was; if it was changed since, as it is now without the servers that were imported.

    Raises NotFound if none of them is there any more, Failed if the copy is gone, ConfigError as `edit.remove`.
    """
    file = Path(done.file)
    text = file.read_bytes().decode() if file.exists() else ""
    if _sha256(text.encode()) == done.sha256:
        return Edit(file, text, _before(done))
    change: Edit | None = None
    for name in done.names:
        with contextlib.suppress(NotFound):
            change = edit.remove(registry, name, change)
    if change is None:
        raise NotFound("none of the imported servers is there any more")
    return change


def _before(done: Note) -> str:
    if done.backup is None:
        return ""
    try:
        return Path(done.backup).read_bytes().decode()
    except FileNotFoundError:
        raise Failed(f"{done.backup}: the copy is gone", "`mcpctl remove NAME` takes out one server") from None


def _place(registry: Path) -> Path:
    return registry.with_name(f".{registry.name}.import")


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
