"""Exit codes, and errors as people see them."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from mcpd import errors
from mcpd.cli.failures import Failed, complain, exit_code
from mcpd.control.client import NoDaemon, Refused
from mcpd.control.messages import Fault
from mcpd.errors import ConfigError, McpdError, NotFound, Problem, SpawnError

TREE = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, McpdError)]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NoDaemon("none"), 69),
        (ConfigError(), 78),
        (Refused(422, Fault(error="no", kind="ConfigError")), 78),
        (Refused(404, Fault(error="no", kind="NotFound")), 1),
        (Failed("no"), 1),
        (Failed("no", code=2), 2),
        (SpawnError("exec", "no"), 1),
        (NotFound("no"), 1),
    ],
)
def test_each_error_has_its_exit_code(error: McpdError, code: int) -> None:
    assert exit_code(error) == code


@pytest.mark.parametrize("kind", TREE)
def test_no_error_of_the_tree_is_without_one(kind: type[McpdError]) -> None:
    assert exit_code(kind.__new__(kind)) in (1, 78)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (Failed("it broke", "mend it"), "tool: it broke\n  mend it\n"),
        (Failed("it broke"), "tool: it broke\n"),
        (NotFound("one\ntwo"), "tool: one\ntool: two\n"),
        (NotFound(), "tool: NotFound\n"),
        (Refused(404, Fault(error="no server", remedy="see list")), "tool: no server\n  see list\n"),
        (
            Refused(422, Fault(error="x", remedy="mend", problems=("a: bad", "b: bad"))),
            "tool: a: bad\ntool: b: bad\n  mend\n",
        ),
        (
            ConfigError(Problem(Path("/r"), 1, "a", "bad", "mend"), Problem(Path("/r"), 2, "b", "bad", "")),
            "tool: /r:1: a: bad; mend\ntool: /r:2: b: bad\n",
        ),
    ],
)
def test_a_complaint_says_what_and_what_to_do(error: McpdError, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    complain("tool", error)

    assert capsys.readouterr() == ("", said)
