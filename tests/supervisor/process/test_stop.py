"""The ladder with a child that nothing ends: the one thing that cannot be had for real."""

from __future__ import annotations

import asyncio
import signal

import pytest

from mcpd.process.exits import ExitStatus
from mcpd.process.stop import Ending, Rung, StopLadder

pytestmark = pytest.mark.anyio

QUICK = StopLadder(0.01, 0.01, 0.05)


class Unkillable:
    """Stays in uninterruptible sleep until it is allowed to go."""

    def __init__(self) -> None:
        self.status: ExitStatus | None = None
        self.left = 1
        self.done: list[object] = []

    def close_stdin(self) -> None:
        self.done.append("stdin")

    def signal_tree(self, *numbers: int) -> None:
        self.done.append(numbers)

    def kill_tree(self) -> None:
        self.done.append("kill")

    def remains(self) -> int:
        return self.left


async def test_process_that_nothing_ends_is_abandoned_and_can_be_tried_again() -> None:
    child = Unkillable()
    ending = Ending(asyncio.get_running_loop(), child)

    ending.begin(QUICK)
    outcome = await asyncio.wait_for(ending.done, 5)
    assert (outcome.rung, outcome.status, outcome.left) == (Rung.ABANDONED, None, 1)
    assert child.done == ["stdin", (signal.SIGTERM, signal.SIGCONT), "kill"]

    ending.begin(QUICK)
    child.status, child.left = ExitStatus(signal=9), 0
    ending.exited()
    outcome = await asyncio.wait_for(ending.done, 5)
    assert (outcome.rung, outcome.status, outcome.left) == (Rung.KILLED, ExitStatus(signal=9), 0)


async def test_tree_that_outlives_its_leader_is_abandoned_in_the_end() -> None:
    child = Unkillable()
    ending = Ending(asyncio.get_running_loop(), child)
    ending.begin(StopLadder(5, 5, 0.05))

    child.status = ExitStatus(code=0)
    ending.exited()
    outcome = await asyncio.wait_for(ending.done, 5)
    assert (outcome.rung, outcome.status, outcome.left) == (Rung.ABANDONED, ExitStatus(code=0), 1)
    assert child.done.count("kill") > 1

    child.left = 0
    ending.begin(QUICK)
    assert (await asyncio.wait_for(ending.done, 5)).left == 0


async def test_late_end_of_an_abandoned_process_changes_no_outcome() -> None:
    child = Unkillable()
    ending = Ending(asyncio.get_running_loop(), child)
    ending.begin(QUICK)
    outcome = await asyncio.wait_for(ending.done, 5)

    child.status, child.left = ExitStatus(signal=9), 0
    ending.exited()
    assert ending.done.result() == outcome


def test_ladder_follows_the_stop_timeout() -> None:
    assert StopLadder.of(2.0) == StopLadder(2.0, 2.0, 5.0)
    assert StopLadder(1, 9, 5).faster(StopLadder(9, 1, 6)) == StopLadder(1, 1, 5)
