"""The client against the real API on a real socket, and against what is no daemon."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mcpd.control import client as module
from mcpd.control.client import ControlClient, NoDaemon, Refused
from mcpd.control.view import Event, Gap, SessionStatus
from mcpd.errors import McpdError, Problem
from support.memory_fleet import MemoryServer, ServedFleet, served_fleet
from support.processes import let_others_in


@pytest.fixture
def served(tmp_path: Path) -> Iterator[ServedFleet]:
    with served_fleet(tmp_path, MemoryServer("time"), MemoryServer("broken", ["no such module"] * 9)) as fleet:
        yield fleet


@pytest.fixture
def client(served: ServedFleet) -> ControlClient:
    return ControlClient(served.socket_path)


def test_what_is_asked_comes_typed(served: ServedFleet, client: ControlClient) -> None:
    session = SessionStatus(
        id="0123abcd", principal="token:default", view="all", transport="streamable-http", since=1.0
    )
    served.fleet.open_sessions.append(session)

    assert client.start("time").ok
    assert [(status.name, status.state) for status in client.servers()] == [("time", "READY"), ("broken", "STOPPED")]
    assert client.server("time").argv == ("/usr/bin/python3", "time.py")
    assert client.sessions() == [session]
    assert [tool.public_name for tool in client.tools()] == ["time__echo", "broken__echo"]
    assert [tool.server for tool in client.tools("time")] == ["time"]
    assert json.loads(bytes(client.tools("time")[0].input_schema))["required"] == ["text"]
    assert client.daemon().pid == os.getpid()


def test_commands_bring_their_outcome(client: ControlClient) -> None:
    assert client.start("broken").reason == "no such module"
    assert client.restart("time").state == "READY"
    assert client.stop("time").state == "STOPPED"
    assert client.reset_failed("broken").ok is False
    assert client.reload(dry_run=True).dry_run is True
    assert client.reload().added == ("new",)


def test_a_call_brings_the_bytes_of_its_result(client: ControlClient) -> None:
    client.start("time")

    result = client.call("time", "echo", b'{"text": "h\xc3\xa9"}', 5.0)

    echo = b'{"content":[{"type":"text","text":"{\\"text\\": \\"h\xc3\xa9\\"}"}],'
    assert result == echo + b'"x-unknown":12345678901234567890,"half":"\\ud83d"}'


def test_a_refusal_has_its_status_kind_and_remedy(served: ServedFleet, client: ControlClient) -> None:
    served.fleet.registry_problems = [Problem(Path("/r.toml"), 3, "servers.x", "is bad", "mend it")] * 2

    with pytest.raises(Refused, match="there is no server 'a/b'") as unknown:
        client.start("a/b")
    with pytest.raises(Refused) as unusable:
        client.reload()

    assert (unknown.value.status, unknown.value.fault.kind) == (404, "NotFound")
    assert unusable.value.fault.problems == ("/r.toml:3: servers.x: is bad; mend it",) * 2


def test_a_name_cannot_lead_to_another_path(client: ControlClient) -> None:
    with pytest.raises(Refused, match="there is no server"):
        client.server("../daemon")


def test_events_that_are_remembered_and_then_end(client: ControlClient) -> None:
    client.start("time")

    with client.events(after=1) as events:
        assert [(event.seq, event.new) for event in events if isinstance(event, Event)] == [
            (2, "INITIALIZING"),
            (3, "READY"),
        ]
    with client.events(after=-1) as events:
        assert [event.seq for event in events if isinstance(event, Event)] == [3]


def test_events_as_they_come(client: ControlClient) -> None:
    with client.events(follow=True) as events:
        client.start("time")

        assert [event.new for _, event in zip(range(3), events, strict=False) if isinstance(event, Event)] == [
            "STARTING",
            "INITIALIZING",
            "READY",
        ]


def test_hanging_up_from_another_thread_ends_the_reading(client: ControlClient) -> None:
    with client.events(follow=True) as events:
        seen: list[Event | Gap] = []
        thread = threading.Thread(target=lambda: seen.extend(events))
        thread.start()
        events.hang_up()
        thread.join(10)

        assert not thread.is_alive()
        assert seen == []


def test_a_log_is_read_and_followed(served: ServedFleet, client: ControlClient) -> None:
    log = served.fleet.log_path("time")
    log.write_bytes(b"1\n2\n3\n")

    with client.logs("time", lines=2) as chunks:
        assert b"".join(chunks) == b"2\n3\n"
    with client.logs("time", lines=1, follow=True) as chunks:
        assert next(chunks) == b"3\n"
        with log.open("ab") as file:
            file.write(b"4\n")
        assert next(chunks) == b"4\n"


def test_shutdown_ends_what_is_followed(served: ServedFleet, client: ControlClient) -> None:
    with client.events(follow=True) as events:
        client.shutdown()
        assert list(events) == []
    served.thread.join(10)

    with pytest.raises(NoDaemon, match="mcpd start"):
        client.servers()


def test_the_first_place_where_a_daemon_listens_counts(served: ServedFleet, tmp_path: Path) -> None:
    stale = tmp_path / "stale.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(stale))

    assert ControlClient(tmp_path / "none", stale, served.socket_path).daemon().pid == os.getpid()
    with pytest.raises(NoDaemon, match=r"no daemon is running \(.*/none: No such file or directory\)"):
        ControlClient(tmp_path / "none", stale).daemon()
    with pytest.raises(NoDaemon):
        ControlClient().daemon()


def answering(path: Path, answer: bytes) -> threading.Thread:
    """Something that accepts one connection, answers so, and hangs up."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def serve() -> None:
        with listener, listener.accept()[0] as link:
            link.recv(65536)
            link.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


@pytest.mark.parametrize(
    ("answer", "kind", "text"),
    [
        (b"", NoDaemon, "went away"),
        (b"SSH-2.0-OpenSSH\r\n", NoDaemon, "went away"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}", NoDaemon, "went away"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{", NoDaemon, "went away"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", McpdError, "restart the daemon"),
        (b"HTTP/1.1 500 No\r\nContent-Length: 4\r\n\r\noops", Refused, "HTTP 500: oops"),
    ],
)
def test_what_is_no_daemons_answer_is_said(tmp_path: Path, answer: bytes, kind: type[Exception], text: str) -> None:
    thread = answering(tmp_path / "s", answer)

    with pytest.raises(kind, match=text):
        ControlClient(tmp_path / "s").servers()
    thread.join(10)


def test_a_daemon_that_does_not_answer_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUERY_TIMEOUT", 0.05)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()

        with pytest.raises(NoDaemon, match="did not answer in time"):
            ControlClient(tmp_path / "s").servers()


@pytest.mark.skipif(os.getuid() != 0, reason="needs another user to listen")
def test_a_socket_of_another_user_is_not_trusted(tmp_path: Path) -> None:
    script = (
        "import os, socket, sys; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); os.setuid(65534)\n"
        "s.listen(); print('on', flush=True); s.accept()[0].recv(1)\n"
    )
    path = tmp_path / "s"
    with subprocess.Popen([sys.executable, "-c", script, path], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        client = (
            "import os, sys; from pathlib import Path; from mcpd.control.client import ControlClient, NoDaemon\n"
            "os.setuid(65533)\n"
            "try: ControlClient(Path(sys.argv[1])).daemon()\n"
            "except NoDaemon as error: print(error)\n"
        )
        let_others_in(path)
        said = subprocess.run([sys.executable, "-c", client, path], capture_output=True, text=True, check=True)

    assert "belongs to user 65534" in said.stdout


SERVICE = """
import os, socket, subprocess, sys
from pathlib import Path
from mcpd.control.client import ControlClient, NoDaemon

subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0755", "none", "/run"], check=True)  # in a namespace of our own
place = Path("/run", *sys.argv[2:], "mcpd")
place.parent.mkdir(exist_ok=True)
place.parent.chmod(int(sys.argv[1], 8))
place.mkdir(mode=0o700)
os.chown(place, 65534, 65534)
come, go = os.pipe()
if os.fork() == 0:
    os.setuid(65534)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(place / "s"))
    listening.listen()
    os.write(go, b"x")
    listening.accept()[0].recv(1)
    os._exit(0)
os.read(come, 1)
try:
    ControlClient(place / "s").daemon()
except NoDaemon as error:
    print(error)
os.wait()
"""


@pytest.mark.skipif(os.getuid() != 0, reason="needs another user to listen, and root to ask")
@pytest.mark.parametrize(
    ("mode", "above", "trusted"),
    [("755", [], True), ("777", ["open"], False)],
    ids=["given-by-root", "where-anybody-can-make-one"],
)
def test_root_trusts_a_service_that_has_its_directory_from_root(mode: str, above: list[str], trusted: bool) -> None:
    argv = ["unshare", "-m", sys.executable, "-c", SERVICE, mode, *above]

    said = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=True).stdout

    assert said != ""
    assert ("belongs to user 65534" not in said) == trusted, said


def test_whoever_sits_at_the_first_place_keeps_nobody_from_the_next(
    served: ServedFleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    squatted = tmp_path / "squatted"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(squatted))
        listener.listen()
        monkeypatch.setattr(module, "is_trusted", lambda path, uid: path != str(squatted))

        assert ControlClient(squatted, served.socket_path).daemon().pid == os.getpid()
        with pytest.raises(NoDaemon, match=r"squatted: belongs to user .*daemon\.operator_group"):
            ControlClient(tmp_path / "none", squatted, tmp_path / "none").daemon()


def test_the_client_is_light() -> None:
    heavy = "asyncio", "pydantic", "starlette", "typer", "rich"
    script = "import sys, mcpd.control.client; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()

    assert not set(heavy) & set(loaded)
