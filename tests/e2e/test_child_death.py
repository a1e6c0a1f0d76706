"""kill -9 of a shared child during calls: errors at once, READY again, and every session goes on as it is."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack

import anyio
import pytest
from mcp import Client
from mcp.shared.exceptions import MCPError

from e2e.clients import SERVERS, TRANSPORTS, Way, connected, text_of
from support.daemon import Daemon, python_server, running

AT_ONCE = 2.0  # seconds from the death to the error of the last call, on a machine that is busy
RESTARTS = {"restart_delay": '"10ms"', "stable_after": '"100ms"', "start_limit_burst": "100"}
REGISTRY = python_server("quick", SERVERS / "quick.py", **RESTARTS) + python_server(
    "bystander", SERVERS / "quick.py", **RESTARTS
)

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with running(REGISTRY) as daemon:
        yield daemon


@pytest.mark.parametrize("scope", ["all", "quick"])
async def test_calls_end_at_once_and_the_same_sessions_go_on(daemon: Daemon, scope: str) -> None:
    ways = [Way(transport, scope) for transport in TRANSPORTS]
    bystander = daemon.server("bystander")
    before = daemon.server("quick")
    died = [0.0]
    errors: list[tuple[str, float]] = []

    async def hold(client: Client, way: Way) -> None:
        with pytest.raises(MCPError) as failed:
            await client.call_tool(way.name("quick", "hold"), {})
        errors.append((str(failed.value), time.monotonic() - died[0]))

    async with AsyncExitStack() as stack:
        clients = {way: await stack.enter_async_context(connected(daemon, way)) for way in ways}
        async with anyio.create_task_group() as group:
            for way, client in clients.items():
                group.start_soon(hold, client, way)
                group.start_soon(hold, client, way)
            await anyio.to_thread.run_sync(
                lambda: daemon.wait_until("quick", lambda one: one["calls"] == 6, "six calls are held")
            )
            died[0] = time.monotonic()
            os.kill(before["pid"], signal.SIGKILL)

        for way, client in clients.items():
            assert text_of(await client.call_tool(way.name("quick", "pid"), {})), "the session that it had goes on"

    assert len(errors) == 6
    for message, seconds in errors:
        assert "quick" in message
        assert "signal" in message
        assert seconds < AT_ONCE
    after = daemon.server("quick")
    assert after["state"] == "READY"
    assert after["generation"] == before["generation"] + 1
    assert daemon.server("bystander")["pid"] == bystander["pid"]


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_death_while_nobody_calls_is_not_noticed_by_clients(daemon: Daemon, transport: str) -> None:
    way = Way(transport, "quick")
    async with connected(daemon, way) as client:
        before = daemon.server("quick")
        os.kill(before["pid"], signal.SIGKILL)
        daemon.wait_until("quick", lambda one: one["pid"] != before["pid"], "the death is noticed")

        answered = await client.call_tool("pid", {})

        assert text_of(answered)
        assert daemon.server("quick")["generation"] == before["generation"] + 1
