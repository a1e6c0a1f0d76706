"""An answer that goes on for as long as somebody reads it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from starlette.types import Receive, Scope, Send


class Stream:
    """An ASGI response of chunks as they come. It ends when the chunks end, when the reader hangs up, or on `closing`.

    `release` is called once, however it ends. A reader that does not read holds back its own generator only: `send`
    waits while the socket's buffer is full.
    """

    def __init__(
        self,
        chunks: AsyncGenerator[bytes, None],
        media_type: str,
        closing: asyncio.Event,
        release: Callable[[], None],
    ) -> None:
        self._chunks = chunks
        self._release = release
        self._headers = [(b"content-type", media_type.encode()), (b"cache-control", b"no-store")]
        self._closing = closing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self._headers})
            async with aclosing(self._chunks):
                hung_up = await self._run(receive, send)
            if not hung_up:
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._release()

    async def _run(self, receive: Receive, send: Send) -> bool:
        """Returns whether the reader is gone."""
        async with asyncio.TaskGroup() as group:
            pump = group.create_task(self._pump(send), name="control.stream.pump")
            gone = group.create_task(_hung_up(receive), name="control.stream.reader")
            closing = group.create_task(self._closing.wait(), name="control.stream.closing")
            await asyncio.wait({pump, gone, closing}, return_when=asyncio.FIRST_COMPLETED)
            hung_up = gone.done()
            for task in (pump, gone, closing):
                task.cancel()
        return hung_up

    async def _pump(self, send: Send) -> None:
        async for chunk in self._chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})


async def _hung_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
