"""A whole front door in this process: real HTTP on a free loopback port, the real relay, children from `echo_relay`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2

from mcpd.clock import SystemClock
from mcpd.fleet.relay import Relay
from mcpd.frontdoor.app import FrontDoor
from mcpd.frontdoor.auth import BearerAuthenticator
from mcpd.frontdoor.context import Context
from mcpd.frontdoor.guard import Guard
from mcpd.frontdoor.legacy_sse import LegacySse
from mcpd.frontdoor.listener import Listener
from mcpd.frontdoor.protocol import Bounds
from mcpd.frontdoor.sockets import bind_tcp, url_of
from mcpd.frontdoor.streamable_http import StreamableHttp
from mcpd.frontdoor.ticker import Ticker
from mcpd.store.tokens import TokenVerifier
from mcpd.wire.address import View
from mcpd.wire.principal import EVERYTHING, Grants, Principal
from support.echo_relay import EchoChild, registry, relay_for

TOKEN = "t" * 43
OTHER_TOKEN = "o" * 43
DIRECT = True  # whether plain POSTs are answered below ASGI
BOTH = "application/json, text/event-stream"


class HandClock(SystemClock):
    """A clock that a test can put forward."""

    ahead = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead


class Door:
    """What a test needs of it."""

    clock: HandClock
    app: FrontDoor
    url: str
    port: int

    def __init__(self, context: Context, listener: Listener, relay: Relay, children: dict[str, EchoChild]) -> None:
        self.context = context
        self.listener = listener
        self.relay = relay
        self.children = children
        self.child = next(iter(children.values()))

    def pass_time(self, seconds: float) -> None:
        """Let this much time pass at once, as far as the front door knows."""
        self.clock.ahead += seconds
        self.context.ticker.beat()


@asynccontextmanager
async def open_door(
    *servers: str,
    views: dict[str, tuple[str, ...]] | None = None,
    grants: Mapping[str, Grants] | None = None,
    tls: tuple[Path, Path] | None = None,
    **settings: Any,
) -> AsyncIterator[Door]:
    """Serve `servers` ("one" if none is named) until the block ends. `grants`: what further tokens may use, by token,
    which is the name of its owner too. `tls`: certificate and key."""
    made = registry(*(servers or ("one",)), views=views, **settings)
    relay, children = relay_for(made)
    clock = HandClock()
    context = Context(relay, made.frontdoor, Ticker(clock))
    streamable, legacy = StreamableHttp(context), LegacySse(context)
    limited = grants or {}
    owners = {"default": TOKEN, "other": OTHER_TOKEN, **{token: token for token in limited}}
    verifier = TokenVerifier({name: token.encode() for name, token in owners.items()})
    principals = {name: Principal(name, limited.get(name, EVERYTHING)) for name in owners}
    app = FrontDoor(
        context,
        Guard(made.frontdoor, BearerAuthenticator(verifier, principals.__getitem__), clock.monotonic),
        {"mcp": streamable.handle, "sse": legacy.stream, "messages": legacy.message},
        direct={"mcp": streamable.direct, "messages": legacy.direct} if DIRECT else {},
        endpoints=lambda: [View("all"), *(View("server", name) for name in made.servers)],
    )

    sockets = bind_tcp("127.0.0.1", 0)
    bounds = Bounds(
        head=made.frontdoor.max_header,
        request_timeout=made.frontdoor.request_timeout,
        connections=made.frontdoor.max_connections,
        limited=context.counters.limited,
    )
    listener = Listener(app, sockets, direct=app, tls=tls, on_stop=relay.end_sessions, grace=2.0, bounds=bounds)
    door = Door(context, listener, relay, children)
    door.url, door.port = url_of(sockets[0], tls=tls is not None), sockets[0].getsockname()[1]
    door.clock, door.app = clock, app
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(listener.serve(), name="listener")
            context.ticker.start()
            yield door
            listener.stop()
    finally:
        context.ticker.stop()
        for listening in sockets:
            listening.close()


def call(id: Any, tool: str, progress: Any = None, **arguments: Any) -> dict[str, Any]:
    """A request of `tools/call`."""
    params: dict[str, Any] = {"name": tool, "arguments": arguments}
    if progress is not None:
        params["_meta"] = {"progressToken": progress}
    return {"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params}


def initialize(version: str = "2025-11-25", **capabilities: Any) -> dict[str, Any]:
    """A request of `initialize`."""
    client = {"name": "test", "version": "1"}
    params = {"protocolVersion": version, "capabilities": capabilities, "clientInfo": client}
    return {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}


class Client:
    """One session over Streamable HTTP, by hand."""

    def __init__(self, door: Door, path: str = "/servers/one/mcp", token: str = TOKEN) -> None:
        self.headers = {"authorization": f"Bearer {token}", "accept": BOTH, "content-type": "application/json"}
        self.http = httpx2.AsyncClient(base_url=door.url, timeout=10, headers=self.headers, trust_env=False)
        self.path = path
        self.version = ""

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.http.aclose()

    async def initialize(self, version: str = "2025-11-25", **capabilities: Any) -> dict[str, Any]:
        response = await self.post(initialize(version, **capabilities))
        assert response.status_code == 200, response.text
        result: dict[str, Any] = response.json()["result"]
        self.http.headers["mcp-session-id"] = response.headers["mcp-session-id"]
        self.version = result["protocolVersion"]
        if self.version >= "2025-06-18":
            self.http.headers["mcp-protocol-version"] = self.version
        accepted = await self.post({"jsonrpc": "2.0", "method": "notifications/initialized"})
        assert (accepted.status_code, accepted.content) == (202, b"")
        return result

    async def post(self, message: Any, **headers: str) -> httpx2.Response:
        content = message if isinstance(message, bytes) else json.dumps(message).encode()
        return await self.http.post(self.path, content=content, headers=_named(headers))

    def stream(self, message: Any) -> Any:
        """A POST whose answer is read as it comes."""
        return self.http.stream("POST", self.path, content=json.dumps(message).encode())

    def listen(self, last_event_id: str | None = None) -> Any:
        """The stream of a GET."""
        headers = {"accept": "text/event-stream"}
        if last_event_id is not None:
            headers["last-event-id"] = last_event_id
        return self.http.stream("GET", self.path, headers=headers)

    async def delete(self) -> httpx2.Response:
        return await self.http.delete(self.path)


def _named(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


class Events:
    """Server-sent events of a response, one at a time: dictionaries of their fields; comments under ""."""

    def __init__(self, response: httpx2.Response) -> None:
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/event-stream"
        self._lines = response.aiter_lines()
        self.last_id = ""

    async def next(self) -> dict[str, str]:
        """The next event or comment. Raises StopAsyncIteration at the end of the stream."""
        event: dict[str, str] = {}
        async with asyncio.timeout(10):
            while line := await anext(self._lines):
                name, _, value = line.partition(":")
                event[name] = value.removeprefix(" ")
        self.last_id = event.get("id", self.last_id)
        return event

    async def message(self) -> dict[str, Any]:
        """The next event that has a message."""
        while not (event := await self.next()).get("data"):
            pass
        found: dict[str, Any] = json.loads(event["data"])
        return found

    async def ended(self) -> bool:
        """Whether nothing but comments comes before the end."""
        try:
            while True:
                if (await self.next()).get("data"):
                    return False
        except StopAsyncIteration:
            return True
