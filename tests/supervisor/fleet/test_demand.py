"""Lazy servers with real children: known without running, started by their first use, put to rest after it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from mcpd.lifecycle.states import State
from mcpd.store.store import Store
from mcpd.wire.address import View
from support.fleets import (
    Client,
    Push,
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
from support.waiting import until

pytestmark = pytest.mark.anyio
LONG: dict[str, Any] = {"activation": "lazy", "idle_timeout": 600.0}
BRIEF: dict[str, Any] = {"activation": "lazy", "idle_timeout": 0.1}


def starts(ship: Ship, key: str = "time") -> int:
    return sum(new == "STARTING" for _, new in ship.transitions(key))


async def tool_names(client: Client) -> list[str]:
    return [tool["name"] for tool in (await client.ask("tools/list", {}))["result"]["tools"]]


async def test_a_server_never_seen_is_started_once_to_learn_it_and_put_to_rest(tmp_path: Path) -> None:
    async with sailing(registry(tmp_path, spec("time", **LONG))) as ship:
        await ship.until("time", State.IDLE)
        client = await Client(ship, "time").initialize()

        assert "echo" in await tool_names(client)
        status = ship.fleet.server("time").status
        assert (status.state, status.pid, status.tools) == ("IDLE", None, 7)
        assert status.saved is not None
        assert status.saved > 2**20
        assert starts(ship) == 1


async def test_the_first_uses_start_it_once_and_all_are_answered(tmp_path: Path) -> None:
    async with sailing(registry(tmp_path, spec("time", **LONG))) as ship:
        await ship.until("time", State.IDLE)
        clients = [await Client(ship, "time").initialize() for _ in range(5)]

        assert await asyncio.gather(*(client.call("echo", n=1) for client in clients)) == ['{"n": 1}'] * 5

        assert starts(ship) == 2
        assert "a client uses it" in ship.reasons("time")
        assert ship.state("time") is State.READY


async def test_it_rests_when_nobody_has_used_it_and_wakes_again(tmp_path: Path) -> None:
    async with sailing(registry(tmp_path, spec("time", **BRIEF))) as ship:
        await ship.until("time", State.IDLE)
        client = await Client(ship, "time").initialize()
        for generation in (2, 3):
            assert await client.call("echo") == "{}"
            await ship.until("time", State.IDLE, generation=generation)

        assert "not used for 0.1 s" in ship.reasons("time")
        assert ship.fleet.server("time").status.restarts == 0


async def test_a_call_under_way_and_a_subscription_keep_it_awake(tmp_path: Path) -> None:
    with gate(tmp_path) as held:
        async with sailing(registry(tmp_path, spec("time", **BRIEF), spec("other", **BRIEF))) as ship:
            await ship.until("time", State.IDLE)
            client = await Client(ship, "time").initialize()
            call = asyncio.ensure_future(client.call("hold", path=str(held.path)))
            await ship.in_flight("time", 1)
            await used_and_put_to_rest(ship, "other")

            assert ship.state("time") is State.READY

            held.open_()
            await within(call)
            await client.ask("resources/subscribe", {"uri": "a://1"})
            await used_and_put_to_rest(ship, "other")

            assert ship.state("time") is State.READY

            client.close()
            await ship.until("time", State.IDLE)


async def used_and_put_to_rest(ship: Ship, server: str) -> None:
    """Return when a server was needed for a moment, and then not for its whole `idle_timeout`, twice."""
    client = await Client(ship, server).initialize()
    for _ in range(2):
        await client.call("echo")
        await ship.until(server, State.IDLE)
    client.close()


async def test_a_call_that_comes_while_it_falls_asleep_is_answered(tmp_path: Path) -> None:
    async with sailing(registry(tmp_path, spec("time", "mcp_stubborn.py", **BRIEF))) as ship:
        await ship.until("time", State.IDLE)
        client = await Client(ship, "time").initialize()
        await client.call("echo")
        await ship.until("time", State.STOPPING)

        assert await client.call("echo") == "{}"


async def test_the_next_daemon_knows_it_without_a_start(tmp_path: Path) -> None:
    one = registry(tmp_path, spec("time", **LONG))
    path = tmp_path / "state.db"
    store = Store.open(path)
    async with sailing(one, store) as ship:
        await ship.until("time", State.IDLE)
    store.close()

    store = Store.open(path)
    async with sailing(one, store) as ship:
        await ship.until("time", State.IDLE)
        assert "echo" in await tool_names(await Client(ship, "time").initialize())
        assert ship.transitions("time")[-1] == ("STOPPED", "IDLE")
        assert ship.fleet.server("time").status.generation == 0
        assert ship.fleet.server("time").status.saved
        assert await ship.call("time", "echo") == "{}"
    store.close()


async def test_a_program_that_changed_is_learnt_anew(tmp_path: Path) -> None:
    text = '[servers.time]\ncommand = PEER\nactivation = "lazy"\n'
    async with sailing(load_registry(tmp_path, text)) as ship:
        await ship.until("time", State.IDLE)

        write_registry(tmp_path, text + 'env = { MODE = "2" }\n')
        await within(ship.fleet.reload(dry_run=False))

        await ship.until("time", State.IDLE, generation=2)
        assert starts(ship) == 2


async def test_sessions_hear_of_lists_only_if_these_changed(tmp_path: Path) -> None:
    async with sailing(registry(tmp_path, spec("time", **BRIEF))) as ship:
        await ship.until("time", State.IDLE)
        push = Push()
        session = ship.relay.open_session(View("all"), "test", "stdio", push)
        session.protocol_version = "2025-11-25"
        for generation in (2, 3):
            await ship.call("time", "echo")
            await ship.until("time", State.IDLE, generation=generation)
        assert push.frames == []

        await ship.call("time", "grow", tool="new")

        await push.until(lambda: any(b"tools/list_changed" in frame for frame in push.frames))
        await ship.until("time", State.IDLE, generation=4)
        client = await Client(ship, "time").initialize()
        assert "new" in await tool_names(client)


async def test_a_lazy_server_that_cannot_be_started_fails_the_call_with_the_reason(tmp_path: Path) -> None:
    flag = shared(tmp_path) / "broken"
    lazy = spec("time", "mcp_breaks.py", str(flag), restart="no", **LONG)
    async with sailing(registry(tmp_path, lazy)) as ship:
        await ship.until("time", State.IDLE)
        client = await Client(ship, "time").initialize()
        flag.touch()

        assert "exit code 9" in await client.refused("echo")

        flag.unlink()
        assert (await command(ship.fleet.start("time"))).ok
        assert await client.call("echo") == "{}"


async def test_start_timeout_bounds_the_wait_of_the_first_use(tmp_path: Path) -> None:
    with gate(tmp_path) as held:
        waits = spec("time", "mcp_waits.py", str(held.path), start_timeout=0.5, restart="no", **LONG)
        async with sailing(registry(tmp_path, waits)) as ship:
            held.open_()
            await ship.until("time", State.IDLE)
            client = await Client(ship, "time").initialize()

            assert "start_timeout" in await client.refused("echo")


async def test_an_operators_start_wakes_it_and_stop_keeps_it_down(tmp_path: Path) -> None:
    async with sailing(registry(tmp_path, spec("time", **LONG))) as ship:
        await ship.until("time", State.IDLE)

        assert (await command(ship.fleet.start("time"))).state == "READY"
        assert (await command(ship.fleet.stop("time"))).state == "STOPPED"
        client = Client(ship, "time")
        answer = await client.ask("initialize", {"protocolVersion": "2025-11-25", "capabilities": {}})
        assert "result" in answer
        assert "it is stopped" in await client.refused("echo")


async def test_a_lazy_pool_is_learnt_from_one_and_woken_whole(tmp_path: Path) -> None:
    async with sailing(registry(tmp_path, spec("time", instances=3, **LONG))) as ship:
        for key in ("time", "time@2", "time@3"):
            await ship.until(key, State.IDLE)
        assert [starts(ship, key) for key in ("time", "time@2", "time@3")] == [1, 0, 0]

        await ship.call("time", "echo")

        await ship.ready("time", "time@2", "time@3")


async def test_lazy_sessions_have_no_spare_before_somebody_comes_nor_after(tmp_path: Path) -> None:
    async with sailing(registry(tmp_path, spec("time", "mcp_tells.py", sharing="session", **LONG))) as ship:
        await ship.until("time", State.IDLE)
        assert list(ship.fleet.instances) == ["time"]
        client = await Client(ship, "time", sampling={}).initialize()

        assert json.loads(await client.call("echo"))["capabilities"] == {"sampling": {}}

        client.close()
        await until(lambda: list(ship.fleet.instances) == ["time"])
