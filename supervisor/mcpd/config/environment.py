"""Settings from the environment: MCPD_DAEMON__… and MCPD_FRONTDOOR__…, and the directories where mcpd keeps things."""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, Strict, TypeAdapter, ValidationError

from mcpd.config.report import Place, Report
from mcpd.config.settings import DaemonSettings, FrontdoorSettings

TABLES: Final[Mapping[str, type[BaseModel]]] = {"daemon": DaemonSettings, "frontdoor": FrontdoorSettings}


def overrides(table: str, environ: Mapping[str, str], report: Report) -> dict[str, Any]:
    """What MCPD_<TABLE>__<KEY> variables say, as raw values for the table's model. Lists are written as JSON."""
    prefix = f"mcpd_{table}__"
    found: dict[str, Any] = {}
    for name, value in sorted(environ.items()):
        if not name.lower().startswith(prefix):
            continue
        try:
            said = _read(table, name, value)
            found |= {key: _typed(TABLES[table], key, raw) for key, raw in said.items()}
        except ValidationError as error:
            kind, example = (
                ("a boolean", "true or false") if "bool" in error.errors()[0]["type"] else ("an integer", "1")
            )
            report.problem(Place(None, None, name), f"expected {kind}, found {value!r}", f"write for example {example}")
        except ValueError:
            report.problem(Place(None, None, name), "expected JSON", """write a list as '["one", "two"]'""")
    return found


def _read(table: str, name: str, value: str) -> dict[str, Any]:
    """One variable by the rules of pydantic-settings, which costs 17 MiB: it is imported by the first one set."""
    from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict

    class Variables(BaseSettings):
        model_config = SettingsConfigDict(env_prefix="MCPD_", env_nested_delimiter="__")

        daemon: DaemonSettings
        frontdoor: FrontdoorSettings

    source = EnvSettingsSource(Variables)
    source.env_vars = {name.lower(): value}
    said: dict[str, Any] = source()[table]
    return said


def _typed(model: type[BaseModel], key: str, raw: Any) -> Any:
    """Text from the environment as the integer or boolean that TOML would have; the rest is for the model."""
    field = model.model_fields.get(key)
    if field is None or not any(isinstance(rule, Strict) for rule in field.metadata):
        return raw
    return TypeAdapter[Any](field.annotation or str).validate_python(raw)


def variable(table: str, key: str, environ: Mapping[str, str]) -> str:
    """The variable that sets `key`, spelt as it is in `environ`."""
    wanted = f"MCPD_{table}__{key}".upper()
    return next((name for name in environ if name.upper() == wanted), wanted)


def home(environ: Mapping[str, str]) -> Path:
    """The user's home directory: $HOME, else what the user database says; "/" for one that is not in there, as in
    containers that run under any uid."""
    try:
        return _absolute(environ, "HOME") or Path(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:
        return Path("/")


def config_home(environ: Mapping[str, str]) -> Path:
    return _absolute(environ, "XDG_CONFIG_HOME") or home(environ) / ".config"


def directories(environ: Mapping[str, str], config_dir: Path) -> dict[str, str]:
    """state_dir, runtime_dir and secrets_dir where the registry does not name them; logs_dir only under systemd.

    Under systemd from systemd.exec(5)'s variables, else by the XDG base directory specification.
    """
    state_home = _absolute(environ, "XDG_STATE_HOME") or home(environ) / ".local" / "state"
    runtime_home = _absolute(environ, "XDG_RUNTIME_DIR")
    runtime = runtime_home / "mcpd" if runtime_home else Path("/tmp") / f"mcpd-{os.getuid()}"  # noqa: S108 - made 0700, owner checked
    logs = _first(environ, "LOGS_DIRECTORY")
    return {
        **({"logs_dir": str(logs)} if logs is not None else {}),
        "state_dir": str(_first(environ, "STATE_DIRECTORY") or state_home / "mcpd"),
        "runtime_dir": str(_first(environ, "RUNTIME_DIRECTORY") or runtime),
        "secrets_dir": str(_absolute(environ, "CREDENTIALS_DIRECTORY") or config_dir / "secrets"),
    }


def _absolute(environ: Mapping[str, str], name: str) -> Path | None:
    """The directory in `name`; XDG wants relative ones ignored."""
    path = Path(environ.get(name, ""))
    return path if path.is_absolute() else None


def _first(environ: Mapping[str, str], name: str) -> Path | None:
    """The first directory in `name`, where systemd lists them with ':' between."""
    return _absolute({name: environ.get(name, "").split(":")[0]}, name)
