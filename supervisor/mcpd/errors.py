"""The errors of mcpd on one page, split by who has to act.

McpdError
├── ConfigError      the operator: the registry or a setting is wrong; `problems` lists all of them
├── SpawnError       the operator: a process could not be started at all (`result` in systemd's words)
├── NotFound         the caller: no server, view or session of that name
├── ClientFault      the client: what it sent cannot be served as it is
├── ServerFault      the server: it is not there, broke the protocol, or did not answer
│   └── CallTimeout  ... within the time that the call had
└── Overloaded       nobody's fault: a bound was reached; try again after `retry_after` seconds
    └── TooMany      ... a bound that this client has for itself

Only the edges turn these into HTTP statuses, JSON-RPC codes and exit codes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


class McpdError(Exception):
    """Base of every error that mcpd raises on purpose; its text is fit to be shown, `remedy` says what to do."""

    remedy = ""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong in the configuration: where it stands, what it is, what to do."""

    file: Path | None
    line: int | None
    key: str
    message: str
    remedy: str

    def __str__(self) -> str:
        where = ":".join(str(part) for part in (self.file, self.line) if part is not None)
        place = f"{where}: {self.key}" if where and self.key else where or self.key
        text = f"{place}: {self.message}" if place else self.message
        return f"{text}; {self.remedy}" if self.remedy else text


class ConfigError(McpdError):
    """The configuration cannot be used; nothing of it was applied."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


SpawnResult = Literal["exec", "sandbox", "resources"]


class SpawnError(McpdError):
    """A process could not be started; `result` says which part failed."""

    def __init__(self, result: SpawnResult, message: str) -> None:
        super().__init__(message)
        self.result: SpawnResult = result


class NotFound(McpdError):
    """There is no server, view or session of that name."""

    def __init__(self, message: str = "", remedy: str = "") -> None:
        super().__init__(message)
        self.remedy = remedy


class ClientFault(McpdError):
    """What the client sent cannot be served; sending it again unchanged will not help."""

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.remedy = remedy


class ServerFault(McpdError):
    """The server is not running, left in the middle, or broke the protocol."""


class CallTimeout(ServerFault):
    """The server did not answer within the time that the call had."""


class Overloaded(McpdError):
    """A bound (queue, sessions, calls in flight) is reached; nothing was sent. `limit` names it in the metrics."""

    def __init__(self, message: str, retry_after: float = 1.0, limit: str = "") -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.limit = limit


class TooMany(Overloaded):
    """A bound of one client is reached: others can go on."""
