"""The end of a log, and what follows, across rotations."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mcpd.control import logtail
from mcpd.control.logtail import LogTail
from mcpd.process.stderr import StderrLog


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "time.log"


@pytest.fixture
def tail(path: Path) -> Iterator[LogTail]:
    tail = LogTail(path)
    yield tail
    tail.close()


def everything(tail: LogTail) -> bytes:
    found = b""
    while chunk := tail.more():
        found += chunk
    return found


@pytest.mark.parametrize(
    ("content", "lines", "expected"),
    [
        (b"", 3, b""),
        (b"a\nb\nc\n", 2, b"b\nc\n"),
        (b"a\nb\nc", 2, b"b\nc"),
        (b"a\nb\nc\n", 9, b"a\nb\nc\n"),
        (b"a\nb\nc\n", 0, b""),
        (b"10%\r20%\r30%\nend\n", 1, b"end\n"),
        (b"10%\r20%\r30%\nend\n", 2, b"10%\r20%\r30%\nend\n"),
        (b"\n\n\n", 2, b"\n\n"),
    ],
)
def test_the_last_lines(path: Path, tail: LogTail, content: bytes, lines: int, expected: bytes) -> None:
    path.write_bytes(content)

    assert tail.last(lines) == expected
    assert tail.more() == b""


@pytest.mark.parametrize("lines", [1, 2, 700, 5000])
def test_the_last_lines_of_a_long_file_are_found_from_behind(path: Path, tail: LogTail, lines: int) -> None:
    written = [f"{n} {'x' * (n % 300)}\n".encode() for n in range(5000)]
    path.write_bytes(b"".join(written))

    assert tail.last(lines) == b"".join(written[-lines:])


def test_the_tail_is_bounded(path: Path, tail: LogTail, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logtail, "MAX_TAIL", 1000)
    path.write_bytes(b"x" * 100_000 + b"\nlast\n")

    assert tail.last(5) == b"x" * 994 + b"\nlast\n"


def test_a_file_too_short_is_filled_from_the_rotated_ones(path: Path, tail: LogTail) -> None:
    path.with_name("time.log.2").write_bytes(b"1\n2\n")
    path.with_name("time.log.1").write_bytes(b"3\n4\n")
    path.write_bytes(b"5\n")

    assert tail.last(4) == b"2\n3\n4\n5\n"


def test_what_is_added_comes(path: Path, tail: LogTail) -> None:
    path.write_bytes(b"old\n")
    tail.last(0)
    with path.open("ab") as file:
        file.write(b"new\n")

    assert tail.more() == b"new\n"
    assert tail.more() == b""


def test_a_file_that_comes_later_is_read_from_its_beginning(path: Path, tail: LogTail) -> None:
    assert tail.last(5) == b""
    assert tail.more() == b""
    path.write_bytes(b"first\n")

    assert tail.more() == b"first\n"


def test_nothing_is_lost_when_the_real_writer_rotates(path: Path, tail: LogTail) -> None:
    log = StderrLog(path, max_bytes=1000, keep=3)
    tail.last(0)
    written, found = [], b""
    for n in range(200):
        line = f"line {n}\n".encode()
        log.write(line)
        written.append(line)
        if n % 3 == 0:
            found += everything(tail)
    log.close()
    found += everything(tail)

    assert found == b"".join(written)
    assert path.with_name("time.log.1").exists()


def test_a_truncated_file_is_read_anew(path: Path, tail: LogTail) -> None:
    path.write_bytes(b"a long first text\n")
    tail.last(5)
    path.write_bytes(b"short\n")

    assert tail.more() == b"short\n"


@pytest.mark.parametrize("kind", ["fifo", "link", "directory"])
def test_what_is_no_regular_file_is_as_good_as_absent(path: Path, tail: LogTail, tmp_path: Path, kind: str) -> None:
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "link":
        (tmp_path / "secret").write_text("secret\n")
        path.symlink_to(tmp_path / "secret")
    else:
        path.mkdir()

    assert tail.last(5) == b""
    assert tail.more() == b""
