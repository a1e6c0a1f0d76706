"""Which last words are taken for those of a limit; that the kernel brings them about: see `sandbox/test_boxes.py`."""

from __future__ import annotations

import pytest

from mcpd.config.registry import LimitsSpec
from mcpd.process.exits import ExitStatus
from mcpd.process.oversteps import ended_at_limit
from mcpd.sandbox.limits import NO_LIMITS, limits

KEPT = limits(LimitsSpec(), controllers=frozenset(), counts_processes=True)
WATCHED = limits(LimitsSpec(), controllers=frozenset(), counts_processes=False)


@pytest.mark.parametrize(
    ("words", "limit"),
    [
        (b"OSError: [Errno 24] Too many open files: '/dev/null'\n", "nofile"),
        (b"Error: EMFILE: too many open files, open '/x'\n\nNode.js v20.19.2\n", "nofile"),
        (b"OSError: [Errno 27] File too large\n", "fsize"),
        (b"RuntimeError: can't start new thread\n", "pids"),
        (b"sh: 1: Cannot fork\n", "pids"),
        (b"bash: fork: retry: Resource temporarily unavailable\n", "pids"),
        (b"Error: spawn /bin/true EAGAIN\n    at x\n  errno: -11\n}\n\nNode.js v20.19.2\n", "pids"),
        (b"MemoryError\n", "memory"),
    ],
)
def test_last_words_name_the_limit(words: bytes, limit: str) -> None:
    found = ended_at_limit(ExitStatus(code=1), KEPT, b"started\n" + words)

    assert (found.result, found.code) == ("resources", 1)
    assert found.detail.startswith(f"{limit}: limit ")


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (ExitStatus(code=0), b"MemoryError\n"),
        (ExitStatus(code=1), b"OSError: [Errno 24] Too many open files\nso it gives up\n"),
        (ExitStatus(code=1), b""),
        (ExitStatus(signal=6), b"FATAL ERROR: Reached heap limit Allocation failed - JavaScript heap out of memory\n"),
        (ExitStatus(code=1, failure="exec", detail="x"), b"MemoryError\n"),
    ],
)
def test_other_ends_stay_what_they_are(status: ExitStatus, words: bytes) -> None:
    assert ended_at_limit(status, KEPT, words) is status


def test_a_limit_that_is_not_kept_by_refusing_is_no_reason() -> None:
    status = ExitStatus(code=1)

    assert ended_at_limit(status, WATCHED, b"sh: 1: Cannot fork\n") is status
    assert ended_at_limit(status, NO_LIMITS, b"MemoryError\n") is status
