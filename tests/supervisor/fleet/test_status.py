"""What operators are shown of servers in all their states."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from mcpd.control.view import ServerDetail, ServerStatus
from mcpd.errors import ServerFault
from mcpd.fleet import status as status_module
from mcpd.lifecycle.states import State
from support.fleets import Ship, command, gate, registry, sailing, spec, within
from support.waiting import until

pytestmark = pytest.mark.anyio


async def test_a_running_server(tmp_path: Path) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir(mode=0o700)
    (secrets / "github").write_text("hush")
    (secrets / "github").chmod(0o600)
    entry = spec("time", env={"TZ": "UTC", "KEY": {"secret": "github"}}, cwd=str(tmp_path))
    async with sailing(registry(tmp_path, entry)) as ship:
        await ship.ready()
        await ship.call("time", "echo")
        detail = ship.fleet.server("time")
        status = detail.status

        assert (status.state, status.protocol, status.era, status.isolation) == (
            "READY",
            "2025-11-25",
            "handshake",
            "strict",
        )
        assert (status.calls, status.calls_total, status.restarts, status.last_error) == (0, 1, 0, None)
        assert "mcp_peer" in Path(f"/proc/{status.pid}/cmdline").read_text()
        assert (status.rss or 0) > 2**20
        assert status.cpu is not None
        assert 0 <= (status.uptime or -1) < 60
        assert (detail.server_name, detail.server_version) == ("peer", "1.2.3")
        assert detail.argv[0] == sys.executable
        assert (detail.cwd, detail.env) == (str(tmp_path), ("TZ", "KEY"))
        assert b"hush" not in msgspec.json.encode(detail)
        assert detail.log == str(tmp_path / "state" / "logs" / "time.log")
        assert detail.next_start is None
        (instance,) = detail.instances
        assert (instance.key, instance.generation, instance.processes) == ("time", 1, 1)
        assert instance.supervised_pid != instance.pid


async def look(ship: Ship, name: str, fits: Callable[[ServerDetail], object]) -> ServerDetail:
    """Wait until what is shown of a server fits."""
    await until(lambda: fits(ship.fleet.server(name)))
    return ship.fleet.server(name)


OFTEN = {"period": 0.05, "timeout": 0.05, "failure_threshold": 1000}


async def test_one_that_works_is_told_from_one_that_only_says_nothing(tmp_path: Path) -> None:
    servers = (spec("works", "mcp_spins.py", liveness=OFTEN), spec("waits", liveness=OFTEN), spec("fine"))
    with gate(tmp_path) as held:
        async with sailing(registry(tmp_path, *servers)) as ship:
            await ship.ready()
            spinning = asyncio.ensure_future(ship.call("works", "echo", count=1))
            holding = asyncio.ensure_future(ship.call("waits", "hold", path=str(held.path)))

            works = await look(ship, "works", lambda one: (one.instances[0].cpu_share or 0) > 0.05)
            waits = await look(ship, "waits", lambda one: one.instances[0].missed >= 3)

            assert [one.instances[0].health for one in (works, waits)] == ["busy", "busy"]
            assert (waits.instances[0].cpu_share or 0) < 0.05
            assert "of a processor, 1 calls in flight, which may take 300 s" in waits.notes[0]
            assert ship.fleet.server("fine").instances[0].health == "alive"
            held.open_()
            await within(holding)
            await look(ship, "waits", lambda one: one.instances[0].health == "alive" and not one.instances[0].missed)
            await command(ship.fleet.stop("works"))
            with pytest.raises(ServerFault):
                await within(spinning)


async def test_one_that_says_nothing_while_idle_is_silent_and_the_end_of_it_tells_why(tmp_path: Path) -> None:
    async with sailing(registry(tmp_path, spec("time", liveness={**OFTEN, "failure_threshold": 4}))) as ship:
        await ship.ready()
        os.kill(ship.pid("time"), signal.SIGSTOP)

        silent = await look(ship, "time", lambda one: one.instances[0].health == "silent")
        await ship.ready("time", generation=2)

        assert silent.instances[0].calls == 0
        exit = ship.fleet.server("time").exits[-1]
        assert exit.reason == "watchdog"
        assert exit.status.startswith("4 pings in a row without a sign of life (silent for")
        assert "% of a processor" in exit.status


async def test_a_spare_a_slow_start_and_a_server_at_rest_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mcpd.fleet.status.SLOW_START", 0.05)
    servers = (spec("own", sharing="session"), spec("slow", "mcp_silent.py"), spec("lazy", activation="lazy"))
    async with sailing(registry(tmp_path, *servers)) as ship:
        await look(ship, "own", lambda one: [each.health for each in one.instances] == ["", "spare"])
        await look(ship, "slow", lambda one: one.instances[0].health == "slow start")
        await look(ship, "lazy", lambda one: one.status.state == "IDLE" and one.instances[0].health == "")


async def test_the_last_events_are_shown_and_counted(tmp_path: Path) -> None:
    async with sailing(registry(tmp_path, spec("time"), spec("other"))) as ship:
        await ship.ready()
        for _ in range(3):
            await command(ship.fleet.restart("time"))

        timeline = ship.fleet.server("time").timeline
        assert len(timeline) == status_module.TIMELINE
        assert {one.server for one in timeline} == {"time"}
        assert timeline[-1].new == "READY"
        assert [one.seq for one in timeline] == sorted(one.seq for one in timeline)
        assert ship.fleet.log.transitions["time", "READY"] == 4
        assert ship.fleet.log.transitions["other", "READY"] == 1


async def test_a_call_in_flight_is_seen_with_its_age(tmp_path: Path) -> None:
    with gate(tmp_path) as held:
        async with sailing(registry(tmp_path, spec("time"))) as ship:
            await ship.ready()
            call = asyncio.ensure_future(ship.call("time", "hold", path=str(held.path)))
            await asyncio.sleep(0)

            detail = ship.fleet.server("time")
            assert detail.status.calls == 1
            assert 0 <= (detail.instances[0].oldest_call or -1) < 60

            held.open_()
            await within(call)


async def test_a_server_that_waits_for_its_next_start(tmp_path: Path) -> None:
    dies = spec("dies", "ends_with.py", "3", restart_delay=30.0, restart_max_delay=30.0)
    async with sailing(registry(tmp_path, dies)) as ship:
        await ship.until("dies", State.BACKOFF)
        detail = ship.fleet.server("dies")

        assert (detail.status.state, detail.status.last_error) == ("BACKOFF", "exit-code: exit code 3")
        assert 10 < (detail.next_start or 0) <= 30
        assert (detail.status.pid, detail.status.rss, detail.status.uptime) == (None, None, None)
        assert detail.instances[0].processes is None


async def test_the_start_limit_is_told_loudly(tmp_path: Path) -> None:
    dies = spec("dies", "ends_with.py", "3", start_limit_burst=1, restart_max_delay=30.0)
    async with sailing(registry(tmp_path, dies)) as ship:
        await ship.until("dies", State.BACKOFF, generation=2)

        assert ship.fleet.server("dies").notes == ("dies: the start limit is hit; it is tried at the longest delay",)
        assert "start limit hit, next start in" in ship.reasons("dies")[-1]


async def test_one_that_waits_for_another_says_so(tmp_path: Path) -> None:
    wanted = registry(tmp_path, spec("app", after=("db",)), spec("db", "mcp_silent.py"))
    async with sailing(wanted) as ship:
        await ship.until("db", State.INITIALIZING)

        assert ship.fleet.server("app").notes == ("app: may be waiting for db",)


async def test_an_orderly_end_is_no_error(tmp_path: Path) -> None:
    async with sailing(registry(tmp_path, spec("time"))) as ship:
        await ship.ready()
        await command(ship.fleet.stop("time"))
        detail = ship.fleet.server("time")

        assert detail.status.last_error is None
        assert [one.reason for one in detail.exits] == ["success"]


async def test_before_the_fleet_runs_everything_is_stopped(tmp_path: Path) -> None:
    ship = Ship(registry(tmp_path, spec("time"), spec("off", enabled=False)))

    assert [(one.name, one.state, one.enabled) for one in ship.fleet.servers()] == [
        ("time", "STOPPED", True),
        ("off", "STOPPED", False),
    ]


async def test_what_is_shown_is_what_the_control_socket_sends(tmp_path: Path) -> None:
    async with sailing(registry(tmp_path, spec("time"))) as ship:
        await ship.ready()
        detail = ship.fleet.server("time")

        assert msgspec.json.decode(msgspec.json.encode(detail), type=ServerDetail) == detail
        assert type(ship.fleet.servers()[0]) is ServerStatus
