"""From a server's entry to the plan by which it is started. Pure: no file is looked at, no process started."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mcpd.config.registry import ServerSpec
from mcpd.errors import SpawnError
from mcpd.sandbox import bubblewrap

UNSANDBOXED = "unsandboxed"
NOT_CONTAINED = "not contained"

COOKIE = "MCPD_COOKIE"
"""The variable by which processes of this daemon are known again, when it was killed and its children live on."""

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
BASE_VARIABLES = ("HOME", "LANG", "LANGUAGE", "LOGNAME", "PATH", "SHELL", "TMPDIR", "TZ", "USER")
"""What a server gets of the daemon's environment unasked; and LC_*. Everything else is in its entry, or not there."""


@dataclass(frozen=True, slots=True)
class SandboxFacts:
    """What was found out about this machine by running it (`probe`)."""

    bwrap: str | None
    """Absolute path of a bubblewrap that makes pid namespaces here; None: there is none, `reason` says why."""
    version: str
    reason: str


@dataclass(frozen=True, slots=True)
class LaunchPlan:
    """All that is needed to start one process, and nothing that must be looked up on the way."""

    argv: tuple[str, ...]
    """The server's own command; `argv[0]` is searched in the child's PATH when it has no slash."""
    wrapper: tuple[str, ...]
    """What goes before it: bubblewrap with its options, or nothing."""
    env: Mapping[str, str]
    """The complete environment; bubblewrap is run with it too (its own is readable from inside) and adds PWD."""
    cwd: str
    isolation: str
    inside_pid_namespace: bool
    host_files: bool
    """The server sees the host's files, so whether its command can be executed is known before the start."""
    cookie: str
    """The value of `COOKIE` in `env`, but for the part that tells one start from another (added at the start)."""


def plan(
    spec: ServerSpec,
    env: Mapping[str, str],
    facts: SandboxFacts,
    *,
    base: Mapping[str, str],
    cookie: str,
    launcher: str | None = None,
) -> LaunchPlan:
    """The plan for `spec`. `env` is its table with secrets filled in, `base` the daemon's own environment.

    `launcher` is the path of the program that runs script files. Raises SpawnError where containment is asked for
    that cannot be given: a server is never started with less than its entry says.
    """
    profile = spec.sandbox.profile
    if profile != UNSANDBOXED:
        raise SpawnError(
            "sandbox",
            f"servers.{spec.name}.sandbox.profile: {profile!r} is not available in this version; "
            f'the only profile is "{UNSANDBOXED}"',
        )
    cwd = str(spec.cwd)
    return LaunchPlan(
        argv=command(spec, launcher),
        wrapper=bubblewrap.pid_namespace(facts.bwrap, cwd) if facts.bwrap else (),
        env={**environment(spec, env, base), COOKIE: cookie},
        cwd=cwd,
        isolation=UNSANDBOXED if facts.bwrap else NOT_CONTAINED,
        inside_pid_namespace=facts.bwrap is not None,
        host_files=True,
        cookie=cookie,
    )


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
