"""Make an MCP session of a pair of streams, in the era that the server speaks."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias, TypedDict

import anyio
import mcp_types as types
from mcp import MCPError
from mcp.client.session import (
    ClientSession,
    ElicitationFnT,
    ListRootsFnT,
    LoggingFnT,
    MessageHandlerFnT,
    SamplingFnT,
)
from mcp.shared.message import SessionMessage

Era: TypeAlias = Literal["auto", "handshake", "per-request"]
"""How to greet a server: `initialize`, `server/discover`, or the first and then, if it is refused, the second."""

Streams: TypeAlias = tuple[Any, Any]
"""What the SDK's transports yield: a stream of incoming messages and one for outgoing ones."""


class SessionKwargs(TypedDict, total=False):
    """The keywords of `ClientSession` that a `Client` sets."""

    read_timeout_seconds: float | None
    sampling_callback: SamplingFnT | None
    sampling_capabilities: types.SamplingCapability | None
    elicitation_callback: ElicitationFnT | None
    list_roots_callback: ListRootsFnT | None
    logging_callback: LoggingFnT | None
    log_level: types.LoggingLevel | None
    message_handler: MessageHandlerFnT | None
    client_info: types.Implementation | None


class WatchedSession(ClientSession):
    """A `ClientSession` over two streams that knows how its transport fares.

    `lost` is set when nothing comes in any more; `forgotten`, when the server said that it does not know the session.
    """

    def __init__(self, streams: Streams, **kwargs: Any) -> None:
        read, write = streams
        watched = read if isinstance(read, WatchedStream) else WatchedStream(read)
        self.lost, self.forgotten = watched.ended, watched.forgotten
        super().__init__(watched, write, **kwargs)


class WatchedStream:
    """A read stream that passes everything on, and sets `ended` at its end; `forgotten` is set by who made it."""

    def __init__(self, stream: Any, forgotten: anyio.Event | None = None) -> None:
        self.ended = anyio.Event()
        self.forgotten = forgotten or anyio.Event()
        self._stream = stream

    @property
    def last_context(self) -> Any:
        return getattr(self._stream, "last_context", None)

    async def receive(self) -> SessionMessage | Exception:
        try:
            message: SessionMessage | Exception = await self._stream.receive()
        except (anyio.EndOfStream, anyio.ClosedResourceError, anyio.BrokenResourceError):
            self.ended.set()
            raise
        return message

    async def aclose(self) -> None:
        await self._stream.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        try:
            return await self.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

    async def __aenter__(self) -> Self:
        await self._stream.__aenter__()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        self.ended.set()
        result: bool | None = await self._stream.__aexit__(exc_type, exc, traceback)
        return result


@asynccontextmanager
async def open_session(
    streams: Callable[[], AbstractAsyncContextManager[Streams]], era: Era, kwargs: SessionKwargs
) -> AsyncIterator[ClientSession]:
    """Connect by `streams()` and greet the server; yield the session, ready for requests.

    With `era="auto"` the greeting is `initialize`. A server that refuses it gets a new connection (a process that has
    seen one era need not answer in the other) and `server/discover`.

    Raises:
        MCPError: the server refused the greeting; with `"auto"`, both, and the error is that of `initialize`.
    """
    if era == "auto":
        try:
            async with _greeted(streams, "handshake", kwargs) as session:
                yield session
                return
        except _RefusedError as refused:
            refusal = refused
        try:
            async with _greeted(streams, "per-request", kwargs) as session:
                yield session
                return
        except _RefusedError:
            raise refusal.error from None
    try:
        async with _greeted(streams, era, kwargs) as session:
            yield session
    except _RefusedError as refused:
        raise refused.error from None


class _RefusedError(Exception):
    """The server's error in answer to a greeting."""

    def __init__(self, error: MCPError) -> None:
        super().__init__(str(error))
        self.error = error


@asynccontextmanager
async def _greeted(
    streams: Callable[[], AbstractAsyncContextManager[Streams]], era: Era, kwargs: SessionKwargs
) -> AsyncIterator[ClientSession]:
    refusal: MCPError | None = None
    async with streams() as pair, WatchedSession(pair, **kwargs) as session:
        try:
            if era == "per-request":
                await session.discover()
            else:
                await session.initialize()
        except MCPError as error:
            refusal = error
        else:
            yield session
    # Raised here, outside the task groups of transport and session, which would wrap it.
    if refusal is None:
        return
    if refusal.code in (types.CONNECTION_CLOSED, types.REQUEST_TIMEOUT):
        raise refusal  # no answer is no word about eras: another greeting would only start the server again
    raise _RefusedError(refusal)
