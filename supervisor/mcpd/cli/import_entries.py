"""Entries of MCP clients' configuration files as entries of a registry: nothing is read or written here.

What stands in those files, as the clients' own documentation says: Claude Desktop, Claude Code and Cursor `mcpServers`
(modelcontextprotocol.io, "Connect to local MCP servers"; code.claude.com/docs/en/mcp; cursor.com/docs/context/mcp),
VS Code `servers`, in its settings `mcp.servers` (code.visualstudio.com/docs/copilot/reference/mcp-configuration).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from mcpd.cli import clients
from mcpd.cli.failures import Failed
from mcpd.cli.granting import grant_of, named_directories
from mcpd.config.runners import Download, download

LONGEST_NAME: Final = 32
DOWNLOADERS: Final = frozenset({"npx", "pnpm", "bunx", "yarn", "uvx", "uv", "pipx", "docker", "podman", "deno"})
"""Programs that fetch what they run when it is first started: that takes longer than a start, and a network."""
PATIENT: Final = "3m"
_UNDERSTOOD: Final = frozenset({"command", "args", "env", "cwd", "type", "transport", "disabled", "enabled"})

_SECRET_NAME: Final = re.compile(
    r"(?:^|[_-])(?:\w*TOKEN|\w*SECRET|\w*PASSWORD|\w*PASSWD|PASSPHRASE|PASS|PWD|PAT|\w*APIKEY|KEY|CREDENTIALS?|COOKIE|DSN|AUTH)"
    r"(?:[_-]\d+)?$",
    re.IGNORECASE,
)
_SECRET_VALUE: Final = re.compile(
    r"(?:sk|pk|rk|ghp|gho|ghu|ghs|glpat|xox[abprs]|npm|hf|AKIA|AIza|eyJ|Bearer )[-_ ]?[A-Za-z0-9_./+=-]{16,}"
    r"|github_pat_\w{20,}"
)
_WITH_PASSWORD: Final = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s:@]*:[^/\s@]+@", re.IGNORECASE)
_PLAIN_VALUE: Final = re.compile(r"(?:true|false|yes|no|on|off|none|null|\d{1,8}|[.~]{0,2}/.*)?", re.IGNORECASE)
_VARIABLE: Final = re.compile(r"\$\{(?P<what>[^}]*)\}")


@dataclass(frozen=True)
class Converted:
    """One server: the client's name for it, ours, its table, and the secrets that the table names."""

    title: str
    name: str
    table: Mapping[str, Any]
    secrets: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rejected:
    """An entry that is not converted, and why."""

    title: str
    reason: str


@dataclass(frozen=True)
class Wishes:
    """How to convert. `taken`: names that the registry has; `inline`: secrets stay in the table; `profile`: of each;
    `newest`: tells a package's version where the entry leaves it open, None where it cannot."""

    taken: Collection[str] = ()
    inline: bool = False
    profile: str | None = None
    environ: Mapping[str, str] = field(default_factory=dict)
    home: Path = Path("/")
    newest: Callable[[Download], str | None] = lambda wanted: None


def entries_of(document: Any, project: str | None = None) -> Mapping[str, Any]:
    """The servers of a client's file, whichever client's it is; of Claude Code's, those of one project.

    Raises Failed if there are none to be found.
    """
    if project is not None:
        projects = document.get("projects") if isinstance(document, dict) else None
        if not isinstance(projects, dict) or not isinstance(projects.get(project), dict):
            known = ", ".join(projects) if isinstance(projects, dict) and projects else "none"
            raise Failed(f"the file has no project {project!r}", f"it has {known}")
        document = projects[project]
    for path in (("mcpServers",), ("servers",), ("mcp", "servers"), ("mcp", "mcpServers")):
        found = document
        for key in path:
            found = found.get(key) if isinstance(found, dict) else None
        if isinstance(found, dict):
            return found
    raise Failed("the file has neither `mcpServers` nor `servers`", "name a client's MCP configuration")


def other_projects(document: Any) -> list[str]:
    """The projects of Claude Code's file that have servers of their own."""
    projects = document.get("projects") if isinstance(document, dict) else None
    if not isinstance(projects, dict):
        return []
    return [name for name, one in projects.items() if isinstance(one, dict) and one.get("mcpServers")]


def convert(entries: Mapping[str, Any], wishes: Wishes) -> tuple[list[Converted], list[Rejected]]:
    """Each entry as one of ours, or why not. Names are made valid, and apart from each other."""
    converted: list[Converted] = []
    rejected: list[Rejected] = []
    names: set[str] = set()
    for title, entry in entries.items():
        try:
            name = _apart(valid_name(title), names)
            if name in wishes.taken:
                raise _Unconvertible(f"the registry has a server {name!r} already")
            one = _converted(title, name, entry, wishes)
        except _Unconvertible as error:
            rejected.append(Rejected(title, str(error)))
        else:
            names.add(name)
            converted.append(one)
    return converted, rejected


class _Unconvertible(Exception):
    pass


def valid_name(title: str) -> str:
    """`title` as the name of a server ([a-z0-9][a-z0-9-]{0,31})."""
    name = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:LONGEST_NAME].strip("-")
    if not name:
        raise _Unconvertible("its name has no letter or digit")
    return name


def _apart(name: str, names: Collection[str]) -> str:
    number, result = 1, name
    while result in names:
        number += 1
        tail = f"-{number}"
        result = name[: LONGEST_NAME - len(tail)].rstrip("-") + tail
    return result


def _converted(title: str, name: str, entry: Any, wishes: Wishes) -> Converted:
    if not isinstance(entry, dict):
        raise _Unconvertible("it is no object")
    _check_kind(entry)
    expanded = _Expansion(wishes)
    command = [_text(entry["command"], "command"), *(_text(one, "args") for one in _list(entry.get("args"), "args"))]
    command = [expanded(word, "command") for word in command]
    if "/" not in command[0] and " " in command[0]:  # some write the whole line as the command
        command = [*command[0].split(), *command[1:]]
    table, pinned = _source(command, wishes)
    if entry.get("cwd"):
        table["cwd"] = expanded(_text(entry["cwd"], "cwd"), "cwd")
    env, secrets = _environment(name, entry.get("env"), expanded, wishes.inline)
    if env:
        table["env"] = env
    if entry.get("disabled") is True or entry.get("enabled") is False:
        table["enabled"] = False
    if "command" in table and os.path.basename(command[0]) in DOWNLOADERS:
        table["start_timeout"] = PATIENT
    if wishes.profile is not None:
        table["sandbox"] = {"profile": wishes.profile}
    notes = [*pinned, *expanded.notes, *_notes(entry, command, env, wishes.inline)]
    if wishes.profile in (None, "strict"):
        notes += [grant_of(path) for path in named_directories(command[1:], str(wishes.home))]
    return Converted(title, name, table, secrets, tuple(notes))


def _source(command: list[str], wishes: Wishes) -> tuple[dict[str, Any], list[str]]:
    """What is run: where the command would download it each time, the package, pinned; and what is to be told of it."""
    found = download(command)
    if found is None:
        return {"command": command}, []
    version = found.version or wishes.newest(found)
    if version is None:
        how = f"write {found.lines} instead; `{found.ask}` tells the newest VERSION"
        return {"command": command}, [f"it is downloaded by {command[0]} and not pinned: {how}"]
    table: dict[str, Any] = {"package": found.package(version)}
    if found.program is not None:
        table["bin"] = found.program
    if found.args:
        table["args"] = list(found.args)
    return table, [] if found.version else [f"pinned to {version}, the newest; `mcpctl upgrade` moves it"]


def _check_kind(entry: Mapping[str, Any]) -> None:
    if clients.is_ours(entry):
        raise _Unconvertible("it is mcpd itself")
    kind = entry.get("type") or entry.get("transport") or "stdio"
    if "command" not in entry and ("url" in entry or "serverUrl" in entry or "httpUrl" in entry):
        raise _Unconvertible("it is reached by a URL, and mcpd runs programs; the client can go on using it directly")
    if kind != "stdio":
        raise _Unconvertible(f"its type is {kind!r}, and mcpd runs programs that speak on stdin and stdout")
    if not entry.get("command"):
        raise _Unconvertible("it has no command")


def _text(value: Any, key: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise _Unconvertible(f"its {key} holds what is no text")
    return str(value)


def _list(value: Any, key: str) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise _Unconvertible(f"its {key} is no array")
    return value


class _Expansion:
    """What clients put in place of `${…}`: mcpd's registry has none, so it is done now."""

    def __init__(self, wishes: Wishes) -> None:
        self._wishes = wishes
        self.notes: list[str] = []

    def __call__(self, text: str, key: str) -> str:
        return _VARIABLE.sub(lambda match: self._value(match["what"], key), text)

    def _value(self, what: str, key: str) -> str:
        if what == "userHome":
            return str(self._wishes.home)
        if what in ("pathSeparator", "/"):
            return "/"
        name, _, default = what.removeprefix("env:").partition(":-")
        if re.fullmatch(r"[A-Za-z_]\w*", name) and not what.startswith(("workspaceFolder", "input:", "command:")):
            value = self._wishes.environ.get(name, default or None)
            if value is None:
                raise _Unconvertible(
                    f"its {key} needs the variable {name}, which is not set here: set it and try again"
                )
            self.notes.append(f"{key}: ${{{what}}} is what it is now; mcpd's registry has no such variables")
            return value
        remedy = "it depends on what is open in the client" if "orkspace" in what else "only the client knows it"
        raise _Unconvertible(f"its {key} uses ${{{what}}}: {remedy}")


def _environment(name: str, given: Any, expanded: _Expansion, inline: bool) -> tuple[dict[str, Any], dict[str, str]]:
    """The variables, and the values of those that are kept apart."""
    if given is None:
        return {}, {}
    if not isinstance(given, dict):
        raise _Unconvertible("its env is no object")
    env: dict[str, Any] = {}
    secrets: dict[str, str] = {}
    for variable, raw in given.items():
        value = expanded(_text(raw, "env"), f"env.{variable}")
        if inline or not looks_secret(variable, value):
            env[variable] = value
        else:
            file = re.sub(r"[^A-Za-z0-9._-]+", "-", f"{name}.{variable}")[:128]
            secrets[file] = value
            env[variable] = {"secret": file}
    return env, secrets


def looks_secret(variable: str, value: str) -> bool:
    """Whether a variable seems to hold what nobody else should know: by its name, or by the form of the value."""
    if _PLAIN_VALUE.fullmatch(value):
        return False
    return bool(_SECRET_NAME.search(variable) or _SECRET_VALUE.match(value) or _WITH_PASSWORD.match(value))


def _notes(entry: Mapping[str, Any], command: list[str], env: Mapping[str, Any], inline: bool) -> Iterator[str]:
    if "envFile" in entry:
        yield "envFile is not read: put what the server needs of it into env"
    unknown = sorted(set(entry) - _UNDERSTOOD - {"envFile"})
    if unknown:
        yield f"left out: {', '.join(unknown)}"
    if inline:
        shown = [key for key, value in env.items() if isinstance(value, str) and looks_secret(key, value)]
        if shown:
            yield f"stands in the registry as it is: {', '.join(shown)}"
    for at, word in enumerate(command):
        if _SECRET_VALUE.match(word) or _WITH_PASSWORD.match(word):
            yield f"argument {at} looks like a secret, and everybody on this machine can see arguments"
