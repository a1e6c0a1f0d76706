"""How a server reaches its clients: standard input and output, HTTP+SSE, Streamable HTTP."""

from typing import TYPE_CHECKING, Any

from mcpworker.logs import configure_logging, get_logger

if TYPE_CHECKING:
    from mcp.server.transport_security import TransportSecuritySettings
    from starlette.applications import Starlette

    from mcpworker.serving import Serving

__all__ = ["http", "sse_app", "stdio", "streamable_http_app"]

logger = get_logger("serve")

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_ALL = ("0.0.0.0", "::", "")  # noqa: S104 - to recognise it
_SHUTDOWN_SECONDS = 2

was_used = False
"""Whether any server of this process has begun to serve; the launcher asks."""


async def stdio(server: "Serving") -> None:
    """Serve one client on standard input and output, until its input ends or SIGTERM or SIGINT comes."""
    from mcpworker.stdio import open_stdio

    global was_used
    was_used = True
    low_level = server._mcp_server
    async with open_stdio() as (reader, writer):
        await low_level.run(reader, writer, low_level.create_initialization_options())


def sse_app(
    server: "Serving",
    *,
    host: str | None = None,
    sse_path: str | None = None,
    message_path: str | None = None,
    transport_security: "TransportSecuritySettings | None" = None,
) -> "Starlette":
    """GET `sse_path` opens a session with a lifespan of its own, POST `message_path` carries the client's messages."""
    from mcp.server.sse import SseServerTransport
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Mount, Route

    settings = server.settings
    security = transport_security or _security_for(host or settings.host)
    transport = SseServerTransport(message_path or settings.message_path, security_settings=security)
    low_level = server._mcp_server

    async def open_session(request: Request) -> Response:
        async with transport.connect_sse(request.scope, request.receive, request._send) as (reader, writer):
            await low_level.run(reader, writer, low_level.create_initialization_options())
        return Response()

    routes = [
        Route(sse_path or settings.sse_path, endpoint=open_session, methods=["GET"]),
        Mount(message_path or settings.message_path, app=transport.handle_post_message),
    ]
    return _guarded(Starlette(debug=settings.debug, routes=routes), security)


def streamable_http_app(
    server: "Serving",
    *,
    host: str | None = None,
    path: str | None = None,
    json_response: bool | None = None,
    stateless_http: bool | None = None,
    transport_security: "TransportSecuritySettings | None" = None,
    **options: Any,
) -> "Starlette":
    """One endpoint for every revision from 2025-03-26 on; further options are those of the SDK's application."""
    settings = server.settings
    security = transport_security or _security_for(host or settings.host)
    app = server._mcp_server.streamable_http_app(
        streamable_http_path=path or settings.streamable_http_path,
        json_response=settings.json_response if json_response is None else json_response,
        stateless_http=settings.stateless_http if stateless_http is None else stateless_http,
        transport_security=security,
        debug=settings.debug,
        **options,
    )
    return _guarded(app, security)


def _security_for(host: str) -> "TransportSecuritySettings | None":
    """On loopback only loopback names are answered (DNS rebinding); elsewhere the names of this host are unknown."""
    from mcp.server.transport_security import TransportSecuritySettings

    if host not in _LOOPBACK:
        return TransportSecuritySettings(enable_dns_rebinding_protection=False)
    names = ["127.0.0.1", "localhost", "[::1]"]
    return TransportSecuritySettings(
        enable_dns_rebinding_protection=True,
        allowed_hosts=[f"{name}:*" for name in names],
        allowed_origins=[f"http://{name}:*" for name in names],
    )


def _guarded(app: "Starlette", security: "TransportSecuritySettings | None") -> "Starlette":
    """Where hosts cannot be checked, at least no foreign web page may post: browsers always say their origin then."""
    if security is None or not security.enable_dns_rebinding_protection:
        app.add_middleware(_OriginGuard)
    return app


class _OriginGuard:
    """Refuses requests of web pages that were not served from this machine."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and not self._allowed(scope):
            from starlette.responses import PlainTextResponse

            refusal = PlainTextResponse("requests of this origin are not answered", status_code=403)
            await refusal(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _allowed(self, scope: Any) -> bool:
        from urllib.parse import urlsplit

        for key, value in scope["headers"]:
            if key == b"origin" and urlsplit(value.decode("latin-1")).hostname not in _LOOPBACK:
                return False
        return True


async def http(server: "Serving", app: "Starlette", host: str | None, port: int | None, log_level: str | None) -> None:
    """Serve an application until the process is told to end; what is not given comes from the settings."""
    import uvicorn

    global was_used
    was_used = True
    if log_level:
        configure_logging(log_level.upper())
    host = host or server.settings.host
    port = server.settings.port if port is None else port
    logger.debug("%r begins to listen on %s port %s", server.name, host, port)
    if host in _ALL:
        logger.warning(
            "%r listens on all interfaces (%s): whoever reaches this machine can use it; "
            "pass host='127.0.0.1' if only local clients should",
            server.name,
            host,
        )
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_level=(log_level or server.settings.log_level).lower(),
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
    )
    await uvicorn.Server(config).serve()
