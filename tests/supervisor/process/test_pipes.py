"""The two pipes alone, with the test at the other end."""

from __future__ import annotations

import asyncio
import itertools
import os

import pytest

from mcpd.process.pipes import FRAMES_A_TURN, FrameReader, FrameWriter, waiting
from support.waiting import until

pytestmark = pytest.mark.anyio


def pipe() -> tuple[int, int]:
    read, write = os.pipe()
    os.set_blocking(read, False)
    os.set_blocking(write, False)
    return read, write


async def test_frames_of_one_turn_are_one_write() -> None:
    read, write = pipe()
    writer = FrameWriter(asyncio.get_running_loop(), write, lambda: None)
    for word in (b"one", b"two", b"three"):
        assert writer.offer(word)
    assert waiting(read) == 0
    assert writer.queued == 14

    await asyncio.sleep(0)
    assert os.read(read, 100) == b"one\ntwo\nthree\n"
    assert writer.queued == 0
    writer.close()
    assert os.read(read, 1) == b""
    os.close(read)


async def test_close_writes_what_it_can_and_refuses_more() -> None:
    read, write = pipe()
    writer = FrameWriter(asyncio.get_running_loop(), write, lambda: None)
    writer.offer(b"last")
    writer.close()
    writer.close()

    assert not writer.offer(b"too late")
    assert os.read(read, 100) == b"last\n"
    assert os.read(read, 100) == b""
    os.close(read)


async def test_close_of_a_full_pipe_drops_the_rest() -> None:
    read, write = pipe()
    writer = FrameWriter(asyncio.get_running_loop(), write, lambda: None)
    assert writer.offer(b"x" * 1_000_000)
    await asyncio.sleep(0)
    left = writer.queued
    assert 0 < left < 1_000_000
    writer.close()

    assert writer.queued == 0
    assert waiting(read) == 1_000_001 - left
    os.close(read)


async def test_queue_is_bounded_in_bytes() -> None:
    read, write = pipe()
    writer = FrameWriter(asyncio.get_running_loop(), write, lambda: None, limit=100)

    assert not writer.offer(b"x" * 100)
    assert writer.offer(b"x" * 59)
    assert not writer.offer(b"x" * 40)
    assert writer.offer(b"x" * 39)
    await asyncio.sleep(0)
    assert writer.offer(b"x" * 99)
    writer.close()
    os.close(read)


async def test_broken_pipe_is_told_once() -> None:
    read, write = pipe()
    told: list[str] = []
    writer = FrameWriter(asyncio.get_running_loop(), write, lambda: told.append("broken"))
    os.close(read)
    assert writer.offer(b"anybody?")
    writer.close()

    assert told == ["broken"]
    assert not writer.offer(b"no")


async def test_flood_of_frames_leaves_turns_to_others() -> None:
    read, write = pipe()
    loop = asyncio.get_running_loop()
    frames: list[bytes] = []
    ended = asyncio.Event()
    reader = FrameReader(loop, read, frames.append, lambda *_: None, ended.set)
    os.write(write, b"".join(b"%d\n" % number for number in range(9000)))
    os.close(write)

    seen = [0]
    while not ended.is_set():
        await asyncio.sleep(0)
        seen.append(len(frames))
    steps = [after - before for before, after in itertools.pairwise(seen)]
    assert max(steps) <= 2 * FRAMES_A_TURN
    assert frames == [b"%d" % number for number in range(9000)]
    reader.finish()


async def test_finish_delivers_the_backlog_and_what_is_in_the_pipe() -> None:
    read, write = pipe()
    frames: list[bytes] = []
    noises: list[tuple[str, bytes]] = []
    reader = FrameReader(
        asyncio.get_running_loop(),
        read,
        frames.append,
        lambda kind, sample: noises.append((kind, sample)),
        lambda: None,
    )
    os.write(write, b"a\n" * 5000)
    await until(lambda: frames)
    os.write(write, b"b\nhalf")
    reader.finish()
    reader.finish()
    for _ in range(3):
        await asyncio.sleep(0)

    assert frames == [b"a"] * 5000 + [b"b"]
    assert noises == [("unfinished", b"half")]
    with pytest.raises(BrokenPipeError):
        os.write(write, b"closed")
    os.close(write)


async def test_end_is_told_once_and_noise_named() -> None:
    read, write = pipe()
    told: list[object] = []
    reader = FrameReader(
        asyncio.get_running_loop(),
        read,
        told.append,
        lambda kind, sample: told.append((kind, sample)),
        lambda: told.append("end"),
        limit=300,
    )
    os.write(write, b"\xef\xbb\xbfshort\r\n" + b"l" * 1000 + b"\n\nrest")
    os.close(write)
    await until(lambda: "end" in told)
    reader.finish()

    assert told == [b"short", ("overlong", b"l" * 256), ("unfinished", b"rest"), "end"]
