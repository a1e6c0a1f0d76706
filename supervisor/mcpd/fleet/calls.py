"""mcpd's own requests to one process: the handshake, lists, probes. Their ids are strings, the relay's are integers."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable

from mcpd.errors import CallTimeout, Overloaded, ServerFault
from mcpd.wire import methods
from mcpd.wire.eras import PER_REQUEST_REVISIONS
from mcpd.wire.jsonrpc import ABSENT, Bytes, Message, dump, notification, request, value_of
from mcpd.wire.meta import with_client

MAX_PENDING = 64
_NEVER_CANCELLED = frozenset({methods.INITIALIZE, methods.PING})  # the first must not be (2025-11-25, cancellation)


class ErrorAnswer(ServerFault):
    """The server answered with an error."""

    def __init__(self, method: str, code: int, text: str) -> None:
        super().__init__(f"{method} was answered with error {code}: {text}")
        self.method = method
        self.code = code


class OwnCalls:
    """Requests in flight, by id. All of them end when `close` is called."""

    def __init__(self, offer: Callable[[bytes], bool]) -> None:
        self.offer = offer
        self.client: bytes | None = None
        """What requests say of mcpd, raw JSON, where the server wants that of each of them (2026-07-28, basic)."""
        self._numbers = itertools.count(1)
        self._pending: dict[bytes, asyncio.Future[Message]] = {}
        self._closed: str | None = None

    async def request(self, method: str, params: Bytes = ABSENT, timeout: float | None = None) -> bytes:
        """The raw result. Raises ErrorAnswer, CallTimeout, Overloaded (nothing was sent), ServerFault (it is gone)."""
        if self._closed is not None:
            raise ServerFault(self._closed)
        if len(self._pending) >= MAX_PENDING:
            raise Overloaded(f"{MAX_PENDING} own requests wait for an answer")
        id = dump(f"mcpd-{next(self._numbers)}")
        if self.client is not None:
            params = with_client(bytes(params), b"{}", self.client, PER_REQUEST_REVISIONS[-1], None)
        if not self.offer(request(id, method, params)):
            raise Overloaded("the server does not read its messages fast enough")
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._pending[id] = answer
        try:
            async with asyncio.timeout(timeout):
                message = await answer
        except TimeoutError:
            self._cancel(method, id)
            raise CallTimeout(f"{method} was not answered within {timeout:g} s") from None
        finally:
            del self._pending[id]
        if len(message.error):
            raise _error_answer(method, message)
        return bytes(message.result)

    def notify(self, method: str, params: Bytes = ABSENT) -> None:
        """Send a notification; if it cannot be written, a later request will show it."""
        self.offer(notification(method, params))

    def answer(self, message: Message) -> bool:
        """Take a response; False if nobody waits for it (any more)."""
        waiting = self._pending.get(bytes(message.id))
        if waiting is None or waiting.done():
            return False
        waiting.set_result(message)
        return True

    def close(self, why: str) -> None:
        """The process is gone: whoever waits gets a ServerFault."""
        self._closed = why
        for waiting in self._pending.values():
            if not waiting.done():
                waiting.set_exception(ServerFault(why))

    def _cancel(self, method: str, id: bytes) -> None:
        if method not in _NEVER_CANCELLED:
            self.notify(methods.CANCELLED, b'{"requestId":%b,"reason":"no answer in time"}' % id)


def _error_answer(method: str, message: Message) -> ErrorAnswer:
    found = value_of(message.error)
    if not isinstance(found, dict):
        return ErrorAnswer(method, 0, str(found))
    code = found.get("code")
    return ErrorAnswer(method, code if isinstance(code, int) else 0, str(found.get("message", "")))
