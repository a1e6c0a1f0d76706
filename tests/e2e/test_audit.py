"""The audit log of a real daemon, and `mcpctl audit`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from support.daemon import CHILDREN, Daemon, python_server, running, wait_for

SERVERS = python_server("one", CHILDREN / "mcp_peer.py") + python_server("two", CHILDREN / "mcp_peer.py")


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with running(SERVERS, daemon='audit = "full"') as daemon:
        yield daemon


def use(daemon: Daemon, token: str, *calls: tuple[str, dict[str, Any]]) -> None:
    """One session at /mcp, with these calls."""
    headers = {"authorization": f"Bearer {token}", "accept": "application/json, text/event-stream"}
    with httpx2.Client(base_url=daemon.url, headers=headers, trust_env=False, timeout=10) as http:
        params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
        opened = http.post("/mcp", json={"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params})
        http.headers["mcp-session-id"] = opened.headers["mcp-session-id"]
        for id, (name, arguments) in enumerate(calls, 1):
            params = {"name": name, "arguments": arguments}
            http.post("/mcp", json={"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params})


def audited(daemon: Daemon, *words: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in daemon.ctl("audit", "--json", *words).stdout.splitlines()]


def test_calls_are_in_the_log(daemon: Daemon) -> None:
    tool = daemon.control.tools("one")[0].name
    ada = daemon.ctl("token", "create", "ada", "--servers", "one").stdout.strip()
    use(daemon, ada, (f"one__{tool}", {"x": 1}), (f"two__{tool}", {}))
    use(daemon, daemon.token, (f"two__{tool}", {}))
    wait_for(lambda: len(audited(daemon)) == 3, "three lines")

    first, second, third = audited(daemon)
    assert (first["principal"], first["server"], first["name"], first["arguments"]) == ("ada", "one", tool, {"x": 1})
    assert ("server" in second, second["name"], second["outcome"]) == (False, f"two__{tool}", "refused")
    assert (third["principal"], third["server"]) == ("default", "two")
    assert ada not in json.dumps(audited(daemon))

    assert [line["server"] for line in audited(daemon, "--server", "two")] == ["two"]
    assert [line["principal"] for line in audited(daemon, "--principal", "default")] == ["default"]
    assert audited(daemon, "--failed")[0] == second
    assert audited(daemon, "-n", "1") == [third]
    shown = daemon.ctl("audit").stdout.splitlines()
    assert len(shown) == 3
    assert "ada" in shown[0]
    assert "refused (-32602)" in shown[1]


def test_what_was_called_last_is_written_when_the_daemon_ends() -> None:
    with running(SERVERS) as daemon:
        tool = daemon.control.tools("one")[0].name
        use(daemon, daemon.token, (f"one__{tool}", {}))
        assert daemon.stop() == 0
        [line] = (daemon.home / "state" / "audit.jsonl").read_text().splitlines()
        assert json.loads(line)["server"] == "one"
        assert "arguments" not in json.loads(line)


def test_without_it_nothing_is_written() -> None:
    with running(SERVERS, daemon='audit = "off"') as daemon:
        use(daemon, daemon.token, ("one__x", {}))
        refused = daemon.ctl("audit", check=False)
        assert (refused.returncode, "keeps no audit log" in refused.stderr) == (1, True)
        assert not (daemon.home / "state" / "audit.jsonl").exists()
