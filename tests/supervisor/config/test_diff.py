"""What a changed registry asks for: nothing more than it has to."""

from pathlib import Path

import pytest

from mcpd.config.diff import LIVE_KEYS, diff
from mcpd.config.registry import (
    ProbeSpec,
    ProfileSpec,
    Registry,
    RestartPolicy,
    SandboxSpec,
    Script,
    SecretRef,
    ServerSpec,
    ToolRules,
    ViewSpec,
)
from mcpd.config.settings import DaemonSettings, FrontdoorSettings

DAEMON = DaemonSettings(state_dir=Path("/s"), runtime_dir=Path("/r"), secrets_dir=Path("/k"))


def registry(*servers, daemon=DAEMON, frontdoor=None, **tables):
    return Registry(
        path=Path("/r.toml"),
        daemon=daemon,
        frontdoor=frontdoor or FrontdoorSettings(),
        servers={spec.name: spec for spec in servers},
        **tables,
    )


def spec(name="a", **keys):
    return ServerSpec(name=name, **({"command": ("sh",)} | keys))


def test_equal_registries_change_nothing():
    changes = diff(registry(spec(), spec("b")), registry(spec("b"), spec(restart="on-failure")))

    assert not changes
    assert changes.unchanged == ("b", "a")


def test_servers_come_and_go():
    changes = diff(registry(spec("old"), spec("kept")), registry(spec("kept"), spec("new")))

    assert changes
    assert (changes.added, changes.removed, changes.unchanged) == (("new",), ("old",), ("kept",))


OTHER = {
    "script": Script(file=Path("/x.py")),
    "command": ("sh", "-c", "true"),
    "python": Path("/usr/bin/python3"),
    "args": ("-v",),
    "cwd": Path("/tmp"),
    "env": {"A": SecretRef(secret="a")},
    "activation": "lazy",
    "sharing": "session",
    "instances": 2,
    "era": "handshake",
    "roots": ("file:///x",),
    "sandbox": SandboxSpec(profile="filesystem"),
    "limits": {"pids": 3},
    "package": "npm:x@1",
    "bin": "y",
    "install_scripts": True,
    "enabled": False,
    "idle_timeout": 1,
    "start_timeout": 1,
    "call_timeout": 1,
    "request_rate": 1,
    "request_burst": 1,
    "restart": RestartPolicy.NO,
    "restart_delay": 1,
    "restart_max_delay": 2,
    "restart_steps": 3,
    "stable_after": 1,
    "start_limit_burst": 1,
    "start_limit_interval": 1,
    "start_limit_action": "fail",
    "after": ("b",),
    "drain_timeout": 1,
    "stop_timeout": 1,
    "liveness": ProbeSpec(period=1),
    "readiness": ProbeSpec(period=1),
    "tools": ToolRules(deny=("x",)),
    "pin": "hold",
}


def test_every_key_of_a_server_is_in_the_table():
    assert set(OTHER) == set(ServerSpec.model_fields) - {"name"}


@pytest.mark.parametrize("key", OTHER)
def test_changed_key_restarts_the_server_unless_only_the_daemon_reads_it(key):
    changes = diff(registry(spec(), spec("b")), registry(spec(**{key: OTHER[key]}), spec("b")))

    assert changes.live == ({"a": (key,)} if key in LIVE_KEYS else {})
    assert changes.restart == ({} if key in LIVE_KEYS else {"a": (key,)})
    assert changes.unchanged == ("b",)


def test_restart_names_the_live_keys_too():
    changes = diff(registry(spec()), registry(spec(args=("x",), call_timeout=1)))

    assert changes.restart == {"a": ("args", "call_timeout")}
    assert changes.live == {}


def test_changed_profile_restarts_the_servers_that_use_it():
    old = {"mine": ProfileSpec(name="mine")}
    new = {"mine": ProfileSpec(name="mine", read=(Path("/etc"),))}
    servers = (spec(sandbox=SandboxSpec(profile="mine")), spec("b"))

    changes = diff(registry(*servers, profiles=old), registry(*servers, profiles=new))

    assert changes.restart == {"a": ("sandbox",)}
    assert changes.unchanged == ("b",)


def test_views_that_differ_are_named():
    old = {"same": ViewSpec(name="same", servers=("a",)), "gone": ViewSpec(name="gone", servers=("a",))}
    new = {"same": ViewSpec(name="same", servers=("a",)), "new": ViewSpec(name="new", servers=("a",))}

    changes = diff(registry(spec(), views=old), registry(spec(), views=new))

    assert changes
    assert changes.views == ("gone", "new")


def test_settings_need_a_new_daemon():
    old = registry()
    new = registry(daemon=DAEMON.model_copy(update={"log_level": "debug"}), frontdoor=FrontdoorSettings(port=1))

    changes = diff(old, new)

    assert changes
    assert changes.daemon == ("daemon.log_level", "frontdoor.port")
    assert changes.settings == ()


def test_settings_of_the_router_take_effect_at_once():
    changes = diff(registry(), registry(frontdoor=FrontdoorSettings(max_call_time=1, separator=".")))

    assert changes
    assert changes.settings == ("frontdoor.separator", "frontdoor.max_call_time")
    assert changes.daemon == ()
