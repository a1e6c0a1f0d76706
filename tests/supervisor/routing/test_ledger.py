"""What is counted for each principal, and what the journal says of calls."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpd.errors import Overloaded, TooMany
from mcpd.routing.ledger import Bucket, Entry, named, outcome_of
from mcpd.routing.sessions import Session
from mcpd.routing.state import MAX_ACCOUNTS, MAX_JOURNAL
from mcpd.wire import methods
from mcpd.wire.address import View
from support.routing import Bench, info, registry, spec

ALL, ONE = View("all"), View("server", "one")


@pytest.fixture
def bench() -> Bench:
    return ready()


def ready(**frontdoor: Any) -> Bench:
    bench = Bench(spec("one"), spec("two"), **frontdoor)
    for name in ("one", "two"):
        bench.up(name, info("read", prompts=("ask",), resources=(f"file:///{name}",)))
    bench.router.state.journal = []
    return bench


def journal(bench: Bench) -> list[Entry]:
    assert bench.router.state.journal is not None
    return [Entry._make(note) for note in bench.router.state.journal]


def ended(bench: Bench) -> list[tuple[str, str, str, str]]:
    return [(one.server, one.method, one.name, one.outcome) for one in journal(bench)]


def call(bench: Bench, session: Session, name: str, id: Any = 1, **more: Any) -> str:
    return bench.ask(session, id, "tools/call", {"name": name, **more})


# what is under way


def test_calls_are_counted_over_all_sessions_of_a_principal(bench: Bench) -> None:
    first, second = bench.open(ALL), bench.open(ONE)
    assert first.account is second.account
    call(bench, first, "one__read")
    call(bench, second, "read")
    assert first.account.in_flight == 2
    bench.answer("one", {"content": []}, 0)
    bench.answer("one", {"content": []}, 1)
    assert first.account.in_flight == 0


def test_a_principal_at_its_bound_is_refused_and_others_are_not() -> None:
    bench = ready(max_in_flight=2)
    first, second = bench.open(ALL), bench.open(ALL)
    call(bench, first, "one__read", 1)
    call(bench, second, "one__read", 1)
    with pytest.raises(TooMany, match="me has 2 calls in flight"):
        call(bench, first, "one__read", 2)
    other = bench.router.open_session("o", ALL, "somebody else", "stdio", "o.push", bench.now)
    bench.ask(other, 1, "initialize", {"protocolVersion": "2025-11-25", "capabilities": {}})
    call(bench, other, "one__read", 2)
    bench.answer("one", {"content": []}, 0)
    call(bench, first, "one__read", 2)
    assert bench.router.state.counters.limited == {"in-flight": 1}
    assert ended(bench)[0] == ("", "tools/call", "one__read", "overloaded")


@pytest.mark.parametrize("how", ["answered", "refused", "cancelled", "closed", "died", "timed out", "unwritten"])
def test_whatever_ends_a_call_it_is_counted_no_more(bench: Bench, how: str) -> None:
    session = bench.open(ONE)
    call(bench, session, "read")
    number = bench.written["one"][-1]["id"]
    match how:
        case "answered":
            bench.answer("one", {})
        case "refused":
            bench.say("one", {"id": number, "error": {"code": 1, "message": "no"}})
        case "cancelled":
            bench.tell(session, {"method": "notifications/cancelled", "params": {"requestId": 1}})
        case "closed":
            bench.run(bench.router.close_session(session, bench.now))
        case "died":
            bench.run(bench.router.presence.detach("one", "exit code 1"))
        case "timed out":
            bench.now += 301
            bench.run(bench.router.tick(bench.now))
        case "unwritten":
            assert bench.router.unwritten("one", number)
    assert session.account.in_flight == 0
    outcomes = ("ok", "error", "cancelled", "client-left", "unavailable", "timeout", "overloaded")
    kinds = ("answered", "refused", "cancelled", "closed", "died", "timed out", "unwritten")
    assert ended(bench) == [("one", "tools/call", "read", dict(zip(kinds, outcomes, strict=True))[how])]


def test_requests_come_no_faster_than_they_may_to_each_server() -> None:
    bench = ready(request_rate=2, request_burst=3)
    session = bench.open(ALL)
    for id in range(3):
        call(bench, session, "one__read", id)
    with pytest.raises(TooMany, match="2 requests a second to server 'one'") as refused:
        call(bench, session, "one__read", 3)
    assert refused.value.retry_after == pytest.approx(0.5)
    call(bench, session, "two__read", 4)
    bench.now += 0.5
    call(bench, session, "one__read", 5)
    assert session.account.in_flight == 5
    assert bench.router.state.counters.limited == {"rate": 1}


def test_a_server_takes_so_many_of_all_clients_together() -> None:
    bench = Bench(spec("one", request_rate=2, request_burst=2), spec("two"))
    for name in ("one", "two"):
        bench.up(name, info("read"))
    bench.router.state.journal = []
    mine = bench.open(ALL)
    other = bench.router.open_session("o", ALL, "somebody else", "stdio", "o.push", bench.now)
    bench.ask(other, 0, "initialize", {"protocolVersion": "2025-11-25", "capabilities": {}})
    call(bench, mine, "one__read", 1)
    call(bench, other, "one__read", 1)
    with pytest.raises(Overloaded, match="'one' takes 2 requests a second, of all clients together") as refused:
        call(bench, mine, "one__read", 2)
    assert refused.value.retry_after == pytest.approx(0.5)
    assert not isinstance(refused.value, TooMany)
    call(bench, mine, "two__read", 3)
    bench.now += 0.5
    call(bench, other, "one__read", 4)
    assert bench.router.state.counters.limited == {"server-rate": 1}
    assert ended(bench) == [("one", "tools/call", "read", "overloaded")]
    bench.run(bench.router.configure(registry(spec("one"), spec("two"))))
    for id in range(10, 20):
        call(bench, mine, "one__read", id)


def test_of_two_buckets_nothing_is_taken_if_one_is_empty() -> None:
    bench = Bench(spec("one", request_rate=1, request_burst=1), request_rate=10, request_burst=2)
    bench.up("one", info("read"))
    session = bench.open(ALL)
    call(bench, session, "one__read", 1)
    for id in (2, 3, 4):
        with pytest.raises(Overloaded, match="of all clients together"):
            call(bench, session, "one__read", id)
    bench.now += 1
    call(bench, session, "one__read", 5)


def test_the_connections_of_a_local_user_have_one_account(bench: Bench) -> None:
    state = bench.router.state
    assert state.account("local:5#1") is state.account("local:5#2") is state.account("local:5")
    assert state.account("local:5") is not state.account("local:6")
    assert state.account("jwt:a#1") is not state.account("jwt:a#2")


def test_lists_cost_nothing() -> None:
    bench = ready(request_rate=1, request_burst=1)
    session = bench.open(ALL)
    for id in range(5):
        assert "result" in bench.one(bench.ask(session, id, "tools/list"))


@given(st.lists(st.floats(0, 3), max_size=60), st.floats(0.1, 50), st.integers(1, 10))
def test_a_bucket_gives_no_more_than_its_rate_and_burst(gaps: list[float], rate: float, burst: int) -> None:
    bucket, at = Bucket(), 0.0
    for taken, gap in enumerate(gaps, 1):
        at += gap
        wait = bucket.wait(at, 1 / rate, burst)
        at += wait
        assert bucket.wait(at, 1 / rate, burst) == 0
        bucket.take(at, 1 / rate)
        assert taken <= burst + at * rate + 1e-6


def test_idle_principals_are_forgotten_when_there_are_many(bench: Bench) -> None:
    kept = bench.open(ALL)
    for number in range(MAX_ACCOUNTS + 1):
        bench.router.state.account(f"p{number}")
    assert len(bench.router.state.accounts) < 10
    assert bench.router.state.account("me") is kept.account


# the journal


def test_of_each_call_it_says_who_what_and_how_it_ended(bench: Bench) -> None:
    session = bench.open(ALL)
    began = bench.now
    sink = call(bench, session, "two__read")
    bench.now += 2.5
    bench.answer("two", {"content": [], "isError": True})

    [entry] = journal(bench)
    assert entry == Entry(
        began, began + 2.5, "me", session.id, "stdio", ALL, "two", "tools/call", "read", "tool-error", 0, b""
    )
    assert bench.one(sink)["result"]["isError"]


def test_names_are_the_servers_own(bench: Bench) -> None:
    session = bench.open(ALL)
    bench.ask(session, 1, "prompts/get", {"name": "one__ask"})
    bench.ask(session, 2, "resources/read", {"uri": "file:///two"})
    bench.answer("one", {})
    bench.answer("two", {})
    assert ended(bench) == [("one", "prompts/get", "ask", "ok"), ("two", "resources/read", "file:///two", "ok")]


def test_what_is_not_let_through_is_told_too(bench: Bench) -> None:
    bench.run(bench.router.configure(registry(spec("one", tools={"allow": ["read"]}), spec("two"))))
    session = bench.open(ALL)
    call(bench, session, "one__write", 1)
    call(bench, session, "three__read", 2)
    assert ended(bench) == [("", "tools/call", "one__write", "refused"), ("", "tools/call", "three__read", "refused")]
    assert [one.code for one in journal(bench)] == [methods.INVALID_PARAMS] * 2


def test_other_requests_are_not_told(bench: Bench) -> None:
    session = bench.open(ALL)
    for id, method in enumerate(("tools/list", "ping", "prompts/list", "no/such")):
        bench.ask(session, id, method)
    assert journal(bench) == []


def test_nobody_wants_to_know(bench: Bench) -> None:
    bench.router.state.journal = None
    session = bench.open(ONE)
    call(bench, session, "read")
    bench.answer("one", {})
    assert bench.router.state.journal is None


def test_arguments_are_kept_only_where_they_are_wanted(bench: Bench) -> None:
    bench.router.state.journal_arguments = True
    call(bench, bench.open(ONE), "read", arguments={"path": "x"})
    bench.answer("one", {})
    assert json.loads(journal(bench)[0].arguments)["arguments"] == {"path": "x"}


def test_a_journal_that_nobody_writes_does_not_grow(bench: Bench) -> None:
    session = bench.open(ONE)
    bench.router.state.journal = [None] * MAX_JOURNAL  # type: ignore[list-item]
    call(bench, session, "read")
    bench.answer("one", {})
    assert len(bench.router.state.journal) == MAX_JOURNAL
    assert bench.router.state.counters.unnoted == 1


@pytest.mark.parametrize(
    ("params", "name"),
    [
        (b'{"name":"x","arguments":{}}', "x"),
        (b'{"name":"x', "?"),
        (b'{"name": "x"}', "x"),
        (b'{"arguments":{"name":"y"},"name":"x"}', "x"),
        (b'{"arguments":{"name":"y"}}', ""),
        (b'{"name":"x","name":"y"}', "?"),
        (b'{"name":"x","n\\u0061me":"y"}', "?"),
        (b'{"n\\u0061me":"x"}', "x"),
        (b'{"name":"\\u0078"}', "x"),
        (b'{"name":5}', "?"),
        (b"[]", "?"),
        (b"", "?"),
        (b'{"name":"\xff"}', "?"),
    ],
)
def test_the_name_is_the_one_that_the_server_reads(params: bytes, name: str) -> None:
    assert named("tools/call", params) == name


@given(st.recursive(st.none() | st.text(), lambda kids: st.dictionaries(st.sampled_from(["name", "a", "uri"]), kids)))
def test_names_of_any_params(params: Any) -> None:
    expected = params.get("name", "") if isinstance(params, dict) else "?"
    found = named("tools/call", json.dumps(params).encode())
    assert found == (expected if isinstance(expected, str) else "?")


@pytest.mark.parametrize(
    ("value", "outcome"),
    [
        (b'{"content":[],"isError":true}', "tool-error"),
        (b'{"isError":true,"content":["' + b"x" * 10_000 + b'"]}', "tool-error"),
        (b'{"content":["' + b"x" * 10_000 + b'"],"isError":true}', "tool-error"),
        (b'{"content":["\\"isError\\":true"]}', "ok"),
        (b'{"content":[],"isError":false}', "ok"),
    ],
)
def test_a_tool_that_failed(value: bytes, outcome: str) -> None:
    assert outcome_of("tools/call", value) == outcome
    assert outcome_of("resources/read", value) == "ok"
