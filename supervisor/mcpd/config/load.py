"""Find, read and check a registry; everything that is wrong with it is told at once."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from pydantic_core import PydanticCustomError

from mcpd.config import checks, environment, grants, profiles, programs, runners, secrets
from mcpd.config.checks import Finding
from mcpd.config.documents import NOTHING, read_all
from mcpd.config.fit import fit
from mcpd.config.layers import Layer, Layered, anchor, lay
from mcpd.config.positions import KeyPath
from mcpd.config.registry import (
    BUILT_IN_PROFILES,
    SOURCES,
    ProfileSpec,
    Registry,
    SandboxSettings,
    SandboxSpec,
    ServerSpec,
    ViewSpec,
)
from mcpd.config.report import Place, Report
from mcpd.config.settings import DaemonSettings, FrontdoorSettings
from mcpd.config.tables import Named, Tables, put_together
from mcpd.config.values import NAME_RULE, check_name
from mcpd.errors import ConfigError, Problem

__all__ = ["Problem", "find_registry", "load"]

SYSTEM_REGISTRY: Final = Path("/etc/mcpd/mcpd.toml")


def find_registry(explicit: Path | None, environ: Mapping[str, str]) -> Path:
    """The registry file: `explicit`, $MCPD_CONFIG, $XDG_CONFIG_HOME/mcpd/mcpd.toml or /etc/mcpd/mcpd.toml.

    Raises ConfigError if the one that was asked for, or every one of the usual ones, is not there.
    """
    if explicit is not None:
        return _existing(explicit, Place(None, None, "--config"))
    if environ.get("MCPD_CONFIG"):
        return _existing(Path(environ["MCPD_CONFIG"]), Place(None, None, "MCPD_CONFIG"))
    usual = (environment.config_home(environ) / "mcpd" / "mcpd.toml", SYSTEM_REGISTRY)
    for path in usual:
        if os.path.isfile(path):  # not Path.is_file, which raises where a directory may not be entered
            return path
    looked = " and ".join(str(path) for path in usual)
    raise ConfigError(
        Problem(None, None, "", f"no registry: {looked} do not exist", "write one, or name it with --config")
    )


def _existing(path: Path, asked: Place) -> Path:
    path = Path(os.path.abspath(path))
    if os.path.isdir(path):
        raise ConfigError(Problem(None, None, asked.key, f"{path} is a directory", "name a registry file"))
    try:
        path.stat()
    except OSError as error:
        message = f"{path} cannot be used: {error.strerror}"
        raise ConfigError(Problem(None, None, asked.key, message, "name a registry file")) from None
    return path


def load(
    path: Path,
    environ: Mapping[str, str],
    *,
    tolerate_missing: bool = False,
    known_missing: Collection[Problem] = (),
    instead: Mapping[Path, str] = NOTHING,
) -> Registry:
    """The registry at `path`, the files of servers.d beside it merged in, [defaults] and the environment applied.

    Raises ConfigError with all problems. With `tolerate_missing` a program, script or directory that is not there is a
    warning and not a problem, so that at boot one broken server hinders no other. `known_missing` are the `missing` of
    a registry in use: those, and no others, go on being tolerated, wherever they stand by now. `instead` has the texts
    that files shall be taken to have, by their absolute paths. Reads files; changes nothing.
    """
    path = Path(os.path.abspath(path))
    report = Report()
    documents = read_all(path, report, instead)
    if not any(document.file == path for document in documents):
        raise ConfigError(*report.problems)
    is_whole = not report.problems
    tables = put_together(documents, path, environment.home(environ), report)
    reading = _Reading(path, environ, tables, report, is_whole, tolerate_missing or bool(known_missing))
    registry = reading.registry()
    if not tolerate_missing:
        known = {_in_substance(problem) for problem in known_missing}
        report.insist_on(lambda problem: _in_substance(problem) not in known)
    if report.problems:
        raise ConfigError(*report.problems)
    return registry.model_copy(update={"warnings": report.warnings, "missing": report.tolerated})


def _in_substance(problem: Problem) -> tuple[str, str]:
    """A problem without its place, which moves when lines are added above it."""
    return problem.key, problem.message


class _Reading:
    """One reading of one registry: from tables to values, with a report of what is wrong on the way."""

    def __init__(
        self,
        path: Path,
        environ: Mapping[str, str],
        tables: Tables,
        report: Report,
        is_whole: bool,
        tolerate_missing: bool,
    ) -> None:
        self.path = path
        self.environ = environ
        self.tables = tables
        self.report = report
        self.is_whole = is_whole  # False: a file of servers.d could not be read, so names may seem to be missing
        self.tolerate_missing = tolerate_missing
        self.names = tuple(tables.named["servers"])

    def registry(self) -> Registry:
        daemon = self.daemon()
        frontdoor = self.frontdoor()
        guarded = grants.protected(daemon, self.path, environment.home(self.environ))
        sandbox = self.sandbox()
        own_profiles = {
            name: self.profile(name, named, guarded) for name, named in self.tables.named["profiles"].items()
        }
        self.defaults()
        servers = {
            name: self.server(name, named, frontdoor, daemon, own_profiles, guarded)
            for name, named in self.tables.named["servers"].items()
        }
        views = {name: self.view(name, named) for name, named in self.tables.named["views"].items()}
        self.order(servers)
        return Registry(
            path=self.path,
            daemon=daemon,
            frontdoor=frontdoor,
            sandbox=sandbox,
            profiles=own_profiles,
            views=views,
            servers=servers,
        )

    def daemon(self) -> DaemonSettings:
        table = lay(self.overrides("daemon"), self.tables.single["daemon"])
        base = environment.directories(self.environ, self.path.parent)
        settings, wrong = fit(DaemonSettings, table, base, self.report)
        self.tell(table, checks.check_daemon(settings), wrong)
        path = self.environ.get("PATH", os.defpath)
        sources = (
            Finding((key,), message, remedy, missing=missing)
            for key, message, remedy, missing in secrets.objections_to_sources(settings, path)
        )
        self.tell(table, sources, wrong)
        return settings

    def frontdoor(self) -> FrontdoorSettings:
        table = lay(self.overrides("frontdoor"), self.tables.single["frontdoor"])
        settings, wrong = fit(FrontdoorSettings, table, {}, self.report)
        self.tell(table, checks.check_frontdoor(settings), wrong)
        self.tell(table, checks.check_tls(settings), wrong)
        self.tell(table, checks.check_separator(settings.separator, self.names), wrong)
        return settings

    def overrides(self, table: str) -> Layer:
        said = anchor(
            environment.overrides(table, self.environ, self.report), Path("/"), environment.home(self.environ)
        )

        def locate(path: KeyPath) -> Place:
            return Place(None, None, environment.variable(table, str(path[0]), self.environ))

        return Layer(said, locate, is_table=False)

    def sandbox(self) -> SandboxSettings:
        table = lay(self.tables.single["sandbox"])
        settings, wrong = fit(SandboxSettings, table, {}, self.report)
        self.tell(table, checks.check_sandbox(settings), wrong)
        return settings

    def profile(self, name: str, named: Named, guarded: grants.Protected) -> ProfileSpec:
        table = lay(named.layer)
        profile, wrong = fit(ProfileSpec, table, {"name": self.usable(name, table)}, self.report)
        self.tell(table, (Finding(*one) for one in profiles.profile_findings(profile)), wrong)
        self.tell(table, self.grant_findings(profile, guarded), wrong)
        if name in BUILT_IN_PROFILES:
            self.report.problem(table.place(()), f"the profile {name!r} is mcpd's own", "choose another name")
        return profile

    def defaults(self) -> None:
        """Look at [defaults] by itself, so that it is right also where no server inherits it."""
        fit(ServerSpec, lay(self.tables.single["defaults"]), {"name": "defaults"}, self.report)

    def grant_findings(self, table: ProfileSpec | SandboxSpec, guarded: grants.Protected) -> Iterator[Finding]:
        for key, paths in (("read", table.read), ("write", table.write)):
            for index, path in enumerate(paths):
                objection = grants.objection(str(path), guarded, writing=key == "write")
                if objection is not None:
                    yield Finding((key, index), *objection, missing=not os.path.lexists(path))

    def sandbox_findings(
        self, spec: ServerSpec, own_profiles: Mapping[str, ProfileSpec], guarded: grants.Protected
    ) -> Iterator[Finding]:
        yield from (Finding(*one) for one in profiles.findings(spec.sandbox, own_profiles))
        yield from self.grant_findings(spec.sandbox, guarded)

    def server(
        self,
        name: str,
        named: Named,
        frontdoor: FrontdoorSettings,
        daemon: DaemonSettings,
        own_profiles: Mapping[str, ProfileSpec],
        guarded: grants.Protected,
    ) -> ServerSpec:
        table = lay(named.layer, self.tables.single["defaults"])
        base = {"name": self.usable(name, table), "cwd": named.directory, "call_timeout": frontdoor.call_timeout}
        spec, wrong = fit(ServerSpec, table, base, self.report)
        given = [source for source in SOURCES if source in table.merged]
        self.tell(table, checks.check_sources(given), frozenset())
        self.tell(table, checks.check_server(spec, frontdoor), wrong)
        self.tell(table, checks.check_profile(spec, self.tables.named["profiles"]), wrong)
        self.tell(table, self.environment_findings(spec, daemon), wrong)
        inside = (
            Finding(("sandbox", *one.key), one.message, one.remedy, one.fatal, one.missing)
            for one in self.sandbox_findings(spec, own_profiles, guarded)
        )
        self.tell(table, inside, wrong)
        if "python" in named.layer.data and "script" not in given:
            finding = Finding(("python",), "only a script has an interpreter", "remove the key")
            self.tell(table, [finding], wrong)
        for key in ("bin", "install_scripts"):
            if key in named.layer.data and "package" not in given:
                self.tell(table, [Finding((key,), "means nothing without package", "remove the key")], wrong)
        self.tell(table, runners.findings(spec, own_profiles), wrong)
        spec, findings = self.located(spec)
        self.tell(table, findings, wrong)
        return spec

    def environment_findings(self, spec: ServerSpec, daemon: DaemonSettings) -> Iterator[Finding]:
        if "PATH" in secrets.wanted(spec):
            yield Finding(("env", "PATH"), "PATH cannot be a secret: programs are looked up in it", "write it out")
        for variable, message, remedy in secrets.objections(spec, daemon):
            yield Finding(("env", variable), message, remedy, fatal=False)

    def located(self, spec: ServerSpec) -> tuple[ServerSpec, list[Finding]]:
        """The spec with absolute programs, and what is not there."""
        findings: list[Finding] = []
        fatal = spec.enabled
        path = programs.search_path(spec, self.environ.get("PATH", os.defpath))
        update: dict[str, object] = {}
        if spec.command:
            found = programs.resolve(spec.command[0], path)
            update["command"] = (found or spec.command[0], *spec.command[1:])
            if found is None:
                objection = programs.why_not_executable(spec.command[0], "command", spec)
                findings.append(Finding(("command",), *objection, fatal, missing=True))
        if spec.script:
            found = programs.resolve(str(spec.python), path)
            update["python"] = Path(found or spec.python)
            if found is None:
                objection = programs.why_not_executable(str(spec.python), "python", spec)
                findings.append(Finding(("python",), *objection, fatal, missing=True))
            objection_to_script = programs.script_objection(spec.script.file)
            if objection_to_script is not None:
                findings.append(Finding(("script",), *objection_to_script, fatal, missing=True))
        objection_to_cwd = programs.directory_objection(spec.cwd)
        if objection_to_cwd is not None:
            findings.append(Finding(("cwd",), *objection_to_cwd, fatal, missing=True))
        return spec.model_copy(update=update), findings

    def view(self, name: str, named: Named) -> ViewSpec:
        table = lay(named.layer)
        base = {"name": self.usable(name, table), "servers": ()}
        if table.merged.get("servers") == "*":
            table = Layered(table.layers, {**table.merged, "servers": list(self.names)})
        elif "servers" not in table.merged:
            self.report.problem(table.place(()), "servers is missing", 'name some, or write servers = "*"')
        view, wrong = fit(ViewSpec, table, base, self.report)
        if self.is_whole and "servers" in table.merged:
            self.tell(table, checks.check_view(view, self.names), wrong)
        return view

    def order(self, servers: Mapping[str, ServerSpec]) -> None:
        if not self.is_whole:
            return
        # one with an unusable name has been reported already, and stands here under another
        named = tuple(spec for name, spec in servers.items() if spec.name == name)
        for name, finding in checks.check_after(named, self.names):
            table = lay(self.tables.named["servers"][name].layer, self.tables.single["defaults"])
            self.tell(table, [finding], frozenset())

    def usable(self, name: str, table: Layered) -> str:
        """`name`, or, after a report, another that can stand in for it until the reading ends."""
        try:
            return check_name(name)
        except PydanticCustomError as error:
            self.report.problem(table.place(()), error.message(), NAME_RULE)
            return "unnamed"

    def tell(self, table: Layered, findings: Iterable[Finding], wrong: Collection[str]) -> None:
        for finding in findings:
            if finding.key and finding.key[0] in wrong:
                continue
            if finding.fatal and finding.missing and self.tolerate_missing:
                add = self.report.missing
            else:
                add = self.report.problem if finding.fatal else self.report.warning
            add(table.place(finding.key), finding.message, finding.remedy)
