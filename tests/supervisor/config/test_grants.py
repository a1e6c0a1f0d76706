"""Paths that no server may have, whatever its entry says: in them, around them, and by any other name."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from mcpd.config.grants import Protected, objection, protected
from mcpd.config.settings import DaemonSettings


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for name in (".ssh", ".gnupg", ".aws", "work/project", "var/state/servers", "var/run", "var/secrets"):
        (tmp_path / "home" / name).mkdir(parents=True)
    return tmp_path / "home"


@pytest.fixture
def guarded(home: Path) -> Protected:
    var = home / "var"
    daemon = DaemonSettings(state_dir=var / "state", runtime_dir=var / "run", secrets_dir=var / "secrets")
    (home / "mcpd.toml").write_text("")
    return protected(daemon, home / "mcpd.toml", home)


def test_what_lies_beside_may_be_read_and_written(home: Path, guarded: Protected) -> None:
    for path in (home / "work", home / "work" / "project"):
        assert objection(str(path), guarded, writing=False) is None
        assert objection(str(path), guarded, writing=True) is None


@pytest.mark.parametrize(
    "path",
    ["/", "/proc", "/proc/1", "/sys", "/sys/kernel", "/run", "HOME", "HOME/.ssh", "HOME/.gnupg", "HOME/.aws",
     "HOME/var", "HOME/var/state", "HOME/var/state/servers", "HOME/var/run", "HOME/var/secrets", "ABOVE"],
)  # fmt: skip
def test_what_is_closed_is_closed_with_all_in_it_and_around_it(home: Path, guarded: Protected, path: str) -> None:
    real = path.replace("HOME", str(home)).replace("ABOVE", str(home.parent))

    for writing in (False, True):
        found = objection(real, guarded, writing=writing)
        assert found is not None
        assert "cannot be granted" in found[0]
        assert found[1]


@pytest.mark.parametrize("path", ["/usr", "/usr/bin", "/etc", "/etc/ssl", "REGISTRY", sys.prefix])
def test_what_may_only_be_read(home: Path, guarded: Protected, path: str) -> None:
    real = os.path.realpath(path.replace("REGISTRY", str(home / "mcpd.toml")))

    assert objection(real, guarded, writing=False) is None
    assert objection(real, guarded, writing=True) is not None


def test_other_users_keys_are_closed_too(tmp_path: Path, guarded: Protected) -> None:
    (tmp_path / "ann" / ".ssh" / "old").mkdir(parents=True)
    (tmp_path / "ann" / "project").mkdir()

    for path in ("ann", "ann/.ssh", "ann/.ssh/old"):
        found = objection(str(tmp_path / path), guarded, writing=False)
        assert found is not None
        assert f"somebody's keys are there ({tmp_path}/ann/.ssh)" in found[0]
    assert objection(str(tmp_path / "ann" / "project"), guarded, writing=True) is None


def test_links_and_what_is_not_there_are_refused(home: Path, guarded: Protected) -> None:
    (home / "link").symlink_to(home / ".ssh")
    (home / "work" / "out").symlink_to("/")

    for path, told in (
        (home / "link", "symbolic link"),
        (home / "work" / "out" / "etc", "symbolic link"),
        (home / "nothing", "No such file"),
    ):
        found = objection(str(path), guarded, writing=False)
        assert found is not None
        assert told in found[0]
