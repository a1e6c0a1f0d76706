"""The npm inspector's command line, a client of another hand, against both transports of a running daemon."""

import json
import os
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from contract.conformance import EVERYTHING, NODE, SUITE
from support.daemon import Daemon, python_server, running

INSPECTOR = SUITE / "@modelcontextprotocol" / "inspector" / "clients" / "launcher" / "build" / "index.js"
CALL_LIMIT = 60.0
WAYS = [("http", "/servers/everything/mcp", ""), ("sse", "/servers/everything/sse", "")]
WAYS += [("http", "/mcp", "everything__"), ("sse", "/sse", "everything__")]

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with running(python_server("everything", EVERYTHING)) as daemon:
        yield daemon


def inspect(daemon: Daemon, transport: str, path: str, *args: str) -> Any:
    """What the inspector prints as the result of one method. It keeps its files in the daemon's directory."""
    authorization = f"Authorization: {daemon.headers['Authorization']}"
    argv = [NODE, INSPECTOR, "--cli", daemon.url + path, "--transport", transport, "--header", authorization, *args]
    env = {**os.environ, "HOME": str(daemon.home), "NO_COLOR": "1"}
    done = subprocess.run(
        argv, env=env, cwd=daemon.home, capture_output=True, text=True, timeout=CALL_LIMIT, check=False
    )
    assert done.returncode == 0, f"{args}: {done.returncode}\n{done.stdout}{done.stderr}"
    return json.loads(done.stdout)


@pytest.mark.parametrize(("transport", "path", "prefix"), WAYS)
def test_inspector_lists_calls_reads_and_prompts(daemon: Daemon, transport: str, path: str, prefix: str) -> None:
    listed = inspect(daemon, transport, path, "--method", "tools/list")
    called = inspect(daemon, transport, path, "--method", "tools/call", "--tool-name", f"{prefix}test_simple_text")
    read = inspect(daemon, transport, path, "--method", "resources/read", "--uri", "test://static-text")
    prompted = inspect(
        daemon,
        *(transport, path, "--method", "prompts/get", "--prompt-name", f"{prefix}test_prompt_with_arguments"),
        *("--prompt-args", "arg1=one", "arg2=two"),
    )

    assert f"{prefix}test_simple_text" in [tool["name"] for tool in listed["tools"]]
    assert called["content"] == [{"type": "text", "text": "This is a simple text response for testing."}]
    assert read["contents"][0]["text"] == "This is the content of the static text resource."
    assert prompted["messages"][0]["content"]["text"] == "Prompt with arguments: arg1='one', arg2='two'"


@pytest.mark.parametrize(("transport", "path"), [("http", "/mcp"), ("sse", "/sse")])
def test_inspector_without_the_token_is_turned_away(daemon: Daemon, transport: str, path: str) -> None:
    argv = [NODE, INSPECTOR, "--cli", daemon.url + path, "--transport", transport, "--method", "tools/list"]
    env = {**os.environ, "HOME": str(daemon.home), "NO_COLOR": "1"}

    done = subprocess.run(
        argv, env=env, cwd=daemon.home, capture_output=True, text=True, timeout=CALL_LIMIT, check=False
    )

    assert done.returncode != 0
    assert json.loads(done.stderr)["error"]["code"] == "auth_required"
