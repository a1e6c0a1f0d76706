"""The executor of the machine: what it does when something goes wrong that should not; where an instance is going."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from mcpd.errors import ServerFault
from mcpd.fleet.instance import EXITS_KEPT, backoff_policy
from mcpd.lifecycle.backoff import BackoffPolicy
from mcpd.lifecycle.events import Gone, Restart, Stop, TimerFired
from mcpd.lifecycle.states import State
from mcpd.process.stop import Rung, StopLadder, StopOutcome
from support.fleets import command, gate, registry, sailing, spec, within
from support.processes import DEADLINE

pytestmark = pytest.mark.anyio


async def test_the_rules_of_the_entry_are_those_of_the_machine() -> None:
    entry = spec("time", restart_delay=1.0, restart_max_delay=9.0, restart_steps=3, stable_after=4.0)

    assert backoff_policy(entry) == BackoffPolicy(1.0, 9.0, 3, 4.0, 100, 600.0, "backoff")


async def test_an_event_that_cannot_come_is_reported_and_does_no_harm(tmp_path: Path) -> None:
    async with sailing(registry(tmp_path, spec("time"))) as ship:
        await ship.ready()

        ship.instance("time").post(Gone(0.0))

        assert ship.state("time") is State.READY
        assert await ship.call("time", "echo") == "{}"


async def test_an_effect_that_fails_costs_the_process_and_no_neighbour(tmp_path: Path) -> None:
    """Here the relay does not know the server any more by the time that it is READY."""
    with gate(tmp_path) as held:
        wanted = registry(tmp_path, spec("time", "mcp_waits.py", str(held.path), restart="no"), spec("other"))
        async with sailing(wanted) as ship:
            await ship.until("time", State.INITIALIZING)
            await ship.ready("other")
            ship.relay.set_servers(registry(tmp_path, spec("other")))

            held.open_()

            await ship.until("time", State.FAILED)
            assert ship.instance("time").machine.last_exit is not None
            assert "resources: internal error" in str(ship.instance("time").machine.last_exit)
            assert await ship.call("other", "echo") == "{}"


async def test_a_missing_secret_is_an_exec_failure_that_names_it(tmp_path: Path) -> None:
    async with sailing(registry(tmp_path, spec("time", env={"KEY": {"secret": "github"}}))) as ship:
        await ship.until("time", State.FAILED)

        assert "servers.time.env.KEY" in str(ship.instance("time").machine.last_exit)


async def test_heading_says_where_it_is_going(tmp_path: Path) -> None:
    with gate(tmp_path) as held:
        async with sailing(registry(tmp_path, spec("time", drain_timeout=5.0))) as ship:
            await ship.ready()
            one = ship.instance("time")
            call = asyncio.ensure_future(ship.call("time", "hold", path=str(held.path)))
            await asyncio.sleep(0)
            assert one.heading is State.READY

            one.post(Restart(one.now()))
            assert (one.state, one.heading) == (State.STOPPING, State.STARTING)
            one.post(Stop(one.now()))
            assert (one.state, one.heading) == (State.STOPPING, State.STOPPED)

            held.open_()
            await within(call)


async def test_what_cannot_be_killed_is_abandoned_loudly_and_nothing_is_started_beside_it(tmp_path: Path) -> None:
    """A process in state D cannot be had in a test: here the ladder says that it met one."""
    async with sailing(registry(tmp_path, spec("time"), spec("other"))) as ship:
        await ship.ready()
        one = ship.instance("time")
        child = ship.child("time")

        async def in_vain(ladder: StopLadder) -> StopOutcome:
            return StopOutcome(Rung.ABANDONED, None, 15.0, left=2)

        child.stop = in_vain  # type: ignore[method-assign]
        outcome = await command(ship.fleet.stop("time"))
        assert (outcome.ok, outcome.state) == (False, "ABANDONED")
        assert outcome.reason == f"timeout: 2 of its processes outlived SIGKILL (process {child.pid})"
        assert (await command(ship.fleet.start("time"))).state == "ABANDONED"
        with pytest.raises(ServerFault, match="could not be ended"):
            await within(ship.call("time", "echo"))
        assert await ship.call("other", "echo") == "{}"
        assert ship.fleet.server("time").status.last_error is not None

        del child.stop  # type: ignore[method-assign]
        one.post(TimerFired(one.now()))  # the next try: the disk it waited for is back

        await ship.ready("time", generation=2)


async def test_the_daemons_end_does_not_wait_for_the_abandoned(tmp_path: Path) -> None:
    async with sailing(registry(tmp_path, spec("time"))) as ship:
        await ship.ready()
        child = ship.child("time")

        async def in_vain(ladder: StopLadder) -> StopOutcome:
            return StopOutcome(Rung.ABANDONED, None, 15.0, left=1)

        child.stop = in_vain  # type: ignore[method-assign]
        await within(ship.fleet.stop_all())
        assert ship.state("time") is State.ABANDONED
        del child.stop  # type: ignore[method-assign]


@pytest.mark.parametrize("state", [State.STARTING, State.STOPPING])
async def test_an_error_of_a_task_is_told_to_the_machine(tmp_path: Path, state: State) -> None:
    async def breaks() -> None:
        raise RuntimeError("a bug")

    with gate(tmp_path) as held:
        wanted = registry(
            tmp_path,
            spec("db", "mcp_waits.py", str(held.path)),
            spec("app", after=("db",), restart="no"),
            spec("time", drain_timeout=5.0),
        )
        async with sailing(wanted) as ship:
            await ship.ready("time")
            if state is State.STARTING:
                ship.instance("app")._start("bug", breaks)
                await ship.until("app", State.FAILED)
                assert "internal error: RuntimeError('a bug')" in ship.reasons("app")[-1]
            else:
                call = asyncio.ensure_future(ship.call("time", "hold", path=str(held.path)))
                await asyncio.sleep(0)
                one = ship.instance("time")
                one.post(Stop(one.now()))
                one._start("bug", breaks)
                await ship.until("time", State.ABANDONED)
                held.open_()
                held.open_()
                await asyncio.gather(call, return_exceptions=True)
                await ship.until("time", State.STOPPED)


async def test_the_history_of_exits_is_bounded(tmp_path: Path) -> None:
    dies = spec("dies", "ends_with.py", "3", restart_delay=0.001, restart_max_delay=0.001)
    async with sailing(registry(tmp_path, dies)) as ship:
        await ship.until("dies", State.BACKOFF, generation=EXITS_KEPT + 3, timeout=6 * DEADLINE)

        assert len(ship.instance("dies").exits) == EXITS_KEPT
        assert ship.fleet.server("dies").status.restarts >= EXITS_KEPT + 2


async def test_never_two_processes_of_one_instance(tmp_path: Path) -> None:
    """A storm of commands and kills; the kernel is asked how many there are whenever a state changes."""
    async with sailing(registry(tmp_path, spec("time"))) as ship:
        await ship.ready()
        one = ship.instance("time")
        pids: set[int] = set()
        for number in range(30):
            if one.incarnation is not None:
                pids.add(one.incarnation.child.pid)
                alive = [pid for pid in pids if os.path.exists(f"/proc/{pid}")]
                assert len(alive) <= 1
            match number % 3:
                case 0:
                    one.post(Restart(one.now()))
                case 1 if one.incarnation is not None and one.incarnation.child.status is None:
                    os.kill(one.incarnation.child.pid, signal.SIGKILL)
                case _:
                    await ship.until("time", State.READY, State.BACKOFF, State.INITIALIZING)
        await ship.ready("time")
        assert len(pids) > 5
