"""The operator's commands, as typed, against a daemon with real servers and real clients."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client, StdioServerParameters, stdio_client

from e2e.clients import SERVERS, Way, connected
from e2e.raw import call, connect, http
from support.daemon import BIN, DEADLINE, Daemon, python_server, running, wait_for

FIVE = ("one", "two", "three", "four", "five")
FAST = {"drain_timeout": '"300ms"', "stop_timeout": '"1s"'}
NO_DAEMON, BAD_CONFIG, USAGE = 69, 78, 2


def five(**changed: str) -> str:
    """A registry of five servers; `changed` has keys for some of them."""
    return "\n".join(python_server(name, SERVERS / "quick.py", **FAST) + changed.get(name, "") for name in FIVE)


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    """For tests that leave it as it was, but for pids."""
    with running(five()) as daemon:
        yield daemon


@pytest.fixture
def own_daemon() -> Iterator[Daemon]:
    with running(five()) as daemon:
        yield daemon


def pids(daemon: Daemon) -> dict[str, int | None]:
    return {server.name: server.pid for server in daemon.control.servers()}


class Following:
    """A command that goes on until it is ended, and the lines that it has printed."""

    def __init__(self, daemon: Daemon, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [BIN / "mcpctl", *arguments],
            env=daemon.env,
            cwd=daemon.home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self.shown = ""

    def until(self, pattern: str) -> re.Match[str]:
        """Read on until this was shown."""
        assert self.process.stdout is not None
        end = time.monotonic() + DEADLINE
        while not (found := re.search(pattern, self.shown, re.MULTILINE)):
            ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"{pattern!r} is not in {self.shown!r}"
            data = os.read(self.process.stdout.fileno(), 1 << 16)
            assert data, f"it ended after {self.shown!r}"
            self.shown += data.decode()
        return found


@contextmanager
def following(daemon: Daemon, *arguments: str) -> Iterator[Following]:
    one = Following(daemon, *arguments)
    try:
        yield one
    finally:
        one.process.kill()
        one.process.communicate()


# What runs


def test_list_shows_each_server(daemon: Daemon) -> None:
    shown = daemon.ctl("list").stdout
    as_json = {one["name"]: one for one in daemon.ctl_json("list")}

    header, *rows = shown.splitlines()
    assert header.split()[:6] == ["NAME", "STATE", "SINCE", "RESTARTS", "PID", "RSS"]
    assert [row.split()[:2] for row in rows[:5]] == [[name, "READY"] for name in FIVE]
    assert list(as_json) == list(FIVE)
    for one in as_json.values():
        assert Path(f"/proc/{one['pid']}").is_dir()
        assert one["rss"] > 1_000_000
        assert one["tools"] == 8
        assert (one["isolation"], one["era"], one["protocol"]) == ("strict", "handshake", "2025-11-25")


def test_status_tells_what_runs_and_how_it_ended_before(daemon: Daemon) -> None:
    before = daemon.server("five")
    os.kill(before["pid"], signal.SIGKILL)
    daemon.wait_until("five", lambda one: one["state"] == "READY" and one["pid"] != before["pid"], "it is back")

    detail = daemon.ctl_json("status", "five")
    shown = daemon.ctl("status", "five").stdout

    assert detail["status"]["restarts"] == before["restarts"] + 1
    assert (detail["exits"][-1]["reason"], detail["exits"][-1]["status"]) == ("signal", "killed by SIGKILL")
    assert detail["argv"][-1].endswith("quick.py")
    assert "quick.py" in shown
    assert "SIGKILL" in shown
    assert list(detail["limits"]) == ["memory", "pids", "cpu", "nofile", "fsize"]
    assert f"limits      memory {detail['limits']['memory']}; pids " in shown


def test_doctor_tells_the_limits_of_each_server(daemon: Daemon) -> None:
    found = daemon.ctl_json("doctor")
    told = [one["text"] for one in found["servers"] if one["name"] == "one"]

    assert [one["missing"] for one in found["processes"]] == [[]] * len(FIVE)
    assert any(text.startswith("limits: memory 512MiB by ") and "nofile 256 by rlimit" in text for text in told)
    assert {one["kernel_limits"]["nofile"] for one in found["processes"]} == {256}
    control_groups = next(one["text"] for one in found["machine"] if one["name"] == "cgroup v2")
    about = daemon.control.daemon()
    assert (about.cgroups or about.cgroups_reason) in control_groups


def test_tools_and_calls(daemon: Daemon) -> None:
    tools = {one["public_name"] for one in daemon.ctl_json("tools")}
    assert {f"{name}__mirror" for name in FIVE} <= tools
    assert "mirror" in daemon.ctl("tools", "one").stdout

    assert daemon.ctl("call", "one", "grumble", "text=a text").stdout == "grumbled\n"
    mirrored = daemon.ctl("call", "one", "mirror", "n:=12345678901234567890").stdout.strip()
    assert b'"n":12345678901234567890' in bytes.fromhex(mirrored)
    given = b'{ "content" : [ ] }'
    assert daemon.ctl("call", "one", "say", f"result={given.hex()}", "--json").stdout == given.decode() + "\n"
    error = b'{"code":-1,"message":"as told"}'
    failed = daemon.ctl("call", "one", "say", f"error={error.hex()}", check=False)
    assert failed.returncode == 1
    assert "as told" in failed.stderr
    late = daemon.ctl("call", "one", "hold", "--timeout", "0.3", check=False)
    assert late.returncode == 1
    assert "one" in late.stderr


def test_sessions_are_listed_while_they_last(daemon: Daemon) -> None:
    with http(daemon, "/servers/two/mcp", session=True) as client, connect(daemon, "three") as local:
        local.ask(call(1, "pid"))
        session = client.client.headers["Mcp-Session-Id"]
        found = {(one["transport"], one["view"]): one for one in daemon.ctl_json("sessions")}
        shown = daemon.ctl("sessions").stdout

        assert {transport for transport, _ in found} == {"streamable-http", "stdio"}
        assert all(one["client_name"] == "raw" for one in found.values())
        assert "raw" in shown
        assert session not in shown + json.dumps(list(found.values())), "the whole id would be a key to it"
        client.send("DELETE")
    wait_for(lambda: daemon.ctl_json("sessions") == [], "no session is left")


def test_logs_follow_what_a_server_writes(daemon: Daemon) -> None:
    daemon.ctl("call", "one", "grumble", "text=before")
    with following(daemon, "logs", "one", "-f") as logs:
        logs.until(r"^before$")
        daemon.ctl("call", "one", "grumble", "text=while looking")
        logs.until(r"^while looking$")
    assert daemon.ctl("logs", "one", "-n", "1").stdout == "while looking\n"


def test_events_follow_what_happens(daemon: Daemon) -> None:
    with following(daemon, "events", "two", "-f", "--json", "-n", "0") as events:
        daemon.wait_until("two", lambda one: one["state"] == "READY", "it is READY")
        wait_for(lambda: Path(f"/proc/{events.process.pid}/cmdline").read_bytes(), "the command runs")
        with following(daemon, "events", "-f") as told:
            told.until("READY")  # the daemon has taken this, so the one before is connected or comes with history
            daemon.ctl("restart", "two", "three")
            told.until(r"three\s+INITIALIZING → READY")
        events.until(r'"to":"READY"')
    found = [json.loads(line) for line in events.shown.splitlines()]
    assert {one["server"] for one in found} == {"two"}
    assert [one["to"] for one in found] == ["STOPPING", "EXITED", "STARTING", "INITIALIZING", "READY"]
    numbers = [one["seq"] for one in found]
    assert numbers == sorted(set(numbers))


# What shall run


def test_restart_shows_progress_and_returns_when_it_is_ready(daemon: Daemon) -> None:
    before = pids(daemon)

    done = daemon.ctl("restart", "one")

    assert re.search(r"READY → STOPPING.*\n(.*\n)*.*INITIALIZING → READY", done.stderr)
    assert re.search(r"^one\s+READY", done.stdout)
    after = pids(daemon)
    assert after["one"] != before["one"]
    assert {**after, "one": None} == {**before, "one": None}


def test_stop_and_start_and_what_clients_see_of_it(daemon: Daemon) -> None:
    with http(daemon, session=True) as client:
        assert daemon.ctl("stop", "one").returncode == 0
        assert daemon.server("one")["state"] == "STOPPED"
        refused = client.post(call(1, "one__pid")).json()["error"]
        assert "'one' is not running" in refused["message"]
        listed = client.post({"jsonrpc": "2.0", "id": 2, "method": "tools/list"}).json()["result"]["tools"]
        assert {tool["name"].split("__")[0] for tool in listed} == set(FIVE) - {"one"}, "the others are there"
        assert daemon.ctl("stop", "one").returncode == 0, "it is stopped already"

        assert daemon.ctl("start", "one").returncode == 0
        assert "result" in client.post(call(3, "one__pid")).json()


def test_what_was_stopped_stays_so_over_a_restart_of_the_daemon(own_daemon: Daemon) -> None:
    own_daemon.ctl("stop", "two", "three")
    assert own_daemon.stop() == 0

    own_daemon.start(ready=("one", "four", "five"))

    assert own_daemon.states()["two"] == own_daemon.states()["three"] == "STOPPED"
    own_daemon.ctl("start", "--all")
    assert set(own_daemon.states().values()) == {"READY"}


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("restart", "nobody"), 1, "there are one, two, three, four, five"),
        (("status", "nobody"), 1, "nobody"),
        (("logs", "nobody"), 1, "nobody"),
        (("call", "one", "nothing"), 1, "mirror"),
        (("restart",), USAGE, "NAME"),
        (("frobnicate",), USAGE, "frobnicate"),
    ],
)
def test_mistakes_are_told(daemon: Daemon, arguments: tuple[str, ...], code: int, told: str) -> None:
    done = daemon.ctl(*arguments, check=False)

    assert done.returncode == code
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_without_a_daemon_every_command_says_so() -> None:
    daemon = Daemon(five())
    try:
        for arguments in (("list",), ("restart", "one"), ("events", "-f"), ("call", "one", "pid")):
            done = daemon.ctl(*arguments, check=False)
            assert done.returncode == NO_DAEMON
            assert "mcpd start" in done.stderr
        assert daemon.run("mcpd", "stop", check=False).returncode == NO_DAEMON
    finally:
        daemon.close()


# The registry


def test_reload_restarts_only_what_changed(own_daemon: Daemon) -> None:
    before = pids(own_daemon)
    with connect(own_daemon, "one") as client:
        client.send(call("held", "hold"))
        own_daemon.wait_until("one", lambda one: one["calls"] == 1, "a call is held")
        own_daemon.write(five(three='env = { MCPD_TEST_COOKIE = "changed" }\n'))

        plan = own_daemon.ctl_json("reload", "--dry-run")
        assert pids(own_daemon) == before
        report = own_daemon.ctl_json("reload")

        assert plan["restarted"] == report["restarted"] == ["three"]
        assert set(report["unchanged"]) == set(FIVE) - {"three"}
        own_daemon.wait_until("three", lambda one: one["pid"] not in (None, before["three"]), "the new one runs")
        own_daemon.wait_ready()
        after = pids(own_daemon)
        assert {**after, "three": None} == {**before, "three": None}
        value = own_daemon.ctl("call", "three", "variable", "name=MCPD_TEST_COOKIE").stdout
        assert value == "changed\n"
        assert own_daemon.server("one")["calls"] == 1, "a call of an unchanged server goes on"


def test_reload_adds_and_removes(own_daemon: Daemon) -> None:
    before = pids(own_daemon)
    six = five().replace("[servers.two]", "[servers.six]")
    own_daemon.write(six)
    with http(own_daemon, session=True) as client:
        assert own_daemon.process is not None
        own_daemon.process.send_signal(signal.SIGHUP)
        wait_for(lambda: own_daemon.states().get("six") == "READY", "the new one is READY")
        wait_for(lambda: "two" not in own_daemon.states(), "the removed one is gone")

        assert "result" in client.post(call(1, "six__pid")).json()
        assert "two__pid" in client.post(call(2, "two__pid")).json()["error"]["message"]
    wait_for(lambda: not Path(f"/proc/{before['two']}").exists(), "its process is gone")
    assert {name: pid for name, pid in pids(own_daemon).items() if name != "six"} == {
        name: pid for name, pid in before.items() if name != "two"
    }


BROKEN = {
    "syntax": ("[servers.one\n", "mcpd.toml:"),
    "unknown key": (five(two='colour = "red"\n'), "servers.two.colour"),
    "wrong type": (five(two="restart_steps = true\n"), "servers.two.restart_steps"),
    "duplicate": (five() + five(), "mcpd.toml:"),
    "no program": (five() + '[servers.six]\ncommand = ["/no/such/program"]\n', "/no/such/program"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_reload_with_an_error_changes_nothing_and_says_where(daemon: Daemon, case: str) -> None:
    text, told = BROKEN[case]
    before, good = pids(daemon), daemon.registry.read_text()
    daemon.write(text)
    bad = daemon.registry.read_text()
    try:
        refused = daemon.ctl("reload", check=False)
        checked = daemon.run("mcpd", "check", check=False)
        assert daemon.ctl("list").stdout.count("READY") > len(FIVE), "the daemon is found all the same"
        with connect(daemon, "one") as client:
            assert "result" in client.ask(call(1, "pid"))
    finally:
        daemon.registry.write_text(good)

    assert refused.returncode == checked.returncode == BAD_CONFIG
    for done in (refused, checked):
        place = re.search(rf"{re.escape(str(daemon.registry))}:(\d+): ", done.stderr)
        assert place, done.stderr
        assert int(place[1]) <= len(bad.splitlines()) + 1
        assert told in done.stderr
    assert pids(daemon) == before
    assert daemon.ctl("call", "one", "pid").returncode == 0


def test_check_tells_all_problems_at_once(daemon: Daemon) -> None:
    broken = daemon.home / "broken.toml"
    broken.write_text(
        '[servers.a]\ncolour = "red"\ncommand = ["true"]\n[servers.B]\ncommand = ["true"]\n'
        '[servers.c]\ncommand = ["/no/such/program"]\n[frontdoor]\nport = "high"\n[views.v]\nservers = ["nobody"]\n'
    )

    done = daemon.run("mcpd", "check", "--config", str(broken), check=False)
    good = daemon.run("mcpd", "check")

    assert done.returncode == BAD_CONFIG
    places = dict(re.findall(rf"{re.escape(str(broken))}:(\d+): ([\w.]+)", done.stderr))
    assert places.keys() >= {"2", "7", "9", "11"}
    assert places["2"] == "servers.a.colour"
    assert places["9"] == "frontdoor.port"
    assert "5 servers, no problems" in good.stdout


# Clients


def test_token_is_the_one_that_the_front_door_takes(daemon: Daemon) -> None:
    assert daemon.ctl("token").stdout.strip() == daemon.token
    path = Path(daemon.ctl("token", "--path").stdout.strip())
    assert path == daemon.home / "state" / "token"
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.anyio
async def test_written_client_config_keeps_other_entries_and_works(daemon: Daemon) -> None:
    file = daemon.home / ".config" / "Claude" / "claude_desktop_config.json"
    file.parent.mkdir(parents=True)
    others: dict[str, Any] = {"mcpServers": {"mine": {"command": "x", "args": ["1"]}}, "theme": "dark"}
    original = json.dumps(others, indent=3)
    file.write_text(original)

    told = daemon.ctl("client-config", "claude-desktop", "--write").stdout

    written = json.loads(file.read_text())
    entry = written["mcpServers"].pop("mcpd")
    assert written == others
    backups = [one for one in file.parent.iterdir() if one != file]
    assert [one.read_text() for one in backups] == [original]
    assert str(file) in told
    assert "has the entry" in daemon.ctl("client-config", "claude-desktop", "--write").stdout
    # as the desktop client would run it: with an environment of its own
    program = StdioServerParameters(command=entry["command"], args=entry["args"], env=entry.get("env"), cwd="/")
    async with Client(stdio_client(program), mode="legacy", cache=None) as client:
        assert "one__pid" in [tool.name for tool in (await client.list_tools()).tools]


@pytest.mark.anyio
async def test_operator_restarts_under_a_client_that_goes_on(daemon: Daemon) -> None:
    async with connected(daemon, Way("http", "four")) as client:
        for _ in range(3):
            await anyio.to_thread.run_sync(lambda: daemon.ctl("restart", "four"))
            assert (await client.call_tool("pid", {})).content
