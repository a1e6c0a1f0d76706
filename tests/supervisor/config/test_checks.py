"""Rules about several keys or tables at once; the wording is asserted in test_load."""

import grp
import itertools
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpd.config.checks import (
    check_after,
    check_daemon,
    check_frontdoor,
    check_separator,
    check_tls,
    is_loopback,
    limit_can_be_hit,
)
from mcpd.config.registry import ServerSpec
from mcpd.config.settings import DaemonSettings, FrontdoorSettings


@pytest.mark.parametrize(
    ("keys", "possible"),
    [
        ({}, True),
        ({"start_limit_burst": 1}, True),
        ({"start_limit_burst": 60, "restart_max_delay": "1m", "start_limit_interval": "10m"}, False),
        ({"start_limit_burst": 60, "restart_max_delay": "10s", "start_limit_interval": "10m"}, True),
        (
            {"start_limit_burst": 3, "restart_delay": "10s", "restart_max_delay": "10s", "start_limit_interval": 9},
            False,
        ),
        (
            {"start_limit_burst": 3, "restart_delay": "10s", "restart_max_delay": "10s", "start_limit_interval": 10},
            True,
        ),
    ],
)
def test_limit_that_the_delays_keep_out_of_reach_is_found(keys, possible):
    assert limit_can_be_hit(ServerSpec(name="x", **keys)) is possible


@given(st.dictionaries(st.sampled_from("abcdef"), st.sets(st.sampled_from("abcdef")), max_size=6))
def test_cycle_is_told_exactly_if_there_is_one(graph):
    specs = [ServerSpec(name=name, after=sorted(others - {name})) for name, others in graph.items()]
    names = set("abcdef")

    found = [finding.message for _, finding in check_after(specs, names)]

    assert bool(found) is _has_cycle({spec.name: spec.after for spec in specs})
    for message in found:
        chain = message.partition(": ")[2].split(" after ")
        assert chain[0] == chain[-1]
        assert all(second in graph[first] for first, second in itertools.pairwise(chain))


def _has_cycle(graph):
    """Whether something is left when all that waits for nothing is taken away, again and again."""
    left = dict(graph)
    while ready := [name for name, others in left.items() if not any(other in left for other in others)]:
        for name in ready:
            del left[name]
    return bool(left)


def test_very_long_chain_needs_no_deep_stack():
    specs = [ServerSpec(name=f"s{number}", after=(f"s{number + 1}",)) for number in range(3000)]

    assert list(check_after(specs, {f"s{number}" for number in range(3001)})) == []


def test_socket_paths_have_to_fit():
    def keys(length):
        runtime = Path("/" + "x" * (length - len("/control.sock") - 1))
        settings = DaemonSettings(state_dir="/s", runtime_dir=runtime, secrets_dir="/k")
        return [finding.key for finding in check_daemon(settings)]

    assert keys(107) == []
    assert keys(108) == [("runtime_dir",)]


def test_a_socket_goes_to_a_group_that_is_there_and_that_one_may_give_it_to(monkeypatch):
    def found(**groups):
        settings = DaemonSettings(state_dir="/s", runtime_dir="/r", secrets_dir="/k", **groups)
        return [(finding.key, finding.message) for finding in check_daemon(settings)]

    here = grp.getgrgid(os.getgid()).gr_name
    assert found(client_group=here, operator_group=str(os.getgid())) == []
    assert found(client_group="no-such-group") == [(("client_group",), "there is no group 'no-such-group'")]
    monkeypatch.setattr(os, "geteuid", lambda: 61803)
    assert found(client_group=here) == []
    ((key, message),) = found(operator_group="61802")
    assert (key, message) == (("operator_group",), "only members of group '61802', and root, can give it a socket")


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {
            "allowed_origins": ("https://a.example", "http://b:80", "vscode-webview://x"),
            "allowed_hosts": ("a:*", "[::1]:80"),
        },
        {"tls_cert": "/c", "tls_key": "/k"},
        {"tls_cert": "/c", "tls_key": "/k", "host": "0.0.0.0"},
        {"trusted_proxy": ("10.0.0.1", "10.1.0.0/16", "fd00::/8"), "host": "::"},
        {"auth": "none", "host": "::1"},
        {"auth": "jwt", "jwt": {"issuer": "i", "audience": "a", "jwks": "https://k", "scopes": {"a:b": "*"}}},
        {"auth": "jwt", "jwt": {"issuer": "i", "audience": "a", "jwks": "/keys.json", "resource": "https://r/x"}},
    ],
)
def test_front_door_that_is_fine(keys):
    assert list(check_frontdoor(FrontdoorSettings(**keys))) == []


@pytest.mark.parametrize(
    ("keys", "where"),
    [
        ({"tls_cert": "/c"}, ("tls_cert",)),
        ({"tls_key": "/k"}, ("tls_key",)),
        ({"allowed_origins": ("example.org",)}, ("allowed_origins", 0)),
        ({"allowed_hosts": ("a", "*")}, ("allowed_hosts", 1)),
        ({"allowed_hosts": ("http://a",)}, ("allowed_hosts", 0)),
        ({"max_call_time": 1}, ("max_call_time",)),
        ({"host": "0.0.0.0"}, ("host",)),
        ({"host": "mcp.example"}, ("host",)),
        ({"host": "0.0.0.0", "auth": "none", "tls_cert": "/c", "tls_key": "/k"}, ("auth",)),
        ({"trusted_proxy": ("10.0.0.1", "proxy")}, ("trusted_proxy", 1)),
        ({"trusted_proxy": ("127.0.0.1",), "auth": "none"}, ("auth",)),
        ({"auth": "jwt", "jwt": {"issuer": "i", "audience": "a"}}, ("jwt", "jwks")),
        ({"auth": "jwt", "jwt": {"audience": "a", "jwks": "/k"}}, ("jwt", "issuer")),
        ({"auth": "jwt", "jwt": {"issuer": "i", "jwks": "/k"}}, ("jwt", "audience")),
        ({"auth": "jwt", "jwt": {"issuer": "i", "audience": "a", "jwks": "http://k"}}, ("jwt", "jwks")),
        ({"auth": "jwt", "jwt": {"issuer": "i", "audience": "a", "jwks": "/k", "resource": "x"}}, ("jwt", "resource")),
        (
            {"auth": "jwt", "jwt": {"issuer": "i", "audience": "a", "jwks": "/k", "scopes": {"a b": "*"}}},
            ("jwt", "scopes", "a b"),
        ),
    ],
)
def test_front_door_that_is_not_fine(keys, where):
    assert [finding.key for finding in check_frontdoor(FrontdoorSettings(**keys))] == [where]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback(host):
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.1", "example.org", "", "localhost.example.org"])
def test_not_loopback(host):
    assert not is_loopback(host)


def test_certificates_have_to_be_there(tmp_path):
    (tmp_path / "cert").touch()
    settings = FrontdoorSettings(tls_cert=tmp_path / "cert", tls_key=tmp_path / "key")

    assert [finding.key for finding in check_tls(settings)] == [("tls_key",)]


def test_dash_between_server_and_tool_is_a_warning_where_it_is_ambiguous():
    assert list(check_separator("__", ["a", "a-b"])) == []
    assert list(check_separator("-", ["a", "b"])) == []
    assert [finding.fatal for finding in check_separator("-", ["a", "a-b"])] == [False]
