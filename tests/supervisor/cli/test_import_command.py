"""Clients' servers taken over, and given back."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from mcpd.errors import Problem
from support.editing import SAMPLE, Ctl, on, servers
from support.memory_fleet import ServedFleet
from support.terminal import environment, program, run

CLIENT = {
    "mcpServers": {
        "My Cat": {"command": "cat", "args": ["-u"], "env": {"API_KEY": "sekret", "DEBUG": "1"}},
        "remote": {"url": "https://mcp.example/sse"},
        "lost": {"command": "no-such-program"},
    }
}


@pytest.fixture
def client(tmp_path: Path) -> Path:
    path = tmp_path / "claude_desktop_config.json"
    path.write_text(json.dumps(CLIENT))
    return path


class TestImport:
    def test_imports_what_can_be_and_tells_what_cannot(self, ctl: Ctl, registry: Path, client: Path) -> None:
        done = ctl("--config", str(registry), "import", str(client))

        assert done.returncode == 0, done.stderr
        assert servers(registry)["my-cat"] == {
            "command": ["cat", "-u"],
            "env": {"API_KEY": {"secret": "my-cat.API_KEY"}, "DEBUG": "1"},
        }
        assert set(servers(registry)) == {"a", "b", "my-cat"}
        secret = registry.parent / "secrets" / "my-cat.API_KEY"
        assert secret.read_text() == "sekret\n"
        assert [stat.S_IMODE(one.stat().st_mode) for one in (secret, secret.parent)] == [0o600, 0o700]
        assert "sekret" not in done.stdout + done.stderr + registry.read_text()
        assert "  not converted: remote: it is reached by a URL" in done.stderr
        assert "  not converted: lost: servers.lost.command: 'no-such-program' is not on mcpd's PATH" in done.stderr
        assert run(program("mcpd"), "check", "--config", str(registry), env=environment(registry.parent)).stderr == ""

    def test_imported_servers_are_contained_and_it_is_told_how_to_grant_more(
        self, ctl: Ctl, registry: Path, client: Path, tmp_path: Path
    ) -> None:
        folder = tmp_path / "documents"
        folder.mkdir()
        offline = {"command": "npx", "args": ["-y", "@scope/not-to-be-asked-for"]}
        files = {"command": "cat", "args": [str(folder)]}
        client.write_text(json.dumps({"mcpServers": {"files": files, "o": offline}}))
        nowhere = {"npm_config_registry": "http://127.0.0.1:9", "npm_config_fetch_retries": "0"}

        done = ctl("--config", str(registry), "import", str(client), **nowhere)

        assert servers(registry)["files"] == {"command": ["cat", str(folder)]}
        assert f'profile = "filesystem", write = ["{folder}"]' in done.stdout
        assert 'profile = "network", allow = [' in done.stdout
        assert "--profile unsandboxed" in done.stdout
        assert "not converted: o: servers.o.command: 'npx' downloads what it runs" in done.stderr
        assert 'package = "npm:@scope/not-to-be-asked-for@VERSION"' in done.stderr

    def test_those_that_ask_for_it_run_as_the_client_ran_them(self, ctl: Ctl, registry: Path, client: Path) -> None:
        done = ctl("--config", str(registry), "import", str(client), "--profile", "unsandboxed")

        assert servers(registry)["my-cat"]["sandbox"] == {"profile": "unsandboxed"}
        assert "strict" not in done.stdout

    def test_a_client_that_is_not_known_is_told_with_those_that_are(self, ctl: Ctl, registry: Path) -> None:
        done = ctl("--config", str(registry), "import", "clade-desktop")

        assert done.returncode == 1
        assert done.stderr.endswith(
            "clade-desktop: No such file or directory\n"
            "  name a file, or a client: claude-desktop, claude-code, cursor, vscode\n"
        )

    def test_undo_brings_back_the_file_and_removes_secrets(self, ctl: Ctl, registry: Path, client: Path) -> None:
        ctl("--config", str(registry), "import", str(client))

        done = ctl("--config", str(registry), "import", "--undo")

        assert done.returncode == 0, done.stderr
        assert registry.read_text() == SAMPLE
        assert os.listdir(registry.parent / "secrets") == []
        again = ctl("--config", str(registry), "import", "--undo")
        assert (again.returncode, "no import is noted" in again.stderr) == (1, True)

    def test_undo_leaves_what_was_changed_since(self, ctl: Ctl, registry: Path, client: Path) -> None:
        ctl("--config", str(registry), "import", str(client))
        ctl("--config", str(registry), "add", "later", "--", "cat")
        (registry.parent / "secrets" / "my-cat.API_KEY").write_text("mine")

        done = ctl("--config", str(registry), "import", "--undo")

        assert done.returncode == 0, done.stderr
        assert set(servers(registry)) == {"a", "b", "later"}
        assert registry.read_text().startswith(SAMPLE)
        assert os.listdir(registry.parent / "secrets") == ["my-cat.API_KEY"]

    def test_inline_and_another_profile(self, ctl: Ctl, registry: Path, client: Path) -> None:
        done = ctl(
            "--config", str(registry), "import", str(client), "--inline", "--profile", "strict", "--file", "in.toml"
        )

        assert done.returncode == 0, done.stderr
        assert registry.read_text() == SAMPLE
        assert servers(registry.parent / "servers.d" / "in.toml")["my-cat"] == {
            "command": ["cat", "-u"],
            "env": {"API_KEY": "sekret", "DEBUG": "1"},
            "sandbox": {"profile": "strict"},
        }
        assert "stands in the registry as it is: API_KEY" in done.stdout
        assert not (registry.parent / "secrets").exists()

    def test_dry_run_writes_nothing(self, ctl: Ctl, registry: Path, client: Path) -> None:
        before = sorted(registry.parent.rglob("*"))

        done = ctl("--config", str(registry), "import", str(client), "--dry-run")

        assert done.returncode == 0
        assert "+[servers.my-cat]\n" in done.stdout
        assert sorted(registry.parent.rglob("*")) == before

    def test_second_import_brings_nothing_twice(self, ctl: Ctl, registry: Path, client: Path) -> None:
        ctl("--config", str(registry), "import", str(client))
        before = registry.read_text()

        done = ctl("--config", str(registry), "import", str(client))

        assert done.returncode == 1
        assert "the registry has a server 'my-cat' already" in done.stderr
        assert registry.read_text() == before

    def test_secret_that_is_there_with_another_value_stops_it(self, ctl: Ctl, registry: Path, client: Path) -> None:
        (registry.parent / "secrets").mkdir(mode=0o700)
        (registry.parent / "secrets" / "my-cat.API_KEY").write_text("another")

        done = ctl("--config", str(registry), "import", str(client))

        assert done.returncode == 1
        assert "there is such a secret already, with another value" in done.stderr
        assert registry.read_text() == SAMPLE

    def test_client_is_known_by_name(self, ctl: Ctl, registry: Path, home: Path) -> None:
        (home / ".cursor").mkdir()
        (home / ".cursor" / "mcp.json").write_text('{ // ours\n "mcpServers": {"cat": {"command": "cat"},} }')

        assert ctl("--config", str(registry), "import", "cursor").returncode == 0
        assert "cat" in servers(registry)

    def test_projects_of_claude_code(self, ctl: Ctl, registry: Path, tmp_path: Path) -> None:
        path = tmp_path / "claude.json"
        path.write_text(json.dumps({"mcpServers": {}, "projects": {"/x": {"mcpServers": {"cat": {"command": "cat"}}}}}))

        done = ctl("--config", str(registry), "import", str(path))
        assert (done.returncode, "/x: it is a project of its own: see --project" in done.stderr) == (1, True)
        assert ctl("--config", str(registry), "import", str(path), "--project", "/x").returncode == 0
        assert "cat" in servers(registry)

    @pytest.mark.parametrize("text", ["{", "[]", '{"x": 1}', "\xff"])
    def test_file_that_is_none(self, ctl: Ctl, registry: Path, tmp_path: Path, text: str) -> None:
        path = tmp_path / "x.json"
        path.write_bytes(text.encode("latin-1"))

        done = ctl("--config", str(registry), "import", str(path))

        assert done.returncode == 1
        assert done.stderr.startswith("mcpctl: ")
        assert registry.read_text() == SAMPLE

    def test_what_the_daemon_refuses_is_taken_back_with_its_secrets(
        self, served: ServedFleet, registry: Path, client: Path
    ) -> None:
        served.fleet.registry_problems.append(Problem(None, None, "servers.x", "no", ""))

        done = on(served, "import", str(client))

        assert done.returncode == 78
        assert registry.read_text() == SAMPLE
        assert os.listdir(registry.parent / "secrets") == []
        assert not list(registry.parent.glob(".*import"))
