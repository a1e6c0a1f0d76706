"""A client of another hand, the npm SDK, over both HTTP transports and every kind of endpoint."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from e2e.clients import SERVERS, VIEW, Way
from support.daemon import ROOT, Daemon, python_server, running, script_server

CLIENT = ROOT / "tests" / "e2e" / "npm_client.mjs"
EVERYTHING = ROOT / "tests" / "contract" / "everything.py"
REGISTRY = python_server("everything", EVERYTHING) + script_server("workshop", SERVERS / "workshop.py")
LIMIT = 60.0  # seconds for a whole conversation
WAYS = [Way(transport, scope) for transport in ("http", "sse") for scope in ("all", "everything", "view")]
HOLD_MS = 500  # a call that would be held for ever is given up by the client after so many milliseconds


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with running(REGISTRY, views=f'[views.{VIEW}]\nservers = ["everything", "workshop"]') as daemon:
        yield daemon


def converse(daemon: Daemon, way: Way, steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Take the steps in one session: what was printed for the connection, then for each step."""
    argv = ["node", CLIENT, way.transport, daemon.url + way.path, json.dumps(steps)]
    env = {**os.environ, "MCP_TOKEN": daemon.token}
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    lines: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["do"] for line in lines] == ["connect", *(step["do"] for step in steps)]
    return lines


def texts(line: dict[str, Any]) -> list[str]:
    """The texts that a tool's result has."""
    return [content["text"] for content in line["result"]["content"] if content["type"] == "text"]


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_npm_client_lists_calls_reads_prompts_and_completes(daemon: Daemon, way: Way) -> None:
    prompt = way.name("everything", "test_prompt_with_arguments")
    ref = {"type": "ref/prompt", "name": prompt}
    connected, tools, resources, templates, prompts, called, failed, read, filled, completed, pinged = converse(
        daemon,
        way,
        [
            {"do": "list", "what": "tools"},
            {"do": "list", "what": "resources"},
            {"do": "list", "what": "templates"},
            {"do": "list", "what": "prompts"},
            {"do": "call", "name": way.name("everything", "test_multiple_content_types")},
            {"do": "call", "name": way.name("everything", "no_such_tool")},
            {"do": "read", "uri": "test://template/5/data"},
            {"do": "prompt", "name": prompt, "arguments": {"arg1": "one", "arg2": "two"}},
            {"do": "complete", "ref": ref, "argument": {"name": "arg1", "value": "par"}},
            {"do": "ping"},
        ],
    )

    assert connected["result"]["protocolVersion"] in ("2025-11-25", None)  # its SSE transport does not tell
    assert connected["result"]["capabilities"]["resources"] == {"listChanged": True, "subscribe": True}
    assert bool(connected["result"]["sessionId"]) == (way.transport == "http")
    assert way.name("everything", "test_simple_text") in [tool["name"] for tool in tools["result"]]
    assert "test://static-text" in [resource["uri"] for resource in resources["result"]]
    assert [template["uriTemplate"] for template in templates["result"]] == ["test://template/{id}/data"]
    assert prompt in [one["name"] for one in prompts["result"]]
    assert [content["type"] for content in called["result"]["content"]] == ["text", "image", "resource"]
    assert failed["error"]["code"] == -32602
    assert json.loads(read["result"]["contents"][0]["text"])["id"] == "5"
    assert filled["result"]["messages"][0]["content"]["text"] == "Prompt with arguments: arg1='one', arg2='two'"
    assert completed["result"]["completion"]["values"] == ["paris", "park", "party"]
    assert pinged["result"] == {}


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_npm_client_is_told_and_asked_what_is_its_own(daemon: Daemon, way: Way) -> None:
    update = way.name("everything", "test_trigger_resource_update")
    person = {"username": "ada", "email": "ada@example.org"}
    sample = {"role": "assistant", "content": {"type": "text", "text": "of npm"}, "model": "m", "stopReason": "endTurn"}
    steps = [
        {"do": "subscribe", "uri": "test://watched-resource"},
        {"do": "call", "name": update, "arguments": {"uri": "test://watched-resource"}},
        {"do": "wait", "method": "notifications/resources/updated"},
        {"do": "call", "name": way.name("everything", "test_tool_with_progress")},
        {"do": "setLevel", "level": "debug"},
        {"do": "call", "name": way.name("everything", "test_tool_with_logging")},
        {"do": "wait", "method": "notifications/message", "count": 3},
        {"do": "answer", "sampling": sample, "elicitation": {"action": "accept", "content": person}},
        {"do": "call", "name": way.name("everything", "test_sampling"), "arguments": {"prompt": "Say where from."}},
        {"do": "call", "name": way.name("everything", "test_elicitation"), "arguments": {"message": "Who?"}},
    ]
    lines = converse(daemon, way, steps)
    _, _, updated, progressed, _, _, logged, _, sampled, elicited = lines[1:]

    assert [one["params"]["uri"] for one in updated["result"]] == ["test://watched-resource"]
    reports = [one["progress"] for one in progressed["progress"]]
    # this client forgets who wants reports as soon as it reads the answer: one that was read with it may be dropped
    assert reports == [0, 50, 100][: max(1, len(reports))]
    assert [one["params"]["data"] for one in logged["result"]] == [
        "Tool execution started",
        "Tool processing data",
        "Tool execution completed",
    ]
    assert [one["params"]["messages"][0]["content"]["text"] for one in sampled["asked"]] == ["Say where from."]
    assert json.loads(texts(sampled)[0])["answer"]["content"]["text"] == "of npm"
    assert [one["params"]["message"] for one in elicited["asked"]] == ["Who?"]
    assert json.loads(texts(elicited)[0])["answer"]["content"] == person


@pytest.mark.parametrize("way", [Way(t, s) for t in ("http", "sse") for s in ("all", "workshop", "view")], ids=str)
def test_npm_client_cancels_a_call(daemon: Daemon, way: Way) -> None:
    key = f"npm-{way}"
    _, held, ended = converse(
        daemon,
        way,
        [
            {"do": "call", "name": way.name("workshop", "hold"), "arguments": {"key": key}, "abort_ms": HOLD_MS},
            {"do": "call", "name": way.name("workshop", "how_ended"), "arguments": {"key": key}},
        ],
    )

    assert "given up" in held["error"]["message"]
    assert texts(ended) == ["cancelled"]
