"""The SQLite file: rights, bounds, and files that are no database of ours."""

from __future__ import annotations

import os
import sqlite3
import stat
from pathlib import Path

import pytest

from mcpd.store import database as module
from mcpd.store.database import Database, Unreadable, is_damage


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "mcpd.db"


def opened(path: Path) -> Database:
    database = Database(path)
    database.open()
    return database


def test_what_is_written_is_there_after_reopening(path: Path) -> None:
    database = opened(path)
    database.write({("desired", "time", ""): b"down", ("mark", "time", "era"): b"handshake"}, [(1, b"{}"), (2, b"[]")])
    database.write({("mark", "time", "era"): None}, [])
    database.close()

    again = opened(path)

    assert again.load() == ({("desired", "time", ""): b"down"}, 2)
    assert again.events(1, 10) == [(2, b"[]")]
    again.close()


def test_only_the_owner_can_read_any_of_its_files(path: Path) -> None:
    before = os.umask(0)
    try:
        database = opened(path)
        database.write({("mark", "a", "b"): b"c"}, [])
    finally:
        os.umask(before)

    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}

    assert modes == {"mcpd.db": 0o600, "mcpd.db-wal": 0o600, "mcpd.db-shm": 0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    database.close()


def test_the_history_of_events_is_bounded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_EVENTS", 10)
    database = opened(path)
    for seq in range(1, 36):
        database.write({}, [(seq, b"{}")])

    assert [seq for seq, _ in database.events(0, 1000)] == list(range(26, 36))
    assert [seq for seq, _ in database.events(30, 2)] == [31, 32]
    database.close()


def test_a_failed_transaction_leaves_nothing_of_itself(path: Path) -> None:
    database = opened(path)
    with pytest.raises(sqlite3.Error):
        database.write({("mark", "a", "b"): b"c"}, [(1, None)])  # type: ignore[list-item]
    database.write({("mark", "x", "y"): b"z"}, [])

    assert database.load() == ({("mark", "x", "y"): b"z"}, 0)
    database.close()


@pytest.mark.parametrize(
    ("content", "damage"),
    [
        (b"this is a text, and long enough to be looked at " * 100, "file is not a database"),
        (b"SQLite format 3\0" + b"\xff" * 4080, "not a database"),
    ],
)
def test_a_file_that_is_no_database_is_damage(path: Path, content: bytes, damage: str) -> None:
    path.parent.mkdir()
    path.write_bytes(content)

    with pytest.raises(sqlite3.DatabaseError, match=damage) as caught:
        opened(path)

    assert is_damage(caught.value)
    assert path.read_bytes() == content


def test_a_torn_page_is_found_when_it_is_opened(path: Path) -> None:
    database = opened(path)
    database.write({("catalogue", f"s{n}", ""): b"x" * 3000 for n in range(50)}, [])
    database.close()
    content = bytearray(path.read_bytes())
    middle = len(content) // 2 // 4096 * 4096
    content[middle : middle + 4096] = b"\x5a" * 4096
    path.write_bytes(content)

    with pytest.raises((Unreadable, sqlite3.DatabaseError)) as caught:
        opened(path)

    assert is_damage(caught.value)


def test_a_database_of_another_program_is_not_touched(path: Path) -> None:
    path.parent.mkdir()
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE theirs (a)")
    other.commit()
    other.close()

    with pytest.raises(Unreadable, match="another program"):
        opened(path)


def test_a_newer_schema_is_not_guessed_at(path: Path) -> None:
    opened(path).close()
    newer = sqlite3.connect(path)
    newer.execute("PRAGMA user_version = 99")
    newer.close()

    with pytest.raises(Unreadable, match="version 99, this mcpd knows 1"):
        opened(path)


def test_a_symlink_is_not_followed(path: Path, tmp_path: Path) -> None:
    path.parent.mkdir()
    path.symlink_to(tmp_path / "elsewhere")

    with pytest.raises(OSError, match=str(path)) as caught:
        opened(path)

    assert not is_damage(caught.value)
    assert not (tmp_path / "elsewhere").exists()


def test_of_what_is_set_aside_the_newest_three_are_kept(path: Path) -> None:
    asides = []
    for n in range(5):
        database = opened(path)
        database.write({("mark", "n", ""): str(n).encode()}, [])
        database.close()
        asides.append(database.set_aside())

    assert not path.exists()
    assert {file for file in path.parent.iterdir() if not file.name.endswith(("-wal", "-shm"))} == set(asides[2:])
    assert len(set(asides)) == 5


def test_reading_without_a_file_finds_nothing(path: Path) -> None:
    database = Database(path)

    assert database.events(0, 10) == []
    database.close()
