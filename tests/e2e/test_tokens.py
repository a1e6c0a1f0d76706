"""Named tokens on a real daemon, by `mcpctl`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

from e2e.raw import INITIALIZE, call, request
from mcpd.control.view import TokenRequest
from support.daemon import CHILDREN, Daemon, python_server, running, script_server, wait_for


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    servers = python_server("one", CHILDREN / "mcp_peer.py") + python_server("two", CHILDREN / "mcp_peer.py")
    with running(servers, views='[views.first]\nservers = ["one"]') as daemon:
        yield daemon


def status_of(daemon: Daemon, token: str, path: str = "/mcp") -> int:
    headers = {"authorization": f"Bearer {token}", "accept": "application/json, text/event-stream"}
    with httpx2.Client(trust_env=False) as http:
        return http.post(daemon.url + path, json=request(0, "initialize", **INITIALIZE), headers=headers).status_code


def test_a_token_s_life(daemon: Daemon) -> None:
    made = daemon.ctl("token", "create", "ada", "--servers", "one", "--expires", "30d")
    token = made.stdout.strip()
    assert "not shown again" in made.stderr
    assert status_of(daemon, token, "/servers/one/mcp") == 200
    assert status_of(daemon, token, "/views/first/mcp") == 200
    assert status_of(daemon, token, "/servers/two/mcp") == 404

    table = daemon.ctl("token", "list").stdout
    assert "servers one" in table
    assert token not in table
    [listed] = daemon.ctl_json("token", "list")
    assert (listed["name"], listed["servers"], listed["views"], listed["expired"]) == ("ada", ["one"], None, False)

    assert daemon.ctl("token", "revoke", "ada").stdout == "ada: revoked\n"
    assert status_of(daemon, token) == 401
    refused = daemon.ctl("token", "revoke", "ada", check=False)
    assert (refused.returncode, "there is no token 'ada'" in refused.stderr) == (1, True)


def test_the_default_token_stays(daemon: Daemon) -> None:
    assert daemon.ctl("token").stdout.strip() == daemon.token
    assert daemon.ctl("token", "--path").stdout.strip() == str(daemon.home / "state" / "token")
    assert status_of(daemon, daemon.token) == 200


def test_as_json_and_with_tools(daemon: Daemon) -> None:
    made = json.loads(daemon.ctl("token", "create", "bob", "--tools", "one/echo, two/echo", "--json").stdout)
    assert status_of(daemon, made["token"]) == 200
    again = daemon.ctl("token", "create", "bob", check=False)
    assert (again.returncode, "--replace" in again.stderr) == (1, True)
    daemon.ctl("token", "create", "bob", "--replace")
    assert status_of(daemon, made["token"]) == 401


@pytest.mark.parametrize("words", [("x", "--expires", "soon"), ("x", "--expires", "0d"), ()])
def test_wrong_words(daemon: Daemon, words: tuple[str, ...]) -> None:
    assert daemon.ctl("token", "create", *words, check=False).returncode == 2


def test_no_token_is_in_the_log_or_in_the_state_directory(daemon: Daemon) -> None:
    token = daemon.ctl("token", "create", "eve").stdout.strip()
    assert token not in daemon.output()
    for path in (daemon.home / "state").rglob("*"):
        assert not path.is_file() or token.encode() not in path.read_bytes(), path


def test_what_a_revoked_token_has_open_ends_at_once() -> None:
    """A session with its stream, HTTP+SSE, and a call without a session that is under way."""
    meta = {"protocolVersion": "2026-07-28", "clientCapabilities": {}, "clientInfo": INITIALIZE["clientInfo"]}
    asked = call(1, "hold", key="k")
    asked["params"]["_meta"] = {f"io.modelcontextprotocol/{key}": value for key, value in meta.items()}
    newer = {"mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call", "mcp-name": "hold"}

    with running(script_server("shop", Path(__file__).parent / "servers" / "workshop.py")) as daemon:
        token = daemon.control.create_token(TokenRequest(name="gone"))
        headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        headers["accept"] = "application/json, text/event-stream"

        def opened(method: str, path: str, more: dict[str, str], body: object = None) -> tuple[int, str]:
            with (
                httpx2.Client(base_url=daemon.url, trust_env=False, timeout=30) as http,
                http.stream(method, path, headers={**headers, **more}, json=body) as stream,
            ):
                return stream.status_code, "".join(stream.iter_text())

        with httpx2.Client(base_url=daemon.url, trust_env=False, timeout=30) as http, ThreadPoolExecutor(3) as pool:
            begun = http.post("/mcp", json=request(0, "initialize", **INITIALIZE), headers=headers)
            session = {"mcp-session-id": begun.headers["mcp-session-id"]}
            parts = [
                pool.submit(opened, "GET", "/mcp", session),
                pool.submit(opened, "GET", "/sse", {}),
                pool.submit(opened, "POST", "/servers/shop/mcp", newer, asked),
            ]
            wait_for(lambda: daemon.control.servers()[0].calls == 1, "the call is under way")
            wait_for(lambda: len(daemon.control.sessions()) >= 2, "both sessions are open")
            daemon.control.revoke_token("gone")
            (listener, _), (stream, _), (called, answer) = (part.result(10) for part in parts)
            assert (listener, stream) == (200, 200)
            assert (called, json.loads(answer)["error"]["message"]) == (200, "the request was cancelled")
            ping = {**session, "authorization": f"Bearer {daemon.token}"}
            assert http.post("/mcp", json=request(1, "ping"), headers={**headers, **ping}).status_code == 404
