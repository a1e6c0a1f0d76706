"""The SQLite file: opened, checked, replaced if it cannot be read.

WAL with synchronous=NORMAL (https://sqlite.org/wal.html, https://sqlite.org/pragma.html#pragma_synchronous): after a
crash of the daemon nothing committed is lost; after a power cut the last transactions may be, the file stays sound.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Final

SCHEMA_VERSION: Final = 1
MAX_EVENTS: Final = 10_000
CACHE_KIB: Final = 256
"""For pages, a connection. SQLite would take 2 MiB each, filled by a history that is written and hardly ever read."""
MAX_SET_ASIDE: Final = 3
BUSY_TIMEOUT: Final = 2.0
COMPANIONS: Final = ("", "-wal", "-shm")

_SCHEMA: Final = """
CREATE TABLE kept (
    kind TEXT NOT NULL, server TEXT NOT NULL, name TEXT NOT NULL, value BLOB NOT NULL,
    PRIMARY KEY (kind, server, name)
) WITHOUT ROWID;
CREATE TABLE events (seq INTEGER PRIMARY KEY, body BLOB NOT NULL);
"""

Key = tuple[str, str, str]
"""kind ("desired", "mark", "catalogue"), server, name."""


class Unreadable(Exception):
    """The file is there, but is no database that this version can use."""


class Database:
    """One file, two connections: one that writes (a single thread's), one that reads beside it without waiting.

    Methods raise sqlite3.Error, `open` OSError and Unreadable too; `is_damage` tells which of them `set_aside` helps
    against.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self._reading = Lock()

    def open(self) -> None:
        """Connect, make the tables if the file is new, and check every page."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # SQLite gives -wal and -shm the mode of the main file, and the main file 0644: so it is made here.
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
        try:
            self._writer = self._connect()
            self._prepare(self._writer)
            self._reader = self._connect()
            self._reader.execute("PRAGMA query_only = ON")
        except BaseException:
            self.close()
            raise

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        except BaseException:
            connection.close()
            raise
        return connection

    @staticmethod
    def _prepare(connection: sqlite3.Connection) -> None:
        verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise Unreadable(str(verdict))
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            if connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
                raise Unreadable("it is a database of another program")
            connection.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
        elif version != SCHEMA_VERSION:
            raise Unreadable(f"its schema is version {version}, this mcpd knows {SCHEMA_VERSION}")

    def load(self) -> tuple[dict[Key, bytes], int]:
        """All that is kept, and the `seq` of the newest event (0: none)."""
        assert self._writer is not None
        rows = self._writer.execute("SELECT kind, server, name, value FROM kept").fetchall()
        newest = self._writer.execute("SELECT max(seq) FROM events").fetchone()[0]
        return {(kind, server, name): bytes(value) for kind, server, name, value in rows}, newest or 0

    def write(self, kept: Mapping[Key, bytes | None], events: Sequence[tuple[int, bytes]]) -> None:
        """One transaction: all of it is in the file afterwards, or (on an exception) nothing. None: forget it."""
        assert self._writer is not None
        db = self._writer
        db.execute("BEGIN IMMEDIATE")
        try:
            db.executemany("DELETE FROM kept WHERE (kind, server, name) = (?, ?, ?)", list(kept))
            db.executemany(
                "INSERT INTO kept VALUES (?, ?, ?, ?)",
                [(*key, value) for key, value in kept.items() if value is not None],
            )
            db.executemany("INSERT OR REPLACE INTO events VALUES (?, ?)", events)
            if events:
                db.execute("DELETE FROM events WHERE seq <= (SELECT max(seq) FROM events) - ?", (MAX_EVENTS,))
            db.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):  # a full disk has ended the transaction already
                db.execute("ROLLBACK")
            raise

    def events(self, after: int, limit: int) -> list[tuple[int, bytes]]:
        """The oldest `limit` events behind `after`; fewer if there are no more. Empty while the file is not open."""
        with self._reading:
            if self._reader is None:
                return []
            query = "SELECT seq, body FROM events WHERE seq > ? ORDER BY seq LIMIT ?"
            return [(seq, bytes(body)) for seq, body in self._reader.execute(query, (after, limit)).fetchall()]

    def set_aside(self) -> Path:
        """Rename the file and its companions; returns the new name. Of those set aside the newest few are kept."""
        self.close()
        now = time.time_ns()
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(now // 10**9))
        target = self.path.with_name(f"{self.path.name}.unreadable-{stamp}.{now % 10**9:09}Z")
        for companion in COMPANIONS:
            with contextlib.suppress(FileNotFoundError):
                os.rename(f"{self.path}{companion}", f"{target}{companion}")
        self._prune_set_aside()
        return target

    def _prune_set_aside(self) -> None:
        older = [
            path
            for path in self.path.parent.glob(f"{self.path.name}.unreadable-*")
            if not path.name.endswith(COMPANIONS[1:])
        ]
        older.sort(key=lambda path: path.stat().st_mtime_ns)
        for path in older[:-MAX_SET_ASIDE]:
            for companion in COMPANIONS:
                Path(f"{path}{companion}").unlink(missing_ok=True)

    def close(self) -> None:
        """Idempotent; the last connection takes the WAL back into the file."""
        with self._reading:
            reader, self._reader = self._reader, None
            if reader is not None:
                reader.close()
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()


def is_damage(error: Exception) -> bool:
    """Whether the file's contents are at fault, not the disk, the rights or another process."""
    if isinstance(error, Unreadable):
        return True
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the low byte: https://sqlite.org/rescode.html
    return code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
