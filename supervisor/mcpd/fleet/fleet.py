"""The fleet as operators see and command it (`control.seam.FleetView`)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import msgspec

from mcpd.clock import Clock
from mcpd.config.diff import diff, with_rotated
from mcpd.config.load import load
from mcpd.config.registry import Registry, ServerSpec
from mcpd.config.suggest import names_there
from mcpd.control.view import (
    DaemonStatus,
    IsolationStatus,
    Outcome,
    ReloadReport,
    ServerDetail,
    ServerStatus,
    SessionStatus,
    ToolStatus,
    Upgrade,
)
from mcpd.errors import NotFound, Overloaded, ServerFault
from mcpd.fleet import operators, status, tools, upkeep
from mcpd.fleet.demand import SLOTS
from mcpd.fleet.engine import Engine, Stage, is_down, why_absent
from mcpd.fleet.eventlog import Feed
from mcpd.fleet.instance import Instance
from mcpd.fleet.relay import Relay
from mcpd.fleet.supplies import Planner
from mcpd.fleet.vault import Marks
from mcpd.lifecycle.events import Reset
from mcpd.lifecycle.reconcile import Orders, Wish
from mcpd.lifecycle.states import State
from mcpd.sandbox.policy import NOT_CONTAINED, UNSANDBOXED, SandboxFacts
from mcpd.store.store import Store


class DaemonFacts(msgspec.Struct, frozen=True):
    """What operators are told of the daemon, and how it is ended."""

    version: str
    started_at: float
    urls: tuple[str, ...]
    token_file: Path | None
    request_shutdown: Callable[[], None]


class Fleet(Engine):
    """The engine, and what may be asked of it; commands work only while it runs."""

    def __init__(
        self,
        registry: Registry,
        relay: Relay,
        *,
        store: Store | None,
        clock: Clock,
        sandbox: SandboxFacts,
        daemon: DaemonFacts,
        environ: Mapping[str, str] | None = None,
        warden: Planner | None = None,
        adapt: Callable[[Registry], Registry] = lambda registry: registry,
    ) -> None:
        """`environ`: the daemon's own, of which servers get a few variables; None: the process's. `adapt`: what was
        done to the registry after it was loaded (`mcpd start --unsandboxed`), to be done again at each reload."""
        super().__init__(
            registry,
            relay,
            store=store,
            clock=clock,
            sandbox=sandbox,
            version=daemon.version,
            environ=environ,
            warden=warden,
        )
        self._daemon = daemon
        self._adapt = adapt
        self._reloading = asyncio.Lock()

    def servers(self) -> list[ServerStatus]:
        return [self._status(spec) for spec in self.registry.servers.values()]

    def server(self, name: str) -> ServerDetail:
        spec = self._spec(name)
        shown = self._status(spec)
        instances = list(self.instances_of(name))
        timeline = self.log.of_server(name, status.TIMELINE)
        log = str(self.supplies.log_file(name))
        return status.server_detail(shown, spec, instances, self.relay, self.clock, log, timeline)

    async def start(self, name: str) -> Outcome:
        spec = self._spec(name)
        if not spec.enabled:
            reason = f"servers.{name}.enabled is false; `mcpctl enable {name}` changes that"
            return Outcome(ok=False, state=State.DISABLED.value, reason=reason)
        if self.stage is not Stage.RUNNING:
            return self._closed()
        self.wish(name, Wish.UP)
        self.reconcile(Orders(start=frozenset({name})))
        return await self._outcome(name, State.READY)

    async def stop(self, name: str) -> Outcome:
        spec = self._spec(name)
        if self.stage is not Stage.RUNNING:
            return self._closed()
        if spec.enabled:
            self.wish(name, Wish.DOWN)
            self.reconcile()
        for instance in list(self.instances_of(name)):
            if instance.place.role not in SLOTS:
                await instance.until(lambda instance=instance: is_down(instance))  # type: ignore[misc]
        return await self._outcome(name, State.STOPPED, State.DISABLED)

    async def restart(self, name: str) -> Outcome:
        spec = self._spec(name)
        if not spec.enabled or self.stage is not Stage.RUNNING:
            return await self.start(name)
        self.wish(name, Wish.UP)
        self.reconcile(Orders(restart=frozenset({name})))
        return await self._outcome(name, State.READY)

    async def roll(self, name: str) -> Outcome:
        spec = self._spec(name)
        olds = list(self.slots_of(name))
        up = any(one.heading in (State.READY, State.NOT_READY) for one in olds)
        if not spec.enabled or self.stage is not Stage.RUNNING or spec.sharing == "session" or not up:
            return await self.restart(name)
        self.wish(name, Wish.UP)
        why = "restarted by the operator, one after the other"
        problem = await asyncio.shield(self.rolling.begin(name, olds, why, patient=False))
        if problem:
            return Outcome(ok=False, state=self._status(spec).state, reason=problem)
        return await self._outcome(name, State.READY)

    async def reset_failed(self, name: str) -> Outcome:
        self._spec(name)
        if self.stage is not Stage.RUNNING:
            return self._closed()
        for instance in self.instances_of(name):
            instance.post(Reset(instance.now()))
        self.reconcile()
        return await self._outcome(name, State.READY, State.STOPPED, State.DISABLED)

    async def reload(self, dry_run: bool) -> ReloadReport:
        async with self._reloading:
            known = self.registry.missing  # what was missing when it was taken over hinders no other server now
            new = await asyncio.to_thread(load, self.registry.path, self._environ, known_missing=known)
            new = self._adapt(new)
            changes = diff(self.registry, new)
            counting = operators.in_effect(self.registry, new)
            kept = (*changes.live, *changes.unchanged)
            rotated, unreadable = await self.supplies.vault.rotated(
                counting, {name: list(self._given(name)) for name in kept}
            )
            changes = with_rotated(changes, rotated)
            if dry_run:
                return operators.report(changes, new, rotated, unreadable, dry_run=True)
            if self.stage is not Stage.RUNNING:
                raise Overloaded("the daemon is stopping")
            replacing = self.apply(counting, {name: operators.why_replaced(name, rotated) for name in changes.restart})
            for name in changes.removed:
                self.wish(name, None)
            report = operators.report(changes, new, rotated, unreadable)
            self.tell("", operators.summary(report))
            slots = [one for name in new.servers for one in self.slots_of(name)]
            return await operators.with_failures(report, slots, replacing)

    def _given(self, name: str) -> Iterator[Marks]:
        """Of the secrets that a server's instances run with, or failed to start with."""
        for one in self.instances_of(name):
            if one.given is not None and one.state not in (State.STOPPED, State.DISABLED, State.IDLE):
                yield one.given

    async def upgrade(self, name: str, version: str | None) -> Upgrade:
        spec = self._spec(name)
        if self.stage is not Stage.RUNNING:
            raise Overloaded("the daemon is stopping")
        return await upkeep.upgrade(
            self.supplies.packages, spec, version, self.supplies.log_of(name), lambda text: self.tell(name, text)
        )

    async def prune(self, name: str | None) -> list[str]:
        only = self._spec(name) if name is not None else None
        gone = await upkeep.prune(self.supplies.packages, self.registry, self.instances.values(), only)
        for package in gone:
            self.tell(name or "", f"removed {package}, which no server uses")
        return gone

    def isolation(self) -> list[IsolationStatus]:
        return list(upkeep.isolation(self.registry, self.instances.values()))

    def events(self, after: int) -> Feed:
        return self.log.feed(after)

    def sessions(self) -> list[SessionStatus]:
        return operators.sessions(self.relay, self.clock)

    async def tools(self, name: str | None) -> list[ToolStatus]:
        names = list(self.registry.servers) if name is None else [self._spec(name).name]
        return [tool for server in names for tool in tools.tools(self.registry, self.relay, server)]

    async def call(self, name: str, tool: str, arguments: bytes, timeout: float, caller: str = "operator") -> bytes:
        spec = self._spec(name)
        try:
            return await tools.call(self.relay, spec, tool, arguments, timeout, caller)
        except ServerFault as fault:
            heading = next((instance.heading for instance in self.instances_of(name)), None)
            fault.remedy = tools.remedy(name, heading, fault)
            raise

    def log_path(self, name: str) -> Path:
        return self.supplies.log_file(self._spec(name).name)

    def daemon(self) -> DaemonStatus:
        facts, registry = self._daemon, self.registry
        return DaemonStatus(
            version=facts.version,
            pid=os.getpid(),
            started_at=facts.started_at,
            uptime=max(0.0, self.clock.wall() - facts.started_at),
            registry=str(registry.path),
            state_dir=str(registry.daemon.state_dir),
            runtime_dir=str(registry.daemon.runtime_dir),
            urls=facts.urls,
            auth=registry.frontdoor.auth,
            token_file=str(facts.token_file) if facts.token_file is not None else None,
            warnings=operators.warnings(registry, self._sandbox, self._store),
            cgroups=str(self._sandbox.cgroups.path) if self._sandbox.cgroups is not None else None,
            cgroups_reason=self._sandbox.cgroups_reason,
        )

    def request_shutdown(self) -> None:
        self._daemon.request_shutdown()

    async def _outcome(self, name: str, *wanted: State) -> Outcome:
        """Wait until what was begun has come to something."""
        for instance in list(self.slots_of(name)):
            await instance.settled()
        instances = list(self.slots_of(name))
        if State.READY in wanted and self.demand.is_usable(name):
            return Outcome(ok=True, state=State.READY.value)
        if not instances:
            return Outcome(ok=False, state=State.STOPPED.value, reason="it was removed from the registry")
        worst = next((one for one in instances if one.state not in wanted), None)
        if worst is None:
            return Outcome(ok=True, state=instances[0].state.value)
        return Outcome(ok=False, state=worst.state.value, reason=status.last_error(worst) or why_absent(worst))

    def _closed(self) -> Outcome:
        return Outcome(ok=False, state=State.STOPPED.value, reason="the daemon is not running its servers (any more)")

    def _status(self, spec: ServerSpec) -> ServerStatus:
        instances = list(self.instances_of(spec.name)) or [Instance(spec.name, spec, self)]
        profile = self.supplies.profile_of(spec)
        isolation = NOT_CONTAINED if profile == UNSANDBOXED and self._sandbox.bwrap is None else profile
        return status.server_status(
            spec,
            instances,
            self.relay,
            self.clock,
            isolation,
            usable=self.demand.is_usable(spec.name),
            saved=self.demand.memory_saved(spec, self.slots_of(spec.name)),
        )

    def _spec(self, name: str) -> ServerSpec:
        spec = self.registry.servers.get(name)
        if spec is None:
            raise NotFound(f"there is no server {name!r}", names_there(name, self.registry.servers))
        return spec
