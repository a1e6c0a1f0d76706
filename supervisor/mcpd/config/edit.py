"""Change one entry of a registry's files, and leave every other line of them as it is.

An `Edit` is worked out, looked at (`objections`), and only then written (`rewrite`). Comments and layout stay: text is
put in and taken out line by line, and where an entry has an unusual form tomlkit does it; either way the result is read
again, and must say what was there before with that one change, or nothing is done.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import tomli
from pydantic_core import PydanticCustomError

from mcpd.config.documents import FRAGMENTS, NOTHING, Document, read_all
from mcpd.config.load import load
from mcpd.config.report import Report
from mcpd.config.rewrite import Edit
from mcpd.config.toml_text import Table, by_tomlkit, plain, put_in, rendered, with_line, with_value, without_sections
from mcpd.config.values import NAME_RULE, check_name
from mcpd.errors import ConfigError, NotFound, Problem

FIRST_LINE: Final = "# The registry of mcpd: which servers it runs. `mcpd check` tells whether it is right.\n"
BY_HAND: Final = "edit the file by hand"


def add(path: Path, entries: Mapping[str, Table], *, file: Path | None = None, comment: str = "") -> Edit:
    """New servers in the registry at `path`: in that file, or in `file` of its servers.d; either is made if missing.

    Raises ConfigError if a file cannot be read, or a name is taken.
    """
    path = _absolute(path)
    documents = _documents(path) if path.exists() else []
    file = path if file is None else _fragment(path, file)
    for name in entries:
        _check_name(name)
        holder = _holder(documents, name)
        if holder is not None:
            line = holder.lines.get(("servers", name))
            raise ConfigError(
                Problem(
                    holder.file,
                    line,
                    f"servers.{name}",
                    "there is such a server already",
                    f"choose another name, or `mcpctl remove {name}` first",
                )
            )
    before = _read(file) if file.exists() else None
    text = before if before is not None else FIRST_LINE if file == path else ""
    piece = "\n".join(rendered(name, table) for name, table in entries.items())
    if comment:
        piece = "".join(f"# {line}\n" for line in comment.splitlines()) + piece
    after = put_in(text, piece)
    _verify(file, text, after, lambda servers: servers.update(plain(dict(entries))))
    return Edit(file, before, after)


def remove(path: Path, name: str, upon: Edit | None = None) -> Edit:
    """The server taken out of the file in which it stands, with the comment that stands right above it. `upon`: after
    another edit, of the same file; the result is both in one.

    Raises NotFound, and ConfigError if a file cannot be read or the entry's form is not understood.
    """
    holder = _found(path, name, _documents(path, {upon.file: upon.after} if upon else NOTHING))
    if upon is not None and holder.file != upon.file:
        raise NotFound(f"the server {name!r} does not stand in {upon.file}")
    text = upon.after if upon is not None else _read(holder.file)

    def change(servers: dict[str, Any]) -> None:
        del servers[name]

    after = _first_right(
        holder.file, text, change, lambda: without_sections(text, name), lambda: by_tomlkit(text, change)
    )
    return Edit(holder.file, upon.before if upon is not None else text, after)


def enable(path: Path, name: str, enabled: bool) -> Edit:
    """`enabled` of the server set; an empty edit if that is what it says, or inherits, already. Raises as `remove`."""
    documents = _documents(path)
    holder = _found(path, name, documents)
    text = _read(holder.file)
    inherited: Table = next((one.data.get("defaults", {}) for one in documents if one.file == _absolute(path)), {})
    if {"enabled": True, **inherited, **holder.data["servers"][name]}["enabled"] is enabled:
        return Edit(holder.file, text, text)

    def change(servers: dict[str, Any]) -> None:
        servers[name]["enabled"] = enabled

    after = _first_right(
        holder.file,
        text,
        change,
        lambda: with_value(text, name, "enabled", enabled),
        lambda: with_line(text, name, f"enabled = {str(enabled).lower()}"),
        lambda: by_tomlkit(text, change),
    )
    return Edit(holder.file, text, after)


def repackage(path: Path, name: str, package: str) -> Edit:
    """`package` of the server set. Raises as `remove`, and ConfigError if the server's own table has none."""
    holder = _found(path, name, _documents(path))
    text = _read(holder.file)
    if "package" not in holder.data["servers"][name]:
        message = "is not written in the server's own table"
        raise ConfigError(Problem(holder.file, None, f"servers.{name}.package", message, BY_HAND))

    def change(servers: dict[str, Any]) -> None:
        servers[name]["package"] = package

    after = _first_right(
        holder.file, text, change, lambda: with_value(text, name, "package", package), lambda: by_tomlkit(text, change)
    )
    return Edit(holder.file, text, after)


def _check_name(name: str) -> None:
    try:
        check_name(name)
    except PydanticCustomError as error:
        raise ConfigError(Problem(None, None, f"servers.{name}", error.message(), NAME_RULE)) from None


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))


def _documents(path: Path, instead: Mapping[Path, str] = NOTHING) -> list[Document]:
    report = Report()
    documents = read_all(_absolute(path), report, instead)
    if report.problems:
        raise ConfigError(*report.problems)
    return documents


def _fragment(path: Path, file: Path) -> Path:
    """A name, or a path, as the file of servers.d that is meant."""
    folder = _absolute(path).parent / FRAGMENTS
    meant = folder / file if len(file.parts) == 1 else _absolute(file)
    if meant.parent != folder or meant.suffix != ".toml" or meant.name.startswith("."):
        raise ConfigError(Problem(None, None, str(file), "is no file of servers.d", f"name {folder / 'NAME.toml'}"))
    return meant


def _holder(documents: list[Document], name: str) -> Document | None:
    """The file in which a server stands."""
    for document in documents:
        servers = document.data.get("servers")
        if isinstance(servers, dict) and isinstance(servers.get(name), dict):
            return document
    return None


def _found(path: Path, name: str, documents: list[Document]) -> Document:
    holder = _holder(documents, name)
    if holder is None:
        raise NotFound(f"there is no server {name!r} in {path}")
    return holder


def _read(file: Path) -> str:
    return file.read_bytes().decode()  # with its line breaks as they are


def _first_right(
    file: Path, text: str, change: Callable[[dict[str, Any]], None], *ways: Callable[[], str | None]
) -> str:
    """The first result that says what it shall."""
    error: ConfigError | None = None
    for way in ways:
        try:
            after = way()
            if after is not None:
                _verify(file, text, after, change)
                return after
        except ConfigError as found:
            error = found
    raise error or ConfigError(_not_understood(file))


def _verify(file: Path, before: str, after: str, change: Callable[[dict[str, Any]], None]) -> None:
    """Raises ConfigError unless `after` says what `before` says, with `change` made to its servers."""
    wanted = tomli.loads(before.removeprefix("\ufeff"))
    try:
        change(wanted.setdefault("servers", {}))
        said = tomli.loads(after.removeprefix("\ufeff"))
    except (tomli.TOMLDecodeError, AttributeError, TypeError):
        raise ConfigError(_not_understood(file)) from None
    said.setdefault("servers", {})
    if said != wanted:
        raise ConfigError(_not_understood(file))


def _not_understood(file: Path) -> Problem:
    return Problem(file, None, "", "its form is not understood well enough to change it", BY_HAND)


def objections(path: Path, edit: Edit, environ: Mapping[str, str]) -> tuple[Problem, ...]:
    """What would be wrong with the registry after the edit that is not wrong with it now.

    The problems have no places: their lines would be those of a file that is not there.
    """
    known = {(problem.key, problem.message) for problem in problems(path, environ)}
    with _present(edit.file.parent):
        found = problems(path, environ, {edit.file: edit.after})
    new = (problem for problem in found if (problem.key, problem.message) not in known)
    return tuple(Problem(None, None, one.key or str(edit.file), one.message, one.remedy) for one in new)


@contextlib.contextmanager
def _present(directory: Path) -> Iterator[None]:
    """For the length of a block: servers start in the directory of their file."""
    made: list[Path] = []
    for one in (*reversed(directory.parents), directory):
        if not one.exists():
            one.mkdir(mode=0o700)
            made.append(one)
    try:
        yield
    finally:
        for one in reversed(made):
            one.rmdir()


def problems(path: Path, environ: Mapping[str, str], instead: Mapping[Path, str] | None = None) -> tuple[Problem, ...]:
    """All that is wrong with the registry, or would be with other texts; a file that is not there is not wrong."""
    if not path.exists() and not instead:
        return ()
    try:
        load(path, environ, instead=instead or {})
    except ConfigError as error:
        return error.problems
    return ()
