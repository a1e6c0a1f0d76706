"""What an import leaves behind, and what an undo takes of it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from mcpd.cli import import_note
from mcpd.cli.failures import Failed
from mcpd.config import edit, rewrite
from mcpd.errors import NotFound


def test_secrets_are_made_all_or_none(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"

    made = import_note.write_secrets(folder, {"a": "1", "b": "2"})

    assert [(str(one), Path(one.path).read_text()) for one in made] == [(f"{folder}/a", "1\n"), (f"{folder}/b", "2\n")]
    assert {stat.S_IMODE((folder / name).stat().st_mode) for name in "ab"} == {0o600}
    assert [one.path for one in import_note.write_secrets(folder, {"a": "1", "c": "3"})] == [f"{folder}/c"]
    with pytest.raises(Failed, match="with another value"):
        import_note.write_secrets(folder, {"d": "4", "b": "other"})
    assert sorted(os.listdir(folder)) == ["a", "b", "c"]


def test_no_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(Failed, match="there is such a secret already"):
        import_note.write_secrets(tmp_path, {"a": "1"})

    assert not (tmp_path / "elsewhere").exists()


def test_only_secrets_that_are_as_they_were_made_are_removed(tmp_path: Path) -> None:
    made = import_note.write_secrets(tmp_path, {"a": "1", "b": "2", "c": "3"})
    (tmp_path / "a").write_text("changed")
    (tmp_path / "b").unlink()

    import_note.remove_secrets(made)

    assert os.listdir(tmp_path) == ["a"]


def test_note_is_kept_until_it_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "mcpd.toml"
    path.write_text("")
    change = edit.add(path, {"a": {"command": ["cat"]}})
    note = import_note.note_of(Path("/x.json"), change, rewrite.write(change, import_note.BACKUP), (), ["a"])

    assert import_note.noted(path) is None
    import_note.remember(path, note)
    assert import_note.noted(path) == note
    assert import_note.undoing(path, note) == rewrite.Edit(path, change.after, "")
    import_note.forget(path)
    assert import_note.noted(path) is None


def test_note_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / ".mcpd.toml.import").write_text("{")

    with pytest.raises(Failed, match="cannot be read"):
        import_note.noted(tmp_path / "mcpd.toml")


def test_undo_without_the_copy_or_the_servers(tmp_path: Path) -> None:
    path = tmp_path / "mcpd.toml"
    path.write_text("")
    change = edit.add(path, {"a": {"command": ["cat"]}})
    backup = rewrite.write(change, import_note.BACKUP)
    assert backup is not None
    note = import_note.note_of(Path("/x.json"), change, backup, (), ["a"])
    backup.unlink()

    with pytest.raises(Failed, match="the copy is gone"):
        import_note.undoing(path, note)
    rewrite.write(edit.remove(path, "a"))
    with pytest.raises(NotFound, match="none of the imported servers"):
        import_note.undoing(path, note)
