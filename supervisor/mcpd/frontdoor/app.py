"""The front door as one ASGI application: paths, and what stands before every endpoint.

Paths are looked up in a dictionary and handled as plain ASGI; there is no router and no middleware. The transports
are handlers of the form `handle(scope, receive, send, view, principal)`. They find the request's headers as a
dictionary in `scope["mcpd.headers"]`; until its response has begun, a handler may raise Refusal or any McpdError.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

from mcpd.errors import McpdError
from mcpd.frontdoor import metrics
from mcpd.frontdoor.asgi import (
    JSON,
    App,
    Event,
    Handler,
    Header,
    Headers,
    Receive,
    Refusal,
    Reply,
    Scope,
    Send,
    refusal,
    refusal_of,
)
from mcpd.frontdoor.challenge import WELL_KNOWN
from mcpd.frontdoor.context import Context
from mcpd.frontdoor.guard import Guard
from mcpd.frontdoor.heads import Head
from mcpd.frontdoor.limits import is_loopback
from mcpd.frontdoor.protocol import Outcome, Pending
from mcpd.frontdoor.relay import View
from mcpd.wire.principal import EVERYTHING, Principal

log = logging.getLogger("mcpd.frontdoor")

Endpoint: TypeAlias = Literal["mcp", "sse", "messages"]
# A handler of a POST whose body is there, for `protocol`: `direct(head, scope, body, view, principal)`. It may keep
# what it makes of the head in `head.said`. May raise Refusal.
Direct: TypeAlias = Callable[[Head, Scope, bytes, View, Principal], Outcome]
ALL: Final = View("all")
CACHED_ROUTES: Final = 1024
FAULT: Final = Reply(500, b"Internal Server Error")

# What a page of an allowed origin may do (https://fetch.spec.whatwg.org, CORS protocol).
ALLOWED_METHODS: Final = b"GET, POST, DELETE"
ALLOWED_HEADERS: Final = (
    b"authorization, content-type, accept, mcp-session-id, mcp-protocol-version, last-event-id, mcp-method, mcp-name"
)
MIRRORED: Final = re.compile(rb"mcp-param-[!#$%&'*+\-.^_`|~0-9a-z]+")
EXPOSED_HEADERS: Final = b"mcp-session-id, www-authenticate, retry-after"


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether the daemon is of use, and why (not)."""

    ready: bool
    detail: Mapping[str, object] = field(default_factory=dict)


class FrontDoor:
    """The application. Raises nothing; a request that fails for a reason of ours is answered 500 and logged."""

    def __init__(
        self,
        context: Context,
        guard: Guard,
        handlers: Mapping[Endpoint, Handler],
        *,
        direct: Mapping[Endpoint, Direct] = MappingProxyType({}),
        endpoints: Callable[[], Iterable[View]] = lambda: (ALL,),
        readiness: Callable[[], Readiness] = lambda: Readiness(True),
        sources: Iterable[metrics.Source] = (),
    ) -> None:
        """`direct` are the handlers of POSTs that need no ASGI; `endpoints` lists what there is, for error messages;
        `sources` are metrics besides our own."""
        self._context = context
        context.ticker.callbacks.append(context.streams.tick)
        context.streams.good_until = guard.good_until
        self._guard = guard
        self.max_body = context.settings.max_body
        self._handlers = handlers
        self._direct = direct
        self._endpoints = endpoints
        self._readiness = readiness
        self._sources = (self._metrics, *sources)
        self._routes: dict[str, tuple[Endpoint, View]] = {}
        self._direct_routes: dict[bytes, tuple[Endpoint, View]] = {}
        self._cold = {"/healthz": self._healthz, "/readyz": self._readyz, "/metrics": self._metricz}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            headers = self._guard.headers(scope["headers"])
            if b"origin" in headers:
                send = _shared_with(headers[b"origin"], send)
                if scope["method"] == "OPTIONS":
                    raise Refusal(_preflight(headers))
            route = self._routes.get(scope["path"])
            if route is None and scope["path"].startswith(WELL_KNOWN):
                _only_get(scope)
                await self._metadata(scope, headers).send(send)
                return
            if route is None and (cold := self._cold.get(_inner(scope))) is not None:
                await cold(scope, headers).send(send)
                return
            principal = self._guard.principal(headers, scope.get("client"), scope["path"])
            endpoint, view = route or self._resolve(scope, principal)
            if principal.grants is not EVERYTHING:
                self._check_sight(view, principal)
            self._context.counters.requests[endpoint] += 1
            scope["mcpd.headers"] = headers
            await self._handlers[endpoint](scope, receive, send, view, principal)
        except Refusal as refused:
            await self._refuse(refused, send)
        except McpdError as error:
            await self._refuse(refusal_of(error), send)
        except Exception:
            self._context.counters.errors += 1
            raise

    # what `protocol.DirectApp` asks for

    def knows(self, path: bytes) -> bool:
        return path in self._direct_routes

    def serve(self, head: Head, scope: Scope, body: bytes) -> Outcome:
        try:
            headers = head.checked
            if headers is None:
                headers = self._guard.headers(head.fields)
                if b"origin" in headers:
                    return None
                head.checked = headers
            principal = self._guard.principal(headers, scope["client"], head.path)
            endpoint, view = self._direct_routes[head.path]
            if principal.grants is not EVERYTHING:
                self._check_sight(view, principal)
            scope["mcpd.headers"] = headers
            requests = self._context.counters.requests
            requests[endpoint] += 1
            outcome = self._direct[endpoint](head, scope, body, view, principal)
            if outcome is None:
                requests[endpoint] -= 1  # it comes again, through ASGI
            return outcome
        except Refusal as refused:
            return self._count(refused).reply
        except McpdError as error:
            return self._count(refusal_of(error)).reply
        except Exception:
            self._context.counters.errors += 1
            log.exception("a request failed")
            return FAULT

    def responder(self, exchange: Pending) -> App:
        async def respond(scope: Scope, receive: Receive, send: Send) -> None:
            try:
                await exchange.respond(receive, send)
            except Refusal as refused:
                await self._refuse(refused, send)

        return respond

    def _count(self, refused: Refusal) -> Refusal:
        self._context.counters.refused[refused.reply.status] += 1
        self._context.counters.reached(refused.limit)
        return refused

    async def _refuse(self, refused: Refusal, send: Send) -> None:
        await self._count(refused).reply.send(send)

    def _resolve(self, scope: Scope, principal: Principal) -> tuple[Endpoint, View]:
        """The endpoint of a path that is not in the cache, for a client that has shown its token."""
        route = _parse(_inner(scope))
        if route is None:
            raise self._no_such("there is no endpoint at this path", principal)
        if not self._context.relay.knows(route[1]):
            raise self._no_such(f"there is no {route[1].kind} named {route[1].name!r}", principal)
        if len(self._routes) >= CACHED_ROUTES:
            self._routes.clear()
            self._direct_routes.clear()
        self._routes[scope["path"]] = route
        if route[0] in self._direct:
            self._direct_routes[scope["raw_path"]] = route
        return route

    def _check_sight(self, view: View, principal: Principal) -> None:
        """A view of which a client may use nothing is not there for it."""
        if not self._context.relay.knows(view, principal.grants):
            raise self._no_such(f"there is no {view.kind} named {view.name!r}", principal)

    def _no_such(self, message: str, principal: Principal) -> Refusal:
        relay = self._context.relay
        there = [path_of(view) for view in self._endpoints() if relay.knows(view, principal.grants)]
        return refusal(404, f"{message}; see error.data for what there is", data={"endpoints": there})

    def _metadata(self, scope: Scope, headers: Headers) -> Reply:
        """Which authorization server makes the tokens for an endpoint, for whoever asks (RFC 9728, section 3)."""
        metadata = self._guard.metadata(headers, scope.get("client"), scope["path"].removeprefix(WELL_KNOWN))
        if metadata is None:
            raise refusal(404, "there is no authorization server here; tokens are made by `mcpctl token create`")
        return _json(200, metadata)

    def _healthz(self, scope: Scope, headers: Headers) -> Reply:
        self._known_or_local(scope, headers)
        return _json(200, {"status": "ok"})

    def _readyz(self, scope: Scope, headers: Headers) -> Reply:
        self._known_or_local(scope, headers)
        now = self._readiness()
        return _json(200 if now.ready else 503, {"ready": now.ready, **now.detail})

    def _metricz(self, scope: Scope, headers: Headers) -> Reply:
        principal = self._guard.principal(headers, scope.get("client"))
        if not principal.grants.unlimited:
            raise refusal(403, "the metrics tell of all servers; they are for tokens without limits")
        _only_get(scope)
        return Reply(200, metrics.render(self._sources), ((b"content-type", metrics.CONTENT_TYPE),))

    def _known_or_local(self, scope: Scope, headers: Headers) -> None:
        """Health is told without a token to whoever asks from this machine."""
        client = scope.get("client")
        if client is not None and not is_loopback(self._guard.address(headers, client)):
            self._guard.principal(headers, client)
        _only_get(scope)

    def _metrics(self) -> Iterable[metrics.Metric]:
        context = self._context
        yield from context.counters.metrics()
        yield metrics.single("mcpd_sessions", "Sessions open over HTTP", "gauge", context.quota.total())
        yield metrics.single("mcpd_http_streams", "Event streams open", "gauge", len(context.streams))
        yield metrics.single(
            "mcpd_http_slow_readers", "Clients cut off because they did not read", "counter", context.streams.cut_off
        )


def path_of(view: View) -> str:
    """The Streamable HTTP path of a view."""
    return "/mcp" if view.kind == "all" else f"/{view.kind}s/{view.name}/mcp"


def _inner(scope: Scope) -> str:
    """The path below where we are mounted, without a trailing slash."""
    path: str = scope["path"].removeprefix(scope.get("root_path", ""))
    return path.removesuffix("/")


def _parse(path: str) -> tuple[Endpoint, View] | None:
    match path.split("/"):
        case ["", ("mcp" | "sse" | "messages") as endpoint]:
            return endpoint, ALL
        case ["", ("servers" | "views") as kind, name, ("mcp" | "sse" | "messages") as endpoint]:
            return endpoint, View("server" if kind == "servers" else "view", name)
    return None


def _only_get(scope: Scope) -> None:
    if scope["method"] not in ("GET", "HEAD"):
        raise refusal(405, "only GET is answered here", headers=((b"allow", b"GET, HEAD"),))


def _json(status: int, value: Mapping[str, object]) -> Reply:
    return Reply(status, json.dumps(value).encode(), (JSON,))


def _preflight(headers: Headers) -> Reply:
    """The answer to a browser that asks what it may send; it carries no token, so none is asked for."""
    if b"access-control-request-method" not in headers:
        return Reply(405, b"", ((b"allow", ALLOWED_METHODS),))
    wanted = (name.strip().lower() for name in headers.get(b"access-control-request-headers", b"").split(b","))
    parameters = [name for name in wanted if MIRRORED.fullmatch(name)]  # a tool's schema names them
    return Reply(
        204,
        b"",
        (
            (b"access-control-allow-methods", ALLOWED_METHODS),
            (b"access-control-allow-headers", b", ".join((ALLOWED_HEADERS, *parameters))),
            (b"access-control-max-age", b"600"),
        ),
    )


def _shared_with(origin: bytes, send: Send) -> Send:
    """`send` for a page of an origin that the guard let in: the browser may show it the response."""
    extra: tuple[Header, ...] = (
        (b"access-control-allow-origin", origin),
        (b"access-control-expose-headers", EXPOSED_HEADERS),
        (b"vary", b"origin"),
    )

    async def send_shared(event: Event) -> None:
        if event["type"] == "http.response.start":
            event = {**event, "headers": [*event["headers"], *extra]}
        await send(event)

    return send_shared
