"""How the tools end: exit codes, and errors as text on stderr."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any, Final

import typer
from typer.core import TyperGroup

from mcpd.cli.logstream import print_what_can_be
from mcpd.control.client import NoDaemon, Refused
from mcpd.errors import ConfigError, McpdError

FAILED: Final = 1
USAGE: Final = 2
NO_DAEMON: Final = 69  # sysexits.h: EX_UNAVAILABLE
BAD_CONFIG: Final = 78  # EX_CONFIG
INTERRUPTED: Final = 130  # 128 + SIGINT, as shells have it

EXIT_CODES: Final[Mapping[type[McpdError], int]] = {
    NoDaemon: NO_DAEMON,
    ConfigError: BAD_CONFIG,
    McpdError: FAILED,
}


class Failed(McpdError):
    """What was asked for did not work; `remedy` says what to do, `code` is the exit code."""

    def __init__(self, message: str, remedy: str = "", code: int = FAILED) -> None:
        super().__init__(message)
        self.remedy = remedy
        self.code = code


class Commands(TyperGroup):
    """A program whose errors become one message on stderr and an exit code, and never a traceback."""

    def main(self, *arguments: Any, **options: Any) -> Any:
        print_what_can_be()
        return super().main(*arguments, **options)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, McpdError, OSError) as error:
            raise typer.Exit(answer(str(ctx.info_name), error)) from None


def answer(program: str, error: BaseException) -> int:
    """Say what went wrong; returns the exit code. What is no error of the user's or the machine's is raised again."""
    match error:
        case KeyboardInterrupt():
            return INTERRUPTED
        case BrokenPipeError():
            # Whoever read our output has seen enough; Python's own flush at exit must not complain of it either.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return FAILED
        case McpdError():
            complain(program, error)
            return exit_code(error)
        case OSError():
            name = f"{error.filename}: " if error.filename else ""
            complain(program, Failed(f"{name}{error.strerror or error}"))
            return FAILED
        case _:
            raise error


def exit_code(error: McpdError) -> int:
    if isinstance(error, Failed):
        return error.code
    if isinstance(error, Refused):
        return BAD_CONFIG if error.fault.kind == "ConfigError" else FAILED
    return next(EXIT_CODES[kind] for kind in type(error).__mro__ if kind in EXIT_CODES)


def complain(program: str, error: McpdError) -> None:
    """Say on stderr what is wrong and what to do about it."""
    problems: tuple[str, ...] = ()
    remedy = ""
    if isinstance(error, Refused):
        problems, remedy = error.fault.problems, error.fault.remedy
    elif isinstance(error, ConfigError):
        problems = tuple(map(str, error.problems))
    elif isinstance(error, Failed):
        remedy = error.remedy
    lines = [f"{program}: {text}" for text in problems or str(error).splitlines() or [type(error).__name__]]
    if remedy:
        lines.append(f"  {remedy}")
    print("\n".join(lines), file=sys.stderr)  # noqa: T201 - this is where it is printed
