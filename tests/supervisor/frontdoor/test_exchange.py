"""The answer to one POST without a network: which form it takes, and that there is exactly one."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from mcpd.clock import SystemClock
from mcpd.frontdoor.asgi import Refusal
from mcpd.frontdoor.context import Context
from mcpd.frontdoor.event_stream import EventStream
from mcpd.frontdoor.exchange import BatchExchange, BatchPart, Exchange, Phase
from mcpd.frontdoor.http_session import HttpSession
from mcpd.frontdoor.ticker import Ticker
from mcpd.wire.address import View
from mcpd.wire.principal import Principal
from support.echo_relay import registry, relay_for

pytestmark = pytest.mark.anyio

NOTICE = b'{"jsonrpc":"2.0","method":"notifications/progress"}'
ASK = b'{"jsonrpc":"2.0","id":7,"method":"roots/list"}'


def new_session() -> HttpSession:
    made = registry("one")
    relay, _ = relay_for(made)
    context = Context(relay, made.frontdoor, Ticker(SystemClock()))
    session = HttpSession(context, View("all"), Principal("ada"), lambda _: None)
    session.bind(relay.open_session(View("all"), "ada", "streamable-http", session))
    return session


class Wire:
    """ASGI by hand, for a client that stays."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []

    async def receive(self) -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(self, event: dict[str, Any]) -> None:
        self.sent.append(event)

    @property
    def body(self) -> bytes:
        return b"".join(event.get("body", b"") for event in self.sent)


async def respond(exchange: Exchange) -> Wire:
    wire = Wire()
    async with asyncio.timeout(5):
        await exchange.respond(wire.receive, wire.send)
    return wire


async def test_an_answer_alone_is_json() -> None:
    session = new_session()
    exchange = Exchange(session, b"1", {})
    assert session.busy
    exchange.deliver(b'{"answer":1}', True)

    assert (await respond(exchange)).body == b'{"answer":1}'
    assert exchange.phase is Phase.ANSWERED
    assert not session.busy


async def test_whoever_waits_is_woken_once() -> None:
    exchange = Exchange(new_session(), b"1", {})
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(respond(exchange))
        await asyncio.sleep(0)
        exchange.deliver(b"{}", True)
    assert waiting.result().body == b"{}"


async def test_whoever_asked_to_be_told_is_told() -> None:
    told: list[Phase] = []
    exchange = Exchange(new_session(), b"1", {})
    exchange.on_change = lambda changed: told.append(changed.phase)
    exchange.deliver(NOTICE, False)
    exchange.deliver(NOTICE, False)
    exchange.deliver(b"{}", True)
    assert told == [Phase.STREAMING]


async def test_anything_before_the_answer_makes_it_a_stream() -> None:
    session = new_session()
    exchange = Exchange(session, b"1", {})
    exchange.deliver(NOTICE, False)
    exchange.deliver(b'{"answer":1}', True)
    wire = await respond(exchange)

    assert dict(wire.sent[0]["headers"])[b"content-type"] == b"text/event-stream"
    assert wire.body.count(b"data: ") == 2
    assert not session.busy


async def test_a_question_goes_where_somebody_reads() -> None:
    session = new_session()
    listening = EventStream(session.context.streams, {})
    session.open_listener(listening)
    exchange = Exchange(session, b"1", {})
    exchange.deliver(NOTICE, False)
    assert exchange.stream is not None
    assert exchange.stream.outlet is not None
    exchange.stream.outlet.cut()
    exchange.deliver(ASK, False)
    exchange.deliver(NOTICE, False)
    listening.close()

    asked = await listening._outbox.take()
    assert asked is not None
    assert ASK in asked
    assert NOTICE not in asked


async def test_a_cancelled_request_has_an_answer_too() -> None:
    exchange = Exchange(new_session(), b'"x"', {})
    exchange.end()
    answer = json.loads((await respond(exchange)).body)

    assert (answer["id"], answer["error"]["code"]) == ("x", -32800)


async def test_without_its_session_there_is_none() -> None:
    exchange = Exchange(new_session(), b"1", {})
    exchange.abandon()
    exchange.deliver(b"{}", True)
    with pytest.raises(Refusal) as caught:
        await respond(exchange)
    assert caught.value.reply.status == 404


async def test_a_stream_ends_with_its_session() -> None:
    exchange = Exchange(new_session(), b"1", {})
    exchange.deliver(NOTICE, False)
    exchange.abandon()
    assert b"result" not in (await respond(exchange)).body


async def test_a_batch_is_complete_when_its_last_request_is() -> None:
    batch = BatchExchange(new_session(), {}, 2, [b'{"refused":0}'])
    first, second = BatchPart(batch, b"1"), BatchPart(batch, b"2")
    first.deliver(b'{"id":1}', True)
    assert batch.phase is Phase.WAITING
    second.end()
    answers = json.loads((await respond(batch)).body)

    assert [answer.get("id") for answer in answers] == [None, 1, 2]


async def test_a_batch_of_which_everything_was_refused() -> None:
    batch = BatchExchange(new_session(), {}, 0, [b"{}"])
    assert (await respond(batch)).body == b"[{}]"


async def test_a_batch_whose_session_ended() -> None:
    batch = BatchExchange(new_session(), {}, 1, [])
    batch.abandon()
    BatchPart(batch, b"1").deliver(b"{}", True)
    assert batch.phase is Phase.OVER
