"""`mcpctl connect` as clients start it: a process of its own, before a daemon that is killed and started again."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client

from mcpd.cli import connect
from mcpd.cli.connect import Misuse, Options, parse, socket_paths
from mcpd.cli.daemon_link import Ended
from support.daemon import BIN, ROOT, Daemon, running, script_server
from support.echo_relay import CAPABILITIES
from support.local_daemon import LocalDaemon

DEADLINE = 20.0
TIME = script_server("time", ROOT / "workers" / "mcpworker" / "servers" / "time.py")
BARE_ENVIRONMENT = {
    "HOME": "/nonexistent",
    "PATH": os.environ["PATH"],
    **{key: value for key, value in os.environ.items() if key.startswith("COVERAGE")},
}


class Connected:
    """One `mcpctl connect`, from the client's side."""

    def __init__(self, *args: str, stdin: Any = subprocess.PIPE, stdout: Any = subprocess.PIPE) -> None:
        self.process = subprocess.Popen(
            [BIN / "mcpctl", "connect", *args],
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.PIPE,
            env=BARE_ENVIRONMENT,
        )
        self._held = b""

    def __enter__(self) -> Connected:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def write(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def say(self, **message: Any) -> None:
        self.write(json.dumps({"jsonrpc": "2.0", **message}, separators=(",", ":")).encode() + b"\n")

    def line(self) -> bytes:
        """The next line on stdout."""
        assert self.process.stdout is not None
        end = time.monotonic() + DEADLINE
        parts = [self._held]
        while b"\n" not in parts[-1]:
            ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"nothing came after {b''.join(parts)[:500]!r}"
            data = os.read(self.process.stdout.fileno(), 1 << 20)
            assert data, f"stdout ended after {b''.join(parts)[:500]!r}: {self.stderr()}"
            parts.append(data)
        line, _, self._held = b"".join(parts).partition(b"\n")
        return line

    def hear(self) -> Any:
        return json.loads(self.line())

    def ask(self, id: Any, method: str, **params: Any) -> Any:
        self.say(id=id, method=method, params=params)
        return self.hear()

    def initialize(self, **capabilities: Any) -> Any:
        client = {"name": "test", "version": "1"}
        answer = self.ask(0, "initialize", protocolVersion="2025-11-25", capabilities=capabilities, clientInfo=client)
        self.say(method="notifications/initialized")
        return answer["result"]

    def call(self, id: Any, tool: str, **arguments: Any) -> Any:
        self.say(id=id, method="tools/call", params={"name": tool, "arguments": arguments})

    def echo(self, id: Any, text: str) -> None:
        """A call, and its answer."""
        self.call(id, "echo", text=text)
        answer = self.hear()
        assert answer["id"] == id
        assert json.loads(answer["result"]["content"][0]["text"]) == {"text": text}

    def close_stdin(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()

    def ended(self) -> int:
        """The exit code; it must end by itself."""
        return self.process.wait(DEADLINE)

    def stderr(self) -> str:
        """What it has said, once it has ended."""
        self.process.wait(DEADLINE)
        assert self.process.stderr is not None
        return self.process.stderr.read().decode()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "mcp.sock"


@pytest.fixture
def daemon(path: Path) -> Iterator[LocalDaemon]:
    with LocalDaemon(path) as running:
        yield running


def at(path: Path) -> tuple[str, str, str]:
    return ("one", "--socket", str(path))


# ------------------------------------------------------------- relaying


def test_messages_pass_as_they_are(daemon: LocalDaemon, path: Path) -> None:
    with Connected(*at(path)) as client:
        assert client.initialize()["serverInfo"]["name"] == "one"
        client.echo(1, "hello")
        client.echo("1", "world")
        client.write(b'{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"echo","arguments":{"n":1e3}}}\n')
        assert b'\\"n\\": 1000.0' in client.line()
        assert daemon.got("tools/call")["params"]["arguments"] == {"text": "hello"}


def test_all_servers_are_seen_without_a_name(path: Path) -> None:
    with LocalDaemon(path, "a", "b"), Connected("--socket", str(path)) as client:
        client.initialize()
        names = {tool["name"] for tool in client.ask(1, "tools/list")["result"]["tools"]}
        assert {"a__echo", "b__echo"} <= names


def test_it_ends_with_its_stdin_once_the_answers_are_there(daemon: LocalDaemon, path: Path) -> None:
    with Connected(*at(path)) as client:
        client.initialize()
        client.write(b'{"jsonrpc":"2.0","id":5,"method":"ping"}')  # and no line break
        client.close_stdin()
        assert client.hear()["id"] == 5
        assert client.ended() == 0
        assert client.stderr() == ""


def test_everything_may_be_piped_in_at_once(daemon: LocalDaemon, path: Path, tmp_path: Path) -> None:
    client = {"name": "t", "version": "1"}
    opening = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client}
    lines = (
        {"id": 0, "method": "initialize", "params": opening},
        {"method": "notifications/initialized"},
        *({"id": n, "method": "tools/call", "params": {"name": "echo", "arguments": {"n": n}}} for n in range(1, 50)),
    )
    text = "".join(json.dumps({"jsonrpc": "2.0", **line}) + "\n" for line in lines).encode()
    given = tmp_path / "input"
    given.write_bytes(text)

    piped = subprocess.run([BIN / "mcpctl", "connect", *at(path)], input=text, capture_output=True, timeout=DEADLINE)
    with given.open("rb") as file:
        read = subprocess.run([BIN / "mcpctl", "connect", *at(path)], stdin=file, capture_output=True, timeout=DEADLINE)

    for done in (piped, read):
        assert (done.returncode, done.stderr) == (0, b"")
        assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == list(range(50))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_it_at_once(daemon: LocalDaemon, path: Path, number: signal.Signals) -> None:
    with Connected(*at(path)) as client:
        client.initialize()
        client.call(1, "hold")
        daemon.got("tools/call")
        client.process.send_signal(number)
        assert client.ended() == -number
        assert daemon.got("notifications/cancelled"), "the call ends with the connection"
        assert client.stderr() == ""


def test_a_closed_stdout_ends_it(daemon: LocalDaemon, path: Path) -> None:
    with Connected(*at(path)) as client:
        client.initialize()
        assert client.process.stdout is not None
        client.process.stdout.close()
        assert client.ended() == 0


def test_a_client_that_sends_much_before_it_reads_waits_for_nobody(daemon: LocalDaemon, path: Path) -> None:
    """More is under way here than pipes hold: if one direction held up the other, both would wait for ever."""
    with Connected(*at(path)) as client:
        client.initialize()
        for number in range(1, 13):
            client.call(number, "echo", text="x" * 50_000)
        for number in range(1, 13):
            answer = client.hear()
            assert answer["id"] == number
            assert "x" * 50_000 in answer["result"]["content"][0]["text"]


def test_a_large_message_passes(daemon: LocalDaemon, path: Path) -> None:
    with Connected(*at(path)) as client:
        client.initialize()
        client.echo(1, "y" * 3_000_000)
        client.call(2, "big", size=6_000_000)
        assert len(client.line()) > 6_000_000
        client.echo(3, "small again")


def test_sockets_do_for_stdin_and_stdout(daemon: LocalDaemon, path: Path) -> None:
    """As node starts its children."""
    ours, theirs = socket.socketpair()
    with ours, Connected(*at(path), stdin=theirs, stdout=theirs) as client:
        theirs.close()
        ours.settimeout(DEADLINE)
        for number in range(1, 21):
            line = b'{"jsonrpc":"2.0","id":%d,"method":"ping","params":{"x":"%b"}}\n' % (number, b"z" * 40_000)
            ours.sendall(line)
        with ours.makefile("rb") as answers:
            assert [json.loads(answers.readline())["id"] for _ in range(20)] == list(range(1, 21))
        ours.shutdown(socket.SHUT_WR)
        assert client.ended() == 0


def test_a_line_without_an_end_is_refused_and_dropped(path: Path) -> None:
    """More than MAX_LINE, and only that line."""
    with LocalDaemon(path), Connected(*at(path)) as client:
        client.initialize()
        piece = b"x" * (1 << 20)
        for _ in range(33):
            client.write(piece)
        assert client.hear()["error"]["code"] == -32600
        client.write(piece + b"\n")
        client.echo(1, "next")


def test_the_official_client_speaks_through_it_to_a_real_daemon() -> None:
    async def converse(daemon: Daemon) -> None:
        argv = daemon.connect_argv("time", "--config", str(daemon.registry))
        server = StdioServerParameters(command=argv[0], args=argv[1:])
        async with stdio_client(server) as (read, write), ClientSession(read, write) as session:
            await session.initialize()
            assert "now" in [tool.name for tool in (await session.list_tools()).tools]
            assert not (await session.call_tool("now", {})).is_error

    with running(TIME) as daemon:
        anyio.run(converse, daemon)


# ------------------------------------------------------------- a daemon that restarts


def test_a_restart_of_the_daemon_is_survived(path: Path) -> None:
    with LocalDaemon(path) as first, Connected(*at(path)) as client:
        client.initialize()
        client.ask(1, "logging/setLevel", level="warning")
        client.ask(2, "resources/subscribe", uri="a:1")
        client.ask(3, "resources/subscribe", uri="a:2")
        client.ask(4, "resources/unsubscribe", uri="a:1")
        client.call("held", "hold")
        first.got("tools/call")
        first.kill()

        lost = client.hear()
        assert lost["id"] == "held"
        assert "lost" in lost["error"]["message"]

        with LocalDaemon(path) as second:
            assert client.hear() == {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}
            assert second.got("logging/setLevel")["params"] == {"level": "warning"}
            assert second.got("resources/subscribe")["params"] == {"uri": "a:2"}
            client.echo(5, "as if nothing had happened")
            client.close_stdin()
            assert client.ended() == 0
            said = client.stderr()
            assert "waiting for it to come back" in said
            assert "connected again, to a new mcpd" in said
            assert "a:1" not in str(second.kill())


def test_requests_that_come_meanwhile_wait(path: Path) -> None:
    with LocalDaemon(path) as first, Connected(*at(path)) as client:
        client.initialize()
        client.call(1, "hold")
        first.got("tools/call")
        first.kill()
        client.hear()
        client.call(2, "echo", text="patience")
        with LocalDaemon(path):
            assert client.hear()["method"] == "notifications/tools/list_changed"
            assert client.hear()["id"] == 2


def test_an_initialize_in_flight_is_put_to_the_next_daemon(path: Path) -> None:
    """By a daemon that dies before it answers: a bare socket is enough to be one."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        with Connected(*at(path)) as client:
            client.say(id=0, method="initialize", params={"protocolVersion": "2025-11-25", "capabilities": {}})
            connection, _ = listening.accept()
            with connection, connection.makefile("rb") as lines:
                assert json.loads(lines.readline()) == {"mcpd": 1, "view": "server:one"}
                connection.sendall(b'{"mcpd":1,"ok":true,"daemon":"x"}\n')
                assert json.loads(lines.readline())["method"] == "initialize"
                listening.close()
                path.unlink()
            with LocalDaemon(path):
                answer = client.hear()
                assert answer["id"] == 0
                assert answer["result"]["serverInfo"]["name"] == "one"
                client.say(method="notifications/initialized")
                client.echo(1, "on")


def test_answers_to_the_old_daemon_do_not_reach_the_new_one(path: Path) -> None:
    with LocalDaemon(path) as first, Connected(*at(path)) as client:
        client.initialize(sampling={})
        client.call(1, "ask")
        asked = client.hear()
        assert asked["method"] == "sampling/createMessage"
        first.kill()
        told = [client.hear() for _ in range(2)]
        assert told[0]["id"] == 1
        assert "error" in told[0]
        assert (told[1]["method"], told[1]["params"]["requestId"]) == ("notifications/cancelled", asked["id"])

        with LocalDaemon(path) as second:
            assert client.hear()["method"] == "notifications/tools/list_changed"
            client.say(id=asked["id"], result={"role": "assistant", "content": {"type": "text", "text": "late"}})
            client.call(2, "ask")
            anew = client.hear()
            client.say(id=anew["id"], result={"role": "assistant", "content": {"type": "text", "text": "fresh"}})
            answer = client.hear()
            assert answer["id"] == 2
            assert "fresh" in answer["result"]["content"][0]["text"]
            assert "late" not in str(second.kill())


def test_a_request_under_an_id_that_the_client_may_still_hold_is_refused(path: Path) -> None:
    """The first request of the new daemon has the id that the first one of the old daemon had."""
    with LocalDaemon(path) as first, Connected(*at(path)) as client:
        client.initialize(sampling={})
        client.call(1, "ask")
        asked = client.hear()
        first.kill()
        client.hear(), client.hear()
        path.unlink()
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(path))
            listening.listen()
            connection, _ = listening.accept()
            with connection, connection.makefile("rb") as lines:
                lines.readline()
                connection.sendall(b'{"mcpd":1,"ok":true,"daemon":"x"}\n')
                initialize = json.loads(lines.readline())
                result = {"protocolVersion": "2025-11-25", "capabilities": CAPABILITIES}
                repeated = {"jsonrpc": "2.0", "id": asked["id"], "method": "sampling/createMessage", "params": {}}
                for message in ({"jsonrpc": "2.0", "id": initialize["id"], "result": result}, repeated):
                    connection.sendall(json.dumps(message, separators=(",", ":")).encode() + b"\n")
                said = [json.loads(lines.readline()) for _ in range(2)]
                assert said[0] == {"jsonrpc": "2.0", "method": "notifications/initialized"}
                assert said[1]["id"] == asked["id"]
                assert "before mcpd restarted" in said[1]["error"]["message"]
                assert client.hear()["method"] == "notifications/tools/list_changed"


def test_other_capabilities_after_a_restart_end_it(path: Path) -> None:
    with LocalDaemon(path) as first, Connected(*at(path)) as client:
        client.initialize()
        first.kill()
        with LocalDaemon(path, capabilities={"tools": {}}):
            assert client.ended() == 0
            assert "other capabilities" in client.stderr()


def test_a_server_that_is_gone_after_a_restart_ends_it(path: Path) -> None:
    with LocalDaemon(path) as first, Connected(*at(path)) as client:
        client.initialize()
        first.kill()
        with LocalDaemon(path, "other"):
            client.say(id=1, method="ping")
            assert client.hear()["error"]["code"] == -32000
            assert client.ended() == 1
            assert "one" in client.stderr()


PATIENT = """
import sys
from functools import partial
from mcpd.cli.connect import reach
from mcpd.cli.stdio_relay import StdioRelay
sys.exit(StdioRelay("server:one", partial(reach, [sys.argv[1]]), patience=0.3).run())
"""


def test_a_daemon_that_stays_away_is_given_up(path: Path) -> None:
    command = [sys.executable, "-c", PATIENT, str(path)]
    with (
        LocalDaemon(path) as daemon,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as relay,
    ):
        assert relay.stdin is not None
        assert relay.stdout is not None
        relay.stdin.write(b'{"jsonrpc":"2.0","id":0,"method":"ping"}\n')
        relay.stdin.flush()
        relay.stdout.readline()
        daemon.kill()
        relay.stdin.write(b'{"jsonrpc":"2.0","id":1,"method":"ping"}\n')
        relay.stdin.flush()
        # its input stays open: the end of that would be another reason to end
        assert relay.wait(DEADLINE) == 69
        assert relay.stderr is not None
        output, errors = relay.stdout.read(), relay.stderr.read()
        assert [json.loads(line)["id"] for line in output.splitlines()] == [1]
        assert b"did not come back" in errors


def test_a_client_that_leaves_while_no_daemon_is_there_is_not_waited_for(path: Path) -> None:
    with LocalDaemon(path) as daemon, Connected(*at(path)) as client:
        client.initialize()
        client.call(1, "hold")
        daemon.got("tools/call")
        daemon.kill()
        client.hear()
        client.close_stdin()
        assert client.ended() == 0


# ------------------------------------------------------------- no daemon


def test_without_a_daemon_the_first_request_and_stderr_say_so(path: Path) -> None:
    with Connected(*at(path)) as client:
        answer = client.ask("x", "initialize")
        assert answer["id"] == "x"
        assert "no mcpd is running" in answer["error"]["message"]
        assert client.ended() == 69
        assert "mcpd start" in client.stderr()


def test_without_a_daemon_and_a_request_it_just_ends(path: Path) -> None:
    with Connected(*at(path)) as client:
        client.close_stdin()
        assert client.ended() == 69


def test_an_unknown_server_is_told(daemon: LocalDaemon, path: Path) -> None:
    with Connected("nobody", "--socket", str(path)) as client:
        assert "nobody" in client.ask(1, "initialize")["error"]["message"]
        assert client.ended() == 1


def test_what_is_not_mcpd_is_told(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        with Connected(*at(path)) as client:
            connection, _ = listening.accept()
            with connection:
                connection.sendall(b"220 hello\n")
                client.close_stdin()
                assert client.ended() == 1
                assert "not mcpd" in client.stderr()


def test_spawn_starts_a_daemon_with_the_same_registry() -> None:
    daemon = Daemon(TIME)
    try:
        with Connected("--spawn", "--config", str(daemon.registry)) as client:
            assert client.initialize()["capabilities"]["tools"]
            client.close_stdin()
            assert client.ended() == 0
        assert daemon.states()["time"], "the daemon goes on without its first client"
    finally:
        daemon.run("mcpd", "stop")
        daemon.close()


def test_spawn_tells_that_the_daemon_could_not_be_started(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect, "SPAWN_GRACE", 0.05)
    with pytest.raises(Ended, match="exit code 7"):
        connect.spawn(None, [str(path)], [sys.executable, "-c", "raise SystemExit(7)"])


def test_spawn_does_not_wait_for_ever(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect, "SPAWN_TIMEOUT", 0.1)
    with pytest.raises(Ended, match="did not listen"):
        connect.spawn(None, [str(path)], ["true"])


# ------------------------------------------------------------- where the daemon is, and what it costs


@pytest.mark.parametrize(
    ("arguments", "view"),
    [
        ([], "all"),
        (["time"], "server:time"),
        (["--view", "research"], "view:research"),
        (["--view=research", "--config=x", "--spawn"], "view:research"),
        (["time", "--socket", "s"], "server:time"),
    ],
)
def test_arguments_name_the_view(arguments: list[str], view: str) -> None:
    assert parse(arguments).view == view


@pytest.mark.parametrize(
    "arguments",
    [
        ["a", "b"],
        ["a", "--view", "b"],
        ["--view"],
        ["--what"],
        ["--socket", "s", "--config", "c"],
        ["--socket=s", "--spawn"],
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments: list[str]) -> None:
    with pytest.raises(Misuse):
        parse(arguments)
    assert connect.main(arguments) == 2


def test_help_is_on_stdout() -> None:
    done = subprocess.run([BIN / "mcpctl", "connect", "--help"], capture_output=True, timeout=DEADLINE, text=True)
    assert done.returncode == 0
    assert "--spawn" in done.stdout


def options(**given: str) -> Options:
    made = Options()
    for name, value in given.items():
        setattr(made, name, value)
    return made


def test_the_socket_is_looked_for_where_the_daemon_puts_it(tmp_path: Path) -> None:
    silent = tmp_path / "silent.toml"
    silent.write_text("[servers]\n")
    telling = tmp_path / "telling.toml"
    telling.write_text('[daemon]\nruntime_dir = "run"\n')
    (tmp_path / "mcpd").mkdir()
    (tmp_path / "mcpd" / "mcpd.toml").write_text('[daemon]\nruntime_dir = "/elsewhere"\n')
    usual = ["/run/user/7/mcpd/mcp.sock", "/tmp/mcpd-7/mcp.sock", "/run/mcpd/mcp.sock"]
    config = str(silent)

    assert socket_paths(options(socket="s"), {}, 7) == ["s"]
    assert socket_paths(options(config=config), {}, 7) == usual
    assert socket_paths(options(config=config), {"XDG_RUNTIME_DIR": "/run/user/7"}, 7) == usual
    assert socket_paths(options(config=config), {"XDG_RUNTIME_DIR": "/x"}, 7) == ["/x/mcpd/mcp.sock", *usual]
    assert socket_paths(options(config=config), {"RUNTIME_DIRECTORY": "/r:/s"}, 7) == ["/r/mcp.sock", *usual]
    assert socket_paths(options(config=str(telling)), {"XDG_RUNTIME_DIR": "/x"}, 7) == [f"{tmp_path}/run/mcp.sock"]
    assert socket_paths(options(), {"MCPD_CONFIG": str(telling)}, 7) == [f"{tmp_path}/run/mcp.sock"]
    assert socket_paths(options(), {"XDG_CONFIG_HOME": str(tmp_path)}, 7) == ["/elsewhere/mcp.sock"]
    assert socket_paths(options(), {"MCPD_DAEMON__RUNTIME_DIR": "/e"}, 7) == ["/e/mcp.sock"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('[daemon]\nruntime_dir = "run"\n', "run"),
        ("[daemon]\nlog_level = 'info'\n  runtime_dir='/r'\n[servers.a]\n", "/r"),
        ('[daemon]\nruntime_dir = "run" # here\n', None),
        ('[daemon]\nruntime_dir = "a\\u0062"\n', None),
        ('daemon.runtime_dir = "run"\n', None),
        ('[servers.a]\nruntime_dir = "run"\n', None),
        ('[daemon]\n# runtime_dir = "run"\n', None),
        ('[servers.a]\nnote = """\n[daemon]\nruntime_dir = "run"\n"""\n', None),
        ('[daemon]\nruntime_dir = "a"\nruntime_dir = "b"\n', None),
    ],
)
def test_only_what_cannot_mean_anything_else_is_read_without_a_parser(text: str, found: str | None) -> None:
    assert connect._plain_runtime_dir(text.encode()) == found


@pytest.mark.parametrize("line", ['runtime_dir = "run"', "  runtime_dir='run' # here"])
def test_a_registry_that_is_being_edited_still_says_where_the_daemon_is(tmp_path: Path, line: str) -> None:
    torn = tmp_path / "torn.toml"
    torn.write_text(f"[daemon]\n{line}\n[servers.a\n")

    assert socket_paths(options(config=str(torn)), {}, 7) == [f"{tmp_path}/run/mcp.sock"]


def test_a_registry_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    broken = tmp_path / "broken.toml"
    broken.write_text("runtime_dir = [")
    with Connected("--config", str(broken)) as client:
        assert "broken.toml" in client.ask(1, "initialize")["error"]["message"]
        assert client.ended() == 78
    with Connected("--config", str(tmp_path / "missing.toml")) as client:
        assert "missing.toml cannot be read" in client.ask(1, "initialize")["error"]["message"]
        assert client.ended() == 78


def test_only_a_daemon_of_this_user_or_root_is_spoken_to(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        connect.reach([str(path)]).close()
        monkeypatch.setattr(connect, "peer_uid", lambda link: os.getuid() + 4711)
        with pytest.raises(Ended, match="belongs to user"):
            connect.reach([str(path)])


FORBIDDEN = {
    "asyncio",
    "json",
    "re",
    "socket",
    "enum",
    "typing",
    "argparse",
    "subprocess",
    "tomllib",
    "mcpd.daemon",
    "mcpd.cli.mcpctl",
}


def test_it_loads_next_to_nothing() -> None:
    """What it loads is what it costs to start: some 20 ms and 4 MiB over Python itself."""
    program = (
        f"import sys; sys.path[:0] = {sys.path!r}; sys.argv = ['mcpctl', 'connect', '--help']\n"
        "import mcpd.cli.entry as entry; entry.mcpctl(); print(*sys.modules)"
    )
    command = [sys.executable, "-I", "-S", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=DEADLINE)
    assert not FORBIDDEN & set(done.stdout.splitlines()[-1].split())


@pytest.mark.skipif("COVERAGE_PROCESS_START" in os.environ, reason="coverage is in the same process")
def test_it_stays_small(daemon: LocalDaemon, path: Path) -> None:
    with Connected(*at(path)) as client:
        client.initialize()
        for number in range(1, 200):
            client.echo(number, "x" * 100)
        status = Path(f"/proc/{client.process.pid}/status").read_text()
        assert int(status.partition("VmRSS:")[2].split()[0]) <= 14 * 1024
