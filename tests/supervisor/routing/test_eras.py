"""Clients of one era in front of servers of the other: what is asked of whom, and how it is answered."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from mcpd.routing.effects import Claim, MarkInteractive, Timer
from mcpd.routing.sessions import Session
from mcpd.wire.address import View
from mcpd.wire.eras import Era
from mcpd.wire.jsonrpc import decode
from mcpd.wire.meta import request_meta
from support.routing import Bench, info, spec

TIME = View("server", "time")
ALL = View("all")
ABLE = {"sampling": {}, "elicitation": {}, "roots": {}}
PREFIX = "io.modelcontextprotocol/"


class Newer(Bench):
    """A bench whose clients speak 2026-07-28: each request is a session."""

    def request(
        self,
        id: Any,
        method: str,
        params: Any = None,
        *,
        view: View = TIME,
        who: str = "me",
        able: Any = ABLE,
        level: str = "",
    ) -> tuple[Session, str]:
        meta = {PREFIX + "protocolVersion": "2026-07-28", PREFIX + "clientCapabilities": able}
        if level:
            meta[PREFIX + "logLevel"] = level
        params = {**(params or {}), "_meta": {**meta, **(params or {}).get("_meta", {})}}
        message = decode(json.dumps({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).encode())
        client = request_meta(message.params)
        assert client is not None
        sink = f"{who}.{id}"
        session = self.router.open_request(f"r{id}", view, who, "streamable-http", client, sink, self.now)
        self.run(self.router.from_client(session, message, sink, self.now))
        return session, sink

    def windows(self) -> None:
        """Let the timers that were asked for fire."""
        timers = [effect for effect in self.others if isinstance(effect, Timer)]
        self.others = [effect for effect in self.others if not isinstance(effect, Timer)]
        for timer in timers:
            self.run(self.router.timer(timer.call, self.now))

    def park(self, id: Any, method: str = "sampling/createMessage", **options: Any) -> tuple[str, dict[str, Any]]:
        """A call whose child asks something: (sink, the input_required result)."""
        _, sink = self.request(id, "tools/call", {"name": "echo", "arguments": {"a": 1}}, **options)
        self.say("time", {"id": f"q{id}", "method": method, "params": {"m": 1}})
        self.windows()
        return sink, self.one(sink)["result"]


@pytest.fixture
def older() -> Newer:
    bench = Newer(spec("time"))
    bench.up("time", info("echo", resources=("a://1",), instructions="Hi"))
    return bench


@pytest.fixture
def newer() -> Newer:
    bench = Newer(spec("time"))
    about = info("echo", resources=("a://1",))
    discovered = json.dumps(
        {"resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}
    )
    bench.up("time", replace(about, era=Era.PER_REQUEST, result=discovered.encode(), server_info=b'{"name":"child"}'))
    return bench


def error(message: Any) -> tuple[int, Any]:
    return message["error"]["code"], message["error"].get("data")


# per-request client, handshake-era server


def test_call_reaches_the_child_without_the_clients_metadata(older: Newer) -> None:
    _, sink = older.request(7, "tools/call", {"name": "echo", "_meta": {"vendor": 1}})
    assert older.written["time"][0]["params"] == {"name": "echo", "_meta": {"vendor": 1}}
    older.answer("time", {"content": []})
    result = older.one(sink)["result"]
    assert result["resultType"] == "complete"
    assert result["content"] == []
    assert PREFIX + "serverInfo" in result["_meta"]


def test_lists_and_reads_carry_caching_fields(older: Newer) -> None:
    for id, view in ((1, TIME), (2, ALL)):
        _, sink = older.request(id, "tools/list", view=view)
        if view is TIME:
            older.answer("time", {"tools": [], "_meta": {"x": 1}})
        result = older.one(sink)["result"]
        assert (result["ttlMs"], result["cacheScope"], result["resultType"]) == (0, "private", "complete")


@pytest.mark.parametrize("empty", ["{}", "{ }", "{\t}"])
def test_an_empty_result_is_completed_however_it_is_written(older: Newer, empty: str) -> None:
    _, sink = older.request(1, "tools/call", {"name": "echo"})
    frame = f'{{"jsonrpc":"2.0","id":{older.written["time"][0]["id"]},"result":{empty}}}'
    older.run(older.router.from_instance(older.router.state.upstreams["time"], decode(frame.encode()), older.now))
    assert older.one(sink)["result"]["resultType"] == "complete"


@pytest.mark.parametrize(
    "outcome", ['"result":"text"', '"result":[]', '"result":{"_meta":1,"_meta":2}', '"error":-32002']
)
def test_an_answer_that_makes_no_sense_is_an_error(older: Newer, outcome: str) -> None:
    """Not passed on as what is no JSON, and not dropped so that the client waits for ever."""
    session, sink = older.request(1, "tools/call", {"name": "echo"})
    frame = f'{{"jsonrpc":"2.0","id":{older.written["time"][0]["id"]},{outcome}}}'
    older.run(older.router.from_instance(older.router.state.upstreams["time"], decode(frame.encode()), older.now))
    assert error(older.one(sink))[0] == -32603
    assert session.calls == {}


def test_an_answer_of_the_newer_era_that_makes_no_sense_is_an_error(newer: Newer) -> None:
    sink = newer.ask(newer.open(TIME), 1, "tools/call", {"name": "echo"})
    frame = f'{{"jsonrpc":"2.0","id":{newer.written["time"][-1]["id"]},"result":["\\"resultType\\"","resultType"]}}'
    newer.run(newer.router.from_instance(newer.router.state.upstreams["time"], decode(frame.encode()), newer.now))
    assert len(newer.got[sink]) == 1


def test_discover_is_answered_by_mcpd(older: Newer) -> None:
    for id, view in ((1, TIME), (2, ALL)):
        _, sink = older.request(id, "server/discover", view=view)
        result = older.one(sink)["result"]
        assert result["supportedVersions"] == ["2026-07-28"]
        assert "tools" in result["capabilities"]
        assert result["resultType"] == "complete"
    assert older.written == {}


@pytest.mark.parametrize(
    "method", ["initialize", "ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe"]
)
def test_methods_of_the_handshake_are_unknown(older: Newer, method: str) -> None:
    for id, view in ((1, TIME), (2, ALL)):
        assert error(older.one(older.request(id, method, {"uri": "a://1"}, view=view)[1]))[0] == -32601


def test_unknown_resource_has_the_newer_code(older: Newer) -> None:
    _, sink = older.request(1, "resources/read", {"uri": "x://"})
    older.say(
        "time",
        {"id": older.written["time"][0]["id"], "error": {"code": -32002, "message": "no", "data": {"uri": "x://"}}},
    )
    assert error(older.one(sink)) == (-32602, {"uri": "x://"})


def test_question_parks_the_call_until_the_client_is_back(older: Newer) -> None:
    _, parked = older.park(1)
    assert parked["resultType"] == "input_required"
    [(key, question)] = parked["inputRequests"].items()
    assert question == {"method": "sampling/createMessage", "params": {"m": 1}}
    retry = {
        "name": "echo",
        "arguments": {"a": 1},
        "requestState": parked["requestState"],
        "inputResponses": {key: {"role": "assistant"}},
    }
    _, sink = older.request(2, "tools/call", retry)
    assert older.written["time"][1] == {"jsonrpc": "2.0", "id": "q1", "result": {"role": "assistant"}}
    older.answer("time", {"content": [1]}, 0)
    answer = older.one(sink)
    assert answer["id"] == 2
    assert answer["result"]["content"] == [1]
    _, again = older.request(3, "tools/call", retry)
    assert error(older.one(again))[0] == -32602  # good for one retry


def test_questions_of_one_call_are_collected(older: Newer) -> None:
    older.request(1, "tools/call", {"name": "echo"})
    for id, method in (("a", "sampling/createMessage"), ("b", "elicitation/create")):
        older.say("time", {"id": id, "method": method, "params": {}})
    older.windows()
    parked = older.one("me.1")["result"]
    assert {question["method"] for question in parked["inputRequests"].values()} == {
        "sampling/createMessage",
        "elicitation/create",
    }
    key = next(key for key, one in parked["inputRequests"].items() if one["method"] == "elicitation/create")
    retry = {"name": "echo", "requestState": parked["requestState"], "inputResponses": {key: {"action": "accept"}}}
    _, sink = older.request(2, "tools/call", retry)
    second = older.one(sink)["result"]  # one answer is missing still
    assert second["resultType"] == "input_required"
    assert second["requestState"] != parked["requestState"]
    assert [one["method"] for one in second["inputRequests"].values()] == ["sampling/createMessage"]


@pytest.mark.parametrize(
    ("who", "params"),
    [
        ("other", {"name": "echo", "arguments": {"a": 1}}),
        ("me", {"name": "echo", "arguments": {"a": 2}}),
        ("me", {"name": "other", "arguments": {"a": 1}}),
    ],
)
def test_handle_is_good_for_the_same_request_of_the_same_principal_only(older: Newer, who: str, params: Any) -> None:
    _, parked = older.park(1)
    foreign = {**params, "requestState": parked["requestState"], "inputResponses": {}}
    _, sink = older.request(2, "tools/call", foreign, who=who)
    assert error(older.one(sink))[0] == -32602
    assert len(older.written["time"]) == 1
    good = {"name": "echo", "arguments": {"a": 1}, "requestState": parked["requestState"], "inputResponses": {}}
    _, sink = older.request(3, "tools/call", good)
    assert older.one(sink)["result"]["resultType"] == "input_required"  # the refused tries did not use it up


def test_client_that_lacks_the_capability_is_not_asked_and_the_child_is_told_which(older: Newer) -> None:
    older.request(1, "tools/call", {"name": "echo"}, able={})
    older.say("time", {"id": "q", "method": "sampling/createMessage", "params": {}})
    assert error(older.written["time"][1]) == (-32021, {"requiredCapabilities": {"sampling": {}}})


def test_answer_that_came_while_parked_waits_for_the_client(older: Newer) -> None:
    _, parked = older.park(1)
    older.answer("time", {"content": ["gave up waiting"]}, 0)
    retry = {"name": "echo", "arguments": {"a": 1}, "requestState": parked["requestState"], "inputResponses": {}}
    _, sink = older.request(2, "tools/call", retry)
    assert older.one(sink)["result"]["content"] == ["gave up waiting"]


def test_answer_that_came_while_parked_reads_like_any_other(older: Newer) -> None:
    for id, (given, code) in enumerate({-32002: -32602, -32050: -32050}.items()):
        _, parked = older.park(10 * id)
        call = older.written["time"][-1] if older.written["time"][-1].get("method") else older.written["time"][-2]
        older.say("time", {"id": call["id"], "error": {"code": given, "message": "no"}})
        retry = {"name": "echo", "arguments": {"a": 1}, "requestState": parked["requestState"]}
        assert error(older.one(older.request(10 * id + 1, "tools/call", retry)[1]))[0] == code


def test_renamed_resource_keeps_its_name_when_its_read_was_parked() -> None:
    bench = Newer(spec("one"), spec("time"))
    bench.up("one", info(resources=("a://1",)))
    bench.up("time", info(resources=("a://1",)))
    public = {"uri": "mcpd+time:a://1"}
    _, sink = bench.request(1, "resources/read", public, view=ALL)
    bench.say("time", {"id": "q", "method": "sampling/createMessage", "params": {}})
    bench.windows()
    state = bench.one(sink)["result"]["requestState"]
    bench.answer("time", {"contents": [{"uri": "a://1", "text": "x"}]}, 0)
    _, sink = bench.request(2, "resources/read", {**public, "requestState": state}, view=ALL)
    assert bench.one(sink)["result"]["contents"] == [{"uri": "mcpd+time:a://1", "text": "x"}]


def test_question_taken_back_before_it_was_passed_on_hinders_no_other(older: Newer) -> None:
    _, sink = older.request(1, "tools/call", {"name": "echo"})
    older.say("time", {"id": "a", "method": "sampling/createMessage", "params": {}})
    older.say("time", {"method": "notifications/cancelled", "params": {"requestId": "a"}})
    older.windows()
    older.say("time", {"id": "b", "method": "sampling/createMessage", "params": {"n": 2}})
    older.windows()
    [question] = older.one(sink)["result"]["inputRequests"].values()
    assert question["params"] == {"n": 2}


def test_child_that_does_not_wait_for_what_it_asked_is_refused_it(older: Newer) -> None:
    _, sink = older.request(1, "tools/call", {"name": "echo"})
    older.say("time", {"id": "q", "method": "sampling/createMessage", "params": {}})
    older.answer("time", {"content": []}, 0)
    older.windows()
    assert older.one(sink)["result"]["content"] == []
    assert error(older.written["time"][-1])[0] == -32000
    upstream = older.router.state.upstreams["time"]
    assert (upstream.active, upstream.asks, len(older.final)) == (0, {}, 1)
    older.park(2)


def test_progress_after_a_retry_carries_the_token_of_the_retry(older: Newer) -> None:
    def report() -> None:
        ours = older.written["time"][0]["params"]["_meta"]["progressToken"]
        told = {"progressToken": ours, "progress": 1}
        older.say("time", {"method": "notifications/progress", "params": told})

    call = {"name": "echo", "arguments": {}}
    _, sink = older.request(1, "tools/call", {**call, "_meta": {"progressToken": "first"}})
    report()
    assert older.one(sink)["params"]["progressToken"] == "first"
    for id, token in ((2, "second"), (3, None)):
        older.say("time", {"id": f"q{id}", "method": "sampling/createMessage", "params": {}})
        older.windows()
        parked = older.got[sink][-1]["result"]
        [key] = parked["inputRequests"]
        retry = {**call, "requestState": parked["requestState"], "inputResponses": {key: {}}}
        _, sink = older.request(id, "tools/call", {**retry, "_meta": {"progressToken": token} if token else {}})
        report()
        told = [one["params"]["progressToken"] for one in older.got.get(sink, [])]
        assert told == ([token] if token else [])


def test_child_that_dies_while_parked_fails_the_retry(older: Newer) -> None:
    _, parked = older.park(1)
    older.run(older.router.presence.detach("time", "signal KILL"))
    retry = {"name": "echo", "arguments": {"a": 1}, "requestState": parked["requestState"], "inputResponses": {}}
    _, sink = older.request(2, "tools/call", retry)
    assert "signal KILL" in older.one(sink)["error"]["message"]


def test_client_that_never_comes_back_is_given_up(older: Newer) -> None:
    older.park(1)
    older.now += 121
    older.run(older.router.tick(older.now))
    assert [message.get("method", "answer") for message in older.written["time"]] == [
        "tools/call",
        "answer",
        "notifications/cancelled",
    ]
    older.now += 11
    older.run(older.router.tick(older.now))
    assert older.router.state.upstreams["time"].calls == {}


def test_parked_call_is_no_candidate_for_the_next_question(older: Newer) -> None:
    older.park(1)
    _, sink = older.request(2, "tools/call", {"name": "echo", "arguments": {"a": 2}})
    older.say("time", {"id": "q2", "method": "elicitation/create", "params": {"for": 2}})
    older.windows()
    [question] = older.one(sink)["result"]["inputRequests"].values()
    assert question["params"] == {"for": 2}


def test_client_that_cancelled_a_call_can_be_asked_in_the_next_one(older: Newer) -> None:
    """Each request of the per-request era is a session, but its client is the one that cancelled."""
    session, _ = older.request(1, "tools/call", {"name": "echo"})
    older.run(older.router.close_session(session, older.now))
    older.park(2)
    assert not older.router.state.servers["time"].interactive


def test_call_that_another_client_cancelled_still_stands_in_the_way(older: Newer) -> None:
    session, _ = older.request(1, "tools/call", {"name": "echo"}, who="other")
    older.run(older.router.close_session(session, older.now))
    _, sink = older.request(2, "tools/call", {"name": "echo"})
    older.say("time", {"id": "q", "method": "sampling/createMessage", "params": {}})
    assert error(older.written["time"][-1])[0] == -32600
    assert sink not in older.got


def test_given_up_call_haunts_other_clients_only(older: Newer) -> None:
    session, _ = older.request(1, "tools/call", {"name": "echo"})
    older.run(older.router.close_session(session, older.now))
    older.now += 30
    older.run(older.router.tick(older.now))
    older.park(2)
    _, sink = older.request(3, "tools/call", {"name": "echo"}, who="other")
    older.say("time", {"id": "q", "method": "sampling/createMessage", "params": {}})
    assert error(older.written["time"][-1])[0] == -32600
    assert sink not in older.got


def test_calls_of_one_client_on_its_own_instance_do_not_wait_for_each_other() -> None:
    bench = Newer(spec("time", sharing="session"))
    bench.run(bench.router.presence.claimable("time", info("echo"), bench.now))
    bench.router.state.servers["time"].interactive = True
    sinks = [bench.request(id, "tools/call", {"name": "echo"})[1] for id in (1, 2)]
    [claim] = [effect for effect in bench.others if isinstance(effect, Claim)]
    bench.run(bench.router.presence.attach("time#1", "time", 1, info("echo"), bench.now, claim.party))
    assert len(bench.written["time#1"]) == 2
    bench.say("time#1", {"id": "q", "method": "sampling/createMessage", "params": {}})
    bench.windows()
    assert bench.one(sinks[1])["result"]["resultType"] == "input_required"
    bench.say("time#1", {"id": "r", "method": "sampling/createMessage", "params": {}})
    bench.windows()
    assert bench.one(sinks[0])["result"]["resultType"] == "input_required"


def test_log_messages_only_where_the_request_asked_for_them(older: Newer) -> None:
    note = {"method": "notifications/message", "params": {"level": "error", "data": "x"}}
    _, sink = older.request(1, "tools/call", {"name": "echo"})
    older.say("time", note)
    assert sink not in older.got
    older.answer("time", {})
    _, sink = older.request(2, "tools/call", {"name": "echo"}, level="info")
    older.say("time", note)
    assert older.one(sink)["params"]["level"] == "error"


def test_client_that_goes_away_cancels_its_call_and_its_questions(older: Newer) -> None:
    session, _ = older.request(1, "tools/call", {"name": "echo"})
    older.say("time", {"id": "q", "method": "sampling/createMessage", "params": {}})
    older.run(older.router.close_session(session, older.now))
    assert [message.get("method", "answer") for message in older.written["time"]] == [
        "tools/call",
        "answer",
        "notifications/cancelled",
    ]


def test_listen_stream_is_acknowledged_filtered_tagged_and_ended(older: Newer) -> None:
    wanted = {"toolsListChanged": True, "resourceSubscriptions": ["a://1"]}
    session, sink = older.request(9, "subscriptions/listen", {"notifications": wanted})
    acknowledged = older.one(sink)
    assert acknowledged["method"] == "notifications/subscriptions/acknowledged"
    assert acknowledged["params"]["notifications"] == wanted
    assert older.written["time"][0]["method"] == "resources/subscribe"
    older.say("time", {"method": "notifications/tools/list_changed"})
    older.say("time", {"method": "notifications/prompts/list_changed"})
    older.say("time", {"method": "notifications/resources/updated", "params": {"uri": "a://1"}})
    assert [message["method"] for message in older.got[sink]] == [
        "notifications/subscriptions/acknowledged",
        "notifications/tools/list_changed",
        "notifications/resources/updated",
    ]
    assert all(message["params"]["_meta"][PREFIX + "subscriptionId"] == 9 for message in older.got[sink])
    older.run(older.router.end_session(session, older.now))
    assert older.got[sink][-1]["result"]["resultType"] == "complete"
    assert older.written["time"][-1]["method"] == "resources/unsubscribe"
    assert older.router.state.sessions == {}


# handshake-era client, per-request server


def test_requests_carry_what_the_client_said_at_initialize(newer: Newer) -> None:
    session = newer.open(TIME, sampling={})
    assert newer.written["time"][0]["method"] == "subscriptions/listen"
    sink = newer.ask(session, 1, "tools/call", {"name": "echo", "_meta": {"progressToken": "p", "vendor": 1}})
    sent = newer.written["time"][1]
    meta = sent["params"]["_meta"]
    assert meta[PREFIX + "protocolVersion"] == "2026-07-28"
    assert meta[PREFIX + "clientCapabilities"] == {"sampling": {}}
    assert meta[PREFIX + "clientInfo"] == {"name": "t"}
    assert (meta["progressToken"], meta["vendor"]) == (sent["id"], 1)
    newer.answer("time", {"resultType": "complete", "content": [], "ttlMs": 5, "cacheScope": "public"})
    assert newer.one(sink)["result"] == {"content": []}


def test_initialize_is_made_of_what_discover_said(newer: Newer) -> None:
    session = newer.open(TIME, initialize=False)
    sink = newer.ask(session, 1, "initialize", {"protocolVersion": "2025-06-18", "capabilities": {}})
    result = newer.one(sink)["result"]
    assert result["protocolVersion"] == "2025-06-18"
    assert result["serverInfo"] == {"name": "child"}
    assert result["capabilities"] == {"tools": {}}
    assert "supportedVersions" not in result


def test_input_required_becomes_questions_and_a_retry(newer: Newer) -> None:
    session = newer.open(TIME, elicitation={})
    sink = newer.ask(session, 1, "tools/call", {"name": "echo"})
    asked = {"resultType": "input_required", "requestState": "s1", "inputRequests": {}}
    asked["inputRequests"] = {key: {"method": "elicitation/create", "params": {"message": key}} for key in ("a", "b")}
    newer.answer("time", asked)
    questions = newer.got[sink]
    assert [question["params"]["message"] for question in questions] == ["a", "b"]
    for question in questions[:2]:
        newer.tell(session, {"id": question["id"], "result": {"action": "accept", "content": question["params"]}})
    retry = newer.written["time"][2]
    assert retry["params"]["requestState"] == "s1"
    assert retry["params"]["inputResponses"]["b"] == {"action": "accept", "content": {"message": "b"}}
    newer.answer("time", {"resultType": "complete", "content": ["done"]})
    assert newer.got[sink][2]["result"] == {"content": ["done"]}
    assert newer.got[sink][2]["id"] == 1


def test_elicitation_by_url_gets_the_id_that_the_older_era_has(newer: Newer) -> None:
    session = newer.open(TIME, elicitation={"url": {}, "form": {}})
    sink = newer.ask(session, 1, "tools/call", {"name": "echo"})
    page = {"mode": "url", "message": "Sign in", "url": "https://example.org"}
    form = {"message": "Which url?", "requestedSchema": {}}
    named = {**page, "elicitationId": "mine"}
    asked = {key: {"method": "elicitation/create", "params": one} for key, one in enumerate((page, form, named))}
    newer.answer("time", {"resultType": "input_required", "inputRequests": asked})
    first, second, third = (question["params"] for question in newer.got[sink])
    assert first.pop("elicitationId")
    assert (first, second, third) == (page, form, named)


def test_input_that_the_client_cannot_give_fails_the_call(newer: Newer) -> None:
    session = newer.open(TIME)
    sink = newer.ask(session, 1, "tools/call", {"name": "echo"})
    asked = {"resultType": "input_required", "inputRequests": {"a": {"method": "sampling/createMessage", "params": {}}}}
    newer.answer("time", asked)
    assert "sampling" in newer.one(sink)["error"]["message"]


def test_client_that_refuses_or_is_too_slow_fails_the_call(newer: Newer) -> None:
    session = newer.open(TIME, sampling={})
    asked = {"resultType": "input_required", "inputRequests": {"a": {"method": "sampling/createMessage", "params": {}}}}
    sink = newer.ask(session, 1, "tools/call", {"name": "echo"})
    newer.answer("time", asked)
    newer.tell(session, {"id": newer.got[sink][0]["id"], "error": {"code": -1, "message": "not now"}})
    assert "not now" in newer.got[sink][1]["error"]["message"]
    sink = newer.ask(session, 2, "tools/call", {"name": "echo"})
    newer.answer("time", asked)
    newer.now += 121
    newer.run(newer.router.tick(newer.now))
    assert [message.get("method") for message in newer.got[sink][:2]] == [
        "sampling/createMessage",
        "notifications/cancelled",
    ]
    assert newer.got[sink][2]["error"]["code"] == -32001


def test_rounds_are_bounded(newer: Newer) -> None:
    session = newer.open(TIME)
    sink = newer.ask(session, 1, "tools/call", {"name": "echo"})
    for _ in range(20):
        if sink in newer.got:
            break
        newer.answer("time", {"resultType": "input_required", "requestState": "more"})
        newer.windows()
    assert "16 times" in newer.one(sink)["error"]["message"]


def test_roots_are_answered_from_the_registry() -> None:
    bench = Newer(spec("time", roots=("file:///srv",)))
    bench.up("time", replace(info("echo"), era=Era.PER_REQUEST))
    session = bench.open(TIME)
    bench.ask(session, 1, "tools/call", {"name": "echo"})
    bench.answer(
        "time", {"resultType": "input_required", "inputRequests": {"r": {"method": "roots/list", "params": {}}}}
    )
    assert bench.written["time"][2]["params"]["inputResponses"]["r"] == {"roots": [{"uri": "file:///srv"}]}


def test_subscription_renews_the_one_listen_of_mcpd(newer: Newer) -> None:
    session = newer.open(TIME)
    sink = newer.ask(session, 1, "resources/subscribe", {"uri": "a://1"})
    assert newer.one(sink)["result"] == {}
    first, ended, second = newer.written["time"]
    assert ended["params"]["requestId"] == first["id"]
    assert second["params"]["notifications"]["resourceSubscriptions"] == ["a://1"]
    note = {"uri": "a://1", "_meta": {PREFIX + "subscriptionId": second["id"]}}
    newer.say("time", {"method": "notifications/resources/updated", "params": note})
    assert newer.one("s1.push")["params"] == {"uri": "a://1"}
    newer.ask(session, 2, "resources/unsubscribe", {"uri": "a://1"})
    assert "resourceSubscriptions" not in newer.written["time"][-1]["params"]["notifications"]


# both per-request


def test_state_of_a_per_request_server_passes_untouched(newer: Newer) -> None:
    _, sink = newer.request(1, "tools/call", {"name": "time__echo", "requestState": "theirs"}, view=ALL)
    sent = newer.written["time"][1]["params"]
    assert (sent["name"], sent["requestState"]) == ("echo", "theirs")
    assert sent["_meta"][PREFIX + "clientCapabilities"] == ABLE
    asked = {"resultType": "input_required", "requestState": "s", "inputRequests": {"k": {"method": "roots/list"}}}
    newer.answer("time", asked)
    assert newer.one(sink)["result"] == asked


def test_each_era_is_told_what_the_instance_of_that_era_said(newer: Newer) -> None:
    newer.up("time", info("echo", instructions="For the older era", capabilities={"logging": {}}), key="time@2")
    session = newer.open(TIME, initialize=False)
    sink = newer.ask(session, 1, "initialize", {"protocolVersion": "2025-06-18", "capabilities": {}})
    assert newer.one(sink)["result"]["capabilities"] == {"logging": {}}
    _, sink = newer.request(2, "server/discover")
    assert "logging" in newer.one(sink)["result"]["capabilities"]
    assert "instructions" not in newer.one(sink)["result"]


def test_instance_of_the_clients_own_era_is_taken(newer: Newer) -> None:
    newer.up("time", info("echo"), key="time@2")
    newer.request(1, "tools/call", {"name": "echo"})
    assert newer.written["time"][-1]["method"] == "tools/call"
    session = newer.open(TIME)
    newer.ask(session, 1, "tools/call", {"name": "echo"})
    assert newer.written["time@2"][-1]["method"] == "tools/call"


def test_nothing_is_attributed_past_a_parked_call_of_another_principal(older: Newer) -> None:
    older.park(1)
    _, sink = older.request(2, "tools/call", {"name": "echo"}, who="other")
    older.say("time", {"id": "q", "method": "sampling/createMessage", "params": {}})
    assert error(older.written["time"][-1])[0] == -32600
    assert sink not in older.got
    assert older.others[-1] == MarkInteractive("time")


def test_parked_call_holds_an_interactive_server_for_as_long_as_input_may_take(older: Newer) -> None:
    older.router.state.servers["time"].interactive = True
    older.router.state.input_timeout = 20.0
    older.park(1)
    written = len(older.written["time"])
    _, waiting = older.request(2, "tools/call", {"name": "echo"}, who="other")
    assert len(older.written["time"]) == written
    older.now += 21
    older.run(older.router.tick(older.now))
    older.answer("time", {}, 0)  # the child had its error, and gives up
    assert older.written["time"][-1]["method"] == "tools/call"
    older.answer("time", {"mine": 2})
    assert older.one(waiting)["result"]["mine"] == 2


def test_parked_call_takes_one_instance_of_an_interactive_pool(older: Newer) -> None:
    older.router.state.servers["time"].interactive = True
    older.run(older.router.presence.attach("time@2", "time", 1, info("echo"), older.now))
    older.park(1)
    older.request(2, "tools/call", {"name": "echo"}, who="other")
    assert older.written["time@2"][-1]["method"] == "tools/call"
