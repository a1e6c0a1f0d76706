"""Random bytes at everything that a real daemon listens to, children's stdout too: no fault, no traceback, no growth.

Chance begins at the same place in every run. What hypothesis makes up is in tests/supervisor/frontdoor/test_fuzz.py.
"""

from __future__ import annotations

import json
import random
import re
import socket
import ssl
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import psutil
import pytest

from e2e.raw import INITIALIZE, call, request
from support.certificates import write_certificate
from support.daemon import CHILDREN, DEADLINE, Daemon, python_server, running, wait_for

ROUNDS = 150
GROWTH = 24 * 2**20
SERVERS = python_server("one", CHILDREN / "mcp_babbles.py")
HTTP = [
    "GET /.well-known/oauth-protected-resource/mcp HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "GET /.well-known/oauth-protected-resource HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "GET /metrics HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer TOKEN\r\n\r\n",
    "OPTIONS /mcp HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\n\r\n",
    "POST /mcp HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer TOKEN\r\nContent-Type: application/json\r\n"
    "Accept: application/json, text/event-stream\r\nContent-Length: 46\r\n\r\n"
    '{"jsonrpc":"2.0","id":1,"method":"tools/list"}',
]
CONTROL = [
    *(
        f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"
        for path in ("/servers", "/servers/one", "/events?after=0", "/sessions")
    ),
    *(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n" for path in ("/pins", "/pins/one", "/tokens", "/daemon", "/tools")),
    "GET /servers/one/logs?lines=5 HTTP/1.1\r\nHost: x\r\n\r\n",
    "GET /audit?lines=5 HTTP/1.1\r\nHost: x\r\n\r\n",
    'POST /tokens HTTP/1.1\r\nHost: x\r\nContent-Length: 37\r\n\r\n{"name":"x","servers":["one"],"a":[1]}',
    "POST /call HTTP/1.1\r\nHost: x\r\nContent-Length: 60\r\n\r\n"
    '{"server":"one","tool":"pid","arguments":{},"timeout":5.0,"":""}',
    'POST /reload HTTP/1.1\r\nHost: x\r\nContent-Length: 16\r\n\r\n{"dry_run": true}',
]
LOCAL = [
    b'{"mcpd":1,"view":"server:one"}\n' + json.dumps(request(0, "initialize", **INITIALIZE)).encode() + b"\n"
    b'{"jsonrpc":"2.0","method":"notifications/initialized"}\n{"jsonrpc":"2.0","id":1,"method":"tools/list"}\n',
    b'{"mcpd":1,"view":"all"}\n[{"jsonrpc":"2.0","id":1,"method":"ping"}]\n',
]


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with tempfile.TemporaryDirectory(prefix="mcpd-t-") as place:
        cert, key = write_certificate(Path(place))
        tls = f"tls_cert = {json.dumps(str(cert))}\ntls_key = {json.dumps(str(key))}\nmax_sessions = 100000"
        with running(SERVERS, frontdoor=tls) as made:
            yield made


@pytest.fixture
def unharmed(daemon: Daemon) -> Iterator[Callable[[], httpx2.Client]]:
    """What was done in a test has left no trace: no error, no descriptor, no memory to speak of, and it serves."""
    process = psutil.Process(daemon.pid)

    def client() -> httpx2.Client:
        everybody = ssl._create_unverified_context()  # the certificate is nobody's business here
        return httpx2.Client(
            base_url=daemon.url, headers=daemon.headers, verify=everybody, trust_env=False, timeout=DEADLINE
        )

    def metrics(http: httpx2.Client) -> str:
        return http.get("/metrics").text

    with client() as http:
        metrics(http)  # which is imported by the first one
        before, descriptors = process.memory_info().rss, process.num_fds()
        yield client
        # one more is the server's log, which is opened by the first line in it
        wait_for(lambda: process.num_fds() <= descriptors + 1, "the descriptors are those of before")
        assert re.search(r"^mcpd_http_errors_total 0\.0$", metrics(http), re.MULTILINE)
        both = {"accept": "application/json, text/event-stream"}
        opened = http.post("/mcp", json=request(0, "initialize", **INITIALIZE), headers=both)
        session = {"mcp-session-id": opened.headers["mcp-session-id"]}
        answer = http.post("/mcp", json=call(1, "one__pid"), headers={**both, **session})
        assert "result" in answer.json()
        assert http.delete("/mcp", headers=session).status_code == 204
    assert process.memory_info().rss - before < GROWTH
    assert "Traceback" not in daemon.output()
    assert "exception" not in daemon.output().lower()
    assert [one.state for one in daemon.control.servers()] == ["READY"]
    assert daemon.control.servers()[0].restarts == 0


def spoilt(chance: random.Random, good: bytes) -> bytes:
    """A message with a few bytes that are others, missing or too many; now and then only noise."""
    if chance.random() < 0.2:
        return chance.randbytes(chance.randrange(1, 400))
    data = bytearray(good)
    for _ in range(chance.randrange(5)):
        at = chance.randrange(len(data))
        match chance.randrange(3):
            case 0:
                data[at] = chance.randrange(256)
            case 1:
                del data[at : at + chance.randrange(1, 9)]
            case _:
                data[at:at] = chance.randbytes(chance.randrange(1, 9))
        data = data or bytearray(b"x")
    return bytes(data)


def exchange(link: socket.socket, data: bytes) -> bytes:
    """Send, say that nothing more comes, and read a moment's worth of what comes back."""
    link.settimeout(0.5)
    try:
        link.sendall(data)
        if not isinstance(link, ssl.SSLSocket):
            link.shutdown(socket.SHUT_WR)
        return link.recv(65536)
    except OSError:
        return b""
    finally:
        link.close()


def no_fault(answer: bytes) -> None:
    status = re.match(rb"HTTP/1\.1 (\d+)", answer)
    assert status is None or int(status[1]) < 500 or status[1] == b"503", answer


def unix(daemon: Daemon, name: str) -> socket.socket:
    link = socket.socket(socket.AF_UNIX)
    link.connect(str(daemon.home / "run" / name))
    return link


def test_the_front_door_inside_tls(daemon: Daemon, unharmed: object) -> None:
    chance = random.Random(1)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    for number in range(ROUNDS):
        good = (
            HTTP[number % len(HTTP)]
            .replace("TOKEN", daemon.token)
            .replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1)
        )
        link = context.wrap_socket(socket.create_connection(("127.0.0.1", daemon.port), DEADLINE))
        no_fault(exchange(link, spoilt(chance, good.encode())))


def test_tls_itself(daemon: Daemon, unharmed: object) -> None:
    chance = random.Random(2)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing).do_handshake()
    hello = outgoing.read()
    for number in range(ROUNDS):
        good = hello if number % 3 else HTTP[2].encode()
        exchange(socket.create_connection(("127.0.0.1", daemon.port), DEADLINE), spoilt(chance, good))


def test_the_control_socket(daemon: Daemon, unharmed: object) -> None:
    chance = random.Random(3)
    for number in range(ROUNDS):
        good = CONTROL[number % len(CONTROL)]
        answer = exchange(unix(daemon, "control.sock"), spoilt(chance, good.encode()))
        no_fault(answer)
        assert b"defect" not in answer


def test_the_local_socket(daemon: Daemon, unharmed: object) -> None:
    chance = random.Random(4)
    for number in range(ROUNDS):
        exchange(unix(daemon, "mcp.sock"), spoilt(chance, LOCAL[number % len(LOCAL)]))


def test_what_a_child_writes(daemon: Daemon, unharmed: Callable[[], httpx2.Client]) -> None:
    both = {"accept": "application/json, text/event-stream"}
    with unharmed() as http:
        opened = http.post("/servers/one/mcp", json=request(0, "initialize", **INITIALIZE), headers=both)
        session = {**both, "mcp-session-id": opened.headers["mcp-session-id"]}
        for seed in range(8):
            answer = http.post("/servers/one/mcp", json=call(seed, "babble", seed=seed, count=50), headers=session)
            assert answer.status_code == 200
            messages = [line.removeprefix("data: ").strip() for line in answer.text.split("\n") if "{" in line]
            last = json.loads(messages[-1])
            assert (last["id"], "result" in last) == (seed, True), answer.text
            assert daemon.control.restart("one").ok  # a server that writes too much of this gets no calls for a minute
        assert http.delete("/servers/one/mcp", headers=session).status_code == 204
