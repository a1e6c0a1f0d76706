"""`python -m mcpworker`: run a script, or one server on the transport of one's choice."""

import json
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest

from support.http_server import free_port, wait_for_port
from support.raw_stdio import RawServer
from support.worker_clients import connected

SOURCE = """
import sys
from fastmcp import FastMCP

app = FastMCP("App", port=1)
second = FastMCP("Second")

@app.tool()
def arguments() -> list[str]:
    return sys.argv[1:]

if __name__ == "__main__":
    raise SystemExit("the main block was run")
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "my_server.py"
    path.write_text(SOURCE)
    return path


@contextmanager
def spawned(*arguments: object) -> Iterator[RawServer]:
    server = RawServer([sys.executable, "-m", "mcpworker", *map(str, arguments)])
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.process.send_signal(signal.SIGKILL)
        server.process.communicate()


def refused(*arguments: object) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "mcpworker", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.stdout == ""
    return done.returncode, done.stderr


def test_run_finds_the_usual_name_and_serves_on_stdio(script: Path) -> None:
    with spawned("run", script) as server:
        assert server.initialize()["result"]["serverInfo"]["name"] == "App"
        assert server.finish()[0] == 0


def test_run_serves_the_named_object(script: Path) -> None:
    with spawned("run", f"{script}:second", "--transport", "stdio") as server:
        assert server.initialize()["result"]["serverInfo"]["name"] == "Second"
        assert server.finish()[0] == 0


def test_run_hands_arguments_on(script: Path) -> None:
    with spawned("run", script, "--", "one", "--two") as server:
        server.initialize()
        assert server.call("arguments")["result"]["structuredContent"] == {"result": ["one", "--two"]}
        assert server.finish()[0] == 0


@pytest.mark.parametrize(("transport", "kind"), [("sse", "sse-legacy"), ("streamable-http", "http-modern")])
def test_run_serves_over_http_where_it_is_told(script: Path, transport: str, kind: str) -> None:
    port = free_port()
    options = ("--transport", transport, "--host", "127.0.0.1", "--port", port, "--log-level", "DEBUG")

    async def names() -> list[str]:
        async with connected(kind, f"http://127.0.0.1:{port}") as client:
            return [tool.name for tool in (await client.list_tools()).tools]

    with spawned("run", script, *options) as server:
        wait_for_port(server.process, port)
        assert anyio.run(names) == ["arguments"]
        server.process.send_signal(signal.SIGTERM)
        _, errors = server.process.communicate(timeout=15)

    assert server.process.returncode in (0, -signal.SIGTERM)
    assert b"DEBUG    FastMCP.serve: 'App' begins to listen" in errors


def test_server_ends_while_an_sse_client_is_connected(script: Path) -> None:
    port = free_port()
    with spawned("run", script, "-t", "sse", "--host", "127.0.0.1", "-p", port) as server:
        wait_for_port(server.process, port)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/sse", timeout=10) as stream:
            assert stream.readline() == b"event: endpoint\r\n"
            server.process.send_signal(signal.SIGTERM)
            server.process.communicate(timeout=10)


def test_log_level_works_on_stdio_too(script: Path) -> None:
    with spawned("run", script, "--log-level", "error") as server:
        server.initialize()
        server.call("nonsense")
        assert b"INFO" not in server.finish()[2].encode()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["{script}", "--port", "1"], 2, "--host and --port need --transport sse or streamable-http"),
        (["{script}", "--transport", "carrier-pigeon"], 2, "invalid choice: 'carrier-pigeon'"),
        (["{script}", "--log-level", "loud"], 2, "invalid choice: 'LOUD'"),
        (["{script}.missing"], 1, "File not found: {script}.missing"),
        (["{directory}"], 1, "Not a file: {directory}"),
        (["{script}:absent"], 1, "Server object 'absent' not found in {script}"),
        ([], 2, "the following arguments are required: FILE[:OBJECT]"),
    ],
)
def test_what_cannot_be_run_is_said(script: Path, arguments: list[str], code: int, said: str) -> None:
    names = {"script": script, "directory": script.parent}
    found = refused("run", *(argument.format(**names) for argument in arguments))

    assert found[0] == code
    assert said.format(**names) in found[1]


def test_file_without_a_server_says_which_names_are_looked_for(tmp_path: Path) -> None:
    script = tmp_path / "empty.py"
    script.write_text("")

    code, errors = refused("run", script)

    assert code == 1
    assert errors.endswith(
        f"No server object found in {script}. Please either:\n"
        "1. Use a standard variable name (mcp, server, or app)\n"
        "2. Specify the object name with file:object syntax\n"
    )


def test_failure_to_run_is_one_line(tmp_path: Path) -> None:
    script = tmp_path / "failing.py"
    script.write_text("class S:\n    def run(self):\n        raise OSError('no such luck')\nmcp = S()\n")

    code, errors = refused("run", script)

    assert (code, errors) == (1, "python -m mcpworker run: Failed to run server: no such luck\n")


def test_module_runs_a_script_as_a_program(script: Path) -> None:
    code, errors = refused(script, "argument")

    assert (code, errors) == (1, "the main block was run\n")


def test_answer_of_a_script_run_by_the_module_is_protocol(tmp_path: Path) -> None:
    path = tmp_path / "noisy.py"
    path.write_text(SOURCE.replace('raise SystemExit("the main block was run")', "print('noise'); app.run()"))
    with spawned(path, "x") as server:
        server.initialize()
        answer = server.call("arguments")
        assert json.loads(answer["result"]["content"][0]["text"]) == ["x"]
        assert server.finish()[:2] == (0, b"")
