"""Transports: what is inferred from what, and each of them against a real peer."""

import asyncio
import contextlib
import os
import shutil
import stat
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import mcp_types as types
import pytest
from pydantic import AnyUrl

from mcpworker.client import (
    Client,
    ClientTransport,
    FastMCPStdioTransport,
    FastMCPTransport,
    NodeStdioTransport,
    NpxStdioTransport,
    PythonStdioTransport,
    SSETransport,
    StdioTransport,
    StreamableHttpTransport,
    UvxStdioTransport,
    WSTransport,
    infer_transport,
)
from support import sdk_server
from support.http_server import free_port, running, sdk_server_argv

SCRIPT = Path(sdk_server.__file__)


def text_of(content: list[types.ContentBlock]) -> str:
    [block] = content
    assert isinstance(block, types.TextContent)
    return block.text


# --- inference --------------------------------------------------------------------------------------------------


def test_a_transport_is_itself() -> None:
    transport = SSETransport("http://127.0.0.1:1/sse")
    assert infer_transport(transport) is transport


def test_a_server_object_runs_in_memory() -> None:
    transport = infer_transport(sdk_server.server)
    assert isinstance(transport, FastMCPTransport)
    assert transport.server is sdk_server.server


@pytest.mark.parametrize("kind", [str, Path])
def test_a_python_file_is_run_by_this_interpreter(kind: type) -> None:
    transport = infer_transport(kind(SCRIPT))
    assert isinstance(transport, PythonStdioTransport)
    assert transport.command == sys.executable
    assert transport.args[-1] == str(SCRIPT)


def test_a_javascript_file_is_run_by_node(tmp_path: Path) -> None:
    script = tmp_path / "server.js"
    script.touch()
    transport = infer_transport(script)
    assert isinstance(transport, NodeStdioTransport)
    assert (transport.command, transport.args) == ("node", [str(script)])


def test_another_file_is_refused(tmp_path: Path) -> None:
    script = tmp_path / "server.txt"
    script.touch()
    with pytest.raises(ValueError, match="Unsupported script type"):
        infer_transport(script)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://example.com/mcp/sse", SSETransport),
        ("https://example.com/", SSETransport),
        ("http://example.com/sse?key=mcp", SSETransport),
        (AnyUrl("http://example.com/mcp/sse"), SSETransport),
        ("http://example.com/mcp", StreamableHttpTransport),
        ("http://example.com/servers/time/mcp/", StreamableHttpTransport),
    ],
)
def test_an_http_url_is_an_sse_endpoint_unless_it_ends_in_mcp(url: Any, expected: type[ClientTransport]) -> None:
    transport = infer_transport(url)
    assert type(transport) is expected
    assert transport.url == str(url)  # type: ignore[attr-defined]


@pytest.mark.parametrize("url", ["ws://example.com/ws", "wss://example.com/ws"])
def test_a_websocket_url_is_refused_with_a_reason(url: str) -> None:
    with pytest.raises(ValueError, match="WebSocket is no transport of MCP"):
        infer_transport(url)
    with pytest.raises(ValueError, match="WebSocket is no transport of MCP"):
        WSTransport(url)


@pytest.mark.parametrize("nonsense", ["nope", 5, object()])
def test_nonsense_is_refused(nonsense: object) -> None:
    with pytest.raises(ValueError, match="Could not infer a valid transport from: "):
        infer_transport(nonsense)


def test_a_config_with_one_server_is_that_server() -> None:
    stdio = infer_transport({"mcpServers": {"a": {"command": "cat", "args": ["-u"], "env": {"A": "b"}, "cwd": "/"}}})
    assert isinstance(stdio, StdioTransport)
    assert (stdio.command, stdio.args, stdio.env, stdio.cwd) == ("cat", ["-u"], {"A": "b"}, "/")
    sse = infer_transport({"mcpServers": {"a": {"url": "http://h/x", "headers": {"K": "v"}}}})
    assert isinstance(sse, SSETransport)
    assert sse.headers == {"K": "v"}
    http = infer_transport({"mcpServers": {"a": {"url": "http://h/x", "type": "streamable-http"}}})
    assert isinstance(http, StreamableHttpTransport)
    named = infer_transport({"mcpServers": {"a": {"url": "http://h/mcp", "type": "sse"}}})
    assert isinstance(named, SSETransport)


@pytest.mark.parametrize("config", [{}, {"mcpServers": {}}, {"mcpServers": {"a": {}, "b": {}}}])
def test_a_config_without_exactly_one_server_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="`mcpServers` must name one server"):
        infer_transport(config)


def test_a_config_that_says_nothing_of_its_server_is_refused() -> None:
    with pytest.raises(ValueError, match="server 'a': it has neither `command` nor `url`"):
        infer_transport({"mcpServers": {"a": {}}})


# --- what the classes check and build -----------------------------------------------------------------------------


def test_a_script_must_exist_and_have_its_suffix(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="Script not found"):
        PythonStdioTransport(tmp_path / "missing.py")
    other = tmp_path / "server.rb"
    other.touch()
    with pytest.raises(ValueError, match="Not a Python script"):
        PythonStdioTransport(other)
    with pytest.raises(ValueError, match="Not a JavaScript script"):
        NodeStdioTransport(other)


def test_another_interpreter_runs_the_script_itself() -> None:
    transport = PythonStdioTransport(SCRIPT, args=["sse", "1"], python_cmd="/usr/bin/python3")
    assert (transport.command, transport.args) == ("/usr/bin/python3", [str(SCRIPT), "sse", "1"])


def test_a_script_with_a_server_object_is_run_by_the_command_line() -> None:
    assert FastMCPStdioTransport(SCRIPT).args[-2:] == ["run", str(SCRIPT)]


@pytest.mark.parametrize("kind", [SSETransport, StreamableHttpTransport])
def test_a_url_must_be_http(kind: type) -> None:
    with pytest.raises(ValueError, match="Invalid HTTP/S URL provided"):
        kind("ftp://example.com")


def test_uvx_gets_its_options_before_the_tool() -> None:
    transport = UvxStdioTransport(
        "tool", ["--x"], python_version="3.12", with_packages=["p", "q"], from_package="dist", env_vars={"A": "b"}
    )
    options = ["--python", "3.12", "--from", "dist", "--with", "p", "--with", "q"]
    assert (transport.command, transport.args) == ("uvx", [*options, "tool", "--x"])
    assert transport.env is not None
    assert transport.env["A"] == "b"


def test_npx_is_looked_for_and_gets_its_options_before_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="Command 'npx' not found"):
        NpxStdioTransport("package")
    npx = tmp_path / "npx"
    npx.write_text("#!/bin/sh\n")
    npx.chmod(npx.stat().st_mode | stat.S_IXUSR)
    transport = NpxStdioTransport("package", ["--x"], project_directory=str(tmp_path))
    assert (transport.command, transport.args) == ("npx", ["--prefer-offline", "package", "--x"])
    assert transport.cwd == str(tmp_path)
    with pytest.raises(NotADirectoryError, match="Project directory not found"):
        NpxStdioTransport("package", project_directory=str(tmp_path / "missing"))


@pytest.mark.parametrize(
    ("transport", "expected"),
    [
        (SSETransport("http://h/sse"), "<SSE(url='http://h/sse')>"),
        (StreamableHttpTransport("http://h/mcp"), "<StreamableHttp(url='http://h/mcp')>"),
        (StdioTransport("cat", ["-u"]), "<StdioTransport(command='cat', args=['-u'])>"),
        (FastMCPTransport(sdk_server.server), "<FastMCP(server='Reference')>"),
    ],
)
def test_repr_names_what_is_reached(transport: ClientTransport, expected: str) -> None:
    assert repr(transport) == expected
    assert repr(Client(transport)) == f"<Client(transport={expected})>"


# --- against real peers -------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_script_over_stdio() -> None:
    async with Client(SCRIPT) as client:
        assert text_of(await client.call_tool("echo", {"text": "hello"})) == "hello"


@pytest.mark.anyio
async def test_a_process_gets_safe_variables_and_those_that_are_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_MINE", "s")
    script = tmp_path / "server.py"
    script.write_text(
        "import os\nfrom mcp.server.mcpserver import MCPServer\nserver = MCPServer('x')\n"
        "@server.tool()\ndef show() -> str:\n    return ','.join(sorted(os.environ)) + os.getcwd()\nserver.run()\n"
    )
    transport = StdioTransport(sys.executable, [str(script)], env={"GIVEN": "g"}, cwd=tmp_path)
    async with Client(transport) as client:
        shown = text_of(await client.call_tool("show"))
    assert "GIVEN" in shown
    assert "PATH" in shown
    assert "SECRET_OF_MINE" not in shown
    assert shown.endswith(os.fspath(tmp_path))


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("mode", "path", "transport"),
    [("sse", "/sse", SSETransport), ("streamable-http", "/mcp", StreamableHttpTransport)],
)
@pytest.mark.parametrize("era", ["auto", "per-request"])
async def test_a_server_over_http(mode: str, path: str, transport: type, era: Any) -> None:
    port = free_port()
    with running(sdk_server_argv(mode, port), port):
        client = Client(f"http://127.0.0.1:{port}{path}", era=era)
        assert type(client.transport) is transport
        async with client:
            assert client.session.protocol_version == {"auto": "2025-11-25", "per-request": "2026-07-28"}[era]
            assert text_of(await client.call_tool("echo", {"text": "hello"})) == "hello"


@pytest.mark.anyio
@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}/sse", "http://127.0.0.1:{port}/mcp"])
async def test_nobody_listening_is_one_plain_exception(url: str) -> None:
    with pytest.raises(Exception, match=r"(?i)connect") as caught:
        async with Client(url.format(port=free_port())):
            pytest.fail("connected to nothing")
    assert not isinstance(caught.value, ExceptionGroup)


@pytest.mark.anyio
async def test_an_in_memory_server_closes_its_lifespan_before_the_block_is_left() -> None:
    from mcp.server.mcpserver import MCPServer

    events: list[str] = []

    @contextlib.asynccontextmanager
    async def lifespan(server: object) -> AsyncIterator[None]:
        events.append("start")
        yield
        events.append("end")

    async with Client(MCPServer("x", lifespan=lifespan)) as client:
        await client.ping()
        assert events == ["start"]
    assert events == ["start", "end"]


@pytest.mark.anyio
async def test_an_endpoint_that_never_says_where_to_post_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n: nothing yet\n\n")
        await writer.drain()
        await reader.read()
        writer.close()
        await writer.wait_closed()

    monkeypatch.setattr("mcpworker.client.transports.SSE_CONNECT_TIMEOUT", 0.2)
    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(TimeoutError):
            async with Client(f"http://127.0.0.1:{port}/sse"):
                pytest.fail("connected to nothing")


def test_an_object_that_holds_no_server_is_refused() -> None:
    from mcpworker.client.transports import lowlevel_server

    with pytest.raises(TypeError, match="is not a server: pass a FastMCP"):
        lowlevel_server(object())


@pytest.mark.anyio
@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
async def test_a_javascript_file_over_stdio(tmp_path: Path) -> None:
    script = tmp_path / "server.js"
    script.write_text(
        """
        require("readline").createInterface({input: process.stdin}).on("line", line => {
          const m = JSON.parse(line);
          const send = result => console.log(JSON.stringify({jsonrpc: "2.0", id: m.id, result}));
          if (m.method === "initialize")
            send({protocolVersion: "2025-06-18", capabilities: {tools: {}}, serverInfo: {name: "js", version: "1"}});
          if (m.method === "tools/list")
            send({tools: [{name: "t", inputSchema: {type: "object"}}]});
        });
        """
    )
    async with Client(script) as client:
        assert [tool.name for tool in await client.list_tools()] == ["t"]
        assert client.session.protocol_version == "2025-06-18"
