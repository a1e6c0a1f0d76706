"""What happens to an instance."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Result(StrEnum):
    """Why it ended, in systemd's words (systemd.exec(5), `$SERVICE_RESULT`) and one of our own."""

    SUCCESS = "success"
    EXIT_CODE = "exit-code"
    SIGNAL = "signal"
    CORE_DUMP = "core-dump"
    TIMEOUT = "timeout"
    WATCHDOG = "watchdog"
    START_LIMIT_HIT = "start-limit-hit"
    OOM_KILL = "oom-kill"
    RESOURCES = "resources"
    PROTOCOL = "protocol"
    EXEC = "exec"
    SANDBOX = "sandbox"
    UNEXPECTED_EXIT = "unexpected-exit"  # exit 0 while it should run: for a stdio server that is a failure


@dataclass(frozen=True, slots=True)
class Event:
    """Something happened at `at` (monotonic seconds)."""

    at: float


@dataclass(frozen=True, slots=True)
class Start(Event):
    """It is wanted. `asked`: by a person, so past failures do not count any more; `why` is for people."""

    asked: bool = False
    why: str = "wanted by the registry"


@dataclass(frozen=True, slots=True)
class Restart(Event):
    """A person wants it ended and started; `why` is told to those whose calls are cut."""

    why: str = "restarted by the operator"


@dataclass(frozen=True, slots=True)
class Stop(Event):
    """It is not wanted."""

    why: str = "stopped by the operator"


@dataclass(frozen=True, slots=True)
class Disable(Event):
    """The registry switches it off."""

    why: str = "disabled in the registry"


@dataclass(frozen=True, slots=True)
class Rest(Event):
    """Nothing of it need run until it is used; `why` is for people."""

    why: str = "not used for a while"


@dataclass(frozen=True, slots=True)
class Reset(Event):
    """Past failures do not count any more."""


@dataclass(frozen=True, slots=True)
class Spawned(Event):
    """The process runs."""


@dataclass(frozen=True, slots=True)
class SpawnFailed(Event):
    """There is no process; `result` is exec, sandbox or resources."""

    result: Result
    message: str


@dataclass(frozen=True, slots=True)
class Initialized(Event):
    """The handshake is done and the lists are known."""


@dataclass(frozen=True, slots=True)
class Unready(Event):
    """It should get no new calls."""

    why: str


@dataclass(frozen=True, slots=True)
class Readied(Event):
    """It may get calls again."""


@dataclass(frozen=True, slots=True)
class Condemned(Event):
    """It runs, but has to go: a timeout, a broken protocol, no sign of life."""

    result: Result
    message: str


@dataclass(frozen=True, slots=True)
class WrongEra(Event):
    """It runs, but refuses the era in which it was spoken to: another process is to be asked in the other one. No
    failure, so it counts toward no limit."""

    why: str


@dataclass(frozen=True, slots=True)
class Exited(Event):
    """Its process has ended and was reaped; `status` is how, for people ("exit code 3")."""

    result: Result
    status: str


@dataclass(frozen=True, slots=True)
class Gone(Event):
    """Nothing of its tree is left. `forced`: it would not end before it was killed."""

    forced: bool = False


@dataclass(frozen=True, slots=True)
class Outlived(Event):
    """Something of its tree is left although all was tried."""

    message: str


@dataclass(frozen=True, slots=True)
class TimerFired(Event):
    """The time of the last `SetTimer` has come."""
