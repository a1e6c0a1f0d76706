"""A value from the secrets directory reaches the environment of the one server that asks for it, and nothing else."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from e2e.clients import SERVERS
from e2e.raw import call, http
from support.daemon import Daemon, python_server

VALUE = f"hush-{secrets.token_hex(12)}"
OTHER = f"hush-{secrets.token_hex(12)}"
KEYS = {"env": '{ API_KEY = { secret = "github" }, PLAIN = "as it stands" }', "restart_delay": '"10ms"'}
REGISTRY = (
    python_server("trusted", SERVERS / "quick.py", **KEYS)
    + python_server("contained", SERVERS / "quick.py", **KEYS)
    + '[servers.contained.sandbox]\nprofile = "strict"\n'
    + python_server("stranger", SERVERS / "quick.py")
    + python_server("careless", SERVERS / "quick.py", env='{ API_KEY = { secret = "open" } }')
    + python_server("hopeful", SERVERS / "quick.py", env='{ API_KEY = { secret = "nothing" } }')
)
GOOD = ("trusted", "contained", "stranger")


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    daemon = Daemon(REGISTRY, daemon='log_level = "debug"')
    try:
        (daemon.home / "secrets").mkdir(mode=0o700)
        for name, value, mode in (("github", VALUE, 0o600), ("open", OTHER, 0o644)):
            (daemon.home / "secrets" / name).write_text(f"{value}\n")
            (daemon.home / "secrets" / name).chmod(mode)
        daemon.start(ready=GOOD)
        yield daemon
    finally:
        daemon.close()


def value_in(daemon: Daemon, server: str, name: str = "API_KEY") -> str:
    """A variable as the server itself sees it."""
    with http(daemon, f"/servers/{server}/mcp", session=True) as client:
        text: str = client.post(call(1, "variable", name=name)).json()["result"]["content"][0]["text"]
    return text


def test_value_reaches_the_servers_that_ask_for_it(daemon: Daemon) -> None:
    assert value_in(daemon, "trusted") == VALUE
    assert value_in(daemon, "contained") == VALUE
    assert value_in(daemon, "trusted", "PLAIN") == "as it stands"
    assert value_in(daemon, "stranger") == ""


def test_value_is_nowhere_else(daemon: Daemon) -> None:
    """After use, a crash, a restart and a reload; at the most talkative log level."""
    before = daemon.server("trusted")
    os.kill(before["pid"], signal.SIGKILL)
    again = before["generation"] + 1
    daemon.wait_until("trusted", lambda one: (one["generation"], one["state"]) == (again, "READY"), "it is back")
    daemon.ctl("restart", "contained")
    with http(daemon, "/metrics") as client:
        printed = [client.send("GET").text]
    for arguments in (
        *(("list",), ("events", "-n", "1000"), ("tools",), ("sessions",), ("reload",)),
        *(("status", name) for name in ("trusted", "careless")),
    ):
        printed += [daemon.ctl(*arguments).stdout, daemon.ctl(*arguments, "--json").stdout]
    printed += [daemon.ctl("logs", name).stdout for name in ("trusted", "contained")]
    checked = daemon.run("mcpd", "check", check=False)
    printed += [checked.stdout, checked.stderr, daemon.output()]

    for text in printed:
        assert VALUE not in text
        assert OTHER not in text
    assert len("".join(printed)) > 10_000, "there was something to look through"
    kept = [path for path in daemon.home.rglob("*") if path.is_file() and path.parent.name != "secrets"]
    assert {"mcpd.db", "out.log", "trusted.log"} <= {path.name for path in kept}
    for path in kept:
        assert VALUE.encode() not in path.read_bytes(), path


def test_value_is_in_no_command_line_and_only_in_the_servers_environment(daemon: Daemon) -> None:
    asking = processes_of(daemon, "trusted") | processes_of(daemon, "contained")
    tree = daemon.tree()
    tree.close()
    for pid in {daemon.pid, *tree.pids}:
        with contextlib.suppress(ProcessLookupError):  # it was ending
            argv, environment = (Path(f"/proc/{pid}/{name}").read_bytes() for name in ("cmdline", "environ"))
            assert VALUE.encode() not in argv
            assert VALUE.encode() not in environment or pid in asking
    own = daemon.server("trusted")["pid"]
    assert f"API_KEY={VALUE}".encode() in Path(f"/proc/{own}/environ").read_bytes().split(b"\0")


def processes_of(daemon: Daemon, server: str) -> set[int]:
    """A server's processes, with those that contain it."""
    (instance,) = daemon.control.server(server).instances
    assert instance.supervised_pid is not None
    below = psutil.Process(instance.supervised_pid).children(recursive=True)
    return {instance.supervised_pid, *(process.pid for process in below)}


@pytest.mark.parametrize(("server", "file"), [("careless", "open"), ("hopeful", "nothing")])
def test_secret_that_is_open_or_missing_keeps_its_server_from_starting(daemon: Daemon, server: str, file: str) -> None:
    found = daemon.wait_until(server, lambda one: one["state"] in ("FAILED", "BACKOFF"), "it does not start")

    assert str(daemon.home / "secrets" / file) in found["last_error"]
    assert found["pid"] is None


def test_changed_value_is_there_after_a_restart(daemon: Daemon) -> None:
    file = daemon.home / "secrets" / "github"
    file.write_text(f"{OTHER}\n")
    try:
        assert value_in(daemon, "trusted") == VALUE
        daemon.ctl("restart", "trusted")
        assert value_in(daemon, "trusted") == OTHER
    finally:
        file.write_text(f"{VALUE}\n")
        daemon.ctl("restart", "trusted")
