"""One run of a server: the lifespans that are open, the clients to tell of changes, the calls that are parked."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import anyio
import anyio.abc
from mcp.server.session import ServerSession
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler
from mcp.shared.subscriptions import ResourceUpdated, ServerEvent, event_to_notification

from mcpworker.errors import FastMCPError
from mcpworker.logs import get_logger
from mcpworker.rounds import Parked
from mcpworker.sessions import connection_of, followed

if TYPE_CHECKING:
    from mcpworker.server import FastMCP

__all__ = ["Run", "open_run"]

logger = get_logger("runs")

_MAX_EVENTS = 1024
_TELL_SECONDS = 5.0
_CLOSE_SECONDS = 10.0


class Run:
    """The state of one run; it lives from the start of the transport's serving to its end."""

    tasks: anyio.abc.TaskGroup
    late: anyio.abc.TaskGroup

    def __init__(self) -> None:
        self.parked = Parked()
        self._bus = InMemorySubscriptionBus()
        self.listeners = ListenHandler(self._bus)
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._lifespans: dict[FastMCP[Any], Any] = {}
        self._opening: dict[FastMCP[Any], asyncio.Event] = {}
        self._failed: dict[FastMCP[Any], Exception] = {}
        self._closing = asyncio.Event()
        self._sessions: dict[int, ServerSession] = {}
        self._events: dict[ServerEvent, None] = {}
        self._news = asyncio.Event()

    # Lifespans ----------------------------------------------------------------------------------------------------

    def lifespan_value(self, server: "FastMCP[Any]") -> Any:
        """What the lifespan of the server, or of a server mounted in it, yielded."""
        return self._lifespans.get(server, {})

    async def enter(self, server: "FastMCP[Any]", stack: AsyncExitStack) -> None:
        """Enter a server's lifespan and those of all that is mounted in it, each once, the outermost first."""
        if server in self._lifespans:
            return
        self._lifespans[server] = await stack.enter_async_context(_ShieldedExit(server._open_lifespan()))
        for mounted in server._mounted_servers():
            await self.enter(mounted, stack)

    async def ensure(self, server: "FastMCP[Any]") -> None:
        """Enter the lifespan of a server that was mounted after the start.

        Raises:
            FastMCPError: its lifespan failed.
        """
        if server in self._lifespans:
            return
        ready = self._opening.get(server)
        if ready is None:
            ready = self._opening[server] = asyncio.Event()
            self.late.start_soon(self._keep_open, server, ready, name=f"lifespan:{server.name}")
        await ready.wait()
        if (error := self._failed.get(server)) is not None:
            raise FastMCPError(f"mounted server {server.name!r} did not start: {error}") from error

    async def _keep_open(self, server: "FastMCP[Any]", ready: asyncio.Event) -> None:
        try:
            async with AsyncExitStack() as stack:
                await self.enter(server, stack)
                ready.set()
                await self._closing.wait()
        except Exception as error:
            logger.exception("lifespan of mounted server %r failed", server.name)
            self._failed[server] = error
        finally:
            ready.set()

    def close(self) -> None:
        """Let the lifespans that were entered late end."""
        self._closing.set()

    # Changes ------------------------------------------------------------------------------------------------------

    def add_session(self, session: ServerSession) -> None:
        """Remember a client of the handshake era, to tell it of changes until its connection ends."""
        connection = connection_of(session)
        if id(connection) not in self._sessions:
            self._sessions[id(connection)] = session
            connection.exit_stack.callback(self._sessions.pop, id(connection), None)

    def changed(self, event: ServerEvent) -> None:
        """Note a change, from any thread; clients are told soon after, of equal changes once."""
        if threading.get_ident() == self._thread:
            self._note(event)
            return
        with suppress(RuntimeError):  # the run has ended: nobody listens
            self._loop.call_soon_threadsafe(self._note, event)

    def _note(self, event: ServerEvent) -> None:
        if len(self._events) >= _MAX_EVENTS and event not in self._events:
            logger.warning("%d changes wait to be told already; one is dropped", _MAX_EVENTS)
            return
        self._events[event] = None
        self._news.set()

    async def tell_changes(self) -> None:
        """Tell clients of changes, until cancelled."""
        while True:
            await self._news.wait()
            self._news.clear()
            events, self._events = list(self._events), {}
            for event in events:
                await self._bus.publish(event)
            async with anyio.create_task_group() as group:
                for session in list(self._sessions.values()):
                    group.start_soon(self._tell, session, events, name="tell-changes")

    async def _tell(self, session: ServerSession, events: list[ServerEvent]) -> None:
        # A client that does not read must not keep the others from hearing.
        with anyio.move_on_after(_TELL_SECONDS) as scope:
            for event in events:
                if isinstance(event, ResourceUpdated) and event.uri not in followed(session):
                    continue
                await session.send_notification(event_to_notification(event, {}))
        if scope.cancelled_caught:
            logger.warning("a client does not read; it is not told of changes")


class _ShieldedExit:
    """A lifespan whose closing part runs to its end, within a bound, also where its run is cancelled."""

    def __init__(self, lifespan: AbstractAsyncContextManager[Any]) -> None:
        self._lifespan = lifespan

    async def __aenter__(self) -> Any:
        return await self._lifespan.__aenter__()

    async def __aexit__(self, *error: Any) -> bool | None:
        if isinstance(error[1], anyio.get_cancelled_exc_class()):
            # A client that leaves, or a signal, is a run's normal end: what follows the `yield` has to happen.
            error = (None, None, None)
        with anyio.move_on_after(_CLOSE_SECONDS, shield=True) as scope:
            return await self._lifespan.__aexit__(*error)
        if scope.cancelled_caught:
            logger.warning("a lifespan did not close within %s seconds", _CLOSE_SECONDS)
        return None


@asynccontextmanager
async def open_run(server: "FastMCP[Any]") -> AsyncIterator[Run]:
    """A run of `server`: lifespans are open inside, closed in reverse order at the end."""
    run = Run()
    async with AsyncExitStack() as stack:
        await run.enter(server, stack)
        # Three layers end in this order: work, lifespans that were entered late, those of the start.
        async with anyio.create_task_group() as run.late, anyio.create_task_group() as run.tasks:
            run.tasks.start_soon(run.tell_changes, name="tell-changes")
            server._runs.add(run)
            try:
                yield run
            finally:
                server._runs.discard(run)
                run.listeners.close()
                run.parked.close()
                run.close()
                run.tasks.cancel_scope.cancel()
