"""Replace a file of the registry in full or not at all."""

from __future__ import annotations

import contextlib
import difflib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mcpd.errors import ConfigError, Problem

BACKUP: Final = ".bak"


@dataclass(frozen=True)
class Edit:
    """A change of one file that is not made yet. `before` is None where there is no file."""

    file: Path
    before: str | None
    after: str

    def __bool__(self) -> bool:
        return self.before != self.after

    def diff(self) -> str:
        """As `diff -u` shows it."""
        before, after = ((text or "").splitlines(keepends=True) for text in (self.before, self.after))
        names = (str(self.file) if self.before is not None else os.devnull, str(self.file))
        lines = difflib.unified_diff(before, after, *names)
        return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)


def write(edit: Edit, suffix: str | None = BACKUP, *, like: Path | None = None) -> Path | None:
    """Replace the file in full or not at all; returns the path of its copy as it was, if it was there (and `suffix` is
    not None).

    The new file has mode and owner of the old. One that is made has those of `like`, the registry as a rule, since
    whoever reads the one has to read the other; without that it is the user's alone. A symbolic link stays, and what it
    leads to is replaced. Raises ConfigError if the file was changed meanwhile, OSError if it cannot be written.
    """
    real = Path(os.path.realpath(edit.file))
    model = like if edit.before is None and like is not None and like.exists() else None
    if edit.before is None and not real.parent.is_dir():
        real.parent.mkdir(parents=True, mode=0o700)
        if model is not None:
            _dress(real.parent, model.parent.stat())
    with _beside(real, edit.after) as temporary:
        now = _text_of(real) if real.exists() else None
        if now != edit.before:
            message = "was changed by somebody else at the same time; nothing was written"
            raise ConfigError(Problem(edit.file, None, "", message, "try again"))
        backup = None
        if edit.before is not None:
            status = real.stat()
            _dress(temporary, status)
        if model is not None:
            _dress(temporary, model.stat())
        if edit.before is not None and suffix is not None:
            backup = real.with_name(real.name + suffix)
            with _beside(backup, edit.before) as copy:
                _dress(copy, status)
                os.replace(copy, backup)
        os.replace(temporary, real)
    _sync(real.parent)
    return backup


def take_back(edit: Edit) -> None:
    """Undo what `write` did, unless the file was changed again since. Raises as `write` does."""
    if edit.before is not None:
        write(Edit(edit.file, edit.after, edit.before), None)
    elif _text_of(edit.file) == edit.after:
        edit.file.unlink()


@contextlib.contextmanager
def _beside(path: Path, text: str) -> Iterator[Path]:
    """A file with this text in the same directory, on the disk; what the block does not move away is removed."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # 0600
    try:
        with open(descriptor, "wb") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        yield Path(name)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)


def _dress(file: Path, status: os.stat_result) -> None:
    os.chmod(file, stat.S_IMODE(status.st_mode))
    if (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()):
        with contextlib.suppress(PermissionError):  # only root may give files away; then it is the editor's own
            shutil.chown(file, status.st_uid, status.st_gid)


def _sync(directory: Path) -> None:
    """Make a rename last through a power failure (fsync(2))."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _text_of(file: Path) -> str:
    return file.read_bytes().decode()  # with its line breaks as they are
