"""The store: remembered at once, on the disk soon, and no failure of the disk gets out."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mcpd.store import store as module
from mcpd.store.store import Store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "mcpd.db"


@contextmanager
def store_at(path: Path, **options: float) -> Iterator[Store]:
    store = Store.open(path, **options)  # type: ignore[arg-type]
    try:
        yield store
    finally:
        store.close()


def event(seq: int, text: str = "") -> bytes:
    return json.dumps({"seq": seq, "reason": text}).encode()


@contextmanager
def full_disk() -> Iterator[None]:
    """No file of this process can grow: what write(2) then says (EFBIG), SQLite takes as it takes ENOSPC."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_everything_is_remembered_over_a_restart(path: Path) -> None:
    with store_at(path) as store:
        store.set_desired("time", "down")
        store.set_desired("notes", "up")
        store.set_mark("time", "era", "handshake")
        store.set_mark("time", "interactive", "yes")
        store.set_mark("notes", "era", "per-request")
        store.set_catalogue("time", b'{"tools":[]}')
        store.add_events([event(1, "a"), event(2, "b")])

    with store_at(path) as store:
        assert store.desired() == {"time": "down", "notes": "up"}
        assert store.marks("time") == {"era": "handshake", "interactive": "yes"}
        assert store.catalogue("time") == b'{"tools":[]}'
        assert store.catalogue("notes") is None
        assert store.events(0, 10) == [event(1, "a"), event(2, "b")]
        assert store.last_seq() == 2
        assert store.recovered is None
        assert store.problem is None


def test_what_is_taken_back_is_forgotten(path: Path) -> None:
    with store_at(path) as store:
        store.set_desired("time", "down")
        store.set_mark("time", "era", "handshake")
        store.set_catalogue("time", b"x")
        assert store.flush()
        store.set_desired("time", None)
        store.set_mark("time", "era", None)
        store.set_catalogue("time", None)
        store.set_desired("never-said", None)

        assert (store.desired(), store.marks("time"), store.catalogue("time")) == ({}, {}, None)

    with store_at(path) as store:
        assert (store.desired(), store.marks("time"), store.catalogue("time")) == ({}, {}, None)


def test_events_are_found_whether_they_are_written_yet_or_not(path: Path) -> None:
    with store_at(path) as store:
        store.add_events([event(1), event(2)])
        assert store.flush()
        store.add_events([event(3)])

        assert store.events(1, 10) == [event(2), event(3)]
        assert store.events(0, 1) == [event(1)]
        assert store.events(3, 10) == []


def test_a_kill_loses_nothing_that_was_flushed(path: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path; from mcpd.store.store import Store\n"
        "store = Store.open(Path(sys.argv[1])); store.set_desired('time', 'down')\n"
        "store.add_events([b'{\"seq\": 7}']); assert store.flush(); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", script, path], timeout=30, check=False)
    assert killed.returncode == -signal.SIGKILL

    with store_at(path) as store:
        assert store.desired() == {"time": "down"}
        assert store.last_seq() == 7


def test_a_torn_database_is_set_aside_and_said_once(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"torn " * 2000)
    said: list[str] = []
    store = Store.open(path, said.append)
    store.set_desired("time", "up")
    assert store.flush()
    store.close()

    assert store.recovered is not None
    assert said == [store.recovered]
    (aside,) = path.parent.glob("mcpd.db.unreadable-*")
    assert aside.name in store.recovered
    assert aside.read_bytes() == b"torn " * 2000
    with store_at(path) as again:
        assert again.desired() == {"time": "up"}


def test_a_database_that_breaks_in_use_is_replaced_from_memory(path: Path) -> None:
    said: list[str] = []
    store = Store.open(path, said.append, retry_delay=0.01)
    for n in range(60):
        store.set_mark(f"s{n}", "text", "x" * 2000)
    store.add_events([event(1)])
    assert store.flush()
    store._database._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # type: ignore[union-attr]
    size = path.stat().st_size
    with path.open("r+b") as file:  # all pages but the first: the schema is still read
        file.seek(4096)
        file.write(b"\x5a" * (size - 4096))
    store._database._writer.execute("PRAGMA shrink_memory")  # type: ignore[union-attr]

    store.set_mark("s0", "text", "new")
    store.add_events([event(2)])
    assert store.flush(10.0)

    assert store.recovered is not None
    assert store.problem is None
    assert store.failures >= 1
    store.close()
    with store_at(path) as again:
        assert again.marks("s0") == {"text": "new"}
        assert again.marks("s59") == {"text": "x" * 2000}
        assert again.events(0, 10) == [event(2)]


def test_a_full_disk_never_raises_and_is_said_once(path: Path) -> None:
    said: list[str] = []
    store = Store.open(path, said.append, retry_delay=0.01)
    with full_disk():
        for n in range(3):
            store.set_desired("time", "down")
            store.set_mark("time", str(n), "x" * 10_000)
            store.add_events([event(n + 1, "x" * 5000)])
            assert store.flush(0.2) is False
        assert store.desired() == {"time": "down"}
        assert store.events(0, 10) == [event(n + 1, "x" * 5000) for n in range(3)]
        assert store.problem is not None
        assert store.failures > 1
        assert said == [said[0]]
        assert "mcpd.db" in said[0]

    assert store.flush(10.0)
    assert store.problem is None
    assert said[1:] == [f"{path}: can be written again"]
    store.close()
    with store_at(path) as again:
        assert again.desired() == {"time": "down"}
        assert again.last_seq() == 3


def test_without_a_usable_directory_it_lives_in_memory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    said: list[str] = []
    store = Store.open(tmp_path / "file" / "mcpd.db", said.append)
    store.set_desired("time", "down")
    store.add_events([event(1)])

    assert store.desired() == {"time": "down"}
    assert store.events(0, 10) == [event(1)]
    assert store.problem is not None
    assert len(said) == 1
    store.close()


def test_a_disk_that_comes_back_late_is_merged_with_what_was_said_since(path: Path, tmp_path: Path) -> None:
    with store_at(path) as store:
        store.set_desired("time", "down")
        store.set_desired("notes", "down")
        store.set_mark("old", "era", "per-request")
        store.add_events([event(5)])
    hidden = tmp_path / "hidden"
    path.parent.rename(hidden)
    path.parent.write_text("in the way")
    store = Store.open(path, retry_delay=0.01)
    store.set_desired("notes", "up")
    store.set_mark("old", "era", None)
    assert store.flush(0.1) is False
    assert store.desired() == {"notes": "up"}

    path.parent.unlink()
    hidden.rename(path.parent)
    assert store.flush(10.0)

    assert store.desired() == {"time": "down", "notes": "up"}
    assert store.marks("old") == {}
    assert store.last_seq() == 5
    store.close()


def test_what_waits_for_the_disk_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PENDING_EVENTS", 3)
    (tmp_path / "file").write_text("not a directory")
    with store_at(tmp_path / "file" / "mcpd.db") as store:
        store.add_events([event(n) for n in range(1, 6)])
        store.add_events([event(6, "x" * 20_000)])

        assert store.events(0, 10) == [event(3), event(4), event(5)]
        assert store.lost_events == 3
        assert store.last_seq() == 6


def test_an_event_without_a_number_is_its_makers_fault(path: Path) -> None:
    with store_at(path) as store, pytest.raises(ValueError, match="seq"):
        store.add_events([b'{"reason": "x"}'])


def test_closing_twice_is_allowed_and_leaves_no_descriptor(path: Path) -> None:
    store = Store.open(path)
    store.set_desired("time", "up")
    store.close()
    store.close()

    targets = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if _is_link(fd)]
    assert not [target for target in targets if target.startswith(str(path))]


def _is_link(fd: str) -> bool:
    return os.path.islink(f"/proc/self/fd/{fd}")
