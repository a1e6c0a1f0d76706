"""Trees, strays and orphans: real ones, in processes that can be killed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from mcpd.process import tree
from support.processes import CHILDREN, DEADLINE, Lifeline, script

TESTS = CHILDREN.parent


@contextmanager
def parent(mode: str, *args: str) -> Iterator[subprocess.Popen[str]]:
    """`support.parent`, ended with the test in any case."""
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join([str(TESTS), *filter(None, sys.path)])}
    command = (sys.executable, "-m", "support.parent", mode, *args)
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=DEADLINE)


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.anyio
@pytest.mark.parametrize("how", ["plain", "setsid", "daemon"])
async def test_nothing_survives_when_its_daemon_is_killed(tmp_path: Path, how: str) -> None:
    lifeline = Lifeline(tmp_path)
    with parent("contained", "cookie-of-killed", str(tmp_path), str(lifeline.path), how) as daemon:
        assert first_line(daemon) == "ready"

        daemon.kill()
        await lifeline.cut(2)
    lifeline.close()
    assert await until_none("cookie-of-killed") == []


@pytest.mark.anyio
async def test_strays_of_a_killed_daemon_are_ended_at_the_next_start(tmp_path: Path) -> None:
    lifeline = Lifeline(tmp_path)
    with parent("bare", "cookie-of-strays", str(tmp_path), str(lifeline.path), "daemon") as daemon:
        assert first_line(daemon) == "ready"
        daemon.kill()
        daemon.wait(DEADLINE)

    with parent("strays", "cookie-of-others", str(tmp_path)) as successor:
        assert first_line(successor) == "0 0"
    assert len(tree.carriers("cookie-of-strays")) >= 1
    with parent("strays", "cookie-of-strays", str(tmp_path)) as successor:
        assert first_line(successor).endswith(" 0")
    await lifeline.cut()
    lifeline.close()
    assert tree.carriers("cookie-of-strays") == []


def test_own_children_are_no_strays() -> None:
    cookie = f"cookie-of-own-{os.getpid()}"  # no other test run of this machine has the same
    environ = {**os.environ, "MCPD_COOKIE": f"{cookie}.1"}
    with subprocess.Popen(script("stops_reading.py"), env=environ, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"

            assert [found.pid for found in tree.carriers(cookie)] == [process.pid]
            assert tree.carriers(cookie[:-1]) == []
            assert tree.find_strays(cookie) == []
        finally:
            process.kill()


@pytest.mark.parametrize("how", ["plain", "daemon"])
def test_orphans_that_became_ours_are_collected(tmp_path: Path, how: str) -> None:
    lifeline = Lifeline(tmp_path)
    with parent("adopt", "cookie-of-adopted", str(tmp_path), str(lifeline.path), how) as daemon:
        assert first_line(daemon) == "stdin-closed 0 []"
    lifeline.close()


def test_signal_reaches_only_the_process_that_was_meant() -> None:
    with subprocess.Popen(script("ignores_eof.py"), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        seen = tree.look_up(process.pid)
        assert seen is not None

        impostor = replace(seen, started=seen.started + 1)
        assert tree.signal_each([impostor], signal.SIGTERM) == 0
        assert tree.open_process(impostor) is None
        assert process.poll() is None
        assert tree.signal_each([seen], signal.SIGCONT, signal.SIGTERM) == 1
        assert process.wait(DEADLINE) == 7
        assert tree.signal_each([seen], signal.SIGTERM) == 0


def test_dead_children_of_nobody_are_collected_after_a_while() -> None:
    adopted = tree.Adopted()
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)

    assert adopted.reap() == 0
    deadline = time.monotonic() + DEADLINE
    while adopted.reap() == 0:
        assert time.monotonic() < deadline
        os.sched_yield()
    assert pid not in tree.children(os.getpid())


def test_descendants_are_found_by_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen(script("forks_on.py", "2"), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"

        quick = tree.descendants(process.pid)
        monkeypatch.setattr(tree, "_HAS_CHILDREN_FILES", False)
        slow = tree.descendants(process.pid)
        assert sorted(p.pid for p in quick) == sorted(p.pid for p in slow)
        assert len(quick) == 2
        tree.signal_each(quick, signal.SIGKILL)
        process.kill()


def test_cookie_is_one_for_each_directory_and_lasts(tmp_path: Path) -> None:
    assert tree.cookie_for(tmp_path) == tree.cookie_for(tmp_path / "x" / "..")
    assert tree.cookie_for(tmp_path) != tree.cookie_for(tmp_path / "x")


async def until_none(cookie: str) -> list[tree.Process]:
    """What still carries the cookie when it has had the time to die."""
    deadline = time.monotonic() + DEADLINE
    while (left := tree.carriers(cookie)) and time.monotonic() < deadline:
        await asyncio.sleep(0.01)
    return left
