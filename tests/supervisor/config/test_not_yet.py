"""The table of what is not built: each entry lets today's behaviour through and nothing else."""

import pytest

from mcpd.config.not_yet import NOT_YET, is_loopback, not_yet
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


def test_keys_are_found_at_their_depth():
    data = {"servers": {"x": {"instances": 2, "era": "auto"}}, "frontdoor": {"auth": "jwt"}}

    assert found((), data) == [("servers", "x", "instances"), ("frontdoor", "auth")]


def test_value_is_compared_with_its_type():
    assert found(("servers", "x"), {"instances": True}) == [("servers", "x", "instances")]
    assert found(("servers", "x"), {"instances": 1}) == []


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback(host):
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.1", "example.org", "", "localhost.example.org", 5, None])
def test_not_loopback(host):
    assert not is_loopback(host)
