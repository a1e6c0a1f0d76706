"""Pings: how often, and what counts as an answer."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from mcpd.clock import SystemClock
from mcpd.config.registry import ProbeSpec
from mcpd.fleet.calls import OwnCalls
from mcpd.fleet.probes import probe_for_ever
from mcpd.wire import jsonrpc

pytestmark = pytest.mark.anyio

SPEC = ProbeSpec(period=0.01, timeout=0.01)


async def outcomes(*answers: bytes | None) -> list[bool]:
    """What the first probes came to, when each ping is answered so: a member of a response, None: not at all."""
    left = list(answers)
    found: list[bool] = []
    done = asyncio.Event()

    def offer(frame: bytes) -> bool:
        message = json.loads(frame)
        assert message["method"] == "ping"
        answer = left.pop(0) if left else None
        if answer == b"full":
            return False
        if answer is not None:
            reply = b'{"jsonrpc":"2.0","id":%b,%b}' % (json.dumps(message["id"]).encode(), answer)
            asyncio.get_running_loop().call_soon(calls.answer, jsonrpc.decode(reply))
        return True

    def ended(asked_at: float, answered: bool) -> None:
        assert asked_at <= SystemClock().monotonic()
        found.append(answered)
        if len(found) == len(answers):
            done.set()

    calls = OwnCalls(offer)
    probing = asyncio.ensure_future(probe_for_ever(SPEC, calls, SystemClock(), ended))
    async with asyncio.timeout(5):
        await done.wait()
    calls.close("it is gone")
    async with asyncio.timeout(5):
        await probing  # ends by itself when the process is gone
    return found[: len(answers)]


async def test_any_answer_is_life_an_error_too() -> None:
    answers = (b'"result":{}', b'"error":{"code":-32601,"message":"what?"}', b'"result":{"extra":1}')

    assert await outcomes(*answers) == [True, True, True]


async def test_silence_and_a_full_pipe_are_failures_and_it_goes_on() -> None:
    assert await outcomes(None, b"full", b'"result":{}') == [False, False, True]


async def test_a_server_without_a_handshake_is_asked_what_it_is() -> None:
    asked: list[dict[str, Any]] = []
    done = asyncio.Event()

    def offer(frame: bytes) -> bool:
        asked.append(json.loads(frame))
        done.set()
        return True

    calls = OwnCalls(offer)
    calls.client = b'{"name":"mcpd","version":"1"}'
    probing = asyncio.ensure_future(probe_for_ever(SPEC, calls, SystemClock(), lambda asked_at, answered: None))
    async with asyncio.timeout(5):
        await done.wait()
        calls.close("it is gone")
        await probing

    assert asked[0]["method"] == "server/discover"
    assert asked[0]["params"]["_meta"] == {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": {"name": "mcpd", "version": "1"},
    }
