"""The document, "Running the Server": the main block, transports and their parameters."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import anyio
import pytest
from mcp.client.sse import sse_client

from support import own_network
from support.document import (
    LAUNCHER,
    SNIPPETS,
    over_sse,
    over_stdio,
    run_script,
    serving_sse,
    write_script,
)
from support.http_server import free_port, running

pytestmark = pytest.mark.anyio

BOTH_ERAS = pytest.mark.parametrize("mode", ["legacy", "auto"])
NEEDS_A_NETWORK = pytest.mark.skipif(not own_network.available(), reason="cannot make a network namespace")

HELPERS = """
import os
from fastmcp import FastMCP

mcp = FastMCP("Helpers")

@mcp.tool()
def pid() -> int:
    return os.getpid()
"""


def my_server(folder: Path) -> Path:
    return write_script(folder, SNIPPETS["my_server"], name="my_server.py")


def seen_in_own_network(port: int, argv: list[str], folder: Path) -> dict[str, object]:
    """Return what a client sees of a server that runs where all ports are free."""
    finished = subprocess.run(
        own_network.command(port, argv), capture_output=True, text=True, timeout=90, cwd=folder, check=False
    )
    assert finished.returncode == 0, finished.stderr
    seen: dict[str, object] = json.loads(finished.stdout.splitlines()[-1])
    return seen


# --- The __main__ block pattern ----------------------------------------------------------------------------------


@BOTH_ERAS
async def test_a_client_executes_the_server_file_directly(mode: str, tmp_path: Path) -> None:
    """'Standard MCP clients (like Claude Desktop) expect to execute your server file directly'."""
    async with over_stdio([*LAUNCHER, str(my_server(tmp_path))], mode=mode) as client:
        assert client.server_info is not None
        assert client.server_info.name == "MyServer"
        [tool] = (await client.list_tools()).tools
        assert (tool.name, tool.description) == ("greet", "Greet a user by name.")
        result = await client.call_tool("greet", {"name": "Ann"})
        assert [block.text for block in result.content] == ["Hello, Ann!"]  # type: ignore[union-attr]


@BOTH_ERAS
async def test_each_server_runs_in_its_own_process(mode: str, tmp_path: Path) -> None:
    """'Process Isolation: Each server runs in its own process' and 'a new server process for each session'."""
    script = write_script(tmp_path, HELPERS, "mcp.run()")
    async with (
        over_stdio([*LAUNCHER, str(script)], mode=mode) as one,
        over_stdio([*LAUNCHER, str(script)], mode=mode) as two,
    ):
        pids = [(await client.call_tool("pid", {})).content[0].text for client in (one, two)]  # type: ignore[union-attr]
    assert len(set(pids)) == 2


def test_importing_the_file_does_not_run_the_server(tmp_path: Path) -> None:
    """'Import Safety: The main block prevents the server from running when the file is imported by other code'."""
    my_server(tmp_path)
    other = write_script(tmp_path, "import my_server\nprint('imported', my_server.mcp.name)", name="other.py")
    code, errors = run_script(other)
    assert code == 0
    assert "imported MyServer" in errors


# --- stdio --------------------------------------------------------------------------------------------------------


@BOTH_ERAS
@pytest.mark.parametrize("call", [SNIPPETS["stdio"], 'mcp.run(transport="stdio")'])
async def test_stdio_is_the_default_transport(mode: str, call: str, tmp_path: Path) -> None:
    """'The standard input/output (STDIO) transport is the default'."""
    script = write_script(tmp_path, HELPERS, call)
    async with over_stdio([*LAUNCHER, str(script)], mode=mode) as client:
        assert [tool.name for tool in (await client.list_tools()).tools] == ["pid"]


@BOTH_ERAS
async def test_the_process_terminates_when_the_client_disconnects(mode: str, tmp_path: Path) -> None:
    """'The server process terminates when the client disconnects'."""
    journal = tmp_path / "journal"
    script = write_script(tmp_path, HELPERS, "mcp.run()", f"open({str(journal)!r}, 'w').write('ended by itself')")
    async with over_stdio([*LAUNCHER, str(script)], mode=mode) as client:
        pid = int((await client.call_tool("pid", {})).content[0].text)  # type: ignore[union-attr]
    assert journal.read_text() == "ended by itself"
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@BOTH_ERAS
async def test_nothing_but_the_protocol_goes_to_standard_output(mode: str, tmp_path: Path) -> None:
    """'Communication happens through standard input/output streams'."""
    noise = "print('at import')\nimport os\nos.system('echo from a child')\n"
    tool = (
        "@mcp.tool()\ndef loud() -> str:\n    print('in a tool')\n    os.system('echo from a child')\n    return 'x'\n"
    )
    script = write_script(tmp_path, noise, HELPERS, tool, "mcp.run()")
    async with over_stdio([*LAUNCHER, str(script)], mode=mode) as client:
        result = await client.call_tool("loud", {})
        assert [block.text for block in result.content] == ["x"]  # type: ignore[union-attr]


# --- SSE ----------------------------------------------------------------------------------------------------------


@NEEDS_A_NETWORK
def test_sse_listens_on_all_addresses_at_port_8000_by_default(tmp_path: Path) -> None:
    """'Run with SSE on default host/port (0.0.0.0:8000)'."""
    script = write_script(tmp_path, HELPERS, SNIPPETS["sse"])
    seen = seen_in_own_network(8000, [*LAUNCHER, str(script)], tmp_path)
    assert seen == {"name": "Helpers", "tools": ["pid"], "address": "0.0.0.0"}


@BOTH_ERAS
async def test_many_clients_can_connect_to_sse_at_once(mode: str, tmp_path: Path) -> None:
    """'Multiple clients can connect simultaneously'."""
    with serving_sse(tmp_path, HELPERS) as url:
        async with contextlib.AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(over_sse(url, mode=mode)) for _ in range(3)]
            pids: list[str] = []

            async def call(client: object) -> None:
                result = await client.call_tool("pid", {})  # type: ignore[attr-defined]
                pids.append(result.content[0].text)

            async with anyio.create_task_group() as group:
                for client in clients:
                    group.start_soon(call, client)
    assert len(pids) == 3
    assert len(set(pids)) == 1


async def test_clients_of_both_eras_can_be_connected_at_once(tmp_path: Path) -> None:
    """As above: the server speaks each client's revision."""
    with serving_sse(tmp_path, HELPERS) as url:
        async with over_sse(url, mode="legacy") as old, over_sse(url, mode="auto") as new:
            for client in (old, new):
                assert [tool.name for tool in (await client.list_tools()).tools] == ["pid"]


async def test_the_sse_server_stays_until_it_is_terminated(tmp_path: Path) -> None:
    """'The server runs as a persistent web server', 'stays running until explicitly terminated'."""
    port = free_port()
    script = write_script(tmp_path, HELPERS, f"mcp.run(transport='sse', host='127.0.0.1', port={port})")
    url = f"http://127.0.0.1:{port}/sse"
    with running([*LAUNCHER, str(script)], port) as process:
        for _ in range(2):
            async with over_sse(url) as client:
                await client.list_tools()
            assert process.poll() is None
        async with sse_client(url):  # a client that is still there must not hold it
            process.terminate()
            with anyio.fail_after(10):
                await anyio.to_thread.run_sync(process.wait)


@NEEDS_A_NETWORK
def test_transport_parameters_are_configured_when_running(tmp_path: Path) -> None:
    """'You can configure transport parameters directly when running the server'."""
    constructor = 'from fastmcp import FastMCP\nmcp = FastMCP("Parameters", host="0.0.0.0", port=9999)\n'
    script = write_script(tmp_path, constructor, SNIPPETS["sse-parameters"])
    seen = seen_in_own_network(8888, [*LAUNCHER, str(script)], tmp_path)
    assert seen == {"name": "Parameters", "tools": [], "address": "127.0.0.1"}


@NEEDS_A_NETWORK
def test_run_sse_async_takes_the_same_parameters(tmp_path: Path) -> None:
    """'You can also run asynchronously with the same parameters'."""
    _, marker, second_half = SNIPPETS["sse-parameters"].partition("# You can also run asynchronously")
    constructor = 'from fastmcp import FastMCP\nmcp = FastMCP("Parameters", host="0.0.0.0", port=9999)\n'
    script = write_script(tmp_path, constructor, marker + second_half)
    seen = seen_in_own_network(8888, [*LAUNCHER, str(script)], tmp_path)
    assert seen == {"name": "Parameters", "tools": [], "address": "127.0.0.1"}


async def test_the_log_level_of_the_run_counts_more_than_the_constructors(tmp_path: Path) -> None:
    """'Transport parameters passed to run() or run_sse_async() override any settings'."""
    for level, shown in (("debug", True), ("error", False)):
        port = free_port()
        call = f"mcp.run(transport='sse', host='127.0.0.1', port={port}, log_level={level!r})"
        script = write_script(tmp_path, "from fastmcp import FastMCP\nmcp = FastMCP(log_level='WARNING')", call)
        with running([*LAUNCHER, str(script)], port) as process:
            async with over_sse(f"http://127.0.0.1:{port}/sse"):
                pass
            process.terminate()
            _, errors = process.communicate(timeout=10)
        assert (b"INFO" in errors) == shown, errors.decode()


def test_transport_keywords_are_passed_to_the_transports_method(tmp_path: Path) -> None:
    """'run() accepts arbitrary keyword arguments that are passed to the transport-specific run methods'."""
    script = write_script(
        tmp_path,
        "from fastmcp import FastMCP",
        "class Recording(FastMCP):",
        "    async def run_sse_async(self, **kwargs):",
        "        print('sse', kwargs)",
        "    async def run_stdio_async(self, **kwargs):",
        "        print('stdio', kwargs)",
        "mcp = Recording()",
        "transport_kwargs = {'future_option': 7}",
        SNIPPETS["transport-kwargs"],
    )
    code, errors = run_script(script)
    assert code == 0
    assert errors.splitlines() == ["sse {'future_option': 7}", "stdio {'future_option': 7}"]


def test_a_transport_that_there_is_not_is_an_error(tmp_path: Path) -> None:
    """'FastMCP supports two transport mechanisms' (and, here, streamable-http)."""
    script = write_script(tmp_path, HELPERS, "mcp.run(transport='foo')")
    code, errors = run_script(script)
    assert code != 0
    assert "ValueError: Unknown transport: foo" in errors


def test_the_script_needs_no_framework_but_this_one(tmp_path: Path) -> None:
    """`from fastmcp import FastMCP` is this framework here."""
    script = write_script(tmp_path, "import fastmcp, mcpworker\nassert fastmcp.FastMCP is mcpworker.FastMCP")
    assert run_script(script) == (0, "")
    assert run_script(script, argv=[sys.executable])[0] == 1, "without the launcher there is no fastmcp here"
