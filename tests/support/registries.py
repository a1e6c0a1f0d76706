"""Registries written to a temporary directory, and the problems that they expect of themselves.

A line of TOML may end in `#! KEY: TEXT`: a problem at that line, at KEY, whose message or remedy holds TEXT. Several
are separated by `#!`, or follow on lines of their own; `#?` marks a warning in the same way.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from textwrap import dedent

from mcpd.errors import Problem

_MARK = re.compile(r"#(?P<kind>[!?]) (?P<key>[^:]*): (?P<text>[^#]*?)\s*(?=#[!?]|$)")

Expected = tuple[Path, int, str]


def write(directory: Path, text: str, name: str = "mcpd.toml") -> Path:
    """Write a registry file; returns its path."""
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dedent(text))
    return path


def expected(paths: Iterable[Path], kind: str) -> dict[Expected, list[str]]:
    """Where the files say that there are problems (`!`) or warnings (`?`), and the texts to be found there."""
    found: dict[Expected, list[str]] = {}
    for path in paths:
        number = 0
        for at, line in enumerate(path.read_text().splitlines(), 1):
            number = number if line.lstrip().startswith(("#!", "#?")) else at
            for mark in _MARK.finditer(line):
                if mark["kind"] == kind:
                    found.setdefault((path, number, mark["key"]), []).append(mark["text"])
    return found


def assert_found(problems: Iterable[Problem], paths: Iterable[Path], kind: str = "!") -> None:
    """The problems are exactly those that the files mark: same file, line and key, one for each text, none besides."""
    wanted = expected(paths, kind)
    left = list(problems)
    for (file, line, key), texts in wanted.items():
        for text in texts:
            match = next((one for one in left if _matches(one, file, line, key, text)), None)
            assert match is not None, f"no problem {file.name}:{line}: {key}: {text}; left: {_listed(left)}"
            left.remove(match)
    assert not left, f"problems that nobody expected: {_listed(left)}"


def _matches(problem: Problem, file: Path, line: int, key: str, text: str) -> bool:
    said = f"{problem.message}; {problem.remedy}"
    return (problem.file, problem.line, problem.key) == (file, line, key) and text in said


def _listed(problems: Iterable[Problem]) -> str:
    return "\n".join(("", *map(str, problems)))
