"""The entry for mcpd in the configuration of an MCP client.

Where each client keeps it, as its own documentation says: Claude Desktop (modelcontextprotocol.io, "Connect to local
MCP servers"), Claude Code (code.claude.com/docs/en/mcp: user scope), Cursor (cursor.com/docs/context/mcp), VS Code
(code.visualstudio.com/docs/copilot/reference/mcp-configuration: user profile).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mcpd.cli.failures import Failed
from mcpd.cli.jsonedit import NotJson, read, set_member

LARGEST: Final = 64 * 1024 * 1024
ATTEMPTS: Final = 3

Environment = Mapping[str, str]


@dataclass(frozen=True)
class Target:
    """A client: where its file is, under which key servers stand in it, and what an entry looks like there."""

    title: str
    key: str
    typed: bool
    speaks_http: bool
    path: Callable[[str, Environment, Path], Path]
    next_step: str


def _settings_dir(platform: str, environ: Environment, home: Path) -> Path:
    """Where desktop programs keep their settings."""
    if platform == "darwin":
        return home / "Library" / "Application Support"
    if platform == "win32":
        return Path(environ.get("APPDATA") or home / "AppData" / "Roaming")
    return Path(environ.get("XDG_CONFIG_HOME") or home / ".config")


def _claude_desktop(platform: str, environ: Environment, home: Path) -> Path:
    return _settings_dir(platform, environ, home) / "Claude" / "claude_desktop_config.json"


def _claude_code(platform: str, environ: Environment, home: Path) -> Path:
    return Path(environ.get("CLAUDE_CONFIG_DIR") or home) / ".claude.json"


def _cursor(platform: str, environ: Environment, home: Path) -> Path:
    return home / ".cursor" / "mcp.json"


def _vscode(platform: str, environ: Environment, home: Path) -> Path:
    return _settings_dir(platform, environ, home) / "Code" / "User" / "mcp.json"


TARGETS: Final[Mapping[str, Target]] = {
    "claude-desktop": Target(
        "Claude Desktop", "mcpServers", False, False, _claude_desktop, "quit Claude Desktop and start it again"
    ),
    "claude-code": Target("Claude Code", "mcpServers", True, True, _claude_code, "`/mcp` in a new session shows it"),
    "cursor": Target("Cursor", "mcpServers", False, True, _cursor, "Cursor's settings show it under MCP"),
    "vscode": Target("VS Code", "servers", True, True, _vscode, "`MCP: List Servers` in VS Code shows it"),
}


@dataclass(frozen=True)
class Written:
    """`changed`: the file has a new content; `backup`: where its old one is, if it had one."""

    changed: bool
    backup: Path | None


def stdio_entry(target: Target, command: Sequence[str]) -> dict[str, Any]:
    """The client starts `command` and speaks MCP with its stdin and stdout."""
    entry = {"command": command[0], "args": list(command[1:])}
    return {"type": "stdio", **entry} if target.typed else entry


def http_entry(target: Target, url: str, token: str | None) -> dict[str, Any]:
    """The client speaks Streamable HTTP with the front door."""
    if not target.speaks_http:
        raise Failed(f"{target.title}'s configuration knows commands only", "leave out --http")
    entry: dict[str, Any] = {"url": url}
    if token is not None:
        entry["headers"] = {"Authorization": f"Bearer {token}"}
    return {"type": "http", **entry} if target.typed else entry


def program() -> list[str]:
    """The absolute path of mcpctl: clients are started by a desktop, with a PATH of its own."""
    beside = Path(sys.executable).parent / "mcpctl"  # not resolved: that would lead out of a virtual environment
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which("mcpctl")
    if found is None:
        raise Failed("mcpctl is not installed as a program", "install mcpd-supervisor, and run its `mcpctl`")
    return [os.path.abspath(found)]


def write(path: Path, target: Target, name: str, entry: Mapping[str, Any], replace: bool) -> Written:
    """Set the entry called `name` in the client's file; everything else in it stays as it is.

    A file that changes is first copied beside itself. An entry of that name that is not mcpd's is replaced only with
    `replace`. Raises Failed.
    """
    real = Path(os.path.realpath(path))  # people keep these files elsewhere, and link to them
    if not real.parent.is_dir():
        raise Failed(
            f"{path}: there is no directory {real.parent}; {target.title} does not seem to be installed here",
            "start it once, or name its file with --file",
        )
    for _ in range(ATTEMPTS):
        before = _read(real)
        after = _edited(path, before, target, name, entry, replace)
        if after == before:
            return Written(False, None)
        if _read(real) == before:  # Claude Code rewrites its file while it runs
            return Written(True, _replace(real, before, after))
    raise Failed(f"{path}: somebody else keeps changing it", f"end {target.title} and try again")


def _edited(path: Path, before: str | None, target: Target, name: str, entry: Mapping[str, Any], replace: bool) -> str:
    try:
        document = read(before) if before and before.strip() else {}
        entries = document.get(target.key) if isinstance(document, dict) else None
        there = entries.get(name) if isinstance(entries, dict) else None
        if there is not None and not replace and not is_ours(there):
            raise Failed(
                f"{path}: there is another entry {name!r} already",
                "give this one another name with --name, or replace that one with --force",
            )
        return set_member(before or "", (target.key, name), dict(entry))
    except NotJson as error:
        raise Failed(f"{path}: {error}", "mend the file; it was not changed") from None


def is_ours(entry: object) -> bool:
    """Whether an entry was made by this program: it names `mcpctl connect`, or a path of the front door."""
    if not isinstance(entry, dict):
        return False
    command, arguments, url = entry.get("command"), entry.get("args"), entry.get("url")
    if isinstance(command, str) and isinstance(arguments, list):
        return Path(command).name == "mcpctl" and "connect" in arguments
    return isinstance(url, str) and url.startswith(("http://", "https://")) and url.endswith("/mcp")


def _read(path: Path) -> str | None:
    try:
        if path.stat().st_size > LARGEST:
            raise Failed(f"{path}: is over {LARGEST} bytes", "is it the right file?")
        return path.read_bytes().decode()
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        raise Failed(f"{path}: is not UTF-8", "mend the file; it was not changed") from None


def _replace(path: Path, before: str | None, after: str) -> Path | None:
    """Write in full or not at all; the new file has the old one's mode, a first one is the user's alone."""
    backup = None
    if before is not None:
        stamp = time.strftime("%Y%m%d-%H%M%S")
        backup = path.with_name(f"{path.name}.before-mcpd-{stamp}")
        shutil.copy2(path, backup)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mkstemp: 0600
    try:
        with open(descriptor, "wb") as file:
            file.write(after.encode())
            file.flush()
            os.fsync(file.fileno())
        if before is not None:
            shutil.copymode(path, temporary)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    return backup
