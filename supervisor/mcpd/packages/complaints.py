"""What an installer's last words mean: whose turn it is, and whether another try can help."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from mcpd.config.registry import Package
from mcpd.errors import SpawnError, SpawnResult

LINES: Final = 3
LONGEST: Final = 300

_ESCAPES: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_CHATTER: Final = re.compile(
    r"npm (?:http|notice|warn|silly|verb|info|timing)\b|npm error\s*$|npm error\s+/.*\.log$"
    r"|npm error (?:A complete log|notarget In most)"
    r"|\[notice\]|WARNING: (?!.*(?:rror|etry))|Traceback|\s+File \"",
    re.IGNORECASE,
)
_NETWORK: Final = re.compile(
    r"ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|EHOSTUNREACH|ERR_SOCKET_TIMEOUT|ERR_INVALID_URL"
    r"|\bE5\d\d\b|E429|FETCH_ERROR|network (?:request|connectivity)|socket hang up|NewConnectionError"
    r"|ConnectTimeoutError|ReadTimeoutError|ConnectionError|ProxyError|Max retries exceeded|name resolution"
    r"|Connection refused|Connection reset|timed out|SSLError|CERTIFICATE|error sending request|tcp connect error"
    r"|dns error|Failed to fetch|Request failed after|self[- ]signed certificate",
    re.IGNORECASE,
)
_SPACE: Final = re.compile(r"ENOSPC|No space left|EDQUOT|ENOMEM|Cannot allocate", re.IGNORECASE)
_ABSENT: Final = re.compile(
    r"ETARGET|E404|notarget|No matching version|No matching distribution|no version of"
    r"|not found in the package registry|Could not find a version",
    re.IGNORECASE,
)
_NO_WHEEL: Final = re.compile(
    r"no usable wheels|has no wheels|building from source is disabled|only-binary|no-build", re.I
)
_NO_VENV: Final = re.compile(r"ensurepip is not available|No module named (?:'?venv|'?ensurepip|'?pip)", re.IGNORECASE)


def last_words(lines: Sequence[str]) -> str:
    """The lines that name a cause that is known, else the last that say something."""
    said = [_ESCAPES.sub("", line).strip() for line in lines]
    telling = [line for line in said if line and not _CHATTER.match(line)] or [line for line in said if line]
    causes = [line for line in telling if any(kind.search(line) for kind in (_NETWORK, _SPACE, _ABSENT, _NO_WHEEL))]
    return "; ".join(line[:LONGEST] for line in causes[:LINES] or telling[-LINES:])


def explain(package: Package, lines: Sequence[str], ended: str) -> SpawnError:
    """The error for an installation that failed; `ended` is how the installer did.

    `resources`: another try may go well, so the restart rules count. `exec`: it would end the same.
    """
    text = "\n".join(lines)
    words = last_words(lines) or "it said nothing"
    result, remedy = _judged(package, text)
    return SpawnError(result, f"{package} could not be installed ({ended}): {words}; {remedy}")


def _judged(package: Package, text: str) -> tuple[SpawnResult, str]:
    tool = "npm" if package.registry == "npm" else "pip or uv"
    if _SPACE.search(text):
        return "resources", "make room below daemon.state_dir"
    if _NETWORK.search(text):
        return "resources", f"is the network up, and {tool} configured for it (proxy, registry, certificates)?"
    if _NO_VENV.search(text):
        return "exec", "install uv, or your distribution's python3-venv"
    if _NO_WHEEL.search(text):
        return "exec", "it has to be built: if you trust it to run its own programs, set install_scripts = true"
    if _ABSENT.search(text):
        ask = f"npm view {package.name} versions" if package.registry == "npm" else f"pip index versions {package.name}"
        return "exec", f"is there such a package, and such a version? `{ask}` tells"
    return "exec", "its whole output is in the server's log (`mcpctl logs`)"
