"""HTTP with JSON for operators, to be served on the control socket.

Who may connect is settled before this: by the mode of the socket, and by its listener, which asks the kernel who it is.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from pathlib import Path
from typing import Final, TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from mcpd.control.faults import fault_of
from mcpd.control.logtail import LogTail
from mcpd.control.messages import (
    Accepted,
    CallRequest,
    Fault,
    Isolations,
    NewToken,
    PinDifferences,
    Pins,
    Pruned,
    PruneRequest,
    ReloadRequest,
    Servers,
    Sessions,
    Tokens,
    Tools,
    UpgradeRequest,
)
from mcpd.control.seam import EventFeed, FleetView, PinDesk, TokenDesk
from mcpd.control.streams import Stream
from mcpd.control.view import Event, Gap, Outcome, TokenRequest
from mcpd.errors import ClientFault, McpdError, Overloaded

MAX_BODY: Final = 16 * 1024 * 1024
MAX_STREAMS: Final = 64
MAX_CALL_TIMEOUT: Final = 24 * 3600.0
MAX_LINES: Final = 100_000
LOG_POLL: Final = 0.2

T = TypeVar("T")


class EventsQuery(msgspec.Struct, frozen=True):
    after: int = 0
    follow: bool = False


class LogsQuery(msgspec.Struct, frozen=True):
    lines: int = 100
    follow: bool = False


class ToolsQuery(msgspec.Struct, frozen=True):
    server: str | None = None


class ControlApi:
    """The ASGI application over a fleet. `close` ends the streams, which would hold up the daemon's shutdown."""

    def __init__(
        self,
        fleet: FleetView,
        tokens: TokenDesk | None = None,
        audit: Path | None = None,
        pins: PinDesk | None = None,
        limited: Counter[str] | None = None,
    ) -> None:
        """`limited` counts what is refused, by the bound that was reached."""
        self._pin_desk = pins
        self._fleet = fleet
        self._audit_file = audit
        self._desk = tokens
        self._closing = asyncio.Event()
        self._streams = 0
        self._limited = Counter[str]() if limited is None else limited
        self._app: ASGIApp = Starlette(routes=self._routes(), exception_handlers=_HANDLERS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)

    def close(self) -> None:
        """Idempotent; other requests are still answered."""
        self._closing.set()

    def _routes(self) -> list[Route]:
        fleet = self._fleet
        verbs = {
            "start": fleet.start,
            "stop": fleet.stop,
            "restart": fleet.restart,
            "roll": fleet.roll,
            "reset-failed": fleet.reset_failed,
        }
        return [
            Route("/servers", self._servers),
            # A name with a slash in it is no server's, but shall be called unknown like any other.
            Route("/servers/{name:path}/logs", self._logs),
            *(Route(f"/servers/{{name:path}}/{verb}", _acting(act), methods=["POST"]) for verb, act in verbs.items()),
            Route("/servers/{name:path}/upgrade", self._upgrade, methods=["POST"]),
            Route("/servers/{name:path}", self._server),
            Route("/packages/prune", self._prune, methods=["POST"]),
            Route("/isolation", self._isolation),
            Route("/reload", self._reload, methods=["POST"]),
            Route("/events", self._events),
            Route("/sessions", self._sessions),
            Route("/tools", self._tools),
            Route("/call", self._call, methods=["POST"]),
            Route("/audit", self._audit),
            Route("/pins", self._pins),
            Route("/pins/{name:path}/approve", self._approve_pins, methods=["POST"]),
            Route("/pins/{name:path}", self._pin_differences),
            Route("/tokens", self._tokens),
            Route("/tokens", self._create_token, methods=["POST"]),
            Route("/tokens/{name:path}/revoke", self._revoke_token, methods=["POST"]),
            Route("/daemon", self._daemon),
            Route("/shutdown", self._shutdown, methods=["POST"]),
        ]

    async def _servers(self, request: Request) -> Response:
        return _json(Servers(self._fleet.servers()))

    async def _server(self, request: Request) -> Response:
        return _json(self._fleet.server(request.path_params["name"]))

    async def _logs(self, request: Request) -> ASGIApp:
        query = _query(request, LogsQuery)
        lines = max(0, min(query.lines, MAX_LINES))
        tail = LogTail(self._fleet.log_path(request.path_params["name"]))
        return self._stream(_log_chunks(tail, lines, query.follow), "text/plain; charset=utf-8", tail.close)

    async def _upgrade(self, request: Request) -> Response:
        asked = await self._body(request, UpgradeRequest)
        return _json(await self._fleet.upgrade(request.path_params["name"], asked.version))

    async def _prune(self, request: Request) -> Response:
        asked = await self._body(request, PruneRequest)
        return _json(Pruned(await self._fleet.prune(asked.server)))

    async def _isolation(self, request: Request) -> Response:
        return _json(Isolations(self._fleet.isolation()))

    async def _reload(self, request: Request) -> Response:
        asked = await self._body(request, ReloadRequest)
        return _json(await self._fleet.reload(asked.dry_run))

    async def _events(self, request: Request) -> ASGIApp:
        query = _query(request, EventsQuery)
        # Subscribed before the headers go out: a reader that has seen them misses nothing of what it does next.
        feed = self._fleet.events(query.after)
        return self._stream(_event_lines(feed, query.follow), "application/x-ndjson", feed.close)

    async def _sessions(self, request: Request) -> Response:
        return _json(Sessions(self._fleet.sessions()))

    async def _tools(self, request: Request) -> Response:
        return _json(Tools(await self._fleet.tools(_query(request, ToolsQuery).server)))

    async def _call(self, request: Request) -> Response:
        asked = await self._body(request, CallRequest)
        arguments = bytes(asked.arguments).translate(None, b"\r\n")  # between tokens only: the JSON has been checked
        if not arguments.lstrip().startswith(b"{"):
            raise ClientFault("arguments: a JSON object is needed")
        if not 0 < asked.timeout <= MAX_CALL_TIMEOUT:
            raise ClientFault(f"timeout: a number of seconds up to {MAX_CALL_TIMEOUT:g} is needed")
        uid = request.scope.get("extensions", {}).get("mcpd.uid")
        caller = "operator" if uid is None else f"operator:{uid}"
        result = await self._fleet.call(asked.server, asked.tool, arguments, asked.timeout, caller)
        return Response(result, media_type="application/json")  # not decoded: it may hold what msgspec refuses

    async def _audit(self, request: Request) -> ASGIApp:
        if self._audit_file is None:
            raise ClientFault("this daemon keeps no audit log", 'set daemon.audit = "calls" and restart it')
        query = _query(request, LogsQuery)
        tail = LogTail(self._audit_file)
        lines = max(0, min(query.lines, MAX_LINES))
        return self._stream(_log_chunks(tail, lines, query.follow), "application/x-ndjson", tail.close)

    @property
    def _pins_desk(self) -> PinDesk:
        if self._pin_desk is None:
            raise ClientFault("this daemon pins nothing")
        return self._pin_desk

    async def _pins(self, request: Request) -> Response:
        return _json(Pins(self._pins_desk.pins()))

    async def _pin_differences(self, request: Request) -> Response:
        return _json(PinDifferences(self._pins_desk.differences(request.path_params["name"])))

    async def _approve_pins(self, request: Request) -> Response:
        return _json(self._pins_desk.approve(request.path_params["name"]))

    @property
    def _tokens_desk(self) -> TokenDesk:
        if self._desk is None:
            raise ClientFault("this daemon knows no tokens", 'set frontdoor.auth = "token" and restart it')
        return self._desk

    async def _tokens(self, request: Request) -> Response:
        return _json(Tokens(self._tokens_desk.list()))

    async def _create_token(self, request: Request) -> Response:
        return _json(NewToken(self._tokens_desk.create(await self._body(request, TokenRequest))))

    async def _revoke_token(self, request: Request) -> Response:
        self._tokens_desk.revoke(request.path_params["name"])
        return _json(Accepted())

    async def _daemon(self, request: Request) -> Response:
        return _json(self._fleet.daemon())

    async def _shutdown(self, request: Request) -> Response:
        self._fleet.request_shutdown()
        return _json(Accepted())

    async def _body(self, request: Request, kind: type[T]) -> T:
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY:
                self._limited["body"] += 1
                raise HTTPException(413, f"the body is over {MAX_BODY} bytes")
        return msgspec.json.decode(bytes(body) or b"{}", type=kind)

    def _stream(self, chunks: AsyncGenerator[bytes, None], media_type: str, close: Callable[[], None]) -> ASGIApp:
        if self._streams >= MAX_STREAMS:
            close()
            self._limited["streams"] += 1
            raise Overloaded(f"{MAX_STREAMS} followers of events and logs are connected: end one of them")
        self._streams += 1

        def release() -> None:
            self._streams -= 1
            close()

        return Stream(chunks, media_type, self._closing, release)


def _acting(act: Callable[[str], Awaitable[Outcome]]) -> Callable[[Request], Awaitable[Response]]:
    """A command that was refused is an answer, not an error: 200 with `ok` false."""

    async def endpoint(request: Request) -> Response:
        return _json(await act(request.path_params["name"]))

    return endpoint


async def _event_lines(feed: EventFeed, follow: bool) -> AsyncGenerator[bytes, None]:
    yield _lines(feed.take())
    if follow:
        async for event in feed:
            yield _lines([event, *feed.take()])


async def _log_chunks(tail: LogTail, lines: int, follow: bool) -> AsyncGenerator[bytes, None]:
    yield tail.last(lines)
    while follow:
        chunk = tail.more()
        if chunk:
            yield chunk
        else:
            await asyncio.sleep(LOG_POLL)


def _lines(events: Iterable[Event | Gap]) -> bytes:
    return b"".join(msgspec.json.encode(event) + b"\n" for event in events)


def _json(content: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(content), status, media_type="application/json")


def _query(request: Request, kind: type[T]) -> T:
    return msgspec.convert(dict(request.query_params), kind, strict=False)


async def _on_fault(request: Request, error: Exception) -> Response:
    assert isinstance(error, McpdError)
    status, fault = fault_of(error)
    response = _json(fault, status)
    if isinstance(error, Overloaded):
        response.headers["Retry-After"] = str(max(1, round(error.retry_after)))
    return response


async def _on_bad_request(request: Request, error: Exception) -> Response:
    remedy = "if mcpd was upgraded since the daemon was started, restart the daemon"
    return _json(Fault(error=f"the request is not understood: {error}", remedy=remedy, kind="ClientFault"), 400)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    where = f"{request.method} {request.url.path}"
    return _json(Fault(error=f"{where}: {error.detail}", kind="ClientFault"), error.status_code)


async def _on_defect(request: Request, error: Exception) -> Response:
    text = f"defect in mcpd: {type(error).__name__}: {error}"
    return _json(Fault(error=text, remedy="the daemon goes on; its log has the traceback", kind="McpdError"), 500)


_HANDLERS: Final = {
    McpdError: _on_fault,
    msgspec.MsgspecError: _on_bad_request,
    HTTPException: _on_http_exception,
    Exception: _on_defect,
}
