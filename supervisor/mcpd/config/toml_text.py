"""Entries of servers as TOML text: written, put in, taken out, or changed in one place, every other line as it was.

What cannot be done to a text gives None; that a result says what it shall is for the caller to check.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import tomlkit
from tomlkit.exceptions import TOMLKitError

from mcpd.config.positions import Section, positions, sections

WIDTH: Final = 110

Table = Mapping[str, Any]


def rendered(name: str, table: Table) -> str:
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


def plain(value: Any) -> Any:
    """As tomli gives it back."""
    if isinstance(value, Mapping):
        return {key: plain(one) for key, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, list | tuple) else value


def put_in(text: str, piece: str) -> str:
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


def without_sections(text: str, name: str) -> str | None:
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


def with_value(text: str, name: str, key: str, value: str | bool) -> str | None:
    """`text` with the value of a server's key replaced where it stands."""
    line = positions(_bare(text)).get(("servers", name, key))
    if line is None:
        return None
    lines = text.splitlines(keepends=True)
    old = rf"(\b{key}[\"']?\s*=\s*)(?:\"[^\"]*\"|'[^']*'|true\b|false\b)"
    lines[line - 1] = re.sub(old, lambda at: at[1] + _value(value), lines[line - 1], count=1)
    return "".join(lines)


def with_line(text: str, name: str, line: str) -> str | None:
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


def by_tomlkit(text: str, change: Callable[[dict[str, Any]], None]) -> str | None:
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
