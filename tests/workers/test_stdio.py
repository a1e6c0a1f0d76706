"""Standard input and output: nothing strays, nothing is torn, and the end is prompt."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from support.raw_stdio import INITIALIZE, raw_server
from support.worker_clients import SCRIPTS

STRAYS = """
import os, subprocess, sys
print("printed while importing", flush=True)
from mcpworker import FastMCP
mcp = FastMCP("Strays")

@mcp.tool()
def stray() -> str:
    print("printed by a tool")
    sys.stdout.write("half a line")
    sys.stdout.flush()
    os.write(1, b"written to descriptor 1\\n")
    subprocess.run(["echo", "said by a child"], check=True)
    return sys.stdin.read() or "no input for tools"

@mcp.tool()
async def wait() -> str:
    import anyio
    print("waiting", file=sys.stderr, flush=True)
    await anyio.sleep(600)

@mcp.tool()
def block() -> str:
    import threading
    print("blocking", file=sys.stderr, flush=True)
    threading.Event().wait(600)

if __name__ == "__main__":
    mcp.run()
    print("printed after the end")
"""


@pytest.fixture
def strays(tmp_path: Path) -> Path:
    script = tmp_path / "strays.py"
    script.write_text(STRAYS)
    return script


def test_only_protocol_is_on_standard_output_while_it_serves(strays: Path) -> None:
    with raw_server(strays) as server:
        assert server.line() == b"printed while importing"  # without the launcher that is the script's own business
        server.initialize()
        answer = server.call("stray")
        code, output, errors = server.finish()

    assert answer["result"]["content"][0]["text"] == "no input for tools"
    assert (code, output) == (0, b"printed after the end\n")
    for stray in ("printed by a tool", "half a line", "written to descriptor 1", "said by a child"):
        assert stray in errors


@pytest.mark.parametrize(("tool", "said"), [("wait", b"waiting\n"), ("block", b"blocking\n")])
@pytest.mark.parametrize("end", [None, signal.SIGTERM, signal.SIGINT])
def test_a_call_in_flight_does_not_delay_the_end(strays: Path, tool: str, said: bytes, end: int | None) -> None:
    with raw_server(strays) as server:
        server.line()
        server.initialize()
        request = {"jsonrpc": "2.0", "id": 5, "method": "tools/call", "params": {"name": tool, "arguments": {}}}
        server.send(request)
        assert server.process.stderr is not None
        assert server.process.stderr.readline() == said
        began = time.monotonic()
        code, _, errors = server.finish(end)

    assert code == 0, errors
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("end", [None, signal.SIGTERM, signal.SIGINT])
def test_lifespan_closes_at_the_end(end: int | None) -> None:
    with raw_server(SCRIPTS / "features.py") as server:
        server.initialize()
        code, _, errors = server.finish(end)

    assert code == 0
    assert "lifespan closed" in errors
    assert "Traceback" not in errors


def test_end_before_the_first_message_is_clean() -> None:
    with raw_server(SCRIPTS / "features.py") as server:
        code, output, errors = server.finish()

    assert (code, output) == (0, b"")
    assert "Traceback" not in errors


def test_message_of_megabytes_passes_both_ways() -> None:
    text = "ä" * 3_000_000
    with raw_server(SCRIPTS / "features.py") as server:
        server.initialize()
        answer = server.call("echo", {"text": text})

    assert answer["result"]["content"][0]["text"] == text


def test_lines_may_come_in_any_pieces() -> None:
    messages = [
        INITIALIZE,
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "echo", "arguments": {"text": "é"}}},
    ]
    stream = b"\n\r\n".join(json.dumps(item, ensure_ascii=False).encode() for item in messages)
    with raw_server(SCRIPTS / "features.py") as server:
        for index in range(len(stream)):
            server.send(stream[index : index + 1])
        assert server.process.stdin is not None
        server.process.stdin.write(b"\n")
        server.process.stdin.flush()
        answer = server.answer(1)

    assert answer["result"]["structuredContent"] == {"result": "é"}


def test_what_is_no_message_is_passed_over() -> None:
    with raw_server(SCRIPTS / "features.py") as server:
        server.send(b"\n", b"not json\n", b'{"half": \n', b"\xff\xfe\n", b"[1, 2]\n")
        server.initialize()
        answer = server.call("echo", {"text": "still here"})

    assert answer["result"]["structuredContent"] == {"result": "still here"}


def test_half_an_emoji_is_no_reason_to_lose_a_call() -> None:
    call = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{"text":"a\\ud83d!"}}}\n'
    with raw_server(SCRIPTS / "features.py") as server:
        server.initialize()
        server.send(call)
        answer = server.answer(1)

    assert answer["result"]["structuredContent"] == {"result": "a\ufffd!"}


def test_client_that_reads_late_gets_every_answer_whole() -> None:
    count, size = 40, 100_000
    with raw_server(SCRIPTS / "features.py") as server:
        server.initialize()
        for number in range(1, count + 1):
            params: dict[str, Any] = {"name": "echo", "arguments": {"text": str(number % 10) * size}}
            server.send({"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params})
        answers = [json.loads(server.line()) for _ in range(count)]

    assert sorted(answer["id"] for answer in answers) == list(range(1, count + 1))
    for answer in answers:
        assert answer["result"]["structuredContent"] == {"result": str(answer["id"] % 10) * size}


def test_client_that_vanishes_ends_the_server() -> None:
    with raw_server(SCRIPTS / "features.py") as server:
        server.initialize()
        assert server.process.stdout is not None
        server.process.stdout.close()
        server.process.stdout = None
        server.send({"jsonrpc": "2.0", "id": 9, "method": "tools/list"})

        assert server.finish()[0] == 0


def test_input_may_be_a_file_and_output_too(tmp_path: Path) -> None:
    requests, answers = tmp_path / "requests", tmp_path / "answers"
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    lines = [INITIALIZE, {"jsonrpc": "2.0", "method": "notifications/initialized"}, call]
    requests.write_text("\n".join(json.dumps(line) for line in lines))

    with requests.open() as source, answers.open("w") as sink:
        subprocess.run([sys.executable, SCRIPTS / "features.py"], stdin=source, stdout=sink, timeout=30, check=True)

    assert json.loads(answers.read_text().splitlines()[0])["id"] == 0


def test_closed_input_ends_at_once() -> None:
    done = subprocess.run(
        [sys.executable, SCRIPTS / "features.py"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=30,
        check=False,
    )

    assert (done.returncode, done.stdout) == (0, b"")


def test_mode_of_the_pipe_is_put_back(strays: Path) -> None:
    reader, writer = os.pipe()
    try:
        subprocess.run([sys.executable, strays], stdin=subprocess.DEVNULL, stdout=writer, timeout=30, check=True)
        assert os.get_blocking(writer)
    finally:
        os.close(writer)
        os.close(reader)
