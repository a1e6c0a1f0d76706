"""The daemon's own log: events with fields, on stderr (or a file), for people or as JSON lines."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, TextIO


@contextmanager
def _without(package: str) -> Iterator[None]:
    """Let no module that is imported meanwhile import this package, unless it is there already."""
    hidden = sys.modules.setdefault(package, None)  # type: ignore[arg-type]  # documented: the import fails
    try:
        yield
    finally:
        if hidden is None:
            del sys.modules[package]


with _without("rich"):  # only for tracebacks on a terminal; it would cost the daemon 4 MiB, and 40 ms of its start
    import structlog

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
Format = Literal["auto", "console", "json"]


def configure(level: str, log_format: Format, stream: TextIO | None = None) -> None:
    """Set up structlog and the standard library's root logger; "auto" means console on a terminal, else JSON lines."""
    out = stream or sys.stderr
    as_json = log_format == "json" or (log_format == "auto" and not out.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True)
        if as_json
        else structlog.processors.TimeStamper("%H:%M:%S"),
    ]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if as_json
        else structlog.dev.ConsoleRenderer(
            colors=out.isatty(),
            exception_formatter=structlog.dev.plain_traceback,  # others show local variables, so secrets too
        )
    )
    exceptions: list[structlog.typing.Processor] = [structlog.processors.format_exc_info] if as_json else []
    structlog.configure(
        processors=[*shared, *exceptions, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(out),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processor=renderer, foreign_pre_chain=shared))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(LEVELS[level], logging.WARNING))  # libraries: only what matters
