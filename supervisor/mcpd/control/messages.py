"""Bodies of the control socket's requests and answers, beside the structs of `view`."""

from __future__ import annotations

from typing import Final

import msgspec

from mcpd.control.view import (
    IsolationStatus,
    PinDifference,
    PinStatus,
    ServerStatus,
    SessionStatus,
    TokenStatus,
    ToolStatus,
)

SOCKET_NAME: Final = "control.sock"
"""In the runtime directory."""


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """The body of every answer that is not 2xx. `kind`: the name of the error; `problems`: those of a ConfigError."""

    error: str
    remedy: str = ""
    kind: str = ""
    problems: tuple[str, ...] = ()


class Servers(msgspec.Struct, frozen=True):
    servers: list[ServerStatus]


class Sessions(msgspec.Struct, frozen=True):
    sessions: list[SessionStatus]


class Tools(msgspec.Struct, frozen=True):
    tools: list[ToolStatus]


class Tokens(msgspec.Struct, frozen=True):
    tokens: list[TokenStatus]


class Pins(msgspec.Struct, frozen=True):
    pins: list[PinStatus]


class PinDifferences(msgspec.Struct, frozen=True):
    differences: list[PinDifference]


class NewToken(msgspec.Struct, frozen=True):
    token: str


class ReloadRequest(msgspec.Struct, frozen=True):
    dry_run: bool = False


class UpgradeRequest(msgspec.Struct, frozen=True):
    """`version`: None for the newest."""

    version: str | None = None


class PruneRequest(msgspec.Struct, frozen=True):
    """`server`: None for the packages of all."""

    server: str | None = None


class Pruned(msgspec.Struct, frozen=True):
    packages: list[str]


class Isolations(msgspec.Struct, frozen=True):
    processes: list[IsolationStatus]


class CallRequest(msgspec.Struct, frozen=True):
    """`arguments`: a JSON object; `timeout` in seconds. The answer's body is the result as the server sent it."""

    server: str
    tool: str
    arguments: msgspec.Raw = msgspec.Raw(b"{}")
    timeout: float = 300.0


class Accepted(msgspec.Struct, frozen=True):
    """It has begun."""

    accepted: bool = True
