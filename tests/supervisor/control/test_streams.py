"""Answers that go on: each way in which they end, and that what they hold is released once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from mcpd.control.streams import Stream

SCOPE: dict[str, Any] = {"type": "http"}


class Exchange:
    """One request: its reader, and what it was sent."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.closing = asyncio.Event()
        self.hung_up = asyncio.Event()
        self.seen = asyncio.Event()
        self.released = 0
        self.generator_closed = False

    async def receive(self) -> dict[str, Any]:
        await self.hung_up.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.sent.append(message)
        if message.get("body"):
            self.seen.set()

    def release(self) -> None:
        self.released += 1

    async def chunks(self, *given: bytes, then_wait: bool = False) -> AsyncGenerator[bytes, None]:
        try:
            for chunk in given:
                yield chunk
            if then_wait:
                await asyncio.Event().wait()
        finally:
            self.generator_closed = True

    def stream(self, chunks: AsyncGenerator[bytes, None]) -> Stream:
        return Stream(chunks, "text/plain", self.closing, self.release)

    def bodies(self) -> list[tuple[bytes, bool]]:
        return [(one["body"], one["more_body"]) for one in self.sent[1:]]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.anyio
async def test_it_ends_when_its_chunks_end() -> None:
    exchange = Exchange()

    await exchange.stream(exchange.chunks(b"a", b"b"))(SCOPE, exchange.receive, exchange.send)

    assert exchange.sent[0]["headers"][0] == (b"content-type", b"text/plain")
    assert exchange.bodies() == [(b"a", True), (b"b", True), (b"", False)]
    assert exchange.released == 1


@pytest.mark.anyio
@pytest.mark.parametrize("how", ["closing", "hung_up"])
async def test_it_ends_when_the_daemon_or_the_reader_wants_it(how: str) -> None:
    exchange = Exchange()
    stream = exchange.stream(exchange.chunks(b"a", then_wait=True))
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        group.create_task(stream(SCOPE, exchange.receive, exchange.send))
        await exchange.seen.wait()
        getattr(exchange, how).set()

    assert exchange.bodies() == [(b"a", True)] + ([(b"", False)] if how == "closing" else [])
    assert exchange.generator_closed
    assert exchange.released == 1


@pytest.mark.anyio
async def test_a_reader_that_is_gone_before_it_begins_leaves_nothing() -> None:
    exchange = Exchange()

    async def refuse(message: Any) -> None:
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        await exchange.stream(exchange.chunks(b"a"))(SCOPE, exchange.receive, refuse)

    assert exchange.released == 1


@pytest.mark.anyio
async def test_a_cancelled_request_releases_too() -> None:
    exchange = Exchange()
    stream = exchange.stream(exchange.chunks(b"a", then_wait=True))
    task = asyncio.ensure_future(stream(SCOPE, exchange.receive, exchange.send))
    await exchange.seen.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert exchange.generator_closed
    assert exchange.released == 1


@pytest.mark.anyio
async def test_chunks_that_fail_are_not_swallowed() -> None:
    exchange = Exchange()

    async def failing() -> AsyncGenerator[bytes, None]:
        yield b"a"
        raise RuntimeError("a bug")

    with pytest.raises(ExceptionGroup) as caught:
        await exchange.stream(failing())(SCOPE, exchange.receive, exchange.send)

    assert caught.group_contains(RuntimeError, match="a bug")
    assert exchange.released == 1
