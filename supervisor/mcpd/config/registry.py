"""The registry as values: servers, views and profiles, with every default filled in."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from mcpd.config.settings import DaemonSettings, FrontdoorSettings, Table
from mcpd.config.values import (
    Bool,
    Duration,
    Int,
    Number,
    PositiveDuration,
    Size,
    check_name,
    check_secret_name,
    check_text,
    describe,
    refusal,
)
from mcpd.errors import Problem

Name = Annotated[str, AfterValidator(check_name)]
Text = Annotated[str, AfterValidator(check_text)]

SOURCES: Final = ("script", "command", "package")
BUILT_IN_PROFILES: Final = ("strict", "filesystem", "network", "unsandboxed")


class RestartPolicy(StrEnum):
    """When an instance that ended by itself is started again (systemd.service(5), `Restart=`)."""

    NO = "no"
    ALWAYS = "always"
    ON_SUCCESS = "on-success"
    ON_FAILURE = "on-failure"
    ON_ABNORMAL = "on-abnormal"
    ON_WATCHDOG = "on-watchdog"


class Script(Table):
    """A Python file, and the name of the server object in it where that is not to be found by looking."""

    file: Path
    object: str | None = None


class Package(Table):
    """A pinned package of a registry of packages."""

    registry: Literal["npm", "pypi"]
    name: str
    version: str

    @classmethod
    def parse(cls, text: str) -> Package:
        """Of `npm:NAME@VERSION` or `pypi:NAME==VERSION`. Raises ValueError."""
        match = _PACKAGE.fullmatch(text)
        if match is None:
            raise ValueError(text)
        if match["npm"]:
            return cls(registry="npm", name=match["name"], version=match["version"])
        return cls(registry="pypi", name=match["project"], version=match["release"])

    def __str__(self) -> str:
        """As it is written in a registry."""
        return f"{self.registry}:{self.name}{'@' if self.registry == 'npm' else '=='}{self.version}"


class SecretRef(Table):
    """A value that is fetched when the server is started: from the secrets directory, a command or the keyring."""

    secret: Annotated[str, AfterValidator(check_secret_name)]

    @property
    def name(self) -> str:
        return self.secret


class SecretFile(Table):
    """The same as a file that only the server can read; the variable has its path."""

    secret_file: Annotated[str, AfterValidator(check_secret_name)]

    @property
    def name(self) -> str:
        return self.secret_file


class ProbeSpec(Table):
    """How health is asked for (the words are those of Kubernetes' probes)."""

    initial_delay: Duration = 0.0
    period: PositiveDuration = 10.0
    timeout: PositiveDuration = 5.0
    failure_threshold: Int = Field(default=3, ge=1)
    success_threshold: Int = Field(default=1, ge=1)


class ToolRules(Table):
    """Which tools are shown, under which names; `allow = None`: all but the denied ones. Names are the server's own."""

    allow: tuple[str, ...] | None = None
    deny: tuple[str, ...] = ()
    rename: Mapping[str, Annotated[str, Field(min_length=1, max_length=128)]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _names_stay_apart(self) -> Self:
        targets = list(self.rename.values())
        for target in targets:
            if targets.count(target) > 1:
                raise refusal(f"two tools are renamed to {target!r}", "give each its own name")
        return self


class _Grants(Table):
    """What a profile or a server's own table adds to the base profile; None: as the base says."""

    read: tuple[Path, ...] = ()
    write: tuple[Path, ...] = ()
    allow: tuple[str, ...] = ()
    env_pass: tuple[str, ...] = ()
    env: Mapping[str, str] = Field(default_factory=dict)
    home: Literal["tmpfs", "state"] | None = None
    tmp_size: Size | None = None
    network: Literal["none", "allow", "host"] | None = None
    allow_private: Bool | None = None
    seccomp: Literal["default", "chromium"] | None = None


class ProfileSpec(_Grants):
    """[profiles.NAME]"""

    name: Name
    extends: Literal["strict", "filesystem", "network"] = "strict"


class SandboxSpec(_Grants):
    """[servers.NAME.sandbox]: a profile, and what this server needs beside it."""

    profile: str = "strict"


class LimitsSpec(Table):
    """[servers.NAME.limits]: bounds on the whole tree of an instance."""

    memory: Size = Field(default=512 * 2**20, ge=2**20)
    pids: Int = Field(default=64, ge=1)
    cpu: Number = Field(default=1.0, gt=0)
    nofile: Int = Field(default=256, ge=16)
    fsize: Size = 256 * 2**20
    enforce: Literal["auto", "cgroup"] = "auto"


class SandboxSettings(Table):
    """[sandbox]: what holds for all servers."""

    run_as: str = "dynamic"


_OBJECT = re.compile(r"(?P<file>.+):(?P<object>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)", re.DOTALL)
_PACKAGE = re.compile(
    r"(?P<npm>npm):(?P<name>(?:@[a-z0-9~-][a-z0-9._~-]*/)?[a-z0-9~-][a-z0-9._~-]*)@(?P<version>[0-9A-Za-z][0-9A-Za-z.+-]*)"
    r"|(?P<pypi>pypi):(?P<project>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)==(?P<release>[0-9A-Za-z][0-9A-Za-z.!+-]*)"
)


def _parse_script(value: Any) -> Any:
    if value is None or isinstance(value, Script):
        return value
    if not isinstance(value, str):
        raise refusal(f"expected a string, found {describe(value)}", 'write script = "FILE" or "FILE:OBJECT"')
    match = _OBJECT.fullmatch(check_text(value))
    if match is not None:
        return {"file": match["file"], "object": match["object"]}
    if not value:
        raise refusal("the name of the script is empty", 'write script = "FILE" or "FILE:OBJECT"')
    return {"file": value}


def _parse_package(value: Any) -> Any:
    if value is None or isinstance(value, Package):
        return value
    if not isinstance(value, str):
        raise refusal(f"expected a string, found {describe(value)}", 'write "npm:NAME@VERSION" or "pypi:NAME==VERSION"')
    try:
        return Package.parse(value)
    except ValueError:
        remedy = 'write "npm:NAME@VERSION" or "pypi:NAME==VERSION"'
        raise refusal(f"{value!r} names no pinned package", remedy) from None


def _parse_env_value(value: Any) -> str | SecretRef | SecretFile:
    if isinstance(value, SecretRef | SecretFile):
        return value
    if isinstance(value, str):
        return check_text(value)
    if isinstance(value, dict) and set(value) == {"secret"} and isinstance(value["secret"], str):
        return SecretRef(secret=check_secret_name(value["secret"]))
    if isinstance(value, dict) and set(value) == {"secret_file"} and isinstance(value["secret_file"], str):
        return SecretFile(secret_file=check_secret_name(value["secret_file"]))
    if isinstance(value, dict):
        raise refusal(
            'a table here is { secret = "NAME" } or { secret_file = "NAME" }', "NAME is a file in daemon.secrets_dir"
        )
    remedy = "write it in quotes" if isinstance(value, int | float) else "write a string"
    raise refusal(f"the values of variables are strings, found {describe(value)}", remedy)


def _check_command(value: tuple[str, ...]) -> tuple[str, ...]:
    if not value:
        raise refusal("the command is empty", "name a program and its arguments")
    return value


def _check_variable(name: str) -> str:
    if not name or "=" in name or "\0" in name:
        raise refusal(f"{name!r} cannot be the name of an environment variable", "use letters, digits and '_'")
    return name


class ServerSpec(Table):
    """[servers.NAME], with [defaults] merged in: what an operator wants of one server.

    `load` sees to it that exactly one of `script`, `command` and `package` is set, and makes `cwd`, `python`,
    `script.file` and `command[0]` absolute; for a spec made by hand all is as given.
    """

    name: Name
    script: Annotated[Script | None, BeforeValidator(_parse_script)] = None
    command: Annotated[tuple[Text, ...], AfterValidator(_check_command)] = ()
    package: Annotated[Package | None, BeforeValidator(_parse_package)] = None
    bin: Annotated[Text | None, Field(min_length=1)] = None
    install_scripts: Bool = False
    python: Path = Path(sys.executable)
    args: tuple[Text, ...] = ()
    cwd: Path = Path("/")
    env: Mapping[
        Annotated[str, AfterValidator(_check_variable)],
        Annotated[str | SecretRef | SecretFile, BeforeValidator(_parse_env_value)],
    ] = Field(default_factory=dict)
    enabled: Bool = True
    activation: Literal["eager", "lazy"] = "eager"
    idle_timeout: PositiveDuration = 600.0
    sharing: Literal["shared", "session"] = "shared"
    instances: Int = Field(default=1, ge=1, le=64)
    era: Literal["auto", "handshake", "per-request", "both"] = "auto"
    roots: tuple[str, ...] = ()
    start_timeout: PositiveDuration = 30.0
    call_timeout: PositiveDuration = 300.0
    request_rate: Number = Field(default=0, ge=0)
    request_burst: Int = Field(default=100, ge=1)
    restart: RestartPolicy = RestartPolicy.ON_FAILURE
    restart_delay: Duration = Field(default=0.5, ge=0.001)
    restart_max_delay: Duration = Field(default=60.0, ge=0.001)
    restart_steps: Int = Field(default=7, ge=1, le=1000)
    stable_after: Duration = 30.0
    start_limit_burst: Int = Field(default=5, ge=1)
    start_limit_interval: PositiveDuration = 600.0
    start_limit_action: Literal["backoff", "fail"] = "backoff"
    after: tuple[str, ...] = ()
    drain_timeout: Duration = 10.0
    stop_timeout: Duration = 5.0
    liveness: ProbeSpec = ProbeSpec()
    readiness: ProbeSpec = ProbeSpec()
    tools: ToolRules = ToolRules()
    pin: Literal["warn", "hold", "allow"] = "warn"
    sandbox: SandboxSpec = SandboxSpec()
    limits: LimitsSpec = LimitsSpec()


class ViewSpec(Table):
    """[views.NAME]: several servers shown as one; `servers = "*"` has been replaced by the names of all."""

    name: Name
    servers: tuple[str, ...]
    compact: Bool = False


class Registry(Table):
    """Everything that the operator wrote, checked. Two registries are equal if they want the same.

    `warnings` are for people, and `missing` are those of them that would be problems but for `tolerate_missing` (see
    `load`); neither counts in comparisons. Servers, views and profiles keep the order of the files.
    """

    path: Path
    daemon: DaemonSettings
    frontdoor: FrontdoorSettings = FrontdoorSettings()
    sandbox: SandboxSettings = SandboxSettings()
    profiles: Mapping[str, ProfileSpec] = Field(default_factory=dict)
    views: Mapping[str, ViewSpec] = Field(default_factory=dict)
    servers: Mapping[str, ServerSpec] = Field(default_factory=dict)
    warnings: tuple[Problem, ...] = ()
    missing: tuple[Problem, ...] = ()
