"""The log of a server when all goes well, and when everything about its file goes wrong (faults 23 and 26)."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from mcpd.process.stderr import RECHECK, RETRY_MAX, StderrLog


class ManualClock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def test_what_is_written_is_appended_and_private(tmp_path: Path, clock: ManualClock) -> None:
    path = tmp_path / "logs" / "time.log"
    log = StderrLog(path, clock)
    log.write(b"one\ntw")
    log.noise(b"Listening on stdio")
    log.note("started")
    log.close()
    log.write(b"again\n")
    log.close()

    assert path.read_bytes() == b"one\ntw\n[stdout-noise] Listening on stdio\n[mcpd] started\nagain\n"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_long_noise_is_cut(tmp_path: Path, clock: ManualClock) -> None:
    log = StderrLog(tmp_path / "log", clock)
    log.noise(b"n" * 100_000)
    log.close()

    assert log.path.read_bytes() == b"[stdout-noise] " + b"n" * 1024 + b" ...\n"


def test_full_file_is_rotated_and_only_some_generations_are_kept(tmp_path: Path, clock: ManualClock) -> None:
    log = StderrLog(tmp_path / "log", clock, max_bytes=100, keep=2)
    for number in range(5):
        log.write(b"%d" % number * 59 + b"\n")
    log.close()

    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "log.1", "log.2"]
    assert [(tmp_path / name).read_bytes()[:1] for name in ("log", "log.1", "log.2")] == [b"4", b"3", b"2"]


def test_no_generation_need_be_kept(tmp_path: Path, clock: ManualClock) -> None:
    log = StderrLog(tmp_path / "log", clock, max_bytes=100, keep=0)
    for number in range(3):
        log.write(b"%d" % number * 59 + b"\n")
    log.close()

    assert [path.name for path in tmp_path.iterdir()] == ["log"]
    assert log.path.read_bytes()[:1] == b"2"


def test_too_much_at_once_is_left_out_and_counted(tmp_path: Path, clock: ManualClock) -> None:
    log = StderrLog(tmp_path / "log", clock, rate=100, burst=200)
    for _ in range(50):
        log.write(b"x" * 99 + b"\n")
    assert log.flooded
    assert log.suppressed == 4800
    clock.now += 1
    log.write(b"calm\n")
    assert not log.flooded
    log.close()

    assert log.path.read_bytes().replace(b"x" * 99 + b"\n", b"X") == (
        b"XX[mcpd] 4800 bytes suppressed: more than 0.0976562 KiB/s\ncalm\n"
    )


def test_suppressed_bytes_are_told_at_the_end_too(tmp_path: Path, clock: ManualClock) -> None:
    log = StderrLog(tmp_path / "log", clock, rate=1024, burst=10)
    log.write(b"y" * 20)
    log.write(b"y" * 20)
    log.close()

    assert log.path.read_bytes() == b"y" * 20 + b"\n[mcpd] 20 bytes suppressed: more than 1 KiB/s\n"


def test_deleted_file_is_made_again(tmp_path: Path, clock: ManualClock) -> None:
    log = StderrLog(tmp_path / "logs" / "log", clock)
    log.write(b"before\n")
    log.path.unlink()
    log.path.parent.rmdir()
    log.write(b"nobody sees this\n")
    clock.now += RECHECK
    log.write(b"after\n")
    log.close()

    assert log.path.read_bytes() == b"after\n"


def test_file_rotated_by_somebody_else_is_followed(tmp_path: Path, clock: ManualClock) -> None:
    log = StderrLog(tmp_path / "log", clock)
    log.write(b"before\n")
    log.path.rename(tmp_path / "log.old")
    log.path.touch()
    clock.now += RECHECK
    log.write(b"after\n")
    log.close()

    assert (tmp_path / "log.old").read_bytes() == b"before\n"
    assert log.path.read_bytes() == b"after\n"


def test_directory_that_cannot_be_used_loses_bytes_only_for_as_long(tmp_path: Path, clock: ManualClock) -> None:
    blocked = tmp_path / "logs"
    blocked.write_bytes(b"a file where a directory should be")
    log = StderrLog(blocked / "log", clock)
    for _ in range(100):
        log.write(b"lost\n")
        clock.now += 1
    assert log.lost == 500
    assert log.error == "Not a directory"

    blocked.unlink()
    clock.now += RETRY_MAX
    log.write(b"found\n")
    log.close()
    assert log.path.read_bytes() == b"[mcpd] 500 bytes lost: Not a directory\nfound\n"


def test_directory_where_the_file_should_be_stops_nothing(tmp_path: Path, clock: ManualClock) -> None:
    (tmp_path / "log").mkdir()
    log = StderrLog(tmp_path / "log", clock)
    log.write(b"lost\n")

    assert (log.lost, log.error) == (5, "Is a directory")


@pytest.mark.parametrize("kind", ["fifo", "symlink", "device"])
def test_only_a_regular_file_is_written(tmp_path: Path, clock: ManualClock, kind: str) -> None:
    path = tmp_path / "log"
    target = tmp_path / "target"
    target.write_bytes(b"precious")
    if kind == "symlink":
        path.symlink_to(target)
    else:
        os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK) if kind == "fifo" else -1
    log = StderrLog(Path("/dev/null") if kind == "device" else path, clock)
    log.write(b"lost\n")

    assert log.lost == 5
    assert target.read_bytes() == b"precious"
    if reader >= 0:
        os.close(reader)


def test_full_disk_loses_bytes_and_recovers(tmp_path: Path, clock: ManualClock) -> None:
    log = StderrLog(tmp_path / "log", clock)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))  # setrlimit(2): EFBIG, as ENOSPC would come
    try:
        for _ in range(300):
            log.write(b"0123456789")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert log.path.stat().st_size == 1000
    assert log.lost == 2000
    clock.now += RETRY_MAX
    log.write(b"room again\n")
    log.close()

    assert log.path.read_bytes()[1000:].startswith(b"[mcpd] 2000 bytes lost: ")
    assert log.path.read_bytes().endswith(b"room again\n")


def test_rotation_that_fails_never_lets_the_file_grow(tmp_path: Path, clock: ManualClock) -> None:
    (tmp_path / "log.1").mkdir()
    (tmp_path / "log.1" / "in the way").touch()
    log = StderrLog(tmp_path / "log", clock, max_bytes=100, keep=1)
    for _ in range(50):
        log.write(b"z" * 50)
        clock.now += 1
    log.close()

    assert log.path.stat().st_size == 100
    assert log.lost > 2000
