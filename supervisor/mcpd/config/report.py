"""What is wrong with a registry, collected so that all of it can be told at once."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import msgspec
from pydantic_core import ErrorDetails

from mcpd.config.positions import KeyPath
from mcpd.config.suggest import did_you_mean
from mcpd.config.values import describe
from mcpd.errors import Problem

_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")


class Place(msgspec.Struct, frozen=True):
    """Where a key stands: a file and line, or, without a file, the environment variable named by `key`."""

    file: Path | None
    line: int | None
    key: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.file else self.key


class Report:
    """Problems and warnings in the order of files and lines, each once."""

    def __init__(self) -> None:
        self._problems: dict[Problem, None] = {}
        self._warnings: dict[Problem, None] = {}
        self._missing: dict[Problem, None] = {}

    def problem(self, place: Place, message: str, remedy: str) -> None:
        self._problems[Problem(place.file, place.line, place.key, message, remedy)] = None

    def warning(self, place: Place, message: str, remedy: str) -> None:
        self._warnings[Problem(place.file, place.line, place.key, message, remedy)] = None

    def missing(self, place: Place, message: str, remedy: str) -> None:
        """What the machine lacks, where that is tolerated: a warning, of a kind of its own."""
        self._missing[Problem(place.file, place.line, place.key, message, remedy)] = None

    def insist_on(self, matters: Callable[[Problem], bool]) -> None:
        """Tolerate no longer what `matters`."""
        for problem in [one for one in self._missing if matters(one)]:
            del self._missing[problem]
            self._problems[problem] = None

    @property
    def problems(self) -> tuple[Problem, ...]:
        return _sorted(self._problems)

    @property
    def warnings(self) -> tuple[Problem, ...]:
        return _sorted({**self._warnings, **self._missing})

    @property
    def tolerated(self) -> tuple[Problem, ...]:
        return _sorted(self._missing)


def _sorted(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    return tuple(sorted(problems, key=lambda problem: (str(problem.file or ""), problem.line or 0)))


def dotted(path: KeyPath) -> str:
    """`("servers", "a b", "args", 0)` as TOML would have it: `servers."a b".args[0]`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            name = part if _BARE.fullmatch(part) else '"' + part.replace("\\", "\\\\").replace('"', '\\"') + '"'
            text += f".{name}" if text else name
    return text


def complaint(
    error: ErrorDetails, known: Callable[[KeyPath], tuple[str, ...]], home: Callable[[str], str | None]
) -> tuple[str, str]:
    """Message and remedy for one error of pydantic's.

    `known(path)` lists the keys of the table at `path`; `home(key)` says where a key belongs that is not one of those.
    """
    kind, value, context = error["type"], error["input"], error.get("ctx", {})
    if kind == "mcpd":
        return context["message"], context["remedy"]
    if kind == "extra_forbidden":
        key, keys = str(error["loc"][-1]), known(error["loc"][:-1])
        return f"unknown key {key!r}", home(key) or did_you_mean(key, keys) or _one_of(keys)
    if kind in ("literal_error", "enum"):
        return _not_a_choice(value, context["expected"])
    if kind in _EXPECTED:
        return f"expected {_EXPECTED[kind]}, found {describe(value)}", _in_other_words(error)
    if kind in _BOUNDS:
        word, bound = _BOUNDS[kind]
        return f"expected {word} {context[bound]}, found {describe(value)}", "change the value"
    return f"{error['msg'][:1].lower()}{error['msg'][1:]}, found {describe(value)}", "change the value"


def _one_of(words: Iterable[str]) -> str:
    return "the keys here are " + ", ".join(sorted(words))


def _not_a_choice(value: Any, expected: str) -> tuple[str, str]:
    choices = re.findall(r"'([^']*)'", expected)
    if not isinstance(value, str):
        return f"expected a string, found {describe(value)}", f"use {_or(choices)}"
    suggestion = did_you_mean(value, choices)
    return f"{value!r} is not one of {_or(choices)}", suggestion or "use one of them"


def _or(choices: list[str]) -> str:
    quoted = [f'"{choice}"' for choice in choices]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} or {quoted[-1]}"


_EXPECTED: Final = {
    "string_type": "a string",
    "path_type": "a path, as a string",
    "int_type": "an integer",
    "float_type": "a number",
    "bool_type": "a boolean",
    "tuple_type": "an array",
    "mapping_type": "a table",
    "dict_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
}

_BOUNDS: Final = {
    "greater_than_equal": ("at least", "ge"),
    "greater_than": ("more than", "gt"),
    "less_than_equal": ("at most", "le"),
    "string_too_short": ("text, its length at least", "min_length"),
    "string_too_long": ("text, its length at most", "max_length"),
}


def _in_other_words(error: ErrorDetails) -> str:
    kind, value = error["type"], error["input"]
    if kind == "tuple_type" and isinstance(value, str):
        # A command is often pasted as the line that a shell would split.
        words = value.split() if error["loc"][-1:] in (("command",), ("args",)) else [value]
        return f"write [{', '.join(map(_quoted, words))}]"
    if kind == "bool_type":
        return "write true or false"
    if kind in ("int_type", "float_type") and isinstance(value, str):
        return "write it without quotes"
    if kind in ("string_type", "path_type") and isinstance(value, int | float):
        return f"write {_quoted(str(value).lower() if isinstance(value, bool) else str(value))}"
    return f"write {_EXPECTED[kind]}"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
