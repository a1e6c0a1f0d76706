"""What a client's entry says, with a daemon and without."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from mcpd.cli.clients import TARGETS
from mcpd.cli.failures import Failed
from mcpd.cli.frontdoor import entry_for, token_file
from mcpd.cli.options import Operator
from mcpd.control.view import DaemonStatus
from support.memory_fleet import MemoryFleet, MemoryServer, served_fleet

CURSOR = TARGETS["cursor"]


@pytest.fixture(autouse=True)
def _bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MCPD_CONFIG", "MCPD_DAEMON__RUNTIME_DIR", "RUNTIME_DIRECTORY", "STATE_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))


def registry(directory: Path, frontdoor: str = "") -> Operator:
    file = directory / "r.toml"
    file.write_text(
        '[daemon]\nstate_dir = "s"\nruntime_dir = "r"\n'
        f'[frontdoor]\n{frontdoor}\n[servers.time]\ncommand = ["/bin/true"]\n[views.v]\nservers = "*"\n'
    )
    return Operator(file)


def test_a_registry_that_was_named_is_named_to_the_client(tmp_path: Path) -> None:
    operator = registry(tmp_path)

    entries = [entry_for(operator, CURSOR, *which, False) for which in ((None, None), ("time", None), (None, "v"))]

    config = ["--config", str(tmp_path / "r.toml")]
    assert [entry["args"] for entry in entries] == [
        ["connect", *config],
        ["connect", "time", *config],
        ["connect", "--view", "v", *config],
    ]


def test_a_socket_is_named_where_a_desktop_would_not_find_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcpd.cli.frontdoor._daemon", lambda operator: None)  # this user's own may be running
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    odd = entry_for(Operator(), CURSOR, None, None, False)
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    usual = entry_for(Operator(), CURSOR, None, None, False)

    assert odd["args"] == ["connect", "--socket", f"{tmp_path}/mcpd/mcp.sock"]
    assert usual["args"] == ["connect"]


@pytest.mark.parametrize(
    ("frontdoor", "url"),
    [
        ("", "http://127.0.0.1:6270/mcp"),
        ('host = "::1"', "http://[::1]:6270/mcp"),
    ],
)
def test_urls_come_from_the_registry_while_nothing_runs(tmp_path: Path, frontdoor: str, url: str) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "token").write_text("abc\n")
    operator = registry(tmp_path, frontdoor)

    assert entry_for(operator, CURSOR, None, None, True) == {"url": url, "headers": {"Authorization": "Bearer abc"}}
    assert entry_for(operator, CURSOR, None, "v", True)["url"] == url.replace("/mcp", "/views/v/mcp")


def test_a_port_that_nobody_knows_yet(tmp_path: Path) -> None:
    with pytest.raises(Failed, match="chosen when the daemon starts"):
        entry_for(registry(tmp_path, "port = 0"), CURSOR, None, None, True)


def test_without_tokens_there_is_none(tmp_path: Path) -> None:
    operator = registry(tmp_path, 'auth = "none"')

    assert entry_for(operator, CURSOR, None, None, True) == {"url": "http://127.0.0.1:6270/mcp"}
    with pytest.raises(Failed, match="asks for no token"):
        token_file(operator)


def test_unknown_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Failed, match="there is no server 'x'"):
        entry_for(registry(tmp_path), CURSOR, "x", None, False)
    with pytest.raises(Failed, match="there is no view 'x'"):
        entry_for(registry(tmp_path), CURSOR, None, "x", False)


def test_a_running_daemon_knows_better_than_the_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status = MemoryFleet.daemon

    def without(fleet: MemoryFleet) -> DaemonStatus:
        return msgspec.structs.replace(status(fleet), auth="none", token_file=None, urls=())

    with served_fleet(tmp_path, MemoryServer("time")) as served:
        operator = Operator(None, served.socket_path)
        (tmp_path / "token").write_text("abc")
        with_token = entry_for(operator, CURSOR, "time", None, True)
        monkeypatch.setattr(MemoryFleet, "daemon", without)

        assert with_token["url"] == "http://127.0.0.1:6270/servers/time/mcp"
        with pytest.raises(Failed, match="asks for no token"):
            token_file(operator)
        with pytest.raises(Failed, match="has no front door"):
            entry_for(operator, CURSOR, None, None, True)
        with pytest.raises(Failed, match="there is no server 'x'"):
            entry_for(operator, CURSOR, "x", None, False)
