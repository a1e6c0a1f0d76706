"""The daemon's memory: answers at once, and a thread of its own brings it to the disk."""

from __future__ import annotations

import sqlite3
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Condition, Thread
from typing import Final, Literal

import msgspec

from mcpd.store.database import Database, Key, Unreadable, is_damage

RETRY_DELAY: Final = 10.0
CLOSE_TIMEOUT: Final = 3.0
MAX_PENDING_EVENTS: Final = 5_000
MAX_EVENT: Final = 16 * 1024
MAX_REPLACEMENTS: Final = 3

Desired = Literal["up", "down"]


class _Numbered(msgspec.Struct):
    seq: int


class Store:
    """Desired states, marks, catalogues, and the history of events.

    Everything but `events` is answered from memory. Changes are remembered at once and written within moments, several
    in one transaction; no call waits for the disk, and none raises because of it. While the disk refuses (full,
    read-only, gone), changes wait in bounded memory and are tried again; `failures` counts the refusals, `problem` says
    what is wrong now, and `report` is called (on the store's thread, once it runs) when that begins and when it ends. A
    damaged file is set aside, at the start or later, and a new one begun: `recovered` tells.
    """

    def __init__(
        self, path: Path, report: Callable[[str], None] | None = None, retry_delay: float = RETRY_DELAY
    ) -> None:
        self.path = path
        self.recovered: str | None = None
        self.problem: str | None = None
        self.failures = 0
        self.lost_events = 0
        self._report = report
        self._retry_delay = retry_delay
        self._database = Database(path)
        self._is_open = False
        self._replacements = 0
        self._kept: dict[Key, bytes] = {}
        self._last_seq = 0
        self._pending: dict[Key, bytes | None] = {}
        self._pending_events: deque[tuple[int, bytes]] = deque()
        self._changed = Condition()
        self._attempts = 0
        self._closing = False
        self._thread = Thread(target=self._run, name="store", daemon=True)  # a hung disk must not keep mcpd from ending

    @classmethod
    def open(cls, path: Path, report: Callable[[str], None] | None = None, retry_delay: float = RETRY_DELAY) -> Store:
        """Read what is there. Never raises: without a usable disk the store begins empty and lives in memory."""
        store = cls(path, report, retry_delay)
        try:
            store._open_database()
        except (sqlite3.Error, OSError, Unreadable) as error:
            store._failed(error)
        store._thread.start()
        return store

    def desired(self) -> dict[str, str]:
        """What the operator last said of each server, "up" or "down", where that was something."""
        with self._changed:
            return {server: value.decode() for (kind, server, _), value in self._kept.items() if kind == "desired"}

    def set_desired(self, server: str, desired: Desired | None) -> None:
        """None: as the registry says."""
        self._keep(("desired", server, ""), None if desired is None else desired.encode())

    def marks(self, server: str) -> dict[str, str]:
        """What was found out about a server, such as its era."""
        with self._changed:
            return {
                name: value.decode()
                for (kind, owner, name), value in self._kept.items()
                if kind == "mark" and owner == server
            }

    def set_mark(self, server: str, key: str, value: str | None) -> None:
        """None: forget it."""
        self._keep(("mark", server, key), None if value is None else value.encode())

    def catalogue(self, server: str) -> bytes | None:
        """The lists of a server as they were last known, in the caller's own encoding."""
        with self._changed:
            return self._kept.get(("catalogue", server, ""))

    def set_catalogue(self, server: str, content: bytes | None) -> None:
        """None: forget it."""
        self._keep(("catalogue", server, ""), content)

    def add_events(self, events: Sequence[bytes]) -> None:
        """Each is a JSON object with an integer `seq` greater than the last one's; over 16 KiB it is not kept."""
        numbered = [(msgspec.json.decode(event, type=_Numbered).seq, event) for event in events]
        with self._changed:
            for seq, event in numbered:
                self._last_seq = max(self._last_seq, seq)
                if len(event) > MAX_EVENT:
                    self.lost_events += 1
                    continue
                if len(self._pending_events) == MAX_PENDING_EVENTS:
                    self._pending_events.popleft()
                    self.lost_events += 1
                self._pending_events.append((seq, event))
            self._changed.notify_all()

    def events(self, after: int, limit: int) -> list[bytes]:
        """The oldest `limit` events with a `seq` greater than `after`. Reads the file: milliseconds."""
        with self._changed:  # first these: what is written meanwhile stands in both, what is not in the file is here
            found = {seq: event for seq, event in self._pending_events if seq > after}
        try:
            found.update(self._database.events(after, limit))
        except sqlite3.Error as error:
            self._failed(error)
        return [found[seq] for seq in sorted(found)[:limit]]

    def last_seq(self) -> int:
        """The `seq` of the newest event ever added; 0 if there was none. The next event's is one more."""
        with self._changed:
            return self._last_seq

    def flush(self, timeout: float = CLOSE_TIMEOUT) -> bool:
        """Wait until all is written (True), or trying failed, or the time is over. Not for the event loop."""
        with self._changed:
            before = self._attempts
            self._changed.wait_for(lambda: not self._has_work() or self._attempts > before + 1, timeout)
            return not self._has_work()

    def close(self, timeout: float = CLOSE_TIMEOUT) -> None:
        """Write what is left, within `timeout`; may be called twice. Later changes are not written."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def _keep(self, key: Key, value: bytes | None) -> None:
        with self._changed:
            if self._is_open and self._kept.get(key) == value:
                return
            if value is None:
                self._kept.pop(key, None)
            else:
                self._kept[key] = value
            self._pending[key] = value
            self._changed.notify_all()

    def _has_work(self) -> bool:
        return bool(self._pending or self._pending_events)

    def _run(self) -> None:
        retry_at = 0.0
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closing or self._has_work())
                if retry_at:
                    self._changed.wait_for(lambda: self._closing, max(0.0, retry_at - time.monotonic()))
                last = self._closing
            retry_at = 0.0 if self._try_to_write() else time.monotonic() + self._retry_delay
            if last:
                break
        self._database.close()

    def _try_to_write(self) -> bool:
        with self._changed:
            kept, events = dict(self._pending), list(self._pending_events)
        try:
            if kept or events:
                if not self._is_open:
                    self._open_database()
                self._database.write(kept, events)
                self._written(kept, events)
        except (sqlite3.Error, OSError, Unreadable) as error:
            self._failed(error)
            self._replace_if_damaged(error)
            return False
        finally:
            with self._changed:
                self._attempts += 1
                self._changed.notify_all()
        return True

    def _written(self, kept: dict[Key, bytes | None], events: list[tuple[int, bytes]]) -> None:
        with self._changed:
            for key, value in kept.items():
                if key in self._pending and self._pending[key] == value:
                    del self._pending[key]
            newest = max((seq for seq, _ in events), default=0)
            while self._pending_events and self._pending_events[0][0] <= newest:
                self._pending_events.popleft()
            ended, self.problem = self.problem, None
        if ended is not None and self._report is not None:
            self._report(f"{self.path}: can be written again")

    def _open_database(self) -> None:
        try:
            self._database.open()
        except (sqlite3.Error, Unreadable) as error:
            if not is_damage(error):
                raise
            self._replace(error, "what operators started and stopped by hand is as the registry says")
            self._database.open()
        kept, newest = self._database.load()
        self._is_open = True
        with self._changed:  # a file that could not be read at the start: what was said since then counts
            self._kept = {**kept, **self._kept}
            for key, value in self._pending.items():
                if value is None:
                    self._kept.pop(key, None)
            self._last_seq = max(self._last_seq, newest)

    def _replace_if_damaged(self, error: Exception) -> None:
        """A file that broke while in use: the next try begins a new one, with all that is in memory."""
        if not is_damage(error) or self._replacements >= MAX_REPLACEMENTS:
            return
        try:
            self._replace(error, "operators' settings are kept, the history begins anew")
        except OSError as refused:
            self._failed(refused)
            return
        with self._changed:
            self._pending = dict(self._kept)

    def _replace(self, error: Exception, consequence: str) -> None:
        self._is_open = False
        self._replacements += 1
        aside = self._database.set_aside()
        self.recovered = (
            f"{self.path}: cannot be used ({error}); it is now {aside.name}, and a new one was begun: {consequence}"
        )
        if self._report is not None:
            self._report(self.recovered)

    def _failed(self, error: Exception) -> None:
        with self._changed:
            self.failures += 1
            begins = self.problem is None
            self.problem = text = (
                f"{self.path}: cannot be used now ({error}); history and operators' settings are kept in memory only, "
                "until it can be written again"
            )
        if begins and self._report is not None:
            self._report(text)
