"""The fleet with real children: starts, order, deaths, operators' commands, reload, the end."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mcpd.control.view import Event, FleetView
from mcpd.errors import ConfigError, NotFound, Overloaded, ServerFault
from mcpd.fleet.eventlog import Feed
from mcpd.fleet.fleet import Fleet
from mcpd.lifecycle.states import State
from mcpd.process import tree
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
from support.processes import DEADLINE, Lifeline

pytestmark = pytest.mark.anyio


def as_view(fleet: Fleet) -> FleetView:
    """The type checker's word that the fleet is what operators are promised."""
    return fleet


# -- Starting --------------------------------------------------------------------------------------------------------


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
        assert errors["missing"].startswith("exec: /nowhere/server")
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
        assert "servers.off.enabled is false" in outcome.reason
        assert (await command(ship.fleet.stop("off"))).ok


# -- Dying -----------------------------------------------------------------------------------------------------------


async def test_a_killed_child_fails_its_calls_at_once_and_is_back_under_the_same_name(tmp_path: Path) -> None:
    with gate(tmp_path) as held:
        async with sailing(registry(tmp_path, spec("time", stable_after=0.0), spec("other"))) as ship:
            await ship.ready()
            call = asyncio.ensure_future(ship.call("time", "hold", path=str(held.path)))
            await in_flight(ship, "time", 1)

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
        await ship.until("dies", State.BACKOFF, generation=32)

        assert "30 restarts of servers within 60 s: look for what they have in common" in [
            one.reason for one in ship.events()
        ]
        assert await ship.call("good", "echo") == "{}"


# -- Operators -------------------------------------------------------------------------------------------------------


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
            await in_flight(ship, "time", 1)
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
            await in_flight(ship, "time", 1)
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
        program.write_text(f"#!/bin/sh\nexec {' '.join(spec('x').command)}\n")
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
        with pytest.raises(NotFound, match="there is no server 'nobody'"):
            await ship.fleet.start("nobody")


async def test_what_an_operator_stopped_stays_down_in_the_next_daemon_until_somebody_starts_it(tmp_path: Path) -> None:
    wanted = registry(tmp_path, spec("time"), spec("other"))
    with closing(Store.open(tmp_path / "mcpd.db")) as store:
        async with sailing(wanted, store) as ship:
            await ship.ready()
            await command(ship.fleet.stop("time"))
        last = ship.events()[-1].seq
    with closing(Store.open(tmp_path / "mcpd.db")) as store:
        async with sailing(wanted, store) as ship:
            await ship.ready("other")
            assert ship.state("time") is State.STOPPED
            assert [one for one in ship.events() if one.instance == "time" and one.seq > last] == []
            with pytest.raises(ServerFault, match="it is stopped"):
                await within(ship.call("time", "echo"))
            assert (await command(ship.fleet.start("time"))).ok
    with closing(Store.open(tmp_path / "mcpd.db")) as store:
        assert store.desired() == {"time": "up"}


async def test_a_server_found_interactive_is_remembered_as_such(tmp_path: Path) -> None:
    wanted = registry(tmp_path, spec("time"))
    with closing(Store.open(tmp_path / "mcpd.db")) as store:
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


# -- Reload ----------------------------------------------------------------------------------------------------------


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


async def test_a_server_taken_out_and_put_back_while_it_stops_comes_back(tmp_path: Path) -> None:
    with gate(tmp_path) as held:
        text = "[servers.time]\ncommand = PEER\nstop_timeout = 5\n"
        async with sailing(load_registry(tmp_path, text)) as ship:
            await ship.ready()
            call = asyncio.ensure_future(ship.call("time", "hold", path=str(held.path)))
            await in_flight(ship, "time", 1)
            write_registry(tmp_path, "")
            await within(ship.fleet.reload(dry_run=False))
            write_registry(tmp_path, text)
            feed = ship.fleet.events(ship.events()[-1].seq)
            reloading = asyncio.ensure_future(ship.fleet.reload(dry_run=False))
            async with asyncio.timeout(DEADLINE):
                assert "added time" in [one.reason async for one in until_told(feed, "registry reloaded")][-1]
            assert ship.state("time") is State.STOPPING

            held.open_()

            assert (await within(reloading)).added == ("time",)
            await ship.ready("time", generation=2)
            with pytest.raises(ServerFault, match="was removed from the registry"):
                await within(call)
            assert await ship.call("time", "echo") == "{}"


async def test_a_failed_server_is_tried_again_when_its_entry_changed(tmp_path: Path) -> None:
    broken = '[servers.time]\ncommand = ["/bin/sh", "-c", "exit 1"]\nrestart = "no"\n'
    async with sailing(load_registry(tmp_path, broken)) as ship:
        await ship.until("time", State.FAILED)
        write_registry(tmp_path, "[servers.time]\ncommand = PEER\n")

        await within(ship.fleet.reload(dry_run=False))

        assert ship.state("time") is State.READY


# -- The end ---------------------------------------------------------------------------------------------------------


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

        assert {one.state for one in ship.fleet._instances.values()} == {State.STOPPED}


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
            await in_flight(ship, "busy", 1)
            hurry = asyncio.Event()
            ending = asyncio.ensure_future(ship.fleet.stop_all(hurry))
            await ship.until("busy", State.STOPPING)

            hurry.set()

            await within(ending)
            with pytest.raises(ServerFault):
                await within(call)


async def test_a_cancelled_fleet_kills_what_runs(tmp_path: Path) -> None:
    lifeline = Lifeline(tmp_path)
    holds = spec("time", command=("/bin/sh", "-c", f"exec 9>{lifeline.path}; exec {' '.join(spec('x').command)}"))
    ship = Ship(registry(tmp_path, holds))
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


async def in_flight(ship: Ship, server: str, count: int) -> None:
    """Return when so many calls are with the child; the tool that says it is working is the one that holds."""
    async with asyncio.timeout(DEADLINE):
        while ship.relay.in_flight(server) < count:
            await asyncio.sleep(0)


async def until_told(feed: Feed, text: str) -> AsyncIterator[Event]:
    async for one in feed:
        assert isinstance(one, Event)
        yield one
        if text in one.reason:
            return


async def gone(pid: int) -> None:
    async with asyncio.timeout(DEADLINE):
        while tree.look_up(pid) is not None:
            await asyncio.sleep(0)


async def collect(feed: object) -> list[object]:
    return [one async for one in feed]  # type: ignore[attr-defined]


class closing:  # noqa: N801 - reads as contextlib.closing, for a store whose `close` has a parameter
    def __init__(self, store: Store) -> None:
        self.store = store

    def __enter__(self) -> Store:
        return self.store

    def __exit__(self, *_: object) -> None:
        self.store.close()
