"""What an import leaves behind, and what an undo takes of it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from mcpd.cli import imported
from mcpd.cli.failures import Failed
from mcpd.config import edit, rewrite
from mcpd.errors import NotFound


def test_secrets_are_made_all_or_none(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"

    made = imported.write_secrets(folder, {"a": "1", "b": "2"})

    assert [(str(one), Path(one.path).read_text()) for one in made] == [(f"{folder}/a", "1\n"), (f"{folder}/b", "2\n")]
    assert {stat.S_IMODE((folder / name).stat().st_mode) for name in "ab"} == {0o600}
    assert [one.path for one in imported.write_secrets(folder, {"a": "1", "c": "3"})] == [f"{folder}/c"]
    with pytest.raises(Failed, match="with another value"):
        imported.write_secrets(folder, {"d": "4", "b": "other"})
    assert sorted(os.listdir(folder)) == ["a", "b", "c"]


def test_no_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(Failed, match="there is such a secret already"):
        imported.write_secrets(tmp_path, {"a": "1"})

    assert not (tmp_path / "elsewhere").exists()


def test_only_secrets_that_are_as_they_were_made_are_removed(tmp_path: Path) -> None:
    made = imported.write_secrets(tmp_path, {"a": "1", "b": "2", "c": "3"})
    (tmp_path / "a").write_text("changed")
    (tmp_path / "b").unlink()

    imported.remove_secrets(made)

    assert os.listdir(tmp_path) == ["a"]


def test_note_is_kept_until_it_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "mcpd.toml"
    path.write_text("")
    change = edit.add(path, {"a": {"command": ["cat"]}})
    note = imported.note_of(Path("/x.json"), change, rewrite.write(change, imported.BACKUP), (), ["a"])

    assert imported.noted(path) is None
    imported.remember(path, note)
    assert imported.noted(path) == note
    assert imported.undoing(path, note) == rewrite.Edit(path, change.after, "")
    imported.forget(path)
    assert imported.noted(path) is None


def test_note_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / ".mcpd.toml.import").write_text("{")

    with pytest.raises(Failed, match="cannot be read"):
        imported.noted(tmp_path / "mcpd.toml")


def test_undo_without_the_copy_or_the_servers(tmp_path: Path) -> None:
    path = tmp_path / "mcpd.toml"
    path.write_text("")
    change = edit.add(path, {"a": {"command": ["cat"]}})
    backup = rewrite.write(change, imported.BACKUP)
    assert backup is not None
    note = imported.note_of(Path("/x.json"), change, backup, (), ["a"])
    backup.unlink()

    with pytest.raises(Failed, match="the copy is gone"):
        imported.undoing(path, note)
    rewrite.write(edit.remove(path, "a"))
    with pytest.raises(NotFound, match="none of the imported servers"):
        imported.undoing(path, note)
