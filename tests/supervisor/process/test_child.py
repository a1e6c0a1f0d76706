"""Children with one bad habit each, really started. After every test: nothing left, descriptors back, others answer."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from mcpd.process import tree
from mcpd.process.exits import ExitStatus
from mcpd.process.stderr import TAIL, StderrLog
from mcpd.process.stop import Rung, StopLadder
from support.processes import FAST, Lifeline, household, launch_plan, script
from support.waiting import until

pytestmark = pytest.mark.anyio

PATIENT = StopLadder(5, 5, 5)
"""For children that take the first hint: a machine under load must not make it the second."""


async def test_what_is_offered_comes_back_in_order(tmp_path: Path, contained: bool) -> None:
    async with household(tmp_path, contained=contained) as home:
        child, heard = home.spawn("echo.py")
        frames = [b"%d" % number for number in range(1000)] + [b"x" * 300_000, b"end"]
        assert all(child.offer(frame) for frame in frames)

        assert await heard.until_frames(len(frames)) == frames
        assert child.queued == 0


async def test_frame_with_a_line_break_is_refused(tmp_path: Path) -> None:
    async with household(tmp_path) as home:
        child, _ = home.spawn("echo.py")

        for forged in (b"a\nb", b"a\rb", b"a\n"):
            with pytest.raises(ValueError, match="line breaks"):
                child.offer(forged)


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("0", ExitStatus(code=0)),
        ("7", ExitStatus(code=7)),
        (str(-signal.SIGKILL), ExitStatus(signal=signal.SIGKILL)),
        (str(-signal.SIGSEGV), ExitStatus(signal=signal.SIGSEGV)),
    ],
)
async def test_exit_is_reported_once_with_its_status(
    tmp_path: Path, contained: bool, how: str, expected: ExitStatus
) -> None:
    async with household(tmp_path, contained=contained) as home:
        child, heard = home.spawn("ends_with.py", how)

        assert await heard.until_exit() == expected
        assert child.status == expected
        assert not child.offer(b"too late")
        assert (await child.stop(FAST)).rung is Rung.ALREADY_GONE
        assert heard.exits == 1
        assert not heard.stdout_is_closed


async def test_all_that_was_written_is_delivered_before_the_exit(tmp_path: Path, contained: bool) -> None:
    async with household(tmp_path, contained=contained) as home:
        _, heard = home.spawn("bursts.py", "40000")

        await heard.until_exit()
        assert heard.frames == [b"%d" % number for number in range(40000)]


async def test_line_break_at_every_byte_gives_the_same_frames(tmp_path: Path) -> None:
    async with household(tmp_path) as home:
        _, heard = home.spawn("trickles.py", "one", "two", "three")

        assert await heard.until_frames(3) == [b"one", b"two", b"three"]


async def test_overlong_line_is_discarded_and_the_next_arrives(tmp_path: Path) -> None:
    async with household(tmp_path) as home:
        _, heard = home.spawn("long_line.py", str(100_000_000), line_limit=1 << 20)

        assert await heard.until_frames(1, 20) == [b"short"]
        assert [(kind, len(sample)) for kind, sample in heard.noises] == [("overlong", 256)]


async def test_half_a_line_is_told_at_the_end(tmp_path: Path) -> None:
    async with household(tmp_path) as home:
        child, heard = home.spawn("half_line.py")

        await child.stop(FAST)
        assert heard.frames == []
        assert heard.noises == [("unfinished", b'{"jsonrpc":"2.0","id')]


async def test_closed_stdout_of_a_living_process_is_told(tmp_path: Path, contained: bool) -> None:
    async with household(tmp_path, contained=contained) as home:
        child, heard = home.spawn("closes_stdout.py")

        await heard.until(lambda: heard.stdout_is_closed)
        assert heard.frames == [b"last words"]
        assert child.status is None
        assert (await child.stop(PATIENT)).rung is Rung.STDIN_CLOSED


async def test_closed_stdin_is_told_and_refuses_frames(tmp_path: Path, contained: bool) -> None:
    async with household(tmp_path, contained=contained) as home:
        child, heard = home.spawn("closes_stdin.py")
        await heard.until_frames(1)

        child.offer(b"anybody?")
        await heard.until(lambda: heard.stdin_is_broken)
        assert not child.offer(b"no")
        assert child.status is None


async def test_child_that_stops_reading_fills_a_bounded_queue_and_can_be_stopped(tmp_path: Path) -> None:
    async with household(tmp_path) as home:
        child, heard = home.spawn("stops_reading.py", queue_limit=1 << 20)
        await heard.until_frames(1)

        taken = 0
        while child.offer(b"x" * 9999):
            taken += 10_000
            await asyncio.sleep(0)
        assert 1_000_000 < taken < 1_300_000
        assert child.queued <= 1 << 20
        outcome = await child.stop(StopLadder(0.1, 5, 5))
        assert outcome.rung is Rung.TERMINATED
        assert outcome.status == ExitStatus(signal=signal.SIGTERM)


async def test_partial_writes_lose_and_repeat_nothing(tmp_path: Path) -> None:
    async with household(tmp_path) as home:
        child, heard = home.spawn("reads_slowly.py")
        frames = [bytes([65 + number % 26]) * (number * 37 % 5000) for number in range(1500)]
        lines = b"".join(frame + b"\n" for frame in frames)
        for frame in frames:
            assert child.offer(frame)
            if len(frame) % 7 == 0:
                await asyncio.sleep(0)

        await until(lambda: not child.queued)
        child.close_stdin()
        await heard.until_exit()
        assert heard.frames == [f"{len(frames)} {len(lines)} {hashlib.sha256(lines).hexdigest()}".encode()]


@pytest.mark.parametrize(
    ("habit", "ladder", "rung", "status"),
    [
        ("echo.py", PATIENT, Rung.STDIN_CLOSED, ExitStatus(code=0)),
        ("ignores_eof.py", StopLadder(0.2, 5, 5), Rung.TERMINATED, ExitStatus(code=7)),
        ("ignores_term.py", StopLadder(0.2, 0.2, 5), Rung.KILLED, ExitStatus(signal=signal.SIGKILL)),
    ],
)
async def test_ladder_goes_down_as_far_as_needed(
    tmp_path: Path, contained: bool, habit: str, ladder: StopLadder, rung: Rung, status: ExitStatus
) -> None:
    async with household(tmp_path, contained=contained) as home:
        child, heard = home.spawn(habit)
        if habit != "echo.py":
            await heard.until_frames(1)

        outcome = await child.stop(ladder)
        assert (outcome.rung, outcome.status, outcome.left) == (rung, status, 0)
        assert heard.exits == 1


async def test_stopped_process_is_woken_to_take_the_signal(tmp_path: Path, contained: bool) -> None:
    async with household(tmp_path, contained=contained) as home:
        child, heard = home.spawn("ignores_eof.py")
        await heard.until_frames(1)
        assert child.server_pid is not None
        os.kill(child.server_pid, signal.SIGSTOP)

        outcome = await child.stop(StopLadder(0.1, 5, 5))
        assert outcome.rung is Rung.TERMINATED
        assert outcome.status == ExitStatus(code=7)


async def test_stop_goes_on_when_its_caller_is_cancelled(tmp_path: Path) -> None:
    async with household(tmp_path) as home:
        child, heard = home.spawn("ignores_term.py")
        await heard.until_frames(1)

        with pytest.raises(TimeoutError):
            await asyncio.wait_for(child.stop(StopLadder(0.2, 0.2, 5)), 0.05)
        assert await heard.until_exit() == ExitStatus(signal=signal.SIGKILL)


async def test_second_stop_makes_the_first_one_faster(tmp_path: Path) -> None:
    async with household(tmp_path) as home:
        child, heard = home.spawn("ignores_term.py")
        await heard.until_frames(1)

        async with asyncio.timeout(5), asyncio.TaskGroup() as group:
            slow = group.create_task(child.stop(StopLadder(60, 60, 60)))
            await asyncio.sleep(0)
            fast = group.create_task(child.stop(StopLadder(0, 0, 5)))
        assert slow.result() == fast.result()
        assert slow.result().rung is Rung.KILLED


@pytest.mark.parametrize("how", ["plain", "setsid", "daemon"])
async def test_grandchild_that_holds_stdout_delays_nothing_and_does_not_survive(
    tmp_path: Path, contained: bool, how: str
) -> None:
    lifeline = Lifeline(tmp_path)
    async with household(tmp_path, contained=contained) as home:
        child, heard = home.spawn("leaves_grandchild.py", str(lifeline.path), how)

        assert await heard.until_exit() == ExitStatus(code=3)
        assert heard.frames == [b"ready"]
        outcome = await child.stop(FAST)
        assert (outcome.rung, outcome.left) == (Rung.ALREADY_GONE, 0)
        await lifeline.cut()
    lifeline.close()


@pytest.mark.parametrize("how", ["plain", "setsid", "daemon"])
async def test_grandchildren_end_with_a_stop(tmp_path: Path, contained: bool, how: str) -> None:
    lifeline = Lifeline(tmp_path)
    async with household(tmp_path, contained=contained) as home:
        child, heard = home.spawn("leaves_grandchild.py", str(lifeline.path), how, "wait")
        await heard.until_frames(1)

        outcome = await child.stop(PATIENT)
        assert (outcome.rung, outcome.left) == (Rung.STDIN_CLOSED, 0)
        await lifeline.cut()
    lifeline.close()


async def test_sibling_that_ignores_the_signal_goes_too(tmp_path: Path, contained: bool) -> None:
    lifeline = Lifeline(tmp_path)
    async with household(tmp_path, contained=contained) as home:
        child, heard = home.spawn("stubborn_sibling.py", str(lifeline.path))
        await heard.until_frames(1)

        outcome = await child.stop(StopLadder(0.1, 5, 5))
        assert (outcome.rung, outcome.status, outcome.left) == (
            Rung.TERMINATED,
            ExitStatus(signal=signal.SIGTERM),
            0,
        )
        await lifeline.cut()
    lifeline.close()


async def test_flood_on_stderr_blocks_nobody(tmp_path: Path, contained: bool) -> None:
    log = StderrLog(tmp_path / "flood.log", rate=64 * 1024, burst=128 * 1024)
    async with household(tmp_path, contained=contained) as home:
        size = 8 << 20
        child, heard = home.spawn("floods_stderr.py", str(size), log=log)

        assert await heard.until_frames(1) == [b"done"]
        await child.stop(FAST)
        assert child.stderr_tail == b"x" * TAIL
        assert log.suppressed > size // 2
        log.close()
        text = (tmp_path / "flood.log").read_bytes()
        assert text.count(b"x") + log.suppressed == size
        assert text.endswith(b"bytes suppressed: more than 64 KiB/s\n")


async def test_child_gets_exactly_what_the_plan_says(tmp_path: Path, contained: bool) -> None:
    async with household(tmp_path, contained=contained) as home:
        env = {"PATH": "/usr/bin:/bin", "WORD": "é = 1"}
        planned = launch_plan(*script("shows_itself.py", "a b", ""), env=env, cwd=str(tmp_path), contained=contained)
        child, heard = home.spawn_plan(planned)

        about = json.loads((await heard.until_frames(1))[0])
        assert about["argv"] == ["a b", ""]
        cookie = about["env"].pop("MCPD_COOKIE")
        assert cookie.startswith(planned.cookie + ".")
        assert about["env"] == {**env, "PWD": str(tmp_path)} if contained else env
        assert about["fds"] == [0, 1, 2]
        assert about["cwd"] == str(tmp_path)
        assert about["blocking"] == [True, True, True]
        if contained:
            assert about["processes"] == 2
        else:
            assert about["pid"] == child.server_pid == child.pid


async def test_server_process_is_known_from_outside(tmp_path: Path) -> None:
    async with household(tmp_path) as home:
        child, heard = home.spawn("ignores_eof.py")
        await heard.until_frames(1)

        assert child.server_pid is not None
        command = Path(f"/proc/{child.server_pid}/cmdline").read_bytes()
        assert b"ignores_eof.py" in command
        assert b"bwrap" not in command
        await child.stop(FAST)
        assert child.server_pid is None


async def test_usage_counts_the_whole_tree(tmp_path: Path, contained: bool) -> None:
    async with household(tmp_path, contained=contained) as home:
        child, heard = home.spawn("forks_on.py", "3")
        await heard.until_frames(1)

        usage = child.usage(pss=True)
        assert usage.processes == 4
        assert usage.rss > 16 << 20
        assert usage.pss is not None
        assert 16 << 20 < usage.pss < usage.rss
        assert usage.cpu_seconds > 0
        await child.stop(FAST)
        assert child.usage().processes == 0


async def test_command_that_only_the_kernel_refuses_is_an_exec_failure(tmp_path: Path, contained: bool) -> None:
    program = tmp_path / "busy"
    shutil.copy("/bin/true", program)
    async with household(tmp_path, contained=contained) as home:
        with program.open("ab"):  # execve(2), ETXTBSY: open for writing
            _, heard = home.spawn_plan(launch_plan(str(program), contained=contained))
            status = await heard.until_exit()

        assert status.result == "exec"
        assert "busy" in str(status)


async def test_kill_ends_the_tree_at_once(tmp_path: Path, contained: bool) -> None:
    async with household(tmp_path, contained=contained) as home:
        child, heard = home.spawn("forks_on.py", "2")
        await heard.until_frames(1)

        child.kill()
        assert (await heard.until_exit()).signal == signal.SIGKILL
        assert (await child.stop(FAST)).left == 0


async def test_hundred_children_one_after_another_leave_nothing(tmp_path: Path) -> None:
    async with household(tmp_path) as home:
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(100):
            child, heard = home.spawn_plan(launch_plan("/bin/true"), home.logs[0])
            await heard.until_exit()
            await child.stop(FAST)
        assert len(os.listdir("/proc/self/fd")) <= before
        assert tree.children(os.getpid()) == [home.started[0].pid]
