"""Instances that are replaced while they serve, with real children."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from mcpd.lifecycle.states import State
from support.fleets import (
    Client,
    Ship,
    command,
    gate,
    load_registry,
    registry,
    sailing,
    shared,
    spec,
    within,
    write_registry,
)
from support.processes import DEADLINE
from support.waiting import until

pytestmark = pytest.mark.anyio
PATIENT: dict[str, Any] = {"drain_timeout": DEADLINE}


async def alone(ship: Ship, *names: str) -> None:
    """Return when only these instances are left."""
    await until(lambda: sorted(one.name for one in ship.fleet.instances.values()) == sorted(names))


def flagged(tmp_path: Path) -> tuple[Path, str]:
    """A file, and a command (as in a registry) of a server that cannot start while it is there."""
    flag = shared(tmp_path) / "broken"
    return flag, json.dumps(spec("x", "mcp_breaks.py", str(flag)).command)


async def test_a_call_in_flight_ends_at_the_old_one_while_new_ones_go_to_the_new(tmp_path: Path) -> None:
    with gate(tmp_path) as held:
        async with sailing(registry(tmp_path, spec("time", **PATIENT))) as ship:
            await ship.ready()
            before = ship.pid("time")
            client = await Client(ship, "time").initialize()
            call = asyncio.ensure_future(client.call("hold", path=str(held.path)))
            await ship.in_flight("time", 1)
            rolling = asyncio.ensure_future(ship.fleet.roll("time"))
            await ship.until("time", State.STOPPING)

            assert await client.call("echo", n=1) == '{"n": 1}'
            held.open_()

            assert str(held.path) in await within(call)
            assert (await command(rolling)).ok
            assert ship.pid("time") != before
            status = ship.fleet.server("time")
            assert (status.status.state, status.status.generation, status.status.restarts) == ("READY", 2, 0)
            assert [one.key for one in status.instances] == ["time"]
            assert [record.generation for record in status.exits] == [1]
            assert "replaced by generation 2" in ship.reasons("time")


async def test_a_pool_is_replaced_one_by_one(tmp_path: Path) -> None:
    async with sailing(registry(tmp_path, spec("time", instances=3))) as ship:
        await ship.ready()
        before = {one.incarnation.child.pid for one in ship.fleet.instances.values() if one.incarnation is not None}

        assert (await command(ship.fleet.roll("time"))).ok

        after = {one.incarnation.child.pid for one in ship.fleet.instances.values() if one.incarnation is not None}
        assert len(after) == 3
        assert not before & after
        moves = [(one.instance, one.new) for one in ship.events() if one.generation == 2 or one.new == "STOPPED"]
        assert moves == [
            move
            for name in ("time", "time@2", "time@3")
            for move in ((name, "STARTING"), (name, "INITIALIZING"), (name, "READY"), (name, "STOPPED"))
        ]


async def test_if_the_new_one_cannot_be_started_the_old_one_goes_on(tmp_path: Path) -> None:
    flag = shared(tmp_path) / "broken"
    async with sailing(registry(tmp_path, spec("time", "mcp_breaks.py", str(flag)))) as ship:
        await ship.ready()
        before = ship.pid("time")
        flag.touch()

        outcome = await command(ship.fleet.roll("time"))

        assert (outcome.ok, outcome.state) == (False, "READY")
        assert "exit code 9; generation 1 goes on" in outcome.reason
        await alone(ship, "time")
        assert ship.pid("time") == before
        assert await ship.call("time", "echo") == "{}"


async def test_a_reload_with_a_broken_entry_keeps_the_old_process_until_it_is_mended(tmp_path: Path) -> None:
    flag, argv = flagged(tmp_path)
    flag.touch()
    good = "[servers.time]\ncommand = PEER\n"
    broken = f"[servers.time]\ncommand = {argv}\n"
    async with sailing(load_registry(tmp_path, good)) as ship:
        await ship.ready()
        before = ship.pid("time")
        write_registry(tmp_path, broken)

        report = await within(ship.fleet.reload(dry_run=False))

        assert ["exit code 9; generation 1 goes on" in problem for problem in report.problems] == [True]
        assert ship.pid("time") == before
        assert await ship.call("time", "echo") == "{}"

        flag.unlink()
        await until(lambda: ship.slot("time").machine.generation > 1)
        await alone(ship, "time")
        assert ship.pid("time") != before


async def test_a_second_reload_takes_the_place_of_the_first(tmp_path: Path) -> None:
    flag, argv = flagged(tmp_path)
    flag.touch()
    broken = f"[servers.time]\ncommand = {argv}\n"
    async with sailing(load_registry(tmp_path, "[servers.time]\ncommand = PEER\n")) as ship:
        await ship.ready()
        write_registry(tmp_path, broken)
        await within(ship.fleet.reload(dry_run=False))
        write_registry(tmp_path, '[servers.time]\ncommand = PEER\nenv = { MODE = "3" }\n')

        report = await within(ship.fleet.reload(dry_run=False))

        assert report.problems == ()
        await alone(ship, "time")
        assert ship.slot("time").spec.env == {"MODE": "3"}
        assert ship.slot("time").state is State.READY


@pytest.mark.parametrize("verb", ["stop", "restart"])
async def test_another_command_ends_a_replacement_that_is_under_way(tmp_path: Path, verb: str) -> None:
    with gate(tmp_path) as held:
        waits = spec("time", "mcp_waits.py", str(held.path))
        async with sailing(registry(tmp_path, waits)) as ship:
            held.open_()
            await ship.ready("time")
            rolling = asyncio.ensure_future(ship.fleet.roll("time"))
            await until(lambda: len(ship.fleet.instances) == 2)
            held.open_()
            held.open_()

            await command(getattr(ship.fleet, verb)("time"))

            await command(rolling)
            await alone(ship, "time")
            assert ship.state("time") is (State.STOPPED if verb == "stop" else State.READY)


async def test_the_old_one_may_die_meanwhile(tmp_path: Path) -> None:
    with gate(tmp_path) as held:
        waits = spec("time", "mcp_waits.py", str(held.path))
        async with sailing(registry(tmp_path, waits)) as ship:
            held.open_()
            await ship.ready("time")
            rolling = asyncio.ensure_future(ship.fleet.roll("time"))
            await until(lambda: len(ship.fleet.instances) == 2)
            os.kill(ship.pid("time"), signal.SIGKILL)
            await ship.until("time", State.INITIALIZING, generation=2)

            held.open_()  # one of the two
            await until(lambda: any(one.state is State.READY for one in ship.fleet.instances.values()))
            held.open_()  # and the other, if it is the new one

            assert (await command(rolling)).ok
            await alone(ship, "time")
            assert await ship.call("time", "echo") == "{}"


async def test_what_is_not_up_is_just_restarted(tmp_path: Path) -> None:
    async with sailing(registry(tmp_path, spec("time"))) as ship:
        await ship.ready()
        await command(ship.fleet.stop("time"))

        assert (await command(ship.fleet.roll("time"))).ok
        assert ship.state("time") is State.READY
