"""Directories and settings that come from the environment."""

import os
import pwd
from pathlib import Path

import pytest

from mcpd.config.environment import config_home, directories, home, overrides, variable
from mcpd.config.report import Report

CONFIG = Path("/etc/mcpd")


def test_directories_follow_the_xdg_specification():
    environ = {"HOME": "/h", "XDG_STATE_HOME": "/state", "XDG_RUNTIME_DIR": "/run/user/1", "XDG_CONFIG_HOME": "/c"}

    assert directories(environ, CONFIG) == {
        "state_dir": "/state/mcpd",
        "runtime_dir": "/run/user/1/mcpd",
        "secrets_dir": "/etc/mcpd/secrets",
    }
    assert config_home(environ) == Path("/c")


@pytest.mark.parametrize("environ", [{"HOME": "/h"}, {"HOME": "/h", "XDG_STATE_HOME": "rel", "XDG_RUNTIME_DIR": "rel"}])
def test_directories_without_the_variables(environ):
    assert directories(environ, CONFIG) == {
        "state_dir": "/h/.local/state/mcpd",
        "runtime_dir": f"/tmp/mcpd-{os.getuid()}",
        "secrets_dir": "/etc/mcpd/secrets",
    }
    assert config_home(environ) == Path("/h/.config")


def test_directories_of_systemd_come_first():
    environ = {"HOME": "/h", "XDG_STATE_HOME": "/x", "XDG_RUNTIME_DIR": "/x"}
    environ |= {"STATE_DIRECTORY": "/var/lib/mcpd:/var/lib/more", "RUNTIME_DIRECTORY": "/run/mcpd"}
    environ |= {"CREDENTIALS_DIRECTORY": "/run/credentials/mcpd.service", "LOGS_DIRECTORY": "/var/log/mcpd"}

    assert directories(environ, CONFIG) == {
        "state_dir": "/var/lib/mcpd",
        "runtime_dir": "/run/mcpd",
        "secrets_dir": "/run/credentials/mcpd.service",
        "logs_dir": "/var/log/mcpd",
    }


def test_home_without_the_variable_is_that_of_the_user_database():
    assert home({}) == Path(pwd.getpwuid(os.getuid()).pw_dir)


def said(table, **environ):
    report = Report()
    found = overrides(table, environ, report)
    return found, [(problem.key, problem.message) for problem in report.problems]


def test_values_have_the_types_of_toml():
    found, problems = said(
        "frontdoor",
        MCPD_FRONTDOOR__PORT="8080",
        MCPD_FRONTDOOR__AUTH="none",
        MCPD_FRONTDOOR__CALL_TIMEOUT="90",
        MCPD_FRONTDOOR__ALLOWED_HOSTS='["a"]',
        MCPD_FRONTDOOR__PROT="1",
    )

    assert problems == []
    assert found == {"port": 8080, "auth": "none", "call_timeout": "90", "allowed_hosts": ["a"], "prot": "1"}


def test_booleans_are_read():
    assert said("daemon", MCPD_DAEMON__WATCH="false") == ({"watch": False}, [])


def test_other_variables_are_left_alone():
    assert said("daemon", MCPD_FRONTDOOR__PORT="1", MCPD_CONFIG="/x", MCPD_DAEMON="x", PATH="/bin") == ({}, [])


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("MCPD_FRONTDOOR__PORT", "many", "expected an integer, found 'many'"),
        ("MCPD_FRONTDOOR__ALLOWED_HOSTS", "a,b", "expected JSON"),
    ],
)
def test_value_of_the_wrong_type_is_a_problem_of_its_variable(name, value, message):
    assert said("frontdoor", **{name: value}) == ({}, [(name, message)])


def test_boolean_of_the_wrong_type_is_a_problem():
    assert said("daemon", MCPD_DAEMON__WATCH="ja") == ({}, [("MCPD_DAEMON__WATCH", "expected a boolean, found 'ja'")])


def test_variable_is_named_as_it_is_spelt():
    assert variable("daemon", "watch", {"mcpd_daemon__watch": "1"}) == "mcpd_daemon__watch"
    assert variable("daemon", "watch", {}) == "MCPD_DAEMON__WATCH"


def test_user_without_a_name_has_a_home_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000_000)

    assert home({}) == Path("/")
    assert home({"HOME": "/srv/x"}) == Path("/srv/x")
