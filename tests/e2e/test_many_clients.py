"""Twenty clients at once on one shared child: each gets its own, all of it, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator

import anyio
import mcp_types as types
import pytest
from mcp import Client

from e2e.clients import SERVERS, Recorder, Way, connected, text_of
from support.daemon import Daemon, running, script_server

# Every client counts its requests and progress tokens from the same number, so that what is not kept apart collides.
WAYS = [Way("http", "workshop")] * 4 + [Way("http", "all")] * 4 + [Way("sse", "workshop")] * 4
WAYS += [Way("sse", "all")] * 4 + [Way("stdio", "workshop")] * 2 + [Way("stdio", "all")] * 2
CALLS, STEPS = 5, 20  # calls at once of each client, and progress reports of each call

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with running(script_server("workshop", SERVERS / "workshop.py")) as daemon:
        yield daemon


async def test_twenty_clients_at_once_get_exactly_their_own(daemon: Daemon) -> None:
    assert len(WAYS) == 20
    before = daemon.server("workshop")
    together = Meeting(len(WAYS))

    async with anyio.create_task_group() as group:
        for number, way in enumerate(WAYS):
            group.start_soon(take_part, daemon, number, way, together)

    after = daemon.server("workshop")
    assert (after["pid"], after["restarts"]) == (before["pid"], before["restarts"])
    assert after["calls"] == 0


class Meeting:
    """All go on when the last one has come."""

    def __init__(self, count: int) -> None:
        self._missing = count
        self._all_here = anyio.Event()

    async def wait(self) -> None:
        self._missing -= 1
        if not self._missing:
            self._all_here.set()
        await self._all_here.wait()


async def take_part(daemon: Daemon, number: int, way: Way, together: Meeting) -> None:
    heard = Recorder()
    async with connected(daemon, way, heard) as client:
        await together.wait()
        async with anyio.create_task_group() as group:
            for call in range(CALLS):
                group.start_soon(call_twice, client, way, f"client-{number}-call-{call}")
        await last_word(client, way)
    assert len(heard.notices) == CALLS * STEPS
    for notice in heard.notices:
        assert isinstance(notice, types.ProgressNotification)
        assert notice.params.message is not None
        assert notice.params.message.startswith(f"client-{number}-call-")


async def call_twice(client: Client, way: Way, tag: str) -> None:
    """A call with progress, and one whose answer is its own text, right after it."""
    heard = Recorder()
    arguments = {"tag": tag, "count": STEPS}
    result = await client.call_tool(way.name("workshop", "steps"), arguments, progress_callback=heard.on_progress)
    echoed = await client.call_tool(way.name("workshop", "echo"), {"text": tag})

    assert text_of(result) == text_of(echoed) == tag
    await heard.until(lambda: len(heard.progress) == STEPS)
    assert heard.progress == [(step, STEPS, f"{tag}-{step}") for step in range(1, STEPS + 1)]


async def last_word(client: Client, way: Way) -> None:
    """What would still come for somebody else has come before the answer to this."""
    assert (await client.list_tools()).tools[0].name == way.name("workshop", "echo")
