"""docs/faults.md names a test for each case; every one of them is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
TABLE = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")
CASES = {str(number) for number in range(1, 41)} - {"39"}


def test_every_test_that_is_named_exists() -> None:
    named = set(re.findall(r"`(?:[\w/.]+\.py::|…::)?(test_\w+?)_?…?`", TABLE))
    known = {
        name
        for file in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"def (test_\w+)", file.read_text(encoding="utf-8"))
    }

    assert len(named) > 40
    assert {name for name in named if not any(one.startswith(name) for one in known)} == set()


def test_every_file_that_is_named_exists() -> None:
    for name in set(re.findall(r"`((?:\w+/)+test_\w+\.py)", TABLE)):
        places = [ROOT / "tests" / "supervisor" / name, ROOT / "tests" / name, ROOT / name]
        assert any(place.is_file() for place in places), name


def test_every_case_has_a_row() -> None:
    rows = re.findall(r"^\| ([\d, ]+) \|", TABLE, re.MULTILINE)

    assert {number for row in rows for number in row.split(", ")} == CASES
