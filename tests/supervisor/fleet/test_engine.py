"""The engine with real children: starts, order, deaths, the end."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from mcpd.errors import Overloaded, ServerFault
from mcpd.lifecycle.backoff import RestartAlarm
from mcpd.lifecycle.states import State
from support.fleets import (
    Ship,
    command,
    gate,
    load_registry,
    registry,
    sailing,
    shared,
    spec,
    within,
)
from support.processes import Lifeline

pytestmark = pytest.mark.anyio


# -- Starting ----------------------------------------------------------------------------------------------------------


async def test_servers_become_ready_with_their_lists_known_and_take_calls(tmp_path: Path) -> None:
    async with sailing(registry(tmp_path, spec("one"), spec("two"))) as ship:
        await ship.ready()

        assert [(one.name, one.state, one.tools) for one in ship.fleet.servers()] == [
            ("one", "READY", 7),
            ("two", "READY", 7),
        ]
        assert await ship.call("two", "echo", text="hi") == '{"text": "hi"}'
        assert ship.transitions("one") == [
            ("STOPPED", "STARTING"),
            ("STARTING", "INITIALIZING"),
            ("INITIALIZING", "READY"),
        ]


async def test_servers_that_cannot_start_hinder_nobody(tmp_path: Path) -> None:
    wanted = registry(
        tmp_path,
        spec("dies", "ends_with.py", "3", start_limit_action="fail", start_limit_burst=2),
        spec("silent", "mcp_silent.py", start_timeout=0.3, restart="no"),
        spec("missing", command=("/nowhere/server",)),
        spec("refuses", "mcp_refuses.py", restart="no"),
        spec("future", "mcp_future.py", restart="no"),
        spec("good"),
    )
    async with sailing(wanted) as ship:
        await ship.ready("good")
        for name in ("dies", "silent", "missing", "refuses", "future"):
            await ship.until(name, State.FAILED)

        errors = {one.name: one.last_error or "" for one in ship.fleet.servers()}
        assert errors["dies"].startswith("start-limit-hit: 2 starts within 600 s; the last ended by exit-code")
        assert errors["silent"].startswith("timeout: not initialised within start_timeout (0.3 s)")
        assert errors["missing"].startswith("exec: could not be executed: /nowhere/server: not found")
        assert "error -32600: not today" in errors["refuses"]
        assert "revision '2031-01-01'" in errors["future"]
        assert await ship.call("good", "echo") == "{}"


async def test_no_more_than_the_allowed_number_start_at_once(tmp_path: Path) -> None:
    with gate(tmp_path) as held:
        wanted = registry(tmp_path, spec("first", "mcp_waits.py", str(held.path)), spec("second"), starts=1)
        async with sailing(wanted) as ship:
            await ship.until("first", State.INITIALIZING)
            assert ship.state("second") is State.STARTING

            held.open_()
            await ship.ready()

            changes = [(one.instance, one.new) for one in ship.events() if one.new in ("INITIALIZING", "READY")]
            assert changes == [
                ("first", "INITIALIZING"),
                ("first", "READY"),
                ("second", "INITIALIZING"),
                ("second", "READY"),
            ]


async def test_a_server_that_comes_after_another_waits_until_that_is_ready(tmp_path: Path) -> None:
    with gate(tmp_path) as held:
        wanted = registry(tmp_path, spec("app", after=("db",)), spec("db", "mcp_waits.py", str(held.path)))
        async with sailing(wanted) as ship:
            await ship.until("db", State.INITIALIZING)
            assert ship.state("app") is State.STARTING

            held.open_()
            await ship.ready("app")

            up = [one.instance for one in ship.events() if one.new == "READY"]
            assert up == ["db", "app"]


async def test_a_server_that_comes_after_one_that_fails_is_started_all_the_same(tmp_path: Path) -> None:
    wanted = registry(tmp_path, spec("app", after=("db",)), spec("db", command=("/nowhere/db",)))
    async with sailing(wanted) as ship:
        await ship.ready("app")

        assert ship.state("db") is State.FAILED


async def test_a_disabled_server_is_not_started_and_start_says_why(tmp_path: Path) -> None:
    async with sailing(registry(tmp_path, spec("off", enabled=False))) as ship:
        outcome = await command(ship.fleet.start("off"))

        assert (outcome.ok, outcome.state) == (False, "DISABLED")
        assert outcome.reason == "servers.off.enabled is false; `mcpctl enable off` changes that"
        with pytest.raises(ServerFault) as refused:
            await ship.fleet.call("off", "echo", b"{}", 5.0)
        assert refused.value.remedy == "`mcpctl enable off` lets it run"
        assert (await command(ship.fleet.stop("off"))).ok


# -- Dying -------------------------------------------------------------------------------------------------------------


async def test_a_killed_child_fails_its_calls_at_once_and_is_back_under_the_same_name(tmp_path: Path) -> None:
    with gate(tmp_path) as held:
        async with sailing(registry(tmp_path, spec("time", stable_after=0.0), spec("other"))) as ship:
            await ship.ready()
            call = asyncio.ensure_future(ship.call("time", "hold", path=str(held.path)))
            await ship.in_flight("time", 1)

            os.kill(ship.pid("time"), signal.SIGKILL)

            with pytest.raises(ServerFault, match="went away during the call: signal: killed by SIGKILL"):
                await within(call)
            await ship.ready("time", generation=2)
            assert await ship.call("time", "echo") == "{}"
            detail = ship.fleet.server("time")
            assert [(one.reason, one.status, one.generation) for one in detail.exits] == [
                ("signal", "killed by SIGKILL", 1)
            ]
            assert (detail.status.restarts, detail.status.generation) == (1, 2)
            assert ship.instance("other").machine.generation == 1


async def test_a_call_that_comes_between_death_and_restart_waits_for_the_new_process(tmp_path: Path) -> None:
    async with sailing(registry(tmp_path, spec("time"))) as ship:
        await ship.ready()
        os.kill(ship.pid("time"), signal.SIGKILL)
        await ship.until("time", State.EXITED, State.BACKOFF, State.STARTING)

        assert await within(ship.call("time", "echo")) == "{}"


async def test_exit_zero_is_an_unexpected_exit(tmp_path: Path) -> None:
    async with sailing(registry(tmp_path, spec("time", restart="on-abnormal"))) as ship:
        await ship.ready()
        with pytest.raises(ServerFault, match="unexpected-exit: exit code 0"):
            await within(ship.call("time", "exit", code=0))

        await ship.until("time", State.FAILED)


async def test_stderr_stands_in_the_history_and_in_the_log(tmp_path: Path) -> None:
    talks = spec("talks", command=("/bin/sh", "-c", "echo what went wrong >&2; exit 4"), restart="no")
    async with sailing(registry(tmp_path, talks)) as ship:
        await ship.until("talks", State.FAILED)

        record = ship.fleet.server("talks").exits[-1]
        assert (record.reason, record.status, record.stderr_tail) == ("exit-code", "exit code 4", "what went wrong\n")
        assert "what went wrong\n[mcpd] talks ended: exit-code: exit code 4" in ship.fleet.log_path("talks").read_text()


async def test_many_restarts_together_raise_an_alarm_and_nothing_else(tmp_path: Path) -> None:
    dies = spec("dies", "ends_with.py", "3", restart_delay=0.001, restart_max_delay=0.001)
    async with sailing(registry(tmp_path, dies, spec("good"))) as ship:
        ship.fleet._alarm = RestartAlarm(burst=5)
        await ship.until("dies", State.BACKOFF, generation=8)

        assert "5 restarts of servers within 60 s: look for what they have in common" in [
            one.reason for one in ship.events()
        ]
        assert await ship.call("good", "echo") == "{}"


# -- The end -----------------------------------------------------------------------------------------------------------


async def test_servers_are_stopped_in_reverse_order(tmp_path: Path) -> None:
    wanted = registry(tmp_path, spec("db"), spec("app", after=("db",)), spec("web", after=("app",)))
    async with sailing(wanted) as ship:
        await ship.ready()
        await within(ship.fleet.stop_all())

        down = [one.instance for one in ship.events() if one.new == "STOPPED"]
        assert down == ["web", "app", "db"]


async def test_the_end_comes_also_while_servers_start_fail_and_wait(tmp_path: Path) -> None:
    wanted = registry(
        tmp_path,
        spec("silent", "mcp_silent.py"),
        spec("late", after=("silent",)),
        spec("dies", "ends_with.py", "3", restart_delay=30.0),
        spec("good"),
    )
    async with sailing(wanted) as ship:
        await ship.ready("good")
        await ship.until("dies", State.BACKOFF)

        await within(ship.fleet.stop_all())

        assert {one.state for one in ship.fleet.instances.values()} == {State.STOPPED}


async def test_when_it_is_over_nothing_is_begun_any_more(tmp_path: Path) -> None:
    async with sailing(load_registry(tmp_path, "[servers.time]\ncommand = PEER\n")) as ship:
        await ship.ready()
        await within(ship.fleet.stop_all())

        fleet = ship.fleet
        for refused in (fleet.start("time"), fleet.stop("time"), fleet.restart("time"), fleet.reset_failed("time")):
            assert not (await command(refused)).ok
        with pytest.raises(Overloaded, match="stopping"):
            await fleet.reload(dry_run=False)


async def test_when_it_hurries_drains_and_stop_timeouts_are_cut_short(tmp_path: Path) -> None:
    with gate(tmp_path) as held:
        slow = {"drain_timeout": 60.0, "stop_timeout": 60.0}
        async with sailing(
            registry(tmp_path, spec("busy", **slow), spec("stubborn", "mcp_stubborn.py", **slow))
        ) as ship:
            await ship.ready()
            call = asyncio.ensure_future(ship.call("busy", "hold", path=str(held.path)))
            await ship.in_flight("busy", 1)
            hurry = asyncio.Event()
            ending = asyncio.ensure_future(ship.fleet.stop_all(hurry))
            await ship.until("busy", State.STOPPING)

            hurry.set()

            await within(ending)
            with pytest.raises(ServerFault):
                await within(call)


async def test_a_cancelled_fleet_kills_what_runs(tmp_path: Path) -> None:
    lifeline = Lifeline(shared(tmp_path))
    ship = Ship(registry(tmp_path, spec("time", "mcp_holds.py", str(lifeline.path))))
    running = asyncio.ensure_future(ship.fleet.run())
    await asyncio.sleep(0)
    await ship.ready()

    running.cancel()

    with pytest.raises(asyncio.CancelledError):
        await within(running)
    await lifeline.cut()


async def test_a_feed_of_events_ends_with_the_fleet(tmp_path: Path) -> None:
    async with sailing(registry(tmp_path, spec("time"))) as ship:
        feed = ship.fleet.events(0)
        reading = asyncio.ensure_future(collect(feed))
        await ship.ready()
        await ship.fleet.stop_all()

        assert [getattr(one, "new", None) for one in await within(reading)][-1] == "STOPPED"


async def collect(feed: object) -> list[object]:
    return [one async for one in feed]  # type: ignore[attr-defined]
