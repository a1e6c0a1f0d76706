"""Servers that cannot start, each in its own way, beside one that can: only they have trouble."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

import pytest

from e2e.clients import SERVERS
from e2e.raw import call, http, request
from support.daemon import CHILDREN, Daemon, python_server, running, wait_for

SOON = 10.0  # seconds in which a good server is READY whatever the others do, on a machine that is busy
PROMPT = 2.0  # seconds for an answer that has nothing to wait for
KEYS = {"restart_delay": '"20ms"', "restart_max_delay": '"200ms"', "start_limit_burst": "3"}
REGISTRY = (
    '[servers.missing]\ncommand = ["/no/such/program"]\n'
    f'[servers.closed]\ncommand = ["{CHILDREN / "mcp_peer.py"}"]\n'
    f'[servers.crashes]\ncommand = ["{sys.executable}", "-c", "import sys; sys.exit(\'out of luck\')"]\n'
    + "".join(f"{key} = {value}\n" for key, value in KEYS.items())
    + 'start_limit_action = "fail"\n'
    + python_server("hangs", CHILDREN / "mcp_silent.py", start_timeout='"1h"', stop_timeout='"200ms"')
    + python_server("slow", CHILDREN / "mcp_silent.py", start_timeout='"500ms"', stop_timeout='"200ms"', restart='"no"')
    + f'[servers.babbles]\ncommand = ["{sys.executable}", "-c", "print(1); import time; time.sleep(9999)"]\n'
    'start_timeout = "1h"\nstop_timeout = "200ms"\n'
    + python_server("waits", SERVERS / "quick.py", after='["hangs"]')
    + python_server("good", SERVERS / "quick.py")
)


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    began = time.monotonic()
    with running(REGISTRY, ready=("good",)) as daemon:
        assert time.monotonic() - began < SOON
        yield daemon


def test_good_server_serves_and_lists_are_without_the_others(daemon: Daemon) -> None:
    with http(daemon, session=True) as client:
        assert "result" in client.post(call(1, "good__pid")).json()
        client.post(request(2, "tools/list"))  # the first one may give the others some seconds to come up
        began = time.monotonic()
        listed = client.post(request(3, "tools/list"))
        assert time.monotonic() - began < PROMPT
    assert {tool["name"].split("__")[0] for tool in listed.json()["result"]["tools"]} == {"good"}


@pytest.mark.parametrize(
    ("server", "state", "told"),
    [
        ("missing", "FAILED", "/no/such/program"),
        ("closed", "FAILED", "mcp_peer.py"),
        ("crashes", "FAILED", "exit code 1"),
        ("slow", "FAILED", "timeout"),
        ("hangs", "INITIALIZING", ""),
        ("babbles", "INITIALIZING", ""),
    ],
)
def test_each_is_listed_with_its_trouble(daemon: Daemon, server: str, state: str, told: str) -> None:
    found = daemon.wait_until(server, lambda one: one["state"] == state, f"it is {state}")

    assert told in (found["last_error"] or "")
    row = next(line for line in daemon.ctl("list").stdout.splitlines() if line.startswith(server))
    assert state in row


def test_last_words_of_one_that_crashes_are_shown(daemon: Daemon) -> None:
    daemon.wait_until("crashes", lambda one: one["state"] == "FAILED", "it has failed for good")
    assert "out of luck" in daemon.ctl("status", "crashes").stdout
    assert "out of luck" in daemon.ctl("logs", "crashes").stdout


@pytest.mark.parametrize(
    ("server", "told"), [("missing", "/no/such/program"), ("crashes", "out of luck"), ("slow", "timeout")]
)
def test_restart_tells_why_it_is_not_ready(daemon: Daemon, server: str, told: str) -> None:
    done = daemon.ctl("restart", server, check=False)

    assert done.returncode == 1
    assert told in done.stdout + done.stderr


def test_call_to_one_that_failed_gets_the_reason_at_once(daemon: Daemon) -> None:
    daemon.wait_until("missing", lambda one: one["state"] == "FAILED", "it has failed for good")
    with http(daemon, "/servers/missing/mcp") as client:
        began = time.monotonic()
        answer = client.post(
            request(
                1,
                "initialize",
                protocolVersion="2025-11-25",
                capabilities={},
                clientInfo={"name": "raw", "version": "1"},
            )
        )
        assert time.monotonic() - began < PROMPT
    assert "missing" in answer.json()["error"]["message"]


def test_daemon_stays_calm(daemon: Daemon) -> None:
    """A crash loop is limited: events of it end."""
    daemon.wait_until("crashes", lambda one: one["state"] == "FAILED", "it has failed for good")
    starts = [event for event in daemon.ctl_json_lines("events", "crashes", "-n", "1000") if event["to"] == "STARTING"]
    assert 4 <= len(starts) <= 12


def test_one_that_hangs_is_stopped_at_once_and_the_daemon_too(daemon: Daemon) -> None:
    assert daemon.ctl("stop", "hangs", "babbles").returncode == 0
    wait_for(lambda: daemon.states()["hangs"] == "STOPPED", "it is stopped")
    began = time.monotonic()
    assert daemon.stop() == 0
    assert time.monotonic() - began < SOON
