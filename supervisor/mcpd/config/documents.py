"""The files of a registry: which they are, and what stands in them where."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import tomli

from mcpd.config.positions import KeyPath, nearest, positions
from mcpd.config.report import Place, Report, dotted

FRAGMENTS: Final = "servers.d"
LARGEST_FILE: Final = 4 * 2**20
NOTHING: Final[Mapping[Path, str]] = {}


class Document(msgspec.Struct, frozen=True):
    """One TOML file that parses."""

    file: Path
    data: dict[str, Any]
    lines: Mapping[KeyPath, int]

    @property
    def directory(self) -> Path:
        """What the relative paths in it are relative to."""
        return self.file.parent

    def place(self, path: KeyPath) -> Place:
        return Place(self.file, nearest(self.lines, path), dotted(path))


def read_all(path: Path, report: Report, instead: Mapping[Path, str] = NOTHING) -> list[Document]:
    """The registry at `path`, and `servers.d/*.toml` beside it in name order; what cannot be read is reported.

    `instead`: the text that a file is taken to have, whether it exists or not.
    """
    documents = []
    folder = path.parent / FRAGMENTS
    new = {file for file in instead if file.parent == folder}
    for file in (path, *sorted({*_fragments(folder, report), *new})):
        document = _read(file, report) if file not in instead else _parse(file, instead[file], report)
        if document is not None:
            documents.append(document)
    return documents


def _fragments(directory: Path, report: Report) -> list[Path]:
    try:
        return sorted(entry for entry in directory.iterdir() if entry.suffix == ".toml" and entry.name[0] != ".")
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        report.problem(Place(directory, None, ""), f"cannot be listed: {error.strerror}", "let mcpd's user read it")
        return []


def _read(file: Path, report: Report) -> Document | None:
    try:
        with file.open("rb") as stream:
            raw = stream.read(LARGEST_FILE + 1)
            others_write = os.fstat(stream.fileno()).st_mode & stat.S_IWOTH
    except OSError as error:
        remedy = "give another with --config" if isinstance(error, FileNotFoundError) else "let mcpd's user read it"
        report.problem(Place(file, None, ""), f"cannot be read: {error.strerror}", remedy)
        return None
    if others_write:
        report.warning(Place(file, None, ""), "everybody can write it, and so run programs as you", f"chmod o-w {file}")
    if len(raw) > LARGEST_FILE:
        report.problem(Place(file, None, ""), "is over 4 MiB", "a registry is a small TOML file: give the right one")
        return None
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        report.problem(Place(file, line, ""), "is not UTF-8", "save it as UTF-8")
        return None
    return _parse(file, text.removeprefix("\ufeff"), report)


def _parse(file: Path, text: str, report: Report) -> Document | None:
    try:
        return Document(file, tomli.loads(text), positions(text))
    except tomli.TOMLDecodeError as error:
        report.problem(Place(file, error.lineno, ""), *_explained(error))
    except RecursionError:
        report.problem(Place(file, None, ""), "not valid TOML: nested too deeply", "a registry nests a few levels")
    return None


def _explained(error: tomli.TOMLDecodeError) -> tuple[str, str]:
    twice = re.fullmatch(r"Cannot declare \((.*?),?\) twice", error.msg)
    if twice is not None:
        table = dotted(tuple(re.findall(r"'([^']*)'", twice[1])))
        return f"the table [{table}] stands twice in this file", "rename one, or make one of the two"
    if error.msg == "Cannot overwrite a value":
        return "a key stands twice in one table", "remove one of the two"
    return f"not valid TOML: {error.msg[:1].lower()}{error.msg[1:]}", f"look at column {error.colno}"
