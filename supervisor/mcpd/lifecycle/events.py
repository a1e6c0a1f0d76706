"""What happens to an instance."""

from __future__ import annotations

from enum import StrEnum

import msgspec


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


class Event(msgspec.Struct, frozen=True):
    """Something happened at `at` (monotonic seconds)."""

    at: float


class Start(Event, frozen=True):
    """It is wanted. `asked`: by a person, so past failures do not count any more; `why` is for people."""

    asked: bool = False
    why: str = "wanted by the registry"


class Restart(Event, frozen=True):
    """A person wants it ended and started; `why` is told to those whose calls are cut."""

    why: str = "restarted by the operator"


class Stop(Event, frozen=True):
    """It is not wanted."""

    why: str = "stopped by the operator"


class Disable(Event, frozen=True):
    """The registry switches it off."""

    why: str = "disabled in the registry"


class Rest(Event, frozen=True):
    """Nothing of it need run until it is used; `why` is for people."""

    why: str = "not used for a while"


class Reset(Event, frozen=True):
    """Past failures do not count any more."""


class Spawned(Event, frozen=True):
    """The process runs."""


class SpawnFailed(Event, frozen=True):
    """There is no process; `result` is exec, sandbox or resources."""

    result: Result
    message: str


class Initialized(Event, frozen=True):
    """The handshake is done and the lists are known."""


class Unready(Event, frozen=True):
    """It should get no new calls."""

    why: str


class Readied(Event, frozen=True):
    """It may get calls again."""


class Condemned(Event, frozen=True):
    """It runs, but has to go: a timeout, a broken protocol, no sign of life."""

    result: Result
    message: str


class WrongEra(Event, frozen=True):
    """It runs, but refuses the era in which it was spoken to: another process is to be asked in the other one. No
    failure, so it counts toward no limit."""

    why: str


class Exited(Event, frozen=True):
    """Its process has ended and was reaped; `status` is how, for people ("exit code 3")."""

    result: Result
    status: str


class Gone(Event, frozen=True):
    """Nothing of its tree is left. `forced`: it would not end before it was killed."""

    forced: bool = False


class Outlived(Event, frozen=True):
    """Something of its tree is left although all was tried."""

    message: str


class TimerFired(Event, frozen=True):
    """The time of the last `SetTimer` has come."""
