"""The audit log: who called what, when, for how long, and how it ended; one JSON object a line, only ever added to.

The router notes each call that is over in its journal, which costs it a tuple. A few times a second the journal is
taken, made into lines and written by a thread. Nothing waits for that: what cannot be written is counted, and told in
the log when it can be written again.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hmac
import json
import os
import secrets
import stat
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal, Protocol

import msgspec
import structlog

from mcpd.clock import Clock
from mcpd.control.view import AuditLine
from mcpd.errors import ConfigError, Problem
from mcpd.routing.ledger import Entry, Note
from mcpd.wire.jsonrpc import WireError, members, value_of

AUDIT_FILE: Final = "audit.jsonl"
EVERY: Final = 0.2
LONGEST: Final = 64 * 1024
"""Bytes of arguments that are written; of longer ones only how long they are."""
SESSION_SHOWN: Final = 8
KEY_FILE: Final = "audit.key"
KEY_BYTES: Final = 32
LOST_LINE: Final = 80
"""Bytes that the line which tells of lost ones may have."""
_NEW_KEY: Final = "remove it; a new one is made at the next start, and hashes are others from then on"
REMEMBERED: Final = 4096

Arguments = Literal["none", "hashed", "full"]
log = structlog.get_logger("mcpd.audit")
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_LINE = msgspec.json.Encoder()


class Journal(Protocol):
    """Where the calls that are over are noted; `fleet.relay.Relay` is one."""

    def take_journal(self) -> tuple[list[Note], int]:
        """What was noted since the last time, and how many more had no room."""
        ...


class AuditLog:
    """The files. Not for the event loop's thread, except at the very end."""

    def __init__(
        self, path: Path, *, arguments: Arguments, max_bytes: int, keep: int, wall_offset: float, key: bytes = b""
    ) -> None:
        """Rotated at `max_bytes`; `keep` older files stand beside `path` as `.1` (the youngest), `.2`, …

        `wall_offset` is what makes a monotonic time wall time; `key` is that of the hashes of arguments.
        """
        self.path = path
        self.written = 0
        self.lost = 0
        self.error = ""
        self._arguments = arguments
        self._max_bytes = max_bytes
        self._keep = keep
        self._wall_offset = wall_offset
        self._key = key
        self._untold = 0
        self._made: dict[tuple[object, ...], bytes] = {}
        self._second = 0
        self._stamp = b""

    def write(self, notes: Iterable[Note], unnoted: int = 0) -> None:
        """Append. Never raises: `lost` and `error` tell."""
        lines = [self._line(note) for note in notes]
        self._untold += unnoted
        self.lost += unnoted
        if not lines and not self._untold:
            return
        missing = len(lines)
        try:
            for together in self._batches(lines):
                self._append(together)
                self.written += len(together)
                missing -= len(together)
        except OSError as problem:
            self.error = problem.strerror or str(problem)
            self.lost += missing
            self._untold += missing
        else:
            self.error = ""

    def _batches(self, lines: list[bytes]) -> Iterator[list[bytes]]:
        """As many at a time as a file holds; one, which may be empty, if there is only something lost to be told."""
        batch: list[bytes] = []
        room = self._max_bytes - LOST_LINE
        for line in lines:
            if batch and len(line) >= room:
                yield batch
                batch, room = [], self._max_bytes - LOST_LINE
            batch.append(line)
            room -= len(line) + 1
        yield batch

    def _append(self, lines: list[bytes]) -> None:
        """All of these lines, or none of them. Raises OSError."""
        told = []
        if self._untold:
            told.append(_LINE.encode({"at": _moment(datetime.now(UTC).timestamp()), "lost": self._untold}))
        data = b"".join(line + b"\n" for line in (*told, *lines))
        descriptor = os.open(self.path, _FLAGS, 0o600)
        try:
            about = os.fstat(descriptor)
            if not stat.S_ISREG(about.st_mode):
                raise OSError(0, f"{self.path} is not a regular file")
            size = about.st_size
            if size and size + len(data) > self._max_bytes:
                self._rotate()
                os.close(descriptor)
                descriptor = os.open(self.path, _FLAGS, 0o600)
                size = os.fstat(descriptor).st_size
            if os.write(descriptor, data) < len(data):
                os.ftruncate(descriptor, size)  # half a line would spoil the one that comes after it
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(descriptor)
        self._untold = 0

    def _rotate(self) -> None:
        names = [self.path, *(self.path.with_name(f"{self.path.name}.{n}") for n in range(1, self._keep + 1))]
        for older, younger in zip(reversed(names), reversed(names[:-1]), strict=False):
            with contextlib.suppress(FileNotFoundError):
                younger.replace(older)
        if not self._keep:
            self.path.unlink(missing_ok=True)

    def _line(self, note: Note) -> bytes:
        """Clients repeat themselves: but for the times most lines have been made before."""
        key = note[2:11]
        rest = self._made.get(key)
        if rest is None:
            if len(self._made) >= REMEMBERED:
                self._made.clear()
            rest = self._made[key] = _rest(Entry._make(note))
        if note[11] and self._arguments != "none":
            rest = rest[:-1] + self._given(note[11]) + b"}"
        at = note[0] + self._wall_offset
        second = int(at)
        if second != self._second:
            self._second = second
            self._stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)).encode()
        return b'{"at":"%b.%03dZ","ms":%.1f,%b' % (self._stamp, (at - second) * 1000, (note[1] - note[0]) * 1000, rest)

    def _given(self, params: bytes) -> bytes:
        """What is said of arguments, to be put at the end of a line."""
        try:
            given = bytes(members(params).get("arguments", b"{}"))
            if self._arguments == "hashed":
                canonical = json.dumps(value_of(given), sort_keys=True, separators=(",", ":"))
                digest = hmac.digest(self._key, canonical.encode(errors="surrogatepass"), "sha256")
                return b',"arguments_hmac":"%b"' % digest.hex().encode()
            if len(given) > LONGEST:
                return b',"arguments_bytes":%d' % len(given)
            # as text made anew: what came may hold what other readers refuse
            return b',"arguments":%b' % json.dumps(value_of(given), separators=(",", ":")).encode()
        except (WireError, ValueError, RecursionError):
            return b""


class Auditor:
    """Takes the journal now and then, and has it written."""

    def __init__(self, journal: Journal, log: AuditLog, every: float = EVERY) -> None:
        self._journal = journal
        self._log = log
        self._every = every
        self._told = ""

    async def run(self) -> None:
        """Until cancelled; what is left then is for `finish`."""
        while True:
            await asyncio.sleep(self._every)
            await self.flush()

    async def flush(self) -> None:
        """Write what there is."""
        entries, unnoted = self._journal.take_journal()
        if entries or unnoted:
            await asyncio.to_thread(self._log.write, entries, unnoted)
            self._tell()

    def finish(self) -> None:
        """Write what is left, at once."""
        self._log.write(*self._journal.take_journal())

    def _tell(self) -> None:
        if self._log.error != self._told:
            self._told = self._log.error
            if self._told:
                log.error("audit.unwritten", path=str(self._log.path), reason=self._told, lost=self._log.lost)


def offset_of(clock: Clock) -> float:
    """What has to be added to a monotonic time to get wall time."""
    return clock.wall() - clock.monotonic()


def open_log(state_dir: Path, clock: Clock, mode: str, max_bytes: int, keep: int) -> AuditLog:
    """The audit log of a state directory, for `daemon.audit` = "calls", "hashed" or "full". Raises ConfigError."""
    arguments: Arguments = "hashed" if mode == "hashed" else "full" if mode == "full" else "none"
    return AuditLog(
        state_dir / AUDIT_FILE,
        arguments=arguments,
        max_bytes=max_bytes,
        keep=keep,
        wall_offset=offset_of(clock),
        key=key_of(state_dir) if arguments == "hashed" else b"",
    )


def key_of(state_dir: Path) -> bytes:
    """The key of the hashes of a state directory, made when it is first needed. Without one anybody who can read the
    log could try what arguments may have been. Raises ConfigError."""
    path = state_dir / KEY_FILE
    try:
        with contextlib.suppress(FileExistsError):
            made = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with open(made, "wb") as file:
                file.write(secrets.token_bytes(KEY_BYTES))
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            about, key = os.fstat(file.fileno()), file.read(KEY_BYTES + 1)
    except OSError as problem:
        why = problem.strerror or str(problem)
        raise ConfigError(
            Problem(path, None, "", f"the key of the audit log cannot be used: {why}", _NEW_KEY)
        ) from None
    if about.st_mode & 0o077 or len(key) != KEY_BYTES:
        message = f"the key of the audit log is not {KEY_BYTES} bytes that only this user can read"
        raise ConfigError(Problem(path, None, "", message, _NEW_KEY))
    return key


def _rest(entry: Entry) -> bytes:
    """A line from behind its times."""
    line = AuditLine(
        at="",
        principal=_clean(_user(entry.principal)),
        session=entry.session[:SESSION_SHOWN],
        transport=entry.transport,
        view=str(entry.view),
        server=entry.server,
        method=entry.method,
        name=_clean(entry.name),
        outcome=entry.outcome,
        code=entry.code,
    )
    return _LINE.encode(line).removeprefix(b'{"at":"",')


def _user(principal: str) -> str:
    """The connections of a user of this machine are told apart (`local:1000#7`) where that matters; here it is who."""
    return principal.partition("#")[0] if principal.startswith("local:") else principal


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _clean(text: str) -> str:
    """Text that can be encoded: clients may send half a surrogate pair."""
    return text.encode(errors="replace").decode()
