"""Errors as answers: the table has every error of the tree."""

from __future__ import annotations

import inspect

import pytest

from mcpd import errors
from mcpd.control.faults import FAULTS, fault_of
from mcpd.errors import CallTimeout, ConfigError, McpdError, Problem, ServerFault

TREE = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, McpdError)]


def test_the_table_is_complete() -> None:
    assert set(FAULTS) == set(TREE)
    assert len(TREE) >= 8


@pytest.mark.parametrize("kind", TREE)
def test_each_has_a_status_of_its_side_and_says_what_to_do(kind: type[McpdError]) -> None:
    status, remedy = FAULTS[kind]

    assert 400 <= status < 600
    assert remedy


def test_a_kind_that_others_derive_is_answered_as_its_parent() -> None:
    class Elsewhere(CallTimeout):
        pass

    assert fault_of(Elsewhere("too slow"))[0] == 504
    assert fault_of(Elsewhere("too slow"))[1].kind == "CallTimeout"
    assert fault_of(ServerFault("gone"))[0] == 502


def test_a_config_error_brings_all_its_problems() -> None:
    status, fault = fault_of(ConfigError(Problem(None, None, "a", "is bad", "mend it"), Problem(None, 3, "b", "x", "")))

    assert status == 422
    assert fault.problems == ("a: is bad; mend it", "3: b: x")
