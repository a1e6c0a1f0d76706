"""Servers of which each session has an instance for itself, with real children."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import pytest

from mcpd.fleet import own
from mcpd.fleet.place import Role
from mcpd.lifecycle.states import State
from support.fleets import Client, Ship, command, load_registry, registry, sailing, shared, spec, within, write_registry
from support.waiting import until

pytestmark = pytest.mark.anyio


async def usable(ship: Ship, server: str = "time") -> None:
    """Return when sessions can have instances, and a spare is there."""
    await until(lambda: ship.fleet.demand.is_usable(server) and spares(ship, server))


def spares(ship: Ship, server: str = "time") -> list[int]:
    """The processes that wait for somebody to claim them."""
    return [
        one.incarnation.child.pid
        for one in ship.fleet.instances_of(server)
        if one.place.role is Role.SPARE and one.state is State.INITIALIZING and one.incarnation is not None
    ]


def processes(ship: Ship, server: str = "time") -> set[int]:
    """The processes of sessions; what the children themselves see is the number in their namespace."""
    return {
        one.incarnation.child.pid
        for one in ship.fleet.instances_of(server)
        if one.place.role is Role.OWN and one.state is State.READY and one.incarnation is not None
    }


def owned(ship: Ship, server: str = "time") -> int:
    return sum(one.place.role is Role.OWN for one in ship.fleet.instances_of(server))


async def test_each_session_has_a_process_that_was_told_of_exactly_its_capabilities(tmp_path: Path) -> None:
    async with sailing(registry(tmp_path, spec("time", "mcp_tells.py", sharing="session"))) as ship:
        await usable(ship)
        one = await Client(ship, "time", sampling={}).initialize()
        two = await Client(ship, "time", roots={"listChanged": True}, elicitation={"form": {}}).initialize()

        told = [json.loads(await client.call("echo")) for client in (one, two)]

        assert [about["capabilities"] for about in told] == [
            {"sampling": {}},
            {"roots": {"listChanged": True}, "elicitation": {"form": {}}},
        ]
        assert len(processes(ship)) == 2
        asked = await two.asked("roots/list")
        two.answer(asked["id"], {"roots": [{"uri": "file:///two"}]})
        assert json.loads(await two.call("echo"))["roots"] == {"roots": [{"uri": "file:///two"}]}


async def test_a_new_session_gets_the_spare_and_the_next_spare_is_started(tmp_path: Path) -> None:
    async with sailing(registry(tmp_path, spec("time", sharing="session"))) as ship:
        await usable(ship)
        [spare] = spares(ship)
        client = await Client(ship, "time").initialize()

        await client.call("echo")

        assert processes(ship) == {spare}
        await until(lambda: spares(ship) not in ([], [spare]))
        status = ship.fleet.server("time")
        assert status.status.state == "READY"
        assert [one.state for one in status.instances] == ["IDLE", "READY", "INITIALIZING"]
        assert [one.pid is not None for one in status.instances] == [False, True, True]


@pytest.mark.parametrize("verb", ["stop", "restart"])
async def test_a_server_that_is_stopped_lets_no_session_in_and_has_its_spare_again_afterwards(
    tmp_path: Path, verb: str
) -> None:
    async with sailing(registry(tmp_path, spec("time", sharing="session"))) as ship:
        await usable(ship)
        [spare] = spares(ship)
        async with asyncio.TaskGroup() as group:
            group.create_task(within(getattr(ship.fleet, verb)("time")))
            await asyncio.sleep(0)  # it has begun

            assert not ship.fleet.demand.is_usable("time")
        assert (await command(ship.fleet.start("time"))).ok

        await until(lambda: spares(ship) not in ([], [spare]))


async def test_a_session_that_goes_before_its_instance_is_ready_takes_no_spare_with_it(tmp_path: Path) -> None:
    async with sailing(registry(tmp_path, spec("time", sharing="session"))) as ship:
        await usable(ship)
        [spare] = spares(ship)
        client = await Client(ship, "time").initialize()
        calling = asyncio.ensure_future(client.call("echo"))
        await asyncio.sleep(0)
        assert owned(ship) == 1

        client.close()

        await until(lambda: spares(ship) not in ([], [spare]))
        await until(lambda: owned(ship) == 0)
        calling.cancel()


async def test_no_process_is_left_of_a_session_that_is_over(tmp_path: Path) -> None:
    async with sailing(registry(tmp_path, spec("time", sharing="session"))) as ship:
        await usable(ship)
        client = await Client(ship, "time").initialize()
        await client.call("echo")

        client.close()

        await until(lambda: owned(ship) == 0)
        assert ("READY", "STOPPING") in ship.transitions("time#1")
        assert any(record.instance == "time#1" for record in ship.fleet.server("time").exits)


async def test_many_sessions_at_once_are_served_side_by_side(tmp_path: Path) -> None:
    async with sailing(registry(tmp_path, spec("time", sharing="session"))) as ship:
        await usable(ship)
        clients = [await Client(ship, "time").initialize() for _ in range(6)]

        await asyncio.gather(*(client.call("echo") for client in clients))

        assert len(processes(ship)) == 6
        await until(lambda: len(spares(ship)) == 1)


async def test_a_session_whose_process_died_gets_another_and_others_notice_nothing(tmp_path: Path) -> None:
    async with sailing(registry(tmp_path, spec("time", sharing="session"))) as ship:
        await usable(ship)
        one, two = await Client(ship, "time").initialize(), await Client(ship, "time").initialize()
        await one.call("echo")
        [first] = processes(ship)
        await two.call("echo")
        [other] = processes(ship) - {first}

        assert "exit code 3" in await one.refused("exit", code=3)

        await one.call("echo")
        await two.call("echo")
        assert other in processes(ship)
        assert first not in processes(ship)
        assert len(processes(ship)) == 2


async def test_a_spare_that_is_killed_is_replaced(tmp_path: Path) -> None:
    async with sailing(registry(tmp_path, spec("time", sharing="session"))) as ship:
        await usable(ship)
        [spare] = spares(ship)

        os.kill(spare, signal.SIGKILL)

        await until(lambda: spares(ship) not in ([], [spare]))
        client = await Client(ship, "time").initialize()
        await client.call("echo")


async def test_over_the_limit_a_session_is_told_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own, "MAX_OWN", 2)
    async with sailing(registry(tmp_path, spec("time", sharing="session"))) as ship:
        await usable(ship)
        clients = [await Client(ship, "time").initialize() for _ in range(3)]
        for client in clients[:2]:
            await client.call("echo")

        assert "2 instances of it run for as many sessions" in await clients[2].refused("echo")

        clients[0].close()
        await until(lambda: owned(ship) == 1)
        await clients[2].call("echo")


async def test_a_program_that_stopped_working_fails_the_calls_of_new_sessions_and_then_waits(tmp_path: Path) -> None:
    flag = shared(tmp_path) / "broken"
    slow = {"restart_delay": 30.0, "restart_max_delay": 60.0}
    breaks = spec("time", "mcp_breaks.py", str(flag), sharing="session", **slow)
    async with sailing(registry(tmp_path, breaks)) as ship:
        await usable(ship)
        one, two = await Client(ship, "time").initialize(), await Client(ship, "time").initialize()
        assert await one.call("echo") == "{}"
        flag.touch()
        for pid in spares(ship):
            os.kill(pid, signal.SIGKILL)

        assert "exit code 9" in await two.refused("echo")
        assert "keeps failing" in await two.refused("echo")
        assert await one.call("echo") == "{}"


async def test_a_server_that_cannot_be_learnt_fails_calls_with_the_reason(tmp_path: Path) -> None:
    async with sailing(registry(tmp_path, spec("time", "ends_with.py", "4", sharing="session", restart="no"))) as ship:
        await ship.until("time", State.FAILED)
        client = Client(ship, "time")

        answer = await client.ask("initialize", {"protocolVersion": "2025-11-25", "capabilities": {}})

        assert "exit code 4" in answer["error"]["message"]
        assert ship.fleet.server("time").status.state == "FAILED"


async def test_stop_start_and_restart_cover_all_of_them(tmp_path: Path) -> None:
    async with sailing(registry(tmp_path, spec("time", sharing="session"))) as ship:
        await usable(ship)
        client = await Client(ship, "time").initialize()
        await client.call("echo")
        before = processes(ship)

        assert (await command(ship.fleet.restart("time"))).ok
        await client.call("echo")
        assert not processes(ship) & before

        assert (await command(ship.fleet.stop("time"))).ok
        assert ship.fleet.server("time").status.pid is None
        assert [one.name for one in ship.fleet.instances_of("time")] == ["time"]
        assert "is not running" in await client.refused("echo")

        outcome = await command(ship.fleet.start("time"))
        assert (outcome.ok, outcome.state) == (True, "READY")
        await client.call("echo")


async def test_a_reload_can_share_and_part_a_server(tmp_path: Path) -> None:
    text = "[servers.time]\ncommand = PEER\n"
    async with sailing(load_registry(tmp_path, text + 'sharing = "session"\n')) as ship:
        await usable(ship)
        client = await Client(ship, "time").initialize()
        await client.call("echo")

        write_registry(tmp_path, text)
        await within(ship.fleet.reload(dry_run=False))
        await ship.ready("time")
        await client.call("echo")
        await until(lambda: [one.name for one in ship.fleet.instances_of("time")] == ["time"])

        write_registry(tmp_path, text + 'sharing = "session"\n')
        await within(ship.fleet.reload(dry_run=False))
        await usable(ship)
        await client.call("echo")
        assert owned(ship) == 1

        write_registry(tmp_path, "")
        await within(ship.fleet.reload(dry_run=False))
        await until(lambda: not ship.fleet.instances)
