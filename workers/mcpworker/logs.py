"""Log output of the framework: loggers `FastMCP.*`, on stderr, so that the protocol stream stays clean."""

import logging
import sys

__all__ = ["configure_logging", "get_logger"]

_ROOT = "FastMCP"


def get_logger(name: str) -> logging.Logger:
    """The logger of `name` below `FastMCP`."""
    return logging.getLogger(f"{_ROOT}.{name}")


class _StderrHandler(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to whatever `sys.stderr` is now, so that redirecting it works at any time."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self):  # type: ignore[no-untyped-def]
        return sys.stderr

    @stream.setter
    def stream(self, value: object) -> None:
        pass


def configure_logging(level: str | int = "INFO") -> None:
    """Let `FastMCP.*` write to stderr from `level` on; calling it again changes the level only."""
    logger = logging.getLogger(_ROOT)
    logger.setLevel(level)
    if not any(isinstance(handler, _StderrHandler) for handler in logger.handlers):
        handler = _StderrHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-8s %(name)s: %(message)s"))
        logger.addHandler(handler)
    logger.propagate = False
