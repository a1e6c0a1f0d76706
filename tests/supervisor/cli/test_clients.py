"""The entry for mcpd in the files of MCP clients."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from mcpd.cli import clients
from mcpd.cli.clients import TARGETS, http_entry, is_ours, program, stdio_entry, write
from mcpd.cli.failures import Failed

COMMAND = ["/opt/mcpctl", "connect"]
HOME = Path("/home/me")


@pytest.mark.parametrize(
    ("target", "platform", "environ", "path"),
    [
        ("claude-desktop", "linux", {}, "/home/me/.config/Claude/claude_desktop_config.json"),
        ("claude-desktop", "linux", {"XDG_CONFIG_HOME": "/cfg"}, "/cfg/Claude/claude_desktop_config.json"),
        (
            "claude-desktop",
            "darwin",
            {},
            "/home/me/Library/Application Support/Claude/claude_desktop_config.json",
        ),
        ("claude-desktop", "win32", {"APPDATA": "/app"}, "/app/Claude/claude_desktop_config.json"),
        ("claude-desktop", "win32", {}, "/home/me/AppData/Roaming/Claude/claude_desktop_config.json"),
        ("claude-code", "linux", {}, "/home/me/.claude.json"),
        ("claude-code", "darwin", {"CLAUDE_CONFIG_DIR": "/cc"}, "/cc/.claude.json"),
        ("cursor", "linux", {}, "/home/me/.cursor/mcp.json"),
        ("vscode", "linux", {}, "/home/me/.config/Code/User/mcp.json"),
        ("vscode", "darwin", {}, "/home/me/Library/Application Support/Code/User/mcp.json"),
    ],
)
def test_each_clients_file_is_where_it_keeps_it(target: str, platform: str, environ: dict[str, str], path: str) -> None:
    assert TARGETS[target].path(platform, environ, HOME) == Path(path)


def test_entries_have_each_clients_form() -> None:
    plain = {"command": "/opt/mcpctl", "args": ["connect"]}
    header = {"headers": {"Authorization": "Bearer t"}}

    assert stdio_entry(TARGETS["claude-desktop"], COMMAND) == plain
    assert stdio_entry(TARGETS["cursor"], COMMAND) == plain
    assert stdio_entry(TARGETS["claude-code"], COMMAND) == {"type": "stdio", **plain}
    assert stdio_entry(TARGETS["vscode"], COMMAND) == {"type": "stdio", **plain}
    assert http_entry(TARGETS["cursor"], "http://h/mcp", "t") == {"url": "http://h/mcp", **header}
    assert http_entry(TARGETS["vscode"], "http://h/mcp", "t") == {"type": "http", "url": "http://h/mcp", **header}
    assert http_entry(TARGETS["claude-code"], "http://h/mcp", None) == {"type": "http", "url": "http://h/mcp"}
    with pytest.raises(Failed, match="Claude Desktop's configuration knows commands only"):
        http_entry(TARGETS["claude-desktop"], "http://h/mcp", "t")


def test_the_program_is_an_absolute_path_that_runs() -> None:
    (path,) = program()

    assert os.path.isabs(path)
    assert os.access(path, os.X_OK)


def put(path: Path, name: str = "mcpd", replace: bool = False, command: list[str] | None = None) -> clients.Written:
    target = TARGETS["claude-desktop"]
    return write(path, target, name, stdio_entry(target, command or COMMAND), replace)


def test_other_entries_and_the_form_of_the_file_stay(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    before = '{\n\t"mcpServers": {\n\t\t"git": {"command": "uvx"}\n\t},\n\t"globalShortcut": ""\n}\n'
    path.write_text(before)
    path.chmod(0o640)

    written = put(path)

    assert written.changed
    assert written.backup is not None
    assert written.backup.read_text() == before
    assert json.loads(path.read_text()) == {
        "mcpServers": {"git": {"command": "uvx"}, "mcpd": {"command": "/opt/mcpctl", "args": ["connect"]}},
        "globalShortcut": "",
    }
    assert '\t\t"git": {"command": "uvx"},\n\t\t"mcpd": {\n\t\t\t"command"' in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_writing_again_changes_nothing_and_makes_no_second_backup(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text("{}")
    put(path)
    files = {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()}

    assert put(path) == clients.Written(False, None)
    assert {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()} == files


def test_a_first_file_is_the_users_alone(tmp_path: Path) -> None:
    path = tmp_path / "c.json"

    assert put(path) == clients.Written(True, None)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_our_own_entry_is_brought_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    put(path)

    assert put(path, command=["/new/mcpctl", "connect", "time"]).changed
    assert json.loads(path.read_text())["mcpServers"]["mcpd"]["command"] == "/new/mcpctl"


def test_somebody_elses_entry_is_replaced_only_on_demand(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    before = '{"mcpServers": {"time": {"command": "uvx", "args": ["mcp-server-time"]}}}'
    path.write_text(before)

    with pytest.raises(Failed, match="another entry 'time'"):
        put(path, "time")
    assert path.read_text() == before
    assert put(path, "time", replace=True).changed


def test_a_link_is_followed_and_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "dotfiles").mkdir()
    real = tmp_path / "dotfiles" / "c.json"
    real.write_text("{}")
    link = tmp_path / "c.json"
    link.symlink_to(real)

    put(link)

    assert link.is_symlink()
    assert "mcpServers" in real.read_text()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"mcpServers": ', "line 1: not JSON"),
        (b'{"mcpServers": []}', "mcpServers is not an object"),
        (b"[]", "the top is not an object"),
        (b'"\xff"', "is not UTF-8"),
    ],
)
def test_a_file_that_cannot_be_read_is_not_touched(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "c.json"
    path.write_bytes(content)

    with pytest.raises(Failed, match=message):
        put(path)

    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_a_client_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(Failed, match="Claude Desktop does not seem to be installed here"):
        put(tmp_path / "Claude" / "c.json")


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "LARGEST", 10)
    (tmp_path / "c.json").write_text("{          }")

    with pytest.raises(Failed, match="over 10 bytes"):
        put(tmp_path / "c.json")


@pytest.mark.parametrize(
    ("entry", "ours"),
    [
        ({"command": "/a/mcpctl", "args": ["connect"]}, True),
        ({"type": "stdio", "command": "mcpctl", "args": ["connect", "time"]}, True),
        ({"url": "http://127.0.0.1:6270/mcp"}, True),
        ({"url": "https://h/servers/time/mcp", "headers": {}}, True),
        ({"command": "/a/mcpctl", "args": ["list"]}, False),
        ({"command": "uvx", "args": ["connect"]}, False),
        ({"url": "http://h/sse"}, False),
        ({"url": 3}, False),
        ("mcpctl connect", False),
    ],
)
def test_whose_entry_it_is(entry: object, ours: bool) -> None:
    assert is_ours(entry) is ours


@pytest.mark.parametrize(("changes", "is_written"), [(1, True), (100, False)])
def test_a_file_that_changes_meanwhile_is_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: int, is_written: bool
) -> None:
    path = tmp_path / "c.json"
    path.write_text("{}")
    set_member, left = clients.set_member, iter(range(changes))

    def while_the_client_writes(*arguments: object) -> str:
        for number in left:
            path.write_text(json.dumps({"session": number}))
            break
        return set_member(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(clients, "set_member", while_the_client_writes)
    if is_written:
        assert put(path).changed
        assert list(json.loads(path.read_text())) == ["session", "mcpServers"]
    else:
        with pytest.raises(Failed, match="somebody else keeps changing it"):
            put(path)
        assert list(json.loads(path.read_text())) == ["session"]


def test_a_disk_that_refuses_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "c.json"
    path.write_text("{}")

    def refuse(*names: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="No space left"):
        put(path)

    assert path.read_text() == "{}"
    assert not [file for file in tmp_path.iterdir() if file.name.startswith(".")]
