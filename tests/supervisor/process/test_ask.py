"""A command of the operator's is run plainly, and never for long."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from mcpd.process.ask import COMPLAINT, Answer, ask

pytestmark = pytest.mark.anyio
ENV = {"PATH": os.environ["PATH"]}


async def shell(script: str, *, patience: float = 10.0, most: int = 1000) -> Answer:
    return await ask(("sh", "-c", script), ENV, patience=patience, most=most)


async def test_what_it_says_and_how_it_ends_is_told() -> None:
    answer = await shell("printf out; printf err >&2; exit 3")
    assert (answer.code, answer.output, answer.complaint) == (3, b"out", b"err")
    assert "out" not in repr(answer)
    assert (await shell("kill -9 $$")).code == -9


async def test_its_stdin_is_empty_and_its_environment_what_it_was_given() -> None:
    answer = await ask(("sh", "-c", "cat; exec env"), {**ENV, "ONE": "1"}, patience=10, most=1000)
    assert sorted(line.partition(b"=")[0] for line in answer.output.split()) == [b"ONE", b"PATH", b"PWD"]


async def test_it_is_the_leader_of_a_session_of_its_own() -> None:
    answer = await shell("ps -o sid= -p $$; echo $$")
    assert len(set(answer.output.split())) == 1


async def test_what_says_too_much_is_ended() -> None:
    answer = await shell("yes", most=100_000)
    assert answer.code is None
    assert 100_000 < len(answer.output) < 300_000


async def test_of_complaints_the_end_is_kept() -> None:
    answer = await shell("head -c 100000 /dev/zero >&2; echo the end >&2")
    assert len(answer.complaint) == COMPLAINT
    assert answer.complaint.endswith(b"the end\n")


async def test_what_does_not_end_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "alive")
    reader = os.open(tmp_path / "alive", os.O_RDONLY | os.O_NONBLOCK)
    try:
        with pytest.raises(TimeoutError):
            await shell(f"exec 7>{tmp_path}/alive; sleep 60 & sleep 60", patience=0.5)
        await end_of(reader)
    finally:
        os.close(reader)


async def test_cancelled_it_is_killed(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "alive")
    reader = os.open(tmp_path / "alive", os.O_RDONLY | os.O_NONBLOCK)
    try:
        task = asyncio.ensure_future(shell(f"echo up > {tmp_path}/alive; exec 7>{tmp_path}/alive; exec sleep 60"))
        assert await readable(reader) == b"up\n"
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await end_of(reader)
    finally:
        os.close(reader)


async def test_what_it_leaves_running_is_not_waited_for() -> None:
    async with asyncio.timeout(5):
        answer = await shell("echo value; sleep 3 &")
    assert (answer.code, answer.output) == (0, b"value\n")


async def test_what_cannot_be_run_is_an_error() -> None:
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(FileNotFoundError):
        await ask(("/no/such/program",), ENV, patience=1, most=1)
    assert set(os.listdir("/proc/self/fd")) <= before


async def readable(fd: int) -> bytes:
    """The next bytes of a fifo."""
    loop = asyncio.get_running_loop()
    there = loop.create_future()
    loop.add_reader(fd, lambda: there.done() or there.set_result(None))
    try:
        async with asyncio.timeout(5):
            await there
    finally:
        loop.remove_reader(fd)
    return os.read(fd, 100)


async def end_of(fd: int) -> None:
    """Nobody has the fifo open for writing any more: whoever did has ended."""
    while await readable(fd):
        pass
