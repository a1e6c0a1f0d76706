"""The control API as HTTP on a real unix socket: what is asked, answered, refused; streams that end."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mcpd.control import api as module
from mcpd.errors import Problem
from support.memory_fleet import MemoryServer, ServedFleet, served_fleet
from support.waiting import until


class Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=10)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(10)
        self.sock.connect(str(self.path))


@pytest.fixture
def served(tmp_path: Path) -> Iterator[ServedFleet]:
    with served_fleet(tmp_path, MemoryServer("time"), MemoryServer("broken", ["no such module"] * 9)) as fleet:
        yield fleet


@pytest.fixture
def connection(served: ServedFleet) -> Iterator[Connection]:
    connection = Connection(served.socket_path)
    yield connection
    connection.close()


def ask(connection: Connection, method: str, target: str, body: bytes | None = None) -> tuple[int, Any]:
    connection.request(method, target, body)
    response = connection.getresponse()
    return response.status, json.loads(response.read())


def test_servers_are_listed_in_the_registrys_order(connection: Connection) -> None:
    status, body = ask(connection, "GET", "/servers")

    assert status == 200
    assert [(server["name"], server["state"]) for server in body["servers"]] == [
        ("time", "STOPPED"),
        ("broken", "STOPPED"),
    ]


def test_a_server_is_started_and_shown(connection: Connection) -> None:
    assert ask(connection, "POST", "/servers/time/start") == (200, {"ok": True, "state": "READY", "reason": ""})

    status, body = ask(connection, "GET", "/servers/time")
    assert status == 200
    assert body["status"]["state"] == "READY"
    assert body["argv"] == ["/usr/bin/python3", "time.py"]


def test_a_start_that_fails_is_an_answer(connection: Connection) -> None:
    answer = {"ok": False, "state": "BACKOFF", "reason": "no such module"}

    assert ask(connection, "POST", "/servers/broken/start") == (200, answer)
    assert ask(connection, "POST", "/servers/broken/reset-failed") == (200, answer)


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/servers/none"),
        ("GET", "/servers/none/logs"),
        ("POST", "/servers/none/start"),
        ("POST", "/servers/none/stop"),
        ("POST", "/servers/none/restart"),
        ("POST", "/servers/none/reset-failed"),
        ("GET", "/tools?server=none"),
    ],
)
def test_an_unknown_server_is_404_with_a_remedy(connection: Connection, method: str, target: str) -> None:
    status, body = ask(connection, method, target)

    assert (status, body["kind"]) == (404, "NotFound")
    assert body["error"] == "there is no server 'none'"
    assert "mcpctl list" in body["remedy"]


@pytest.mark.parametrize(
    ("method", "target", "status"), [("GET", "/nowhere", 404), ("POST", "/servers", 405), ("GET", "/call", 405)]
)
def test_a_wrong_path_or_method_is_said_in_json(connection: Connection, method: str, target: str, status: int) -> None:
    found, body = ask(connection, method, target)

    assert found == status
    assert body["error"].startswith(f"{method} {target}: ")


@pytest.mark.parametrize(
    ("target", "body"),
    [
        ("/call", b"{"),
        ("/call", b'{"server": 3, "tool": "x"}'),
        ("/call", b"{}"),
        ("/call", b"\xff\xfe"),
        ("/reload", b'{"dry_run": "perhaps"}'),
    ],
)
def test_a_body_that_is_not_understood_is_400(connection: Connection, target: str, body: bytes) -> None:
    status, answer = ask(connection, "POST", target, body)

    assert status == 400
    assert answer["error"].startswith("the request is not understood: ")


def test_a_query_that_is_not_understood_is_400(connection: Connection) -> None:
    assert ask(connection, "GET", "/events?after=soon")[0] == 400


def test_a_body_over_the_bound_is_413(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BODY", 100)

    assert ask(connection, "POST", "/reload", b" " * 101)[0] == 413


def test_a_call_passes_its_bytes_and_brings_the_result_as_it_came(connection: Connection) -> None:
    ask(connection, "POST", "/servers/time/start")
    connection.request(
        "POST", "/call", b'{"server": "time", "tool": "echo", "arguments": {"n": 123456789012345678901,\n "x": 1.50}}'
    )
    response = connection.getresponse()

    assert response.status == 200
    assert response.read() == (
        b'{"content":[{"type":"text","text":"{\\"n\\": 123456789012345678901, \\"x\\": 1.50}"}],'
        b'"x-unknown":12345678901234567890,"half":"\\ud83d"}'
    )


@pytest.mark.parametrize(
    ("fields", "status", "kind"),
    [
        ({"tool": "echo", "arguments": [1]}, 400, "ClientFault"),
        ({"tool": "echo", "timeout": 0}, 400, "ClientFault"),
        ({"tool": "echo", "timeout": 1e9}, 400, "ClientFault"),
        ({"tool": "unknown"}, 400, "ClientFault"),
        ({"tool": "sleep", "timeout": 0.1}, 504, "CallTimeout"),
        ({"tool": "echo", "server": "broken"}, 502, "ServerFault"),
    ],
)
def test_a_call_that_cannot_be_made_says_whose_fault_it_is(
    connection: Connection, fields: dict[str, Any], status: int, kind: str
) -> None:
    ask(connection, "POST", "/servers/time/start")
    found, body = ask(connection, "POST", "/call", json.dumps({"server": "time", **fields}).encode())

    assert (found, body["kind"]) == (status, kind)
    assert body["remedy"]


def test_a_reload_of_a_broken_registry_brings_every_problem(served: ServedFleet, connection: Connection) -> None:
    assert ask(connection, "POST", "/reload", b'{"dry_run":true}')[1]["dry_run"] is True
    served.fleet.registry_problems = [Problem(Path("/r.toml"), 3, "servers.x", "is bad", "mend it")] * 2

    status, body = ask(connection, "POST", "/reload")

    assert status == 422
    assert body["problems"] == ["/r.toml:3: servers.x: is bad; mend it"] * 2


def test_a_defect_is_said_and_the_daemon_goes_on(
    served: ServedFleet, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(served.fleet, "sessions", broken)

    status, body = ask(connection, "GET", "/sessions")

    assert (status, body["error"]) == (500, "defect in mcpd: RuntimeError: a bug")
    connection.close()  # uvicorn ends a connection on which something broke
    assert ask(connection, "GET", "/daemon")[0] == 200


def test_events_without_follow_end(connection: Connection) -> None:
    ask(connection, "POST", "/servers/time/start")
    connection.request("GET", "/events?after=1")
    response = connection.getresponse()

    lines = [json.loads(line) for line in response.read().splitlines()]
    assert [(line["kind"], line["seq"], line["from"], line["to"]) for line in lines] == [
        ("event", 2, "STARTING", "INITIALIZING"),
        ("event", 3, "INITIALIZING", "READY"),
    ]
    assert set(lines[0]) == {"kind", "seq", "at", "server", "instance", "generation", "from", "to", "reason"}


def test_following_sees_what_happens_after_the_head_came(served: ServedFleet, connection: Connection) -> None:
    follower = Connection(served.socket_path)
    follower.request("GET", "/events?follow=true")
    response = follower.getresponse()
    ask(connection, "POST", "/servers/time/start")

    lines = [json.loads(response.readline()) for _ in range(3)]

    assert [line["to"] for line in lines] == ["STARTING", "INITIALIZING", "READY"]
    response.close()
    follower.close()


def test_a_follower_that_hangs_up_leaves_nothing_behind(served: ServedFleet, connection: Connection) -> None:
    for _ in range(3):
        follower = Connection(served.socket_path)
        follower.request("GET", "/events?follow=true")
        response = follower.getresponse()
        response.close()
        follower.close()

    wait_for(served, lambda: served.api._streams == 0)
    assert all(feed.closed for feed in served.fleet.feeds)


def test_too_many_followers_are_refused(
    served: ServedFleet, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_STREAMS", 1)
    follower = Connection(served.socket_path)
    follower.request("GET", "/events?follow=true")
    response = follower.getresponse()

    connection.request("GET", "/events?follow=true")
    refused = connection.getresponse()

    assert (refused.status, refused.getheader("retry-after")) == (503, "1")
    assert "followers" in json.loads(refused.read())["error"]
    response.close()
    follower.close()


def test_a_reader_that_does_not_read_hinders_nobody_and_finds_a_gap(
    served: ServedFleet, connection: Connection
) -> None:
    stuck = Connection(served.socket_path)
    stuck.request("GET", "/events?follow=true")
    response = stuck.getresponse()
    for _ in range(40):
        for _ in range(10):
            served.do("move", "time", "READY", "x" * 10_000)
        assert ask(connection, "GET", "/servers")[0] == 200

    seen: list[dict[str, Any]] = []
    while not any(line["kind"] == "gap" for line in seen):
        if len(seen) > 100:  # it reads again: what comes now has room, and tells of what had none
            served.do("move", "time", "READY", "late")
        seen.append(json.loads(response.readline()))
    seen.append(json.loads(response.readline()))

    missed = seen[-2]["missed"]
    events = [line["seq"] for line in seen if line["kind"] == "event"]
    assert missed > 0
    assert events[:-1] == list(range(1, len(events)))
    assert events[-1] == len(events) + missed
    response.close()
    stuck.close()


def test_logs_are_followed_across_a_rotation(served: ServedFleet, connection: Connection) -> None:
    log = served.fleet.log_path("time")
    log.write_bytes(b"one\ntwo\n")
    connection.request("GET", "/servers/time/logs?lines=1&follow=true")
    response = connection.getresponse()
    assert response.readline() == b"two\n"

    log.rename(log.with_name("time.log.1"))
    log.write_bytes(b"three\n")

    assert response.readline() == b"three\n"
    response.close()


def test_logs_of_a_server_that_never_wrote_are_empty(connection: Connection) -> None:
    connection.request("GET", "/servers/time/logs?lines=-3")
    response = connection.getresponse()

    assert (response.status, response.read()) == (200, b"")


def test_shutdown_ends_the_streams(served: ServedFleet, connection: Connection) -> None:
    followers = []
    for target in ("/events?follow=true", "/servers/time/logs?follow=true"):
        follower = Connection(served.socket_path)
        follower.request("GET", target)
        followers.append((follower, follower.getresponse()))

    assert ask(connection, "POST", "/shutdown") == (200, {"accepted": True})

    for follower, response in followers:
        assert response.read() == b""
        follower.close()
    served.thread.join(10)
    assert not served.thread.is_alive()


def wait_for(served: ServedFleet, condition: Any) -> None:
    """Look again at each turn of the loop, at most ten seconds."""
    done = threading.Event()

    async def look() -> None:
        await until(condition)
        done.set()

    asyncio.run_coroutine_threadsafe(look(), served.loop).result(11)
    assert done.is_set()
