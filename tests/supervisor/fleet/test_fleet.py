"""The fleet with real children: operators' commands, reload."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mcpd.control.seam import FleetView
from mcpd.control.view import Event
from mcpd.errors import ConfigError, NotFound, ServerFault
from mcpd.fleet.eventlog import Feed
from mcpd.fleet.fleet import Fleet
from mcpd.lifecycle.states import State
from mcpd.process import tree
from mcpd.sandbox.warden import Warden
from mcpd.store.store import Store
from support.fleets import (
    Ship,
    command,
    gate,
    load_registry,
    registry,
    sailing,
    spec,
    within,
    write_registry,
)
from support.processes import CHILDREN, DEADLINE
from support.waiting import until

pytestmark = pytest.mark.anyio


def as_view(fleet: Fleet) -> FleetView:
    """The type checker's word that the fleet is what operators are promised."""
    return fleet


# -- Operators ---------------------------------------------------------------------------------------------------------


async def test_restart_returns_when_it_is_ready_again(tmp_path: Path) -> None:
    async with sailing(registry(tmp_path, spec("time"))) as ship:
        await ship.ready()
        before = ship.pid("time")

        outcome = await command(ship.fleet.restart("time"))

        assert (outcome.ok, outcome.state) == (True, "READY")
        assert ship.pid("time") != before
        assert ship.fleet.server("time").status.restarts == 0
        assert "restarted by the operator" in ship.reasons("time")


async def test_restart_tells_why_it_did_not_come_back(tmp_path: Path) -> None:
    script = tmp_path / "server.sh"
    script.write_text('#!/bin/sh\necho "no database" >&2; exit 5\n')
    script.chmod(0o755)
    async with sailing(registry(tmp_path, spec("time", command=(str(script),), restart_delay=30.0))) as ship:
        outcome = await command(ship.fleet.restart("time"))

        assert (outcome.ok, outcome.state, outcome.reason) == (False, "BACKOFF", "exit-code: exit code 5")


async def test_start_of_a_running_server_and_stop_of_a_stopped_one_are_successes(tmp_path: Path) -> None:
    async with sailing(registry(tmp_path, spec("time"))) as ship:
        await ship.ready()

        assert (await command(ship.fleet.start("time"))).ok
        assert (await command(ship.fleet.stop("time"))).state == "STOPPED"
        assert (await command(ship.fleet.stop("time"))).ok
        assert ship.fleet.server("time").status.pid is None


async def test_calls_to_a_stopped_server_fail_at_once_with_the_reason(tmp_path: Path) -> None:
    async with sailing(registry(tmp_path, spec("time"))) as ship:
        await ship.ready()
        await command(ship.fleet.stop("time"))

        with pytest.raises(ServerFault, match="is not running: it is stopped"):
            await within(ship.call("time", "echo"))

        with pytest.raises(ServerFault) as refused:
            await within(ship.fleet.call("time", "echo", b"{}", 5.0))
        assert refused.value.remedy == "`mcpctl start time` starts it"


async def test_a_stop_is_possible_while_the_handshake_hangs(tmp_path: Path) -> None:
    async with sailing(registry(tmp_path, spec("silent", "mcp_silent.py"))) as ship:
        await ship.until("silent", State.INITIALIZING)
        starting = asyncio.ensure_future(ship.fleet.start("silent"))
        await asyncio.sleep(0)  # the command is given

        assert (await command(ship.fleet.stop("silent"))).ok

        assert (await command(starting)).state == "STOPPED"


async def test_a_stop_lets_calls_in_flight_finish(tmp_path: Path) -> None:
    with gate(tmp_path) as held:
        async with sailing(registry(tmp_path, spec("time", drain_timeout=DEADLINE))) as ship:
            await ship.ready()
            call = asyncio.ensure_future(ship.call("time", "hold", path=str(held.path)))
            await ship.in_flight("time", 1)
            stopping = asyncio.ensure_future(ship.fleet.stop("time"))
            await ship.until("time", State.STOPPING)
            with pytest.raises(ServerFault, match="is not running"):
                await within(ship.call("time", "echo"))

            held.open_()

            assert str(held.path) in await within(call)
            assert (await command(stopping)).ok


async def test_a_call_that_its_client_has_given_up_does_not_hold_up_a_stop(tmp_path: Path) -> None:
    with gate(tmp_path) as held:
        async with sailing(registry(tmp_path, spec("time", drain_timeout=10 * DEADLINE))) as ship:
            await ship.ready()
            call = asyncio.ensure_future(ship.call("time", "hold", path=str(held.path)))
            await ship.in_flight("time", 1)
            call.cancel()
            await asyncio.wait([call])

            assert (await command(ship.fleet.stop("time"))).ok


async def test_one_that_will_not_end_is_killed_and_that_is_a_timeout(tmp_path: Path) -> None:
    async with sailing(registry(tmp_path, spec("time", "mcp_stubborn.py"))) as ship:
        await ship.ready()

        assert (await command(ship.fleet.stop("time"))).ok

        assert ship.fleet.server("time").exits[-1].reason == "timeout"


async def test_reset_failed_tries_again(tmp_path: Path) -> None:
    program = tmp_path / "server"
    async with sailing(registry(tmp_path, spec("time", command=(str(program),)))) as ship:
        await ship.until("time", State.FAILED)
        program.write_text(f"#!{sys.executable}\n{(CHILDREN / 'mcp_peer.py').read_text()}")
        program.chmod(0o755)

        assert (await command(ship.fleet.reset_failed("time"))).ok


async def test_an_operators_start_gets_a_failed_server_out_of_the_start_limit(tmp_path: Path) -> None:
    limited = spec("time", start_limit_burst=1, start_limit_action="fail")
    async with sailing(registry(tmp_path, limited)) as ship:
        for generation in (1, 2):
            await ship.ready("time", generation=generation)
            with pytest.raises(ServerFault):
                await within(ship.call("time", "exit", code=1))
        await ship.until("time", State.FAILED)

        assert (await command(ship.fleet.start("time"))).ok


async def test_an_unknown_server_is_not_found(tmp_path: Path) -> None:
    async with sailing(registry(tmp_path)) as ship:
        with pytest.raises(NotFound, match="there is no server 'nobody'") as refused:
            await ship.fleet.start("nobody")
        assert refused.value.remedy == "there is none"


async def test_what_an_operator_stopped_stays_down_in_the_next_daemon_until_somebody_starts_it(tmp_path: Path) -> None:
    wanted = registry(tmp_path, spec("time"), spec("other"))
    with contextlib.closing(Store.open(tmp_path / "mcpd.db")) as store:
        async with sailing(wanted, store) as ship:
            await ship.ready()
            await command(ship.fleet.stop("time"))
        last = ship.events()[-1].seq
    with contextlib.closing(Store.open(tmp_path / "mcpd.db")) as store:
        async with sailing(wanted, store) as ship:
            await ship.ready("other")
            assert ship.state("time") is State.STOPPED
            assert [one for one in ship.events() if one.instance == "time" and one.seq > last] == []
            with pytest.raises(ServerFault, match="it is stopped"):
                await within(ship.call("time", "echo"))
            assert (await command(ship.fleet.start("time"))).ok
    with contextlib.closing(Store.open(tmp_path / "mcpd.db")) as store:
        assert store.desired() == {"time": "up"}


async def test_a_server_found_interactive_is_remembered_as_such(tmp_path: Path) -> None:
    wanted = registry(tmp_path, spec("time"))
    with contextlib.closing(Store.open(tmp_path / "mcpd.db")) as store:
        async with sailing(wanted, store) as ship:
            assert ship.relay.on_interactive is not None
            ship.relay.on_interactive("time")
        assert store.marks("time") == {"interactive": "yes"}

        async with sailing(wanted, store) as ship:
            assert ship.relay._state.servers["time"].interactive


async def test_the_daemon_itself_and_its_shutdown(tmp_path: Path) -> None:
    async with sailing(registry(tmp_path, spec("time"))) as ship:
        about = ship.fleet.daemon()
        ship.fleet.request_shutdown()

        assert (about.pid, about.version, about.registry) == (os.getpid(), "0.1", str(tmp_path / "mcpd.toml"))
        assert about.uptime < 60
        assert ship.shutdowns == 1


# -- Reload ------------------------------------------------------------------------------------------------------------


async def test_a_reload_touches_only_what_changed(tmp_path: Path) -> None:
    names = [f"s{number}" for number in range(6)]
    text = "".join(f"[servers.{name}]\ncommand = PEER\n" for name in names)
    async with sailing(load_registry(tmp_path, text)) as ship:
        await ship.ready()
        pids = {name: ship.pid(name) for name in names}
        write_registry(
            tmp_path,
            text.replace("[servers.s0]", '[servers.s0]\nenv = { MODE = "new" }')
            .replace("[servers.s1]", '[servers.s1]\ncall_timeout = "9s"')
            .replace("[servers.s2]\ncommand = PEER\n", "")
            + "[servers.added]\ncommand = PEER\n",
        )

        planned = await within(ship.fleet.reload(dry_run=True))
        assert {name: ship.pid(name) for name in names} == pids
        report = await within(ship.fleet.reload(dry_run=False))

        for one in (planned, report):
            assert (one.added, one.removed, one.restarted) == (("added",), ("s2",), ("s0",))
            assert (one.changed_live, one.unchanged, one.problems) == (("s1",), ("s3", "s4", "s5"), ())
        await ship.ready("s0", generation=2)
        await ship.ready("added")
        after = {name: ship.pid(name) for name in names if name != "s2"}
        assert {name for name in after if after[name] == pids[name]} == {"s1", "s3", "s4", "s5"}
        assert ship.instance("s1").spec.call_timeout == 9.0
        with pytest.raises(NotFound):
            ship.fleet.server("s2")
        await gone(pids["s2"])


async def test_a_pool_grows_and_shrinks_and_the_processes_that_stay_are_left_alone(tmp_path: Path) -> None:
    def text(instances: int) -> str:
        return f"[servers.time]\ncommand = PEER\ninstances = {instances}\n"

    def pids(ship: Ship) -> dict[str, int | None]:
        return {one.key: one.pid for one in ship.fleet.server("time").instances}

    async with sailing(load_registry(tmp_path, text(2))) as ship:
        await ship.ready()
        before = pids(ship)

        write_registry(tmp_path, text(3))
        assert (await within(ship.fleet.reload(dry_run=False))).changed_live == ("time",)
        await ship.ready("time@3")
        grown = pids(ship)
        write_registry(tmp_path, text(1))
        await within(ship.fleet.reload(dry_run=False))
        await until(lambda: len(pids(ship)) == 1)

        assert {**before, "time@3": grown["time@3"]} == grown
        assert pids(ship) == {"time": before["time"]}
        assert await ship.call("time", "echo") == "{}"


async def test_a_registry_with_an_error_changes_nothing(tmp_path: Path) -> None:
    text = "[servers.time]\ncommand = PEER\n[servers.other]\ncommand = PEER\n"
    async with sailing(load_registry(tmp_path, text)) as ship:
        await ship.ready()
        pid, before = ship.pid("time"), ship.fleet.registry
        write_registry(tmp_path, text.replace("[servers.other]", "[servers.new]") + "retsart = 1\n")

        with pytest.raises(ConfigError, match="retsart"):
            await within(ship.fleet.reload(dry_run=False))

        assert ship.fleet.registry is before
        assert (ship.pid("time"), ship.state("other")) == (pid, State.READY)


async def test_settings_that_need_a_new_daemon_are_named_by_each_reload_and_change_nothing(tmp_path: Path) -> None:
    async with sailing(load_registry(tmp_path, "")) as ship:
        write_registry(tmp_path, '[frontdoor]\nport = 7000\ninput_timeout = "9s"\n')

        for _ in range(2):
            assert (await within(ship.fleet.reload(dry_run=False))).daemon == ("frontdoor.port",)

        settings = ship.fleet.registry.frontdoor
        assert (settings.port, settings.input_timeout) == (6270, 9.0)


async def test_a_reload_says_which_new_server_does_not_work(tmp_path: Path) -> None:
    async with sailing(load_registry(tmp_path, "[servers.time]\ncommand = PEER\n")) as ship:
        write_registry(
            tmp_path, '[servers.time]\ncommand = PEER\n[servers.new]\ncommand = ["/bin/sh", "-c", "exit 3"]\n'
        )

        report = await within(ship.fleet.reload(dry_run=False))

        assert report.problems == ("servers.new: exit-code: exit code 3",)


async def test_disabling_and_enabling_in_the_registry(tmp_path: Path) -> None:
    on = "[servers.time]\ncommand = PEER\n"
    async with sailing(load_registry(tmp_path, on)) as ship:
        await ship.ready()
        write_registry(tmp_path, on + "enabled = false\n")
        await within(ship.fleet.reload(dry_run=False))
        await ship.until("time", State.DISABLED)
        with pytest.raises(ServerFault, match="it is disabled"):
            await within(ship.call("time", "echo"))

        write_registry(tmp_path, on)
        await within(ship.fleet.reload(dry_run=False))

        await ship.ready("time", generation=2)


async def test_a_server_that_is_removed_finishes_the_calls_that_it_has(tmp_path: Path) -> None:
    with gate(tmp_path) as held:
        async with sailing(load_registry(tmp_path, "[servers.time]\ncommand = PEER\ndrain_timeout = 30\n")) as ship:
            await ship.ready()
            call = asyncio.ensure_future(ship.call("time", "hold", path=str(held.path)))
            await ship.in_flight("time", 1)
            write_registry(tmp_path, "")
            reloaded = await within(ship.fleet.reload(dry_run=False))
            assert reloaded.removed == ("time",)
            assert ship.state("time") is State.STOPPING
            assert not call.done()

            held.open_()

            assert await within(call)
            await until(lambda: not ship.fleet.instances)


async def test_a_server_taken_out_and_put_back_while_it_stops_comes_back(tmp_path: Path) -> None:
    with gate(tmp_path) as held:
        text = "[servers.time]\ncommand = PEER\nstop_timeout = 5\n"
        async with sailing(load_registry(tmp_path, text)) as ship:
            await ship.ready()
            call = asyncio.ensure_future(ship.call("time", "hold", path=str(held.path)))
            await ship.in_flight("time", 1)
            write_registry(tmp_path, "")
            await within(ship.fleet.reload(dry_run=False))
            write_registry(tmp_path, text)
            feed = ship.fleet.events(ship.events()[-1].seq)
            reloading = asyncio.ensure_future(ship.fleet.reload(dry_run=False))
            async with asyncio.timeout(DEADLINE):
                assert "added time" in [one.reason async for one in until_told(feed, "registry reloaded")][-1]
            assert ship.state("time") is State.STOPPING

            held.open_()

            assert await within(call)
            assert (await within(reloading)).added == ("time",)
            await ship.ready("time", generation=2)
            assert await ship.call("time", "echo") == "{}"


async def test_a_failed_server_is_tried_again_when_its_entry_changed(tmp_path: Path) -> None:
    broken = '[servers.time]\ncommand = ["/bin/sh", "-c", "exit 1"]\nrestart = "no"\n'
    async with sailing(load_registry(tmp_path, broken)) as ship:
        await ship.until("time", State.FAILED)
        write_registry(tmp_path, "[servers.time]\ncommand = PEER\n")

        await within(ship.fleet.reload(dry_run=False))

        assert ship.state("time") is State.READY


async def until_told(feed: Feed, text: str) -> AsyncIterator[Event]:
    async for one in feed:
        assert isinstance(one, Event)
        yield one
        if text in one.reason:
            return


async def gone(pid: int) -> None:
    await until(lambda: tree.look_up(pid) is None)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's servers have uids of their own")
async def test_a_server_that_is_removed_gives_its_uid_back(tmp_path: Path) -> None:
    text = "[servers.stays]\ncommand = PEER\n"
    async with sailing(load_registry(tmp_path, text + "[servers.goes]\ncommand = PEER\n")) as ship:
        await ship.ready()
        warden = ship.fleet.supplies._warden
        assert isinstance(warden, Warden)
        assert warden._users is not None
        assert set(warden._users._given) == {"stays", "goes"}
        write_registry(tmp_path, text)

        await within(ship.fleet.reload(dry_run=False))

        await until(lambda: "goes" not in {one.spec.name for one in ship.fleet.instances.values()})
        assert set(warden._users._given) == {"stays"}
