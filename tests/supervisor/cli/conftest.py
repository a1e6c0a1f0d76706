"""A registry, a home and a daemon for the commands that change a registry; other tests have fixtures of their own."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.editing import SAMPLE, Ctl
from support.memory_fleet import MemoryServer, ServedFleet, served_fleet
from support.terminal import MCPCTL, environment, run


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    path = tmp_path / "mcpd.toml"
    path.write_text(SAMPLE)
    return path


@pytest.fixture
def ctl(tmp_path: Path, home: Path) -> Ctl:
    """Run mcpctl where no daemon runs, in a home of its own."""

    def call(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
        return run(MCPCTL, *words, env=environment(home, XDG_RUNTIME_DIR=str(tmp_path), **env))

    return call


@pytest.fixture
def served(tmp_path: Path, registry: Path) -> Iterator[ServedFleet]:
    with served_fleet(tmp_path, MemoryServer("a"), MemoryServer("b")) as fleet:
        yield fleet
