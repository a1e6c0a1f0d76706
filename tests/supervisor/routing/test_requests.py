"""Requests whose parameters are not what mcpd has to read: the error says what is wrong, and nothing is left behind."""

from __future__ import annotations

from typing import Any

import pytest

from mcpd.routing import listening
from mcpd.routing.effects import WriteLine
from mcpd.wire.address import View
from mcpd.wire.jsonrpc import decode
from support.routing import Bench, info, spec

ALL = View("all")
TIME = View("server", "time")


@pytest.fixture
def bench() -> Bench:
    bench = Bench(spec("time"))
    bench.up("time", info("echo", resources=("a://1",), prompts=("ask",)))
    return bench


@pytest.mark.parametrize(
    ("method", "params", "part"),
    [
        ("tools/call", None, "name is missing"),
        ("tools/call", {"name": 5}, "name must be a string"),
        ("prompts/get", None, "name is missing"),
        ("prompts/get", [], "object"),
        ("resources/read", None, "uri is missing"),
        ("resources/subscribe", None, "uri is missing"),
        ("resources/subscribe", {"uri": 5}, "uri must be a string"),
        ("completion/complete", None, "object"),
        ("completion/complete", {"ref": {"type": "ref/prompt"}}, "name is missing"),
        ("logging/setLevel", None, "level"),
        ("logging/setLevel", [], "object"),
        ("tools/list", {"cursor": "mcpd:²"}, "cursor"),
        ("tools/list", {"cursor": "mcpd:1e3"}, "cursor"),
        ("tools/list", {"cursor": 5}, "cursor"),
        ("prompts/list", [], "object"),
    ],
)
def test_bad_params_are_told_as_such_and_the_id_is_free_again(
    bench: Bench, method: str, params: Any, part: str
) -> None:
    session = bench.open(ALL)
    refused = bench.one(bench.ask(session, 1, method, params))["error"]
    assert refused["code"] == -32602
    assert part in refused["message"]
    assert session.calls == {}
    assert session.account.in_flight == 0


def test_bad_params_of_initialize(bench: Bench) -> None:
    session = bench.open(ALL, initialize=False)
    for id, params in enumerate(([], {"protocolVersion": 5}, {"protocolVersion": "2025-11-25", "capabilities": None})):
        assert bench.one(bench.ask(session, id, "initialize", params))["error"]["code"] == -32602
    assert session.protocol_version is None


def test_subscriptions_of_a_session_are_bounded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "MAX_URIS", 2)
    one, two = bench.open(TIME), bench.open(TIME)
    for id in (1, 2):
        bench.ask(one, id, "resources/subscribe", {"uri": f"a://{id}"})
        bench.answer("time", {})
    refused = bench.ask(one, 3, "resources/subscribe", {"uri": "a://3"})
    assert "subscriptions" in bench.one(refused)["error"]["message"]
    bench.ask(two, 1, "resources/subscribe", {"uri": "a://3"})
    assert bench.written["time"][-1]["params"] == {"uri": "a://3"}


def test_a_server_logs_no_more_than_what_those_want_that_are_left(bench: Bench) -> None:
    one, two = bench.open(TIME), bench.open(ALL)
    bench.ask(one, 1, "logging/setLevel", {"level": "error"})
    bench.ask(two, 1, "logging/setLevel", {"level": "debug"})
    assert bench.written["time"][-1]["params"] == {"level": "debug"}
    effects = bench.router.close_session(two, bench.now)
    assert any(isinstance(effect, WriteLine) for effect in effects)
    bench.run(effects)
    assert bench.written["time"][-1]["params"] == {"level": "error"}


def test_progress_for_a_number_of_thousands_of_digits_is_for_nobody(bench: Bench) -> None:
    """Python does not convert those, and says so by an exception."""
    session = bench.open(TIME)
    sink = bench.ask(session, 1, "tools/call", {"name": "echo", "_meta": {"progressToken": 1}})
    frame = b'{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":%b}}' % (b"9" * 5000)
    assert bench.router.from_client(session, decode(frame), "none", bench.now) == ()
    assert bench.router.from_instance(bench.router.state.upstreams["time"], decode(frame), bench.now) == ()
    bench.answer("time", {})
    assert "result" in bench.one(sink)
