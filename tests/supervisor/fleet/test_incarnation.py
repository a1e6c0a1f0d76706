"""One process from its first word to its last: handshake, health, noise, changing lists."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from mcpd.errors import ServerFault
from mcpd.lifecycle.health import NOISE_LIMIT, NoiseMeter
from mcpd.lifecycle.states import State
from mcpd.wire.address import View
from support.fleets import Push, Ship, command, gate, load_registry, registry, sailing, spec, within, write_registry
from support.processes import DEADLINE
from support.waiting import until

pytestmark = pytest.mark.anyio

OFTEN: dict[str, Any] = {"period": 0.05, "timeout": 0.05, "failure_threshold": 2}
SELDOM: dict[str, Any] = {"period": 3600.0}


def tools(ship: Ship, server: str) -> list[str]:
    return [raw.decode() for raw in ship.relay.tools(server)]


async def test_what_a_child_may_ask_before_it_is_ready_is_answered_and_the_rest_is_noted(tmp_path: Path) -> None:
    async with sailing(registry(tmp_path, spec("eager", "mcp_eager.py", roots=("file:///srv",)))) as ship:
        await ship.ready()

        heard = {"a": {"roots": [{"uri": "file:///srv"}]}, "b": {}, "c": -32600}
        assert str(heard) in tools(ship, "eager")[0]
        log = ship.fleet.log_path("eager").read_text()
        assert "[stdout-noise] Welcome to the eager server!" in log
        assert '[message] {"jsonrpc": "2.0", "method": "notifications/message"' in log
        assert ship.fleet.server("eager").notes == ("eager: 1 lines on stdout were no messages; they are in its log",)


async def test_a_stopped_process_is_found_ended_and_replaced(tmp_path: Path) -> None:
    async with sailing(registry(tmp_path, spec("time", liveness=OFTEN, readiness=SELDOM))) as ship:
        await ship.ready()

        os.kill(ship.pid("time"), signal.SIGSTOP)

        await ship.ready("time", generation=2)
        ended = ship.fleet.server("time").exits[-1]
        assert ended.reason == "watchdog"
        assert ended.status.startswith("2 pings in a row without a sign of life")


async def test_a_child_that_works_on_a_call_is_not_ended_but_gets_no_new_ones(tmp_path: Path) -> None:
    with gate(tmp_path) as held:
        async with sailing(registry(tmp_path, spec("time", liveness=OFTEN, readiness=OFTEN))) as ship:
            await ship.ready()
            working = asyncio.ensure_future(ship.call("time", "hold", path=str(held.path)))
            await ship.until("time", State.NOT_READY)
            status = ship.fleet.server("time").status
            assert (status.state, status.last_error) == ("NOT_READY", "2 readiness probes in a row failed")
            waiting = asyncio.ensure_future(ship.call("time", "echo"))

            held.open_()

            assert str(held.path) in await within(working)
            assert await within(waiting) == "{}"
            assert ship.instance("time").machine.generation == 1
            assert ("NOT_READY", "READY") in ship.transitions("time")


async def test_a_child_that_works_for_longer_than_a_call_may_take_is_wedged(tmp_path: Path) -> None:
    with gate(tmp_path) as held:
        wedged = spec("time", liveness=OFTEN, readiness=SELDOM, call_timeout=0.3)
        async with sailing(registry(tmp_path, wedged)) as ship:
            await ship.ready()

            with pytest.raises(ServerFault):
                await within(ship.call("time", "hold", path=str(held.path)))

            await ship.ready("time", generation=2)
            assert ship.fleet.server("time").exits[-1].status.startswith("wedged: silent for")


async def test_calls_to_one_whose_stdin_is_gone_are_not_told_that_it_is_slow(tmp_path: Path) -> None:
    """As in the moment between a death and the news of it: they wait for the next process."""
    async with sailing(registry(tmp_path, spec("deaf", "mcp_deaf.py"))) as ship:
        await ship.ready()

        calls = []
        async with asyncio.timeout(DEADLINE):
            while ship.instance("deaf").machine.generation == 1:
                calls.append(asyncio.ensure_future(ship.call("deaf", "echo")))
                await asyncio.sleep(0.001)
        await command(ship.fleet.stop("deaf"))
        answers = await within(asyncio.gather(*calls, return_exceptions=True))

        assert len(answers) > 1
        assert {type(one) for one in answers} == {ServerFault}


async def test_a_live_change_of_the_probes_counts_at_once(tmp_path: Path) -> None:
    text = "[servers.time]\ncommand = PEER\n[servers.time.liveness]\n"
    async with sailing(load_registry(tmp_path, text + 'period = "1h"\n')) as ship:
        await ship.ready()
        write_registry(tmp_path, text + 'period = "50ms"\ntimeout = "50ms"\n')
        await within(ship.fleet.reload(dry_run=False))

        os.kill(ship.pid("time"), signal.SIGSTOP)

        await ship.ready("time", generation=2)


async def test_one_that_is_not_ready_while_its_probes_change_can_be_ready_again(tmp_path: Path) -> None:
    text = "[servers.time]\ncommand = PEER\n[servers.time.readiness]\n"
    quick = 'period = "50ms"\ntimeout = "50ms"\nfailure_threshold = '
    with gate(tmp_path) as held:
        async with sailing(load_registry(tmp_path, text + quick + "2\n")) as ship:
            await ship.ready()
            working = asyncio.ensure_future(ship.call("time", "hold", path=str(held.path)))
            await ship.until("time", State.NOT_READY)
            write_registry(tmp_path, text + quick + "3\n")
            await within(ship.fleet.reload(dry_run=False))

            held.open_()

            await ship.ready("time")
            await within(working)
            assert ship.instance("time").machine.generation == 1


async def test_a_little_noise_is_logged_and_counted_and_that_is_all(tmp_path: Path) -> None:
    async with sailing(registry(tmp_path, spec("time"))) as ship:
        await ship.ready()
        await ship.call("time", "noise", count=3)

        assert ship.state("time") is State.READY
        assert "[stdout-noise] noise 2\n" in ship.fleet.log_path("time").read_text()


async def test_too_much_noise_keeps_new_calls_away(tmp_path: Path) -> None:
    async with sailing(registry(tmp_path, spec("time"))) as ship:
        await ship.ready()
        await ship.call("time", "noise", count=NOISE_LIMIT + 1)

        await ship.until("time", State.NOT_READY)
        assert "too much on stdout" in (ship.fleet.server("time").status.last_error or "")


async def test_when_the_noise_is_over_it_gets_calls_again(tmp_path: Path) -> None:
    async with sailing(registry(tmp_path, spec("time"))) as ship:
        await ship.ready()
        await ship.call("time", "noise", count=NOISE_LIMIT + 1)
        await ship.until("time", State.NOT_READY)
        incarnation = ship.instance("time").incarnation
        assert incarnation is not None

        incarnation.vitals.meter = NoiseMeter()  # a minute has passed
        incarnation.vitals._noise_is_old()

        assert ship.state("time") is State.READY
        assert await ship.call("time", "echo") == "{}"


async def test_an_error_of_mcpds_own_costs_the_process_only(tmp_path: Path) -> None:
    async def breaks() -> None:
        raise RuntimeError("a bug")

    async with sailing(registry(tmp_path, spec("time"), spec("other"))) as ship:
        await ship.ready()
        incarnation = ship.instance("time").incarnation
        assert incarnation is not None

        incarnation._run("bug", breaks)

        await ship.ready("time", generation=2)
        assert "internal error: RuntimeError('a bug')" in ship.fleet.server("time").exits[-1].status
        assert ship.instance("other").machine.generation == 1


async def test_a_server_whose_lists_change_whenever_they_are_asked_for_is_not_asked_for_ever(tmp_path: Path) -> None:
    async with sailing(registry(tmp_path, spec("time", "mcp_restless.py"))) as ship:
        await ship.ready()
        incarnation = ship.instance("time").incarnation
        assert incarnation is not None

        waits = [round(incarnation._next_refetch_delay(), 2) for _ in range(9)]

        assert waits[-1] == 5.0
        assert waits == sorted(waits)
        assert await ship.call("time", "echo") == "{}"


async def test_lists_that_cannot_be_fetched_anew_stay_what_they_were(tmp_path: Path) -> None:
    async with sailing(registry(tmp_path, spec("time", "mcp_forgets.py"))) as ship:
        await ship.ready()
        await ship.call("time", "grow", tool="new")

        log = ship.fleet.log_path("time")
        await until(lambda: log.exists() and "the old ones stay" in log.read_text())
        assert len(tools(ship, "time")) == 7
        assert ship.state("time") is State.READY


async def test_overlong_lines_again_and_again_end_it(tmp_path: Path) -> None:
    async with sailing(registry(tmp_path, spec("time", "mcp_overlong.py"))) as ship:
        await ship.ready()
        for _ in range(2):
            assert "17000000" in await ship.call("time", "echo", bytes=17_000_000)
        with pytest.raises(ServerFault, match="protocol: overlong lines"):
            await ship.call("time", "echo", bytes=17_000_000)

        await ship.ready("time", generation=2)


@pytest.mark.parametrize(("child", "what"), [("mcp_deaf.py", "stdin"), ("mcp_mute.py", "stdout")])
async def test_one_that_closes_its_pipes_and_lives_on_is_ended(tmp_path: Path, child: str, what: str) -> None:
    often = {"period": 0.05, "timeout": DEADLINE}
    async with sailing(registry(tmp_path, spec("time", child, liveness=often, restart="no"))) as ship:
        await ship.until("time", State.FAILED)

        ended = ship.fleet.server("time").exits[-1]
        assert (ended.reason, ended.status.split(";")[0]) == ("protocol", f"it closed its {what} and lives on")


async def test_changed_lists_are_fetched_anew(tmp_path: Path) -> None:
    async with sailing(registry(tmp_path, spec("time"))) as ship:
        await ship.ready()
        push = Push()
        session = ship.relay.open_session(View("all"), "test", "stdio", push)
        session.protocol_version = "2025-11-25"
        for number in range(20):
            await ship.call("time", "grow", tool=f"new{number}")

        await push.until(lambda: len(tools(ship, "time")) == 27)

        assert ship.fleet.server("time").status.tools == 27
        assert set(push.frames) == {b'{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}'}
        assert len(push.frames) < 20  # a burst is one change


async def test_a_child_dies_in_its_handshake(tmp_path: Path) -> None:
    with gate(tmp_path) as held:
        waits = spec("time", "mcp_waits.py", str(held.path), restart="no")
        async with sailing(registry(tmp_path, waits)) as ship:
            await ship.until("time", State.INITIALIZING)

            os.kill(ship.pid("time"), signal.SIGKILL)

            await ship.until("time", State.FAILED)
            assert ship.fleet.server("time").exits[-1].reason == "signal"
