"""Paths, what needs a token and what does not, pages of other origins."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from mcpd.clock import SystemClock
from mcpd.errors import McpdError
from mcpd.frontdoor.app import CACHED_ROUTES, FrontDoor, Readiness
from mcpd.frontdoor.auth import ANYBODY, OpenAuthenticator
from mcpd.frontdoor.context import Context
from mcpd.frontdoor.guard import Guard
from mcpd.frontdoor.ticker import Ticker
from mcpd.wire.address import View
from mcpd.wire.principal import Principal
from support.door import OTHER_TOKEN, TOKEN, Client, call, initialize, open_door
from support.echo_relay import registry, relay_for

pytestmark = pytest.mark.anyio


class Plain:
    """The application without a network, with handlers that only say what they were called with."""

    def __init__(self, readiness: Readiness | None = None, root_path: str = "") -> None:
        made = registry("one", "two", views={"mine": ("one",)})
        relay, _ = relay_for(made)
        self.context = Context(relay, made.frontdoor, Ticker(SystemClock()))
        self.seen: list[tuple[str, View, str]] = []
        self.root_path = root_path
        self.raises: Exception | None = None
        self.app = FrontDoor(
            self.context,
            Guard(made.frontdoor, OpenAuthenticator()),
            {"mcp": self._handler("mcp"), "sse": self._handler("sse"), "messages": self._handler("messages")},
            endpoints=lambda: (View("all"), View("server", "one"), View("view", "mine")),
            readiness=lambda: readiness or Readiness(True),
        )

    def _handler(self, endpoint: str) -> Any:
        async def handle(scope: Any, receive: Any, send: Any, view: View, principal: Principal) -> None:
            self.seen.append((endpoint, view, principal))
            if self.raises is not None:
                raise self.raises
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})

        return handle

    async def get(self, path: str, method: str = "GET", **headers: str) -> httpx2.Response:
        transport = httpx2.ASGITransport(self.app, root_path=self.root_path)
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as http:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            return await http.request(method, path, headers=named)


@pytest.mark.parametrize(
    ("path", "endpoint", "view"),
    [
        ("/mcp", "mcp", View("all")),
        ("/mcp/", "mcp", View("all")),
        ("/sse", "sse", View("all")),
        ("/messages/", "messages", View("all")),
        ("/messages", "messages", View("all")),
        ("/servers/one/mcp", "mcp", View("server", "one")),
        ("/servers/two/sse", "sse", View("server", "two")),
        ("/servers/two/messages/", "messages", View("server", "two")),
        ("/views/mine/mcp", "mcp", View("view", "mine")),
    ],
)
async def test_paths_lead_to_endpoints_of_views(path: str, endpoint: str, view: View) -> None:
    plain = Plain()
    for _ in range(2):
        assert (await plain.get(path)).status_code == 200
    assert plain.seen == [(endpoint, view, ANYBODY)] * 2
    assert plain.context.counters.requests[endpoint] == 2


@pytest.mark.parametrize(
    "path",
    ["/", "/nothing", "/servers", "/servers/", "/servers/one", "/servers/none/mcp", "/servers/one/mcp/x", "/mcp//"],
)
async def test_other_paths_are_told_what_there_is(path: str) -> None:
    response = await Plain().get(path)

    assert response.status_code == 404
    assert response.json()["error"]["data"] == {"endpoints": ["/mcp", "/servers/one/mcp", "/views/mine/mcp"]}


@pytest.mark.parametrize(
    "path", ["/views/one/mcp", "/servers//mcp", "/MCP", "/servers/one/%2e%2e/mcp", "/servers/x/mcp"]
)
async def test_names_are_exact(path: str) -> None:
    assert (await Plain().get(path)).status_code == 404


async def test_below_a_mount_point_the_same_paths_hold() -> None:
    plain = Plain(root_path="/tools")
    for path in ("/tools/mcp", "/tools/servers/one/mcp/", "/tools/healthz"):
        assert (await plain.get(path)).status_code == 200


async def test_known_paths_are_remembered_within_bounds() -> None:
    plain = Plain()
    for number in range(CACHED_ROUTES + 10):
        await plain.get(f"/servers/none{number}/mcp")
    assert not plain.app._routes
    plain.app._routes = {str(n): ("mcp", View("all")) for n in range(CACHED_ROUTES)}
    await plain.get("/mcp")
    assert list(plain.app._routes) == ["/mcp"]


@pytest.mark.parametrize(("error", "status"), [(McpdError("x"), 500)])
async def test_errors_of_handlers_become_replies(error: McpdError, status: int) -> None:
    plain = Plain()
    plain.raises = error
    assert (await plain.get("/mcp")).status_code == status
    assert plain.context.counters.refused[status] == 1


async def test_a_fault_of_ours_is_counted_and_left_to_the_server() -> None:
    plain = Plain()
    plain.raises = RuntimeError("a bug")
    with pytest.raises(RuntimeError):
        await plain.get("/mcp")
    assert plain.context.counters.errors == 1


async def test_readiness_says_what_is_missing() -> None:
    response = await Plain(Readiness(False, {"waiting": ["one"]})).get("/readyz")

    assert response.status_code == 503
    assert response.json() == {"ready": False, "waiting": ["one"]}


async def test_health_is_told_without_a_token_on_this_machine() -> None:
    async with open_door() as door, httpx2.AsyncClient(base_url=door.url, trust_env=False) as http:
        assert (await http.get("/healthz")).json() == {"status": "ok"}
        assert (await http.get("/readyz/")).json() == {"ready": True}
        assert (await http.post("/healthz")).status_code == 405
        assert (await http.get("/metrics")).status_code == 401


async def test_health_needs_a_token_from_elsewhere() -> None:
    async with open_door() as door:
        app = door.app
        for token, status in ((None, 401), (TOKEN, 200)):
            transport = httpx2.ASGITransport(app, client=("192.0.2.1", 5))
            headers = {"authorization": f"Bearer {token}"} if token else {}
            async with httpx2.AsyncClient(transport=transport, base_url="http://localhost", headers=headers) as http:
                assert (await http.get("/healthz")).status_code == status


async def test_nothing_is_told_about_paths_without_a_token() -> None:
    async with open_door() as door, httpx2.AsyncClient(base_url=door.url, trust_env=False) as http:
        for path in ("/mcp", "/servers/one/mcp", "/servers/none/mcp", "/nothing", "/sse"):
            response = await http.post(path)

            assert response.status_code == 401
            assert response.headers["www-authenticate"] == 'Bearer realm="mcpd"'
            assert "endpoints" not in response.text


async def test_a_token_in_the_query_is_not_a_token() -> None:
    async with open_door() as door, httpx2.AsyncClient(base_url=door.url, trust_env=False) as http:
        for name in ("token", "access_token", "authorization"):
            assert (await http.post(f"/mcp?{name}={TOKEN}", json=initialize())).status_code == 401


async def test_metrics_count_what_happened() -> None:
    async with open_door() as door, Client(door) as client, Client(door, token=OTHER_TOKEN) as other:
        await client.initialize()
        await client.post(call(1, "echo"))
        await client.post(call(2, "echo"), content_type="text/plain")
        text = (await other.http.get("/metrics")).text

        assert 'mcpd_http_requests_total{endpoint="mcp"} 4.0' in text
        assert 'mcpd_http_refused_total{status="415"} 1.0' in text
        assert 'mcpd_sessions_opened_total{transport="streamable-http"} 1.0' in text
        assert "mcpd_sessions 1.0" in text
        assert "mcpd_http_streams 0.0" in text


async def test_a_page_of_an_allowed_origin_may_ask_first() -> None:
    async with open_door() as door, httpx2.AsyncClient(base_url=door.url, trust_env=False) as http:
        origin = "http://localhost:6274"
        asks = {"origin": origin, "access-control-request-method": "POST"}
        response = await http.options("/mcp", headers=asks)

        assert response.status_code == 204
        assert response.headers["access-control-allow-origin"] == origin
        assert "mcp-session-id" in response.headers["access-control-allow-headers"]
        assert (await http.options("/mcp", headers={"origin": origin})).status_code == 405
        named = {"access-control-request-headers": "content-type, Mcp-Param-Region,mcp-param-x y, x-evil"}
        mirrored = (await http.options("/mcp", headers={**asks, **named})).headers["access-control-allow-headers"]
        assert mirrored.endswith("mcp-name, mcp-param-region")
        evil = await http.options("/mcp", headers={**asks, "origin": "https://evil.example"})
        assert evil.status_code == 403
        assert "access-control-allow-origin" not in evil.headers


async def test_a_page_of_an_allowed_origin_may_read_the_answer() -> None:
    async with open_door() as door, Client(door) as client:
        client.http.headers["origin"] = "http://127.0.0.1:6274"
        await client.initialize()
        response = await client.post(call(1, "echo"))

        assert response.headers["access-control-allow-origin"] == "http://127.0.0.1:6274"
        assert "mcp-session-id" in response.headers["access-control-expose-headers"]
        assert response.headers["vary"] == "origin"
        refused = await client.post(call(1, "echo"), authorization="Bearer wrong")
        assert refused.headers["access-control-allow-origin"] == "http://127.0.0.1:6274"
