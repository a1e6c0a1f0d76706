"""The server behind a proxy: one kept session, and whose question each of its questions is.

A session is opened by the first request that needs it, kept while the proxy is served, and opened again after it was
lost. Requests that were in flight then fail: whether the backend carried them out cannot be known.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar, cast, get_args

import mcp_types as types
from mcp import MCPError
from mcp.client.session import ClientRequestContext, ClientSession, IncomingMessage
from mcp.server.validation import validate_sampling_tools
from mcp.shared.dispatcher import ProgressFnT
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from mcpworker.client import Client
from mcpworker.client.connection import Connection
from mcpworker.client.logging import create_log_callback, default_log_handler
from mcpworker.errors import CapabilityError
from mcpworker.following import Following
from mcpworker.logs import get_logger
from mcpworker.sessions import asked_level, connection_of

if TYPE_CHECKING:
    from mcpworker.context import Context

__all__ = ["Backend", "progress_of", "request_meta"]

logger = get_logger("proxy")

T = TypeVar("T")

FIRST_RETRY = 0.1
LAST_RETRY = 10.0
"""Seconds after a failed connecting in which no other is tried: the first, doubled by each failure up to the last."""

LEVELS: tuple[types.LoggingLevel, ...] = get_args(types.LoggingLevel)

TURN_TIMEOUT = 30.0
"""Seconds that a call to an interactive backend waits for the calls of other clients to end."""

_causes: ContextVar[dict[int, "Context"]] = ContextVar("mcpworker_proxy_causes", default={})  # noqa: B039 - never changed in place
"""The front's request that is being served in this task, for each backend by identity (proxies may be nested)."""


class Backend:
    """The server that `client` reaches, for any number of clients of the proxy.

    `on_message` gets the backend's notifications of changes.
    """

    def __init__(self, client: Client, on_message: Callable[[types.ServerNotification], None]) -> None:
        self.client = client
        self._on_message = on_message
        self._holders = 0
        self._connection: Connection | None = None
        self._connecting = asyncio.Lock()
        self._retry_at = 0.0
        self._retry_delay = FIRST_RETRY
        self._calls: list[Context] = []
        self._ended = asyncio.Event()
        self._interactive = False
        self._following = Following()
        self._level: types.LoggingLevel | None = None

    def __repr__(self) -> str:
        return f"<Backend({self.client.transport!r})>"

    # --- the session ---------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Keep the session, once it is needed, until the last of those who hold it leaves."""
        if not self._holders:  # perhaps in another event loop than the last time
            self._connecting, self._ended = asyncio.Lock(), asyncio.Event()
        self._holders += 1
        try:
            yield
        finally:
            self._holders -= 1
            if not self._holders:
                await self._drop(self._connection)

    async def request(
        self,
        send: Callable[[ClientSession], Awaitable[T]],
        context: "Context | None" = None,
        *,
        call: bool = False,
    ) -> T:
        """Send a request for the client behind `context`, or for the proxy itself, and return the answer.

        A `call` may do anything, and may ask the client. If the session was lost before a call was sent, or in any
        other request, the request is sent once more over a new session.

        Raises:
            MCPError: the backend answered with an error, or cannot be reached.
        """
        async with self.held(), self._serving(context, wait=call):
            if self.client.is_connected():  # the script has entered its client itself: that session counts
                return await send(self.client.session)
            connection = await self._connected()
            try:
                await self._raise_level(connection, context)
                return await send(await connection.open())
            except MCPError as error:
                if connection.alive and not _is_closed(error):
                    raise
                await self._drop(connection)
                if call and not connection.forgotten:
                    raise MCPError(
                        types.INTERNAL_ERROR,
                        f"the backend {self.client.transport!r} went away during the call; whether it did its work "
                        "is not known",
                    ) from error
            connection = await self._connected()
            return await send(await connection.open())

    async def _connected(self) -> Connection:
        async with self._connecting:
            connection = self._connection
            if connection is not None:
                if connection.alive:
                    return connection
                await self._drop(connection)
            return await self._connect()

    async def _connect(self) -> Connection:
        wait = self._retry_at - time.monotonic()
        if wait > 0:
            raise self._unreachable(f"the last attempt failed; the next one may be made in {wait:.1f} s")
        connection = Connection(self._open, name=f"proxy-backend-{id(self):x}")
        try:
            await connection.open()
        except BaseException as error:
            await connection.close()
            if not isinstance(error, Exception):
                raise
            self._retry_at = time.monotonic() + self._retry_delay
            self._retry_delay = min(2 * self._retry_delay, LAST_RETRY)
            raise self._unreachable(str(error) or type(error).__name__) from error
        self._retry_at, self._retry_delay = 0.0, FIRST_RETRY
        self._connection, self._level = connection, None
        return connection

    @contextlib.asynccontextmanager
    async def _open(self) -> AsyncIterator[ClientSession]:
        # What the script's own client answers it goes on answering; the rest is asked of the client in front.
        given = self.client.session_kwargs
        connecting = self.client.connect_session(
            sampling_callback=given.get("sampling_callback") or self._ask,
            elicitation_callback=given.get("elicitation_callback") or self._ask,
            logging_callback=self._receive_log,
            message_handler=self._receive_message,
        )
        async with connecting as session, self._following.during(session):
            yield session

    async def _drop(self, connection: Connection | None) -> None:
        """Close a connection; another that has taken its place stays."""
        if connection is None:
            return
        if self._connection is connection:
            self._connection = None
        await connection.close()

    def _unreachable(self, why: str) -> MCPError:
        return MCPError(types.INTERNAL_ERROR, f"the backend {self.client.transport!r} cannot be reached: {why}")

    # --- whose request it is ---------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _serving(self, context: "Context | None", wait: bool) -> AsyncIterator[None]:
        """Note that a request of the client behind `context` is in flight."""
        if context is None:
            yield
            return
        if wait and self._interactive:
            await self._turn(context)
        self._calls.append(context)
        token = _causes.set({**_causes.get(), id(self): context})
        try:
            yield
        finally:
            _causes.reset(token)
            self._calls.remove(context)
            self._ended.set()

    async def _turn(self, context: "Context") -> None:
        """Wait until no other client has calls in flight: the backend asks questions, and does not say whom.

        Raises:
            MCPError: that took too long.
        """
        mine = connection_of(context.session)
        try:
            async with asyncio.timeout(TURN_TIMEOUT):
                while any(connection_of(other.session) is not mine for other in self._calls):
                    self._ended.clear()
                    await self._ended.wait()
        except TimeoutError:
            raise MCPError(
                types.INTERNAL_ERROR,
                f"the backend {self.client.transport!r} is busy with another client's question; try again later",
            ) from None

    def _cause(self) -> "Context | None":
        """Return the request that the backend's message belongs to; None where that would be a guess."""
        known = _causes.get().get(id(self))
        if known is not None and any(known is call for call in self._calls):
            return known
        clients = {id(connection_of(call.session)) for call in self._calls}
        return self._calls[-1] if len(clients) == 1 else None

    # --- what the backend sends ------------------------------------------------------------------------------------

    async def _ask(self, context: ClientRequestContext, params: Any) -> Any:
        """Ask the client in front what the backend asks."""
        cause = self._cause()
        if cause is None:
            self._interactive = True
            return types.ErrorData(
                code=types.INVALID_REQUEST,
                message="calls of several clients are in flight, or none is: nobody knows whom to ask",
            )
        if params.meta is not None:  # the token is the backend's, and would be taken for one of ours
            params = params.model_copy(update={"meta": None})
        try:
            if isinstance(params, types.CreateMessageRequestParams):
                return await _sample(cause, params)
            cause._require("elicitation")
            return await cause._ask(types.ElicitRequest(params=params), types.ElicitResult)
        except MCPError as error:
            return error.error
        except (CapabilityError, ValueError) as error:
            return types.ErrorData(code=types.INVALID_REQUEST, message=str(error))

    async def _receive_log(self, params: types.LoggingMessageNotificationParams) -> None:
        handler = self.client.log_handler
        if handler is not None:
            await create_log_callback(handler)(params)
        cause = self._cause()
        if cause is not None:
            await cause.log(params.level, params.data, logger_name=params.logger)
        elif handler is None:
            await default_log_handler(params)

    async def _receive_message(self, message: IncomingMessage) -> None:
        handler = self.client.session_kwargs.get("message_handler")
        if handler is not None:
            await handler(message)
        if isinstance(message, Exception):
            logger.warning("%r: fault of the transport: %s", self, message)
        else:
            self._on_message(message)

    # --- what requests carry ---------------------------------------------------------------------------------------

    async def follow(self, uri: str) -> None:
        """Ask the backend for word of a resource's changes, now and after each new connecting.

        Raises:
            MCPError: it refused, or cannot be reached.
        """
        if self._following.add(uri):
            await self.request(lambda session: self._following.ask(session, uri))

    async def _raise_level(self, connection: Connection, context: "Context | None") -> None:
        """Have the backend send the messages that the client asked for, if it does not yet."""
        level = None if context is None else asked_level(context.session)
        if level is None or (self._level is not None and LEVELS.index(self._level) <= LEVELS.index(level)):
            return
        session = await connection.open()
        capabilities = session.server_capabilities
        if session.initialize_result is None or capabilities is None or capabilities.logging is None:
            return
        params = types.SetLevelRequestParams(level=level)
        await session.send_request(types.SetLevelRequest(params=params), types.EmptyResult)
        self._level = level


async def _sample(cause: "Context", params: types.CreateMessageRequestParams) -> Any:
    with_tools = params.tools is not None or params.tool_choice is not None
    validate_sampling_tools(cause.client_capabilities, params.tools, params.tool_choice)
    result = types.CreateMessageResultWithTools if with_tools else types.CreateMessageResult
    cause._require("sampling")
    return await cause._ask(types.CreateMessageRequest(params=params), result)


def request_meta(context: "Context | None", session: ClientSession) -> types.RequestParamsMeta | None:
    """Return the `_meta` for the backend: what the client sent, less what belongs to the connection in front."""
    if context is None:
        return None
    request = context.request_context
    meta = {key: value for key, value in (request.meta or {}).items() if not _is_connections_own(key)}
    if session.discover_result is not None:
        # A per-request backend sends log messages only to those who ask for them in the request.
        level = (request.meta or {}).get(types.LOG_LEVEL_META_KEY)
        if level is None and request.protocol_version not in MODERN_PROTOCOL_VERSIONS:
            level = asked_level(context.session) or LEVELS[0]
        if level is not None:
            meta[types.LOG_LEVEL_META_KEY] = level
    return cast("types.RequestParamsMeta", meta) or None


def _is_connections_own(key: str) -> bool:
    return key in ("progressToken", "progress_token") or key.startswith("io.modelcontextprotocol/")


def progress_of(context: "Context | None") -> ProgressFnT | None:
    """Return where the backend's progress goes, if the client wants to hear of it."""
    if context is None:
        return None
    meta = context.request_context.meta or {}
    if "progressToken" not in meta and "progress_token" not in meta:
        return None
    return context.report_progress


def _is_closed(error: MCPError) -> bool:
    """Whether the SDK's session says that it cannot send; servers use the same code for errors of their own."""
    return error.code == types.CONNECTION_CLOSED and error.message == "Connection closed"
