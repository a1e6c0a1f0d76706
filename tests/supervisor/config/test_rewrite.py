"""Files are replaced in full or not at all, and by nobody else's content."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from mcpd.config import edit, rewrite
from mcpd.errors import ConfigError
from support.registries import write

SAMPLE = '[servers.time]\ncommand = ["cat"]   # of sorts\n\n[servers.b]\ncommand = ["cat"]\n'


def test_write_replaces_the_file_and_keeps_a_copy(tmp_path: Path) -> None:
    path = write(tmp_path, SAMPLE)
    path.chmod(0o640)
    change = edit.remove(path, "time")

    backup = rewrite.write(change)

    assert backup == tmp_path / "mcpd.toml.bak"
    assert backup.read_text() == SAMPLE
    assert path.read_text() == change.after
    assert [stat.S_IMODE(one.stat().st_mode) for one in (path, backup)] == [0o640, 0o640]
    assert sorted(os.listdir(tmp_path)) == ["mcpd.toml", "mcpd.toml.bak"]

    rewrite.take_back(change)

    assert path.read_text() == SAMPLE


def test_new_file_of_servers_d_can_be_read_by_whoever_reads_the_registry(tmp_path: Path) -> None:
    path = write(tmp_path, SAMPLE)
    path.chmod(0o644)
    tmp_path.chmod(0o755)
    change = edit.add(path, {"c": {"command": ["cat"]}}, file=Path("c.toml"))

    rewrite.write(change, like=path)

    assert [stat.S_IMODE(one.stat().st_mode) for one in (change.file, change.file.parent)] == [0o644, 0o755]


def test_link_stays_a_link(tmp_path: Path) -> None:
    real = write(tmp_path, SAMPLE, "dotfiles/mcpd.toml")
    path = tmp_path / "mcpd.toml"
    path.symlink_to(real)

    rewrite.write(edit.remove(path, "time"))

    assert path.is_symlink()
    assert "servers.time" not in real.read_text()


def test_file_that_somebody_changed_meanwhile_is_left(tmp_path: Path) -> None:
    path = write(tmp_path, SAMPLE)
    change = edit.remove(path, "time")
    path.write_text("# mine\n")

    with pytest.raises(ConfigError, match="changed by somebody else"):
        rewrite.write(change)
    with pytest.raises(ConfigError, match="changed by somebody else"):
        rewrite.take_back(change)

    assert path.read_text() == "# mine\n"
    assert os.listdir(tmp_path) == ["mcpd.toml"]


def test_new_file_is_taken_back_by_removing_it(tmp_path: Path) -> None:
    path = tmp_path / "mcpd.toml"
    change = edit.add(path, {"a": {"command": ["cat"]}})
    rewrite.write(change)

    rewrite.take_back(change)

    assert os.listdir(tmp_path) == []
