"""The audit log of a real daemon, and `mcpctl audit`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from e2e.raw import BOTH, call, connect
from support.daemon import CHILDREN, Daemon, python_server, running, script_server, wait_for

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


def test_a_call_whose_client_left_and_one_that_was_refused_by_a_limit() -> None:
    shop = script_server(
        "shop", Path(__file__).parent / "servers" / "workshop.py", request_rate="0.01", request_burst="3"
    )
    with running(shop) as daemon:
        with connect(daemon, "shop") as client:
            client.send(call(1, "hold", key="x"))
            wait_for(lambda: daemon.control.servers()[0].calls == 1, "it is under way")
        version = "2026-07-28"
        meta = {"protocolVersion": version, "clientCapabilities": {}, "clientInfo": {"name": "raw", "version": "1"}}
        asked = call(2, "hold", key="y")
        asked["params"]["_meta"] = {f"io.modelcontextprotocol/{key}": value for key, value in meta.items()}
        headers = {"MCP-Protocol-Version": version, "Mcp-Method": "tools/call", "Mcp-Name": "hold", **BOTH}
        before = daemon.control.servers()[0].calls_total
        url, impatient = f"{daemon.url}/servers/shop/mcp", httpx2.Timeout(30, read=1.0)
        with pytest.raises(httpx2.ReadTimeout):
            httpx2.post(url, json=asked, headers={**headers, **daemon.headers}, timeout=impatient)
        assert daemon.control.servers()[0].calls_total == before + 1
        use(daemon, daemon.token, ("shop__echo", {"text": "x"}), ("shop__echo", {"text": "x"}), ("shop__hold", {}))
        wait_for(lambda: len(audited(daemon)) == 5, lambda: f"five lines: {audited(daemon)}")
        found = [(line["principal"], line["name"], line["outcome"]) for line in audited(daemon)]
        assert found == [
            (f"local:{os.getuid()}", "hold", "client-left"),
            ("default", "hold", "client-left"),
            ("default", "echo", "ok"),
            ("default", "echo", "overloaded"),
            ("default", "hold", "overloaded"),
        ]
        assert len(audited(daemon, "--failed", "--tool", "echo")) == 1
        assert len(audited(daemon, "--principal", f"local:{os.getuid()}")) == 1


def test_files_are_rotated_while_calls_come_and_none_is_missing() -> None:
    with running(SERVERS, daemon='audit = "full"\naudit_size = "64KiB"\naudit_keep = 100') as daemon:
        name = f"one__{daemon.control.tools('one')[0].name}"

        def load(client: int) -> None:
            use(daemon, daemon.token, *((name, {"n": f"{client}-{number}", "x": "y" * 500}) for number in range(100)))

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(load, range(4)))
        state = daemon.home / "state"
        names: set[str] = set()
        daemon.stop()
        files = list(state.glob("audit.jsonl*"))
        for path in files:
            assert path.stat().st_size <= 64 * 1024
            names |= {json.loads(line)["arguments"]["n"] for line in path.read_text().splitlines()}
        assert len(names) == 400
        assert len(files) > 3


def test_a_log_that_cannot_be_written_hinders_nobody() -> None:
    with running(SERVERS) as daemon:
        name = f"one__{daemon.control.tools('one')[0].name}"
        log = daemon.home / "state" / "audit.jsonl"
        log.mkdir()
        use(daemon, daemon.token, (name, {}), (name, {}))

        def lost() -> bool:
            return "mcpd_audit_lost_total 2.0" in httpx2.get(f"{daemon.url}/metrics", headers=daemon.headers).text

        wait_for(lost, "both are counted")
        assert "audit.unwritten" in daemon.output()
        log.rmdir()
        use(daemon, daemon.token, (name, {}))
        wait_for(log.exists, "it is written again")
        told, line = (json.loads(line) for line in log.read_text().splitlines())
        assert (told["lost"], line["outcome"]) == (2, "ok")
        assert "2 calls are missing here" in daemon.ctl("audit").stdout


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
