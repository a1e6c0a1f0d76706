"""Stopping a daemon and waiting until it is gone; starting one is shown with a real daemon in test_mcpd.py."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from mcpd.cli.detach import stop_daemon
from mcpd.cli.failures import Failed
from mcpd.control.client import ControlClient, NoDaemon
from mcpd.control.view import DaemonStatus
from support.memory_fleet import MemoryFleet, MemoryServer, ServedFleet, served_fleet


@pytest.fixture
def served(tmp_path: Path) -> Iterator[ServedFleet]:
    with served_fleet(tmp_path, MemoryServer("time")) as fleet:
        yield fleet


def pretend(monkeypatch: pytest.MonkeyPatch, pid: int) -> None:
    """The daemon on the socket says that its pid is this one."""
    status = MemoryFleet.daemon

    def with_pid(fleet: MemoryFleet) -> DaemonStatus:
        return msgspec.structs.replace(status(fleet), pid=pid)

    monkeypatch.setattr(MemoryFleet, "daemon", with_pid)


def test_it_returns_when_the_process_has_ended(served: ServedFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        pretend(monkeypatch, process.pid)
        shut_down = MemoryFleet.request_shutdown

        def end_both(fleet: MemoryFleet) -> None:
            assert process.stdin is not None
            process.stdin.close()
            shut_down(fleet)

        monkeypatch.setattr(MemoryFleet, "request_shutdown", end_both)

        assert stop_daemon(ControlClient(served.socket_path), 10.0) == process.pid


def test_a_process_that_does_not_end_is_said(served: ServedFleet) -> None:
    began = time.monotonic()

    with pytest.raises(Failed, match=rf"mcpd \(pid {os.getpid()}\) is still running after 0.1 s"):
        stop_daemon(ControlClient(served.socket_path), 0.1)

    assert time.monotonic() - began < 10


def test_where_its_pid_means_nothing_the_socket_tells(served: ServedFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, 2**22 + 1)  # over PID_MAX_LIMIT (proc(5)): nobody can have it

    assert stop_daemon(ControlClient(served.socket_path), 10.0) == 2**22 + 1


def test_a_socket_that_does_not_fall_silent_is_said(served: ServedFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, 2**22 + 1)
    monkeypatch.setattr(MemoryFleet, "request_shutdown", lambda fleet: None)

    with pytest.raises(Failed, match="is still running"):
        stop_daemon(ControlClient(served.socket_path), 0.1)

    monkeypatch.undo()


def test_without_a_daemon(tmp_path: Path) -> None:
    with pytest.raises(NoDaemon):
        stop_daemon(ControlClient(tmp_path / "none"), 1.0)
