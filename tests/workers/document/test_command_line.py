"""The document, "Using the FastMCP CLI": `fastmcp run` reads `python -m mcpworker run` here; `mcpd run` starts that."""

import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from support import own_network
from support.document import LAUNCHER, SNIPPETS, over_stdio, write_script

pytestmark = pytest.mark.anyio

LINES = [line for line in SNIPPETS["command-line"].splitlines() if line.startswith("fastmcp ")]
NEEDS_A_NETWORK = pytest.mark.skipif(not own_network.available(), reason="cannot make a network namespace")


def as_ours(line: str) -> list[str]:
    """The document's command with our program in the place of theirs."""
    program, *arguments = shlex.split(line)
    assert program == "fastmcp"
    return [*LAUNCHER, *arguments]


MCPD = Path(sys.executable).parent / "mcpd"


def as_the_daemons(line: str) -> list[str]:
    """The document's command with the daemon's program in the place of theirs."""
    return [str(MCPD), *shlex.split(line)[1:]]


def my_server(folder: Path) -> Path:
    return write_script(folder, SNIPPETS["my_server"], name="my_server.py")


@pytest.mark.parametrize("command", [as_ours, as_the_daemons])
@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_run_defaults_to_stdio(mode: str, command: Callable[[str], list[str]], tmp_path: Path) -> None:
    """'Run a server (defaults to stdio transport)'."""
    my_server(tmp_path)
    async with over_stdio(command(LINES[0]), mode=mode, cwd=tmp_path) as client:
        assert [tool.name for tool in (await client.list_tools()).tools] == ["greet"]


@NEEDS_A_NETWORK
def test_the_daemons_program_takes_the_same_options(tmp_path: Path) -> None:
    """`mcpd run` is the `fastmcp run` of this house."""
    my_server(tmp_path)
    argv = as_the_daemons("fastmcp run my_server.py:mcp --transport sse --host 127.0.0.1 --port 8888 --log-level DEBUG")
    finished = subprocess.run(own_network.command(8888, argv), capture_output=True, text=True, timeout=90, cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert '{"name": "MyServer", "tools": ["greet"], "address": "127.0.0.1"}' in finished.stdout


@NEEDS_A_NETWORK
@pytest.mark.parametrize(
    ("line", "port", "address"),
    [(LINES[1], 8000, "0.0.0.0"), (LINES[2], 8888, "127.0.0.1"), (LINES[3], 8000, "0.0.0.0")],
)
def test_run_takes_transport_host_port_and_log_level(line: str, port: int, address: str, tmp_path: Path) -> None:
    """'Explicitly specify a transport', 'Configure SSE transport with host and port', 'With log level'."""
    my_server(tmp_path)
    finished = subprocess.run(
        own_network.command(port, as_ours(line)), capture_output=True, text=True, timeout=90, cwd=tmp_path
    )
    assert finished.returncode == 0, finished.stderr
    assert f'{{"name": "MyServer", "tools": ["greet"], "address": "{address}"}}' in finished.stdout


@pytest.mark.parametrize("name", ["mcp", "server", "app"])
async def test_run_finds_the_server_object_and_does_not_run_the_main_block(name: str, tmp_path: Path) -> None:
    """'The CLI can dynamically find and run FastMCP server objects in your files'."""
    source = SNIPPETS["my_server"].replace("mcp = ", f"{name} = ").replace("@mcp", f"@{name}")
    main = source.index("    mcp.run()")
    script = write_script(tmp_path, source[:main] + "    raise SystemExit('the main block ran')")
    async with over_stdio([*LAUNCHER, "run", str(script)]) as client:
        assert [tool.name for tool in (await client.list_tools()).tools] == ["greet"]


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("missing.py", "File not found: missing.py"),
        (".", "Not a file: ."),
        ("my_server.py:nobody", "Server object 'nobody' not found"),
        ("empty.py", "No server object found in "),
    ],
)
def test_what_cannot_be_run_is_said(target: str, text: str, tmp_path: Path) -> None:
    my_server(tmp_path)
    write_script(tmp_path, "", name="empty.py")
    finished = subprocess.run(
        [*LAUNCHER, "run", target], capture_output=True, text=True, timeout=60, cwd=tmp_path, stdin=subprocess.DEVNULL
    )
    assert finished.returncode == 1
    assert text in finished.stderr
    assert finished.stdout == ""
