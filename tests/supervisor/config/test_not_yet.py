"""The table of what is not built: each entry lets today's behaviour through and nothing else."""

import pytest

from mcpd.config.not_yet import NOT_YET, NotYet, not_yet
from mcpd.config.registry import LimitsSpec, SandboxSettings, SandboxSpec, ServerSpec, ViewSpec
from mcpd.config.settings import DaemonSettings, FrontdoorSettings

MODELS = {
    ("daemon",): DaemonSettings,
    ("frontdoor",): FrontdoorSettings,
    ("sandbox",): SandboxSettings,
    ("views", "*"): ViewSpec,
    ("servers", "*"): ServerSpec,
    ("servers", "*", "sandbox"): SandboxSpec,
    ("servers", "*", "limits"): LimitsSpec,
}


@pytest.mark.parametrize("path", NOT_YET, ids=".".join)
def test_entry_names_a_key_of_the_dialect_and_accepts_its_default(path):
    field = None if path[-1] == "*" else MODELS[path[:-1]].model_fields[path[-1]]

    if field is not None and field.default not in (None, "dynamic"):
        assert NOT_YET[path].accepts(field.default)


def found(prefix, data):
    return [path for path, _ in not_yet(prefix, data)]


@pytest.fixture
def table(monkeypatch):
    """A table of its own, since what is in the real one comes to be built."""
    entries = {
        ("daemon", "depth"): NotYet("depth", "use 1", lambda value: type(value) is int and value == 1),
        ("servers", "*", "magic"): NotYet("magic", "remove the key", lambda value: False),
    }
    monkeypatch.setattr("mcpd.config.not_yet.NOT_YET", entries)


def test_keys_are_found_at_their_depth(table):
    data = {"daemon": {"depth": 2, "log_level": "info"}, "servers": {"x": {"instances": 2, "magic": "yes"}}}

    assert found((), data) == [("daemon", "depth"), ("servers", "x", "magic")]


def test_value_is_compared_with_its_type(table):
    assert found(("daemon",), {"depth": True}) == [("daemon", "depth")]
    assert found(("daemon",), {"depth": 1}) == []
