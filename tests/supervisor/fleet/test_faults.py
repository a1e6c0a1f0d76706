"""The fault cases of servers (docs/faults.md), each with a real child that has the fault.

Every test runs beside a server that has none, and ends with the same checks: that one answers, from the process that it
had; no process of the others is left, no zombie and no descriptor. The deadlines are those of `support.fleets`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from mcpd.clock import SystemClock
from mcpd.errors import CallTimeout, Overloaded, ServerFault
from mcpd.lifecycle.states import State
from mcpd.process import tree
from support.fleets import Client, Push, Ship, command, gate, registry, sailing, spec, within
from support.processes import CHILDREN, DEADLINE
from support.waiting import until

pytestmark = pytest.mark.anyio
QUICK_PROBES = {"period": 0.05, "timeout": 0.05, "failure_threshold": 2}
SLOW_BACKOFF: dict[str, Any] = {"restart_delay": 30.0, "restart_max_delay": 60.0}


@contextlib.asynccontextmanager
async def beside(tmp_path: Path, name: str, child: str = "mcp_peer.py", *args: str, **keys: Any) -> AsyncIterator[Ship]:
    """A fleet of the server with the fault and of one without, which must not notice; see the module's text."""
    async with sailing(registry(tmp_path, spec("other"), spec(name, child, *args, **keys))) as ship:
        await ship.ready("other")
        pid = ship.pid("other")
        yield ship
        assert await within(ship.call("other", "echo", still="here")) == '{"still": "here"}'
        assert ship.pid("other") == pid


def log_of(ship: Ship, server: str) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(ship.fleet.log_path(server).parent.glob(f"{server}.log*")))


def ended(ship: Ship, key: str) -> list[str]:
    """Why it ended, each time."""
    return [str(past.exit) for past in ship.instance(key).exits]


# -- What comes on stdout ----------------------------------------------------------------------------------------------


async def test_01_a_banner_on_stdout_is_noise_and_a_stream_of_it_keeps_calls_away(tmp_path: Path) -> None:
    async with beside(tmp_path, "babbles", "mcp_banner.py") as ship:
        await ship.ready("babbles")
        assert b"Welcome to the server!" in log_of(ship, "babbles")
        assert "1 lines on stdout were no messages" in ship.fleet.server("babbles").notes[0]

        await ship.call("babbles", "noise", count=80)

        await ship.until("babbles", State.NOT_READY)
        assert (ship.fleet.server("babbles").status.last_error or "").startswith("protocol")


async def test_02_what_is_no_message_reaches_nobody(tmp_path: Path) -> None:
    async with beside(tmp_path, "garbles", "mcp_garbles.py") as ship:
        await ship.ready("garbles")
        push = Push()
        client = await Client(ship, "garbles", push=push).initialize()

        assert await client.call("echo", n=1) == '{"n": 1}'

        assert [json.loads(frame).get("id") for frame in push.frames] == [1, 2]
        assert "9 lines on stdout were no messages" in ship.fleet.server("garbles").notes[0]


@pytest.mark.parametrize("last", [False, True])
async def test_03_a_line_of_100_mb_is_discarded_and_its_call_gets_an_error(tmp_path: Path, last: bool) -> None:
    async with beside(tmp_path, "long", "mcp_verbose.py") as ship:
        await ship.ready("long")
        here = psutil.Process()
        before = most = here.memory_info().rss

        call = asyncio.ensure_future(ship.call("long", "echo", bytes=100_000_000, last=last))
        while not call.done():
            most = max(most, here.memory_info().rss)
            await asyncio.sleep(0.01)

        with pytest.raises(ServerFault, match="line of over 16 MiB"):
            await within(call)
        assert most - before < 64 * 2**20
        assert len(await ship.call("long", "echo", bytes=1_000_000)) == 1_000_000
        for _ in range(2):
            with contextlib.suppress(ServerFault):
                await within(ship.call("long", "echo", bytes=17 * 2**20, last=last))
        await ship.ready("long", generation=2)
        assert ended(ship, "long")[0].startswith("protocol")


async def test_04_half_a_line_and_then_silence(tmp_path: Path) -> None:
    keys = {"liveness": QUICK_PROBES, "call_timeout": 0.4}
    async with beside(tmp_path, "halves", "mcp_halves.py", **keys) as ship:
        await ship.ready("halves")

        with pytest.raises((ServerFault, CallTimeout)):
            await within(ship.call("halves", "echo"))

        await ship.ready("halves", generation=2)
        assert ended(ship, "halves")[0].startswith("watchdog")
        assert b'"result":{"content":' in log_of(ship, "halves")


async def test_05_bytes_one_by_one_and_ten_thousand_messages_at_once(tmp_path: Path) -> None:
    async with beside(tmp_path, "trickles", "mcp_trickles.py") as ship:
        await ship.ready("trickles")

        call = asyncio.ensure_future(ship.call("trickles", "echo", count=10_000))
        meanwhile = 0
        while not call.done():
            await within(ship.call("other", "echo"))
            meanwhile += 1

        assert await call == "slowly"
        assert meanwhile > 1


async def test_06_answers_that_nobody_asked_for_reach_nobody(tmp_path: Path) -> None:
    async with beside(tmp_path, "lies", "mcp_lies.py") as ship:
        await ship.ready("lies")
        clients = [await Client(ship, "lies").initialize() for _ in range(2)]

        for number in range(10):
            answer = await clients[number % 2].call("echo", n=number)

            assert answer == f'{{"n": {number}}}'
            lies = 7 * (number + 1)  # a child may answer a call that it has as it likes, so the next one comes later
            await until(lambda lies=lies: ship.relay.counters.unmatched_answers == lies)


async def test_a_request_under_an_id_that_is_in_use_is_refused(tmp_path: Path) -> None:
    async with beside(tmp_path, "asks", "mcp_asks_twice.py") as ship:
        await ship.ready("asks")
        client = await Client(ship, "asks", sampling={}).initialize()
        call = asyncio.ensure_future(client.call("echo"))

        asked = await client.asked("sampling/createMessage")
        client.answer(asked["id"], {"role": "assistant", "content": {"type": "text", "text": "yes"}, "model": "m"})

        refused, answered = json.loads(await within(call))
        assert "in use" in refused["message"]
        assert answered["content"]["text"] == "yes"


# -- How it ends, or does not ------------------------------------------------------------------------------------------


async def test_07_one_that_ignores_sigterm_is_killed_at_the_deadline(tmp_path: Path) -> None:
    async with beside(tmp_path, "stubborn", "mcp_stubborn.py") as ship:
        await ship.ready("stubborn")

        assert (await command(ship.fleet.stop("stubborn"))).ok

        assert ended(ship, "stubborn")[0].startswith("timeout: it had to be killed")


async def test_08_one_that_ignores_the_end_of_stdin_gets_sigterm(tmp_path: Path) -> None:
    async with beside(tmp_path, "deaf", "mcp_ignores_eof.py") as ship:
        await ship.ready("deaf")
        began = time.monotonic()

        assert (await command(ship.fleet.stop("deaf"))).ok

        assert time.monotonic() - began >= 0.2
        assert ended(ship, "deaf")[0].startswith("success")


@pytest.mark.parametrize("how", ["plain", "setsid", "daemon"])
async def test_09_10_a_grandchild_that_keeps_the_pipes_delays_nothing_and_does_not_survive(
    tmp_path: Path, how: str
) -> None:
    async with beside(tmp_path, "breeds", "mcp_breeds.py") as ship:
        await ship.ready("breeds")
        cookie = tree.cookie_for(ship.fleet.registry.daemon.runtime_dir)
        before = len(tree.carriers(cookie))

        with pytest.raises(ServerFault, match="exit code 3"):
            await within(ship.call("breeds", "echo", how=how))

        await ship.ready("breeds", generation=2)
        assert len(tree.carriers(cookie)) == before


async def test_11_a_sibling_that_ignores_sigterm_goes_too(tmp_path: Path) -> None:
    async with beside(tmp_path, "parent", "mcp_parent.py") as ship:
        await ship.ready("parent")

        assert (await command(ship.fleet.stop("parent"))).ok

        assert ship.fleet.server("parent").status.pid is None


async def test_a_wrapper_whose_children_ignore_everything_leaves_nothing(tmp_path: Path) -> None:
    wrapped = (str(CHILDREN / "wrapper.sh"), *spec("x").command)
    async with beside(tmp_path, "wrapped", command=wrapped) as ship:
        await ship.ready("wrapped")
        assert await ship.call("wrapped", "echo") == "{}"
        assert ship.child("wrapped").usage().processes >= 4

        assert (await command(ship.fleet.restart("wrapped"))).ok
        assert await ship.call("wrapped", "echo") == "{}"
        assert (await command(ship.fleet.stop("wrapped"))).ok


@pytest.mark.parametrize(
    ("child", "what"), [("mcp_mute.py", "stdout"), ("mcp_deaf.py", "stdin"), ("mcp_lame.py", "std")]
)
async def test_12_13_one_that_closes_its_pipes_and_lives_on_is_ended_and_started_again(
    tmp_path: Path, child: str, what: str
) -> None:
    async with beside(tmp_path, "closes", child, liveness={"period": 0.05}) as ship:
        await ship.until("closes", State.READY, State.STOPPING, State.EXITED)
        with contextlib.suppress(ServerFault, Overloaded):
            await within(ship.call("closes", "echo"))
        await until(lambda: ended(ship, "closes"))

        assert ended(ship, "closes")[0].startswith(f"protocol: it closed its {what}")
        await ship.until("closes", State.INITIALIZING, State.READY, generation=2)


async def test_14_one_that_stops_reading_costs_its_own_callers_only(tmp_path: Path) -> None:
    keys = {"liveness": QUICK_PROBES, "call_timeout": 1.0}
    async with beside(tmp_path, "stalls", "mcp_stalls.py", **keys) as ship:
        await ship.ready("stalls")
        clients = [await Client(ship, "stalls").initialize() for _ in range(8)]
        stuck = [asyncio.ensure_future(client.refused("echo", text="x" * 3 * 2**20)) for client in clients]

        errors = await within(asyncio.gather(*stuck, return_exceptions=True))

        assert any(isinstance(error, Overloaded) for error in errors)
        assert all(isinstance(error, str | Overloaded) for error in errors)
        await ship.ready("stalls", generation=2)
        assert ended(ship, "stalls")[0].startswith("watchdog")


async def test_14_a_stop_works_while_a_write_is_wedged(tmp_path: Path) -> None:
    async with beside(tmp_path, "stalls", "mcp_stalls.py") as ship:
        await ship.ready("stalls")
        client = await Client(ship, "stalls").initialize()
        call = asyncio.ensure_future(client.refused("echo", text="x" * 2**20))
        await ship.in_flight("stalls", 1)

        assert (await command(ship.fleet.stop("stalls"))).ok

        assert "went away" in await within(call)


async def test_15_one_that_exits_with_0_at_once_has_failed(tmp_path: Path) -> None:
    async with beside(tmp_path, "ends", "ends_with.py", "0", **SLOW_BACKOFF) as ship:
        await ship.until("ends", State.BACKOFF)

        assert ended(ship, "ends") == ["unexpected-exit: exit code 0"]


async def test_16_a_crash_loop_slows_down_and_ends_at_its_limit(tmp_path: Path) -> None:
    keys: dict[str, Any] = {"start_limit_burst": 5, "start_limit_action": "fail", "restart_max_delay": 0.4}
    async with beside(tmp_path, "crashes", "ends_with.py", "1", **keys) as ship:
        await ship.until("crashes", State.FAILED)

        assert sum("next start in" in reason for reason in ship.reasons("crashes")) == 5
        assert ship.fleet.server("crashes").status.last_error == (
            "start-limit-hit: 5 starts within 600 s; the last ended by exit-code: exit code 1"
        )
        assert len(log_of(ship, "crashes").splitlines()) < 20


async def test_17_dying_just_before_it_counts_as_stable_is_limited_too(tmp_path: Path) -> None:
    keys: dict[str, Any] = {"start_limit_burst": 4, "start_limit_action": "fail"}
    async with beside(tmp_path, "fleeting", "mcp_fleeting.py", **keys) as ship:
        await ship.until("fleeting", State.FAILED)

        assert ship.fleet.server("fleeting").status.restarts == 4


async def test_18_a_slow_start_is_waited_for_and_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcpd.fleet.status.SLOW_START", 0.05)
    with gate(tmp_path) as held:
        async with beside(tmp_path, "slow", "mcp_waits.py", str(held.path), liveness=QUICK_PROBES) as ship:
            starting = asyncio.ensure_future(ship.fleet.start("slow"))
            await ship.until("slow", State.INITIALIZING)
            await until(lambda: any("slow start" in note for note in ship.fleet.server("slow").notes))
            assert not starting.done()

            held.open_()

            assert (await command(starting)).ok
            assert ship.fleet.server("slow").status.restarts == 0


async def test_19_one_that_never_answers_the_handshake_is_ended_at_start_timeout(tmp_path: Path) -> None:
    async with beside(tmp_path, "silent", "mcp_silent.py", start_timeout=0.3, **SLOW_BACKOFF) as ship:
        await ship.until("silent", State.BACKOFF)

        assert ended(ship, "silent")[0].startswith("timeout: not initialised within start_timeout (0.3 s)")


@pytest.mark.parametrize("fault", ["missing", "not executable", "bad interpreter", "directory"])
async def test_20_what_cannot_be_executed_fails_at_once_and_is_not_tried_again(tmp_path: Path, fault: str) -> None:
    program = tmp_path / "program"
    if fault == "directory":
        program.mkdir()
    elif fault != "missing":
        program.write_text("#!/no/such/interpreter\n")
        program.chmod(0o755 if fault == "bad interpreter" else 0o644)
    async with beside(tmp_path, "broken", command=(str(program),)) as ship:
        await ship.until("broken", State.FAILED)

        status = ship.fleet.server("broken").status
        assert (status.last_error or "").startswith("exec: ")
        assert str(program) in (status.last_error or "")
        assert (status.restarts, status.generation) == (0, 1)


async def test_20_without_the_sandbox_tool_nothing_that_needs_it_is_started(tmp_path: Path) -> None:
    """Not unsandboxed, and not as the daemon's user: not at all."""
    strict = spec("strict", sandbox={"profile": "strict"})
    async with sailing(registry(tmp_path, strict), bare=True) as ship:
        await ship.until("strict", State.FAILED)

        status = ship.fleet.server("strict").status
        assert (status.last_error or "").startswith("sandbox: ")
        assert (status.restarts, status.pid) == (0, None)
        assert ship.instance("strict").exits[0].stderr_tail == b""


# -- What it uses ------------------------------------------------------------------------------------------------------


async def test_21_one_that_takes_too_much_memory_is_ended_and_that_is_told(tmp_path: Path) -> None:
    async with beside(tmp_path, "hogs", "mcp_hogs.py", limits={"memory": "96MiB"}) as ship:
        await ship.ready("hogs")

        with pytest.raises(ServerFault):
            await asyncio.wait_for(ship.call("hogs", "echo", mib=2000), 3 * DEADLINE)

        await ship.ready("hogs", generation=2)
        assert ended(ship, "hogs")[0].startswith("oom-kill")


async def test_22_spinning_in_many_processes_does_not_hold_up_the_daemon(tmp_path: Path) -> None:
    async with beside(tmp_path, "spins", "mcp_spins.py", limits={"pids": 12}) as ship:
        await ship.ready("spins")
        client = await Client(ship, "spins").initialize()
        call = asyncio.ensure_future(client.refused("echo", count=40))
        await ship.in_flight("spins", 1)

        began = time.monotonic()
        for _ in range(20):
            await within(ship.call("other", "echo"))
        assert time.monotonic() - began < DEADLINE
        assert ship.child("spins").usage().processes <= 40

        await command(ship.fleet.stop("spins"))
        await within(call)


async def test_23_a_flood_on_stderr_is_drained_bounded_and_counted(tmp_path: Path) -> None:
    async with beside(tmp_path, "grumbles", "mcp_grumbles.py") as ship:
        await ship.ready("grumbles")
        before = psutil.Process().memory_info().rss

        assert await asyncio.wait_for(ship.call("grumbles", "echo", bytes=20_000_000), 3 * DEADLINE)

        assert psutil.Process().memory_info().rss - before < 32 * 2**20
        assert len(log_of(ship, "grumbles")) < 15_000_000
        assert b"suppressed" in log_of(ship, "grumbles")


async def test_24_a_stopped_process_is_found_woken_ended_and_replaced(tmp_path: Path) -> None:
    async with beside(tmp_path, "sleeps", liveness=QUICK_PROBES) as ship:
        await ship.ready("sleeps")

        os.kill(ship.pid("sleeps"), signal.SIGSTOP)

        await ship.ready("sleeps", generation=2)
        assert ended(ship, "sleeps")[0].startswith("watchdog")


async def test_one_that_is_wedged_while_calls_come_and_time_out_is_found(tmp_path: Path) -> None:
    """Each new call is young, and none of them hides that nothing was answered for longer than a call may take."""
    keys = {"liveness": QUICK_PROBES, "call_timeout": 0.4}
    with gate(tmp_path) as never_opened:
        async with beside(tmp_path, "wedged", **keys) as ship:
            await ship.ready("wedged")
            calls = []
            async with asyncio.timeout(DEADLINE):
                calls.append(asyncio.ensure_future(ship.call("wedged", "hold", path=str(never_opened.path))))
                while ship.instance("wedged").machine.generation == 1:
                    calls.append(asyncio.ensure_future(ship.call("wedged", "echo")))
                    await asyncio.sleep(0.02)

            answers = await within(asyncio.gather(*calls, return_exceptions=True))

            failed = [one for one in answers if isinstance(one, ServerFault | CallTimeout)]
            assert len(failed) > 5
            assert all(one == "{}" for one in answers if one not in failed)  # those that met the next process
            assert ended(ship, "wedged")[0].startswith("watchdog: wedged")
            await ship.ready("wedged")


async def test_26_no_log_can_be_written_and_nobody_is_held_up(tmp_path: Path) -> None:
    async with beside(tmp_path, "grumbles", "mcp_grumbles.py") as ship:
        await ship.ready("grumbles")
        await ship.call("grumbles", "echo", bytes=10)
        await until(lambda: ship.fleet.log_path("grumbles").exists())
        folder = ship.fleet.log_path("grumbles").parent
        folder.rename(folder.with_suffix(".gone"))
        folder.write_text("a file where the directory should be")

        for _ in range(3):
            assert await asyncio.wait_for(ship.call("grumbles", "echo", bytes=2_000_000), 2 * DEADLINE)

        folder.unlink()
        folder.mkdir()
        async with asyncio.timeout(2 * DEADLINE):
            while not ship.fleet.log_path("grumbles").exists():  # each call makes it write, and the log try again
                await within(ship.call("grumbles", "echo", bytes=10))


async def test_27_without_descriptors_a_start_waits_and_leaks_none(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with beside(tmp_path, "needs") as ship:
        await ship.ready("needs")
        await command(ship.fleet.stop("needs"))
        taken: list[int] = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 1, hard))
        try:
            with contextlib.suppress(OSError):
                while True:
                    taken.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
            outcome = await command(ship.fleet.start("needs"))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for descriptor in taken:
                os.close(descriptor)

        assert (outcome.ok, outcome.state) == (False, "BACKOFF")
        assert outcome.reason.startswith("resources")
        await ship.ready("needs", generation=2)


# -- The world around --------------------------------------------------------------------------------------------------


class JumpingClock(SystemClock):
    """Its wall clock can be set, as an operator or a time server may."""

    jump = 0.0

    def wall(self) -> float:
        return super().wall() + self.jump


@pytest.mark.parametrize("days", [-1, 1])
async def test_32_a_jump_of_the_wall_clock_restarts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, days: int
) -> None:
    monkeypatch.setattr("support.fleets.SystemClock", JumpingClock)
    async with beside(tmp_path, "time", liveness=QUICK_PROBES) as ship:
        await ship.ready("time")
        assert isinstance(ship.clock, JumpingClock)
        generation = ship.instance("time").machine.generation

        ship.clock.jump = days * 86400.0
        heard = ship.instance("time").incarnation
        assert heard is not None
        for _ in range(5):  # some probes long
            before = heard.vitals.answered_at
            await until(lambda before=before: heard.vitals.answered_at != before)
            await ship.call("time", "echo")

        assert ship.instance("time").machine.generation == generation
        assert ship.fleet.server("time").status.state == "READY"
