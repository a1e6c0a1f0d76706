"""Named tokens on a real daemon, by `mcpctl`."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx2
import pytest

from e2e.raw import INITIALIZE, request
from support.daemon import CHILDREN, Daemon, python_server, running


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
