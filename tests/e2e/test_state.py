"""What outlives the daemon, what it finds when it starts, and signals that come at a bad time."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.clients import SERVERS as SCRIPTS
from e2e.raw import call, connect
from support.daemon import CHILDREN, Daemon, python_server, running, wait_for

FAST = {"drain_timeout": '"10m"', "stop_timeout": '"1s"'}
QUICK = SCRIPTS / "quick.py"
NAMES = ("a", "b", "c")
SERVERS = "".join(python_server(name, CHILDREN / "mcp_peer.py", **FAST) for name in NAMES)


@pytest.fixture
def stopped() -> Iterator[Daemon]:
    daemon = Daemon(SERVERS)
    yield daemon
    daemon.close()


@pytest.fixture
def daemon(stopped: Daemon) -> Daemon:
    stopped.start()
    return stopped


def logged(daemon: Daemon, event: str) -> int:
    return daemon.output().count(f'"event": "{event}"')


@pytest.mark.parametrize("end", ["in-order", "killed"])
def test_what_operators_wish_outlives_the_daemon(daemon: Daemon, end: str) -> None:
    daemon.ctl("stop", "a")
    daemon.ctl("disable", "b")
    daemon.ctl("stop", "c")
    daemon.ctl("start", "c")
    wished = {"a": "STOPPED", "b": "DISABLED", "c": "READY"}
    assert daemon.states() == wished
    if end == "in-order":
        assert daemon.stop() == 0
    else:
        wait_for(lambda: b"down" in _database(daemon), "the wish is on the disk")
        daemon.kill()

    daemon.start(ready=("c",))
    assert daemon.states() == wished

    daemon.ctl("enable", "b")
    daemon.wait_until("b", lambda one: one["state"] == "READY", "it is READY")
    daemon.ctl("start", "a")
    assert daemon.stop() == 0
    daemon.start()
    assert daemon.states() == dict.fromkeys(NAMES, "READY")


def _database(daemon: Daemon) -> bytes:
    return b"".join(one.read_bytes() for one in (daemon.home / "state").glob("mcpd.db*"))


def test_enabling_does_not_start_what_was_stopped_by_hand(daemon: Daemon) -> None:
    daemon.ctl("stop", "a")
    daemon.ctl("disable", "a")

    done = daemon.ctl("enable", "a")

    assert daemon.states()["a"] == "STOPPED"
    assert "a was stopped by hand: `mcpctl start a` starts it" in done.stderr


def test_wish_is_forgotten_with_its_server(daemon: Daemon) -> None:
    daemon.ctl("stop", "a")
    daemon.write(SERVERS.replace("[servers.a]", "[servers.z]"))
    daemon.ctl("reload")
    daemon.write(SERVERS)

    daemon.ctl("reload")

    daemon.wait_until("a", lambda one: one["state"] == "READY", "it is a new server of that name")


@pytest.mark.parametrize("damage", ["torn", "garbage", "directory"])
def test_database_that_cannot_be_read_is_set_aside_loudly(daemon: Daemon, damage: str) -> None:
    daemon.ctl("stop", "a")
    assert daemon.stop() == 0
    database = daemon.home / "state" / "mcpd.db"
    content = database.read_bytes()
    for one in database.parent.glob("mcpd.db-*"):
        one.unlink()
    if damage == "directory":
        database.unlink()
        database.mkdir()
    else:
        database.write_bytes(content[:5000] + os.urandom(3000) if damage == "torn" else b"no database" * 500)

    daemon.start()

    assert daemon.states() == dict.fromkeys(NAMES, "READY"), "nothing is known of the wish"
    assert any("mcpd.db" in text for text in daemon.control.daemon().warnings), daemon.control.daemon().warnings
    assert logged(daemon, "store.trouble") == 1, daemon.output()
    assert "mcpd.db" in daemon.ctl("events").stdout
    if damage != "directory":
        daemon.ctl("stop", "b")
        assert daemon.stop() == 0
        daemon.start(ready=("a", "c"))
        assert daemon.states()["b"] == "STOPPED"


@pytest.mark.parametrize("name", ["control.sock", "mcp.sock"])
def test_stale_sockets_are_replaced(stopped: Daemon, name: str) -> None:
    run = stopped.home / "run"
    run.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(run / name))
    (run / "mcpd.lock").write_text(f"{os.getpid()}\n")  # an old number, now somebody else's: it is we who run

    stopped.start()

    assert stopped.states() == dict.fromkeys(NAMES, "READY")


def _file(path: Path) -> None:
    path.write_text("mine")


def _directory(path: Path) -> None:
    path.mkdir()


def _link(path: Path) -> None:
    path.symlink_to("elsewhere")


@pytest.mark.parametrize("name", ["control.sock", "mcp.sock"])
@pytest.mark.parametrize("make", [_file, _directory, _link])
def test_foreign_things_in_the_place_of_a_socket_are_left_alone(stopped: Daemon, name: str, make: object) -> None:
    assert callable(make)
    place = stopped.home / "run" / name
    place.parent.mkdir(mode=0o700)
    make(place)
    before = os.lstat(place)

    done = stopped.run("mcpd", "start", check=False)

    assert done.returncode == 78
    assert f"{place}: the socket is there already, and is not a socket; move it away" in done.stderr
    after = os.lstat(place)
    assert (after.st_ino, after.st_mode, after.st_size) == (before.st_ino, before.st_mode, before.st_size)
    assert not (stopped.home / "elsewhere").exists()


def test_socket_that_somebody_serves_is_left_alone(stopped: Daemon) -> None:
    place = stopped.home / "run" / "control.sock"
    place.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as served:
        served.bind(str(place))
        served.listen()

        done = stopped.run("mcpd", "start", check=False)

        assert done.returncode == 78
        assert "is served by another process" in done.stderr
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(place))


def test_lock_that_is_a_link_is_not_followed(stopped: Daemon) -> None:
    run = stopped.home / "run"
    run.mkdir(mode=0o700)
    target = stopped.home / "precious"
    target.write_text("mine")
    (run / "mcpd.lock").symlink_to(target)

    assert stopped.run("mcpd", "start", check=False).returncode == 78
    assert target.read_text() == "mine"


def test_hangup_during_the_shutdown_is_ignored(stopped: Daemon) -> None:
    """Fault 29; supervisord once gave up its shutdown for it."""
    servers = SERVERS + python_server("quick", QUICK, drain_timeout='"10m"', stop_timeout='"1s"')
    stopped.write(servers)
    stopped.start()
    tree = stopped.tree()
    with connect(stopped, "quick") as client:
        client.send(call(1, "hold"))
        stopped.wait_until("quick", lambda one: one["calls"] == 1, "a call is held")
        stopped.write(servers + python_server("new", CHILDREN / "mcp_peer.py"))
        assert stopped.process is not None
        stopped.process.terminate()
        stopped.wait_until("quick", lambda one: one["state"] == "STOPPING", "the drain has begun")
        for _ in range(3):
            stopped.process.send_signal(signal.SIGHUP)
        assert "new" not in stopped.states()
        assert stopped.server("quick")["calls"] == 1

        assert stopped.stop() == 0  # the second signal: not to wait for the call
    assert logged(stopped, "reload.done") == 0
    assert logged(stopped, "daemon.hurrying") == 1
    tree.wait_gone()
    tree.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signal_while_servers_start(stopped: Daemon, number: signal.Signals) -> None:
    stopped.write(SERVERS + python_server("silent", CHILDREN / "mcp_silent.py", stop_timeout='"1s"'))
    stopped.start(ready=())
    stopped.wait_until("silent", lambda one: one["state"] == "INITIALIZING", "one is starting")
    tree = stopped.tree()
    assert stopped.process is not None

    stopped.process.send_signal(number)

    if number == signal.SIGHUP:
        wait_for(lambda: logged(stopped, "reload.done") == 1, stopped.output)
        assert stopped.states()["silent"] == "INITIALIZING"
        assert stopped.stop() == 0
    else:
        assert stopped.process.wait(30) == 0
    tree.wait_gone()
    tree.close()


def test_many_hangups_are_few_reloads_and_the_last_state_counts() -> None:
    with running(SERVERS) as daemon:
        assert daemon.process is not None
        for count in range(20):
            daemon.write(SERVERS + (python_server("new", CHILDREN / "mcp_peer.py") if count == 19 else ""))
            daemon.process.send_signal(signal.SIGHUP)

        daemon.wait_ready(("new", *NAMES))

        assert 1 <= logged(daemon, "reload.done") + logged(daemon, "reload.refused") <= 20
