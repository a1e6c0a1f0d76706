"""When the watchdog looks; what it does about what it sees is shown with real children in `sandbox/test_boxes.py`."""

from __future__ import annotations

import asyncio
import os

import msgspec
import pytest

from mcpd.process.tree import Process, look_up
from mcpd.process.watchdog import CROWD, PERIOD, QUIET_PERIOD, SLOT, Overstep, Watchdog
from mcpd.sandbox.limits import Limits

pytestmark = pytest.mark.anyio


class Watched:
    """This very process, as if it were a server's."""

    def __init__(self) -> None:
        self.looked_at: list[float] = []
        self.found: Process | None = None
        self.overstep: asyncio.Future[Overstep] = asyncio.get_running_loop().create_future()

    def members(self) -> list[Process]:
        self.looked_at.append(asyncio.get_running_loop().time())
        return [own] if (own := self.found or look_up(os.getpid())) is not None else []

    def overstepped(self, what: Overstep) -> None:
        self.overstep.set_result(what)


def due(dog: Watchdog) -> float:
    """In how many seconds it looks again."""
    assert dog._timer is not None
    return dog._timer.when() - asyncio.get_running_loop().time()


async def test_looks_of_several_servers_share_a_turn_of_the_loop() -> None:
    loop = asyncio.get_running_loop()
    dogs = [Watchdog(loop, Watched(), Limits(memory=2**40)) for _ in range(3)]
    slots = [dog._timer.when() / (SLOT * PERIOD) for dog in dogs if dog._timer is not None]
    for dog in dogs:
        dog.stop()

    assert slots == pytest.approx([round(slot) for slot in slots])
    assert max(slots) - min(slots) < 2


async def test_a_crowd_is_looked_at_less_often_and_as_often_as_ever_once_it_is_gone() -> None:
    loop, before = asyncio.get_running_loop(), Watchdog.looking
    crowd = [Watchdog(loop, Watched(), Limits(memory=2**40)) for _ in range(2 * CROWD)]
    last = due(crowd[-1])
    for dog in crowd:
        dog.stop()
        dog.stop()
    alone = Watchdog(loop, Watched(), Limits(memory=2**40))
    first = due(alone)
    alone.stop()

    assert (1 - 2 * SLOT) * PERIOD <= first <= PERIOD
    assert (1 - 2 * SLOT) * 2 * PERIOD <= last <= 2.1 * PERIOD
    assert Watchdog.looking == before


async def test_a_tree_that_does_nothing_is_looked_at_less_often_until_it_does_something() -> None:
    watched = Watched()
    own = look_up(os.getpid())
    assert own is not None
    watched.found = own
    dog = Watchdog(asyncio.get_running_loop(), watched, Limits(memory=2**40))
    periods = []
    for busy in (False, False, False, False, True, False):
        if busy:
            watched.found = msgspec.structs.replace(watched.found, cpu_ticks=watched.found.cpu_ticks + 1)
        assert dog._timer is not None
        dog._timer.cancel()
        dog._look()
        periods.append(dog._period)
    dog.stop()

    assert periods == [PERIOD, 2 * PERIOD, QUIET_PERIOD, QUIET_PERIOD, PERIOD, 2 * PERIOD]


async def test_it_looks_no_more_after_an_overstep() -> None:
    before = Watchdog.looking
    watched = Watched()
    dog = Watchdog(asyncio.get_running_loop(), watched, Limits(memory=1))
    async with asyncio.timeout(10):
        found = await watched.overstep

    assert found.failure == "oom-kill"
    assert len(watched.looked_at) == 1
    assert (dog._timer, Watchdog.looking) == (None, before)


async def test_it_does_not_look_where_a_control_group_bounds_it() -> None:
    dog = Watchdog(asyncio.get_running_loop(), Watched(), Limits(memory=1, cgroup=True))

    assert dog._timer is None
