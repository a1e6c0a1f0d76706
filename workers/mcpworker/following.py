"""What a proxy wants to hear of from its backend: changes of lists, and of the resources that its clients follow."""

import contextlib
from collections.abc import AsyncIterator

import anyio
import mcp_types as types
from mcp import MCPError
from mcp.client.session import ClientSession
from mcp.client.subscriptions import SubscriptionLost, listen

from mcpworker.logs import get_logger

__all__ = ["Following"]

logger = get_logger("proxy")

MAX_FOLLOWED = 10_000
"""Resources of one backend whose changes are followed."""


class Following:
    """Asks each session of a backend for word of changes, in the way of its era.

    What comes reaches the session's message handler. A resource is followed for good: what is told of one that no
    client follows any more goes no further than the proxy.
    """

    def __init__(self) -> None:
        self._uris: set[str] = set()
        self._asked: set[str] = set()  # of the session that is open
        self._stream: anyio.CancelScope | None = None

    def add(self, uri: str) -> bool:
        """Note a resource; False if it is followed already.

        Raises:
            MCPError: there are too many.
        """
        if uri in self._uris:
            return False
        if len(self._uris) >= MAX_FOLLOWED:
            raise MCPError(types.INTERNAL_ERROR, f"{MAX_FOLLOWED} resources of this backend are followed already")
        self._uris.add(uri)
        return True

    async def ask(self, session: ClientSession, uri: str) -> None:
        """Ask a session that is open for one resource more; a backend that has no subscriptions is not asked.

        Raises:
            MCPError: it refused.
        """
        if session.discover_result is not None:
            if self._stream is not None:
                self._stream.cancel()  # the next one asks for it as well
            return
        if uri in self._asked:  # it was, when the session was opened
            return
        self._asked.add(uri)
        capabilities = session.server_capabilities
        if capabilities is not None and capabilities.resources is not None and capabilities.resources.subscribe:
            request = types.SubscribeRequest(params=types.SubscribeRequestParams(uri=uri))
            await session.send_request(request, types.EmptyResult)

    @contextlib.asynccontextmanager
    async def during(self, session: ClientSession) -> AsyncIterator[None]:
        """Ask a new session for everything, and, in the per-request era, keep the stream open on which it comes."""
        self._asked.clear()
        if session.discover_result is None:
            for uri in list(self._uris):
                with contextlib.suppress(MCPError):  # it may be gone, and is no reason to have no backend
                    await self.ask(session, uri)
            yield
            return
        async with anyio.create_task_group() as group:
            group.start_soon(self._listen, session, name="proxy-listen")
            try:
                yield
            finally:
                group.cancel_scope.cancel()

    async def _listen(self, session: ClientSession) -> None:
        """Hold a `subscriptions/listen` stream, anew whenever a resource is added, until the backend ends it."""
        again = True
        while again:
            with anyio.CancelScope() as self._stream:
                try:
                    async with listen(
                        session,
                        tools_list_changed=True,
                        prompts_list_changed=True,
                        resources_list_changed=True,
                        resource_subscriptions=sorted(self._uris),
                    ) as subscription:
                        async for _ in subscription:
                            pass  # the message handler has got it
                except (MCPError, SubscriptionLost, TimeoutError) as error:
                    logger.info("the backend does not tell of changes: %s", error)
            again = self._stream.cancel_called
        self._stream = None
