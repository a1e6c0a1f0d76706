"""The daemon's log never fails, and its file is bounded."""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path

from mcpd.cli.logstream import LogFile, LogStream


class Full(io.StringIO):
    """Every write fails until there is room."""

    def __init__(self) -> None:
        super().__init__()
        self.room = False

    def write(self, text: str) -> int:
        if not self.room:
            raise OSError(28, "No space left on device")
        return super().write(text)

    def flush(self) -> None:
        if not self.room:
            raise BrokenPipeError


def test_a_stream_that_fails_is_not_heard_of() -> None:
    stream = Full()
    log = LogStream(stream)
    log.write("lost\n")
    log.flush()
    stream.room = True
    log.write("kept\n")
    log.flush()

    assert stream.getvalue() == "kept\n"
    stream.close()
    log.write("after the end\n")
    log.flush()


def test_lines_are_diverted_whole() -> None:
    stream, lines = io.StringIO(), list[str]()
    log = LogStream(stream)
    log.write("before\n")
    log.divert = lines.append
    log.write("a")
    log.write("b\nc\nd")
    log.flush()
    log.divert = None
    log.write("e\n")

    assert lines == ["ab", "c"]
    assert stream.getvalue() == "before\nde\n"
    assert not log.isatty()


def test_a_file_is_private_and_rotates(tmp_path: Path) -> None:
    path = tmp_path / "mcpd.log"
    log = LogFile(path, max_bytes=10, keep=2)
    for line in ("one\n", "two\n", "three\n", "four\n", "five\n", "sixth\n", "é" * 20 + "\n"):
        log.write(line)
    log.close()

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text() == "é" * 20 + "\n"
    assert path.with_name("mcpd.log.1").read_text() == "sixth\n"
    assert path.with_name("mcpd.log.2").read_text() == "four\nfive\n"
    assert len(list(tmp_path.iterdir())) == 3


def test_a_file_goes_on_where_it_stopped(tmp_path: Path) -> None:
    path = tmp_path / "mcpd.log"
    for line in ("one\n", "two\n"):
        log = LogFile(path, max_bytes=10)
        log.write(line)
        log.close()

    assert path.read_text() == "one\ntwo\n"


def test_a_file_that_cannot_be_written_is_tried_again(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "later" / "mcpd.log")
    log.write("lost\n")
    (tmp_path / "later").mkdir()
    log.write("kept\n")
    log.close()

    assert (tmp_path / "later" / "mcpd.log").read_text() == "kept\n"


def test_a_full_disk_is_not_heard_of() -> None:
    log = LogFile(Path("/dev/full"))
    assert log.write("lost\n") == 5
    assert log.write("lost\n") == 5
    log.close()
    assert not any(os.path.realpath(f"/proc/self/fd/{fd}") == "/dev/full" for fd in os.listdir("/proc/self/fd"))
