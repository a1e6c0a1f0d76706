"""Looks up what one start needs and plans it: the part of the sandbox that the fleet talks to."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from mcpd.config import environment, grants
from mcpd.config.profiles import Rules, effective
from mcpd.config.registry import Registry, ServerSpec
from mcpd.errors import SpawnError
from mcpd.sandbox import host, seccomp
from mcpd.sandbox.bubblewrap import EGRESS_SOCKET, UNIX_FILTER
from mcpd.sandbox.ground import Ground, Survey, closed_ancestors, for_user, may
from mcpd.sandbox.identity import Users
from mcpd.sandbox.limits import Limits, limits, missing_for_cgroup
from mcpd.sandbox.policy import (
    DEFAULT_PATH,
    PROXY_PORT,
    Identity,
    LaunchPlan,
    Premises,
    SandboxFacts,
    command,
    plan,
)
from mcpd.sandbox.secret_files import SecretFiles

KEPT = "servers"
"""Below state_dir: the directories of servers with home = "state"."""
SECRETS = "/run/secrets"
NO_FILES: Mapping[str, tuple[str, bytes]] = MappingProxyType({})

Egress = Callable[[str, Rules, Identity | None], str]
"""(server, rules, its user) -> the socket of a proxy that lets through what they allow."""


class Warden:
    """One for a daemon. Blocks for a few milliseconds a call: it looks at files."""

    def __init__(
        self,
        facts: SandboxFacts,
        registry: Registry,
        base: Mapping[str, str],
        *,
        cookie: str,
        launcher: str | None = None,
        egress: Egress | None = None,
    ) -> None:
        """`base`: the daemon's environment."""
        self.facts = facts
        self._base = base
        self._cookie = cookie
        self._launcher = launcher
        self._egress = egress
        self._cgroups = facts.cgroups
        kept = registry.daemon.state_dir / KEPT
        run_as, salt = registry.sandbox.run_as, str(registry.daemon.runtime_dir)
        self._users = Users(run_as, salt, kept) if os.geteuid() == 0 else None
        self._host = host.look_around()
        self._secret_files = SecretFiles(registry.daemon.runtime_dir)

    def profile_of(self, spec: ServerSpec) -> str:
        """Under which profile the server is started; what `list` shows of one that does not run."""
        return spec.sandbox.profile

    def ended(self, server: str) -> None:
        """Nothing of it runs any more: what was kept for it outside goes."""
        self._secret_files.remove(server)

    def forget(self, server: str) -> None:
        """It is gone from the registry, and nothing of it runs. What it kept stays, its uid's own."""
        if self._users is not None:
            self._users.forget(server)

    def plan(
        self,
        spec: ServerSpec,
        env: Mapping[str, str],
        registry: Registry,
        files: Mapping[str, tuple[str, bytes]] = NO_FILES,
    ) -> LaunchPlan:
        """How to start `spec` now. `files`: variable -> (name, content) of secrets that it gets as files.

        Raises SpawnError; a server never gets less containment than its entry says.
        """
        try:
            rules = effective(spec.sandbox, registry.profiles)
        except KeyError:
            raise SpawnError("sandbox", f"servers.{spec.name}: no profile {spec.sandbox.profile!r}") from None
        possible = not rules.contained or (self.facts.bwrap is not None and not self.facts.weakness)
        try:
            user = self._users.of(spec.name) if self._users is not None else None
            paths = self._secret_paths(spec, rules, user, files) if possible else {}
            placed = {paths[variable]: content for variable, (_, content) in files.items() if possible}
            env = {**env, **paths}
            premises = self._premises(spec, env, registry, rules, user, placed) if possible else None
        except OSError as error:
            text = f"servers.{spec.name}: {error.filename or 'its files'}: {error.strerror}"
            raise SpawnError("sandbox", text) from error
        planned = plan(
            spec,
            env,
            self.facts,
            base=self._base,
            cookie=self._cookie,
            launcher=self._launcher,
            premises=premises,
        )
        return replace(planned, cgroups=self._cgroups)

    def _secret_paths(
        self, spec: ServerSpec, rules: Rules, user: Identity | None, files: Mapping[str, tuple[str, bytes]]
    ) -> dict[str, str]:
        """Variable -> where the server finds its secret. Only without bubblewrap the value is written there here."""
        if rules.contained:
            return {variable: f"{SECRETS}/{name}" for variable, (name, _) in files.items()}
        paths = {variable: str(self._secret_files.place(spec.name) / name) for variable, (name, _) in files.items()}
        if self.facts.bwrap is None:
            if files and user is not None:
                text = "as root an unsandboxed server can be shown a secret_file only with bubblewrap"
                raise SpawnError("sandbox", f"servers.{spec.name}: {text}: {self.facts.reason}")
            for name, content in files.values():
                self._secret_files.write(spec.name, name, content)
        return paths

    def _premises(
        self,
        spec: ServerSpec,
        env: Mapping[str, str],
        registry: Registry,
        rules: Rules,
        user: Identity | None,
        secrets: Mapping[str, bytes],
    ) -> Premises:
        guarded = grants.protected(registry.daemon, registry.path, environment.home(self._base))
        ground = self._ground(spec, env, rules, guarded)
        kept = self._limits(spec, rules, user, registry)
        if not rules.contained:
            return self._outside(spec, rules, ground, user, kept, secrets)
        self._check_grants(spec, rules, guarded, user)
        architecture = seccomp.ARCHITECTURES.get(self.facts.architecture)
        if architecture is None:
            raise SpawnError("sandbox", f"servers.{spec.name}: no table of system calls for this machine")
        paths = tuple(for_user(ground.paths, user.uid, user.gid)) if user is not None else ground.paths
        uid, gid = (user.uid, user.gid) if user is not None else (os.getuid(), os.getgid())
        proxied = rules.network == "allow"
        if proxied and self._egress is None:
            raise SpawnError("sandbox", f"servers.{spec.name}: its network needs the egress proxy, which is not there")
        return Premises(
            rules=rules,
            ground=Ground(paths, ground.links),
            host=self._host,
            user=user,
            cwd=_visible(str(spec.cwd), ground, rules),
            state=self._state(spec, registry, user) if rules.home == "state" else None,
            filter=seccomp.base_filter(architecture, rules.seccomp),
            unix_filter=seccomp.no_unix_filter(architecture) if proxied else b"",
            egress=self._egress(spec.name, rules, user) if proxied and self._egress is not None else None,
            relay=relay_command() if proxied else (),
            resolver=host.resolver() if rules.network == "host" else (),
            limits=kept,
            files={**host.system_files(uid, gid, own_network=rules.network != "host"), **secrets},
        )

    def _outside(
        self,
        spec: ServerSpec,
        rules: Rules,
        ground: Ground,
        user: Identity | None,
        kept: Limits,
        secrets: Mapping[str, bytes],
    ) -> Premises:
        if user is None:
            return Premises(rules=rules, limits=kept, files=secrets)
        home = str(environment.home(self._base))
        needed = (*ground.paths, *secrets, str(spec.cwd / "any"))
        closed = closed_ancestors(needed, user.uid, user.gid)
        return Premises(
            rules=rules,
            ground=Ground(tuple(for_user(ground.paths, user.uid, user.gid))),
            user=user,
            closed=closed,
            home=home if closed_ancestors((f"{home}/any",), user.uid, user.gid) else None,
            limits=kept,
            files=secrets,
        )

    def _ground(self, spec: ServerSpec, env: Mapping[str, str], rules: Rules, guarded: grants.Protected) -> Ground:
        path = env.get("PATH") or rules.env.get("PATH") or self._base.get("PATH", DEFAULT_PATH)
        survey = Survey(path, str(spec.cwd), lambda real: _is_private(real, guarded))
        argv = command(spec, self._launcher)
        if spec.script is not None:
            survey.program(argv[0], ())
            survey.script(str(spec.script.file))
            if self._launcher is not None:
                survey.tree(str(Path(self._launcher).parents[1]))
        else:
            survey.program(argv[0], argv[1:])
        if rules.network == "allow":
            relay = relay_command()
            survey.program(relay[0], relay[1:])
        return survey.ground

    def _limits(self, spec: ServerSpec, rules: Rules, user: Identity | None, registry: Registry) -> Limits:
        controllers = self._cgroups.controllers if self._cgroups is not None else frozenset()
        if spec.limits.enforce == "cgroup" and (why := missing_for_cgroup(controllers)):
            reason = f": {self.facts.cgroups_reason}" if self._cgroups is None else ""
            raise SpawnError("sandbox", f'servers.{spec.name}.limits.enforce = "cgroup": {why}{reason}')
        alone = rules.contained if user is None else registry.sandbox.run_as == "dynamic"
        return limits(spec.limits, controllers=controllers, counts_processes=alone and self.facts.counts_processes)

    def _check_grants(self, spec: ServerSpec, rules: Rules, guarded: grants.Protected, user: Identity | None) -> None:
        """Once more, as links may have changed since the registry was read; and whether the server's user may."""
        for key, paths, bits in (("read", rules.read, 0o4), ("write", rules.write, 0o6)):
            for path in paths:
                where = f"servers.{spec.name}.sandbox.{key}"
                if found := grants.objection(path, guarded, writing=key == "write"):
                    raise SpawnError("sandbox", f"{where}: {'; '.join(found)}")
                status = os.stat(path)
                needed = bits | (0o1 if stat.S_ISDIR(status.st_mode) else 0)
                if user is not None and not may(status, user.uid, user.gid, needed):
                    raise SpawnError(
                        "sandbox",
                        f"{where}: {path!r} is closed to uid {user.uid}, as which the server runs because mcpd is root;"
                        f" chown or chmod it, or name its owner in [sandbox].run_as",
                    )

    def _state(self, spec: ServerSpec, registry: Registry, user: Identity | None) -> str:
        """The directory that the server keeps, its own and nobody else's; made when it is first needed."""
        above = registry.daemon.state_dir / KEPT
        above.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = above / spec.name
        path.mkdir(mode=0o700, exist_ok=True)
        if user is not None:
            _hand_over(path, user)
        return str(path)


def relay_command() -> tuple[str, ...]:
    """What starts the relay inside; the server's command follows it."""
    import importlib.util

    found = importlib.util.find_spec("mcpworker")
    for folder in (found.submodule_search_locations or ()) if found is not None else ():
        path = os.path.join(folder, "launcher", "relay.py")
        if os.path.isfile(path):
            return (sys.executable, "-I", "-S", path, str(PROXY_PORT), EGRESS_SOCKET, UNIX_FILTER)
    raise SpawnError("sandbox", "the relay to the egress proxy is not installed; install mcpworker with mcpd")


def _visible(cwd: str, ground: Ground, rules: Rules) -> str | None:
    """`cwd`, if there is such a directory inside: granted, or on the way to something that is."""
    real = os.path.realpath(cwd)
    granted = (*ground.paths, *rules.read, *rules.write)
    if real == "/" or ground.covers(cwd):
        return real
    if any(grants.is_within(real, path) or grants.is_within(path, real) for path in granted):
        return real
    return None


def _is_private(real: str, guarded: grants.Protected) -> bool:
    """What is found by looking never shows the home, mcpd's own directories, or keys."""
    if grants.is_within(guarded.home, real):
        return True
    for path, what in guarded.closed:
        if grants.is_within(path, real):
            return True
        if grants.is_within(real, path) and what != "daemon.state_dir":  # where packages are installed
            return True
    return False


def _hand_over(path: Path, user: Identity) -> None:
    """Make a tree the user's, where it belonged to another uid before; follows no link."""
    if os.lstat(path).st_uid == user.uid:
        return
    for _, directories, files, folder in os.fwalk(path, follow_symlinks=False):
        for name in (*directories, *files):
            os.chown(name, user.uid, user.gid, dir_fd=folder, follow_symlinks=False)
    os.chown(path, user.uid, user.gid, follow_symlinks=False)
