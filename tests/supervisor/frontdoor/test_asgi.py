"""Bodies, replies, and what errors mean over HTTP."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from mcpd import errors
from mcpd.frontdoor import asgi
from mcpd.frontdoor.asgi import Refusal, Reply, read_body, refusal_of

pytestmark = pytest.mark.anyio


class Wire:
    """The two callables of ASGI: what the client sends, and what it got."""

    def __init__(self, *parts: bytes, leaves: bool = False, stuck: bool = False) -> None:
        self.events: list[dict[str, Any]] = [
            {"type": "http.request", "body": part, "more_body": leaves or stuck or at < len(parts)}
            for at, part in enumerate(parts, 1)
        ]
        self.stuck = stuck
        self.sent: list[dict[str, Any]] = []

    async def receive(self) -> dict[str, Any]:
        if not self.events and self.stuck:
            await asyncio.Event().wait()
        return self.events.pop(0) if self.events else {"type": "http.disconnect"}

    async def send(self, event: dict[str, Any]) -> None:
        self.sent.append(event)


async def refused(wire: Wire, limit: int = 10, **headers: bytes) -> Reply:
    with pytest.raises(Refusal) as caught:
        await read_body(wire.receive, {key.replace("_", "-").encode(): value for key, value in headers.items()}, limit)
    return caught.value.reply


@pytest.mark.parametrize("parts", [(b"0123456789",), (b"01234", b"56789"), (b"", b"0123456789", b""), (b"",)])
async def test_a_body_comes_whole(parts: tuple[bytes, ...]) -> None:
    assert await read_body(Wire(*parts).receive, {}, 10) == b"".join(parts)


async def test_a_declared_length_over_the_limit_is_refused_unread() -> None:
    wire = Wire(b"0123456789a")

    assert (await refused(wire, content_length=b"11")).status == 413
    assert len(wire.events) == 1


async def test_an_absurd_length_is_refused() -> None:
    assert (await refused(Wire(), content_length=b"9" * 5000)).status == 413


@pytest.mark.parametrize("parts", [(b"0123456789a",), (b"012345", b"6789a"), (b"x" * 6,) * 4])
async def test_a_streamed_body_over_the_limit_is_refused(parts: tuple[bytes, ...]) -> None:
    reply = await refused(Wire(*parts))

    assert reply.status == 413
    assert asgi.CLOSE in reply.headers


async def test_an_endless_body_is_not_read_for_ever() -> None:
    piece = b"x" * 2**20
    wire = Wire(*[piece] * 100)

    assert (await refused(wire)).status == 413
    assert len(wire.events) > 90


@pytest.mark.parametrize("parts", [(), (b"01",), (b"01", b"23")])
async def test_a_client_that_leaves_in_the_middle(parts: tuple[bytes, ...]) -> None:
    assert (await refused(Wire(*parts, leaves=True))).status == 400


async def test_a_body_that_does_not_come_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asgi, "BODY_TIMEOUT", 0.01)
    reply = await refused(Wire(b"01", b"23", stuck=True))

    assert reply.status == 408


async def test_replies_have_a_length() -> None:
    wire = Wire()
    await Reply(200, b"abc", (asgi.JSON,)).send(wire.send)
    start, body = wire.sent

    assert start["headers"] == [asgi.JSON, (b"content-length", b"3")]
    assert body["body"] == b"abc"


async def test_replies_without_content_have_none() -> None:
    wire = Wire()
    await Reply(204).send(wire.send)

    assert wire.sent[0]["headers"] == []


def test_every_error_of_the_tree_has_a_status() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.McpdError)]
    assert set(kinds) == set(asgi.STATUSES)


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (errors.NotFound("x"), 404, -32600),
        (errors.ClientFault("x"), 400, -32600),
        (errors.Overloaded("x", 2.4), 503, -32000),
        (errors.TooMany("x", 2.4), 429, -32000),
        (errors.ServerFault("x"), 502, -32000),
        (errors.CallTimeout("x"), 504, -32001),
        (errors.ConfigError(), 500, -32603),
    ],
)
def test_errors_are_told_as_json_rpc(error: errors.McpdError, status: int, code: int) -> None:
    reply = refusal_of(error, b"7").reply

    assert reply.status == status
    assert json.loads(reply.body)["error"]["code"] == code
    assert json.loads(reply.body)["id"] == 7
    assert ((b"retry-after", b"3") in reply.headers) == (status in (429, 503))
