"""What is wanted of all servers, what runs, and the one way from the first to the second.

Boot, reload, an operator's command and a changed entry all end in `Engine.reconcile`; a crash and a timer are the
instance's own.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Coroutine, Iterable, Iterator, Mapping
from enum import Enum, auto

import structlog

from mcpd.clock import Clock
from mcpd.config.registry import Registry, ServerSpec
from mcpd.fleet import status
from mcpd.fleet.demand import SLOTS, Demand
from mcpd.fleet.era import EraMemory
from mcpd.fleet.eventlog import EventLog
from mcpd.fleet.instance import Instance
from mcpd.fleet.place import Role
from mcpd.fleet.relay import Relay
from mcpd.fleet.rolling import Rolling
from mcpd.fleet.supplies import Planner, Supplies
from mcpd.lifecycle.backoff import RestartAlarm
from mcpd.lifecycle.effects import Changed
from mcpd.lifecycle.events import Disable, Rest, Restart, Start, Stop
from mcpd.lifecycle.phases import Ended, Stopping, Waiting
from mcpd.lifecycle.reconcile import (
    Adopt,
    Create,
    Lower,
    Lull,
    Observed,
    Orders,
    Raise,
    Remove,
    Renew,
    Wish,
    instance_keys,
    reconcile,
)
from mcpd.lifecycle.states import HELD, LIVE, SETTLED, Goal, State
from mcpd.process.stop import StopLadder
from mcpd.sandbox.policy import SandboxFacts
from mcpd.store.store import Store

BRIEF = 2.0
"""A server that will be started within so many seconds is "coming": calls wait for it instead of failing."""
LAST_LADDER = StopLadder(0.0, 0.0, 3.0)

_log = structlog.get_logger("mcpd.fleet")
_AT_REST = frozenset({State.STOPPED, State.DISABLED, State.FAILED, State.IDLE})
_LEVELS = {
    State.READY: "info",
    State.NOT_READY: "warning",
    State.BACKOFF: "warning",
    State.FAILED: "error",
    State.ABANDONED: "error",
}


class Stage(Enum):
    """Where the engine itself is in its life."""

    NEW = auto()
    RUNNING = auto()
    STOPPING = auto()


class Engine:
    """`run` owns every task; everything else is called on its loop."""

    def __init__(
        self,
        registry: Registry,
        relay: Relay,
        *,
        store: Store | None,
        clock: Clock,
        sandbox: SandboxFacts,
        version: str,
        environ: Mapping[str, str] | None = None,
        warden: Planner | None = None,
    ) -> None:
        """`environ`: the daemon's own, of which servers get a few variables; None: the process's."""
        self.registry = registry
        self.relay = relay
        self.clock = clock
        self.version = version
        self.slots = asyncio.Semaphore(registry.daemon.max_concurrent_starts)
        self.log = EventLog(clock, store)
        self._store = store
        self.eras = EraMemory(store)
        self._sandbox = sandbox
        self._environ = dict(os.environ if environ is None else environ)
        self.supplies = Supplies(
            registry,
            clock=clock,
            sandbox=sandbox,
            environ=self._environ,
            warden=warden,
            tasks=self.start_task,
            tell=self.tell,
        )
        self._wishes = {name: Wish(word) for name, word in (store.desired() if store is not None else {}).items()}
        self.instances: dict[str, Instance] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._group: asyncio.TaskGroup | None = None
        self.stage = Stage.NEW
        self._over = asyncio.Event()
        self._alarm = RestartAlarm()
        self.demand = Demand(registry, self, store)
        self.rolling = Rolling(self)
        self._replacing: dict[str, asyncio.Future[str]] = {}
        self._why_replaced: Mapping[str, str] = {}
        self._recall(registry.servers)
        relay.on_catalogue_stale = self._list_changed
        relay.on_interactive = self._is_interactive
        relay.on_server_log = self._server_said
        relay.on_notice = lambda server, text: self.tell(server, text)

    # -- Running -----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Start what is wanted and keep it so, until `stop_all`. Cancelled, it kills what runs and returns."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                self.stage = Stage.RUNNING
                self.start_task(self.demand.watch(), "idleness")
                self.reconcile()
                for name in self.registry.servers:
                    self._announce(name)
                await self._over.wait()
                for task in tuple(self._tasks):
                    task.cancel()
        finally:
            await self._tear_down()

    async def stop_all(self, hurry: asyncio.Event | None = None) -> None:
        """Stop every server, those that come after others first; then `run` ends.

        Each gets its drain and its stop_timeout, all side by side, so it takes as long as the slowest chain; once
        `hurry` is set, drains are over and stops are quick.
        """
        self.stage = Stage.STOPPING
        try:
            async with asyncio.TaskGroup() as group:
                hastener = group.create_task(self._hurry_when(hurry or asyncio.Event()), name="hurry")
                async with asyncio.TaskGroup() as stops:
                    for instance in tuple(self.instances.values()):
                        stops.create_task(self._stop_in_order(instance), name=f"stop-all:{instance.key}")
                hastener.cancel()
        finally:
            self.log.close()
            self._over.set()

    async def _stop_in_order(self, instance: Instance) -> None:
        for other in tuple(self.instances.values()):
            if instance.spec.name in other.spec.after:
                await other.until(lambda other=other: is_down(other))  # type: ignore[misc]
        if instance.state not in _AT_REST:
            instance.post(Stop(instance.now(), "the daemon is stopping"))
            await instance.until(lambda: is_down(instance))

    async def _hurry_when(self, hurry: asyncio.Event) -> None:
        await hurry.wait()
        for instance in tuple(self.instances.values()):
            instance.hurry()

    async def _tear_down(self) -> None:
        """Nothing is left running, however `run` ended; after `stop_all` only abandoned ones are left."""
        self.stage = Stage.STOPPING
        self.log.close()
        children = [child for one in self.instances.values() if (child := one.close()) is not None]
        for child in children:
            child.kill()
        if children:
            await asyncio.wait([asyncio.ensure_future(child.stop(LAST_LADDER)) for child in children], timeout=5.0)
        self.supplies.close({one.spec.name for one in self.instances.values()})

    # -- What instances need -----------------------------------------------------------------------------------------

    def start_task(self, work: Coroutine[object, object, None], name: str) -> asyncio.Task[None]:
        assert self._group is not None
        task = self._group.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def turn_of(self, instance: Instance) -> None:
        for name in instance.spec.after:
            for other in self.slots_of(name):
                await other.settled()

    def changed(self, instance: Instance, change: Changed) -> None:
        server = instance.spec.name
        generation = instance.machine.generation
        self.log.add(server, instance.name, generation, change.old.value, change.new.value, change.why)
        getattr(_log, _LEVELS.get(change.new, "debug"))(
            "instance.changed",
            instance=instance.name,
            generation=generation,
            old=change.old.value,
            new=change.new.value,
            why=change.why,
        )
        if (change.old, change.new) == (State.BACKOFF, State.STARTING) and self._alarm.restarted(instance.now()):
            self.tell("", self._alarm.text)
            _log.error("fleet.restarting_much", text=self._alarm.text)
        self.demand.changed(instance, change)
        if change.new in _AT_REST and all(one.state in _AT_REST for one in self.instances_of(server)):
            self.supplies.ended(server)
        if change.new in _AT_REST and not self._is_wanted(instance):
            self._forget(instance)
        self._announce(server)

    # -- What is wanted ----------------------------------------------------------------------------------------------

    def reconcile(self, orders: Orders = Orders()) -> None:  # noqa: B008 - frozen
        """Begin whatever makes the servers as they are wanted; returns at once."""
        slots = {one.name: one for one in self.instances.values() if one.place.role in SLOTS}
        observed = {name: Observed(one.spec.name, one.heading, one.spec) for name, one in slots.items()}
        at = self.clock.monotonic()
        to_replace: dict[str, list[Instance]] = {}
        for action in reconcile(self.registry.servers, self._wishes, observed, orders, self.demand.resting()):
            match action:
                case Create(name, spec):
                    slots[name] = self._create(name, spec)
                case Remove(name):
                    self._remove(slots[name])
                case Adopt(name, spec, restart):
                    if self._adopt(slots[name], spec, restart):
                        to_replace.setdefault(spec.name, []).append(slots[name])
                case Raise(name, asked):
                    if not asked:
                        self.demand.learn_soon(slots[name])
                    slots[name].post(Start(at, asked))
                case Lull(name):
                    slots[name].post(Rest(at, "it waits for its first use"))
                case Renew(name):
                    slots[name].post(Restart(at))
                    self._interrupt(slots[name].spec.name, "restarted by the operator")
                case Lower(name, disabled):
                    event = Disable(at) if disabled else Stop(at)
                    slots[name].post(event)
                    self._interrupt(slots[name].spec.name, event.why)
        for server, olds in to_replace.items():
            self._replacing[server] = self.rolling.begin(server, olds, self._why_replaced[server], patient=True)

    def _create(self, name: str, spec: ServerSpec) -> Instance:
        """A new instance; one that had its name before, and was replaced, may be ending yet."""
        keys = itertools.chain([name], (f"{name}~again{number}" for number in itertools.count(1)))
        one = Instance(next(key for key in keys if key not in self.instances), spec, self, name=name)
        self.instances[one.key] = one
        return one

    def _interrupt(self, server: str, why: str) -> None:
        """Whatever else of a server is under way or runs, but for what the registry names, is to end.

        What the registry names has to be on its way before: as long as that rests, sessions are let in.
        """
        self.rolling.cancel(server)
        self.demand.close(server, why)

    def _adopt(self, instance: Instance, spec: ServerSpec, restart: bool) -> bool:
        """Hand an instance its new entry; True if what serves by the old one is to be replaced while it serves."""
        was_shared = instance.place.role is Role.SHARED
        instance.adopt(spec)
        if not restart:
            return False
        self.rolling.cancel(spec.name)
        if was_shared and instance.place.role is Role.SHARED and instance.heading in (State.READY, State.NOT_READY):
            return True
        if instance.heading in LIVE | {State.BACKOFF}:
            instance.post(Restart(instance.now(), self._why_replaced[spec.name]))
        return False

    def _remove(self, instance: Instance) -> None:
        self._interrupt(instance.spec.name, "removed from the registry")
        if instance.state in _AT_REST:
            self._forget(instance)
        else:
            instance.post(Stop(instance.now(), "removed from the registry"))

    def _forget(self, instance: Instance) -> None:
        del self.instances[instance.key]
        server = instance.spec.name
        for slot in itertools.islice(self.slots_of(server), 1):
            if instance.place.role not in SLOTS:  # how it ended is told of its server
                slot.exits.extend(instance.exits)
        if any(True for _ in self.instances_of(server)):
            return
        self.supplies.forget(server)

    def _is_wanted(self, instance: Instance) -> bool:
        spec = self.registry.servers.get(instance.spec.name)
        return spec is not None and instance.place.role in SLOTS and instance.name in instance_keys(spec)

    def _announce(self, server: str) -> None:
        """Tell the relay what a call to this server can expect, while none of its instances is attached."""
        slots = list(self.slots_of(server))
        if not slots or self.demand.announce(slots[0].spec, slots):
            return
        if any(one.heading in (State.READY, State.NOT_READY) for one in slots):
            return
        if any(map(_is_coming, slots)):
            self.relay.coming(server)
        elif any(one.state is State.IDLE for one in slots):
            self.relay.idle(server, None)
        else:
            why = why_absent(slots[0])
            self.relay.absent(server, why)
            self.demand.absent(server, why)

    # -- Told by the relay -------------------------------------------------------------------------------------------

    def _list_changed(self, key: str, kind: str) -> None:
        instance = self.instances.get(key)
        if instance is not None and instance.incarnation is not None:
            instance.incarnation.list_changed(kind)

    def _server_said(self, key: str, frame: bytes) -> None:
        instance = self.instances.get(key)
        if instance is not None and instance.incarnation is not None:
            instance.incarnation.server_said(frame)

    def _is_interactive(self, server: str) -> None:
        if self._store is not None:
            self._store.set_mark(server, "interactive", "yes")
        self.tell(server, "it asks its clients for things while several use it: it serves one session at a time now")

    def _recall(self, servers: Iterable[str]) -> None:
        """Tell the relay what earlier daemons found out about these servers."""
        for name in servers:
            if self._store is not None and "interactive" in self._store.marks(name):
                self.relay.set_interactive(name)

    def tell(self, server: str, text: str) -> None:
        """An event that is no change of a state."""
        for instance in self.instances_of(server):
            text = instance.masked(text)
        self.log.add(server, reason=text)
        _log.info("server.notice", server=server, text=text)

    # -- What operators bring about ----------------------------------------------------------------------------------

    def apply(self, new: Registry, replace: Mapping[str, str]) -> dict[str, asyncio.Future[str]]:
        """Make `new` the registry; `replace` names the servers that need new processes for it, and says why.

        Nothing is waited for in here: the new registry counts for all, or the old one did. Returned is what becomes of
        the servers whose instances are replaced while they serve: an empty text in the end, or a problem.
        """
        self._replacing = {}
        self._why_replaced = replace
        for gone in self.registry.servers.keys() - new.servers.keys():
            self.log.forget(gone)
        added = new.servers.keys() - self.registry.servers.keys()
        self.registry = new
        self.supplies.registry = new
        self.demand.adopt(new, replace)
        self.relay.set_servers(new)
        self._recall(added)
        self.reconcile(Orders(replace=frozenset(replace)))
        for name in new.servers:
            self._announce(name)
        return self._replacing

    def wish(self, name: str, wish: Wish | None) -> None:
        """Remember what an operator wants of a server, also for the next daemon; None: what the registry says."""
        if wish is None:
            self._wishes.pop(name, None)
        else:
            self._wishes[name] = wish
        if self._store is not None:
            self._store.set_desired(name, wish.value if wish is not None else None)

    def instances_of(self, server: str) -> Iterator[Instance]:
        """The instances of a server, also of one that is being removed."""
        return (one for one in tuple(self.instances.values()) if one.spec.name == server)

    def slots_of(self, server: str) -> Iterator[Instance]:
        """Those instances of a server that the registry names; not sessions' own."""
        return (one for one in self.instances_of(server) if one.place.role in SLOTS)

    def is_running(self) -> bool:
        return self.stage is Stage.RUNNING


def is_down(instance: Instance) -> bool:
    """Nothing of it runs, or it was given up."""
    return instance.state not in (HELD - {State.ABANDONED}) | {State.STARTING}


def _is_coming(instance: Instance) -> bool:
    match instance.machine.phase:
        case Waiting(since=since, until=until):
            return until - since <= BRIEF
        case Stopping(goal=goal) | Ended(goal=goal):
            return goal in (Goal.POLICY, Goal.START, Goal.REST)
        case phase:
            return phase.state not in SETTLED


def why_absent(instance: Instance) -> str:
    """What callers are told of a server that is down."""
    error = status.last_error(instance)
    match State.ABANDONED if instance.state is State.ABANDONED else instance.heading:
        case State.DISABLED:
            return "it is disabled in the registry"
        case State.BACKOFF:
            return f"it keeps failing and will be tried again later ({error})"
        case State.FAILED:
            return f"it failed ({error})"
        case State.ABANDONED:
            return f"it could not be ended ({error})"
        case _:
            return "it is stopped"
