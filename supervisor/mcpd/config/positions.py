"""The line of every key of a TOML document.

`tomli` tells lines only of documents that it refuses, and a registry that parses may still be wrong. So a valid
document is walked a second time, for keys alone (grammar: toml.io, v1.0.0; line breaks in inline tables as in v1.1).
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import tomli

KeyPath = tuple[str | int, ...]

_BLANK: Final = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
_SPACE: Final = re.compile(r"[ \t]*")
_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
_SCALAR: Final = re.compile(r"[^,\]}#\n]*")
_STRING: Final = re.compile(
    r'"""(?:[^"\\]|\\.|"{1,2}(?!"))*"{3,5}'
    r"|'''(?:[^']|'{1,2}(?!'))*'{3,5}"
    r'|"(?:[^"\\]|\\.)*"'
    r"|'[^']*'",
    re.DOTALL,
)


def positions(text: str) -> Mapping[KeyPath, int]:
    """Line (from 1) at which each key, table, and element of an array first stands. `text` must be valid TOML."""
    return _Walk(text).document()


@dataclass(slots=True)
class Section:
    """What stands under one `[header]`: offsets of the header's bracket, and behind the last value (or the header)."""

    path: KeyPath
    start: int
    end: int


def sections(text: str) -> list[Section]:
    """The sections of a valid TOML document in their order; the first, without a header, has the path ()."""
    walk = _Walk(text)
    walk.document()
    return walk.sections


def nearest(places: Mapping[KeyPath, int], path: KeyPath) -> int | None:
    """The line of `path`, else of the closest table around it that the document has."""
    for length in range(len(path), 0, -1):
        line = places.get(path[:length])
        if line is not None:
            return line
    return None


class _Walk:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.places: dict[KeyPath, int] = {}
        self._breaks = [index for index, char in enumerate(text) if char == "\n"]
        self.sections = [Section((), 0, 0)]
        self._elements: dict[KeyPath, int] = {}  # arrays of tables: index of the latest [[header]]

    def document(self) -> Mapping[KeyPath, int]:
        table: KeyPath = ()
        self._skip(_BLANK)
        while self.at < len(self.text):
            if self.text[self.at] == "[":
                start = self.at
                table = self._header()
                self.sections.append(Section(table, start, self.at))
            else:
                self._pair(table)
                self.sections[-1].end = self.at
            self._skip(_BLANK)
        return self.places

    def _header(self) -> KeyPath:
        start = self.at
        is_array = self.text.startswith("[[", start)
        self.at += 2 if is_array else 1
        keys = self._dotted()
        self.at += 2 if is_array else 1
        path: KeyPath = ()
        for number, key in enumerate(keys, 1):
            path = (*path, key)
            self._note(path, start)
            if number == len(keys) and is_array:
                self._elements[path] = self._elements.get(path, -1) + 1
            if path in self._elements:
                path = (*path, self._elements[path])
                self._note(path, start)
        return path

    def _pair(self, table: KeyPath) -> None:
        start = self.at
        path = table
        for key in self._dotted():
            path = (*path, key)
            self._note(path, start)
        self.at += 1  # the "="
        self._skip(_SPACE)
        self._value(path)

    def _dotted(self) -> list[str]:
        keys: list[str] = []
        while True:
            self._skip(_SPACE)
            bare = _BARE_KEY.match(self.text, self.at)
            if bare is not None:
                keys.append(bare[0])
                self.at = bare.end()
            else:
                start = self.at
                self._skip(_STRING)
                keys.append(tomli.loads(f"key = {self.text[start : self.at]}")["key"])
            self._skip(_SPACE)
            if not self.text.startswith(".", self.at):
                return keys
            self.at += 1

    def _value(self, path: KeyPath) -> None:
        first = self.text[self.at]
        if first in "\"'":
            self._skip(_STRING)
        elif first == "[":
            self._array(path)
        elif first == "{":
            self._inline_table(path)
        else:
            self._skip(_SCALAR)

    def _array(self, path: KeyPath) -> None:
        index = 0
        while self._more("]"):
            self._note((*path, index), self.at)
            self._value((*path, index))
            index += 1

    def _inline_table(self, path: KeyPath) -> None:
        while self._more("}"):
            self._pair(path)

    def _more(self, closing: str) -> bool:
        """Step over the opening bracket or a comma; False, and past it, where the closing bracket comes next."""
        self._skip(_BLANK)
        if self.text[self.at] != closing:
            self.at += 1
            self._skip(_BLANK)
        if self.text[self.at] == closing:
            self.at += 1
            return False
        return True

    def _skip(self, pattern: re.Pattern[str]) -> None:
        match = pattern.match(self.text, self.at)
        assert match is not None, "the text is valid TOML"
        self.at = match.end()

    def _note(self, path: KeyPath, offset: int) -> None:
        self.places.setdefault(path, bisect_right(self._breaks, offset) + 1)
