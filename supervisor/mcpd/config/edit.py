"""Change one entry of a registry's files, and leave every other line of them as it is.

An `Edit` is worked out, looked at (`objections`), and only then written (`rewrite`). Comments and layout stay: text is
put in and taken out line by line, and where an entry has an unusual form tomlkit does it; either way the result is read
again, and must say what was there before with that one change, or nothing is done.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import tomli
import tomlkit
from pydantic_core import PydanticCustomError
from tomlkit.exceptions import TOMLKitError

from mcpd.config.documents import FRAGMENTS, NOTHING, Document, read_all
from mcpd.config.load import load
from mcpd.config.positions import Section, positions, sections
from mcpd.config.report import Report
from mcpd.config.rewrite import Edit
from mcpd.config.values import NAME_RULE, check_name
from mcpd.errors import ConfigError, NotFound, Problem

WIDTH: Final = 110
FIRST_LINE: Final = "# The registry of mcpd: which servers it runs. `mcpd check` tells whether it is right.\n"
BY_HAND: Final = "edit the file by hand"

Table = Mapping[str, Any]


# -- Working it out --------------------------------------------------------------------------------------------------


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
    piece = "\n".join(_rendered(name, table) for name, table in entries.items())
    if comment:
        piece = "".join(f"# {line}\n" for line in comment.splitlines()) + piece
    after = _put_in(text, piece)
    _verify(file, text, after, lambda servers: servers.update(_plain(dict(entries))))
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
        holder.file, text, change, lambda: _without_sections(text, name), lambda: _by_tomlkit(text, change)
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
        lambda: _with_value(text, name, enabled),
        lambda: _with_line(text, name, f"enabled = {str(enabled).lower()}"),
        lambda: _by_tomlkit(text, change),
    )
    return Edit(holder.file, text, after)


def _check_name(name: str) -> None:
    try:
        check_name(name)
    except PydanticCustomError as error:
        raise ConfigError(Problem(None, None, f"servers.{name}", error.message(), NAME_RULE)) from None


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
        holder.file, text, change, lambda: _with_package(text, name, package), lambda: _by_tomlkit(text, change)
    )
    return Edit(holder.file, text, after)


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


# -- Text ------------------------------------------------------------------------------------------------------------


def _rendered(name: str, table: Table) -> str:
    """An entry as people would write it: short tables in a line, long ones under a header of their own."""
    lines, below = [f"[servers.{name}]"], []
    for key, value in table.items():
        line = f"{_key(key)} = {_value(value)}"
        if isinstance(value, Mapping) and len(line) > WIDTH:
            below.append(f"\n[servers.{name}.{_key(key)}]")
            below += [f"{_key(inner)} = {_value(one)}" for inner, one in value.items()]
        else:
            lines.append(line)
    return "\n".join([*lines, *below]) + "\n"


def _key(key: str) -> str:
    return str(tomlkit.key(key).as_string())


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        members = ", ".join(f"{_key(key)} = {_value(one)}" for key, one in value.items())
        return f"{{ {members} }}" if members else "{}"
    if isinstance(value, list | tuple):
        line = f"[{', '.join(map(_value, value))}]"
        return line if len(line) <= WIDTH else "[\n" + "".join(f"    {_value(one)},\n" for one in value) + "]"
    return str(tomlkit.item(value).as_string())


def _plain(value: Any) -> Any:
    """As tomli gives it back."""
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


def _put_in(text: str, piece: str) -> str:
    """`piece` behind the last server, else at the end; with an empty line around it."""
    at = len(text)
    own = [section for section in _sections(text) if section.path[:1] == ("servers",)]
    if own:
        at = _end_of(text, own[-1])
    head, tail = text[:at], text[at:]
    newline = "\r\n" if "\r\n" in text else "\n"
    if head and not head.endswith("\n"):
        head += newline
    gap = newline if head.removeprefix("\ufeff") and not head.endswith(("\n\n", "\n\r\n")) else ""
    after = newline if tail and not tail.startswith(("\n", "\r\n")) else ""
    return head + gap + piece.replace("\n", newline) + after + tail


def _without_sections(text: str, name: str) -> str | None:
    """`text` without the sections of a server."""
    own = [section for section in _sections(text) if section.path[:2] == ("servers", name)]
    for start, end in reversed([(_start_of(text, section), _end_of(text, section)) for section in own]):
        head, tail = text[:start], text[end:]
        if not head.strip() or head.endswith(("\n\n", "\n\r\n")):
            tail = tail.lstrip("\r\n")  # of the empty lines around it those above stay
        text = head + tail if tail else _ended(head)
    return text if own else None


def _ended(text: str) -> str:
    """`text` without empty lines at its end."""
    body = text.rstrip("\r\n")
    return body + ("\r\n" if "\r\n" in text else "\n") if body else ""


def _with_value(text: str, name: str, value: bool) -> str | None:
    """`text` with the value of `enabled` replaced where it stands."""
    line = positions(_bare(text)).get(("servers", name, "enabled"))
    if line is None:
        return None
    lines = text.splitlines(keepends=True)
    lines[line - 1] = re.sub(
        r"(\benabled[\"']?\s*=\s*)(?:true|false)\b", rf"\g<1>{str(value).lower()}", lines[line - 1], count=1
    )
    return "".join(lines)


def _with_package(text: str, name: str, package: str) -> str | None:
    """`text` with the value of `package` replaced where it stands."""
    line = positions(_bare(text)).get(("servers", name, "package"))
    if line is None:
        return None
    lines = text.splitlines(keepends=True)
    lines[line - 1] = re.sub(
        r"(\bpackage[\"']?\s*=\s*)(?:\"[^\"]*\"|'[^']*')", lambda at: at[1] + _value(package), lines[line - 1], count=1
    )
    return "".join(lines)


def _with_line(text: str, name: str, line: str) -> str | None:
    """`text` with a line right under the header of a server."""
    for section in _sections(text):
        if section.path == ("servers", name):
            at = _line_end(text, section.start)
            start = text.rfind("\n", 0, section.start) + 1
            margin = text[start : section.start] if text[start : section.start].isspace() else ""
            newline = "\r\n" if "\r\n" in text else "\n"
            head = text[:at] if text[:at].endswith("\n") else text[:at] + newline
            return f"{head}{margin}{line}{newline}{text[at:]}"
    return None


def _by_tomlkit(text: str, change: Callable[[dict[str, Any]], None]) -> str | None:
    """For entries that have no header of their own: dotted keys, inline tables."""
    try:
        document = tomlkit.parse(_bare(text))
        servers: Any = document["servers"]
        change(servers)
        return text[: len(text) - len(_bare(text))] + tomlkit.dumps(document)
    except (TOMLKitError, LookupError, TypeError, ValueError):
        return None


def _bare(text: str) -> str:
    return text.removeprefix("\ufeff")


def _sections(text: str) -> list[Section]:
    """As they stand in `text`, whether it begins with a mark of its encoding or not."""
    shift = len(text) - len(_bare(text))
    return [Section(one.path, one.start + shift, one.end + shift) for one in sections(_bare(text))[1:]]


def _line_end(text: str, at: int) -> int:
    """The offset behind the line in which `at` is."""
    found = text.find("\n", at)
    return len(text) if found < 0 else found + 1


def _start_of(text: str, section: Section) -> int:
    """Where a section begins: at the comment right above its header, unless that begins the whole file."""
    header = start = text.rfind("\n", 0, section.start) + 1
    while start:
        above = text.rfind("\n", 0, start - 1) + 1
        if not text[above:start].lstrip().startswith("#"):
            return start
        start = above
    return header


def _end_of(text: str, section: Section) -> int:
    """Behind its last value and the comments right below; comments that touch the next header are that one's."""
    end = _line_end(text, section.end)
    at = end
    while at < len(text) and text[at:].lstrip(" \t").startswith("#"):
        at = _line_end(text, at)
    return end if text[at:].lstrip(" \t").startswith("[") else at


# -- Looking at it ---------------------------------------------------------------------------------------------------


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
