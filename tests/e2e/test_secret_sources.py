"""Secrets of real servers: where they turn up, and where they do not."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from support.daemon import CHILDREN, Daemon, python_server, wait_for

FIRST, SECOND = "s3cret-of-the-first-day", "s3cret-of-the-second-day"


def put(daemon: Daemon, name: str, value: str) -> None:
    folder = daemon.home / "secrets"
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / name
    path.touch(0o600)
    path.write_text(value + "\n")


def started(env: str, **options: str) -> Daemon:
    server = python_server("one", CHILDREN / "mcp_indiscreet.py", env=env)
    other = python_server("two", CHILDREN / "mcp_peer.py")
    daemon = Daemon(server + other, **options)
    put(daemon, "github", FIRST)
    daemon.start()
    return daemon


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    daemon = started('{ KEY = { secret = "github" } }')
    yield daemon
    daemon.close()


def given(daemon: Daemon) -> Any:
    raw = daemon.control.call("one", "echo", b"{}", 10)
    return json.loads(msgspec.json.decode(raw)["content"][0]["text"])


def everything(daemon: Daemon) -> bytes:
    """All that the daemon wrote or tells, but for the secret's own file."""
    files = [path for path in daemon.home.rglob("*") if path.is_file() and path.parent.name != "secrets"]
    told = [daemon.ctl(*words).stdout for words in (("status", "one", "--json"), ("events",), ("logs", "one"))]
    return b"".join(path.read_bytes() for path in files) + "".join(told).encode() + daemon.output().encode()


def test_a_secret_is_the_server_s_alone(daemon: Daemon) -> None:
    assert given(daemon)["key"] == FIRST
    wait_for(lambda: "stdout-noise" in daemon.ctl("logs", "one").stdout, "what it printed is in the log")
    log = daemon.ctl("logs", "one").stdout
    assert "connecting with [secret] now" in log
    assert "debug: key=[secret]" in log
    assert FIRST.encode() not in everything(daemon)
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert FIRST.encode() not in path.read_bytes()
        except OSError:
            continue


def test_a_reload_restarts_only_whom_a_new_value_concerns(daemon: Daemon) -> None:
    assert daemon.ctl_json("reload")["restarted"] == []
    pids = {name: daemon.server(name)["pid"] for name in ("one", "two")}
    put(daemon, "github", SECOND)
    assert daemon.ctl_json("reload", "--dry-run")["restarted"] == ["one"]
    assert daemon.ctl_json("reload")["restarted"] == ["one"]
    wait_for(lambda: given(daemon)["key"] == SECOND, "the new value is used")
    assert daemon.server("one")["pid"] != pids["one"]
    assert daemon.server("two")["pid"] == pids["two"]
    assert daemon.ctl_json("reload")["restarted"] == []


def test_a_secret_that_is_gone_leaves_the_server_as_it_is(daemon: Daemon) -> None:
    (daemon.home / "secrets" / "github").unlink()
    done = daemon.ctl("reload", check=False)
    assert done.returncode == 1
    assert "goes on with what it was started with" in done.stderr
    assert given(daemon)["key"] == FIRST


def test_a_command_that_fails_is_a_server_that_does_not_start() -> None:
    daemon = Daemon(
        python_server("one", CHILDREN / "mcp_indiscreet.py", env='{ KEY = { secret = "github" } }'),
        daemon='secret_command = ["sh", "-c", "echo locked >&2; exit 1"]',
    )
    try:
        daemon.start(ready=())
        found = daemon.wait_until("one", lambda one: one["state"] == "FAILED", "it failed")
        assert "locked" in found["last_error"]
    finally:
        daemon.close()


def test_a_command_gives_a_secret() -> None:
    daemon = Daemon(
        python_server("one", CHILDREN / "mcp_indiscreet.py", env='{ KEY = { secret = "gitlab" } }'),
        daemon='secret_command = ["sh", "-c", "sleep 0.2; echo s3cret-of-{name}"]',
    )
    try:
        daemon.start()
        assert given(daemon)["key"] == "s3cret-of-gitlab"
    finally:
        daemon.close()


def test_a_secret_file_of_a_contained_server_is_in_memory_and_its_own() -> None:
    env = '{ KEY = "not-a-secret", KEY_FILE = { secret_file = "github" } }'
    daemon = started(env, defaults="")
    try:
        assert given(daemon) == {"key": "not-a-secret", "path": "/run/secrets/github", "content": FIRST}
        assert not Path("/run/secrets/github").exists()
        assert FIRST.encode() not in everything(daemon)
    finally:
        daemon.close()


@pytest.mark.skipif(os.geteuid() == 0, reason="as root servers run under uids of their own")
def test_a_secret_file_of_an_unsandboxed_server_is_private_and_goes_with_it() -> None:
    daemon = started('{ KEY = "not-a-secret", KEY_FILE = { secret_file = "github" } }')
    try:
        path = Path(given(daemon)["path"])
        assert path.stat().st_mode & 0o777 == 0o600
        daemon.ctl("stop", "one")
        assert not path.exists()
    finally:
        daemon.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="otherwise it can be given one")
def test_under_root_an_unsandboxed_server_gets_no_secret_file() -> None:
    env = '{ KEY = "not-a-secret", KEY_FILE = { secret_file = "github" } }'
    daemon = Daemon(python_server("one", CHILDREN / "mcp_indiscreet.py", env=env))
    put(daemon, "github", FIRST)
    try:
        daemon.start(ready=())
        found = daemon.wait_until("one", lambda one: one["state"] == "FAILED", "it failed")
        assert "sandbox it" in found["last_error"]
    finally:
        daemon.close()
