"""`mcpctl doctor`: what this machine gives to isolate servers, and what each server that runs really has."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from mcpd.cli.options import Operator
from mcpd.cli.text import clean
from mcpd.control.client import NoDaemon
from mcpd.control.view import DaemonStatus, IsolationStatus, ServerStatus
from mcpd.errors import ConfigError

if TYPE_CHECKING:
    from mcpd.config.registry import Registry
    from mcpd.sandbox.policy import SandboxFacts

Level = Literal["ok", "warn", "fail"]

AT_REST: Final = frozenset({"STOPPED", "DISABLED", "IDLE"})
VERSION_TIMEOUT: Final = 10.0
STYLES: Final[Mapping[str, str]] = {"ok": "green", "warn": "yellow", "fail": "bold red"}
DELEGATE: Final = "run mcpd under systemd with Delegate=memory pids cpu, as systemd/mcpd.service does"


class Check(msgspec.Struct, frozen=True):
    """One thing that was looked at. `fail`: something that is asked for is not given."""

    name: str
    level: Level
    text: str
    remedy: str = ""


class Diagnosis(msgspec.Struct, frozen=True):
    """What `--json` prints. `daemon`: one is running, so `servers` and `processes` say something."""

    machine: list[Check]
    servers: list[Check]
    processes: list[IsolationStatus]
    daemon: bool

    @property
    def failed(self) -> bool:
        return any(check.level == "fail" for check in (*self.machine, *self.servers))


@dataclass(frozen=True)
class Wanted:
    """What the registry asks of this machine. Without one: what the default profile does."""

    contained: bool = True
    cgroup: tuple[str, ...] = ()
    """Servers with limits.enforce = "cgroup"."""
    npm: bool = False
    pypi: bool = False


def diagnose(operator: Operator, environ: Mapping[str, str]) -> Diagnosis:
    """Look at everything. Nothing is changed; bubblewrap is run, as the daemon runs it at its start."""
    registry, checks = _registry(operator, environ)
    wanted = Wanted() if registry is None else wanted_by(registry)
    daemon: DaemonStatus | None = None
    processes: list[IsolationStatus] = []
    statuses: list[ServerStatus] = []
    try:
        daemon = operator.client.daemon()
        processes, statuses = operator.client.isolation(), operator.client.servers()
    except NoDaemon:
        pass
    packages = package_checks(registry) if registry is not None else ()
    machine = [*checks, *_machine(wanted, daemon, environ), *packages]
    return Diagnosis(machine, list(server_checks(statuses, processes)), processes, daemon is not None)


def wanted_by(registry: Registry) -> Wanted:
    servers = [spec for spec in registry.servers.values() if spec.enabled]
    kinds = {spec.package.registry for spec in servers if spec.package is not None}
    return Wanted(
        contained=bool(kinds) or any(spec.sandbox.profile != "unsandboxed" for spec in servers),
        cgroup=tuple(spec.name for spec in servers if spec.limits.enforce == "cgroup"),
        npm="npm" in kinds,
        pypi="pypi" in kinds,
    )


def _registry(operator: Operator, environ: Mapping[str, str]) -> tuple[Registry | None, list[Check]]:
    from mcpd.cli.editing import registry_path
    from mcpd.config.load import load

    try:
        path = registry_path(operator)
    except ConfigError as error:
        if operator.config is not None:
            return None, [Check("registry", "fail", str(error))]
        return None, [Check("registry", "warn", "there is none; taken as one of contained servers", "write one")]
    try:
        registry = load(path, environ, tolerate_missing=True)
    except ConfigError as error:
        count = len(error.problems)
        text = f"{path}: {count} problem{'s' * (count != 1)}: {error.problems[0]}"
        return None, [Check("registry", "fail", text, "`mcpd check` tells them all")]
    return registry, [Check("registry", "ok", f"{path}: {len(registry.servers)} servers")]


# -- The machine -----------------------------------------------------------------------------------------------------


def _machine(wanted: Wanted, daemon: DaemonStatus | None, environ: Mapping[str, str]) -> Iterator[Check]:
    from mcpd.sandbox.probe import probe

    facts = probe()
    works = facts.bwrap is not None and not facts.weakness
    yield from kernel_checks(wanted, works, Path("/proc"))
    yield from sandbox_checks(wanted, facts)
    yield cgroup_check(wanted, Path("/proc/self")) if daemon is None else claimed_check(wanted, daemon)
    yield from _tool_checks(wanted, environ)
    yield _systemd()


def kernel_checks(wanted: Wanted, works: bool, proc: Path) -> Iterator[Check]:
    """User namespaces, and what forbids them; `works`: servers can be contained all the same."""
    bad: Level = "warn" if works or not wanted.contained else "fail"
    release = platform.release()
    settings = {
        "user/max_user_namespaces": ("0", "sysctl user.max_user_namespaces=15000"),
        "kernel/unprivileged_userns_clone": ("0", "sysctl kernel.unprivileged_userns_clone=1"),
    }
    found = [
        Check("user namespaces", bad, f"switched off: {name.replace('/', '.')} = {off}", remedy)
        for name, (off, remedy) in settings.items()
        if _read(proc / "sys" / name) == off
    ]
    if not (proc / "self" / "ns" / "user").exists() and proc == Path("/proc"):
        found.append(Check("user namespaces", bad, f"this kernel ({release}) has none", "use one with CONFIG_USER_NS"))
    yield from found or [Check("user namespaces", "ok", f"kernel {release}")]
    restricted = _read(proc / "sys/kernel/apparmor_restrict_unprivileged_userns")
    if restricted == "1":
        text = "AppArmor lets only programs with a profile make user namespaces"
        remedy = "give bwrap a profile with `userns,` or sysctl kernel.apparmor_restrict_unprivileged_userns=0"
        yield Check("apparmor", bad, text, "" if works else remedy)
    else:
        yield Check("apparmor", "ok", "does not restrict user namespaces")


def sandbox_checks(wanted: Wanted, facts: SandboxFacts) -> Iterator[Check]:
    """What came of running bubblewrap as servers are run in it."""
    bad: Level = "fail" if wanted.contained else "warn"
    if facts.bwrap is None:
        remedy = "install the package bubblewrap; in a container allow user namespaces in its security profile"
        yield Check("bubblewrap", bad, facts.reason, remedy)
        return
    if facts.weakness:
        yield Check("bubblewrap", bad, facts.weakness, "install bubblewrap 0.8 or newer; see docs/sandbox.md")
        return
    yield Check("bubblewrap", "ok", f"{facts.version} ({facts.bwrap}): a server was contained by it, and looked around")
    text = f"a filter of mcpd's own for {facts.architecture}"
    if not facts.forbids_user_namespaces and os.geteuid() != 0:
        remedy = "install bubblewrap 0.8 or newer"
        yield Check("seccomp", "warn", f"{text}; it alone forbids user namespaces inside", remedy)
    else:
        yield Check("seccomp", "ok", text)
    if facts.counts_processes:
        yield Check("process limit", "ok", "counted in each server by the kernel")
    else:
        yield Check("process limit", "warn", "watched by the daemon, not kept by the kernel", DELEGATE)


def claimed_check(wanted: Wanted, daemon: DaemonStatus) -> Check:
    """Whether the daemon that runs keeps limits by control groups, as it says itself."""
    if daemon.cgroups is not None:
        return Check("cgroup v2", "ok", f"{daemon.cgroups}: limits of memory, processes and CPU are the kernel's")
    asked = f", and {', '.join(wanted.cgroup)} asked for one" if wanted.cgroup else ""
    text = f"{daemon.cgroups_reason or 'the daemon uses none'}{asked}"
    return Check("cgroup v2", "fail" if wanted.cgroup else "warn", text, DELEGATE)


def cgroup_check(wanted: Wanted, process: Path) -> Check:
    """Whether limits would be kept by a control group: of a daemon started as `process` was."""
    bad: Level = "fail" if wanted.cgroup else "warn"
    asked = f", and {', '.join(wanted.cgroup)} asked for one" if wanted.cgroup else ""
    mount = next(
        (line.split(" ")[4] for line in _read(process / "mountinfo").splitlines() if " - cgroup2 " in line), None
    )
    own = next((line[3:] for line in _read(process / "cgroup").splitlines() if line.startswith("0::")), None)
    if mount is None or own is None:
        return Check("cgroup v2", bad, f"there is no hierarchy of version 2{asked}", DELEGATE)
    group = Path(mount + own.rstrip("/"))
    group = group.parent if group.name == "daemon" else group
    controllers = _read(group / "cgroup.controllers").split()
    missing = [one for one in ("memory", "pids", "cpu") if one not in controllers]
    if missing:
        return Check("cgroup v2", bad, f"{group} has no controller {', '.join(missing)}{asked}", DELEGATE)
    if _read(group / "cgroup.subtree_control").split():
        return Check("cgroup v2", "ok", f"{group}: limits of memory, processes and CPU are the kernel's")
    if not os.access(group / "cgroup.subtree_control", os.W_OK):
        return Check("cgroup v2", bad, f"{group} is not delegated{asked}", DELEGATE)
    return Check("cgroup v2", "warn" if not wanted.cgroup else bad, f"{group}: not known to be delegated", DELEGATE)


def _tool_checks(wanted: Wanted, environ: Mapping[str, str]) -> Iterator[Check]:
    path = environ.get("PATH", os.defpath)
    for name in ("node", "npm"):
        found = shutil.which(name, path=path)
        if found is not None:
            yield Check(name, "ok", f"{_version(found)} ({found})")
        else:
            text = f"not on PATH{'; servers have npm packages' if wanted.npm else ''}"
            yield Check(name, "fail" if wanted.npm else "warn", text, "install Node.js with npm to run npm packages")
    uv = shutil.which("uv", path=path)
    if uv is not None:
        yield Check("uv", "ok", f"{_version(uv)} ({uv})")
    else:
        instead = "; pip is used" if wanted.pypi else ""
        yield Check("uv", "warn", f"not on PATH{instead}", "install uv: it installs packages quicker, and runs PEP 723")


def _version(program: str) -> str:
    try:
        done = subprocess.run(
            [program, "--version"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=VERSION_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"its version cannot be asked: {error}"
    lines = done.stdout.split("\n")
    return clean(lines[0].strip()) or f"no version (exit code {done.returncode})"


def package_checks(registry: Registry) -> Iterator[Check]:
    """Whether the packages of servers are, file for file, what was installed."""
    from mcpd.packages.shelf import Place, complaint

    root = registry.daemon.state_dir / "packages"
    for spec in registry.servers.values():
        if spec.package is None:
            continue
        place = Place(root, spec.package, spec.install_scripts)
        try:
            record = place.record()
            problem = complaint(place, record, quick=False) if record is not None else ""
        except OSError as error:
            yield Check(
                "package", "warn", f"{spec.package}: {error.filename}: {error.strerror}", "run this as mcpd's user"
            )
            continue
        if problem:
            remedy = f"find out who did it; `mcpctl upgrade {spec.name} {spec.package.version}` installs it anew"
            yield Check("package", "fail", f"{spec.package} is not what was installed: {problem}", remedy)
        elif record is not None:
            text = f"{spec.package}: {record.files} files as installed, sha256 {record.sha256[:16]}…"
            yield Check("package", "ok", text)
        else:
            yield Check("package", "ok", f"{spec.package}: not installed yet")


def _systemd() -> Check:
    if Path("/run/systemd/system").is_dir():
        return Check("systemd", "ok", "manages this machine")
    return Check("systemd", "warn", "does not manage this machine", "start mcpd at boot by what does")


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


# -- The servers -----------------------------------------------------------------------------------------------------


def server_checks(statuses: Iterable[ServerStatus], processes: Iterable[IsolationStatus]) -> Iterator[Check]:
    """Of each server what its processes have; of one that does not run, that."""
    found = list(processes)
    for status in statuses:
        own = [one for one in found if one.server == status.name]
        if not own:
            level: Level = "ok" if status.state in AT_REST else "warn"
            yield Check(status.name, level, f"{status.state}: it does not run, so nothing can be read")
        for one in own:
            yield _process_check(one)
            if one.limits:
                yield Check(one.instance, "ok", f"limits: {', '.join(f'{n} {text}' for n, text in one.limits.items())}")


def _process_check(one: IsolationStatus) -> Check:
    where = f"{one.profile}, pid {one.pid}"
    if not one.known:
        return Check(one.instance, "warn", f"{where}: it cannot be looked at", "run this as the daemon's user")
    has = f"uid {one.uid}, namespaces {' '.join(one.own_namespaces) or 'none'} of its own"
    if one.missing:
        remedy = "restart it; if it stays so, its entry's profile cannot be given here: see above"
        return Check(one.instance, "fail", f"{where}: {'; '.join(one.missing)} ({has})", remedy)
    if one.profile == "unsandboxed":
        return Check(one.instance, "warn", f"{where}: as its entry says; {has}", "give it a profile")
    rest = f"capabilities {one.capabilities:#x}, seccomp {one.seccomp}, root read-only"
    return Check(one.instance, "ok", f"{where}: {has}, {rest}")


# -- For people ------------------------------------------------------------------------------------------------------


def shown(diagnosis: Diagnosis) -> Iterator[tuple[str, str]]:
    """Lines with their styles."""
    width = max(len(check.name) for check in (*diagnosis.machine, *diagnosis.servers))
    for title, checks in (("this machine", diagnosis.machine), ("servers", diagnosis.servers)):
        yield title, "bold"
        for check in checks:
            yield f"  {check.level:<4}  {check.name:<{width}}  {clean(check.text)}", STYLES[check.level]
            if check.remedy and check.level != "ok":
                yield f"        {'':<{width}}  {clean(check.remedy)}", ""
        if not checks:
            yield "        none" if diagnosis.daemon else "        no daemon is running", ""
