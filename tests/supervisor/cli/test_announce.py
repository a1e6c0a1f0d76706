"""What is shown while a daemon starts, with servers whose states the test decides."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mcpd.cli import announce as module
from mcpd.cli import render
from mcpd.cli.announce import announce, announce_quietly
from mcpd.cli.logstream import LogStream
from mcpd.control.client import ControlClient
from support.memory_fleet import MemoryServer, ServedFleet, served_fleet


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Watched(io.StringIO):
    """Says when some text was written."""

    def __init__(self, text: str, then: threading.Event) -> None:
        super().__init__()
        self._text, self._then = text, then

    def write(self, text: str) -> int:
        written = super().write(text)
        if self._text in self.getvalue():
            self._then.set()
        return written


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServedFleet]:
    monkeypatch.setattr(module, "POLL", 0.01)
    monkeypatch.setattr(module, "START_DELAY", 0.1)
    with served_fleet(tmp_path, MemoryServer("time"), MemoryServer("notes")) as fleet:
        yield fleet


@pytest.fixture
def client(served: ServedFleet) -> ControlClient:
    return ControlClient(served.socket_path)


def test_each_server_gets_its_line_when_it_settles(served: ServedFleet, client: ControlClient) -> None:
    served.do("move", "time", "STARTING")
    client.start("notes")
    notes_told = threading.Event()
    stream = Watched("notes            READY", notes_told)
    thread = threading.Thread(target=announce, args=(client, render.console(stream)))
    thread.start()
    assert notes_told.wait(10)
    assert "time " not in stream.getvalue()

    served.do("move", "time", "READY")
    thread.join(10)

    lines = stream.getvalue().split("\n")
    assert not thread.is_alive()
    assert [line.split() for line in lines if line.startswith("  ") and "READY" in line] == [
        ["notes", "READY"],
        ["time", "READY"],
    ]
    assert "2 servers: 2 READY; 24.0 MiB" in lines
    assert "\x1b" not in stream.getvalue()


def test_patience_ends(served: ServedFleet, client: ControlClient) -> None:
    served.do("move", "time", "STARTING")
    stream = io.StringIO()

    announce(client, render.console(stream), patience=0.05)

    assert "2 servers: 1 STARTING, 1 STOPPED" in stream.getvalue()
    assert stream.getvalue().endswith("let a client use them\n")


def test_a_server_that_waits_for_its_turn_has_not_settled(
    served: ServedFleet, client: ControlClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "START_DELAY", 60.0)
    seen = threading.Event()
    stream = Watched("bearer token", seen)
    thread = threading.Thread(target=announce, args=(client, render.console(stream)))
    thread.start()
    assert seen.wait(10)

    client.start("time")
    client.start("notes")
    thread.join(10)

    assert "2 servers: 2 READY" in stream.getvalue()
    assert "STOPPED" not in stream.getvalue()


def test_on_a_terminal_the_log_goes_above_the_table(
    served: ServedFleet, client: ControlClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    served.do("move", "time", "STARTING")
    client.start("notes")
    below, shown = io.StringIO(), Terminal()
    log = LogStream(below)
    thread = threading.Thread(target=announce, args=(client, render.console(shown), log))
    thread.start()
    while log.divert is None:
        assert thread.is_alive()
    log.write("a \x1b[31mline\x1b[0m of the log\n")

    served.do("move", "time", "READY")
    thread.join(10)

    log.write("later\n")
    assert below.getvalue() == "later\n"
    assert "of the log" in shown.getvalue()
    assert "\x1b[1A" in shown.getvalue()
    assert shown.getvalue().index("of the log") < shown.getvalue().rindex("NAME")


def test_a_daemon_that_is_gone_already_is_no_error(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    announce_quietly(ControlClient(tmp_path / "none"), None)

    assert capfd.readouterr() == ("", "")
