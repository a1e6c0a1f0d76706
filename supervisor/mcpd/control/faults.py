"""Errors as answers on the control socket: one table, each error once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from mcpd.control.messages import Fault
from mcpd.errors import (
    CallTimeout,
    ClientFault,
    ConfigError,
    McpdError,
    NotFound,
    Overloaded,
    ServerFault,
    SpawnError,
    TooMany,
)

FAULTS: Final[Mapping[type[McpdError], tuple[int, str]]] = {
    ConfigError: (422, "nothing was changed; mend the registry (`mcpd check` shows all problems) and try again"),
    SpawnError: (500, "see `mcpctl status NAME` and `mcpctl logs NAME`"),
    NotFound: (404, "`mcpctl list` shows all names"),
    ClientFault: (400, "`mcpctl tools NAME` shows what can be called, and with what"),
    ServerFault: (502, "see `mcpctl status NAME` and `mcpctl logs NAME`"),
    CallTimeout: (504, "give more time with --timeout, or see `mcpctl logs NAME`"),
    Overloaded: (503, "try again in a moment"),
    TooMany: (429, "wait for what is under way, then try again"),
    McpdError: (500, "see the daemon's log"),
}
"""HTTP status, and what to do."""


def fault_of(error: McpdError) -> tuple[int, Fault]:
    """Status and body for `error`, by its class or the nearest one above it; its own remedy is the better one."""
    kind = next(kind for kind in type(error).__mro__ if kind in FAULTS)
    status, remedy = FAULTS[kind]
    problems = tuple(map(str, error.problems)) if isinstance(error, ConfigError) else ()
    return status, Fault(error=str(error), remedy=error.remedy or remedy, kind=kind.__name__, problems=problems)
