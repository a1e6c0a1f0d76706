"""Serving over HTTP: who is answered, what is logged, and how it ends."""

import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import anyio
import httpx2
import pytest

from mcpworker import FastMCP
from mcpworker.transports import _security_for
from support.http_server import free_port, wait_for_port
from support.in_memory import logged
from support.worker_clients import SCRIPTS, Recorder, connected

pytestmark = pytest.mark.anyio

SERVER = """
import sys
from mcpworker import FastMCP
mcp = FastMCP("HTTP")
mcp.run(sys.argv[1], host=sys.argv[2], port=int(sys.argv[3]))
"""


@contextmanager
def serving(transport: str, host: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, transport, host, str(port)], stderr=subprocess.PIPE, stdin=subprocess.DEVNULL
    )
    try:
        wait_for_port(process, port)
        yield process, f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.communicate()


def status(url: str, **headers: str) -> int:
    body = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    data = json.dumps(body).encode()
    headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream", **headers}
    request = urllib.request.Request(url, data=data, headers=headers, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        with error:
            return int(error.code)


@pytest.mark.parametrize(("transport", "path"), [("streamable-http", "/mcp"), ("sse", "/messages/")])
def test_on_loopback_only_loopback_names_are_answered(transport: str, path: str) -> None:
    with serving(transport, "127.0.0.1") as (_, url):
        assert status(url + path, Host="evil.example") == 421
        assert status(url + path, Origin="http://evil.example") == 403
        assert status(url + path, Origin="http://localhost:1234") == 400  # heard, and no session


@pytest.mark.parametrize(("transport", "path"), [("streamable-http", "/mcp"), ("sse", "/messages/")])
def test_on_all_interfaces_foreign_pages_are_refused_and_the_log_warns(transport: str, path: str) -> None:
    with serving(transport, "0.0.0.0") as (process, url):
        assert status(url + path, Host="my-machine.example") == 400
        assert status(url + path, Origin="http://evil.example") == 403
        assert status(url + path, Origin="null") == 403
        assert status(url + path, Origin="http://127.0.0.1:1234") == 400
        process.terminate()
        errors = process.communicate(timeout=15)[1].decode()

    assert "'HTTP' listens on all interfaces (0.0.0.0)" in errors


def test_rules_can_be_given() -> None:
    from mcp.server.transport_security import TransportSecuritySettings

    rules = TransportSecuritySettings(allowed_hosts=["front.example"], allowed_origins=["https://front.example"])
    app = FastMCP("x").streamable_http_app(transport_security=rules)

    assert app.user_middleware == []
    assert _security_for("127.0.0.1").enable_dns_rebinding_protection  # type: ignore[union-attr]


@pytest.mark.parametrize("transport", ["sse", "streamable-http"])
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
def test_lifespan_closes_when_the_process_is_told_to_end(transport: str, end: int) -> None:
    port = free_port()
    argv = [sys.executable, str(SCRIPTS / "features.py"), transport, str(port)]
    process = subprocess.Popen(argv, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)

    async def use() -> None:
        kind = "sse-legacy" if transport == "sse" else "http-legacy"
        async with connected(kind, f"http://127.0.0.1:{port}", Recorder()) as client:
            await client.call_tool("echo", {"text": "x"})
            process.send_signal(end)
            with anyio.move_on_after(10):
                await anyio.to_thread.run_sync(process.wait)

    try:
        wait_for_port(process, port)
        with complaints_of_the_client():
            anyio.run(use)
        errors = process.communicate(timeout=15)[1].decode()
    finally:
        process.kill()

    assert "lifespan closed" in errors


@contextmanager
def complaints_of_the_client() -> Iterator[None]:
    """What the client raises about the server that went away under it is not what is tested."""
    try:
        yield
    except BaseException as error:

        def kinds(found: BaseException) -> set[type]:
            if isinstance(found, BaseExceptionGroup):
                return set().union(*(kinds(item) for item in found.exceptions))
            return {type(found)}

        if not all(issubclass(kind, httpx2.HTTPError | anyio.BrokenResourceError) for kind in kinds(error)):
            raise


async def test_paths_are_those_of_the_settings_or_the_call() -> None:
    server = FastMCP("x", sse_path="/events", message_path="/post/", streamable_http_path="/here")

    def paths(app: object) -> list[str]:
        return [route.path for route in app.routes]  # type: ignore[attr-defined]

    assert paths(server.sse_app()) == ["/events", "/post"]
    assert paths(server.sse_app(sse_path="/a", message_path="/b/")) == ["/a", "/b"]
    assert paths(server.streamable_http_app()) == ["/here"]
    assert paths(server.http_app(path="/c")) == ["/c"]


async def test_unknown_transport_is_named() -> None:
    with pytest.raises(ValueError, match="Unknown transport: carrier-pigeon"):
        await FastMCP("x").run_async("carrier-pigeon")
    with pytest.raises(TypeError, match="unexpected keyword argument 'host'"):
        await FastMCP("x").run_async("stdio", host="127.0.0.1")


async def test_run_may_be_extended_by_a_subclass() -> None:
    class Mine(FastMCP):  # type: ignore[type-arg]
        async def run_stdio_async(self, extra: int = 0) -> None:  # type: ignore[override]
            self.extra = extra

    server = Mine("x")
    await server.run_async(extra=5)

    assert server.extra == 5


async def test_log_level_of_a_run_reaches_the_frameworks_log(monkeypatch: pytest.MonkeyPatch) -> None:
    import uvicorn

    class Stopped(Exception):
        pass

    async def serve(self: uvicorn.Server) -> None:
        raise Stopped(self.config.log_level, self.config.host, self.config.port)

    monkeypatch.setattr(uvicorn.Server, "serve", serve)
    with logged("serve") as records, pytest.raises(Stopped) as caught:
        await FastMCP("x", port=5).run_sse_async(host="127.0.0.1", log_level="DEBUG")

    assert caught.value.args == ("debug", "127.0.0.1", 5)
    assert [record.getMessage() for record in records] == ["'x' begins to listen on 127.0.0.1 port 5"]
