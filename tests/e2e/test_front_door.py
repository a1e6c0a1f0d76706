"""What the front door refuses, and how; and that a client that does not read harms nobody but itself."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from e2e.clients import SERVERS, VIEW
from e2e.raw import INITIALIZE, call, events, http, request
from support.daemon import Daemon, python_server, running, wait_for

MAX_BODY = 64 * 1024
REGISTRY = python_server("quick", SERVERS / "quick.py") + python_server("other", SERVERS / "quick.py")


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    views = f'[views.{VIEW}]\nservers = ["quick"]'
    with running(REGISTRY, frontdoor='max_body = "64KiB"', views=views) as daemon:
        yield daemon


INITIALIZATION = request(1, "initialize", **INITIALIZE)
ENDPOINTS = ["/mcp", "/servers/quick/mcp", f"/views/{VIEW}/mcp", "/sse", "/servers/quick/sse", f"/views/{VIEW}/sse"]


@pytest.mark.parametrize("path", [*ENDPOINTS, "/messages/?session_id=x", "/metrics", "/no/such/path"])
def test_nothing_is_served_without_the_token(daemon: Daemon, path: str) -> None:
    with http(daemon, path) as client:
        for method in ("GET", "POST", "DELETE"):
            answer = client.send(method, json.dumps(INITIALIZATION).encode(), Authorization=None)

            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == 'Bearer realm="mcpd"'
            assert "mcpctl token" in answer.text


def test_wrong_tokens_are_refused_and_soon_not_looked_at() -> None:
    with running(REGISTRY) as daemon, http(daemon) as client:
        for wrong in (
            "Bearer",
            "Bearer wrong",
            "Basic YTpi",
            f"Bearer\t{daemon.token}x",
            f"Bearer {daemon.token[:-1]}",
        ):
            answer = client.post(INITIALIZATION, Authorization=wrong)
            assert answer.status_code == 401
            assert 'error="invalid_token"' in answer.headers["www-authenticate"]

        for _ in range(100):
            answer = client.post(INITIALIZATION, Authorization="Bearer guess")
            if answer.status_code != 401:
                break
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) > 0
        assert client.post(INITIALIZATION).status_code == 200, "others on this machine have the right one"


def test_token_in_the_query_is_no_token(daemon: Daemon) -> None:
    with http(daemon, f"/mcp?access_token={daemon.token}&token={daemon.token}") as client:
        assert client.post(INITIALIZATION, Authorization=None).status_code == 401


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_health_needs_no_token(daemon: Daemon, path: str) -> None:
    with http(daemon, path) as client:
        assert client.send("GET", Authorization=None).status_code == 200


@pytest.mark.parametrize("path", ENDPOINTS)
@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "evil.example:6270"},
        {"Host": "127.0.0.1.evil.example"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost.evil.example"},
    ],
    ids=lambda headers: "-".join(*headers.items()),
)
def test_foreign_host_or_origin_is_refused_with_the_token_too(
    daemon: Daemon, path: str, headers: dict[str, str]
) -> None:
    with http(daemon, path) as client:
        assert client.post(INITIALIZATION, **headers).status_code == 403
        assert client.send("GET", **headers).status_code == 403


@pytest.mark.parametrize("origin", ["http://localhost:3000", "http://127.0.0.1", "https://[::1]:8443"])
def test_pages_of_this_machine_are_let_in(daemon: Daemon, origin: str) -> None:
    with http(daemon) as client:
        assert client.post(INITIALIZATION, Origin=origin).status_code == 200


@pytest.mark.parametrize("declared", [True, False])
def test_body_over_the_limit_is_413(daemon: Daemon, declared: bool) -> None:
    body = json.dumps(call(1, "quick__mirror", text="x" * MAX_BODY)).encode()
    pieces = body if declared else iter([body[:1000], body[1000:]])
    with http(daemon, session=True) as client:
        wanted = client.client.build_request("POST", client.url, content=pieces)
        assert client.client.send(wanted).status_code == 413

        assert client.post(call(2, "quick__pid")).status_code == 200, "the session goes on"


def test_unknown_and_foreign_sessions_are_404(daemon: Daemon) -> None:
    with http(daemon, session=True) as client, http(daemon, "/servers/quick/mcp", session=True) as elsewhere:
        session = client.client.headers["Mcp-Session-Id"]
        for method in ("POST", "GET", "DELETE"):
            body = json.dumps(request(1, "ping")).encode() if method == "POST" else None
            assert client.send(method, body, Mcp_Session_Id="0" * 32).status_code == 404
            assert elsewhere.send(method, body, Mcp_Session_Id=session).status_code == 404, "it is of another view"
        assert client.post(request(1, "ping")).json()["result"] == {}


def test_deleted_session_is_gone(daemon: Daemon) -> None:
    with http(daemon, session=True) as client:
        assert client.send("DELETE").status_code == 204

        assert client.post(request(1, "ping")).status_code == 404
        assert client.send("GET").status_code == 404


def test_unknown_server_view_and_path_are_404(daemon: Daemon) -> None:
    for path in ("/servers/nobody/mcp", "/servers/nobody/sse", "/views/none/mcp", "/mcp/more", "/"):
        with http(daemon, path) as client:
            assert client.post(INITIALIZATION).status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/mcp", {"GET", "POST", "DELETE"}),
        ("PATCH", "/servers/quick/mcp", {"GET", "POST", "DELETE"}),
        ("POST", "/sse", {"GET"}),
        ("DELETE", "/sse", {"GET"}),
        ("GET", "/messages/?session_id=x", {"POST"}),
    ],
)
def test_wrong_method_is_405_and_says_which_would_do(daemon: Daemon, method: str, path: str, allowed: set[str]) -> None:
    with http(daemon, path) as client:
        answer = client.send(method, b"{}")

        assert answer.status_code == 405
        assert set(answer.headers["allow"].split(", ")) == allowed


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", None])
def test_wrong_content_type_is_415(daemon: Daemon, kind: str | None) -> None:
    """A form on a web page can send these without asking first."""
    with http(daemon) as client:
        assert client.post(INITIALIZATION, Content_Type=kind).status_code == 415


@pytest.mark.parametrize("accept", ["text/html", "application/json", "text/event-stream"])
def test_client_that_takes_no_answer_is_406(daemon: Daemon, accept: str) -> None:
    with http(daemon) as client:
        assert client.post(INITIALIZATION, Accept=accept).status_code == 406


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", -32700),
        (b"", -32700),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{}} x', -32700),
        (b'{"jsonrpc":"2.0","id":1,"method":"\xff"}', -32700),
        (b'{"a":' * 2000 + b"1" + b"}" * 2000, -32700),
        (b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"pid","a":' + b"[" * 900, -32700),
        (b'{"jsonrpc":"1.0","id":1,"method":"ping"}', -32600),
        (b'{"jsonrpc":"2.0","id":{},"method":"ping"}', -32600),
        (b'{"jsonrpc":"2.0","id":1}', -32600),
        (b'"ping"', -32600),
    ],
)
def test_what_is_no_message_is_told_so(daemon: Daemon, body: bytes, code: int) -> None:
    with http(daemon, session=True) as client:
        answer = client.post(body)

        assert answer.status_code == 400
        assert answer.json()["error"]["code"] == code
        assert client.post(request(1, "ping")).json()["result"] == {}, "the session goes on"


def test_batches_are_part_of_one_revision_only(daemon: Daemon) -> None:
    batch = [request("a", "ping"), call("b", "quick__pid"), {"jsonrpc": "2.0", "method": "notifications/x"}]
    with http(daemon, session=True, protocolVersion="2025-03-26") as client:
        answer = client.post(batch)
        answers = list(events(answer)) if "event-stream" in answer.headers["content-type"] else answer.json()
        found = {one["id"]: one for one in answers}
        assert set(found) == {"a", "b"}
        assert found["b"]["result"]["content"][0]["text"].isdigit()
        assert client.post([batch[2]]).status_code == 202, "nothing in it wants an answer"
    for revision in ("2025-06-18", "2025-11-25"):
        with http(daemon, session=True, protocolVersion=revision) as client:
            refused = client.post(batch)
            assert refused.status_code == 400
            assert refused.json()["error"]["code"] == -32600


@pytest.mark.parametrize("asked", ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"])
@pytest.mark.parametrize("path", ["/mcp", "/servers/quick/mcp"])
def test_every_revision_with_a_handshake_is_spoken(daemon: Daemon, path: str, asked: str) -> None:
    with http(daemon, path) as client:
        answer = client.post(request(1, "initialize", **{**INITIALIZE, "protocolVersion": asked}))
        assert answer.json()["result"]["protocolVersion"] == asked


def test_unknown_revisions_get_the_newest_or_an_error(daemon: Daemon) -> None:
    with http(daemon, session=True) as client:
        answer = client.post(
            request(1, "initialize", **{**INITIALIZE, "protocolVersion": "2031-01-01"}),
            Mcp_Session_Id=None,
            MCP_Protocol_Version=None,
        )
        assert answer.json()["result"]["protocolVersion"] == "2025-11-25"
        assert client.post(request(1, "ping"), MCP_Protocol_Version="2031-01-01").status_code == 400


def test_request_of_the_era_without_a_handshake_is_answered_without_one(daemon: Daemon) -> None:
    client_says = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "raw", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    headers = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "server/discover"}
    with http(daemon) as client:
        discovered = client.post(request(1, "server/discover", _meta=client_says), **headers)
        assert discovered.status_code == 200
        assert "2026-07-28" in discovered.json()["result"]["supportedVersions"]
        assert "mcp-session-id" not in discovered.headers

        wanted = request(2, "tools/call", name="quick__pid", arguments={}, _meta=client_says)
        called = client.post(wanted, **{**headers, "Mcp-Method": "tools/call", "Mcp-Name": "quick__pid"})
        assert called.json()["result"]["content"][0]["text"].isdigit()


# A client that does not read

FLOOD = 24  # answers of a megabyte: more than socket buffers and outbox hold together
MEGABYTE = 1_000_000
PROMPT = 2.0  # seconds that others may have to wait for an answer meanwhile


class Deaf:
    """A connection that reads the head of an answer and then no more."""

    def __init__(self, daemon: Daemon, head: str, body: bytes = b"") -> None:
        self.socket = socket.create_connection(("127.0.0.1", daemon.port), timeout=30)
        lines = [head, f"Host: 127.0.0.1:{daemon.port}", *(f"{k}: {v}" for k, v in daemon.headers.items())]
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode() + body)

    def __enter__(self) -> Deaf:
        return self

    def __exit__(self, *error: object) -> None:
        self.socket.close()

    def read_until(self, pattern: bytes) -> re.Match[bytes]:
        seen = b""
        while not (found := re.search(pattern, seen)):
            data = self.socket.recv(256)
            assert data, seen
            seen += data
        return found

    def is_held_by(self, daemon: Daemon) -> bool:
        """Whether the daemon has this connection open; no reading could tell without freeing what it holds."""
        port = self.socket.getsockname()[1]
        links = psutil.Process(daemon.pid).net_connections("tcp")
        return any(link.raddr and link.raddr.port == port for link in links)


@pytest.fixture
def neighbours(daemon: Daemon) -> Iterator[list[float]]:
    """Another client of the same server, that calls all the time: how long each answer took."""
    waited: list[float] = []
    ended = threading.Event()

    def call_on() -> None:
        with http(daemon, "/servers/quick/mcp", session=True) as client:
            while not ended.is_set():
                began = time.monotonic()
                assert client.post(call(1, "pid")).status_code == 200
                waited.append(time.monotonic() - began)

    with ThreadPoolExecutor(1) as pool:
        going = pool.submit(call_on)
        wait_for(lambda: waited or going.done(), "the neighbour is served")
        yield waited
        ended.set()
        going.result(30)


def test_sse_client_that_does_not_read_is_cut_off(daemon: Daemon, neighbours: list[float]) -> None:
    result = json.dumps({"content": [{"type": "text", "text": "x" * 20_000}]}).encode().hex()
    with Deaf(daemon, "GET /servers/quick/sse HTTP/1.1") as deaf:
        path = deaf.read_until(rb"data: (\S+)\r?\n\r?\n")[1].decode()
        with http(daemon, path) as client:
            assert client.post(request(0, "initialize", **INITIALIZE)).status_code == 202
            client.post({"jsonrpc": "2.0", "method": "notifications/initialized"})
            sent = 0
            while (status := client.post(call(sent, "say", result=result)).status_code) == 202:
                sent += 1
                assert sent < FLOOD * MEGABYTE / 20_000, "the session is never ended"
            assert status == 404
        wait_for(lambda: not deaf.is_held_by(daemon), "the connection is cut")
    assert max(neighbours) < PROMPT
    assert not [one for one in daemon.control.sessions() if one.transport == "http+sse"]


def test_call_whose_stream_is_not_read_is_cut_off(daemon: Daemon, neighbours: list[float]) -> None:
    with http(daemon, "/servers/quick/mcp", session=True) as client:
        flood = call(1, "shout", count=FLOOD, size=MEGABYTE)
        flood["params"]["_meta"] = {"progressToken": "p"}
        body = json.dumps(flood).encode()
        head = ["POST /servers/quick/mcp HTTP/1.1", f"Content-Length: {len(body)}"]
        head += [f"{name}: {client.client.headers[name]}" for name in ("Content-Type", "Accept", "Mcp-Session-Id")]
        with Deaf(daemon, "\r\n".join(head), body) as deaf:
            deaf.read_until(rb"event-stream")

            wait_for(lambda: not deaf.is_held_by(daemon), "the connection is cut")
        assert client.post(request(3, "ping")).json()["result"] == {}, "the session goes on"
    assert max(neighbours) < PROMPT
