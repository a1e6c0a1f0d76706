"""Contained servers for tests: planned and started as the daemon does it, as root and as an ordinary user."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mcpd.config.registry import LimitsSpec, Registry, SandboxSpec, ServerSpec
from mcpd.config.settings import DaemonSettings
from mcpd.process.child import Child
from mcpd.process.launch import spawn
from mcpd.process.stderr import StderrLog
from mcpd.sandbox.policy import LaunchPlan, SandboxFacts
from mcpd.sandbox.probe import find_launcher
from mcpd.sandbox.warden import Egress, Warden
from support.processes import COOKIE, Recorder, facts

ORDINARY_UID = 54321
"""Nobody's; as whom what must not be root is run, where the tests are."""


def registry(root: Path, *specs: ServerSpec, **tables: Any) -> Registry:
    daemon = DaemonSettings(state_dir=root / "state", runtime_dir=root / "run", secrets_dir=root / "secrets")
    return Registry(path=root / "mcpd.toml", daemon=daemon, servers={one.name: one for one in specs}, **tables)


def spec(*command: str, name: str = "box", limits: Mapping[str, Any] | None = None, **sandbox: Any) -> ServerSpec:
    return ServerSpec(
        name=name,
        command=command,
        cwd=Path("/"),
        sandbox=SandboxSpec(**sandbox),
        limits=LimitsSpec(**(limits or {})),
    )


class Box:
    """A server in its sandbox, with what it said."""

    def __init__(
        self,
        root: Path,
        server: ServerSpec,
        *,
        env: Mapping[str, str] | None = None,
        egress: Egress | None = None,
        found: SandboxFacts | None = None,
        base: Mapping[str, str] | None = None,
        **tables: Any,
    ) -> None:
        known = registry(root, server, **tables)
        warden = Warden(
            found or facts(), known, base or os.environ, cookie=COOKIE, launcher=find_launcher(), egress=egress
        )
        self.plan: LaunchPlan = warden.plan(server, env or {}, known)
        self.heard = Recorder()
        self.log = StderrLog(root / f"{server.name}.log")
        self.child: Child = spawn(self.plan, self.heard, self.log)

    async def ask(self, *question: Any, timeout: float = 20.0) -> Any:
        """Send one line of JSON, return the answer."""
        before = len(self.heard.frames)
        assert self.child.offer(json.dumps(question).encode())
        await self.heard.until(lambda: len(self.heard.frames) > before or self.heard.status is not None, timeout)
        assert len(self.heard.frames) > before, f"{self.heard.status}: {self.child.stderr_tail.decode()}"
        return json.loads(self.heard.frames[before])

    async def lines(self, timeout: float = 20.0) -> list[str]:
        """All that a command printed, when it has ended."""
        status = await self.heard.until_exit(timeout)
        assert status.result == "success", f"{status}: {self.child.stderr_tail.decode()}"
        return [frame.decode() for frame in self.heard.frames]


def as_ordinary_user() -> list[str]:
    """What goes before a command so that it runs as an ordinary user, in a mount namespace of its own.

    Where the tests are root, the interpreter may lie in root's home: of that only the interpreter is shown.
    """
    bwrap = shutil.which("bwrap")
    assert bwrap is not None
    if os.geteuid() != 0:
        return [bwrap, "--dev-bind", "/", "/", "--die-with-parent", "--"]
    words = [bwrap, "--dev-bind", "/", "/", "--die-with-parent", "--cap-drop", "ALL"]
    for name in ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP"):
        words += ["--cap-add", name]
    prefix = os.path.realpath(sys.base_prefix)
    home = os.path.expanduser("~")
    if prefix.startswith(f"{home}/"):
        words += ["--perms", "0755", "--tmpfs", home]
        for above in reversed(Path(prefix).relative_to(home).parents[:-1]):
            words += ["--perms", "0755", "--dir", f"{home}/{above}"]
        words += ["--ro-bind", prefix, prefix]
    ids = ["--reuid", str(ORDINARY_UID), "--regid", str(ORDINARY_UID), "--clear-groups"]
    return [*words, "--", "setpriv", *ids, "--inh-caps=-all", "--bounding-set=-all", "--"]
