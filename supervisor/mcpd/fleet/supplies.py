"""What servers need to be started: their programs installed, their secrets, a wall around each, a way out, a log."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Protocol

from mcpd.clock import Clock
from mcpd.config.registry import Registry, ServerSpec
from mcpd.fleet.egress import Egress
from mcpd.fleet.tasks import Tasks
from mcpd.fleet.vault import Handover, Vault
from mcpd.packages.packages import Packages
from mcpd.process.stderr import StderrLog
from mcpd.process.tree import cookie_for
from mcpd.sandbox.policy import LaunchPlan, SandboxFacts
from mcpd.sandbox.probe import find_launcher
from mcpd.sandbox.warden import Warden


class Planner(Protocol):
    """Says how servers are started; `sandbox.warden.Warden` is one."""

    def plan(
        self, spec: ServerSpec, env: Mapping[str, str], registry: Registry, files: Mapping[str, tuple[str, bytes]]
    ) -> LaunchPlan: ...
    def ended(self, server: str) -> None: ...

    def forget(self, server: str) -> None: ...
    def profile_of(self, spec: ServerSpec) -> str: ...


class Supplies:
    """`registry` is the one that counts now."""

    def __init__(
        self,
        registry: Registry,
        *,
        clock: Clock,
        sandbox: SandboxFacts,
        environ: Mapping[str, str],
        warden: Planner | None,
        tasks: Tasks,
        tell: Callable[[str, str], None],
    ) -> None:
        """`environ`: the daemon's own, of which servers get a few variables. `warden`: another than that of the
        sandbox."""
        self.registry = registry
        self._clock = clock
        self._tell = tell
        self._logs: dict[str, StderrLog] = {}
        cookie = cookie_for(registry.daemon.runtime_dir)
        self._egress = Egress(registry.daemon.runtime_dir / "egress", clock, tasks, tell)
        self._warden = warden or Warden(
            sandbox,
            registry,
            environ,
            cookie=cookie,
            launcher=find_launcher(),
            egress=self._egress.socket_for,
        )
        self.packages = Packages(
            registry.daemon.state_dir / "packages",
            sandbox,
            environ,
            run_as=registry.sandbox.run_as,
            salt=str(registry.daemon.runtime_dir),
            cookie=cookie,
        )
        self.vault = Vault(environ)

    async def prepare(self, spec: ServerSpec) -> Handover:
        """Have what a server is made of installed, and its secrets fetched; raises SpawnError."""
        await self.packages.ensure(spec, self.log_of(spec.name), lambda text: self._tell(spec.name, text))
        return await self.vault.fetch(spec, self.registry.daemon)

    def plan(self, spec: ServerSpec, given: Handover) -> LaunchPlan:
        """How to start it now; raises SpawnError."""
        return self._warden.plan(self.packages.started_by(spec), given.env, self.registry, given.files)

    def profile_of(self, spec: ServerSpec) -> str:
        """Under which profile it would be started."""
        return self._warden.profile_of(spec)

    def log_of(self, server: str) -> StderrLog:
        log = self._logs.get(server)
        if log is None:
            log = self._logs[server] = StderrLog(self.log_file(server), self._clock)
        return log

    def log_file(self, server: str) -> Path:
        return self.registry.daemon.logs_dir / f"{server}.log"

    def ended(self, server: str) -> None:
        """Nothing of it runs any more."""
        self._warden.ended(server)

    def forget(self, server: str) -> None:
        """Nothing of it is there any more; `registry` says whether it may come back."""
        self._egress.forget(server)
        if server not in self.registry.servers:
            self._warden.forget(server)
        if (log := self._logs.pop(server, None)) is not None:
            log.close()

    def close(self, servers: Iterable[str]) -> None:
        """The daemon ends; nothing of these servers runs any more."""
        for log in self._logs.values():
            log.close()
        for server in servers:
            self._warden.ended(server)
