"""mcpctl run against a registry of two servers: what the tests of the commands that change one have in common."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import tomli

from support.memory_fleet import ServedFleet
from support.terminal import MCPCTL, environment, run

SAMPLE = '# ours\n[servers.a]   # first\ncommand = ["cat"]\n\n[servers.b]\ncommand = ["cat"]\nenabled = false\n'
Ctl = Callable[..., "subprocess.CompletedProcess[str]"]


def on(served: ServedFleet, *words: str) -> subprocess.CompletedProcess[str]:
    """Run mcpctl against a daemon; the registry is the daemon's."""
    return run(MCPCTL, "--socket", str(served.socket_path), *words, env=environment(served.root / "home"))


def servers(path: Path) -> dict[str, object]:
    found: dict[str, object] = tomli.loads(path.read_text())["servers"]
    return found
