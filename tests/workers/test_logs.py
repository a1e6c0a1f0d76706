"""The framework's log."""

import io
import logging
import sys

import pytest

from mcpworker import FastMCP
from mcpworker.logs import _StderrHandler, configure_logging, get_logger


def test_it_goes_to_whatever_standard_error_is_now(monkeypatch: pytest.MonkeyPatch) -> None:
    configure_logging("INFO")
    for _ in range(2):
        stream = io.StringIO()
        monkeypatch.setattr(sys, "stderr", stream)
        get_logger("test").info("a %s", "word")
        assert stream.getvalue().endswith(" INFO     FastMCP.test: a word\n")


def test_level_is_that_of_the_server_made_last() -> None:
    try:
        FastMCP("x", log_level="ERROR")
        assert not get_logger("test").isEnabledFor(logging.WARNING)
    finally:
        FastMCP("x", log_level="INFO")
    assert get_logger("test").isEnabledFor(logging.INFO)


def test_other_logs_are_left_alone() -> None:
    handlers, level = list(logging.getLogger().handlers), logging.getLogger().level
    configure_logging("DEBUG")
    configure_logging("INFO")

    assert (logging.getLogger().handlers, logging.getLogger().level) == (handlers, level)
    ours = [handler for handler in logging.getLogger("FastMCP").handlers if isinstance(handler, _StderrHandler)]
    assert len(ours) == 1
