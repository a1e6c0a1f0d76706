"""`mcpctl` as a program: what it prints, where, and how it ends."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mcpd.control.view import SessionStatus
from mcpd.errors import Problem
from support.memory_fleet import MemoryServer, ServedFleet, served_fleet
from support.terminal import MCPCTL, environment, plain, run, run_on_terminal


@pytest.fixture
def served(tmp_path: Path) -> Iterator[ServedFleet]:
    servers = (MemoryServer("time"), MemoryServer("notes"), MemoryServer("broken", ["no such module"] * 9))
    with served_fleet(tmp_path, *servers) as fleet:
        yield fleet


def ctl(served: ServedFleet, *words: str, stdin: str | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    where = environment(served.root / "home", XDG_RUNTIME_DIR=str(served.root), **env)
    return run(MCPCTL, "--socket", str(served.socket_path), *words, env=where, stdin=stdin)


@pytest.mark.usefixtures("home")
class TestAgainstADaemon:
    def test_list(self, served: ServedFleet) -> None:
        ctl(served, "start", "time")

        done = ctl(served, "list")

        lines = done.stdout.split("\n")
        assert (done.returncode, done.stderr) == (0, "")
        assert " ".join(lines[0].split()) == "NAME STATE SINCE RESTARTS PID RSS ISOLATION TOOLS CALLS LAST ERROR"
        assert lines[1].split()[:2] == ["time", "READY"]
        assert lines[4] == "3 servers: 1 READY, 2 STOPPED; 12.0 MiB"

    def test_list_for_programs(self, served: ServedFleet) -> None:
        listed = json.loads(ctl(served, "list", "--json").stdout)

        assert [(one["name"], one["state"]) for one in listed] == [
            ("time", "STOPPED"),
            ("notes", "STOPPED"),
            ("broken", "STOPPED"),
        ]

    def test_list_on_a_terminal_fits_it(self, served: ServedFleet) -> None:
        argv = (MCPCTL, "list", "--socket", str(served.socket_path))
        code, coloured = run_on_terminal(*argv, env=environment(served.root), width=60)
        _, bare = run_on_terminal(*argv, env=environment(served.root, NO_COLOR="1"), width=60)

        assert code == 0
        assert "\x1b[" in coloured
        assert "\x1b" not in bare
        assert [line.split()[:2] for line in plain(coloured).split("\n")] == [
            line.split()[:2] for line in bare.split("\n")
        ]
        assert max(map(len, bare.split("\n"))) <= 60

    def test_status(self, served: ServedFleet) -> None:
        ctl(served, "start", "broken")

        done = ctl(served, "status", "broken")

        assert done.returncode == 0
        assert done.stdout.startswith("broken  BACKOFF for ")
        assert "Traceback of broken" in done.stdout
        assert json.loads(ctl(served, "status", "broken", "--json").stdout)["status"]["state"] == "BACKOFF"

    def test_restart_shows_progress_and_succeeds(self, served: ServedFleet) -> None:
        ctl(served, "start", "time")

        done = ctl(served, "restart", "time")

        assert done.returncode == 0
        assert done.stdout.startswith("time  READY  after ")
        assert [line.split("  ")[2] for line in done.stderr.splitlines()] == [
            "READY → STOPPING",
            "STOPPING → STOPPED",
            "STOPPED → STARTING",
            "STARTING → INITIALIZING",
            "INITIALIZING → READY",
        ]

    def test_a_restart_that_fails_says_why(self, served: ServedFleet) -> None:
        done = ctl(served, "restart", "broken", "time")

        assert done.returncode == 1
        assert done.stdout.startswith("broken  BACKOFF  no such module\n  its last words on stderr:\n")
        assert "    Traceback of broken\n    no such module\n  next: mcpctl status broken" in done.stdout
        assert "time  READY" in done.stdout

    def test_all_servers_at_once_for_programs(self, served: ServedFleet) -> None:
        done = ctl(served, "start", "--all", "--json")

        assert done.returncode == 1
        assert json.loads(done.stdout) == [
            {"name": "time", "ok": True, "state": "READY", "reason": ""},
            {"name": "notes", "ok": True, "state": "READY", "reason": ""},
            {"name": "broken", "ok": False, "state": "BACKOFF", "reason": "no such module"},
        ]

    def test_stop_and_reset_failed(self, served: ServedFleet) -> None:
        assert ctl(served, "stop", "time", "time").stdout.count("STOPPED") == 1
        assert ctl(served, "reset-failed", "time").returncode == 0

    @pytest.mark.parametrize("words", [[], ["time", "--all"]])
    def test_names_or_all_but_not_both(self, served: ServedFleet, words: list[str]) -> None:
        done = ctl(served, "restart", *words)

        assert done.returncode == 2
        assert "name servers, or say --all" in done.stderr

    def test_with_one_unknown_name_nothing_is_done(self, served: ServedFleet) -> None:
        done = ctl(served, "start", "time", "tiem")

        assert done.returncode == 1
        assert done.stderr == (
            "mcpctl: there is no server 'tiem'\n  did you mean 'time'? there are time, notes, broken\n"
        )
        assert served.fleet.all["time"].state == "STOPPED"

    def test_reload(self, served: ServedFleet) -> None:
        done = ctl(served, "reload", "--dry-run")
        assert (done.returncode, done.stdout.split("\n")[0]) == (0, "would be added: new")
        assert json.loads(ctl(served, "reload", "--json").stdout)["added"] == ["new"]

    def test_a_reload_of_another_registry_than_the_named_one_says_so(self, served: ServedFleet, tmp_path: Path) -> None:
        other = tmp_path / "other.toml"
        other.write_text("")

        done = ctl(served, "reload", "--dry-run", "--config", str(other))

        assert done.stderr == (
            f"mcpctl: the daemon runs with {served.fleet.root / 'mcpd.toml'}: it reads that, not {other}\n"
        )

    def test_a_reload_that_went_wrong_in_part(self, served: ServedFleet) -> None:
        served.fleet.report = type(served.fleet.report)(problems=("new: exec",), warnings=("careful",))

        done = ctl(served, "reload")

        assert done.returncode == 1
        assert done.stderr == "mcpctl: careful\nmcpctl: new: exec\n"

    def test_a_reload_of_a_broken_registry_tells_all_of_it(self, served: ServedFleet) -> None:
        served.fleet.registry_problems = [Problem(Path("/r"), n, f"servers.s{n}", "is bad", "mend it") for n in (1, 2)]

        done = ctl(served, "reload")

        assert done.returncode == 78
        assert done.stderr.startswith("mcpctl: /r:1: servers.s1: is bad; mend it\nmcpctl: /r:2: servers.s2: ")

    def test_logs(self, served: ServedFleet) -> None:
        served.fleet.log_path("time").write_bytes(b"1\n\x1b[2J2\n3\xff\n")
        argv = [MCPCTL, "--socket", str(served.socket_path), "logs", "time", "-n", "2"]

        raw = subprocess.run(argv, env=environment(served.root), capture_output=True, timeout=30, check=True)
        code, shown = run_on_terminal(*argv, env=environment(served.root))

        assert raw.stdout == b"\x1b[2J2\n3\xff\n"
        assert (code, shown) == (0, "?[2J2\n3\ufffd\n")

    def test_logs_are_followed_until_ctrl_c(self, served: ServedFleet) -> None:
        served.fleet.log_path("time").write_bytes(b"ready to follow\n")
        argv = [MCPCTL, "--socket", str(served.socket_path), "logs", "time", "-f"]

        code, shown = run_on_terminal(*argv, env=environment(served.root), interrupt_at="ready to follow")

        assert code == 130
        assert "Traceback" not in shown

    def test_events(self, served: ServedFleet) -> None:
        ctl(served, "start", "time", "notes")

        done = ctl(served, "events", "time", "-n", "100")
        last = ctl(served, "events", "-n", "1", "--json")
        none = ctl(served, "events", "-n", "0")

        assert [line.split("  ")[1:] for line in done.stdout.splitlines()] == [
            ["time", "STOPPED → STARTING"],
            ["time", "STARTING → INITIALIZING"],
            ["time", "INITIALIZING → READY"],
        ]
        assert json.loads(last.stdout)["to"] == "READY"
        assert none.stdout == ""
        assert ctl(served, "events", "nosuch").returncode == 1

    def test_following_events_ends_with_the_daemon(self, served: ServedFleet) -> None:
        argv = [MCPCTL, "--socket", str(served.socket_path), "events", "-f", "--json"]
        served.do("move", "time", "STARTING")
        with subprocess.Popen(argv, env=environment(served.root), stdout=subprocess.PIPE) as follower:
            assert follower.stdout is not None
            assert json.loads(follower.stdout.readline())["to"] == "STARTING"
            served.do("move", "time", "READY")
            assert json.loads(follower.stdout.readline())["to"] == "READY"
            served.do("request_shutdown")
            assert follower.stdout.read() == b""
            assert follower.wait(10) == 0

    def test_a_reader_who_has_seen_enough_is_no_error_to_talk_about(self, served: ServedFleet) -> None:
        served.fleet.log_path("time").write_bytes(b"x" * 1_000_000)
        argv = [MCPCTL, "--socket", str(served.socket_path), "logs", "time"]
        with subprocess.Popen(
            argv, env=environment(served.root), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as writer:
            assert writer.stdout is not None
            assert writer.stderr is not None
            writer.stdout.read(10)
            writer.stdout.close()
            assert writer.stderr.read() == b""
            assert writer.wait(10) == 1

    def test_sessions(self, served: ServedFleet) -> None:
        served.fleet.open_sessions.append(
            SessionStatus(id="0123abcd", principal="default", view="all", transport="stdio", since=1.0)
        )

        assert ctl(served, "sessions").stdout.split("\n")[1].startswith("0123abcd  -       all   stdio")
        assert json.loads(ctl(served, "sessions", "--json").stdout)[0]["id"] == "0123abcd"

    def test_tools(self, served: ServedFleet) -> None:
        assert "notes   echo  notes__echo   Says it again.\n" in ctl(served, "tools").stdout
        listed = json.loads(ctl(served, "tools", "time", "--json").stdout)
        assert listed[0]["input_schema"]["properties"]["times"] == {"type": "integer"}
        assert ctl(served, "tools", "nosuch").stderr.startswith("mcpctl: there is no server 'nosuch'\n")

    @pytest.mark.parametrize(
        ("words", "stdin", "said"),
        [
            (["time", "echo", "text=5", "times=2"], None, '{"text": "5", "times": 2}'),
            (["time", "time__echo", '{"text": "a"}'], None, '{"text": "a"}'),
            (["time", "echo", "-"], '{"text": "from stdin"}', '{"text": "from stdin"}'),
            (["time", "echo"], None, "{}"),
        ],
    )
    def test_call(self, served: ServedFleet, words: list[str], stdin: str | None, said: str) -> None:
        ctl(served, "start", "time")

        done = ctl(served, "call", *words, stdin=stdin)

        assert (done.returncode, done.stdout, done.stderr) == (0, said + "\n", "")

    def test_a_call_for_programs_brings_the_bytes(self, served: ServedFleet) -> None:
        ctl(served, "start", "time")

        done = ctl(served, "call", "time", "echo", "--json")

        assert done.stdout == (
            '{"content":[{"type":"text","text":"{}"}],"x-unknown":12345678901234567890,"half":"\\ud83d"}\n'
        )

    @pytest.mark.parametrize(
        ("words", "code", "said"),
        [
            (["time", "nosuch"], 1, "mcpctl: time has no tool 'nosuch'\n  it has echo\n"),
            (["time", "ehco"], 1, "mcpctl: time has no tool 'ehco'\n  did you mean 'echo'? it has echo\n"),
            (["time", "echo", "times=many"], 2, "mcpctl: times: integer is expected, found 'many'\n"),
            (["notes", "echo"], 1, "mcpctl: notes is not running: STOPPED\n"),
            (["nosuch", "echo"], 1, "mcpctl: there is no server 'nosuch'\n"),
        ],
    )
    def test_a_call_that_cannot_be_made(self, served: ServedFleet, words: list[str], code: int, said: str) -> None:
        ctl(served, "start", "time")

        done = ctl(served, "call", *words)

        assert (done.returncode, done.stdout) == (code, "")
        assert done.stderr.startswith(said)

    def test_a_tool_that_says_that_it_failed(self, served: ServedFleet, monkeypatch: pytest.MonkeyPatch) -> None:
        ctl(served, "start", "time")
        failing = served.fleet.call

        async def call(name: str, tool: str, arguments: bytes, timeout: float, caller: str) -> bytes:
            return await failing(name, "fail", arguments, timeout, caller)

        monkeypatch.setattr(served.fleet, "call", call)

        done = ctl(served, "call", "time", "echo")

        assert (done.returncode, done.stdout, done.stderr) == (1, "", "it went wrong\n")

    def test_token(self, served: ServedFleet) -> None:
        (served.root / "token").write_text("secret-of-the-door\n")

        assert ctl(served, "token").stdout == "secret-of-the-door\n"
        assert ctl(served, "token", "--path").stdout == f"{served.root / 'token'}\n"

    def test_a_token_that_cannot_be_read(self, served: ServedFleet) -> None:
        done = ctl(served, "token")

        assert done.returncode == 1
        assert done.stderr == f"mcpctl: {served.root / 'token'}: No such file or directory\n"

    def test_client_config_prints_what_is_to_be_merged(self, served: ServedFleet) -> None:
        done = ctl(served, "client-config", "claude-desktop")

        entry = {"command": MCPCTL, "args": ["connect", "--socket", str(served.root / "mcp.sock")]}
        assert json.loads(done.stdout) == {"mcpServers": {"mcpd": entry}}
        assert ".config/Claude/claude_desktop_config.json" in done.stderr

    def test_client_config_writes_and_says_where_the_old_file_is(self, served: ServedFleet) -> None:
        file = served.root / "home" / ".cursor" / "mcp.json"
        file.parent.mkdir()
        file.write_text('{"mcpServers": {"git": {"command": "uvx"}}}')

        first = ctl(served, "client-config", "cursor", "--write", "--server", "time")
        second = ctl(served, "client-config", "cursor", "--write", "--server", "time")

        assert first.returncode == second.returncode == 0
        assert list(json.loads(file.read_text())["mcpServers"]) == ["git", "time"]
        assert f"{file}: entry 'time' written; before: {file}.before-mcpd-" in first.stdout
        assert second.stdout == f"{file}: has the entry 'time' already\n"

    def test_client_config_by_url_has_the_token(self, served: ServedFleet) -> None:
        (served.root / "token").write_text("abc\n")

        done = ctl(served, "client-config", "vscode", "--http", "--server", "time", "--name", "clock")

        assert json.loads(done.stdout) == {
            "servers": {
                "clock": {
                    "type": "http",
                    "url": "http://127.0.0.1:6270/servers/time/mcp",
                    "headers": {"Authorization": "Bearer abc"},
                }
            }
        }

    @pytest.mark.parametrize(
        ("words", "code", "said"),
        [
            (["emacs"], 2, "'emacs' is none of claude-desktop, claude-code, cursor, vscode"),
            (["cursor", "--server", "a", "--view", "b"], 2, "one server or one view at a time"),
            (["cursor", "--server", "nosuch"], 1, "there is no server 'nosuch'"),
            (["claude-desktop", "--http"], 1, "Claude Desktop's configuration knows commands only"),
            (["cursor", "--write"], 1, "Cursor does not seem to be installed here"),
        ],
    )
    def test_client_config_that_cannot_be_had(
        self, served: ServedFleet, words: list[str], code: int, said: str
    ) -> None:
        (served.root / "token").write_text("abc\n")

        done = ctl(served, "client-config", *words)

        assert done.returncode == code
        assert said in " ".join(done.stderr.split())

    def test_names_are_completed_from_the_running_daemon(self, served: ServedFleet) -> None:
        line = f"mcpctl --socket {served.socket_path} restart t"
        env = environment(served.root, _MCPCTL_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD="4")

        assert run(MCPCTL, env=env).stdout.split() == ["time"]

    def test_options_for_the_daemon_may_stand_behind_the_command(self, served: ServedFleet) -> None:
        argv = [MCPCTL, "tools", "time", f"--socket={served.socket_path}"]

        assert run(*argv, env=environment(served.root)).returncode == 0

    def test_a_ctrl_c_leaves_the_command_to_the_daemon(self, served: ServedFleet) -> None:
        served.fleet.all["slow"] = MemoryServer("slow", ["hang"])
        argv = [MCPCTL, "--socket", str(served.socket_path), "start", "slow"]
        with subprocess.Popen(argv, env=environment(served.root), stderr=subprocess.PIPE, text=True) as starter:
            assert starter.stderr is not None
            assert "STOPPED → STARTING" in starter.stderr.readline()
            assert "STARTING → INITIALIZING" in starter.stderr.readline()
            starter.send_signal(signal.SIGINT)
            assert starter.stderr.read() == "mcpctl: the daemon goes on with it; `mcpctl list` shows how\n"
            assert starter.wait(10) == 130


def test_without_a_daemon_every_command_says_so(home: Path) -> None:
    for words in (["list"], ["restart", "time"], ["events"], ["logs", "time"], ["call", "time", "now"]):
        done = run(MCPCTL, *words, env=environment(home, XDG_RUNTIME_DIR=str(home)))

        assert done.returncode == 69, words
        assert done.stderr.startswith(f"mcpctl: no daemon is running ({home}/mcpd/control.sock: No such file"), words
        assert "mcpd start" in done.stderr


def test_completion_without_a_daemon_is_silent(home: Path) -> None:
    env = environment(home, _MCPCTL_COMPLETE="complete_bash", COMP_WORDS="mcpctl restart ", COMP_CWORD="2")

    done = run(MCPCTL, env=env)

    assert (done.stdout.strip(), done.stderr) == ("", "")


def test_a_registry_that_cannot_be_read_is_bad_configuration(home: Path) -> None:
    (home / "r.toml").write_text("[daemon\nruntime_dir = 3")

    done = run(MCPCTL, "--config", str(home / "r.toml"), "list", env=environment(home))

    assert done.returncode == 78
    assert "r.toml" in done.stderr


def test_the_token_and_entries_are_known_without_a_daemon(home: Path) -> None:
    registry = home / "r.toml"
    registry.write_text(f'[daemon]\nstate_dir = "{home}/s"\nruntime_dir = "{home}/r"\n[frontdoor]\nport = 1234\n')
    env = environment(home, MCPD_CONFIG=str(registry))
    missing = run(MCPCTL, "token", env=env)
    (home / "s").mkdir(mode=0o700)
    (home / "s" / "token").write_text("abc\n")

    by_url = run(MCPCTL, "client-config", "cursor", "--http", env=env)
    by_command = run(MCPCTL, "client-config", "cursor", "--view", "v", env=env)

    assert (missing.returncode, "there is no token yet" in missing.stderr) == (1, True)
    assert run(MCPCTL, "token", env=env).stdout == "abc\n"
    assert json.loads(by_url.stdout)["mcpServers"]["mcpd"]["url"] == "http://127.0.0.1:1234/mcp"
    assert by_command.stderr.startswith("mcpctl: there is no view 'v'\n")


def test_usage_mistakes_and_help(home: Path) -> None:
    assert run(MCPCTL, "nosuch", env=environment(home)).returncode == 2
    assert run(MCPCTL, "--version", env=environment(home)).stdout.startswith("mcpctl 0.")
    listed = run(MCPCTL, "--help", env=environment(home)).stdout
    for word in ("list", "status", "restart", "reload", "logs", "events", "call", "client-config", "connect"):
        assert f"\n  {word} " in listed


def test_a_terminal_without_arrows_gets_something_else(home: Path, tmp_path: Path) -> None:
    with served_fleet(tmp_path, MemoryServer("time")) as served:
        env = environment(home, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
        done = run(MCPCTL, "--socket", str(served.socket_path), "start", "time", env=env)

    assert done.returncode == 0
    assert "STOPPED ? STARTING" in done.stderr
