"""A session's streams without a network: what is kept, what waits, what is dropped."""

from __future__ import annotations

import pytest

from mcpd.errors import ClientFault
from mcpd.frontdoor.context import Context
from mcpd.frontdoor.event_stream import EventStream
from mcpd.frontdoor.http_session import BACKLOG_BYTES, BACKLOG_FRAMES, MAX_LISTENERS, HttpSession
from mcpd.frontdoor.ticker import Ticker
from mcpd.wire.address import View
from mcpd.wire.principal import Principal
from support.door import HandClock
from support.echo_relay import registry, relay_for

pytestmark = pytest.mark.anyio


class Bench:
    """One session on a relay, and connections for it."""

    def __init__(self, revision: str = "2025-06-18") -> None:
        made = registry("one")
        relay, _ = relay_for(made)
        self.clock = HandClock()
        self.context = Context(relay, made.frontdoor, Ticker(self.clock))
        self.ended: list[HttpSession] = []
        self.session = HttpSession(self.context, View("server", "one"), Principal("ada"), self.ended.append)
        relay_session = relay.open_session(View("server", "one"), "ada", "streamable-http", self.session)
        relay_session.protocol_version = revision
        self.session.bind(relay_session)

    def outlet(self) -> EventStream:
        return EventStream(self.context.streams, {})


async def events(outlet: EventStream) -> list[bytes]:
    """The ids and the data that were offered to a connection."""
    outlet.close()
    taken = b""
    while (part := await outlet._outbox.take()) is not None:
        taken += part
    return [line for line in taken.split(b"\r\n") if line.startswith((b"id", b"data"))]


async def test_numbers_go_up_through_the_whole_session() -> None:
    bench = Bench()
    call, push = bench.outlet(), bench.outlet()
    first = bench.session.open_call(call)
    bench.session.open_listener(push)
    first.send(b"1")
    bench.session.deliver(b"2", False)
    first.send(b"3")

    assert await events(call) == [b"id: c1-1", b"data: 1", b"id: c1-3", b"data: 3"]
    assert await events(push) == [b"id: p2-2", b"data: 2"]


async def test_what_waits_for_a_listener_is_bounded() -> None:
    bench = Bench()
    for number in range(BACKLOG_FRAMES + 10):
        bench.session.deliver(b"%d" % number, False)
    outlet = bench.outlet()
    bench.session.open_listener(outlet)
    waited = [line for line in await events(outlet) if line.startswith(b"data")]

    assert waited == [b"data: %d" % number for number in range(10, BACKLOG_FRAMES + 10)]


async def test_what_waits_for_a_listener_is_bounded_in_bytes() -> None:
    bench = Bench()
    big = b"x" * (BACKLOG_BYTES - 10)
    for frame in (b"lost", b"also lost", big, b"kept"):
        bench.session.deliver(frame, False)
    outlet = bench.outlet()
    bench.session.open_listener(outlet)

    assert (await events(outlet))[1::2] == [b"data: " + big, b"data: kept"]


async def test_a_listener_whose_client_is_gone_is_passed_over() -> None:
    bench = Bench()
    older, newer = bench.outlet(), bench.outlet()
    bench.session.open_listener(older)
    bench.session.open_listener(newer)
    newer.cut()
    bench.session.deliver(b"here", False)

    assert await events(older) == [b"id: p1-1", b"data: here"]


async def test_a_connection_that_was_replaced_does_not_end_its_stream() -> None:
    bench = Bench()
    old, new = bench.outlet(), bench.outlet()
    stream = bench.session.open_listener(old)
    stream.send(b"1")
    assert bench.session.resume(b"p1-0", new) is stream
    bench.session.disconnected(stream, old)
    assert bench.session.busy
    bench.session.disconnected(stream, new)

    assert not bench.session.busy
    assert not old.open
    assert await events(new) == [b"id: p1-1", b"data: 1"]


async def test_a_listener_is_resumed_after_its_connection_is_gone() -> None:
    bench = Bench()
    old, new = bench.outlet(), bench.outlet()
    stream = bench.session.open_listener(old)
    stream.send(b"seen")
    stream.send(b"lost")
    bench.session.disconnected(stream, old)
    bench.session.deliver(b"meanwhile", False)
    bench.session.resume(b"p1-1", new)

    assert await events(new) == [b"id: p1-2", b"data: lost", b"id: p1-3", b"data: meanwhile"]


async def test_listeners_are_bounded() -> None:
    bench = Bench()
    outlets = [bench.outlet() for _ in range(MAX_LISTENERS + 2)]
    for outlet in outlets:
        bench.session.open_listener(outlet)

    assert [outlet.open for outlet in outlets] == [False] * 2 + [True] * MAX_LISTENERS


@pytest.mark.parametrize("revision", ["2025-06-18", "2025-11-25"])
async def test_streams_are_primed_where_clients_understand_it(revision: str) -> None:
    bench = Bench(revision)
    outlet = bench.outlet()
    bench.session.open_call(outlet)

    assert await events(outlet) == ([b"id: c1-1", b"data: "] if revision == "2025-11-25" else [])


async def test_an_ended_stream_is_replayed_while_it_is_kept() -> None:
    bench = Bench()
    stream = bench.session.open_call(bench.outlet())
    stream.send(b"answer")
    bench.session.close_call(stream)
    again = bench.outlet()
    bench.session.resume(b"c1-0", again)
    assert not again.open
    assert await events(again) == [b"id: c1-1", b"data: answer"]

    bench.clock.ahead = 3600
    bench.context.ticker.beat()
    bench.session.expire(bench.context.ticker.now)
    with pytest.raises(ClientFault, match="not kept any more"):
        bench.session.resume(b"c1-0", bench.outlet())


async def test_the_end_closes_everything() -> None:
    bench = Bench()
    call, push = bench.outlet(), bench.outlet()
    bench.session.open_call(call)
    bench.session.open_listener(push)
    bench.session.over()
    bench.session.end()

    assert not call.open
    assert not push.open
    assert bench.ended == [bench.session]
