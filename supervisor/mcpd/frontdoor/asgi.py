"""Plain ASGI in the few forms that the front door uses: headers, bodies, replies, refusals."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from math import ceil
from typing import Any, Final, TypeAlias

import msgspec

from mcpd.errors import (
    CallTimeout,
    ClientFault,
    ConfigError,
    McpdError,
    NotFound,
    Overloaded,
    ServerFault,
    SpawnError,
    TooMany,
)
from mcpd.frontdoor.relay import View
from mcpd.wire import jsonrpc, methods
from mcpd.wire.principal import Principal

Scope: TypeAlias = dict[str, Any]
Event: TypeAlias = dict[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Event]]
Send: TypeAlias = Callable[[Event], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
Header: TypeAlias = tuple[bytes, bytes]
Headers: TypeAlias = Mapping[bytes, bytes]  # lower-case names, as ASGI has them
Handler: TypeAlias = Callable[[Scope, Receive, Send, View, Principal], Awaitable[None]]

JSON: Final[Header] = (b"content-type", b"application/json")
# Nothing between us and the client may hold events back, transform or keep them.
EVENT_STREAM: Final[tuple[Header, ...]] = (
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
)
CLOSE: Final[Header] = (b"connection", b"close")

BODY_TIMEOUT: Final = 30.0
DRAIN_LIMIT: Final = 4 * 2**20


class Reply(msgspec.Struct, frozen=True):
    """A whole response."""

    status: int
    body: bytes = b""
    headers: tuple[Header, ...] = ()

    async def send(self, send: Send) -> None:
        """Write it; `content-length` is added, for no-content statuses left out (RFC 9110, section 8.6)."""
        headers = list(self.headers)
        if self.status not in (204, 304):
            headers.append((b"content-length", b"%d" % len(self.body)))
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})


class Refusal(Exception):
    """Raised by a handler before its response began; the app sends `reply`."""

    def __init__(self, reply: Reply, limit: str = "") -> None:
        """`limit`: which bound was reached, for the metrics."""
        super().__init__(reply.status)
        self.reply = reply
        self.limit = limit


def refusal(
    status: int,
    message: str,
    *,
    code: int = methods.INVALID_REQUEST,
    id: bytes = b"null",
    headers: Iterable[Header] = (),
    data: Any = None,
    limit: str = "",
) -> Refusal:
    """A refusal whose body is a JSON-RPC error: clients of both transports show its message."""
    return Refusal(Reply(status, jsonrpc.error(id, code, message, data), (JSON, *headers)), limit)


# What each error of the tree means over HTTP: status, JSON-RPC code.
STATUSES: Final[Mapping[type[McpdError], tuple[int, int]]] = {
    NotFound: (404, methods.INVALID_REQUEST),
    ClientFault: (400, methods.INVALID_REQUEST),
    TooMany: (429, methods.SERVER_UNAVAILABLE),
    Overloaded: (503, methods.SERVER_UNAVAILABLE),
    CallTimeout: (504, methods.REQUEST_TIMEOUT),
    ServerFault: (502, methods.SERVER_UNAVAILABLE),
    SpawnError: (502, methods.SERVER_UNAVAILABLE),
    ConfigError: (500, methods.INTERNAL_ERROR),
    McpdError: (500, methods.INTERNAL_ERROR),
}


def refusal_of(error: McpdError, id: bytes = b"null") -> Refusal:
    """What a client gets for an error of ours; `Retry-After` where trying again helps (RFC 9110, section 10.2.3)."""
    status, code = next(STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES)
    headers: tuple[Header, ...] = ()
    if isinstance(error, Overloaded):
        headers = ((b"retry-after", b"%d" % max(1, ceil(error.retry_after))),)
        return refusal(status, str(error), code=code, id=id, headers=headers, limit=error.limit)
    return refusal(status, str(error), code=code, id=id, headers=headers)


def malformed(error: jsonrpc.WireError) -> Refusal:
    """What a client gets for a body that is no acceptable message."""
    return Refusal(Reply(400, error.answer(), (JSON,)), error.limit)


async def read_body(receive: Receive, headers: Headers, limit: int) -> bytes:
    """The request's body.

    Raises Refusal: 413 past `limit` bytes, declared or not; 400 if the client left in the middle; 408 if the rest of
    the body does not come within BODY_TIMEOUT. A body sent in one piece costs one `receive`.
    """
    declared = headers.get(b"content-length")
    # digits are what the HTTP parser lets pass; their number bounds the conversion
    if declared is not None and (len(declared) > 18 or int(declared) > limit):
        raise too_large(limit)
    event = await receive()
    body: bytes = event.get("body", b"")
    if len(body) > limit:
        raise too_large(limit, CLOSE)
    if event.get("more_body"):
        body = await _read_rest(receive, body, limit)
    elif event["type"] != "http.request":
        raise refusal(400, "the connection was closed before the body was complete")
    return body


async def _read_rest(receive: Receive, first: bytes, limit: int) -> bytes:
    parts = [first]
    held = len(first)
    try:
        async with asyncio.timeout(BODY_TIMEOUT):
            while True:
                event = await receive()
                if event["type"] != "http.request":
                    raise refusal(400, "the connection was closed before the body was complete")
                part: bytes = event.get("body", b"")
                held += len(part)
                if held <= limit:
                    parts.append(part)
                elif held > limit + DRAIN_LIMIT or not event.get("more_body"):
                    # what was read past the limit lets a client that only then looks for an answer find it
                    raise too_large(limit, CLOSE)
                else:
                    parts.clear()
                if not event.get("more_body"):
                    return b"".join(parts)
    except TimeoutError:
        message = f"the body was not complete within {BODY_TIMEOUT:.0f} s"
        raise refusal(408, message, headers=(CLOSE,), limit="slow-request") from None


def too_large(limit: int, *headers: Header) -> Refusal:
    """What tells a client that its body is too long (RFC 9110, section 15.5.14)."""
    return refusal(413, f"the body is larger than {limit} bytes; see frontdoor.max_body", headers=headers, limit="body")
