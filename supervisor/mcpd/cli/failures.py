"""How the tools end: exit codes, and errors as text on stderr."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any, Final

import typer
from typer.core import TyperGroup

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
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="replace")  # a terminal that has no arrows gets question marks
        return super().main(*arguments, **options)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            # Whoever read our output has seen enough; Python's own flush at exit must not complain of it either.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(FAILED) from None
        except McpdError as error:
            complain(str(ctx.info_name), error)
            raise typer.Exit(exit_code(error)) from None
        except OSError as error:
            name = f"{error.filename}: " if error.filename else ""
            complain(str(ctx.info_name), Failed(f"{name}{error.strerror or error}"))
            raise typer.Exit(FAILED) from None


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
