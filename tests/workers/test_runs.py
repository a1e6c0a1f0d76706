"""One run of a server: its clients are told of changes, its lifespans close."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import mcp_types as types
import pytest
from mcp.shared.subscriptions import ResourceUpdated, ToolsListChanged

from mcpworker import FastMCP, runs
from mcpworker.runs import open_run
from support.in_memory import MODERN, in_memory, logged
from support.worker_clients import Recorder

pytestmark = pytest.mark.anyio


async def test_equal_changes_are_told_once() -> None:
    server = FastMCP("x")
    recorder = Recorder()

    async with in_memory(server, message_handler=recorder.on_message) as client:
        await client.list_tools()
        for number in range(50):
            server.add_tool(lambda: "x", name=f"tool{number}")
        server.add_prompt(lambda: "x", name="last")
        with anyio.fail_after(5):
            while not any(isinstance(item, types.PromptListChangedNotification) for item in recorder.messages):
                await anyio.lowlevel.checkpoint()
        await client.list_tools()

    told = [item for item in recorder.messages if isinstance(item, types.ToolListChangedNotification)]
    assert len(told) == 1


async def test_changes_that_wait_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "_MAX_EVENTS", 3)
    server = FastMCP("x")
    async with open_run(server) as run:
        with logged("runs") as records:
            for number in range(5):
                server.notify_resource_updated(f"data://{number}")
            server.notify_resource_updated("data://0")
        assert list(run._events) == [ResourceUpdated(f"data://{number}") for number in range(3)]

    assert [record.getMessage() for record in records] == ["3 changes wait to be told already; one is dropped"] * 2


async def test_change_after_the_end_is_nobodys() -> None:
    server = FastMCP("x")
    async with open_run(server) as run:
        assert server._runs == {run}

    assert server._runs == set()
    server.add_tool(lambda: "x", name="x")
    await anyio.to_thread.run_sync(run.changed, ToolsListChanged())


async def test_client_that_does_not_read_keeps_nobody_from_hearing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "_TELL_SECONDS", 0.05)
    heard: list[Any] = []

    class Connection:
        pass

    class Deaf:
        _connection = Connection()

        async def send_notification(self, _: Any) -> None:
            await anyio.sleep_forever()

    class Attentive(Deaf):
        _connection = Connection()

        async def send_notification(self, notification: Any) -> None:
            heard.append(notification)

    server = FastMCP("x")
    with logged("runs") as records:
        async with open_run(server) as run:
            run._sessions = {1: Deaf(), 2: Attentive()}  # type: ignore[dict-item]
            for name in ("a", "b"):
                before = len(heard)
                server.add_tool(lambda: "x", name=name)
                with anyio.fail_after(5):
                    while len(heard) == before:
                        await anyio.lowlevel.checkpoint()
    assert len(heard) == 2
    assert "a client does not read; it is not told of changes" in [record.getMessage() for record in records]


async def test_lifespan_closes_though_the_run_is_cancelled() -> None:
    log: list[str] = []

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        yield
        await anyio.lowlevel.checkpoint()
        log.append("closed")

    with anyio.CancelScope() as scope:
        async with open_run(FastMCP("x", lifespan=lifespan)):
            scope.cancel()
            await anyio.sleep_forever()
    assert log == ["closed"]


async def test_lifespan_that_does_not_close_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "_CLOSE_SECONDS", 0.05)

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        yield
        await anyio.sleep_forever()

    with logged("runs") as records, anyio.fail_after(5):
        async with open_run(FastMCP("x", lifespan=lifespan)):
            pass
    assert [record.getMessage() for record in records] == ["a lifespan did not close within 0.05 seconds"]


async def test_lifespans_that_were_opened_close_where_a_later_one_fails() -> None:
    log: list[str] = []

    @asynccontextmanager
    async def good(_: Any) -> AsyncIterator[None]:
        log.append("open")
        yield
        log.append("close")

    @asynccontextmanager
    async def bad(_: Any) -> AsyncIterator[None]:
        raise OSError("no")
        yield

    parent = FastMCP("parent", lifespan=good)
    parent.mount("bad", FastMCP("bad", lifespan=bad))

    with pytest.raises(OSError, match="no"):
        async with open_run(parent):
            raise AssertionError("it started")
    assert log == ["open"]


async def test_listener_hears_each_change_once_whatever_other_sessions_there_are() -> None:
    server = FastMCP("x")

    found = []
    async with (
        in_memory(server, MODERN) as first,
        in_memory(server, MODERN),
        in_memory(server),
        first.listen(resource_subscriptions=["data://x", "data://end"]) as changes,
    ):
        server.notify_resource_updated("data://x")
        server.notify_resource_updated("data://end")
        with anyio.fail_after(5):
            async for change in changes:
                found.append(change)
                if change == ResourceUpdated("data://end"):
                    break
    assert found == [ResourceUpdated("data://x"), ResourceUpdated("data://end")]
