"""Every bound of docs/access.md at a real daemon: what comes over the wire when it is reached, and what is counted."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest

from e2e.clients import SERVERS
from e2e.raw import INITIALIZE, Http, call, http, request
from mcpd.control.view import TokenRequest
from support.daemon import DEADLINE, Daemon, running, script_server, wait_for

WORKSHOP = SERVERS / "workshop.py"
REGISTRY = (
    script_server("shop", WORKSHOP)
    + script_server("few", WORKSHOP)
    + script_server("busy", WORKSHOP, request_rate="0.5", request_burst="2")
)
FRONTDOOR = """
max_body = "8KiB"
max_header = "2KiB"
request_timeout = "1s"
max_connections = 12
max_sessions = 3
max_in_flight = 2
request_rate = 0.5
request_burst = 6
"""


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with running(REGISTRY, frontdoor=FRONTDOOR) as made:
        yield made


def metric(daemon: Daemon, name: str, limit: str) -> float:
    text = httpx2.get(f"{daemon.url}/metrics", headers=daemon.headers).text
    found = re.search(rf'^{name}_total{{limit="{limit}"}} (\S+)$', text, re.MULTILINE)
    return float(found[1]) if found else 0.0


@contextmanager
def counted(daemon: Daemon, limit: str, name: str = "mcpd_http_limited", times: int = 1) -> Iterator[None]:
    """What happens in the block is counted as this bound."""
    before = metric(daemon, name, limit)
    yield
    wait_for(lambda: metric(daemon, name, limit) == before + times, f"{name}{{limit={limit}}} grows by {times}")


@contextmanager
def tcp(daemon: Daemon) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", daemon.port), timeout=DEADLINE) as link:
        yield link


def everything(link: socket.socket) -> bytes:
    """What comes until the other side closes."""
    found = b""
    try:
        while data := link.recv(65536):
            found += data
    except ConnectionResetError:
        pass
    return found


def head(daemon: Daemon, *lines: str) -> bytes:
    common = ("POST /mcp HTTP/1.1", "Host: localhost", f"Authorization: Bearer {daemon.token}")
    return "\r\n".join([*common, "Content-Type: application/json", *lines, "", ""]).encode()


@contextmanager
def session(daemon: Daemon, path: str = "/mcp", **params: Any) -> Iterator[Http]:
    """A session that is closed at the end: there are three."""
    with http(daemon, path, session=True, **params) as client:
        try:
            yield client
        finally:
            client.send("DELETE")


# what comes in


def test_connections(daemon: Daemon) -> None:
    held: list[socket.socket] = []
    try:
        before = metric(daemon, "mcpd_http_limited", "connections")
        held += [socket.create_connection(("127.0.0.1", daemon.port), timeout=DEADLINE) for _ in range(20)]
        closed = [link for link in held if not link_is_open(link)]
        assert len(held) - len(closed) <= 12
    finally:
        for link in held:
            link.close()
    wait_for(lambda: metric_or_none(daemon) is not None, "there is room again")
    assert metric(daemon, "mcpd_http_limited", "connections") >= before + len(closed) > before


def link_is_open(link: socket.socket) -> bool:
    link.settimeout(0.2)
    try:
        return bool(link.recv(1))
    except TimeoutError:
        return True
    except ConnectionResetError:
        return False


def metric_or_none(daemon: Daemon) -> float | None:
    try:
        return metric(daemon, "mcpd_http_limited", "connections")
    except httpx2.TransportError:
        return None


@pytest.mark.parametrize("where", ["path", "header", "headers"])
def test_head(daemon: Daemon, where: str) -> None:
    path = "/mcp?" + "x" * 3000 if where == "path" else "/mcp"
    lines = {"path": [], "header": ["X-Long: " + "y" * 3000], "headers": [f"X-{n}: y" for n in range(400)]}[where]
    with counted(daemon, "head"), tcp(daemon) as link:
        link.sendall("\r\n".join([f"GET {path} HTTP/1.1", "Host: localhost", *lines, "", ""]).encode())
        assert everything(link).startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize("declared", [True, False])
def test_body(daemon: Daemon, declared: bool) -> None:
    body = b'{"a":"' + b"x" * 9000 + b'"}'
    with counted(daemon, "body"), tcp(daemon) as link:
        if declared:
            link.sendall(head(daemon, f"Content-Length: {len(body)}", "Connection: close") + body)
        else:
            chunk = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
            link.sendall(head(daemon, "Transfer-Encoding: chunked", "Connection: close") + chunk)
        answer = everything(link)
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b"the body is larger than 8192 bytes; see frontdoor.max_body" in answer


@pytest.mark.parametrize("sent", [b"", b"POST /mcp HT", b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nX-", None])
def test_slow_senders(daemon: Daemon, sent: bytes | None) -> None:
    began = time.monotonic()
    with counted(daemon, "slow-request"), tcp(daemon) as link:
        link.sendall(head(daemon, "Content-Length: 100") + b"{" if sent is None else sent)
        assert everything(link).startswith(b"HTTP/1.1 408 ") or sent is None
    assert time.monotonic() - began < 10


DEEP = b'{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"a":' + b"[" * 300 + b"]" * 300 + b"}}"
TOO_DEEP = {"code": -32700, "message": "JSON is nested deeper than 256 levels"}


@pytest.mark.parametrize("way", ["no session", "session", "http+sse"])
def test_nesting(daemon: Daemon, way: str) -> None:
    with counted(daemon, "json-depth"):
        if way == "http+sse":
            with httpx2.stream("GET", f"{daemon.url}/sse", headers=daemon.headers, timeout=DEADLINE) as events:
                lines = events.iter_lines()
                path = next(line for line in lines if line.startswith("data:")).removeprefix("data:")
                with http(daemon, path.strip()) as client:
                    answer = client.post(DEEP)
        elif way == "session":
            with session(daemon) as client:
                answer = client.post(DEEP)
        else:
            with http(daemon) as client:
                answer = client.post(DEEP)
    assert (answer.status_code, answer.json()["error"]) == (400, TOO_DEEP)


def test_batches(daemon: Daemon) -> None:
    with session(daemon, protocolVersion="2025-03-26") as client:
        with counted(daemon, "json-depth"):
            assert client.post(b"[" + DEEP + b"]").json()[0]["error"] == TOO_DEEP
        with counted(daemon, "batch"):
            answer = client.post([request(n, "ping") for n in range(101)])
        assert (answer.status_code, answer.json()["error"]["message"]) == (400, "more than 100 messages in a batch")


# what a client may have


def test_sessions(daemon: Daemon) -> None:
    with http(daemon) as client:
        opened = [client.post(request(0, "initialize", **INITIALIZE)) for _ in range(3)]
        try:
            with counted(daemon, "sessions"):
                refused = client.post(request(0, "initialize", **INITIALIZE))
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "10")
            assert "default has 3 sessions open already; close some with DELETE" in refused.json()["error"]["message"]
        finally:
            for one in opened:
                assert client.send("DELETE", Mcp_Session_Id=one.headers["mcp-session-id"]).status_code == 204
    with session(daemon):
        pass


def test_requests_in_flight(daemon: Daemon) -> None:
    def under_way() -> int:
        return next(one.calls for one in daemon.control.servers() if one.name == "few")

    with session(daemon, "/servers/few/mcp") as client, tcp(daemon) as one, tcp(daemon) as two:
        lines = [f"Mcp-Session-Id: {client.client.headers['Mcp-Session-Id']}", "Accept: application/json"]
        lines[1] += ", text/event-stream"
        for n, link in ((1, one), (2, two)):
            body = json.dumps(call(n, "hold", key=f"k{n}")).encode()
            asked = head(daemon, *lines, f"Content-Length: {len(body)}").replace(b"/mcp", b"/servers/few/mcp", 1)
            link.sendall(asked + body)
        wait_for(lambda: under_way() == 2, "both are under way")
        with counted(daemon, "in-flight"), counted(daemon, "in-flight", "mcpd_calls_limited"):
            refused = client.post(call(3, "echo", text="x"))
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert refused.json()["error"]["message"] == "default has 2 calls in flight; wait for an answer"
        assert refused.json()["id"] == 3
        for n in (1, 2):
            cancelled = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": n}}
            assert client.post(cancelled).status_code == 202
    log = daemon.home / "state" / "audit.jsonl"  # is made with its first lines
    wait_for(lambda: log.exists() and '"name":"echo","outcome":"overloaded"' in log.read_text(), "it is audited")


def test_request_rate_of_a_client(daemon: Daemon) -> None:
    with session(daemon) as client, counted(daemon, "rate"), counted(daemon, "rate", "mcpd_calls_limited"):
        answers = iter(lambda: client.post(call(1, "shop__echo", text="x")), None)
        refused = next(answer for answer in itertools.islice(answers, 20) if answer.status_code != 200)
    assert refused.status_code == 429
    assert refused.json()["error"]["message"] == "more than 0.5 requests a second to server 'shop'"
    assert 1 <= int(refused.headers["retry-after"]) <= 2


def test_request_rate_of_a_server(daemon: Daemon) -> None:
    token = daemon.control.create_token(TokenRequest(name="second"))
    with session(daemon) as client, http(daemon) as other:
        other.client.headers["Authorization"] = f"Bearer {token}"
        other.open_session()
        with counted(daemon, "server-rate"), counted(daemon, "server-rate", "mcpd_calls_limited"):
            for one in itertools.cycle((client, other)):
                refused = one.post(call(1, "busy__echo", text="x"))
                if refused.status_code != 200:
                    break
        assert one is client  # two were in the bucket
        assert refused.status_code == 503
        why = "server 'busy' takes 0.5 requests a second, of all clients together"
        assert refused.json()["error"]["message"] == why
        assert 1 <= int(refused.headers["retry-after"]) <= 2
        other.send("DELETE")


# mcp.sock


class Local:
    """A connection to `mcp.sock`."""

    def __init__(self, daemon: Daemon) -> None:
        self.link = socket.socket(socket.AF_UNIX)
        self.link.settimeout(DEADLINE)
        self.link.connect(str(daemon.home / "run" / "mcp.sock"))
        self.lines = self.link.makefile("rb")

    def say(self, *messages: Any) -> Any:
        """Send, and return the line that comes."""
        for message in messages:
            self.link.sendall((message if isinstance(message, bytes) else json.dumps(message).encode()) + b"\n")
        return self.hear()

    def hear(self) -> Any:
        line = self.lines.readline()
        return json.loads(line) if line else None

    def open(self) -> None:
        assert self.say({"mcpd": 1, "view": "all"})["ok"]
        assert "result" in self.say(request(0, "initialize", **INITIALIZE))

    def close(self) -> None:
        self.lines.close()
        self.link.close()


@contextmanager
def local(daemon: Daemon) -> Iterator[Local]:
    one = Local(daemon)
    try:
        yield one
    finally:
        one.close()


def test_lines_nesting_and_rates_of_the_local_socket(daemon: Daemon) -> None:
    with local(daemon) as one:
        one.open()
        with counted(daemon, "line", "mcpd_local_limited"):
            assert "a message of 9000 bytes: more than 8192 are not taken" in str(one.say(b"x" * 9000))
        with counted(daemon, "json-depth", "mcpd_local_limited"):
            assert "nested deeper than 256 levels" in str(one.say(b'{"a":' + b"[" * 300 + b"]" * 300 + b"}"))
        with counted(daemon, "rate", "mcpd_local_limited"):
            answers = [one.say(call(number, "shop__echo", text="x")) for number in range(7)]
        refused = answers[-1]["error"]
        assert refused["message"] == "more than 0.5 requests a second to server 'shop'"
        assert 0 < refused["data"]["retryAfter"] <= 2
        with local(daemon) as again:  # the bucket is the user's, not the connection's
            again.open()
            assert "more than 0.5 requests a second" in str(again.say(call(1, "shop__echo", text="x")))
        wait_for(lambda: len(daemon.control.sessions()) == 1, "the other one is over")


def test_sessions_of_a_local_user(daemon: Daemon) -> None:
    held = [Local(daemon) for _ in range(3)]
    try:
        for one in held:
            one.open()
        with counted(daemon, "sessions", "mcpd_local_limited"), local(daemon) as further:
            error = further.hear()["error"]
        assert (error["code"], "has 3 sessions open already" in error["message"]) == ("overloaded", True)
    finally:
        for one in held:
            one.close()
    wait_for(lambda: not daemon.control.sessions(), "they are gone")
    with local(daemon) as one:
        one.open()


def test_a_slow_reader_of_the_local_socket(daemon: Daemon) -> None:
    with local(daemon) as deaf, counted(daemon, "slow-reader", "mcpd_local_limited"):
        assert deaf.say({"mcpd": 1, "view": "server:few"})["ok"]
        assert "result" in deaf.say(request(0, "initialize", **INITIALIZE))
        for number in (1, 2):  # one answer that waits, and one that finds no room beside it
            deaf.link.sendall(json.dumps(call(number, "large", size=6_000_000)).encode() + b"\n")
        wait_for(lambda: not daemon.control.sessions(), "its session is over")


# control.sock


def test_bodies_and_followers_of_the_control_socket(daemon: Daemon) -> None:
    def link() -> socket.socket:
        made = socket.socket(socket.AF_UNIX)
        made.settimeout(DEADLINE)
        made.connect(str(daemon.home / "run" / "control.sock"))
        return made

    with counted(daemon, "head", "mcpd_control_limited"), link() as one:
        one.sendall(b"GET /servers HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 70_000 + b"\r\n\r\n")
        assert everything(one).startswith(b"HTTP/1.1 431 ")
    with counted(daemon, "body", "mcpd_control_limited"), link() as one:
        one.sendall(b"POST /call HTTP/1.1\r\nHost: x\r\nContent-Length: 17000000\r\nConnection: close\r\n\r\n")
        with contextlib.suppress(ConnectionError):  # it need not take all of it
            one.sendall(b" " * 17_000_000)
        answer = everything(one)
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b"the body is over 16777216 bytes" in answer
    followers = []
    try:
        with counted(daemon, "streams", "mcpd_control_limited"):
            for _ in range(65):
                followers.append(one := link())
                one.sendall(b"GET /events?follow=true HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                answer = one.recv(65536)
            answer += everything(one)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"64 followers of events and logs are connected" in answer
        assert b"retry-after: 1\r\n" in answer.lower()
    finally:
        for one in followers:
            one.close()
