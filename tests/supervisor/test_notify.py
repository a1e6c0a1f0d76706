"""The messages that a service manager gets, on a real socket of its kind."""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from mcpd.notify import LONGEST_STATUS, STATUS_EVERY, Notifier


class Manager:
    """The receiving end."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.socket.settimeout(5)

    def next(self) -> list[str]:
        return self.socket.recv(4096).decode().split("\n")

    def all(self, count: int) -> list[str]:
        """The next datagrams, of one line each."""
        return [line for _ in range(count) for line in self.next()]

    def silent(self) -> bool:
        self.socket.setblocking(False)
        try:
            self.socket.recv(4096)
        except BlockingIOError:
            return True
        finally:
            self.socket.settimeout(5)
        return False


@pytest.fixture(params=["path", "abstract"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "notify") if request.param == "path" else f"@mcpd-test-{uuid.uuid4().hex}"


@pytest.fixture
def manager(address: str) -> Iterator[Manager]:
    manager = Manager(address)
    yield manager
    manager.socket.close()


@pytest.fixture
def notifier(address: str, manager: Manager) -> Iterator[Notifier]:
    notifier = Notifier(address, 3.0)
    yield notifier
    notifier.close()


def test_life_of_a_daemon(notifier: Notifier, manager: Manager) -> None:
    notifier.ready("1 of 1 servers READY")
    assert manager.all(2) == ["READY=1", "STATUS=1 of 1 servers READY"]
    notifier.alive("1 of 1 servers READY")
    assert manager.next() == ["WATCHDOG=1"]
    notifier.alive("0 of 1\nservers READY")
    assert manager.all(2) == ["WATCHDOG=1", "STATUS=0 of 1 servers READY"]
    notifier.stopping()
    assert manager.next() == ["STOPPING=1"]
    assert manager.silent()


def test_reload_says_when_it_began(notifier: Notifier, manager: Manager) -> None:
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notifier.reloading()
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000

    state, stamp = manager.next()
    assert state == "RELOADING=1"
    assert stamp.startswith("MONOTONIC_USEC=")
    assert before <= int(stamp.partition("=")[2]) <= after


def test_without_a_watchdog_only_news_are_sent(address: str, manager: Manager) -> None:
    notifier = Notifier(address)

    assert notifier.interval == STATUS_EVERY
    notifier.alive("x" * 2000)
    assert manager.next() == ["STATUS=" + "x" * LONGEST_STATUS]
    notifier.alive("x" * 2000)
    assert manager.silent()
    notifier.close()


def test_what_a_full_queue_does_not_take_comes_later_the_newest_of_each_kind(
    notifier: Notifier, manager: Manager
) -> None:
    sent = 0
    while not notifier.problem:
        notifier.alive()
        sent += 1
        assert sent < 100_000
    notifier.ready("old")
    notifier.ready("new")
    assert "Resource temporarily unavailable" in notifier.problem
    for _ in range(sent - 1):
        assert manager.next() == ["WATCHDOG=1"]

    notifier.alive()

    assert sorted(manager.all(3)) == ["READY=1", "STATUS=new", "WATCHDOG=1"]
    assert manager.silent()
    assert notifier.problem == ""


def test_manager_that_comes_back_is_told(tmp_path: Path) -> None:
    notifier = Notifier(str(tmp_path / "notify"))
    notifier.ready()
    assert notifier.problem.startswith("the service manager cannot be told: ")
    manager = Manager(str(tmp_path / "notify"))

    notifier.alive("up")

    assert manager.all(2) == ["READY=1", "STATUS=up"]
    manager.socket.close()
    notifier.close()


def test_without_a_manager_nothing_is_done() -> None:
    notifier = Notifier.from_environment({})

    assert notifier.interval is None
    notifier.ready("x")
    notifier.alive("y")
    notifier.close()
    notifier.close()
    assert notifier.problem == ""


def test_kinds_of_sockets_that_are_not_known_are_told() -> None:
    notifier = Notifier("vsock:2:1234")

    assert notifier.interval is None
    assert "vsock:2:1234" in notifier.problem


@pytest.mark.parametrize(
    ("usec", "pid", "watchdog"),
    [
        ("6000000", None, 6.0),
        ("500000", "own", 0.5),
        ("6000000", "1", None),
        ("0", None, None),
        ("-5", None, None),
        ("soon", None, None),
        (None, None, None),
    ],
)
def test_variables_are_read_and_removed(
    tmp_path: Path, usec: str | None, pid: str | None, watchdog: float | None
) -> None:
    given = {
        "NOTIFY_SOCKET": str(tmp_path / "notify"),
        "WATCHDOG_USEC": usec,
        "WATCHDOG_PID": str(os.getpid()) if pid == "own" else pid,
        "PATH": "/bin",
    }
    environ = {key: value for key, value in given.items() if value is not None}

    notifier = Notifier.from_environment(environ)

    assert environ == {"PATH": "/bin"}
    assert notifier.watchdog == watchdog
    assert notifier.interval == (STATUS_EVERY if watchdog is None else min(STATUS_EVERY, watchdog / 2))
    notifier.close()
