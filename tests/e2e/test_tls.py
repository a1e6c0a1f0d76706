"""The front door over TLS, and certificates that are renewed while it serves."""

from __future__ import annotations

import json
import socket
import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from e2e.raw import INITIALIZE, request
from support.certificates import write_certificate
from support.daemon import CHILDREN, Daemon, python_server, running, wait_for

SERVER = python_server("one", CHILDREN / "mcp_peer.py")


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="mcpd-t-") as found:
        yield Path(found)


@pytest.fixture(scope="module")
def daemon(place: Path) -> Iterator[Daemon]:
    cert, key = write_certificate(place)
    frontdoor = f'host = "0.0.0.0"\ntls_cert = {json.dumps(str(cert))}\ntls_key = {json.dumps(str(key))}'
    with running(SERVER, frontdoor=frontdoor) as daemon:
        yield daemon


def initialize(daemon: Daemon, cert: Path) -> int:
    headers = {**daemon.headers, "accept": "application/json, text/event-stream"}
    with httpx2.Client(verify=ssl.create_default_context(cafile=cert), trust_env=False) as http:
        return http.post(f"{daemon.url}/mcp", json=request(0, "initialize", **INITIALIZE), headers=headers).status_code


def shown(daemon: Daemon) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", daemon.port), 10) as raw, context.wrap_socket(raw) as secured:
        found = secured.getpeercert(binary_form=True)
    assert found
    return found


def test_the_url_says_so_and_clients_get_in(daemon: Daemon, place: Path) -> None:
    assert daemon.url.startswith("https://127.0.0.1:")
    assert initialize(daemon, place / "tls.crt") == 200


def test_who_does_not_speak_tls_gets_nothing(daemon: Daemon) -> None:
    with socket.create_connection(("127.0.0.1", daemon.port), 10) as raw:
        raw.sendall(b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
        raw.settimeout(10)
        assert b"HTTP" not in raw.recv(1000)


def test_a_renewed_certificate_is_used_without_a_restart(daemon: Daemon, place: Path) -> None:
    before = shown(daemon)
    write_certificate(place)
    wait_for(lambda: shown(daemon) != before, "the new certificate is shown")
    assert initialize(daemon, place / "tls.crt") == 200


def test_a_broken_certificate_leaves_the_one_in_use(daemon: Daemon, place: Path) -> None:
    before = shown(daemon)
    good = (place / "tls.crt").read_bytes()
    (place / "tls.crt").write_text("no certificate")
    wait_for(lambda: "tls.unusable" in daemon.output(), "the trouble is told")
    assert shown(daemon) == before
    (place / "tls.crt").write_bytes(good)


@pytest.mark.parametrize("lines", ['host = "0.0.0.0"', 'host = "0.0.0.0"\nauth = "none"\ntrusted_proxy = ["10.0.0.1"]'])
def test_without_encryption_it_does_not_listen_for_other_machines(lines: str) -> None:
    daemon = Daemon(SERVER, frontdoor=lines)
    try:
        refused = daemon.run("mcpd", "start", check=False)
        assert refused.returncode == 78
        assert "other machines" in refused.stderr
    finally:
        daemon.close()


def test_behind_a_trusted_proxy_only_the_proxy_gets_in() -> None:
    lines = 'host = "0.0.0.0"\ntrusted_proxy = ["127.0.0.2"]\nallowed_hosts = ["mcp.example"]'
    with running(SERVER, frontdoor=lines) as daemon:
        assert _status(daemon, "127.0.0.2", "203.0.113.7") == 200
        assert _status(daemon, "127.0.0.1", "") == 200
        for _ in range(12):
            refused = _status(daemon, "127.0.0.2", "203.0.113.7", token="wrong")
        assert refused == 429
        assert _status(daemon, "127.0.0.2", "203.0.113.7") == 200, "whoever has the right one is not locked out"
        assert _status(daemon, "127.0.0.2", "203.0.113.7", token="wrong") == 429
        assert _status(daemon, "127.0.0.1", "203.0.113.7", token="wrong") == 401, "only the proxy says who somebody is"
        assert _status(daemon, "127.0.0.2", "203.0.113.7, 198.51.100.1") == 200


def _status(daemon: Daemon, source: str, forwarded: str, token: str | None = None) -> int:
    headers = {
        "host": "mcp.example",
        "authorization": f"Bearer {token or daemon.token}",
        "accept": "application/json, text/event-stream",
        **({"x-forwarded-for": forwarded} if forwarded else {}),
    }
    transport = httpx2.HTTPTransport(local_address=source)
    with httpx2.Client(transport=transport, trust_env=False) as http:
        return http.post(f"{daemon.url}/mcp", json=request(0, "initialize", **INITIALIZE), headers=headers).status_code
