"""The daemon's own settings: the tables [daemon] and [frontdoor]."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from mcpd.config.values import Bool, Int, Number, PositiveDuration, Size, check_text

Text = Annotated[str, AfterValidator(check_text)]
Separator = Literal["__", ".", "/", "-"]
Auth = Literal["token", "none", "jwt"]
JwtAlgorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"
]  # signatures only: whoever could check a keyed hash could make one


class Table(BaseModel):
    """A table of the registry: frozen, and a key that it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _enough_starts(value: int) -> int:
    return value or max(8, 2 * len(os.sched_getaffinity(0)))


class DaemonSettings(Table):
    """[daemon]. The first three directories have no default here: `load` finds theirs in the environment."""

    state_dir: Path
    runtime_dir: Path
    secrets_dir: Path
    logs_dir: Path
    secret_command: tuple[Text, ...] = ()
    secret_keyring: Text = ""
    client_group: str | None = Field(default=None, min_length=1)
    operator_group: str | None = Field(default=None, min_length=1)
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "console", "json"] = "auto"
    max_concurrent_starts: Annotated[Int, Field(ge=0), AfterValidator(_enough_starts)] = Field(
        default=0, validate_default=True
    )
    watch: Bool = False
    audit: Literal["off", "calls", "hashed", "full"] = "calls"
    audit_size: Size = Field(default=16 * 2**20, ge=2**16)
    audit_keep: Int = Field(default=8, ge=0, le=1000)

    @model_validator(mode="before")
    @classmethod
    def _logs_are_state(cls, given: Any) -> Any:
        if isinstance(given, dict) and "logs_dir" not in given and "state_dir" in given:
            return {**given, "logs_dir": Path(str(given["state_dir"])) / "logs"}  # what is no path is told of state_dir
        return given


class JwtSettings(Table):
    """[frontdoor.jwt]: whose signed tokens are taken, and what their scopes are good for. Empty: not set."""

    issuer: str = ""
    audience: str = ""
    jwks: str = ""
    resource: str = ""
    algorithms: tuple[JwtAlgorithm, ...] = ("RS256", "ES256", "EdDSA")
    principal: str = Field(default="sub", min_length=1)
    scopes: Mapping[str, Literal["*"] | tuple[str, ...]] = Field(default_factory=dict)


class FrontdoorSettings(Table):
    """[frontdoor]. `port = 0` lets the kernel choose; `tls_cert` and `tls_key` are both there or both absent."""

    host: str = Field(default="127.0.0.1", min_length=1)
    port: Int = Field(default=6270, ge=0, le=65535)
    auth: Auth = "token"
    allowed_origins: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    separator: Separator = "__"
    max_body: Size = Field(default=4 * 2**20, ge=1024)
    call_timeout: PositiveDuration = 300.0
    max_call_time: PositiveDuration = 3600.0
    input_timeout: PositiveDuration = 120.0
    session_idle_timeout: PositiveDuration = 3600.0
    tls_cert: Path | None = None
    tls_key: Path | None = None
    trusted_proxy: tuple[str, ...] = ()
    max_connections: Int = Field(default=4096, ge=1, le=1_000_000)
    max_sessions: Int = Field(default=4096, ge=1)
    max_in_flight: Int = Field(default=4096, ge=1)
    request_rate: Number = Field(default=0, ge=0)
    request_burst: Int = Field(default=100, ge=1)
    max_header: Size = Field(default=64 * 2**10, ge=1024, le=2**20)
    request_timeout: PositiveDuration = 60.0
    jwt: JwtSettings = JwtSettings()
