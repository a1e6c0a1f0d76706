"""The audit log: lines that any reader understands, files that stay within bounds, and nothing that hinders a call."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpd.audit import LONGEST, Arguments, AuditLog, Auditor, key_of, open_log
from mcpd.clock import SystemClock
from mcpd.errors import ConfigError
from mcpd.routing.ledger import Entry, Note
from mcpd.wire.address import View
from support.waiting import until

NOON = 1_700_000_000.0
KEY = b"k" * 32


def entry(name: str = "read", arguments: bytes = b"", **more: Any) -> Entry:
    found = Entry(10.0, 10.0125, "ada", "f" * 32, "stdio", View("all"), "files", "tools/call", name, "ok", 0, arguments)
    return found._replace(**more)


def log_at(path: Path, arguments: Arguments = "none", max_bytes: int = 2**20, keep: int = 2) -> AuditLog:
    return AuditLog(
        path / "audit.jsonl", arguments=arguments, max_bytes=max_bytes, keep=keep, wall_offset=NOON, key=KEY
    )


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (path / "audit.jsonl").read_text().splitlines()]


def test_a_line_says_who_what_when_and_how_it_ended(tmp_path: Path) -> None:
    log_at(tmp_path).write([entry(), entry(outcome="refused", code=-32602)])
    first, second = lines(tmp_path)
    assert first == {
        "at": "2023-11-14T22:13:30.000Z",
        "principal": "ada",
        "session": "ffffffff",
        "transport": "stdio",
        "view": "all",
        "server": "files",
        "method": "tools/call",
        "name": "read",
        "ms": 12.5,
        "outcome": "ok",
    }
    assert (second["outcome"], second["code"]) == ("refused", -32602)
    assert stat.S_IMODE((tmp_path / "audit.jsonl").stat().st_mode) == 0o600


def test_arguments_are_left_out_hashed_or_written(tmp_path: Path) -> None:
    params = b'{"name":"read","arguments":{"b":1,"a":"\\ud83d"},"_meta":{}}'
    for mode in ("none", "hashed", "full"):
        log_at(tmp_path, mode).write([entry(arguments=params)])  # type: ignore[arg-type]
    left_out, hashed, full = lines(tmp_path)
    assert "arguments" not in left_out
    canonical = '{"a":"\\ud83d","b":1}'
    assert hashed["arguments_hmac"] == hmac.new(KEY, canonical.encode(), hashlib.sha256).hexdigest()
    assert full["arguments"] == {"b": 1, "a": "\ud83d"}


def test_the_same_arguments_have_the_same_hash(tmp_path: Path) -> None:
    for params in (b'{"arguments":{"a":1,"b":2}}', b'{"arguments": { "b":2, "a":1 }}'):
        log_at(tmp_path, "hashed").write([entry(arguments=params)])
    assert len({line["arguments_hmac"] for line in lines(tmp_path)}) == 1


def test_another_key_makes_another_hash_and_the_key_is_kept(tmp_path: Path) -> None:
    first = key_of(tmp_path)
    assert first == key_of(tmp_path)
    assert stat.S_IMODE((tmp_path / "audit.key").stat().st_mode) == 0o600
    (tmp_path / "audit.key").unlink()
    assert key_of(tmp_path) != first
    made = [open_log(tmp_path, SystemClock(), mode, 2**20, 2) for mode in ("calls", "hashed", "full")]
    assert [len(log._key) for log in made] == [0, 32, 0]


@pytest.mark.parametrize("spoilt", ["open", "short", "long", "directory", "link"])
def test_a_key_that_others_know_or_that_is_none_is_refused(tmp_path: Path, spoilt: str) -> None:
    path = tmp_path / "audit.key"
    match spoilt:
        case "directory":
            path.mkdir()
        case "link":
            path.symlink_to("/dev/zero")
        case _:
            path.write_bytes(b"k" * {"open": 32, "short": 31, "long": 33}[spoilt])
            path.chmod(0o644 if spoilt == "open" else 0o600)
    with pytest.raises(ConfigError, match=r"audit\.key: the key of the audit log .*a new one is made"):
        key_of(tmp_path)


def test_long_arguments_are_measured_only(tmp_path: Path) -> None:
    log_at(tmp_path, "full").write([entry(arguments=b'{"arguments":{"a":"%b"}}' % (b"x" * LONGEST))])
    [line] = lines(tmp_path)
    assert "arguments" not in line
    assert line["arguments_bytes"] > LONGEST


@given(name=st.text(), principal=st.text(), params=st.binary(max_size=50))
def test_every_line_is_one_json_object(
    tmp_path_factory: pytest.TempPathFactory, name: str, principal: str, params: bytes
) -> None:
    place = tmp_path_factory.mktemp("audit")
    log_at(place, "full").write([entry(name, params, principal=principal), entry()])
    first, second, _ = (place / "audit.jsonl").read_bytes().split(b"\n")
    assert json.loads(first)["server"] == json.loads(second)["server"] == "files"


def test_files_are_rotated_and_the_oldest_goes(tmp_path: Path) -> None:
    log = log_at(tmp_path, max_bytes=1000, keep=2)
    for number in range(40):
        log.write([entry(str(number))])
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["audit.jsonl", "audit.jsonl.1", "audit.jsonl.2"]
    assert all(path.stat().st_size <= 1000 for path in tmp_path.iterdir())
    assert lines(tmp_path)[-1]["name"] == "39"
    assert log.written == 40


def test_many_lines_at_once_fill_several_files(tmp_path: Path) -> None:
    log = log_at(tmp_path, max_bytes=1000, keep=100)
    log.write([entry(str(number)) for number in range(40)])
    files = sorted(tmp_path.iterdir(), key=lambda path: -int(path.suffix[1:]) if path.suffix != ".jsonl" else 1)
    assert all(path.stat().st_size <= 1000 for path in files)
    found = [json.loads(line)["name"] for path in files for line in path.read_text().splitlines()]
    assert found == [str(number) for number in range(40)]
    assert (log.written, log.lost) == (40, 0)


FULL_DISK = """
import os, subprocess, sys
from pathlib import Path
place = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "none", place], check=True)
from mcpd.audit import AuditLog
from test_audit import entry
log = AuditLog(place / "audit.jsonl", arguments="none", max_bytes=2**20, keep=2, wall_offset=0.0)
(place / "filler").write_bytes(b"x" * 8192)
for number in range(60):
    log.write([entry(str(number), outcome="x" * 300)])
assert log.error == "No space left on device", log.error
(place / "filler").unlink()
log.write([entry("after")])
print(log.written, log.lost)
print((place / "audit.jsonl").read_text(), end="")
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can mount a disk that is soon full")
def test_a_full_disk_leaves_whole_lines_and_what_is_missing_is_told(tmp_path: Path) -> None:
    done = subprocess.run(
        ["unshare", "-m", sys.executable, "-c", FULL_DISK, tmp_path],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])},
    )
    assert done.returncode == 0, done.stderr
    counts, *found = done.stdout.splitlines()
    written, lost = map(int, counts.split())
    lines = [json.loads(line) for line in found]
    assert written + lost == 61
    assert lost > 0
    assert [line["name"] for line in lines if "name" in line] == [*map(str, range(written - 1)), "after"]
    assert [line["lost"] for line in lines if "lost" in line] == [lost]


def test_without_older_files_it_begins_anew(tmp_path: Path) -> None:
    log = log_at(tmp_path, max_bytes=1000, keep=0)
    for number in range(20):
        log.write([entry(str(number))])
    assert [path.name for path in tmp_path.iterdir()] == ["audit.jsonl"]


def test_what_cannot_be_written_is_told_later(tmp_path: Path) -> None:
    log = log_at(tmp_path)
    (tmp_path / "audit.jsonl").mkdir()
    log.write([entry(), entry()], unnoted=3)
    assert (log.lost, log.written) == (5, 0)
    assert log.error == "Is a directory"

    (tmp_path / "audit.jsonl").rmdir()
    log.write([entry()])
    told, line = lines(tmp_path)
    assert told["lost"] == 5
    assert line["name"] == "read"
    assert (log.error, log.written) == ("", 1)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").touch()
    (tmp_path / "audit.jsonl").symlink_to(tmp_path / "elsewhere")
    log = log_at(tmp_path)
    log.write([entry()])
    assert log.lost == 1
    assert (tmp_path / "elsewhere").read_bytes() == b""


def test_it_is_added_to_what_is_there(tmp_path: Path) -> None:
    log_at(tmp_path).write([entry("old")])
    log_at(tmp_path).write([entry("new")])
    assert [line["name"] for line in lines(tmp_path)] == ["old", "new"]


class Notes:
    def __init__(self) -> None:
        self.entries: list[Note] = []

    def take_journal(self) -> tuple[list[Note], int]:
        found, self.entries = self.entries, []
        return found, 0


@pytest.mark.anyio
async def test_what_is_noted_is_written_soon_and_at_the_end(tmp_path: Path) -> None:
    notes, log = Notes(), log_at(tmp_path)
    auditor = Auditor(notes, log, every=0.001)
    notes.entries = [entry("soon")]
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        running = group.create_task(auditor.run(), name="audit")
        await until(lambda: log.written)
        running.cancel()
    notes.entries = [entry("last")]
    auditor.finish()
    assert [line["name"] for line in lines(tmp_path)] == ["soon", "last"]
