"""Serving: how it ends, who may connect, what it cannot be made to do."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from mcpd.errors import ConfigError
from mcpd.frontdoor import listener as listener_module
from mcpd.frontdoor.listener import Listener
from mcpd.frontdoor.peers import Peers
from mcpd.frontdoor.sockets import UnixSocket, bind_tcp, url_of
from support.waiting import until

pytestmark = pytest.mark.anyio


class App:
    """Answers `ok`; under /hang never; under /flood without end."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.release = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.reached.set()
        self.scope = scope
        if scope["path"] == "/hang":
            await self.release.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while scope["path"] == "/flood":
            await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
        await send({"type": "http.response.body", "body": b"ok"})


@asynccontextmanager
async def serving(app: App, **options: Any) -> AsyncIterator[tuple[Listener, str]]:
    sockets = bind_tcp("127.0.0.1", 0)
    listener = Listener(app, sockets, **options)
    try:
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            group.create_task(listener.serve())
            yield listener, url_of(sockets[0], "tls" in options)
            listener.stop()
    finally:
        for listening in sockets:
            listening.close()


async def test_it_serves_until_it_is_stopped() -> None:
    app = App()
    async with serving(app) as (listener, url), httpx2.AsyncClient(trust_env=False) as http:
        response = await http.get(url)
        assert response.text == "ok"
        assert "server" not in response.headers
        assert "date" in response.headers
        assert listener.serving
        assert listener.connections == 1
        listener.stop()
        listener.stop()
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(url, trust_env=False)


async def test_it_can_be_stopped_before_it_began() -> None:
    (listening,) = bind_tcp("127.0.0.1", 0)
    listener = Listener(App(), [listening])
    listener.stop()
    async with asyncio.timeout(5):
        await listener.serve()
    assert listening.fileno() == -1


async def test_signals_stay_as_they_are() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    async with serving(App()) as (listener, _):
        await until(lambda: listener.serving)
        assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


async def test_a_request_under_way_is_waited_for() -> None:
    app = App()
    async with serving(app) as (listener, url), httpx2.AsyncClient(trust_env=False) as http:
        asked = asyncio.create_task(http.get(f"{url}/hang"))
        await app.reached.wait()
        listener.stop()
        app.release.set()
        assert (await asked).text == "ok"


async def test_the_app_is_told_when_to_end_its_streams() -> None:
    app = App()
    async with serving(app, on_stop=app.release.set) as (listener, url), httpx2.AsyncClient(trust_env=False) as http:
        asked = asyncio.create_task(http.get(f"{url}/hang"))
        await app.reached.wait()
        listener.stop()
        assert (await asked).text == "ok"


async def test_a_request_that_never_ends_is_cut_off(caplog: pytest.LogCaptureFixture) -> None:
    app = App()
    async with serving(app, grace=0.05) as (listener, url), httpx2.AsyncClient(trust_env=False) as http:
        asked = asyncio.create_task(http.get(f"{url}/hang"))
        await app.reached.wait()
        listener.stop()
        with pytest.raises((httpx2.RemoteProtocolError, httpx2.ReadError)):
            await asked
    assert not caplog.records


async def test_a_client_that_does_not_read_does_not_hold_up_the_end() -> None:
    app = App()
    async with serving(app, grace=0.05) as (listener, url):
        with socket.create_connection(("127.0.0.1", httpx2.URL(url).port or 0)) as stuck:
            stuck.sendall(b"GET /flood HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await app.reached.wait()
            listener.stop()
            await until(lambda: not listener.connections)


async def test_cancelling_cuts_everything_off() -> None:
    app = App()
    (listening,) = bind_tcp("127.0.0.1", 0)
    listener = Listener(app, [listening])
    serve = asyncio.create_task(listener.serve())
    async with httpx2.AsyncClient(trust_env=False) as http:
        asked = asyncio.create_task(http.get(url_of(listening) + "/hang"))
        await app.reached.wait()
        serve.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serve
        with pytest.raises((httpx2.RemoteProtocolError, httpx2.ReadError)):
            await asked
    assert listening.fileno() == -1
    app.release.set()


async def test_tls_with_a_certificate(tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=localhost"
    files = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*make.split(), *files], check=True, capture_output=True)
    trusted = ssl.create_default_context(cafile=os.fspath(certificate))
    client = httpx2.AsyncClient(verify=trusted, trust_env=False)
    async with serving(App(), tls=(certificate, key)) as (_, url), client as http:
        assert (await http.get(url)).text == "ok"


async def test_a_certificate_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    certificate = tmp_path / "cert.pem"
    for content in (None, "nonsense"):
        if content:
            certificate.write_text(content)
        with pytest.raises(ConfigError, match=r"frontdoor\.tls_cert"):
            Listener(App(), [], tls=(certificate, certificate))


@pytest.mark.parametrize("mine", [True, False])
async def test_only_the_named_users_may_use_a_unix_socket(tmp_path: Path, mine: bool) -> None:
    unix = UnixSocket(tmp_path / "c.sock")
    app = App()
    listener = Listener(app, [unix.socket], peers=Peers({os.getuid() if mine else os.getuid() + 1}))
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        group.create_task(listener.serve())
        transport = httpx2.AsyncHTTPTransport(uds=os.fspath(unix.path))
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as http:
            if mine:
                assert (await http.get("/")).text == "ok"
                assert app.scope["client"] is None
            else:
                refused = await http.get("/")
                assert (refused.status_code, refused.json()["kind"]) == (403, "ClientFault")
                assert f"not for user {os.getuid()}" in refused.json()["error"]
        listener.stop()
    unix.close()
    assert app.reached.is_set() == mine
    assert not unix.path.exists()


async def test_the_extension_ends_a_connection() -> None:
    app = App()
    async with serving(app) as (_, url), httpx2.AsyncClient(trust_env=False) as http:
        asked = asyncio.create_task(http.get(f"{url}/hang"))
        await app.reached.wait()
        app.scope["extensions"]["mcpd.abort"]()
        with pytest.raises((httpx2.RemoteProtocolError, httpx2.ReadError)):
            await asked
        app.release.set()
    assert listener_module.GRACE > 0
