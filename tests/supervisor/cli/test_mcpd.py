"""`mcpd` as a program, with real servers: what it prints, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mcpd.control.client import ControlClient, NoDaemon
from support.daemon import SERVERS, Daemon, script_server, wait_for
from support.terminal import plain, program, run, run_on_terminal

MCPD = program("mcpd")
TIME = script_server("time", SERVERS / "time.py")
BROKEN = '[servers.broken]\ncommand = ["/bin/sh", "-c", "echo oops >&2; exit 3"]\n'


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    """Not started. What a test leaves running is ended."""
    daemon = Daemon(TIME + BROKEN)
    yield daemon
    client = ControlClient(daemon.home / "run" / "control.sock")
    try:
        pid = client.daemon().pid
    except NoDaemon:
        pass
    else:
        os.kill(pid, signal.SIGKILL)
    daemon.close()


def is_running(pid: int) -> bool:
    """Not so if only its exit status is left, for whoever inherited it to collect."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_started_in_the_foreground_it_says_all_that_is_needed(daemon: Daemon) -> None:
    argv = [MCPD, "start", "--config", str(daemon.registry)]
    with subprocess.Popen(
        argv, env=daemon.env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        said = ""
        for line in process.stdout:
            said += line
            if "mcpctl tools time" in line:
                break
        url = ControlClient(daemon.home / "run" / "control.sock").daemon().urls[0]
        process.terminate()
        rest = process.stdout.read()

    assert process.returncode == 0
    assert rest == ""
    assert f"  Streamable HTTP  {url}/mcp\n  HTTP+SSE         {url}/sse\n" in said
    assert f"  bearer token     in {daemon.home}/state/token\n" in said
    assert daemon.token not in said
    assert "  time             READY\n" in said
    assert "  broken           BACKOFF  exit-code" in said
    assert "NAME    STATE" in said
    assert "mcpctl logs broken" in said


def test_on_a_terminal_the_table_is_drawn_until_all_have_settled(daemon: Daemon) -> None:
    code, shown = run_on_terminal(
        MCPD, "start", "--config", str(daemon.registry), env={**daemon.env, "TERM": "xterm"}, width=110,
        interrupt_at="mcpctl tools time",
    )  # fmt: skip

    assert code == 0
    assert "\x1b[1A" in shown  # the cursor went up, to draw it again
    last = plain(shown[shown.rfind("NAME") :])
    assert last.split("\n")[1].split()[:2] == ["time", "READY"]
    assert "daemon.stopped" in shown


def test_detached_it_goes_on_and_is_stopped(daemon: Daemon) -> None:
    started = run(MCPD, "start", "--detach", "--config", str(daemon.registry), env=daemon.env)
    status = ControlClient(daemon.home / "run" / "control.sock").daemon()
    log = daemon.home / "state" / "mcpd.log"
    again = run(MCPD, "start", "--detach", env=daemon.env)
    foreground = run(MCPD, "start", env=daemon.env)
    stopped = run(MCPD, "stop", env=daemon.env)
    nothing = run(MCPD, "stop", env=daemon.env)

    assert (started.returncode, started.stderr) == (0, "")
    assert started.stdout.startswith(f"mcpd {status.version}, pid {status.pid}, {daemon.registry}\n")
    assert started.stdout.endswith(f"log: {log}\n")
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    assert "daemon.started" in log.read_text()
    assert (again.returncode, foreground.returncode) == (1, 1)
    assert again.stderr.startswith(f"mcpd: mcpd is running already (pid {status.pid})\n")
    assert f"already running (pid {status.pid})" in foreground.stderr
    assert (stopped.returncode, stopped.stdout) == (0, f"mcpd (pid {status.pid}) has stopped\n")
    assert not is_running(status.pid)
    assert (nothing.returncode, "no daemon is running" in nothing.stderr) == (69, True)


def test_it_is_in_a_session_of_its_own_and_in_no_ones_directory(daemon: Daemon) -> None:
    assert run(MCPD, "start", "--detach", "--quiet", env=daemon.env).stdout == ""
    pid = ControlClient(daemon.home / "run" / "control.sock").daemon().pid

    assert os.getsid(pid) == pid
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    assert os.readlink(f"/proc/{pid}/fd/0") == "/dev/null"
    assert run(MCPD, "stop", env=daemon.env).returncode == 0


def test_one_that_cannot_start_says_why(daemon: Daemon) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        daemon.port = taken.getsockname()[1]
        daemon.write(TIME)

        detached = run(MCPD, "start", "--detach", env=daemon.env)
        foreground = run(MCPD, "start", env=daemon.env)

    assert detached.returncode == foreground.returncode
    assert detached.returncode in (1, 78)
    assert str(daemon.port) in foreground.stderr
    assert str(daemon.port) in detached.stderr
    assert "Traceback" not in detached.stderr + foreground.stderr


def test_log_file_takes_the_log(daemon: Daemon) -> None:
    log = daemon.home / "mine.log"
    argv = [MCPD, "start", "--quiet", "--log-file", str(log)]
    with subprocess.Popen(argv, env=daemon.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        wait_for(lambda: log.exists() and "daemon.started" in log.read_text(), "it is up")
        process.terminate()
        assert process.communicate(timeout=30) == (b"", b"")
    assert process.returncode == 0


def test_without_a_sandbox_means_all_servers(daemon: Daemon) -> None:
    assert run(MCPD, "start", "--detach", "--unsandboxed", env=daemon.env).returncode == 0

    servers = ControlClient(daemon.home / "run" / "control.sock").servers()

    assert "unsandboxed" in next(one.isolation for one in servers if one.name == "time")
    assert run(MCPD, "stop", env=daemon.env).returncode == 0


def test_check_tells_everything_at_once(daemon: Daemon) -> None:
    good = run(MCPD, "check", env=daemon.env)
    daemon.registry.write_text('[servers.a]\ncommand = ["/nonexistent"]\nrestrat = 3\n[servers.B]\ncommand = []\n')
    bad = run(MCPD, "check", env=daemon.env)
    listed = run(MCPD, "check", "--json", env=daemon.env)

    assert (good.returncode, good.stdout) == (0, f"{daemon.registry}: 2 servers, no problems\n")
    assert (bad.returncode, bad.stdout) == (78, "")
    lines = bad.stderr.splitlines()
    assert lines[-1] == f"mcpd: {len(lines) - 1} problems"
    assert any(line.startswith(f"mcpd: {daemon.registry}:3: servers.a") and "restart" in line for line in lines)
    assert any("'/nonexistent' does not exist" in line for line in lines)
    problems = json.loads(listed.stdout)["problems"]
    assert len(problems) == len(lines) - 1
    assert {"file", "line", "key", "message", "remedy"} == set(problems[0])


def test_check_tells_warnings_too(daemon: Daemon) -> None:
    daemon.registry.write_text('[servers.a]\ncommand = ["/bin/true"]\nenv = { KEY = { secret = "none" } }\n')

    done = run(MCPD, "check", env=daemon.env)
    listed = run(MCPD, "check", "--json", env=daemon.env)

    assert done.returncode == 0
    assert done.stderr.startswith(f"mcpd: warning: {daemon.registry}:3: servers.a.env.KEY: ")
    assert len(json.loads(listed.stdout)["warnings"]) == 1


def test_a_registry_that_cannot_be_used_is_said_before_anything_starts(daemon: Daemon) -> None:
    daemon.registry.write_text("[daemon\n")
    missing = run(MCPD, "start", "--config", "/nonexistent.toml", env=daemon.env)
    broken = run(MCPD, "start", "--detach", env=daemon.env)

    assert (missing.returncode, broken.returncode) == (78, 78)
    assert "/nonexistent.toml" in missing.stderr
    assert f"{daemon.registry}:1:" in broken.stderr


def test_run_becomes_the_server(daemon: Daemon) -> None:
    hello = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
    }

    done = run(
        MCPD, "run", str(SERVERS / "notes.py"), "--log-level", "ERROR", env=daemon.env, stdin=json.dumps(hello) + "\n"
    )

    assert done.returncode == 0
    assert json.loads(done.stdout.split("\n")[0])["result"]["serverInfo"]["name"] == "notes"


def test_run_says_what_it_cannot_do(daemon: Daemon) -> None:
    done = run(MCPD, "run", "/nonexistent.py", env=daemon.env)

    assert done.returncode == 1
    assert done.stderr == "mcpd run: File not found: /nonexistent.py\n"


def test_version_and_module(daemon: Daemon) -> None:
    assert run(MCPD, "version", env=daemon.env).stdout.startswith("mcpd 0.")
    assert run(MCPD, "--version", env=daemon.env).stdout.startswith("mcpd 0.")
    assert run(sys.executable, "-m", "mcpd", "version", env=daemon.env).stdout.startswith("mcpd 0.")
    assert run(MCPD, "nosuch", env=daemon.env).returncode == 2
