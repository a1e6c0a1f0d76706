"""The fault cases of the daemon and of what is around it (docs/faults.md), each with a real daemon of its own.

At the end of each the daemon answers through another server, or it has ended as it should and nothing is left.
"""

from __future__ import annotations

import os
import re
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from e2e.clients import SERVERS
from e2e.raw import call, http
from mcpd.control.client import Refused
from support.daemon import BIN, CHILDREN, DEADLINE, Daemon, carriers, python_server, running, wait_for

PEER = CHILDREN / "mcp_peer.py"
FAST = {
    "stop_timeout": '"300ms"',
    "drain_timeout": '"300ms"',
    "restart_delay": '"100ms"',
    "restart_max_delay": '"200ms"',
}
OTHER = python_server("other", PEER, **FAST)


@contextmanager
def beside(servers: str, *ready: str, **options: str) -> Iterator[Daemon]:
    """A daemon with these servers and one that must not notice what is done to them; at the end nothing is left."""
    with running(OTHER + servers, ready=("other", *ready), **options) as daemon, undisturbed(daemon):
        yield daemon


@contextmanager
def undisturbed(daemon: Daemon) -> Iterator[None]:
    """Of a daemon that has `other`: what must hold at the end of every case; it is stopped then."""
    pid = daemon.server("other")["pid"]
    use_other(daemon)
    before = descriptors(daemon)
    yield
    use_other(daemon)
    assert daemon.server("other")["pid"] == pid
    wait_for(lambda: not zombies(daemon), "no zombie is left")
    files = len(daemon.states())  # the log of a server that had written nothing before
    wait_for(lambda: descriptors(daemon) <= before + files, lambda: f"{descriptors(daemon)} descriptors, {before}")
    assert daemon.stop() == 0
    assert carriers(daemon.cookie) == []


def use_other(daemon: Daemon) -> None:
    with http(daemon, session=True) as client:
        assert "result" in client.post(call(1, "other__echo")).json()
        assert client.send("DELETE").status_code in (200, 204)


def zombies(daemon: Daemon) -> list[int]:
    """Dead children; those that others left to the daemon are collected within moments."""
    return [one.pid for one in psutil.Process(daemon.pid).children() if one.status() == psutil.STATUS_ZOMBIE]


def descriptors(daemon: Daemon) -> int:
    return len(list(Path(f"/proc/{daemon.pid}/fd").iterdir()))


def test_26_logs_that_cannot_be_written_hold_up_nobody() -> None:
    with beside(python_server("grumbles", CHILDREN / "mcp_grumbles.py"), "grumbles") as daemon:
        daemon.control.call("grumbles", "echo", b'{"bytes":100}', 20.0)
        logs = daemon.home / "state" / "logs"
        logs.rename(logs.with_name("gone"))
        logs.write_text("not a directory")

        for _ in range(3):
            daemon.control.call("grumbles", "echo", b'{"bytes":1000000}', 20.0)

        logs.unlink()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a disk as small as that")
def test_26_a_full_disk_costs_logs_and_history_but_no_call() -> None:
    daemon = Daemon(OTHER + python_server("grumbles", CHILDREN / "mcp_grumbles.py", **FAST))
    state = daemon.home / "state"
    state.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k,mode=0700", "none", state], check=True)
    try:
        daemon.start()
        with undisturbed(daemon):
            fill(state / "filler")
            for _ in range(3):
                daemon.control.call("grumbles", "echo", b'{"bytes":1000000}', 20.0)
                assert daemon.control.restart("grumbles").ok
                use_other(daemon)
            assert daemon.control.reload().problems == ()
            wait_for(lambda: "kept in memory only" in "".join(daemon.control.daemon().warnings), "it is told")

            (state / "filler").unlink()

            wait_for(lambda: not daemon.control.daemon().warnings, "the disk can be written again")
            assert any("can be written again" in str(one) for one in daemon.ctl_json_lines("events"))
    finally:
        daemon.close()
        subprocess.run(["umount", "--lazy", state], check=True)
        state.rmdir()
        daemon.home.rmdir()


def fill(file: Path) -> None:
    """Take all that is left of a disk."""
    with file.open("wb", buffering=0) as filler, suppress(OSError):
        while True:
            filler.write(bytes(4096))


def test_27_without_descriptors_operators_are_served_and_starts_wait() -> None:
    with beside(python_server("needs", PEER, **FAST), "needs") as daemon:
        daemon.control.stop("needs")
        before = descriptors(daemon)
        soft, hard = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
        highest = max(int(one.name) for one in Path(f"/proc/{daemon.pid}/fd").iterdir())
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (highest + 20, hard))
        try:
            outcome = daemon.control.start("needs")
            assert (outcome.ok, outcome.state) == (False, "BACKOFF")
            assert outcome.reason.startswith("resources")
            assert daemon.states()["other"] == "READY"
        finally:
            resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (soft, hard))

        daemon.wait_until("needs", lambda one: one["state"] == "READY", "it is started after all")
        daemon.control.stop("needs")
        wait_for(lambda: descriptors(daemon) <= before, "no descriptor is leaked")


def test_28_after_a_kill_the_next_daemon_ends_what_is_left_and_nothing_else() -> None:
    """A process that has the cookie of another runtime directory, or only looks like a server, is left alone."""
    daemon = Daemon(OTHER)
    stranger = psutil.Popen(["sleep", "600"], env={**os.environ, "MCPD_COOKIE": "of somebody else"})
    try:
        daemon.start()
        tree = daemon.tree()
        daemon.kill()
        tree.wait_gone()
        tree.close()

        daemon.start()

        assert stranger.is_running()
        assert daemon.states() == {"other": "READY"}
    finally:
        daemon.close()
        stranger.kill()
        stranger.wait()


def test_29_a_stop_during_starts_and_a_hup_during_the_stop() -> None:
    slow = "".join(python_server(f"slow{number}", CHILDREN / "mcp_silent.py", **FAST) for number in range(4))
    stubborn = python_server("stubborn", CHILDREN / "mcp_stubborn.py", stop_timeout='"1s"')
    daemon = Daemon(OTHER + slow + stubborn)
    try:
        daemon.start(ready=("stubborn",))
        assert daemon.process is not None
        daemon.process.send_signal(signal.SIGTERM)
        wait_for(lambda: "daemon.stopping" in daemon.output(), "it is stopping")
        for _ in range(3):
            daemon.process.send_signal(signal.SIGHUP)

        assert daemon.process.wait(20.0) == 0
        assert "reload.done" not in daemon.output()
        assert carriers(daemon.cookie) == []
    finally:
        daemon.close()


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("[servers.new\n", "not valid TOML"),
        ('[servers.other]\ncommand = ["sh"]\n', "other"),
        ('[servers.new]\ncommand = ["sh"]\ncolour = "blue"\n', "colour"),
        ('[servers.new]\ncommand = ["sh', "not valid TOML"),
        ('[servers.new]\ncommand = ["/no/such/program"]\n', "/no/such/program"),
        (None, "mcpd.toml"),
    ],
    ids=["syntax", "twice", "unknown", "half", "missing", "unreadable"],
)
def test_30_a_registry_that_cannot_be_used_changes_nothing(fault: str | None, told: str) -> None:
    with beside("") as daemon:
        if fault is None:
            daemon.registry.unlink()
            daemon.registry.mkdir()
        else:
            daemon.write(OTHER + fault)

        with pytest.raises(Refused) as refused:
            daemon.control.reload()

        assert told in str(refused.value)
        assert daemon.states() == {"other": "READY"}
        if fault is None:
            daemon.registry.rmdir()
        daemon.write(OTHER)


def test_31_one_changed_entry_of_twenty_keeps_the_other_processes() -> None:
    def text(mode: str) -> str:
        keys = {**FAST, "env": f'{{ MODE = "{mode}" }}'}
        return "".join(python_server(f"s{n}", PEER, **(keys if n == 7 else FAST)) for n in range(20))

    with beside(text("a"), *(f"s{number}" for number in range(20)), daemon="max_concurrent_starts = 4") as daemon:
        before = {one.name: one.pid for one in daemon.control.servers()}
        daemon.write(OTHER + text("b"))

        report = daemon.control.reload()

        assert report.restarted == ("s7",)
        assert report.problems == ()
        daemon.wait_until("s7", lambda one: one["generation"] == 2 and one["state"] == "READY", "it is another")
        after = {one.name: one.pid for one in daemon.control.servers()}
        assert [name for name in before if before[name] != after[name]] == ["s7"]


@pytest.mark.parametrize("kind", ["stale", "directory", "link"])
def test_34_stale_sockets_are_replaced_and_foreign_things_left_alone(kind: str) -> None:
    daemon = Daemon(OTHER)
    try:
        run = daemon.home / "run"
        run.mkdir(mode=0o700)
        path = run / "control.sock"
        if kind == "stale":
            with socket.socket(socket.AF_UNIX) as one:
                one.bind(str(path))
            daemon.start()
            assert daemon.states() == {"other": "READY"}
            return
        if kind == "directory":
            path.mkdir()
        else:
            (daemon.home / "precious").write_text("keep me")
            path.symlink_to(daemon.home / "precious")

        done = daemon.run("mcpd", "start", "--config", str(daemon.registry), check=False)

        assert done.returncode != 0
        assert "control.sock" in done.stdout + done.stderr
        assert path.is_dir() if kind == "directory" else (daemon.home / "precious").read_text() == "keep me"
        assert carriers(daemon.cookie) == []
    finally:
        daemon.close()


def test_36_a_client_that_leaves_in_mid_call_leaves_nothing_behind() -> None:
    quick = python_server("quick", SERVERS / "quick.py", **FAST)
    with beside(quick, "quick") as daemon:
        before = descriptors(daemon)
        for _ in range(5):
            with (
                http(daemon, "/servers/quick/mcp") as client,
                socket.create_connection(("127.0.0.1", daemon.port)) as raw,
            ):
                session = client.open_session()
                body = b'{"jsonrpc":"2.0","id":9,"method":"tools/call","params":{"name":"hold","arguments":{}}}'
                head = (
                    f"POST /servers/quick/mcp HTTP/1.1\r\nHost: 127.0.0.1:{daemon.port}\r\n"
                    f"Authorization: Bearer {daemon.token}\r\nMcp-Session-Id: {session}\r\n"
                    "MCP-Protocol-Version: 2025-11-25\r\nContent-Type: application/json\r\n"
                    f"Accept: application/json, text/event-stream\r\nContent-Length: {len(body)}\r\n\r\n"
                )
                raw.sendall(head.encode() + body)
                daemon.wait_until("quick", lambda one: one["calls"] > 0, "the call is there")
                raw.shutdown(socket.SHUT_RDWR)
                assert client.send("DELETE").status_code in (200, 204)

        wait_for(lambda: daemon.control.sessions() == [], "no session is left")
        wait_for(lambda: descriptors(daemon) <= before + 1, "no descriptor is left")
        answer = daemon.control.call("quick", "pid", b"{}", 20.0)
        assert b"content" in answer


class First(Daemon):
    """A daemon that is PID 1, as in a container, and has children from before it was one."""

    def start(self, *, ready: tuple[str, ...] | None = None) -> None:
        words = ["bwrap", "--dev-bind", "/", "/", "--unshare-pid", "--as-pid-1", "--proc", "/proc", "--die-with-parent"]
        orphans = 'for n in 1 2 3; do (sleep 0.$n &); done; exec "$@"'
        words += ["sh", "-c", orphans, "sh", str(BIN / "mcpd"), "start", "--config", str(self.registry)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.env, cwd=self.home
            )
        self.wait_ready(ready)

    @property
    def pid(self) -> int:
        (child,) = psutil.Process(super().pid).children()
        return int(child.pid)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        assert self.process is not None
        os.kill(self.pid, number)
        return self.process.wait(DEADLINE)


def test_37_as_pid_1_it_collects_all_that_die_and_leaves_nothing() -> None:
    daemon = First(OTHER + python_server("dies", CHILDREN / "mcp_peer.py", **FAST))
    try:
        daemon.start()
        assert os.readlink(f"/proc/{daemon.pid}/ns/pid") != os.readlink("/proc/self/ns/pid")
        for _ in range(5):
            before = daemon.server("dies")
            with pytest.raises(Refused):
                daemon.control.call("dies", "exit", b'{"code":7}', DEADLINE)
            daemon.wait_until(
                "dies",
                lambda one, before=before: one["restarts"] > before["restarts"] and one["state"] == "READY",  # type: ignore[misc]
                "it is back",
            )

        use_other(daemon)
        wait_for(lambda: not zombies(daemon), "no zombie is left")
        assert not [one for one in psutil.Process(daemon.pid).children() if one.name() == "sleep"]
        assert daemon.stop() == 0
        assert carriers(daemon.cookie) == []
    finally:
        daemon.close()


def test_38_readers_of_events_that_never_read_hold_up_nobody() -> None:
    with beside(python_server("time", PEER, **FAST), "time") as daemon, ExitStack() as stack:
        for _ in range(5):
            one = stack.enter_context(socket.socket(socket.AF_UNIX))
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            one.connect(str(daemon.home / "run" / "control.sock"))
            one.sendall(b"GET /events?follow=true HTTP/1.1\r\nHost: mcpd\r\n\r\n")
        began = time.monotonic()
        for _ in range(20):
            assert daemon.control.restart("time").ok
        assert time.monotonic() - began < 60.0


def test_every_change_of_state_is_counted() -> None:
    with beside(python_server("time", PEER, **FAST), "time") as daemon:
        assert daemon.control.restart("time").ok

        with http(daemon, "/metrics") as client:
            text = client.send("GET").text

        found = dict(re.findall(r'mcpd_transitions(?:_total)?{server="time",state="(\w+)"} (\S+)', text))
        counted = {state: float(found[state]) for state in ("STARTING", "READY", "STOPPING")}
        assert counted == {"STARTING": 2.0, "READY": 2.0, "STOPPING": 1.0}
