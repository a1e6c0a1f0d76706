"""How a server is run: the methods by which a script serves."""

import functools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from mcpworker.protocol import LowLevelServer
    from mcpworker.settings import ServerSettings

__all__ = ["Serving"]


class Serving:
    """The part of a server that runs it.

    `run` hands its keywords on to the method of the transport, which a subclass may extend.
    """

    if TYPE_CHECKING:
        settings: ServerSettings
        _mcp_server: LowLevelServer

        @property
        def name(self) -> str: ...

    def run(self, transport: str | None = None, **transport_options: Any) -> None:
        """Serve until the client leaves or the process is told to end.

        Args:
            transport: "stdio" (the default), "sse" or "streamable-http".
            **transport_options: of `run_stdio_async`, `run_sse_async` or `run_streamable_http_async`.

        Raises:
            ValueError: there is no such transport.
        """
        import anyio

        anyio.run(functools.partial(self.run_async, transport, **transport_options))

    async def run_async(self, transport: str | None = None, **transport_options: Any) -> None:
        """As `run`, inside a running event loop."""
        from mcpworker import transports

        transports.was_used = True  # also where a subclass serves in its own way
        match transport or "stdio":
            case "stdio":
                await self.run_stdio_async(**transport_options)
            case "sse":
                await self.run_sse_async(**transport_options)
            case "streamable-http" | "http":
                await self.run_streamable_http_async(**transport_options)
            case unknown:
                raise ValueError(f"Unknown transport: {unknown}")

    async def run_stdio_async(self) -> None:
        """Serve one client on standard input and output, until the input ends."""
        from mcpworker import transports

        await transports.stdio(self)

    async def run_sse_async(
        self, host: str | None = None, port: int | None = None, log_level: str | None = None, **options: Any
    ) -> None:
        """Serve by HTTP+SSE until the process is told to end; what is not given comes from the settings."""
        from mcpworker import transports

        await transports.http(self, self.sse_app(host=host or self.settings.host, **options), host, port, log_level)

    async def run_streamable_http_async(
        self,
        host: str | None = None,
        port: int | None = None,
        log_level: str | None = None,
        path: str | None = None,
        **options: Any,
    ) -> None:
        """Serve by Streamable HTTP until the process is told to end; what is not given comes from the settings."""
        from mcpworker import transports

        app = self.streamable_http_app(path=path, host=host or self.settings.host, **options)
        await transports.http(self, app, host, port, log_level)

    run_http_async = run_streamable_http_async

    def sse_app(self, **options: Any) -> "Starlette":
        """The ASGI application that serves HTTP+SSE."""
        from mcpworker import transports

        return transports.sse_app(self, **options)

    def streamable_http_app(self, **options: Any) -> "Starlette":
        """The ASGI application that serves Streamable HTTP."""
        from mcpworker import transports

        return transports.streamable_http_app(self, **options)

    http_app = streamable_http_app
