"""The daemon's own log: what it may not tell."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Literal

import pytest
import structlog

from mcpd import logs


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    handlers, level = logging.getLogger().handlers[:], logging.getLogger().level
    yield
    structlog.reset_defaults()
    logging.getLogger().handlers[:] = handlers
    logging.getLogger().setLevel(level)


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_a_traceback_shows_no_values(log_format: Literal["console", "json"]) -> None:
    stream = io.StringIO()
    logs.configure("info", log_format, stream)
    try:
        fail("".join(["s3cret", "-of-ours"]))
    except ZeroDivisionError:
        structlog.get_logger("x").exception("x.failed")
        logging.getLogger("x").exception("x.failed")
    assert stream.getvalue().count("ZeroDivisionError") >= 2
    assert "s3cret-of-ours" not in stream.getvalue()
    if log_format == "json":
        assert json.loads(stream.getvalue().splitlines()[0])["event"] == "x.failed"


def fail(value: str) -> float:
    return len(value) / 0
