"""One live session, held open by a task of its own.

The SDK's transports are anyio contexts: the task that enters one has to leave it. A client is entered and left by
whoever uses it, so the session lives in a task that does nothing else. That also keeps the exceptions of a user's
`async with` block out of the transports' task groups, which would wrap them.
"""

import asyncio
import contextvars
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from mcp.client.session import ClientSession

from mcpworker.client.session import WatchedSession


class Connection:
    """A session from `open()` to `close()`; made for one use."""

    def __init__(self, connect: Callable[[], AbstractAsyncContextManager[ClientSession]], name: str) -> None:
        self._connect = connect
        self._name = name
        self._stop = asyncio.Event()
        self._opened: asyncio.Future[ClientSession] | None = None
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> ClientSession:
        """Connect, or wait for the connecting of another caller, and return the session.

        A cancelled caller ends the waiting only: who made the connection closes it.

        Raises:
            Exception: what the transport or the handshake raised, out of its exception groups.
        """
        if self._opened is None:
            loop = asyncio.get_running_loop()
            self._opened = loop.create_future()
            # Retrieved here too, for the case that all who waited were cancelled.
            self._opened.add_done_callback(lambda opened: opened.cancelled() or opened.exception())
            # The task belongs to this object, not to the opener's block, which others may outlive (see above). Its
            # context is empty: what the opener has in its own (a request) is over before the session is.
            self._task = loop.create_task(self._hold(self._opened), name=self._name, context=contextvars.Context())
        return await asyncio.shield(self._opened)

    async def _hold(self, opened: asyncio.Future[ClientSession]) -> None:
        try:
            async with self._connect() as session:
                opened.set_result(session)
                await self._stop.wait()
        except Exception as error:  # noqa: BLE001 - handed to those who wait for the session
            if not opened.done():
                opened.set_exception(first_cause(error))
            # else the session has ended with it, and told those who wait for answers
        finally:
            if not opened.done():
                opened.set_exception(ConnectionAbortedError("the client was closed while it was connecting"))

    @property
    def alive(self) -> bool:
        """Whether requests can still be answered: the session is open, and its transport has not ended."""
        opened = self._opened
        if opened is None or not opened.done() or opened.cancelled() or opened.exception() is not None:
            return False
        if self._task is None or self._task.done():
            return False
        session = opened.result()
        if not isinstance(session, WatchedSession):
            return True
        return not session.lost.is_set() and not session.forgotten.is_set()

    @property
    def forgotten(self) -> bool:
        """Whether the server said that it does not know the session, and so cannot have looked at the request."""
        opened = self._opened
        if opened is None or not opened.done() or opened.cancelled() or opened.exception() is not None:
            return False
        session = opened.result()
        return isinstance(session, WatchedSession) and session.forgotten.is_set()

    async def close(self) -> None:
        """End the session, and wait until its transport is closed (processes ended); each of its waits is bounded.

        If the caller is cancelled the closing goes on.
        """
        self._stop.set()
        if self._task is None or self._opened is None:
            return
        if not self._opened.done():
            self._task.cancel()
        await asyncio.wait([self._task])


def first_cause(error: Exception) -> Exception:
    """Take a lone exception out of the groups that task groups put around it."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
