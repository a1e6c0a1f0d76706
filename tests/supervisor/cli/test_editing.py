"""The commands that change the registry: files are changed in full or not at all, and the daemon is told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mcpd.errors import Problem
from support.editing import SAMPLE, Ctl, on, servers
from support.memory_fleet import ServedFleet


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
        assert done.returncode == 0
        assert done.stderr.startswith("time runs under `strict`: no network, ")
        assert done.stdout == f"{path}: time added\nno daemon is running: it counts from the next start\n"
        assert servers(path) == {
            "time": {"command": ["cat", "-u", "-"], "env": {"TZ": "UTC"}, "limits": {"memory": "1GiB"}, "instances": 1}
        }

    def test_directory_among_the_arguments_is_told_with_its_grant(self, ctl: Ctl, registry: Path) -> None:
        folder = str(registry.parent)

        done = ctl("--config", str(registry), "add", "files", "--", "cat", f"--root={folder}", "/nowhere", "/")

        assert f'write = ["{folder}"]' in done.stderr
        assert done.stderr.count("files: it names ") == 1

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

    def test_package_is_written_as_it_is_named(self, ctl: Ctl, registry: Path) -> None:
        done = ctl("--config", str(registry), "add", "memory", "--package", "npm:@x/y@1.2.3", "--", "-v")

        assert done.returncode == 0, done.stderr
        assert servers(registry)["memory"] == {"package": "npm:@x/y@1.2.3", "args": ["-v"]}
        both = ctl("--config", str(registry), "add", "m", "--package", "npm:x@1", "--command", "cat")
        assert both.returncode == 2

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
            (("add", "c", "--script", "x.py", "--command", "cat"), "either a command, a script or a package"),
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
