"""`mcpctl upgrade`: first installed, then written, then read by the daemon."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.memory_fleet import MemoryServer, ServedFleet, served_fleet
from support.terminal import environment, program, run

ENTRY = '# mine\n[servers.a]\npackage = "npm:x@1.0.0"   # pinned\nargs = ["-v"]\n'


@pytest.fixture
def served(tmp_path: Path) -> Iterator[ServedFleet]:
    (tmp_path / "mcpd.toml").write_text(ENTRY)
    with served_fleet(tmp_path, MemoryServer("a")) as fleet:
        yield fleet


def upgrade(served: ServedFleet, *words: str) -> subprocess.CompletedProcess[str]:
    argv = (program("mcpctl"), "--socket", str(served.socket_path), "--config", str(served.root / "mcpd.toml"))
    return run(*argv, "upgrade", *words, env=environment(served.root / "home"))


def test_one_value_is_changed(served: ServedFleet) -> None:
    done = upgrade(served, "a")

    assert done.returncode == 0, done.stderr
    assert (served.root / "mcpd.toml").read_text() == ENTRY.replace("1.0.0", "2.0.0")
    assert "a set to npm:x@2.0.0" in done.stdout
    assert "`mcpctl upgrade a 1.0.0` goes back to npm:x@1.0.0" in done.stderr


def test_named_version_counts_and_the_same_changes_nothing(served: ServedFleet) -> None:
    assert "npm:x@1.5.0" in upgrade(served, "a", "1.5.0").stdout
    same = upgrade(served, "a", "1.0.0")  # what the daemon says that it has

    assert "is what it has already" in same.stdout
    assert "npm:x@1.5.0" in (served.root / "mcpd.toml").read_text()


def test_prune_tells_what_went(served: ServedFleet) -> None:
    assert upgrade(served, "--prune").stdout == "removed npm:x@1.0.0\n"
    assert "nothing to remove" in upgrade(served, "a", "1.0.0", "--prune").stdout


def test_mistakes_are_told(served: ServedFleet) -> None:
    assert upgrade(served).returncode == 2
    unknown = upgrade(served, "b")
    assert unknown.returncode == 1
    assert "there is no server 'b'" in unknown.stderr
