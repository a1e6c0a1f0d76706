"""What clients' use starts and stops: lazy servers, and the instances that sessions have for themselves.

Both are listed without running, so what they offer is remembered here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Set
from typing import Final

from mcpd.config.registry import Registry, ServerSpec
from mcpd.fleet.catalogues import Catalogues
from mcpd.fleet.instance import Instance
from mcpd.fleet.own import Host, OwnInstances
from mcpd.fleet.place import Role
from mcpd.lifecycle.effects import Changed
from mcpd.lifecycle.events import Rest, Start
from mcpd.lifecycle.states import State
from mcpd.store.store import Store

SLOWEST_LOOK: Final = 1.0
QUICKEST_LOOK: Final = 0.02
SLOTS: Final = frozenset({Role.SHARED, Role.LEARNER})

_UP: Final = frozenset({State.READY, State.NOT_READY})


class Demand:
    """Told by the engine of every change of an instance, and by the relay of every first use."""

    def __init__(self, registry: Registry, host: Host, store: Store | None) -> None:
        self._host = host
        self._specs = registry.servers
        self.catalogues = Catalogues(store)
        self._own: dict[str, OwnInstances] = {}
        self._learning: set[str] = set()  # lazy servers that run only to be learnt
        self._used: dict[str, tuple[int, float]] = {}  # calls ever, and when that was seen to change
        relay = host.relay
        relay.on_wake = self._wake
        relay.on_claim = self._claim
        relay.on_release = self._release

    # -- Told by the engine ------------------------------------------------------------------------------------------

    def resting(self) -> Set[str]:
        """The servers that need no process until they are used."""
        return {name for name, spec in self._specs.items() if self.catalogues.rests(spec)}

    def adopt(self, registry: Registry, replaced: Mapping[str, str]) -> None:
        """The registry is another; what `replaced` offer has to be learnt anew, and theirs are stopped; and why."""
        self._specs = registry.servers
        for name, why in replaced.items():
            self.catalogues.forget(name)
            self.close(name, why)
        for name, own in tuple(self._own.items()):
            spec = self._specs.get(name)
            if spec is None or spec.sharing != "session":
                own.close("removed from the registry")
                own.refuse("it was removed from the registry")
                del self._own[name]
            else:
                own.adopt(spec)

    def close(self, server: str, why: str) -> None:
        """Stop the instances that sessions have of a server."""
        if server in self._own:
            self._own[server].close(why)

    def learn_soon(self, instance: Instance) -> None:
        """It is started although nobody uses it."""
        if instance.spec.activation == "lazy":
            self._learning.add(instance.spec.name)

    def changed(self, instance: Instance, change: Changed) -> None:
        """An instance is in another state; one at rest is about to be forgotten if nobody wants it."""
        spec = instance.spec
        if instance.place.role in (Role.SPARE, Role.OWN):
            if spec.name in self._own:
                self._own[spec.name].changed(instance, change.new, change.why)
        elif spec.activation == "lazy" or spec.sharing == "session":
            self._slot_changed(instance, change)

    def _slot_changed(self, instance: Instance, change: Changed) -> None:
        """One by which the server is known is in another state."""
        name, incarnation = instance.spec.name, instance.incarnation
        if State.READY in (change.old, change.new) and incarnation is not None and incarnation.info is not None:
            rss = incarnation.child.usage().rss if change.new in (State.READY, State.STOPPING) else 0
            self.catalogues.learn(instance.spec, incarnation.info, rss)
        if change.new is State.READY:
            self._used[name] = (self._host.relay.calls_total(name), instance.now())
            learnt = name in self._learning and not self._host.relay.in_use(name)
            self._learning.discard(name)
            if instance.place.role is Role.LEARNER or learnt:
                self._rest(instance, "what it offers is known now")

    def announce(self, spec: ServerSpec, slots: list[Instance]) -> bool:
        """Tell the relay of a server that is known and used without running; False if it is not one."""
        known = self.catalogues.recall(spec) if spec.activation == "lazy" or spec.sharing == "session" else None
        if known is None:
            return False
        if spec.sharing == "session":
            if not all(one.heading is State.IDLE or one.state is State.READY for one in slots):
                return False
            self._own_of(spec).open(known.info.lists)
            self._host.relay.claimable(spec.name, known.info)
            return True
        if not all(one.state is State.IDLE for one in slots):
            return False
        self._host.relay.idle(spec.name, known.info)
        return True

    def is_usable(self, server: str) -> bool:
        """Whether sessions get instances of a server for themselves now."""
        return server in self._own and self._own[server].is_open

    def memory_saved(self, spec: ServerSpec, slots: Iterable[Instance]) -> int | None:
        """What a lazy server that rests used when it ran, in bytes."""
        if spec.activation != "lazy" or any(one.state is not State.IDLE for one in slots):
            return None
        known = self.catalogues.recall(spec)
        return known.rss or None if known is not None else None

    def absent(self, server: str, why: str) -> None:
        """It is down and will not come up soon."""
        if server in self._own:
            self._own[server].refuse(why)

    async def watch(self) -> None:
        """Put lazy servers to rest that nobody has used for their `idle_timeout`; until cancelled."""
        while True:
            lazy = [spec for spec in self._specs.values() if spec.activation == "lazy" and spec.sharing == "shared"]
            quickest = min((spec.idle_timeout / 4 for spec in lazy), default=SLOWEST_LOOK)
            await asyncio.sleep(min(max(quickest, QUICKEST_LOOK), SLOWEST_LOOK))
            for spec in lazy:
                self._look_at(spec)

    def _look_at(self, spec: ServerSpec) -> None:
        relay, at = self._host.relay, self._host.clock.monotonic()
        calls = relay.calls_total(spec.name)
        seen, since = self._used.get(spec.name, (-1, at))
        if relay.in_use(spec.name) or calls != seen:
            self._used[spec.name] = (calls, at)
        elif at - since >= spec.idle_timeout:
            for one in self._slots(spec.name):
                if one.state in _UP:
                    self._rest(one, f"not used for {spec.idle_timeout:g} s")

    def _rest(self, instance: Instance, why: str) -> None:
        instance.post(Rest(instance.now(), why))

    # -- Told by the relay -------------------------------------------------------------------------------------------

    def _wake(self, server: str) -> None:
        for one in self._slots(server):
            if self._host.is_running():
                one.post(Start(one.now(), why="a client uses it"))

    def _claim(self, server: str, party: str, capabilities: bytes) -> None:
        spec = self._specs.get(server)
        if spec is None or not self._host.is_running():
            self._host.relay.unclaimed(server, party, "it is not running")
        else:
            self._own_of(spec).claim(party, capabilities)

    def _release(self, server: str, party: str) -> None:
        if server in self._own:
            self._own[server].release(party)

    # -- In here -----------------------------------------------------------------------------------------------------

    def _own_of(self, spec: ServerSpec) -> OwnInstances:
        own = self._own.get(spec.name)
        if own is None:
            own = self._own[spec.name] = OwnInstances(spec, self._host)
        return own

    def _slots(self, server: str) -> list[Instance]:
        everyone = tuple(self._host.instances.values())
        return [one for one in everyone if one.spec.name == server and one.place.role in SLOTS]
