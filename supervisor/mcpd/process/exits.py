"""How a process ended, in systemd's words (systemd.exec(5), `$SERVICE_RESULT`)."""

from __future__ import annotations

import errno
import os
import re
import signal
from typing import Literal

import msgspec

Failure = Literal["exec", "sandbox", "resources", "oom-kill", "overstep", "limit"]
Result = Literal["success", "exit-code", "signal", "core-dump", "exec", "sandbox", "resources", "oom-kill"]

EXEC_MARK = "mcpd-exec"
"""The name under which the shell runs that executes the server inside: its complaints begin with it."""
GATE_MARK = "mcpd-gate"
"""The same for the shell that waits outside."""

_EXEC_FAILED = re.compile(rb"^bwrap: (execvp .*|Can't chdir to .*)$", re.MULTILINE)
_SHELL_EXEC_FAILED = re.compile(rb"^" + EXEC_MARK.encode() + rb": (?:line )?\d+: (?:exec: )?(.*)\s*\Z", re.MULTILINE)
_SHELL_CODES = (126, 127)
_FAILURES = {
    "exec": "could not be executed",
    "sandbox": "the sandbox failed",
    "resources": "could not be started",
    "oom-kill": "killed, out of its memory",
    "overstep": "killed, over a limit",
    "limit": "ended at a limit",
}
_SHORTAGES = tuple(map(os.strerror, (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOSPC)))
"""What is said where it is no fault of the command or the sandbox, and may go well the next time."""
_BWRAP_FAILED = re.compile(rb"^bwrap: (.*)$", re.MULTILINE)
_SETPRIV_FAILED = re.compile(rb"^(setpriv: .*)\s*\Z", re.MULTILINE)
_PREPARING_FAILED = re.compile(rb"^" + EXEC_MARK.encode() + rb": (?:line )?\d+: ((?:ulimit|cd): .*)\s*\Z", re.MULTILINE)
_GATE_FAILED = re.compile(rb"^" + GATE_MARK.encode() + rb": (?:line )?\d+: (?:exec: )?(.*)\s*\Z", re.MULTILINE)
_SETUP_CODES = (1, 2, 127)


class ExitStatus(msgspec.Struct, frozen=True):
    """Exactly one of `code` and `signal` is set. `failure`: the server itself never ran, or used too much, or
    was refused more than it may have; `detail` says why."""

    code: int | None = None
    signal: int | None = None
    core: bool = False
    failure: Failure | None = None
    detail: str = ""

    @property
    def result(self) -> Result:
        if self.failure is not None:
            return "resources" if self.failure == "overstep" or self.failure == "limit" else self.failure
        if self.signal is not None:
            return "core-dump" if self.core else "signal"
        return "exit-code" if self.code else "success"

    def __str__(self) -> str:
        if self.failure is not None:
            return f"{_FAILURES[self.failure]}: {self.detail}"
        if self.signal is not None:
            return f"killed by {_signal_name(self.signal)}{', core dumped' if self.core else ''}"
        return f"exit code {self.code}"


def from_wait(info: os.waitid_result) -> ExitStatus:
    """What waitid(2) said of a process."""
    if info.si_code == os.CLD_EXITED:
        return ExitStatus(code=info.si_status)
    return ExitStatus(signal=info.si_status, core=info.si_code == os.CLD_DUMPED)


def from_bubblewrap(wrapper: ExitStatus, reported: int | None, stderr: bytes) -> ExitStatus:
    """The server's own end, from its wrapper's and from what that wrote on its status descriptor.

    bwrap(1): `exit-code` is written only if the command was executed; death by signal n is reported as 128+n. The
    command is a shell that executes the server: 126 and 127 with its complaint as the last words are its own. A wrapper
    that ended by itself without it failed before, and its last words on stderr tell at what.
    """
    if reported in _SHELL_CODES and (refused := _SHELL_EXEC_FAILED.search(stderr)):
        return failed(reported, "exec", _text(refused[1]))
    setup = _SETPRIV_FAILED.search(stderr) or _PREPARING_FAILED.search(stderr)
    if reported in _SETUP_CODES and setup:
        return failed(reported, "sandbox", _text(setup[1]))
    if reported is not None:
        number = reported - 128
        return ExitStatus(signal=number) if 0 < number < signal.NSIG else ExitStatus(code=reported)
    if wrapper.signal is not None:
        return wrapper
    executing = _EXEC_FAILED.findall(stderr)
    if executing:
        return failed(wrapper.code, "exec", _text(executing[-1]))
    words = _BWRAP_FAILED.findall(stderr) or _GATE_FAILED.findall(stderr)
    if not words and wrapper.code is not None and 0 < wrapper.code - 128 < signal.NSIG:
        return ExitStatus(signal=wrapper.code - 128)  # killed while it prepared: no fault of the sandbox
    detail = _text(words[-1]) if words else f"bubblewrap ended with exit code {wrapper.code} and said nothing"
    return failed(wrapper.code, "sandbox", detail)


def failed(code: int | None, failure: Failure, detail: str) -> ExitStatus:
    """The server never ran; where something was merely short, that is the reason."""
    return ExitStatus(code=code, failure="resources" if detail.endswith(_SHORTAGES) else failure, detail=detail)


def _text(line: bytes) -> str:
    return line.decode("utf-8", "replace").removeprefix("execvp ").strip()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
