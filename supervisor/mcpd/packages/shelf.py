"""Where installed packages stand, and what is written down about each.

`ROOT/npm/@scope/name/1.2.3/` is an installation, `1.2.3.json` beside it its record. The record is written last: without
one there is no installation, whatever else there is. All else has names that begin with a dot.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, Literal

import msgspec

from mcpd.config.registry import Package
from mcpd.errors import SpawnError

PARTIAL: Final = ".partial"
WITH_SCRIPTS: Final = "~scripts"
"""No version has this character: an installation whose programs were run while it was made is another one."""
VENV: Final = "venv"
_CHUNK: Final = 1024 * 1024


class Program(msgspec.Struct, frozen=True):
    """One that a package brings: its path in the installation, and what runs it."""

    path: str
    runner: Literal["node", "python", ""]


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What was installed. `sha256` is that of all files, their paths and their links (`fingerprint`), `stamp` of what
    the file system says of them (`stamp`); empty: it was never taken."""

    package: str
    scripts: bool = False
    sha256: str
    files: int
    size: int
    programs: Mapping[str, Program]
    installer: str
    installed_at: float
    stamp: str = ""


class Place(msgspec.Struct, frozen=True):
    """Where one version of one package belongs."""

    root: Path
    package: Package
    scripts: bool = False

    @property
    def shelf(self) -> Path:
        """The directory with all versions."""
        return self.root / self.package.registry / directory_name(self.package)

    @property
    def directory(self) -> Path:
        return self.shelf / self._version

    @property
    def record_file(self) -> Path:
        return self.shelf / f"{self._version}.json"

    @property
    def lock_file(self) -> Path:
        return self.shelf / f".{self._version}.lock"

    @property
    def _version(self) -> str:
        return self.package.version + (WITH_SCRIPTS if self.scripts else "")

    def __str__(self) -> str:
        return str(self.package)

    def record(self) -> Record | None:
        """What is installed; None: nothing is, or not all of it."""
        try:
            found = msgspec.json.decode(self.record_file.read_bytes(), type=Record)
        except (OSError, msgspec.MsgspecError):
            return None
        return found if self.directory.is_dir() else None

    def begin(self) -> Path:
        """A directory for an installation that is being made; what earlier ones left half done is removed.

        Call it with the lock held.
        """
        self.clear()
        return Path(tempfile.mkdtemp(prefix=f".{self._version}.", suffix=PARTIAL, dir=self.shelf))

    def clear(self) -> None:
        """Remove what has no record: half of an installation, by a daemon that was killed. With the lock held."""
        for left in self.shelf.glob(f".{glob_escaped(self._version)}.*{PARTIAL}"):
            remove_tree(left)
        if self.record() is None:
            self.record_file.unlink(missing_ok=True)
            remove_tree(self.directory)

    def finish(self, made: Path, record: Record) -> None:
        """Put the installation in its place: in full, or not at all."""
        os.rename(made, self.directory)
        self.write(record)

    def write(self, record: Record) -> None:
        """Put a record in its place, in full or not at all."""
        text = msgspec.json.format(msgspec.json.encode(record), indent=2)
        descriptor, name = tempfile.mkstemp(prefix=f".{self._version}.", suffix=".json", dir=self.shelf)
        with open(descriptor, "wb") as file:
            file.write(text + b"\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, self.record_file)

    def remove(self) -> None:
        """Take the installation away: the record first, so that there is never half of one. With the lock held."""
        self.record_file.unlink(missing_ok=True)
        remove_tree(self.directory)


def directory_name(package: Package) -> str:
    """The package's name as PyPI and npm compare it (PEP 503: case, and runs of `-_.`, do not count)."""
    return re.sub(r"[-_.]+", "-", package.name).lower() if package.registry == "pypi" else package.name


def glob_escaped(text: str) -> str:
    return re.sub(r"([*?[])", r"[\1]", text)


def records(root: Path) -> Iterator[tuple[Place, Record]]:
    """All that is installed, in the order of names."""
    for file in sorted([*root.glob("*/*/*.json"), *root.glob("npm/@*/*/*.json")]):
        if file.name.startswith("."):
            continue
        with contextlib.suppress(OSError, msgspec.MsgspecError, ValueError):
            record = msgspec.json.decode(file.read_bytes(), type=Record)
            place = Place(root, Package.parse(record.package), record.scripts)
            if place.record_file == file:
                yield place, record


# -- Whether it is still what was installed ---------------------------------------------------------------------------


def complaint(place: Place, record: Record, *, quick: bool = True) -> str:
    """What is wrong with an installation; empty: it is what was installed.

    With `quick` files are read only if the file system says that something was changed since they were last read: a
    copy that was brought back from elsewhere has other times, and is right all the same. Raises OSError.
    """
    if place.directory.is_symlink():
        return f"{place.directory} is a link now"
    if quick and record.stamp == stamp(place.directory):
        return ""
    sha256, files, _ = fingerprint(place.directory)
    if sha256 == record.sha256:
        return ""
    return (
        f"its files were changed ({files} now, {record.files} then; sha256 {sha256[:16]}…, not {record.sha256[:16]}…)"
    )


def stamp(directory: Path) -> str:
    """SHA-256 over names, modes, sizes, owners and times of everything in a directory. Some 10 µs a file.

    The time of change is among them, which nobody can set (inode(7), ctime).
    """
    whole = hashlib.sha256()
    for folder, names, files in os.walk(directory):
        names.sort()
        for name in sorted([*names, *files]):
            path = os.path.join(folder, name)
            found = os.lstat(path)
            seen = f"{found.st_mode} {found.st_uid} "
            if not stat.S_ISDIR(found.st_mode):
                seen += f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns} {found.st_ino} "
            whole.update(f"{seen}{os.path.relpath(path, directory)}\n".encode("utf-8", "surrogateescape"))
    return whole.hexdigest()


# -- Files -----------------------------------------------------------------------------------------------------------


def seal(directory: Path, final: Path, interpreter: str) -> None:
    """Make all of it readable to everybody, writable to nobody, and this user's.

    `final` is where it will be. Raises SpawnError if something in it leads outside: a server would be shown what is
    there. Of links only those to the `interpreter` of a virtual environment may.
    """
    for folder, names, files in os.walk(directory):
        for name in (*names, *files):
            path = os.path.join(folder, name)
            inside = os.path.relpath(path, directory)
            status = os.lstat(path)
            if status.st_uid != os.geteuid():
                os.chown(path, os.geteuid(), os.getegid(), follow_symlinks=False)
            if stat.S_ISLNK(status.st_mode):
                _check_link(directory, final, inside, interpreter)
            elif stat.S_ISDIR(status.st_mode):
                os.chmod(path, 0o755)  # noqa: S103 - closed on the way back up
            elif stat.S_ISREG(status.st_mode):
                if name.endswith(".pth"):
                    _check_path_file(directory, inside)
                os.chmod(path, 0o555 if status.st_mode & 0o111 else 0o444)
            else:
                raise SpawnError("exec", f"the package has a file that is neither file, directory nor link: {inside}")
    for folder, _, _ in os.walk(directory, topdown=False):
        os.chmod(folder, 0o555)  # noqa: S103
    if os.lstat(directory).st_uid != os.geteuid():
        os.chown(directory, os.geteuid(), os.getegid())
    os.chmod(directory, 0o755)  # noqa: S103 - rename(2) of a directory writes to it


def _check_link(directory: Path, final: Path, inside: str, interpreter: str) -> None:
    target = os.readlink(directory / inside)
    if target.startswith(f"{final}/"):  # made absolute while it seemed to be there already
        target = str(directory) + target[len(str(final)) :]
    real = os.path.realpath(os.path.join(directory, os.path.dirname(inside), target))
    if real == os.path.realpath(interpreter) and inside.startswith(f"{VENV}/bin/python"):
        return
    if not real.startswith(f"{os.path.realpath(directory)}/"):
        raise SpawnError("exec", f"the package has a link that leads out of it: {inside} -> {target}")


def _check_path_file(directory: Path, inside: str) -> None:
    """Lines of "*.pth" files name directories that are searched for modules (docs.python.org, site)."""
    folder = os.path.dirname(os.path.join(os.path.realpath(directory), inside))
    for line in (directory / inside).read_text("utf-8", "replace").splitlines():
        if line.strip() and not line.startswith(("#", "import ", "import\t")):
            real = os.path.realpath(os.path.join(folder, line.strip()))
            if not real.startswith(f"{os.path.realpath(directory)}/"):
                raise SpawnError("exec", f"the package adds a directory outside of it to the path: {inside}: {line}")


def fingerprint(directory: Path) -> tuple[str, int, int]:
    """SHA-256 over everything in a directory, the number of its files, and their bytes."""
    whole, count, size = hashlib.sha256(), 0, 0
    for folder, names, files in os.walk(directory):
        names.sort()
        for name in sorted([*files, *(one for one in names if os.path.islink(os.path.join(folder, one)))]):
            path = os.path.join(folder, name)
            inside = os.path.relpath(path, directory)
            if os.path.islink(path):
                kind, content = "link", os.fsencode(os.readlink(path)).hex()
            else:
                status = os.stat(path)
                kind, content = ("program" if status.st_mode & 0o111 else "file"), _sum(path)
                size += status.st_size
            count += 1
            whole.update(f"{kind} {content} {inside}\n".encode("utf-8", "surrogateescape"))
    return whole.hexdigest(), count, size


def _sum(path: str) -> str:
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            found.update(chunk)
    return found.hexdigest()


def remove_tree(directory: Path) -> None:
    """Remove a directory and all in it, though it is read-only; nothing if it is not there."""
    for folder, names, _ in os.walk(directory):
        with contextlib.suppress(PermissionError):  # of another user: then we are root, and need no permission
            os.chmod(folder, 0o700)
        names[:] = [name for name in names if not os.path.islink(os.path.join(folder, name))]
    if directory.is_symlink():
        directory.unlink()
    elif directory.exists():
        shutil.rmtree(directory)
