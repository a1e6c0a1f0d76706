"""The commands that change the registry: files are changed in full or not at all, and the daemon is told."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tomli

from mcpd.errors import Problem
from support.memory_fleet import MemoryServer, ServedFleet, served_fleet
from support.terminal import environment, program, run

MCPCTL = program("mcpctl")
SAMPLE = '# ours\n[servers.a]   # first\ncommand = ["cat"]\n\n[servers.b]\ncommand = ["cat"]\nenabled = false\n'
Ctl = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    path = tmp_path / "mcpd.toml"
    path.write_text(SAMPLE)
    return path


@pytest.fixture
def ctl(tmp_path: Path, home: Path) -> Ctl:
    """Run mcpctl where no daemon runs, in a home of its own."""

    def call(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
        return run(MCPCTL, *words, env=environment(home, XDG_RUNTIME_DIR=str(tmp_path), **env))

    return call


@pytest.fixture
def served(tmp_path: Path, registry: Path) -> Iterator[ServedFleet]:
    with served_fleet(tmp_path, MemoryServer("a"), MemoryServer("b")) as fleet:
        yield fleet


def on(served: ServedFleet, *words: str) -> subprocess.CompletedProcess[str]:
    """Run mcpctl against a daemon; the registry is the daemon's."""
    return run(MCPCTL, "--socket", str(served.socket_path), *words, env=environment(served.root / "home"))


def servers(path: Path) -> dict[str, object]:
    found: dict[str, object] = tomli.loads(path.read_text())["servers"]
    return found


class TestWithoutADaemon:
    def test_first_server_makes_the_registry(self, ctl: Ctl, home: Path) -> None:
        done = ctl(
            "add",
            "time",
            "--command",
            "cat -u",
            "-e",
            "TZ=UTC",
            "--set",
            "limits.memory=1GiB",
            "--set",
            "instances=1",
            "--",
            "-",
        )

        path = home / ".config" / "mcpd" / "mcpd.toml"
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == f"{path}: time added\nno daemon is running: it counts from the next start\n"
        assert servers(path) == {
            "time": {"command": ["cat", "-u", "-"], "env": {"TZ": "UTC"}, "limits": {"memory": "1GiB"}, "instances": 1}
        }

    def test_script_is_named_in_full(self, ctl: Ctl, registry: Path) -> None:
        script = registry.with_name("time.py")
        script.write_text("")

        done = ctl(
            "--config",
            str(registry),
            "add",
            "time",
            "--script",
            os.path.relpath(script),
            "--profile",
            "strict",
            "--disabled",
            "--",
            "x",
        )

        assert done.returncode == 0, done.stderr
        assert servers(registry)["time"] == {
            "script": str(script), "args": ["x"], "sandbox": {"profile": "strict"}, "enabled": False,
        }  # fmt: skip

    def test_secret_is_named_not_written(self, ctl: Ctl, registry: Path) -> None:
        done = ctl("--config", str(registry), "add", "hub", "--secret", "TOKEN=hub", "--", "cat")

        assert done.returncode == 0, done.stderr
        assert servers(registry)["hub"] == {"command": ["cat"], "env": {"TOKEN": {"secret": "hub"}}}

    def test_into_a_file_of_servers_d(self, ctl: Ctl, registry: Path) -> None:
        done = ctl("--config", str(registry), "add", "c", "--file", "more.toml", "--", "cat")

        assert done.returncode == 0, done.stderr
        assert registry.read_text() == SAMPLE
        assert servers(registry.parent / "servers.d" / "more.toml") == {"c": {"command": ["cat"]}}

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (("add", "c"), "say what it runs"),
            (("add", "c", "--script", "x.py", "--command", "cat"), "either a command or a script"),
            (("add", "c", "-e", "X", "--", "cat"), "'X' is not KEY=VALUE"),
            (("add", "c", "--set", "command.x=1", "--", "cat"), "command is no table"),
            (("import",), "name a file, or say --undo"),
        ],
    )
    def test_wrong_command_lines(self, ctl: Ctl, registry: Path, words: tuple[str, ...], said: str) -> None:
        done = ctl("--config", str(registry), *words)

        assert done.returncode == 2
        assert said in " ".join(done.stderr.split())
        assert registry.read_text() == SAMPLE

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (("add", "c", "--", "no-such-program"), "servers.c.command: 'no-such-program' is not on mcpd's PATH"),
            (("add", "c", "--set", "comand=x", "--", "cat"), "unknown key 'comand'; did you mean 'command'?"),
            (("add", "C", "--", "cat"), "the name 'C' cannot be used"),
            (("add", "a", "--", "cat"), "mcpd.toml:2: servers.a: there is such a server already"),
        ],
    )
    def test_what_would_be_wrong_is_not_written(
        self, ctl: Ctl, registry: Path, words: tuple[str, ...], said: str
    ) -> None:
        done = ctl("--config", str(registry), *words)

        assert done.returncode == 78
        assert said in done.stderr
        assert registry.read_text() == SAMPLE
        assert not registry.with_name("mcpd.toml.bak").exists()

    def test_registry_that_is_wrong_already_can_be_mended(self, ctl: Ctl, registry: Path) -> None:
        registry.write_text(SAMPLE + '[servers.x]\ncommand = ["no-such-program"]\n[servers.y]\nscript = "gone.py"\n')

        assert ctl("--config", str(registry), "remove", "x").returncode == 0
        assert ctl("--config", str(registry), "disable", "y").returncode == 0

        assert set(servers(registry)) == {"a", "b", "y"}

    def test_unknown_name(self, ctl: Ctl, registry: Path) -> None:
        done = ctl("--config", str(registry), "remove", "x")

        assert (done.returncode, done.stderr) == (1, f"mcpctl: there is no server 'x' in {registry}\n")

    def test_registry_that_was_named_has_to_be_there(self, ctl: Ctl, tmp_path: Path) -> None:
        done = ctl("--config", str(tmp_path / "none.toml"), "add", "x", "--", "cat")

        assert done.returncode == 78
        assert not (tmp_path / "none.toml").exists()


class TestWithADaemon:
    def test_enable_and_disable_change_a_line_and_reload(self, served: ServedFleet, registry: Path) -> None:
        done = on(served, "disable", "a")

        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(f"{registry}: a disabled; before: {registry}.bak\nadded: new\n")
        assert registry.read_text() == SAMPLE.replace("first\n", "first\nenabled = false\n")
        assert registry.with_name("mcpd.toml.bak").read_text() == SAMPLE
        assert on(served, "enable", "b").returncode == 0
        assert "enabled = true\n" in registry.read_text()

    def test_what_is_so_already_changes_nothing(self, served: ServedFleet, registry: Path) -> None:
        done = on(served, "enable", "a")

        assert (done.returncode, done.stdout) == (0, f"{registry}: a is enabled already\n")
        assert not registry.with_name("mcpd.toml.bak").exists()

    def test_enabled_server_that_was_stopped_by_hand_is_told(self, served: ServedFleet, registry: Path) -> None:
        done = on(served, "enable", "b")

        assert done.returncode == 0
        assert done.stderr == "b was stopped by hand: `mcpctl start b` starts it\n"

    def test_dry_run_shows_the_difference_and_writes_nothing(self, served: ServedFleet, registry: Path) -> None:
        done = on(served, "remove", "a", "--dry-run")

        assert done.returncode == 0
        assert '-[servers.a]   # first\n-command = ["cat"]\n' in done.stdout
        assert registry.read_text() == SAMPLE

    def test_what_the_daemon_refuses_is_taken_back(self, served: ServedFleet, registry: Path) -> None:
        problem = Problem(registry, 3, "servers.c.command", "'cat' is not on mcpd's PATH", "install it")
        served.fleet.registry_problems.append(problem)

        done = on(served, "add", "c", "--", "cat")

        assert done.returncode == 78
        assert f"{registry}:3: servers.c.command: 'cat' is not on mcpd's PATH" in done.stderr
        assert "the daemon refuses it; the change is taken back" in done.stderr
        assert registry.read_text() == SAMPLE

    def test_what_mends_a_part_stays_though_the_daemon_refuses_the_rest(
        self, served: ServedFleet, registry: Path
    ) -> None:
        registry.write_text(SAMPLE + '[servers.x]\ncommand = ["no-such-program"]\n')
        served.fleet.registry_problems.append(Problem(registry, 9, "servers.y", "no", ""))

        done = on(served, "remove", "x")

        assert done.returncode == 78
        assert "the daemon goes on with the registry that it has" in done.stderr
        assert registry.read_text() == SAMPLE

    def test_daemon_with_another_registry_is_not_told(self, served: ServedFleet, tmp_path: Path) -> None:
        other = tmp_path / "other.toml"
        other.write_text(SAMPLE)

        done = on(served, "remove", "a", "--config", str(other))

        assert done.returncode == 0
        assert done.stderr == f"the daemon runs with {tmp_path / 'mcpd.toml'}, and was not told\n"


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
            "sandbox": {"profile": "unsandboxed"},
        }
        assert set(servers(registry)) == {"a", "b", "my-cat"}
        secret = registry.parent / "secrets" / "my-cat.API_KEY"
        assert secret.read_text() == "sekret\n"
        assert [stat.S_IMODE(one.stat().st_mode) for one in (secret, secret.parent)] == [0o600, 0o700]
        assert "sekret" not in done.stdout + done.stderr + registry.read_text()
        assert "  not converted: remote: it is reached by a URL" in done.stderr
        assert "  not converted: lost: servers.lost.command: 'no-such-program' is not on mcpd's PATH" in done.stderr
        assert run(program("mcpd"), "check", "--config", str(registry), env=environment(registry.parent)).stderr == ""

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
