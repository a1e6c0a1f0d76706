"""The daemon as a service: what it tells its manager, sockets that it is handed, and the walls of the shipped units."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.daemon import BIN, CHILDREN, ROOT, SERVERS, Daemon, python_server, script_server, wait_for
from support.unit_cage import settings

UNITS = ROOT / "systemd"
TIME = script_server("time", SERVERS / "time.py")
LEVEL = 3.0
OLD = "Failed to parse service type, ignoring: notify-reload"  # systemd before 253

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


class Manager:
    """A service manager's end of the notifications: what came, as (key, value), in order."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.socket.settimeout(30)
        self.seen: list[tuple[str, str]] = []
        self.senders: set[int] = set()

    def next(self) -> tuple[str, str]:
        """Only main processes are listened to, as with NotifyAccess=main."""
        data, control, _, _ = self.socket.recvmsg(4096, socket.CMSG_SPACE(12))
        self.senders.add(int.from_bytes(control[0][2][:4], sys.byteorder))
        lines = [line.partition("=") for line in data.decode().split("\n")]
        found = [(key, value) for key, _, value in lines]
        self.seen += found
        return found[0]

    def until(self, key: str, value: str = "") -> tuple[str, str]:
        """Read on until a message of this kind comes (and says so)."""
        while (found := self.next())[0] != key or value not in found[1]:
            pass
        return found

    def drain(self) -> None:
        """Throw away what has come until now."""
        self.socket.setblocking(False)
        try:
            while True:
                self.socket.recv(4096)
        except BlockingIOError:
            pass
        finally:
            self.socket.settimeout(30)

    def keys(self) -> list[str]:
        """What came, without heartbeats and statuses."""
        return [key for key, _ in self.seen if key not in ("WATCHDOG", "STATUS", "MONOTONIC_USEC")]


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(str(tmp_path / "notify") if request.param == "path" else f"@mcpd-test-{uuid.uuid4().hex}")
    yield manager
    manager.socket.close()


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    daemon = Daemon(TIME)
    yield daemon
    daemon.close()


def serve(daemon: Daemon, *argv: str, **environ: str) -> None:
    """Start it as a manager would: not waiting for anything."""
    with daemon.log.open("ab") as log:
        daemon.process = subprocess.Popen(
            [*argv, BIN / "mcpd", "start", "--quiet", "--config", daemon.registry],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**daemon.env, **environ},
            cwd=daemon.home,
            start_new_session=True,
        )


def test_life_of_a_service(daemon: Daemon, manager: Manager) -> None:
    serve(daemon, NOTIFY_SOCKET=manager.address, WATCHDOG_USEC="2000000")
    manager.until("READY", "1")
    assert daemon.control.daemon().pid == daemon.pid
    manager.until("STATUS", "1 of 1 servers READY")

    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    daemon.write(TIME + python_server("new", CHILDREN / "mcp_peer.py"))
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGHUP)
    manager.until("RELOADING", "1")
    manager.until("READY", "1")
    stamp = next(int(value) for key, value in manager.seen if key == "MONOTONIC_USEC")
    assert before <= stamp <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    assert set(daemon.states()) == {"time", "new"}

    assert daemon.stop() == 0
    manager.until("STOPPING", "1")
    assert manager.keys() == ["READY", "RELOADING", "READY", "STOPPING"]
    assert manager.senders == {daemon.pid}


def test_reload_that_is_refused_ends_too(daemon: Daemon, manager: Manager) -> None:
    serve(daemon, NOTIFY_SOCKET=manager.address)
    manager.until("READY")
    daemon.registry.write_text("[servers")

    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGHUP)
    manager.until("RELOADING")
    manager.until("READY")

    assert set(daemon.states()) == {"time"}
    assert "reload.refused" in daemon.output()


def test_heartbeat_comes_twice_in_the_watchdogs_time(daemon: Daemon, manager: Manager) -> None:
    serve(daemon, NOTIFY_SOCKET=manager.address, WATCHDOG_USEC="3000000")
    manager.until("READY")
    manager.until("WATCHDOG")
    began = time.monotonic()

    for _ in range(4):
        manager.until("WATCHDOG")

    assert 4 * 1.5 - 1.0 < time.monotonic() - began < 4 * 3.0


BLOCKED = """
import os, sys, time
from pathlib import Path
from mcpd import boot
from mcpd.config.load import load

async def block(fleet):
    Path("blocked").touch()
    while not os.path.exists("go"):
        time.sleep(0.05)  # as a callback that never returns would

sys.exit(boot.run(load(Path(sys.argv[1]), os.environ), block))
"""


def test_heartbeat_stops_with_the_event_loop(daemon: Daemon, manager: Manager) -> None:
    environ = {**daemon.env, "NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "400000"}
    with daemon.log.open("ab") as log:
        daemon.process = subprocess.Popen(
            [sys.executable, "-c", BLOCKED, daemon.registry], stdout=log, stderr=log, env=environ, cwd=daemon.home
        )
    wait_for((daemon.home / "blocked").exists, daemon.output)
    manager.drain()
    manager.socket.settimeout(1.6)

    with pytest.raises(TimeoutError):
        manager.until("WATCHDOG")

    (daemon.home / "go").touch()
    manager.socket.settimeout(30)
    manager.until("WATCHDOG")
    assert daemon.stop() == 0


def test_servers_know_nothing_of_the_manager(daemon: Daemon, manager: Manager) -> None:
    daemon.write(TIME + '[servers.cat]\ncommand = ["cat"]\n')
    serve(daemon, NOTIFY_SOCKET=manager.address, WATCHDOG_USEC="2000000")
    daemon.wait_ready(("time",))

    for pid in daemon.tree().pids:
        assert b"NOTIFY_SOCKET" not in _read(pid, "environ")
        assert b"WATCHDOG" not in _read(pid, "environ")


HAND_OVER = """
import os, sys
if sys.argv[1] != "3":
    os.dup2(int(sys.argv[1]), 3)
os.set_inheritable(3, True)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "frontdoor"}
os.execv(sys.argv[2], sys.argv[2:])
"""


def test_front_door_is_the_socket_that_was_handed_over(daemon: Daemon) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        place = listening.getsockname()
        handing = [sys.executable, "-c", HAND_OVER, str(listening.fileno()), BIN / "mcpd"]
        with socket.create_connection(place, timeout=30) as early, daemon.log.open("ab") as log:
            daemon.process = subprocess.Popen(
                [*handing, "start", "--quiet", "--config", daemon.registry],
                stdout=log,
                stderr=log,
                env=daemon.env,
                cwd=daemon.home,
                pass_fds=(listening.fileno(),),
            )
            daemon.wait_ready(("time",))
            assert daemon.control.daemon().urls == (f"http://127.0.0.1:{place[1]}",)
            early.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert early.recv(65536).startswith(b"HTTP/1.1 200")  # it came before anybody served
        for pid in daemon.tree().pids:
            assert b"LISTEN_" not in _read(pid, "environ")
            assert _sockets(pid).isdisjoint(_sockets(os.getpid()))
        assert daemon.stop() == 0

        with socket.create_connection(place, timeout=5):
            pass  # it is still the manager's: connections wait for the next daemon


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
        return b""


def _sockets(pid: int) -> set[str]:
    found = set()
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for one in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                found.add(os.readlink(one))
    return {target for target in found if target.startswith("socket:")}


def test_variables_for_another_process_are_not_ours(daemon: Daemon) -> None:
    serve(
        daemon, LISTEN_PID="1", LISTEN_FDS="1", NOTIFY_SOCKET="/nowhere/notify", WATCHDOG_PID="1", WATCHDOG_USEC="10000"
    )
    daemon.wait_ready()

    assert daemon.control.daemon().urls
    assert "the service manager cannot be told" in daemon.output()
    assert daemon.stop() == 0


# -- The units -------------------------------------------------------------------------------------------------------


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The units as they would be installed, the programs being where they are here."""
    shutil.copytree(UNITS, tmp_path / "systemd")
    for unit in (tmp_path / "systemd").rglob("*.service"):
        text = unit.read_text()
        for program in ("/usr/local/bin/mcpd", "%h/.local/bin/mcpd"):
            text = text.replace(f"ExecStart={program} ", f"ExecStart={BIN / 'mcpd'} ")
        unit.write_text(text)
    return tmp_path / "systemd"


def analyze(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    with tempfile.TemporaryDirectory(prefix="mcpd-t-") as runtime:  # short: sockets of other units are below it
        return subprocess.run(
            ["systemd-analyze", *words],
            cwd=cwd,
            env={**os.environ, "XDG_RUNTIME_DIR": runtime},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


def is_before_253() -> bool:
    version = subprocess.run(["systemd-analyze", "--version"], capture_output=True, text=True, check=True).stdout
    return int(version.split()[1].split(".")[0].split("~")[0]) < 253


@needs_systemd
@pytest.mark.parametrize("unit", ["mcpd.service", "mcpd.socket", "user/mcpd.service"])
def test_units_verify(installed: Path, unit: str) -> None:
    where = (installed / unit).parent
    done = analyze("verify", *(["--user"] if where.name == "user" else []), f"./{Path(unit).name}", cwd=where)

    complaints = [line for line in done.stderr.splitlines() if line and not (is_before_253() and line.endswith(OLD))]
    assert (done.returncode, complaints) == (0, [])


@needs_systemd
def test_exposure_of_the_system_unit(installed: Path) -> None:
    done = analyze(
        "security", "--offline=yes", f"--threshold={LEVEL * 10:g}", "--no-pager", "./mcpd.service", cwd=installed
    )

    assert done.returncode == 0, done.stdout


def test_units_agree_with_the_program() -> None:
    for unit in (UNITS / "mcpd.service", UNITS / "user" / "mcpd.service"):
        said = settings(unit)
        assert said["Type"] == ["notify-reload"]
        assert said["KillMode"] == ["mixed"]  # one signal for the daemon: it ends its servers itself
        assert said["RestartPreventExitStatus"] == ["2 78"]
        assert said["Delegate"] == ["memory pids cpu"]
        assert float(said["TimeoutStopSec"][0].rstrip("s")) > 60 + 5  # daemon.DRAIN_LIMIT, and the listener's grace
    system = settings(UNITS / "mcpd.service")
    assert {key: system[key] for key in ("StateDirectory", "RuntimeDirectory", "LogsDirectory")} == {
        "StateDirectory": ["mcpd"], "RuntimeDirectory": ["mcpd"], "LogsDirectory": ["mcpd"],
    }  # fmt: skip
    assert settings(UNITS / "mcpd.socket")["ListenStream"] == ["127.0.0.1:6270"]


@needs_systemd
@pytest.mark.parametrize("takes_away", ["", "sethostname", "@mount"])
def test_servers_are_contained_within_the_units_walls(tmp_path: Path, takes_away: str) -> None:
    """And, to see that the walls are there: without what the unit leaves to bubblewrap, a server does not start."""
    unit = tmp_path / "mcpd.service"
    unit.write_text((UNITS / "mcpd.service").read_text().replace(f" {takes_away}" if takes_away else "\0", ""))
    daemon = Daemon(script_server("time", SERVERS / "time.py"))
    try:
        cage = ROOT / "tests" / "support" / "unit_cage.py"
        serve(daemon, sys.executable, str(cage), str(unit), str(daemon.home))
        wanted = "FAILED" if takes_away else "READY"
        why = wait_for(lambda: _changes(daemon).get(wanted), daemon.output)
        assert bool(takes_away) == ("bubblewrap" in why)
        assert daemon.stop() == 0
    finally:
        daemon.close()


def _changes(daemon: Daemon) -> dict[str, str]:
    """The states that were logged, and why: the socket of a daemon that is another user is not for the tests' user."""
    lines = [json.loads(line) for line in daemon.output().splitlines() if line.startswith("{")]
    return {one["new"]: f"{one['why']}." for one in lines if one["event"] == "instance.changed"}
