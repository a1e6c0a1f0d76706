"""Commands, kills and reloads in any order: at the end all is as it was said last, and nothing is there twice."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import tempfile
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, ClassVar

import pytest
import uvloop
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from mcpd.control.view import Outcome
from mcpd.errors import McpdError
from mcpd.fleet.instance import Instance
from mcpd.fleet.place import Role
from mcpd.lifecycle.states import LIVE, State
from mcpd.process import tree
from support.fleets import Client, Ship, load_registry, sailing, within, write_registry
from support.processes import DEADLINE
from support.waiting import until

FIVE = ("a", "b", "pool", "own", "lazy")
NAMES = st.sampled_from(FIVE)
COMMANDS = st.sampled_from(["start", "stop", "restart", "roll", "roll"])
KILLERS = st.sampled_from([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM])
PHASES = (State.INITIALIZING, State.READY, State.NOT_READY, State.STOPPING)
EVERYTHING = {*PHASES, *Role}
MOST_STORMS = 6
AMBUSH = 0.5  # seconds in which an instance has to come into the phase in which it is to be killed
PATIENCE = 12 * DEADLINE  # of commands and of the end, however busy the machine is


def registry_text(mode: int, instances: int, enabled: bool) -> str:
    """`a` never changes, `b` has another environment in each mode and may be switched off, `pool` has some instances,
    `own` one for each session, and `lazy` runs when it is used."""
    return (
        "[servers.a]\ncommand = PEER\n"
        f'[servers.b]\ncommand = PEER\nenabled = {str(enabled).lower()}\nenv = {{ MODE = "{mode}" }}\n'
        f'[servers.pool]\ncommand = PEER\ninstances = {instances}\nenv = {{ MODE = "{mode // 2}" }}\n'
        '[servers.own]\ncommand = PEER\nsharing = "session"\n'
        '[servers.lazy]\ncommand = PEER\nactivation = "lazy"\nidle_timeout = "50ms"\n'
    )


class Storm(RuleBasedStateMachine):
    """Rules give commands and do not wait for what comes of them; time passes only while one of them waits."""

    operations = 0
    killed: ClassVar[set[State | Role]] = set()

    def __init__(self) -> None:
        super().__init__()
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self._root = tempfile.TemporaryDirectory(prefix="mcpd-storm-")
        self._under_way: set[asyncio.Task[None]] = set()
        self._up = dict.fromkeys(FIVE, True)
        self._mode, self._instances, self._enabled = 0, 3, True
        self._seen: dict[int, tree.Process | None] = {}
        self._run(self._begin())

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self._runner.run(work)

    async def _begin(self) -> None:
        self._over = asyncio.Event()
        started: asyncio.Future[Ship] = asyncio.get_running_loop().create_future()
        self._sail = asyncio.create_task(self._sailing(started))
        self._ship = await within(started)

    async def _sailing(self, started: asyncio.Future[Ship]) -> None:
        async with sailing(load_registry(Path(self._root.name), self._text())) as ship:
            started.set_result(ship)
            await self._over.wait()

    def _text(self) -> str:
        return registry_text(self._mode, self._instances, self._enabled)

    # -- Rules -------------------------------------------------------------------------------------------------------

    @rule(name=NAMES, verb=COMMANDS)
    def command(self, name: str, verb: str) -> None:
        if name != "b" or self._enabled:  # otherwise the command is refused, and what was wanted of it before counts
            self._up[name] = verb != "stop"
        self._run(self._give(outcome(getattr(self._ship.fleet, verb)(name))))

    @rule(role=st.sampled_from(Role), number=KILLERS, wrapper=st.booleans())
    def kill(self, role: Role, number: signal.Signals, wrapper: bool) -> None:
        """Kill an instance that is there for something, whatever it does; the next one if there is none now."""
        self._run(self._give(self._ambush(lambda one: one.place.role is role, number, wrapper=wrapper)))

    @rule(name=NAMES, phase=st.sampled_from(PHASES), number=KILLERS)
    def kill_in(self, name: str, phase: State, number: signal.Signals) -> None:
        """Kill an instance of a server in a phase; one that comes into it, as soon as it is there."""
        wrapper = phase is State.INITIALIZING  # the server's own process is not known yet
        self._run(
            self._give(self._ambush(lambda one: (one.spec.name, one.state) == (name, phase), number, wrapper=wrapper))
        )

    async def _ambush(self, fits: Callable[[Instance], bool], number: signal.Signals, *, wrapper: bool) -> None:
        feed = self._ship.fleet.events(self._ship.fleet.log.last)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(AMBUSH):
                while True:
                    for one in filter(fits, list(self._ship.fleet.instances.values())):
                        if strike(one, number, wrapper=wrapper):
                            self.killed.update((one.state, one.place.role))
                            return
                    await anext(feed)

    @rule(name=st.sampled_from(["a", "b", "pool", "lazy"]))
    def call(self, name: str) -> None:
        self._run(self._give(called(self._ship, name)))

    @rule()
    def noise(self) -> None:
        """So much on stdout that is no message that it is not READY for a while."""
        self._run(self._give(called(self._ship, "a", "noise", count=61)))

    @rule(calls=st.integers(1, 20))
    def session(self, calls: int) -> None:
        self._run(self._give(one_session(self._ship, calls)))

    @rule(changed=st.booleans(), instances=st.integers(1, 3))
    def reload(self, changed: bool, instances: int) -> None:
        self._mode += changed
        self._instances = instances
        self._rewrite()

    @rule(enabled=st.booleans())
    def switch(self, enabled: bool) -> None:
        """Enable or disable a server; it counts before anything else is asked."""
        self._enabled = enabled
        self._rewrite()
        self._run(self._switched())

    async def _switched(self) -> None:
        fleet = self._ship.fleet
        await until(lambda: fleet.registry.servers["b"].enabled == self._enabled, PATIENCE)

    def _rewrite(self) -> None:
        write_registry(Path(self._root.name), self._text())
        self._run(self._give(reloaded(self._ship)))

    @rule(seconds=st.floats(0, 0.05))
    def pause(self, seconds: float) -> None:
        self._run(asyncio.sleep(seconds))

    async def _give(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._under_way.add(task)
        await asyncio.sleep(0)  # commands are carried out in the order in which they are given

    # -- What holds --------------------------------------------------------------------------------------------------

    @invariant()
    def nothing_is_there_twice(self) -> None:
        """The kernel's word: of all processes that were ever started only those are alive that the fleet knows of; and
        of these, one for each place serves, one may be about to take it, and the others are being ended."""
        Storm.operations += 1
        known = [one for one in self._ship.fleet.instances.values() if one.incarnation is not None]
        running = {one.incarnation.child.pid for one in known if one.incarnation is not None}
        for pid in running - self._seen.keys():
            self._seen[pid] = tree.look_up(pid)
        alive = {pid for pid, process in self._seen.items() if process is not None and is_alive(process)}
        assert alive <= running
        self._seen = {pid: self._seen[pid] for pid in alive}
        serving = [one for one in known if one.place.role is not Role.RETIRED]
        kept = Counter((one.name, one.place.role) for one in serving)
        assert max(kept.values(), default=0) <= 1
        parties = Counter(one.place.party for one in serving if one.place.role is Role.OWN and one.state in LIVE)
        assert max(parties.values(), default=0) <= 1
        assert sum(one.place.role is Role.SPARE and one.state in LIVE for one in serving) <= 1
        assert all(one.state not in LIVE for one in known if one.place.role is Role.RETIRED)

    def teardown(self) -> None:
        try:
            self._run(self._end())
        finally:
            self._runner.close()
            self._root.cleanup()

    async def _end(self) -> None:
        try:
            async with asyncio.timeout(2 * PATIENCE):
                await asyncio.gather(*self._under_way)
            await self._settled()
            self.nothing_is_there_twice()
        finally:
            self._over.set()
            async with asyncio.timeout(PATIENCE):
                await self._sail

    async def _settled(self) -> None:
        """The last word counts: of each server there is what was asked for last, and nothing else."""
        wanted = {name: self._wanted(name) for name in FIVE}
        try:
            await until(lambda: all(self._found(name) <= wanted[name] for name in FIVE), PATIENCE)
        except TimeoutError:
            pytest.fail(f"{ {name: (self._found(name), wanted[name]) for name in FIVE} }")
        registry, instances = self._ship.fleet.registry, list(self._ship.fleet.instances.values())
        assert registry.servers["b"].env == {"MODE": str(self._mode)}
        assert registry.servers["pool"].instances == self._instances
        counted = Counter((one.spec.name, one.place.role) for one in instances)
        slots = {("a", Role.SHARED): 1, ("b", Role.SHARED): 1, ("pool", Role.SHARED): self._instances}
        spare = {("own", Role.SPARE): 1} if self._up["own"] else {}
        assert counted == {**slots, ("lazy", Role.SHARED): 1, ("own", Role.LEARNER): 1, **spare}
        assert all(one.spec == registry.servers[one.spec.name] for one in instances)

    def _wanted(self, name: str) -> set[tuple[Role, State]]:
        """What may be left of a server."""
        match name:
            case "a" if self._up[name]:  # the noise that it made is held against it for a minute
                return {(Role.SHARED, State.READY), (Role.SHARED, State.NOT_READY)}
            case "b" if not self._enabled:
                return {(Role.SHARED, State.DISABLED)}
            case "own" if self._up[name]:
                return {(Role.LEARNER, State.IDLE), (Role.SPARE, State.INITIALIZING)}
            case "own":
                return {(Role.LEARNER, State.STOPPED)}
            case "lazy" if self._up[name]:
                return {(Role.SHARED, State.IDLE)}
            case _:
                return {(Role.SHARED, State.READY if self._up[name] else State.STOPPED)}

    def _found(self, name: str) -> set[tuple[Role, State]]:
        return {(one.place.role, one.state) for one in self._ship.fleet.instances_of(name)}


def strike(one: Instance, number: signal.Signals, *, wrapper: bool) -> bool:
    """Signal the process of an instance, or what contains it; False if there is none."""
    child = one.incarnation.child if one.incarnation is not None else None
    if child is None or child.status is not None:
        return False
    pid = child.pid if wrapper else child.server_pid
    if pid is None:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
    return True


def is_alive(process: tree.Process) -> bool:
    """Whether it runs yet; its number may be another's by now."""
    now = tree.look_up(process.pid)
    return now is not None and now.started == process.started and now.running


async def outcome(command: Coroutine[Any, Any, Outcome]) -> None:
    assert isinstance(await asyncio.wait_for(command, PATIENCE), Outcome)


async def called(ship: Ship, name: str, tool: str = "echo", **arguments: Any) -> None:
    """A call has its answer or an error; it never hangs."""
    with contextlib.suppress(McpdError):
        answer = await asyncio.wait_for(ship.call(name, tool, **arguments), PATIENCE)
        assert json.loads(answer) == arguments


async def one_session(ship: Ship, calls: int) -> None:
    """A client that comes, calls some times, and goes."""
    client = Client(ship, "own")
    answer = await client.ask("initialize", {"protocolVersion": "2025-11-25", "capabilities": {}})
    if "result" in answer:
        for _ in range(calls):
            await client.ask("tools/call", {"name": "echo", "arguments": {}})
    client.close()


async def reloaded(ship: Ship) -> None:
    await asyncio.wait_for(ship.fleet.reload(dry_run=False), PATIENCE)


def storm(examples: int, steps: int, number: int = 0) -> None:
    """Each `number` is another storm, the same every time but for what the machine makes of it."""
    unhurried = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        phases=[Phase.generate],  # what comes of a schedule depends on the machine's mood, so it cannot be made smaller
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(seed(number)(Storm), settings=unhurried)


@pytest.mark.timeout(120)
def test_the_last_word_counts() -> None:
    storm(3, 30)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_last_word_counts_after_a_thousand_operations() -> None:
    """Until everything was killed in every phase as well, which takes as long as it takes."""
    Storm.operations = 0
    Storm.killed.clear()
    for number in range(MOST_STORMS):
        storm(20, 50, number)
        if Storm.operations >= 1000 and Storm.killed >= EVERYTHING:
            break
    assert Storm.operations >= 1000
    assert Storm.killed >= EVERYTHING
