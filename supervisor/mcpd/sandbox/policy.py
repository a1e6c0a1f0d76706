"""From a server's entry to the plan by which it is started. Pure: no file is looked at, no process started."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from mcpd.config.profiles import Rules
from mcpd.config.registry import ServerSpec
from mcpd.errors import SpawnError
from mcpd.sandbox import bubblewrap
from mcpd.sandbox.bubblewrap import Bind, Box, Host
from mcpd.sandbox.cgroup import CgroupHome
from mcpd.sandbox.ground import Ground
from mcpd.sandbox.limits import NO_LIMITS, Limits

UNSANDBOXED = "unsandboxed"
NOT_CONTAINED = "not contained"

COOKIE = "MCPD_COOKIE"
"""The variable by which processes of this daemon are known again, when it was killed and its children live on."""

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
BASE_VARIABLES = ("HOME", "LANG", "LANGUAGE", "LOGNAME", "PATH", "SHELL", "TMPDIR", "TZ", "USER")
"""What a server gets of the daemon's environment unasked; and LC_*. Everything else is in its entry, or not there."""
INSIDE_VARIABLES = ("LANG", "LANGUAGE", "PATH", "TZ")
"""The same for one that does not see the daemon's home; the others get values that are true inside."""
USER = "mcp"
PROXY_PORT = 3128

DATA_FD = 7
"""Descriptors from here on are the plan's `data`, for bubblewrap to read; those before it are the pipes."""


class Identity(msgspec.Struct, frozen=True):
    """Who a server is, for the kernel."""

    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class SandboxFacts:
    """What was found out about this machine by running it (`probe`)."""

    bwrap: str | None
    """Absolute path of a bubblewrap that makes pid namespaces here; None: there is none, `reason` says why."""
    version: str
    reason: str
    weakness: str = "it was not tried"
    """Why servers cannot be contained here; empty: they can."""
    architecture: str = ""
    """Whose table of system calls is used."""
    forbids_user_namespaces: bool = False
    """Whether this bubblewrap can; where not, the filter alone does."""
    setpriv: str | None = None
    """The program by which root becomes somebody else."""
    counts_processes: bool = False
    """Whether a limit of processes set inside counts those inside and no others."""
    cgroups: CgroupHome | None = None
    """Where control groups for servers are made."""
    cgroups_reason: str = "it was not tried"
    """Why there is no such place."""


@dataclass(frozen=True, slots=True)
class LaunchPlan:
    """All that is needed to start one process, and nothing that must be looked up on the way."""

    argv: tuple[str, ...]
    """The server's own command; `argv[0]` is searched in the child's PATH when it has no slash."""
    wrapper: tuple[str, ...]
    """What goes before it: bubblewrap with its options, or nothing."""
    env: Mapping[str, str] = field(repr=False)
    """The complete environment; bubblewrap is run with it too (its own is readable from inside) and adds PWD."""
    cwd: str
    isolation: str
    host_files: bool
    """The server sees the host's files, so whether its command can be executed is known before the start."""
    cookie: str
    """The value of `COOKIE` in `env`, but for the part that tells one start from another (added at the start)."""
    data: tuple[bytes, ...] = field(default=(), repr=False)
    """What the wrapper reads from descriptors `DATA_FD` and on."""
    user: Identity | None = None
    """Whom the process becomes; None: whoever the daemon is."""
    setpriv: str | None = None
    """By which program; None without a wrapper, where the leash does it."""
    limits: Limits = NO_LIMITS
    cgroups: CgroupHome | None = None
    """Where its control group is made, if `limits` says that it has one."""


@dataclass(frozen=True, slots=True)
class Premises:
    """What has been looked up for one start, so that planning it is pure."""

    rules: Rules
    ground: Ground = field(default_factory=Ground)
    host: Host = field(default_factory=Host)
    user: Identity | None = None
    """Only if the daemon is root."""
    cwd: str | None = None
    """The working directory inside; None: the home."""
    state: str | None = None
    """The directory that the server keeps, with home = "state"."""
    closed: tuple[str, ...] = ()
    """Directories that `user` cannot enter and that lie on the way to what it needs."""
    home: str | None = None
    """The daemon's home, if `user` cannot enter it."""
    filter: bytes = b""
    unix_filter: bytes = b""
    egress: str | None = None
    """The socket of the proxy, for network = "allow"."""
    relay: tuple[str, ...] = ()
    """The command that starts the relay to it, with the server's command to follow."""
    resolver: tuple[Bind, ...] = ()
    """Settings for names (resolv.conf), for network = "host"."""
    mounts: tuple[Bind, ...] = ()
    """What is seen inside elsewhere than outside; mcpd's own, never an operator's."""
    limits: Limits = NO_LIMITS
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    """What only the server sees under these paths, in memory: system files of one that is contained, and secrets."""


def plan(
    spec: ServerSpec,
    env: Mapping[str, str],
    facts: SandboxFacts,
    *,
    base: Mapping[str, str],
    cookie: str,
    launcher: str | None = None,
    premises: Premises | None = None,
) -> LaunchPlan:
    """The plan for `spec`. `env` is its table with secrets filled in, `base` the daemon's own environment.

    `launcher` is the path of the program that runs script files. Raises SpawnError where containment is asked for
    that cannot be given: a server is never started with less than its entry says.
    """
    if spec.sandbox.profile == UNSANDBOXED:
        return _unsandboxed(spec, env, facts, base, cookie, launcher, premises)
    where = f"servers.{spec.name}.sandbox.profile: {spec.sandbox.profile!r}"
    if facts.bwrap is None:
        raise SpawnError("sandbox", f"{where} cannot be given: {facts.reason}")
    if facts.weakness:
        raise SpawnError("sandbox", f"{where} cannot be given: {facts.weakness}")
    if premises is None:
        raise SpawnError("sandbox", f"{where} cannot be given: nothing was looked up for it")
    return _contained(spec, env, facts, facts.bwrap, base, cookie, launcher, premises)


def _unsandboxed(
    spec: ServerSpec,
    env: Mapping[str, str],
    facts: SandboxFacts,
    base: Mapping[str, str],
    cookie: str,
    launcher: str | None,
    premises: Premises | None,
) -> LaunchPlan:
    cwd = str(spec.cwd)
    user = premises.user if premises is not None else None
    limits = premises.limits if premises is not None else NO_LIMITS
    # a uid of its own is in no passwd: programs that want a name for it look at these first (as with DynamicUser=)
    named = base if user is None else {**base, "USER": USER, "LOGNAME": USER}
    variables = environment(spec, env, named)
    wrapper: tuple[str, ...] = ()
    secrets = premises.files if premises is not None and facts.bwrap is not None else {}
    files = {path: DATA_FD + at for at, path in enumerate(secrets)}
    if facts.bwrap is not None and user is not None and premises is not None:
        if facts.setpriv is None:
            raise SpawnError("sandbox", "servers do not run as root, and setpriv is missing: install util-linux")
        binds = [Bind(path, path) for path in premises.ground.paths if _below_any(path, premises.closed)]
        wrapper = bubblewrap.pid_namespace_for_user(facts.bwrap, "/", files, premises.closed, binds, premises.home)
    elif facts.bwrap is not None:
        wrapper = bubblewrap.pid_namespace(facts.bwrap, cwd, files)
    return LaunchPlan(
        argv=command(spec, launcher),
        wrapper=wrapper,
        env={**variables, COOKIE: cookie},
        cwd=cwd,
        isolation=UNSANDBOXED if facts.bwrap else NOT_CONTAINED,
        host_files=user is None,
        cookie=cookie,
        data=tuple(secrets.values()),
        user=user,
        setpriv=facts.setpriv if wrapper else None,
        limits=limits,
    )


def _contained(
    spec: ServerSpec,
    env: Mapping[str, str],
    facts: SandboxFacts,
    bwrap: str,
    base: Mapping[str, str],
    cookie: str,
    launcher: str | None,
    premises: Premises,
) -> LaunchPlan:
    rules = premises.rules
    files = {**premises.files}
    if rules.network == "allow":
        if premises.egress is None or not premises.relay:
            raise SpawnError("sandbox", f"servers.{spec.name}: its network needs the egress proxy, which is not there")
        files[bubblewrap.UNIX_FILTER] = premises.unix_filter
    cwd = premises.cwd or bubblewrap.HOME
    box = Box(
        host=premises.host,
        binds=_binds(premises),
        links=premises.ground.links,
        files={path: DATA_FD + 1 + at for at, path in enumerate(files)},
        filter=DATA_FD,
        cwd=cwd if premises.user is None else "/",  # as which user it is entered counts
        tmp_size=rules.tmp_size,
        home=Bind(premises.state, bubblewrap.HOME, writable=True) if premises.state is not None else None,
        share_network=rules.network == "host",
        user_namespace=premises.user is None,
        forbid_user_namespaces=facts.forbids_user_namespaces and rules.seccomp == "default",
    )
    return LaunchPlan(
        argv=(*(premises.relay if rules.network == "allow" else ()), *command(spec, launcher)),
        wrapper=bubblewrap.contained(bwrap, box),
        env={**inside_environment(rules, env, base), COOKIE: cookie},
        cwd=cwd,
        isolation=rules.profile,
        host_files=False,
        cookie=cookie,
        data=(premises.filter, *files.values()),
        user=premises.user,
        setpriv=facts.setpriv if premises.user is not None else None,
        limits=premises.limits,
    )


def _binds(premises: Premises) -> tuple[Bind, ...]:
    rules = premises.rules
    binds = {path: Bind(path, path) for path in (*premises.ground.paths, *rules.read)}
    binds |= {path: Bind(path, path, writable=True) for path in rules.write}
    if rules.network == "host":
        binds |= {bind.target: bind for bind in premises.resolver}
    binds |= {bind.target: bind for bind in premises.mounts}
    if premises.egress is not None and rules.network == "allow":
        binds[bubblewrap.EGRESS_SOCKET] = Bind(premises.egress, bubblewrap.EGRESS_SOCKET)
    return tuple(binds.values())


def _below_any(path: str, directories: tuple[str, ...]) -> bool:
    return any(path.startswith(f"{one}/") for one in directories)


def command(spec: ServerSpec, launcher: str | None) -> tuple[str, ...]:
    """What is executed for `spec`, containment aside."""
    if spec.command:
        return (*spec.command, *spec.args)
    if spec.script is not None:
        file, name = str(spec.script.file), spec.script.object
        if launcher is not None:
            return (str(spec.python), launcher, f"{file}:{name}" if name else file, *spec.args)
        if name is None:
            return (str(spec.python), file, *spec.args)
        raise SpawnError("exec", f"servers.{spec.name}.script: the launcher that picks {name!r} is not installed")
    raise SpawnError("exec", f"servers.{spec.name}: nothing to execute; set script or command")


def environment(spec: ServerSpec, env: Mapping[str, str], base: Mapping[str, str]) -> dict[str, str]:
    """The variables of the server: a few of the daemon's, those that it may pass on, and its own, which win."""
    passed = {*BASE_VARIABLES, *spec.sandbox.env_pass}
    found = {name: value for name, value in base.items() if name in passed or name.startswith("LC_")}
    return {"PATH": DEFAULT_PATH, **found, **spec.sandbox.env, **env}


def inside_environment(rules: Rules, env: Mapping[str, str], base: Mapping[str, str]) -> dict[str, str]:
    """The same for a contained server: home, user and temporary directory are those inside."""
    passed = {*INSIDE_VARIABLES, *rules.env_pass}
    found = {name: value for name, value in base.items() if name in passed or name.startswith("LC_")}
    own = {"HOME": bubblewrap.HOME, "USER": USER, "LOGNAME": USER, "SHELL": "/bin/sh", "TMPDIR": "/tmp"}  # noqa: S108
    own["PYTHONDONTWRITEBYTECODE"] = "1"  # nothing that is imported can be written to
    proxy = proxy_variables() if rules.network == "allow" else {}
    return {"PATH": DEFAULT_PATH, **own, **found, **rules.env, **env, **proxy}


def proxy_variables() -> dict[str, str]:
    """Both spellings: curl heeds only the small `http_proxy`, others only the capitals; node needs to be told so."""
    url = f"http://127.0.0.1:{PROXY_PORT}"
    names = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    none = "localhost,127.0.0.1,::1"
    return {**dict.fromkeys(names, url), "no_proxy": none, "NO_PROXY": none, "NODE_USE_ENV_PROXY": "1"}


def become(setpriv: str, user: Identity) -> list[str]:
    """The command (setpriv(1)) that becomes this user for good; the command that it is to run follows."""
    ids = ["--reuid", str(user.uid), "--regid", str(user.gid), "--clear-groups"]
    return [setpriv, *ids, "--inh-caps=-all", "--bounding-set=-all", "--no-new-privs", "--"]
