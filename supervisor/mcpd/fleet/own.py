"""The instances of one server with `sharing = "session"`: one for each party that uses it, and a spare.

A spare is a process that runs and was told nothing yet, so that a new session does not wait for an interpreter to
start. It becomes the instance of whoever claims it next; the one after it is started when that one is READY.
"""

from __future__ import annotations

import random
from typing import Final, Protocol

from mcpd.config.registry import ServerSpec
from mcpd.fleet.instance import Instance, Surroundings, backoff_policy
from mcpd.fleet.place import Place, Role
from mcpd.lifecycle.backoff import Backoff, GiveUp
from mcpd.lifecycle.events import Start, Stop
from mcpd.lifecycle.states import State
from mcpd.routing.info import Lists

MAX_OWN: Final = 64
"""Instances of one server that run for parties at a time, those included that are being stopped."""
BRIEF: Final = 2.0
"""So many seconds of a delay are left out: a session would rather have its error from the server itself."""

_AT_REST: Final = frozenset({State.STOPPED, State.FAILED, State.IDLE, State.DISABLED})


class Host(Surroundings, Protocol):
    """The fleet, which owns every instance, as those of a party's own need it."""

    instances: dict[str, Instance]

    def is_running(self) -> bool: ...


class OwnInstances:
    """`claim` and `release` come from the relay, `opened` and `close` from the fleet; instances tell of themselves."""

    def __init__(self, spec: ServerSpec, host: Host) -> None:
        self.spec = spec
        self._host = host
        self._parties: dict[str, Instance] = {}
        self._spare: Instance | None = None
        self._queued: dict[str, bytes] = {}  # claims that came while the server is being learnt
        self.is_open = False
        self._lists = Lists()
        self._number = 0
        self._served: set[str] = set()  # instances that were READY
        self._waited: set[str] = set()  # and those that had been spares
        self._backoff = Backoff(backoff_policy(spec))
        self._closed_until = float("-inf")
        self._why = ""

    def adopt(self, spec: ServerSpec) -> None:
        """Its entry is another, in ways that running processes do not see."""
        self.spec = spec
        self._backoff.policy = backoff_policy(spec)

    def open(self, lists: Lists) -> None:
        """What it offers is known: claims are met from now on."""
        self._lists = lists
        if self.is_open:
            return
        self.is_open = True
        self._backoff.reset()
        self._closed_until = float("-inf")
        queued, self._queued = self._queued, {}
        for party, capabilities in queued.items():
            self.claim(party, capabilities)
        self._keep_spare()

    def close(self, why: str) -> None:
        """Stop all of them; claims wait until `open`, or for `refuse`."""
        self.is_open = False
        for one in self._all():
            self._stop(one, why)
        self._spare = None

    def refuse(self, why: str) -> None:
        """It will not be opened soon: whoever waits is told so."""
        queued, self._queued = self._queued, {}
        for party in queued:
            self._host.relay.unclaimed(self.spec.name, party, why)

    def claim(self, party: str, capabilities: bytes) -> None:
        """A party wants an instance that was told of exactly these capabilities."""
        if not self.is_open and len(self._queued) < MAX_OWN:
            self._queued[party] = capabilities
            return
        refusal = self._refusal()
        if refusal:
            self._host.relay.unclaimed(self.spec.name, party, refusal)
            return
        spare, self._spare = self._spare, None
        if spare is not None and spare.state in (State.STARTING, State.INITIALIZING):
            self._waited.add(spare.key)
            self._give(spare, party, capabilities)
            return
        if spare is not None:
            self._stop(spare, "it does not wait in peace")
        self._give(self._create(), party, capabilities)

    def _give(self, one: Instance, party: str, capabilities: bytes) -> None:
        self._parties[party] = one
        one.claim(party, capabilities, self._lists)
        if one.state is State.STOPPED:
            one.post(Start(one.now(), why="a session uses it"))

    def release(self, party: str) -> None:
        """The party is gone, or has not used it for long."""
        self._queued.pop(party, None)
        one = self._parties.pop(party, None)
        if one is not None:
            self._stop(one, "its session is over")
        if self.spec.activation == "lazy" and not self._parties and self._spare is not None:
            self._stop(self._spare, "no session uses the server")
            self._spare = None
        self._keep_spare()  # the party may have gone before its instance, once a spare, was READY

    def changed(self, one: Instance, state: State, why: str) -> None:
        """One of them is in another state; in those at rest it is about to be forgotten."""
        if state is State.READY:
            self._served.add(one.key)
            self._backoff.reset()
            self._keep_spare()
        if state not in _AT_REST:
            return
        if one is self._spare:
            self._spare = None
        party = one.place.party
        served, waited = one.key in self._served, one.key in self._waited
        self._served.discard(one.key)
        self._waited.discard(one.key)
        if party is None or self._parties.get(party) is not one:
            return
        del self._parties[party]
        if served:
            return  # the relay knows, and claims another for the next call
        if state is State.FAILED and waited and self.is_open:
            self._give(self._create(), party, one.place.capabilities or b"{}")  # it may have died while it waited
            return
        if state is State.FAILED:
            self._failed(one.now(), why)
        self._host.relay.unclaimed(self.spec.name, party, why)
        if self._closed_until != float("inf"):
            self._keep_spare()

    def _failed(self, at: float, why: str) -> None:
        """One was not READY in the end; if the next ones are not either, claims have to wait."""
        self._why = why
        self._backoff.started(at)
        match self._backoff.failed(at, random.random()):  # noqa: S311 - spreads starts, keeps no secret
            case GiveUp():
                self._closed_until = float("inf")
            case wait:
                self._closed_until = at + wait.delay

    def _refusal(self) -> str:
        """Why no instance can be had now; empty if one can."""
        if not self.is_open:
            return f"{MAX_OWN} sessions already wait for it to be started"
        if not self._host.is_running():
            return "the daemon is stopping"
        running = sum(one.place.role is Role.OWN for one in self._all())
        if running >= MAX_OWN:
            return f"{MAX_OWN} instances of it run for as many sessions; end some of those, or share it"
        at = self._host.clock.monotonic()
        if self._closed_until == float("inf"):
            return f"it failed too often and is not tried again before `mcpctl restart` ({self._why})"
        if self._closed_until - at > BRIEF:
            return f"it keeps failing and will be tried again in {self._closed_until - at:.0f} s ({self._why})"
        return ""

    def _keep_spare(self) -> None:
        needed = self.spec.activation == "eager" or self._parties
        if self.is_open and needed and self._spare is None and self._host.is_running():
            self._spare = self._create()
            self._spare.post(Start(self._spare.now(), why="to be there for the next session"))

    def _create(self) -> Instance:
        self._number += 1
        one = Instance(f"{self.spec.name}#{self._number}", self.spec, self._host, place=Place(Role.SPARE))
        self._host.instances[one.key] = one
        return one

    def _all(self) -> list[Instance]:
        roles = (Role.SPARE, Role.OWN)
        return [
            one
            for one in tuple(self._host.instances.values())
            if one.spec.name == self.spec.name and one.place.role in roles
        ]

    def _stop(self, one: Instance, why: str) -> None:
        if one.state not in _AT_REST:
            one.post(Stop(one.now(), why))
