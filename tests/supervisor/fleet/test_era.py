"""Which era a server is spoken to in: found out, remembered, and no failure on the way."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from mcpd.config.registry import ServerSpec
from mcpd.fleet.calls import ErrorAnswer
from mcpd.fleet.era import EraChoice, EraMemory, fingerprint
from mcpd.lifecycle.states import State
from mcpd.store.store import Store
from mcpd.wire.eras import Era
from support.fleets import registry, sailing, spec
from support.processes import CHILDREN

OLDER, NEWER = Era.HANDSHAKE, Era.PER_REQUEST
REFUSED = ErrorAnswer("initialize", -32022, "no handshake here")
UNKNOWN = ErrorAnswer("server/discover", -32601, "no such method")


def choice(entry: ServerSpec, memory: EraMemory | None = None, key: str = "time") -> EraChoice:
    return EraChoice(key, entry, memory or EraMemory(None))


# what is asked


def test_initialize_is_tried_first_and_what_was_found_out_next_time() -> None:
    memory = EraMemory(None)
    one = choice(spec("time"), memory)
    assert one.asked is OLDER

    assert one.is_refused(OLDER, REFUSED)
    assert one.asked is NEWER
    one.agreed(NEWER)

    assert choice(spec("time"), memory).asked is NEWER
    assert choice(spec("other"), memory).asked is OLDER


@pytest.mark.parametrize(
    ("era", "key", "asked"),
    [
        ("handshake", "time", OLDER),
        ("per-request", "time", NEWER),
        ("both", "time", OLDER),
        ("both", "time@per-request", NEWER),
    ],
)
def test_an_era_that_the_registry_names_is_not_found_out(era: str, key: str, asked: Era) -> None:
    memory = EraMemory(None)
    one = choice(spec("time", era=era), memory, key)

    assert one.asked is asked
    assert not one.is_refused(asked, REFUSED if asked is OLDER else UNKNOWN)
    assert one.asked is asked
    one.agreed(asked)
    assert memory.recall(spec("time", era=era)) is None


@pytest.mark.parametrize("code", [-32022, -32600, -32601])
def test_codes_by_which_servers_of_the_other_era_refuse(code: int) -> None:
    assert choice(spec("time")).is_refused(OLDER, ErrorAnswer("initialize", code, ""))


@pytest.mark.parametrize(
    ("era", "problem"),
    [
        (OLDER, ErrorAnswer("initialize", -32603, "out of memory")),
        (OLDER, ErrorAnswer("tools/list", -32601, "none")),
        (NEWER, ErrorAnswer("tools/list", -32603, "broken")),
    ],
)
def test_other_errors_say_nothing_of_the_era(era: Era, problem: ErrorAnswer) -> None:
    assert not choice(spec("time")).is_refused(era, problem)


def test_one_that_refuses_both_is_broken_and_tried_from_the_start_next_time() -> None:
    one = choice(spec("time"))
    assert one.is_refused(OLDER, REFUSED)

    assert not one.is_refused(NEWER, UNKNOWN)
    assert one.blame(UNKNOWN) == f"{REFUSED}; {UNKNOWN}"

    assert one.asked is OLDER
    assert one.is_refused(OLDER, REFUSED)


def test_an_era_remembered_wrongly_is_left_again() -> None:
    memory = EraMemory(None)
    memory.learn(spec("time"), NEWER)
    one = choice(spec("time"), memory)

    assert one.is_refused(NEWER, UNKNOWN)
    assert one.asked is OLDER
    one.agreed(OLDER)
    assert memory.recall(spec("time")) is OLDER


# what is remembered


def test_another_program_is_not_what_was_remembered(tmp_path: Path) -> None:
    program = tmp_path / "server.py"
    program.write_text("1")
    entry = ServerSpec.model_validate({"name": "time", "command": ("/usr/bin/python3", "server.py"), "cwd": tmp_path})
    memory = EraMemory(None)
    memory.learn(entry, NEWER)
    assert memory.recall(entry) is NEWER
    assert memory.recall(entry.model_copy(update={"args": ("--other",)})) is None

    os.utime(program, ns=(1, 1))
    assert memory.recall(entry) is None

    program.unlink()
    assert fingerprint(entry)


def test_the_next_daemon_knows_it(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "mcpd.db")
    EraMemory(store).learn(spec("time"), NEWER)
    store.close()

    store = Store.open(tmp_path / "mcpd.db")
    assert EraMemory(store).recall(spec("time")) is NEWER
    store.set_mark("time", "era", "nonsense")
    assert EraMemory(store).recall(spec("time")) is None
    store.close()


# with processes


@pytest.mark.anyio
async def test_a_server_of_the_other_era_is_found_out_without_a_failure(tmp_path: Path) -> None:
    entry = spec("newer", "mcp_newer.py", start_limit_burst=1, start_limit_action="fail", restart_delay=60.0)
    async with sailing(registry(tmp_path, entry)) as ship:
        await ship.ready()

        machine = ship.instance("newer").machine
        assert (machine.generation, machine.restarts, machine.last_exit and machine.last_exit.result) == (
            2,
            0,
            "success",
        )
        status = ship.fleet.server("newer").status
        assert (status.era, status.protocol, status.restarts) == ("per-request", "2026-07-28", 0)
        assert (State.INITIALIZING, State.STOPPING) in ship.transitions("newer")
        assert "asked again in the per-request era" in " ".join(ship.reasons("newer"))
        assert await ship.call("newer", "echo", a=1) == '{"a": 1}'


@pytest.mark.anyio
async def test_it_is_asked_rightly_at_once_the_next_time(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "mcpd.db")
    wanted = registry(tmp_path, spec("newer", "mcp_newer.py"))
    async with sailing(wanted, store) as ship:
        await ship.ready()
        await ship.fleet.restart("newer")
        assert ship.instance("newer").machine.generation == 3
    async with sailing(wanted, store) as ship:
        await ship.ready()
        assert ship.instance("newer").machine.generation == 1
    store.close()


@pytest.mark.anyio
async def test_a_server_that_refuses_both_fails(tmp_path: Path) -> None:
    entry = spec("refuses", "mcp_refuses.py", start_limit_burst=1, start_limit_action="fail")
    async with sailing(registry(tmp_path, entry)) as ship:
        failed = await ship.until("refuses", State.FAILED)

        assert failed.machine.last_exit is not None
        told = failed.machine.last_exit.text
        assert "initialize was answered with error -32600: not today" in told
        assert "server/discover was answered with error -32601" in told


@pytest.mark.anyio
async def test_an_instance_for_each_era(tmp_path: Path) -> None:
    """The child is of one era alone, so that of its two instances only one comes up."""
    entry = spec("newer", "mcp_newer.py", era="both", restart_delay=60.0)
    async with sailing(registry(tmp_path, entry)) as ship:
        await ship.until("newer@per-request", State.READY)
        await ship.until("newer", State.BACKOFF)
        assert await ship.call("newer", "echo") == "{}"


@pytest.mark.anyio
async def test_a_program_that_was_replaced_is_found_out_anew(tmp_path: Path) -> None:
    for child in ("mcp_peer.py", "mcp_newer.py"):
        shutil.copy(CHILDREN / child, tmp_path)
    program = tmp_path / "server.py"
    shutil.copy(CHILDREN / "mcp_newer.py", program)
    command = (sys.executable, "-I", "-S", str(program))
    entry = spec("changing").model_copy(update={"command": command})
    async with sailing(registry(tmp_path, entry)) as ship:
        await ship.ready()
        assert ship.fleet.server("changing").status.era == "per-request"

        shutil.copy(CHILDREN / "mcp_peer.py", program)
        assert (await ship.fleet.restart("changing")).ok

        status = ship.fleet.server("changing").status
        assert (status.era, status.restarts) == ("handshake", 0)
