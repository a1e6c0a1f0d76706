"""Servers of which each session has an instance of its own, and servers that sleep until they are used."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from mcpd.routing.effects import Claim, Release, ServerLog, Wake
from mcpd.wire.address import View
from mcpd.wire.eras import Era
from support.routing import Bench, info, spec

TIME = View("server", "time")
ALL = View("all")


@pytest.fixture
def own() -> Bench:
    bench = Bench(spec("time", sharing="session"))
    about = info("echo", capabilities={"tools": {"listChanged": True}, "tasks": {}, "logging": {}, "resources": {}})
    bench.run(bench.router.presence.claimable("time", about, bench.now))
    bench.about = about  # type: ignore[attr-defined]
    return bench


def give(bench: Bench, party: str, key: str) -> None:
    """The fleet has started what was claimed."""
    bench.run(bench.router.presence.attach(key, "time", 1, bench.about, bench.now, party))  # type: ignore[attr-defined]


def claims(bench: Bench) -> list[Claim]:
    return [effect for effect in bench.others if isinstance(effect, Claim)]


def test_each_session_claims_an_instance_with_exactly_its_capabilities(own: Bench) -> None:
    one, two = own.open(TIME, sampling={}), own.open(ALL)
    first = own.ask(one, 1, "tools/call", {"name": "echo"})
    own.ask(one, 2, "tools/call", {"name": "echo"})
    own.ask(two, 1, "tools/call", {"name": "time__echo"})
    asked = [(claim.party, json.loads(claim.capabilities)) for claim in claims(own)]
    assert asked == [("s1", {"sampling": {}}), ("s2", {})]
    give(own, "s2", "time#2")
    assert first not in own.got
    assert "time#1" not in own.written
    give(own, "s1", "time#1")
    assert len(own.written["time#1"]) == 2
    assert len(own.written["time#2"]) == 1
    own.answer("time#1", {"n": 1}, 0)
    assert own.one(first)["result"] == {"n": 1}


def test_lists_are_known_without_any_instance(own: Bench) -> None:
    session = own.open(ALL)
    tools = own.one(own.ask(session, 1, "tools/list"))["result"]["tools"]
    assert [tool["name"] for tool in tools] == ["time__echo"]
    assert claims(own) == []


def test_own_instance_shows_tasks_asks_for_roots_and_speaks_outside_of_calls(own: Bench) -> None:
    session = own.open(TIME, initialize=False)
    params = {"protocolVersion": "2025-11-25", "capabilities": {"roots": {"listChanged": True}}}
    result = own.one(own.ask(session, 0, "initialize", params))["result"]
    assert "tasks" in result["capabilities"]
    own.ask(session, 1, "tasks/list")
    give(own, "s1", "time#1")
    own.answer("time#1", {"tasks": []})
    own.say("time#1", {"id": "r", "method": "roots/list"})
    [asked] = own.got["s1.push"]
    assert asked["method"] == "roots/list"
    own.tell(session, {"id": asked["id"], "result": {"roots": [{"uri": "file:///mine"}]}})
    assert own.written["time#1"][-1] == {"jsonrpc": "2.0", "id": "r", "result": {"roots": [{"uri": "file:///mine"}]}}
    own.tell(session, {"method": "notifications/roots/list_changed"})
    assert own.written["time#1"][-1]["method"] == "notifications/roots/list_changed"
    own.say("time#1", {"method": "notifications/message", "params": {"level": "info", "data": "x"}})
    own.say("time#1", {"method": "notifications/tasks/status", "params": {"a": 1}})
    assert [message["method"] for message in own.got["s1.push"][1:]] == [
        "notifications/message",
        "notifications/tasks/status",
    ]


def test_what_one_instance_says_reaches_its_session_only(own: Bench) -> None:
    for name in ("time#1", "time#2"):
        session = own.open(TIME)
        own.ask(session, 1, "resources/subscribe", {"uri": "a://1"})
        give(own, session.id, name)
    own.say("time#1", {"method": "notifications/resources/updated", "params": {"uri": "a://1"}})
    own.say("time#1", {"method": "notifications/tools/list_changed"})
    assert [message["method"] for message in own.got["s1.push"]] == [
        "notifications/resources/updated",
        "notifications/tools/list_changed",
    ]
    assert "s2.push" not in own.got
    own.run(own.router.close_session(own.router.state.sessions["s1"], own.now))
    assert own.written["time#1"][-1]["method"] == "resources/unsubscribe"
    assert own.written["time#2"][-1]["method"] == "resources/subscribe"


def test_closed_session_gives_its_instance_back(own: Bench) -> None:
    session = own.open(TIME)
    own.ask(session, 1, "tools/call", {"name": "echo"})
    give(own, "s1", "time#1")
    own.run(own.router.close_session(session, own.now))
    assert own.others[-1] == Release("time", "s1")


def test_instance_that_dies_is_claimed_anew_by_the_next_call(own: Bench) -> None:
    session = own.open(TIME)
    sink = own.ask(session, 1, "tools/call", {"name": "echo"})
    give(own, "s1", "time#1")
    own.run(own.router.presence.detach("time#1", "signal KILL"))
    assert "signal KILL" in own.one(sink)["error"]["message"]
    own.ask(session, 2, "tools/call", {"name": "echo"})
    assert len(claims(own)) == 2


def test_claim_that_cannot_be_met_fails_the_calls_of_its_session(own: Bench) -> None:
    one, two = own.open(TIME), own.open(TIME)
    sinks = [own.ask(session, 1, "tools/call", {"name": "echo"}) for session in (one, two)]
    own.run(own.router.presence.unclaimed("time", "s1", "no such file"))
    assert "no such file" in own.one(sinks[0])["error"]["message"]
    assert sinks[1] not in own.got


# lazy


@pytest.fixture
def lazy() -> Bench:
    bench = Bench(spec("time", activation="lazy"))
    bench.run(bench.router.presence.idle("time", info("echo", prompts=("p",)), bench.now))
    return bench


def test_sleeping_server_is_listed_and_woken_by_the_first_call_once(lazy: Bench) -> None:
    merged, single = lazy.open(ALL), lazy.open(TIME)
    assert len(lazy.one(lazy.ask(merged, 1, "tools/list"))["result"]["tools"]) == 1
    assert len(lazy.one(lazy.ask(single, 1, "prompts/list"))["result"]["prompts"]) == 1
    assert lazy.others == []
    sinks = [lazy.ask(one, 2, "tools/call", {"name": name}) for one, name in ((merged, "time__echo"), (single, "echo"))]
    assert lazy.others == [Wake("time")]
    assert lazy.router.presence.in_use("time")
    lazy.up("time", info("echo", prompts=("p",)))
    for index in (0, 1):
        lazy.answer("time", {"n": index}, index)
    assert [lazy.one(sink)["result"]["n"] for sink in sinks] == [0, 1]
    assert "s1.push" not in lazy.got  # its lists are what they were
    assert not lazy.router.presence.in_use("time")


def test_first_use_waits_as_long_as_a_start_may_take() -> None:
    bench = Bench(spec("time", activation="lazy", start_timeout=180.0))
    bench.run(bench.router.presence.idle("time", info("echo"), bench.now))
    sink = bench.ask(bench.open(TIME), 1, "tools/call", {"name": "echo"})

    bench.now += 179.0
    bench.run(bench.router.tick(bench.now))
    assert sink not in bench.got

    bench.now += 2.0
    bench.run(bench.router.tick(bench.now))
    assert "still starting" in bench.one(sink)["error"]["message"]


def test_server_that_falls_asleep_keeps_its_lists_and_wakes_again(lazy: Bench) -> None:
    session = lazy.open(ALL)
    lazy.up("time", info("echo", "more"))
    assert lazy.got["s1.push"][0]["method"] == "notifications/tools/list_changed"
    lazy.run(lazy.router.presence.detach("time", "idle"))
    lazy.run(lazy.router.presence.idle("time", None, lazy.now))
    assert len(lazy.one(lazy.ask(session, 1, "tools/list"))["result"]["tools"]) == 2
    lazy.ask(session, 2, "tools/call", {"name": "time__more"})
    assert lazy.others == [Wake("time")]


def test_subscription_keeps_a_server_in_use(lazy: Bench) -> None:
    session = lazy.open(TIME)
    lazy.ask(session, 1, "resources/subscribe", {"uri": "a://1"})
    lazy.up("time", info("echo"))
    lazy.answer("time", {})
    assert lazy.router.presence.in_use("time")
    lazy.run(lazy.router.close_session(session, lazy.now))
    assert not lazy.router.presence.in_use("time")
    assert not any(isinstance(effect, ServerLog) for effect in lazy.others)


def test_newer_server_of_ones_own_is_told_of_the_clients_roots() -> None:
    """As `sharing = "session"` promises, whatever the era: only a shared server is told of the registry's."""
    bench = Bench(spec("time", sharing="session", roots=("file:///registry",)))
    about = replace(info("echo"), era=Era.PER_REQUEST, server_info=b'{"name":"child"}')
    bench.run(bench.router.presence.claimable("time", about, bench.now))
    session = bench.open(TIME, roots={})
    sink = bench.ask(session, 1, "tools/call", {"name": "echo"})
    bench.run(bench.router.presence.attach("time#1", "time", 1, about, bench.now, "s1"))
    bench.answer("time#1", {"resultType": "input_required", "inputRequests": {"r": {"method": "roots/list"}}})
    asked = bench.one(sink)
    assert asked["method"] == "roots/list"
    bench.tell(session, {"id": asked["id"], "result": {"roots": [{"uri": "file:///mine"}]}})
    assert bench.written["time#1"][-1]["params"]["inputResponses"] == {"r": {"roots": [{"uri": "file:///mine"}]}}
