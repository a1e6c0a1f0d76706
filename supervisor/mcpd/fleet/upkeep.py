"""For operators: newer versions of packages, what is left of older ones, and what isolates each server really."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterable, Iterator

from mcpd.config.profiles import effective
from mcpd.config.registry import Package, Registry, ServerSpec
from mcpd.control.view import IsolationStatus, Upgrade
from mcpd.errors import ClientFault
from mcpd.fleet.instance import Instance
from mcpd.packages.packages import Packages, Tell
from mcpd.process.stderr import StderrLog
from mcpd.sandbox.limits import Limits
from mcpd.sandbox.readback import Isolation, read_back

_RESOURCES = {
    resource.RLIMIT_NOFILE: "nofile",
    resource.RLIMIT_FSIZE: "fsize",
    resource.RLIMIT_CORE: "core",
    resource.RLIMIT_DATA: "data",
}
"""As `Isolation.limits` calls them."""


async def upgrade(packages: Packages, spec: ServerSpec, version: str | None, log: StderrLog, tell: Tell) -> Upgrade:
    """Install another version beside the one that a server has; None: the newest. Nothing else is changed; but the
    version that it has is installed anew where its files are not those that were installed.

    Raises ClientFault (the server has no package, the version is none) and SpawnError.
    """
    before = package_of(spec)
    found = version if version is not None else await packages.newest(before, log)
    try:
        after = Package.parse(str(before.model_copy(update={"version": found})))
    except ValueError:
        raise ClientFault(f"{found!r} is no version; name one such as {before.version}") from None
    began = time.time()
    record = await packages.install(after, spec.install_scripts, log, tell)
    renewed = after == before and record.installed_at >= began
    return Upgrade(server=spec.name, before=str(before), after=str(after), sha256=record.sha256, renewed=renewed)


async def prune(
    packages: Packages, registry: Registry, instances: Iterable[Instance], only: ServerSpec | None
) -> list[str]:
    """Remove what is installed and neither written in the registry nor running; `only`: of this server's package."""
    running = (one.incarnation.spec for one in instances if one.incarnation is not None)
    used = [spec.package for spec in (*registry.servers.values(), *running) if spec.package is not None]
    return await packages.prune(used, package_of(only) if only is not None else None)


def package_of(spec: ServerSpec) -> Package:
    """Raises ClientFault where the server has none."""
    if spec.package is None:
        raise ClientFault(f"servers.{spec.name} has no package; only servers with one can be upgraded")
    return spec.package


def isolation(registry: Registry, instances: Iterable[Instance]) -> Iterator[IsolationStatus]:
    """What the kernel says of each process that runs, beside what was asked for."""
    for one in instances:
        incarnation = one.incarnation
        pid = incarnation.child.server_pid if incarnation is not None else None
        if incarnation is None or pid is None:
            continue
        seen = read_back(pid)
        limits = incarnation.child.limits
        missing: tuple[str, ...] = ()
        if seen is not None:
            missing = (*_missing(registry, incarnation.spec, incarnation.isolation, seen), *_unkept(limits, seen))
        yield IsolationStatus(
            server=one.spec.name,
            instance=one.name,
            pid=pid,
            profile=incarnation.isolation,
            known=seen is not None,
            uid=seen.uids[0] if seen is not None else None,
            own_namespaces=seen.own_namespaces if seen is not None else (),
            shared_namespaces=seen.shared_namespaces if seen is not None else (),
            capabilities=seen.capabilities if seen is not None else 0,
            no_new_privileges=seen.no_new_privileges if seen is not None else False,
            seccomp=seen.seccomp if seen is not None else "",
            writable=seen.writable if seen is not None else (),
            missing=missing,
            limits=dict(limits.in_force),
            kernel_limits=dict(seen.limits) if seen is not None else {},
        )


def _unkept(limits: Limits, seen: Isolation) -> Iterator[str]:
    """Limits that were to be set on each of its processes, and that the kernel does not have for this one."""
    wanted = {_RESOURCES[what]: value for what, value in limits.rlimits}
    if limits.processes is not None:
        wanted["processes"] = limits.processes
    for name, most in wanted.items():
        has = seen.limits.get(name)
        if has is None or has > most:
            yield f"its limit of {name} is {'none' if has is None else has}, not {most}"


def _missing(registry: Registry, spec: ServerSpec, profile: str, seen: Isolation) -> tuple[str, ...]:
    """What the profile under which it was started promises, and the process does not have."""
    if profile == "not contained":
        return ("no process table of its own",)
    if profile == "unsandboxed":
        return () if "pid" in seen.own_namespaces else ("shares the pid namespace",)
    try:
        rules = effective(spec.sandbox, registry.profiles)
    except (KeyError, ValueError):
        return seen.holes
    granted = {"shares the net namespace"} if rules.network == "host" else set()
    return tuple(hole for hole in seen.holes if hole not in granted)
