"""How an end is told, word by word."""

from __future__ import annotations

import pytest

from mcpd.process.exits import ExitStatus, from_bubblewrap


@pytest.mark.parametrize(
    ("status", "result", "text"),
    [
        (ExitStatus(code=0), "success", "exit code 0"),
        (ExitStatus(code=3), "exit-code", "exit code 3"),
        (ExitStatus(signal=9), "signal", "killed by SIGKILL"),
        (ExitStatus(signal=11, core=True), "core-dump", "killed by SIGSEGV, core dumped"),
        (ExitStatus(signal=40), "signal", "killed by signal 40"),
        (ExitStatus(code=127, failure="exec", detail="x: not found"), "exec", "could not be executed: x: not found"),
        (ExitStatus(code=1, failure="sandbox", detail="no"), "sandbox", "the sandbox failed: no"),
        (ExitStatus(code=1, failure="resources", detail="no"), "resources", "could not be started: no"),
    ],
)
def test_status_has_one_of_systemds_words(status: ExitStatus, result: str, text: str) -> None:
    assert status.result == result
    assert str(status) == text


@pytest.mark.parametrize(
    ("wrapper", "reported", "stderr", "expected"),
    [
        (ExitStatus(code=7), 7, b"", ExitStatus(code=7)),
        (ExitStatus(code=0), 0, b"", ExitStatus(code=0)),
        (ExitStatus(code=137), 137, b"", ExitStatus(signal=9)),
        (ExitStatus(code=255), 255, b"", ExitStatus(code=255)),
        (ExitStatus(signal=9), None, b"", ExitStatus(signal=9)),
        (
            ExitStatus(code=1),
            None,
            b"hello\nbwrap: execvp node: No such file or directory\n",
            ExitStatus(code=1, failure="exec", detail="node: No such file or directory"),
        ),
        (
            ExitStatus(code=1),
            None,
            b"bwrap: Can't chdir to /x: No such file or directory\n",
            ExitStatus(code=1, failure="exec", detail="Can't chdir to /x: No such file or directory"),
        ),
        (
            ExitStatus(code=1),
            None,
            b"bwrap: setting up uid map: Permission denied\n",
            ExitStatus(code=1, failure="sandbox", detail="setting up uid map: Permission denied"),
        ),
        (
            ExitStatus(code=1),
            None,
            b"",
            ExitStatus(code=1, failure="sandbox", detail="bubblewrap ended with exit code 1 and said nothing"),
        ),
        (ExitStatus(code=143), None, b"", ExitStatus(signal=15)),
        (
            ExitStatus(code=127),
            127,
            b"mcpd-exec: 1: exec: node: not found\n",
            ExitStatus(code=127, failure="exec", detail="node: not found"),
        ),
        (
            ExitStatus(code=126),
            126,
            b"mcpd-exec: line 1: /x: Permission denied\n",
            ExitStatus(code=126, failure="exec", detail="/x: Permission denied"),
        ),
        (
            ExitStatus(code=1),
            None,
            b"bwrap: Creating new namespace failed: Resource temporarily unavailable\n",
            ExitStatus(
                code=1,
                failure="resources",
                detail="Creating new namespace failed: Resource temporarily unavailable",
            ),
        ),
        (ExitStatus(code=127), 127, b"mcpd-exec: 1: exec: x: not found\nmore\n", ExitStatus(code=127)),
        (ExitStatus(code=5), 5, b"mcpd-exec: 1: exec: node: not found\n", ExitStatus(code=5)),
    ],
)
def test_bubblewraps_report_is_read_back(
    wrapper: ExitStatus, reported: int | None, stderr: bytes, expected: ExitStatus
) -> None:
    assert from_bubblewrap(wrapper, reported, stderr) == expected
