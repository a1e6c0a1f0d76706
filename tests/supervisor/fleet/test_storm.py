"""Commands, kills and reloads in any order: at the end all is as it was said last, and nothing is there twice."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections import Counter
from pathlib import Path

import pytest

from mcpd.control.view import Outcome
from mcpd.errors import McpdError
from mcpd.fleet.place import Role
from mcpd.lifecycle.states import LIVE, State
from support.fleets import Ship, load_registry, sailing, within, write_registry
from support.waiting import until

pytestmark = pytest.mark.anyio

NAMES = ("a", "b", "c")
STEPS = 120


def registry_text(mode: int) -> str:
    """Three servers, one of them with another environment in each mode."""
    return "".join(
        f'[servers.{name}]\ncommand = PEER\nenv = {{ MODE = "{mode if name == "b" else 0}" }}\n' for name in NAMES
    )


@pytest.mark.parametrize("seed", range(3))
async def test_the_last_word_counts(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    wished = dict.fromkeys(NAMES, State.READY)
    seen: set[int] = set()
    async with sailing(load_registry(tmp_path, registry_text(0))) as ship:
        await ship.ready()
        async with asyncio.TaskGroup() as group:
            for step in range(STEPS):
                name = dice.choice(NAMES)
                match dice.choice(["start", "stop", "restart", "reload", "kill", "call", "look"]):
                    case "start":
                        wished[name] = State.READY
                        group.create_task(outcome(ship.fleet.start(name)))
                    case "restart":
                        wished[name] = State.READY
                        group.create_task(outcome(ship.fleet.restart(name)))
                    case "stop":
                        wished[name] = State.STOPPED
                        group.create_task(outcome(ship.fleet.stop(name)))
                    case "reload":
                        write_registry(tmp_path, registry_text(step))
                        await within(ship.fleet.reload(dry_run=False))
                    case "kill":
                        kill(ship, name, dice.choice([signal.SIGKILL, signal.SIGTERM]))
                    case "call":
                        group.create_task(called(ship, name))
                    case "look":
                        await asyncio.sleep(dice.random() / 50)
                await asyncio.sleep(0)  # commands are carried out in the order in which they are given
                look(ship, seen)
        for name, state in wished.items():
            await settled(ship, name, state)
            assert ship.slot(name).spec.env["MODE"] == ship.fleet.registry.servers[name].env["MODE"]
        look(ship, seen)


async def settled(ship: Ship, name: str, state: State) -> None:
    """Return when of a server there is one instance left, in this state."""
    await until(lambda: [one.state for one in ship.fleet.instances_of(name)] == [state])


def look(ship: Ship, seen: set[int]) -> None:
    """The kernel's word: of all processes that were ever started only those are alive that the fleet knows of; and of
    these, one a server serves, one may be about to take its place, and the others are being ended."""
    known = [one for one in ship.fleet.instances.values() if one.incarnation is not None]
    running = {one.incarnation.child.pid for one in known if one.incarnation is not None}
    seen |= running
    assert {pid for pid in seen if os.path.exists(f"/proc/{pid}")} <= running
    kept = Counter((one.name, one.place.role) for one in known if one.place.role is not Role.RETIRED)
    assert max(kept.values(), default=0) <= 1
    assert all(one.state not in LIVE for one in known if one.place.role is Role.RETIRED)


def kill(ship: Ship, name: str, number: int) -> None:
    incarnation = ship.slot(name).incarnation
    if incarnation is not None and incarnation.child.status is None and incarnation.child.server_pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(incarnation.child.server_pid, number)


async def outcome(command: object) -> None:
    assert isinstance(await within(command), Outcome)


async def called(ship: Ship, name: str) -> None:
    """A call has an answer or an error; it never hangs."""
    with contextlib.suppress(McpdError):
        assert await within(ship.call(name, "echo")) == "{}"
