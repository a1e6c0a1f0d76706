"""docs/architecture.md is a true map: every part of both roots has a row, and may import what its contract lets it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import tomli

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
SUPERVISOR, WORKERS = ROOT / "supervisor" / "mcpd", ROOT / "workers" / "mcpworker"
CONTRACTS = tomli.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
LAYERED = {"doors", "daemon", "boot"}


def parts(root: Path) -> set[str]:
    """Packages and modules right below a root, as the map writes them: `fleet`, `daemon.py`."""
    packages = {one.parent.name for one in root.glob("*/__init__.py")}
    return packages | {one.name for one in root.glob("*.py") if not one.name.startswith("__")}


def rows(heading: str) -> dict[str, list[str]]:
    """The cells behind each name of the first column of the table behind a heading."""
    section = TEXT.split(heading, 1)[1].split("\n## ", 1)[0]
    found: dict[str, list[str]] = {}
    for line in re.findall(r"^\| (`.*) \|$", section, re.MULTILINE):
        names, *cells = line.split(" | ")
        found |= {name.rstrip("/"): cells for name in re.findall(r"`([^`]+)`", names)}
    return found


def test_every_part_of_the_daemon_has_a_row_and_no_other() -> None:
    assert set(rows("# The house")) == parts(SUPERVISOR)


def test_every_part_of_the_framework_has_a_row_and_no_other() -> None:
    assert set(rows("## The framework for server scripts")) == parts(WORKERS)


@pytest.mark.parametrize("name", sorted(parts(SUPERVISOR)))
def test_what_may_be_imported_is_what_the_contract_says(name: str) -> None:
    module = name.removesuffix(".py")
    said = rows("# The house")[name][-1]
    if module in LAYERED:
        assert said == "what is above"
        return
    [contract] = [one for one in CONTRACTS if one.get("source_modules") == [f"mcpd.{module}"]]
    others = {one.removesuffix(".py") for one in parts(SUPERVISOR)} - {module}
    allowed = {one for one in others if f"mcpd.{one}" not in contract["forbidden_modules"]}

    assert (set(said.split(", ")) - {"-"}) == allowed


@pytest.mark.parametrize("folder", ["docs", "docs/decisions"])
def test_every_document_is_in_the_list_of_its_folder(folder: str) -> None:
    listed = set(re.findall(r"\]\(([\w-]+\.md)\)", (ROOT / folder / "README.md").read_text(encoding="utf-8")))

    assert listed == {one.name for one in (ROOT / folder).glob("*.md")} - {"README.md"}
