"""The newest version of a package, as the user's own npm or pip tells it; nothing of the package is run."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mcpd.config.runners import Download

TIMEOUT: Final = 30.0
_LISTED: Final = re.compile(r"^\S+ \((?P<version>[^)\s]+)\)", re.MULTILINE)


def newest(wanted: Download) -> str | None:
    """None where nobody can tell: no npm, no network, no such package."""
    if wanted.registry == "npm":
        npm = shutil.which("npm")
        return _as_json(_said([npm, "view", wanted.name, "version", "--json"])) if npm is not None else None
    match = _LISTED.search(_said([sys.executable, "-m", "pip", "index", "versions", wanted.name]))
    return match["version"] if match else None


def _said(argv: list[str]) -> str:
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _as_json(text: str) -> str | None:
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, str) else None
