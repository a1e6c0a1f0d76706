"""The router by scripts: what goes in, what comes out."""

import json
from typing import Any

import pytest

from mcpd.errors import NotFound, Overloaded
from mcpd.routing.effects import MarkInteractive, ServerLog, Stale
from mcpd.routing.state import MAX_SESSION_CALLS
from mcpd.wire.address import View
from mcpd.wire.jsonrpc import decode
from support.routing import Bench, info, registry, spec

TIME = View("server", "time")
ALL = View("all")


@pytest.fixture
def bench() -> Bench:
    bench = Bench(spec("time"), spec("notes"))
    bench.up("time", info("now", "echo", prompts=("greet",), resources=("a://1",), templates=("t://{id}",)))
    bench.up("notes", info("add", "echo", prompts=("sum",), resources=("a://1", "n://2")))
    return bench


def error(message: Any) -> tuple[int, str]:
    return message["error"]["code"], message["error"]["message"]


# one server under its own names


def test_call_gets_its_own_answer_under_its_own_id(bench: Bench) -> None:
    session = bench.open(TIME)
    for id in (1, "1"):
        bench.ask(session, id, "tools/call", {"name": "echo", "arguments": {"x": id}})
    first, second = bench.written["time"]
    assert first["id"] != second["id"]
    assert first["params"] == {"name": "echo", "arguments": {"x": 1}}
    bench.answer("time", {"n": 2}, 1)
    bench.answer("time", {"n": 1}, 0)
    assert [m["result"] for m in bench.got["s1.1"]] == [{"n": 2}, {"n": 1}]
    assert [m["id"] for m in bench.got["s1.1"]] == ["1", 1]


def test_unknown_method_passes_through_a_single_server_view(bench: Bench) -> None:
    session = bench.open(TIME)
    sink = bench.ask(session, 1, "vendor/thing", {"deep": [1, {"a": None}]})
    assert bench.written["time"][0]["method"] == "vendor/thing"
    bench.say("time", {"id": bench.written["time"][0]["id"], "error": {"code": 7, "message": "no", "data": [1]}})
    assert bench.one(sink)["error"] == {"code": 7, "message": "no", "data": [1]}
    bench.tell(session, {"method": "notifications/vendor", "params": {"a": 1}})
    assert bench.written["time"][-1] == {"jsonrpc": "2.0", "method": "notifications/vendor", "params": {"a": 1}}


def test_initialize_is_the_servers_own_answer_without_tasks() -> None:
    bench = Bench(spec("time"))
    bench.up("time", info(capabilities={"tools": {}, "tasks": {"list": {}}, "vendor": {"x": 1}}, instructions="Hi"))
    session = bench.open(TIME, initialize=False)
    sink = bench.ask(session, 1, "initialize", {"protocolVersion": "2024-11-05", "capabilities": {}})
    result = bench.one(sink)["result"]
    assert result["protocolVersion"] == "2024-11-05"
    assert result["capabilities"] == {"tools": {}, "vendor": {"x": 1}}
    assert result["serverInfo"]["name"] == "child"
    assert result["instructions"] == "Hi"
    assert error(bench.one(bench.ask(session, 2, "tasks/list")))[0] == -32601
    assert error(bench.one(bench.ask(session, 3, "initialize", {"protocolVersion": "x"})))[0] == -32600


def test_nothing_but_ping_before_initialize(bench: Bench) -> None:
    session = bench.open(TIME, initialize=False)
    assert error(bench.one(bench.ask(session, 1, "tools/list")))[0] == -32600
    assert bench.one(bench.ask(session, 2, "ping"))["result"] == {}
    assert error(bench.one(bench.ask(session, 3, "initialize", {})))[0] == -32602
    bench.tell(session, {"method": "notifications/vendor"})
    assert "time" not in bench.written


def test_id_in_use_is_refused(bench: Bench) -> None:
    session = bench.open(TIME)
    bench.ask(session, 1, "tools/call", {"name": "echo"})
    bench.ask(session, 1, "tools/call", {"name": "echo"})
    assert error(bench.got["s1.1"][0])[0] == -32600
    assert len(bench.written["time"]) == 1


def test_progress_finds_its_call_and_keeps_its_token(bench: Bench) -> None:
    session, other = bench.open(TIME), bench.open(TIME)
    meta = {"progressToken": "mine", "vendor": 1}
    sink = bench.ask(session, 1, "tools/call", {"name": "echo", "_meta": meta})
    bench.ask(other, 1, "tools/call", {"name": "echo", "_meta": {"progressToken": "mine"}})
    sent = bench.written["time"][0]["params"]["_meta"]
    assert sent == {"progressToken": bench.written["time"][0]["id"], "vendor": 1}
    bench.say(
        "time", {"method": "notifications/progress", "params": {"progressToken": sent["progressToken"], "progress": 1}}
    )
    assert bench.one(sink)["params"] == {"progressToken": "mine", "progress": 1}
    bench.say("time", {"method": "notifications/progress", "params": {"progressToken": 999, "progress": 1}})
    bench.say("time", {"method": "notifications/progress", "params": {"progressToken": "mine", "progress": 1}})
    assert bench.router.state.counters.dropped_messages == 2


def test_progress_token_hidden_by_escapes_is_found(bench: Bench) -> None:
    """A child decodes the escape: unminted, the token could name another session's call."""
    session = bench.open(TIME)
    raw = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","_meta":{"progress\\u0054oken":5}}}'
    bench.run(bench.router.from_client(session, decode(raw), "s1.1", bench.now))
    assert bench.written["time"][0]["params"]["_meta"]["progressToken"] == bench.written["time"][0]["id"]


def test_cancelled_call_ends_and_the_child_is_told(bench: Bench) -> None:
    session = bench.open(TIME)
    sink = bench.ask(session, "a", "tools/call", {"name": "echo"})
    bench.tell(session, {"method": "notifications/cancelled", "params": {"requestId": "a", "reason": "bored"}})
    upstream_id = bench.written["time"][0]["id"]
    assert bench.written["time"][1]["params"] == {"requestId": upstream_id, "reason": "bored"}
    assert bench.ended == [sink]
    bench.answer("time", {}, 0)
    assert sink not in bench.got
    bench.ask(session, "a", "tools/call", {"name": "echo"})  # the id is free again
    bench.answer("time", {"ok": 1})
    assert bench.one(sink)["result"] == {"ok": 1}


def test_cancelling_what_is_not_there_does_nothing(bench: Bench) -> None:
    session = bench.open(TIME)
    bench.tell(session, {"method": "notifications/cancelled", "params": {"requestId": 5}})
    bench.tell(session, {"method": "notifications/cancelled"})
    assert bench.written == {}


def test_call_that_takes_too_long_is_answered_and_cancelled(bench: Bench) -> None:
    session = bench.open(TIME)
    sink = bench.ask(session, 1, "tools/call", {"name": "echo", "_meta": {"progressToken": 1}})
    bench.now += 200
    bench.say("time", {"method": "notifications/progress", "params": {"progressToken": bench.written["time"][0]["id"]}})
    bench.now += 200
    bench.run(bench.router.tick(bench.now))
    assert len(bench.got[sink]) == 1  # the progress extended it
    bench.now += 200
    bench.run(bench.router.tick(bench.now))
    assert error(bench.got[sink][1])[0] == -32001
    assert bench.written["time"][1]["method"] == "notifications/cancelled"
    bench.answer("time", {}, 0)
    assert len(bench.got[sink]) == 2


def test_progress_extends_a_call_only_up_to_the_longest_time() -> None:
    bench = Bench(spec("time", call_timeout=100), max_call_time=150)
    bench.up("time")
    session = bench.open(TIME)
    sink = bench.ask(session, 1, "tools/call", {"name": "echo", "_meta": {"progressToken": 1}})
    for _ in range(4):
        bench.now += 40
        bench.run(bench.router.tick(bench.now))
        bench.say(
            "time", {"method": "notifications/progress", "params": {"progressToken": bench.written["time"][0]["id"]}}
        )
    assert bench.got[sink][-1]["error"]["code"] == -32001


def test_death_of_an_instance_answers_each_call_at_once(bench: Bench) -> None:
    session, other = bench.open(TIME), bench.open(ALL)
    sinks = [
        bench.ask(session, 1, "tools/call", {"name": "echo"}),
        bench.ask(other, 1, "tools/call", {"name": "time__now"}),
    ]
    bench.run(bench.router.presence.detach("time", "signal KILL"))
    for sink in sinks:
        assert "signal KILL" in error(bench.one(sink))[1]
    waiting = bench.ask(session, 2, "tools/call", {"name": "echo"})
    assert waiting not in bench.got  # it waits for the next incarnation
    bench.up("time", generation=2)
    bench.answer("time", {"ok": 1})
    assert bench.one(waiting)["result"] == {"ok": 1}


def test_server_that_is_down_fails_calls_at_once_with_its_reason(bench: Bench) -> None:
    session = bench.open(TIME)
    bench.run(bench.router.presence.detach("time", "exit status 1"))
    waiting = bench.ask(session, 1, "tools/call", {"name": "echo"})
    bench.run(bench.router.presence.absent("time", "it failed 5 times", bench.now))
    assert "it failed 5 times" in error(bench.one(waiting))[1]
    assert "it failed 5 times" in error(bench.one(bench.ask(session, 2, "tools/call", {"name": "echo"})))[1]
    bench.run(bench.router.presence.coming("time"))
    assert bench.ask(session, 3, "tools/call", {"name": "echo"}) not in bench.got


def test_wait_for_a_server_is_bounded() -> None:
    bench = Bench(spec("time"))
    session = bench.open(TIME, initialize=False)
    sink = bench.ask(session, 1, "initialize", {"protocolVersion": "2025-11-25"})
    bench.now += 31
    bench.run(bench.router.tick(bench.now))
    assert "still starting" in error(bench.one(sink))[1]


def test_call_that_cannot_be_written_was_never_made(bench: Bench) -> None:
    session = bench.open(TIME)
    bench.ask(session, 1, "tools/call", {"name": "echo"})
    assert bench.router.unwritten("time", bench.written["time"][0]["id"])
    assert session.calls == {}
    assert not bench.router.unwritten("time", bench.written["time"][0]["id"])


def test_calls_of_a_session_are_bounded(bench: Bench) -> None:
    session = bench.open(TIME)
    for id in range(MAX_SESSION_CALLS):
        bench.ask(session, id, "tools/call", {"name": "echo"})
    with pytest.raises(Overloaded):
        bench.ask(session, "more", "tools/call", {"name": "echo"})
    assert len(session.calls) == MAX_SESSION_CALLS


def test_closed_session_leaves_nothing_behind(bench: Bench) -> None:
    session = bench.open(TIME, sampling={})
    bench.ask(session, 1, "tools/call", {"name": "echo"})
    bench.ask(session, 2, "resources/subscribe", {"uri": "a://1"})
    bench.say("time", {"id": "q", "method": "sampling/createMessage", "params": {}})
    bench.run(bench.router.close_session(session, bench.now))
    methods = [message.get("method", "answer") for message in bench.written["time"]]
    assert methods == [
        "tools/call",
        "resources/subscribe",
        "answer",
        "notifications/cancelled",
        "notifications/cancelled",
        "resources/unsubscribe",
    ]
    before = json.dumps(bench.got)
    bench.answer("time", {}, 0)
    bench.say("time", {"method": "notifications/resources/updated", "params": {"uri": "a://1"}})
    assert json.dumps(bench.got) == before
    assert bench.router.close_session(session, bench.now) == []


# whose message is it


def test_ask_goes_to_the_only_session_with_calls(bench: Bench) -> None:
    session = bench.open(TIME, sampling={})
    bench.open(TIME, sampling={})
    sink = bench.ask(session, 1, "tools/call", {"name": "echo"})
    bench.say("time", {"id": 0, "method": "sampling/createMessage", "params": {"_meta": {"progressToken": 9}, "m": 1}})
    asked = bench.one(sink)
    assert asked["method"] == "sampling/createMessage"
    assert asked["params"]["_meta"]["progressToken"] == asked["id"]
    bench.tell(session, {"method": "notifications/progress", "params": {"progressToken": asked["id"], "progress": 2}})
    assert bench.written["time"][1]["params"] == {"progressToken": 9, "progress": 2}
    bench.tell(session, {"id": asked["id"], "result": {"role": "assistant"}})
    assert bench.written["time"][2] == {"jsonrpc": "2.0", "id": 0, "result": {"role": "assistant"}}
    bench.tell(session, {"id": asked["id"], "result": {}})  # a second answer goes nowhere
    assert len(bench.written["time"]) == 3


def test_ask_of_nobody_is_refused(bench: Bench) -> None:
    bench.open(TIME, sampling={})
    bench.say("time", {"id": 0, "method": "sampling/createMessage", "params": {}})
    assert error(bench.written["time"][0])[0] == -32600
    assert bench.others == []


def test_ask_that_could_be_of_two_is_refused_and_the_server_serves_one_at_a_time_from_then_on(bench: Bench) -> None:
    one, two = bench.open(TIME, sampling={}), bench.open(TIME, sampling={})
    bench.ask(one, 1, "tools/call", {"name": "echo"})
    bench.ask(two, 1, "tools/call", {"name": "echo"})
    bench.say("time", {"id": 0, "method": "sampling/createMessage", "params": {}})
    assert error(bench.written["time"][2])[0] == -32600
    assert bench.others == [MarkInteractive("time")]
    bench.answer("time", {}, 0)
    bench.answer("time", {}, 1)
    bench.ask(one, 2, "tools/call", {"name": "echo"})
    waiting = bench.ask(two, 2, "tools/call", {"name": "echo"})
    assert len(bench.written["time"]) == 4
    bench.say("time", {"id": 1, "method": "sampling/createMessage", "params": {}})
    assert bench.got["s1.2"][0]["method"] == "sampling/createMessage"
    bench.answer("time", {}, 3)
    assert len(bench.written["time"]) == 5
    bench.answer("time", {"mine": 2})
    assert bench.one(waiting)["result"] == {"mine": 2}


def test_wait_for_an_interactive_server_is_bounded(bench: Bench) -> None:
    bench.router.state.servers["time"].interactive = True
    one, two = bench.open(TIME), bench.open(TIME)
    bench.ask(one, 1, "tools/call", {"name": "echo"})
    waiting = bench.ask(two, 1, "tools/call", {"name": "echo"})
    bench.now += 31
    bench.run(bench.router.tick(bench.now))
    assert "another client" in error(bench.one(waiting))[1]


def test_client_that_lacks_the_capability_is_not_asked(bench: Bench) -> None:
    session = bench.open(TIME, elicitation={})
    sink = bench.ask(session, 1, "tools/call", {"name": "echo"})
    bench.say("time", {"id": 0, "method": "sampling/createMessage", "params": {}})
    bench.say("time", {"id": 1, "method": "elicitation/create", "params": {"mode": "url", "url": "https://x"}})
    assert [error(m)[0] for m in bench.written["time"][1:]] == [-32601, -32601]
    bench.say("time", {"id": 2, "method": "elicitation/create", "params": {"message": "?"}})
    assert bench.one(sink)["method"] == "elicitation/create"


def test_input_that_does_not_come_is_an_error_to_the_child(bench: Bench) -> None:
    session = bench.open(TIME, sampling={})
    sink = bench.ask(session, 1, "tools/call", {"name": "echo"})
    bench.say("time", {"id": 0, "method": "sampling/createMessage", "params": {}})
    bench.now += 121
    bench.run(bench.router.tick(bench.now))
    assert error(bench.written["time"][1])[0] == -32001
    assert bench.got[sink][1]["method"] == "notifications/cancelled"
    assert bench.got[sink][1]["params"]["requestId"] == bench.got[sink][0]["id"]


def test_child_takes_its_question_back(bench: Bench) -> None:
    session = bench.open(TIME, sampling={})
    sink = bench.ask(session, 1, "tools/call", {"name": "echo"})
    bench.say("time", {"id": "q", "method": "sampling/createMessage", "params": {}})
    bench.say("time", {"id": "q", "method": "sampling/createMessage", "params": {}})
    assert "in use" in error(bench.written["time"][1])[1]
    bench.say("time", {"method": "notifications/cancelled", "params": {"requestId": "q"}})
    assert bench.got[sink][1]["params"]["requestId"] == bench.got[sink][0]["id"]
    assert session.asks == {}


def test_roots_and_ping_of_a_child_are_answered_by_mcpd() -> None:
    bench = Bench(spec("time", roots=("file:///srv",)))
    bench.up("time")
    bench.say("time", {"id": 1, "method": "roots/list"})
    bench.say("time", {"id": 2, "method": "ping"})
    assert bench.written["time"][0]["result"] == {"roots": [{"uri": "file:///srv"}]}
    assert bench.written["time"][1]["result"] == {}


def test_log_messages_go_to_their_session_by_its_level_or_to_the_log(bench: Bench) -> None:
    loud, quiet = bench.open(TIME), bench.open(TIME)
    bench.ask(loud, "l", "logging/setLevel", {"level": "debug"})
    assert bench.written["time"][0]["params"] == {"level": "debug"}
    bench.answer("time", {})
    message = {"method": "notifications/message", "params": {"level": "debug", "data": "x"}}
    bench.say("time", message)
    assert isinstance(bench.others[0], ServerLog)
    sink = bench.ask(quiet, 1, "tools/call", {"name": "echo"})
    bench.say("time", message)
    assert sink not in bench.got
    bench.say("time", {"method": "notifications/message", "params": {"level": "error", "data": "x"}})
    assert bench.one(sink)["params"]["level"] == "error"
    bench.answer("time", {})
    sink = bench.ask(loud, 1, "tools/call", {"name": "echo"})
    bench.say("time", message)
    assert bench.one(sink)["params"]["level"] == "debug"


def test_bad_log_level_is_refused(bench: Bench) -> None:
    session = bench.open(TIME)
    assert error(bench.one(bench.ask(session, 1, "logging/setLevel", {"level": "loud"})))[0] == -32602
    assert error(bench.one(bench.ask(session, 2, "logging/setLevel")))[0] == -32602


def test_updates_go_to_subscribers_only_and_survive_a_restart(bench: Bench) -> None:
    one, two = bench.open(TIME), bench.open(ALL)
    bench.ask(one, 1, "resources/subscribe", {"uri": "t://5"})
    bench.ask(two, 1, "resources/subscribe", {"uri": "t://5"})
    bench.open(TIME)
    update = {"method": "notifications/resources/updated", "params": {"uri": "t://5"}}
    bench.say("time", update)
    assert set(bench.got) >= {"s1.push", "s2.push"}
    assert "s3.push" not in bench.got
    bench.ask(one, 2, "resources/unsubscribe", {"uri": "t://5"})
    assert bench.one("s1.2")["result"] == {}  # answered here: the other still wants it
    bench.run(bench.router.presence.detach("time", "gone"))
    bench.written.clear()
    bench.up("time", generation=2)
    assert bench.written["time"][0]["method"] == "resources/subscribe"
    bench.say("time", {"id": bench.written["time"][0]["id"], "result": {}})
    bench.ask(two, 2, "resources/unsubscribe", {"uri": "t://5"})
    assert bench.got.get("s2.2") is None
    assert bench.written["time"][1]["method"] == "resources/unsubscribe"


# several servers as one


def test_merged_lists_have_prefixed_names_in_registry_order(bench: Bench) -> None:
    session = bench.open(ALL)
    tools = bench.one(bench.ask(session, 1, "tools/list"))["result"]["tools"]
    assert [tool["name"] for tool in tools] == ["time__now", "time__echo", "notes__add", "notes__echo"]
    prompts = bench.one(bench.ask(session, 2, "prompts/list"))["result"]["prompts"]
    assert [prompt["name"] for prompt in prompts] == ["time__greet", "notes__sum"]
    resources = bench.one(bench.ask(session, 3, "resources/list"))["result"]["resources"]
    assert [resource["uri"] for resource in resources] == ["a://1", "mcpd+notes:a://1", "n://2"]
    templates = bench.one(bench.ask(session, 4, "resources/templates/list"))["result"]["resourceTemplates"]
    assert [template["uriTemplate"] for template in templates] == ["t://{id}"]
    assert error(bench.one(bench.ask(session, 5, "tools/list", {"cursor": "x"})))[0] == -32602
    assert error(bench.one(bench.ask(session, 6, "tools/list", {"cursor": "mcpd:1000"})))[0] == -32602
    assert error(bench.one(bench.ask(session, 7, "tools/list", {"cursor": 5})))[0] == -32602


def test_long_lists_are_paged() -> None:
    bench = Bench(spec("time"))
    bench.up("time", info(*(f"t{n}" for n in range(2500))))
    session = bench.open(ALL)
    names, cursor = [], None
    for page in range(3):
        params = {"cursor": cursor} if cursor else {}
        result = bench.one(bench.ask(session, page, "tools/list", params))["result"]
        names += [tool["name"] for tool in result["tools"]]
        cursor = result.get("nextCursor")
    assert cursor is None
    assert names == [f"time__t{n}" for n in range(2500)]


@pytest.mark.parametrize(
    ("method", "params", "instance", "sent"),
    [
        ("tools/call", {"name": "notes__add", "arguments": {"a": 1}}, "notes", {"name": "add", "arguments": {"a": 1}}),
        ("tools/call", {"name": "time__unlisted"}, "time", {"name": "unlisted"}),
        ("prompts/get", {"name": "notes__sum"}, "notes", {"name": "sum"}),
        ("resources/read", {"uri": "a://1"}, "time", {"uri": "a://1"}),
        ("resources/read", {"uri": "mcpd+notes:a://1"}, "notes", {"uri": "a://1"}),
        ("resources/read", {"uri": "n://2"}, "notes", {"uri": "n://2"}),
        ("resources/read", {"uri": "t://7"}, "time", {"uri": "t://7"}),
        (
            "completion/complete",
            {"ref": {"type": "ref/prompt", "name": "notes__sum"}, "argument": {"name": "a", "value": "b"}},
            "notes",
            {"ref": {"type": "ref/prompt", "name": "sum"}, "argument": {"name": "a", "value": "b"}},
        ),
        (
            "completion/complete",
            {"ref": {"type": "ref/resource", "uri": "t://{id}"}},
            "time",
            {"ref": {"type": "ref/resource", "uri": "t://{id}"}},
        ),
    ],
)
def test_requests_reach_the_server_they_name(bench: Bench, method: str, params: Any, instance: str, sent: Any) -> None:
    session = bench.open(ALL)
    sink = bench.ask(session, 1, method, params)
    assert bench.written[instance][0]["params"] == sent
    bench.answer(instance, {"contents": [{"uri": "a://1", "text": "x"}]})
    assert bench.one(sink)["result"]["contents"][0]["text"] == "x"
    if params.get("uri", "").startswith("mcpd+"):
        assert bench.one(sink)["result"]["contents"][0]["uri"] == params["uri"]


@pytest.mark.parametrize(
    ("method", "params", "code"),
    [
        ("tools/call", {"name": "nobody"}, -32602),
        ("tools/call", {}, -32602),
        ("prompts/get", {"name": "nobody"}, -32602),
        ("resources/read", {"uri": "x://unknown"}, -32002),
        ("resources/subscribe", {"uri": "x://unknown"}, -32002),
        ("resources/unsubscribe", {"uri": "x://unknown"}, -32002),
        ("completion/complete", {"ref": {"type": "ref/prompt", "name": "nobody"}}, -32602),
        ("vendor/thing", {}, -32601),
    ],
)
def test_what_no_server_has_is_an_error(bench: Bench, method: str, params: Any, code: int) -> None:
    session = bench.open(ALL)
    assert error(bench.one(bench.ask(session, 1, method, params)))[0] == code
    assert bench.written == {}


def test_name_that_stands_twice_is_refused(bench: Bench) -> None:
    session = bench.open(ALL)
    raw = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"time__now","name":"notes__add"}}'
    bench.run(bench.router.from_client(session, decode(raw), "sink", bench.now))
    assert "twice" in error(bench.one("sink"))[1]
    assert bench.written == {}


def test_uri_in_a_result_is_remembered(bench: Bench) -> None:
    session = bench.open(ALL)
    bench.ask(session, 1, "tools/call", {"name": "notes__add"})
    bench.answer("notes", {"content": [{"type": "resource_link", "uri": "fresh://9"}]})
    bench.ask(session, 2, "resources/read", {"uri": "fresh://9"})
    assert bench.written["notes"][-1]["params"] == {"uri": "fresh://9"}


def test_view_shows_its_servers_only() -> None:
    bench = Bench(spec("time"), spec("notes"), views={"small": ("notes",)})
    bench.up("time", info("now"))
    bench.up("notes", info("add"))
    session = bench.open(View("view", "small"))
    tools = bench.one(bench.ask(session, 1, "tools/list"))["result"]["tools"]
    assert [tool["name"] for tool in tools] == ["notes__add"]
    assert error(bench.one(bench.ask(session, 2, "tools/call", {"name": "time__now"})))[0] == -32602
    with pytest.raises(NotFound):
        bench.open(View("view", "nothing"))
    with pytest.raises(NotFound):
        bench.open(View("server", "nothing"))


def test_lists_wait_a_while_for_servers_that_never_were_up() -> None:
    bench = Bench(spec("time"), spec("slow"))
    bench.up("time", info("now"))
    session = bench.open(ALL)
    early = bench.ask(session, 1, "tools/list")
    assert early not in bench.got
    bench.now += 6
    bench.run(bench.router.tick(bench.now))
    assert [tool["name"] for tool in bench.one(early)["result"]["tools"]] == ["time__now"]
    assert [tool["name"] for tool in bench.one(bench.ask(session, 2, "tools/list"))["result"]["tools"]] == ["time__now"]
    bench.up("slow", info("late"))
    later = bench.one(bench.ask(session, 3, "tools/list"))["result"]["tools"]
    assert [tool["name"] for tool in later] == ["time__now", "slow__late"]
    assert {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"} in bench.got["s1.push"]


def test_lists_that_wait_for_the_same_server_do_so_together() -> None:
    bench = Bench(spec("time"), spec("slow"))
    bench.up("time", info("now"))
    session = bench.open(ALL)
    first = bench.ask(session, 1, "tools/list")
    bench.now += 4
    second = bench.ask(session, 2, "prompts/list")
    bench.now += 1.5
    bench.run(bench.router.tick(bench.now))
    assert "result" in bench.one(first)
    assert "result" in bench.one(second)


def test_server_that_goes_for_good_leaves_the_lists_and_comes_back(bench: Bench) -> None:
    session = bench.open(ALL)
    bench.run(bench.router.presence.detach("notes", "exit"))
    tools = bench.one(bench.ask(session, 1, "tools/list"))["result"]["tools"]
    assert len(tools) == 4  # a restart does not make names come and go
    bench.run(bench.router.presence.absent("notes", "stopped", bench.now))
    assert len(bench.got["s1.push"]) == 3
    assert len(bench.one(bench.ask(session, 2, "tools/list"))["result"]["tools"]) == 2
    bench.run(bench.router.presence.coming("notes"))
    bench.up("notes", info("add", "echo", prompts=("sum",), resources=("a://1", "n://2")), generation=2)
    assert len(bench.one(bench.ask(session, 3, "tools/list"))["result"]["tools"]) == 4


def test_list_change_reaches_merged_views_once_it_is_known(bench: Bench) -> None:
    merged, single = bench.open(ALL), bench.open(TIME)
    bench.say("time", {"method": "notifications/tools/list_changed"})
    assert bench.others == [Stale("time", "tools")]
    assert bench.one(f"{single.id}.push")["method"] == "notifications/tools/list_changed"
    assert f"{merged.id}.push" not in bench.got
    bench.run(bench.router.presence.update_lists("time", info("now", "new").lists))
    assert bench.got[f"{merged.id}.push"][0]["method"] == "notifications/tools/list_changed"
    tools = bench.one(bench.ask(merged, 1, "tools/list"))["result"]["tools"]
    assert "time__new" in [tool["name"] for tool in tools]


def test_names_that_meet_or_are_too_long_are_told() -> None:
    bench = Bench(spec("a"), spec("a-b"), separator="-")
    bench.up("a", info("b-x", "y" * 70))
    bench.up("a-b", info("x"))
    session = bench.open(ALL)
    tools = [tool["name"] for tool in bench.one(bench.ask(session, 1, "tools/list"))["result"]["tools"]]
    assert tools[0] == "a-b-x"
    assert len(tools) == 2
    assert len(tools[1]) == 64
    notices = bench.router.notices(session)
    assert len(notices) == 2
    assert bench.router.notices(session) == []
    bench.ask(session, 2, "tools/call", {"name": tools[1]})
    assert bench.written["a"][0]["params"]["name"] == "y" * 70


def test_hidden_and_renamed_tools() -> None:
    bench = Bench(spec("time", tools={"deny": ("rm",), "rename": {"now": "clock"}}))
    bench.up("time", info("now", "rm", "echo"))
    for view, prefix in ((ALL, "time__"), (TIME, "")):
        session = bench.open(view)
        tools = bench.one(bench.ask(session, 1, "tools/list"))["result"]["tools"]
        assert [tool["name"] for tool in tools] == [f"{prefix}clock", f"{prefix}echo"]
        bench.ask(session, 2, "tools/call", {"name": f"{prefix}clock"})
        assert bench.written["time"].pop()["params"]["name"] == "now"
        for hidden in ("rm", "now"):
            sink = bench.ask(session, hidden, "tools/call", {"name": f"{prefix}{hidden}"})
            assert error(bench.one(sink))[0] == -32602
    assert bench.written["time"] == []


def test_only_allowed_tools_are_shown() -> None:
    bench = Bench(spec("time", tools={"allow": ("now",)}))
    bench.up("time", info("now", "echo"))
    session = bench.open(TIME)
    assert len(bench.one(bench.ask(session, 1, "tools/list"))["result"]["tools"]) == 1
    assert error(bench.one(bench.ask(session, 2, "tools/call", {"name": "echo"})))[0] == -32602


def test_reload_takes_servers_away_and_adds_them(bench: Bench) -> None:
    session, alone = bench.open(ALL), bench.open(View("server", "notes"))
    bench.run(bench.router.configure(registry(spec("time"), spec("fresh"))))
    assert error(bench.one(bench.ask(alone, 2, "tools/call", {"name": "add"})))[0] == -32000
    bench.up("fresh", info("new"))
    names = [tool["name"] for tool in bench.one(bench.ask(session, 3, "tools/list"))["result"]["tools"]]
    assert names == ["time__now", "time__echo", "fresh__new"]


def test_a_server_that_is_taken_away_finishes_the_calls_that_it_has(bench: Bench) -> None:
    session = bench.open(ALL, sampling={})
    first = bench.ask(session, 1, "tools/call", {"name": "notes__add"})
    bench.say("notes", {"id": "q", "method": "sampling/createMessage", "params": {}})
    second = bench.ask(session, 2, "tools/call", {"name": "notes__add"})
    bench.run(bench.router.configure(registry(spec("time"))))

    asked = bench.got[first][0]
    bench.tell(session, {"id": asked["id"], "result": {"role": "user"}})
    assert bench.written["notes"][-1] == {"jsonrpc": "2.0", "id": "q", "result": {"role": "user"}}
    bench.answer("notes", {"content": []}, 0)
    assert bench.got[first][-1]["result"] == {"content": []}

    bench.run(bench.router.presence.detach("notes", "removed from the registry"))
    assert "removed from the registry" in error(bench.one(second))[1]
    assert not bench.router.state.upstreams.keys() - {"time"}


def test_calls_that_wait_for_a_server_that_is_taken_away_fail() -> None:
    bench = Bench(spec("time"))
    bench.run(bench.router.presence.coming("time"))
    sink = bench.ask(bench.open(ALL), 1, "tools/call", {"name": "time__now"})
    bench.run(bench.router.configure(registry()))
    assert "removed" in error(bench.one(sink))[1]


def test_instructions_of_all_servers_are_shown() -> None:
    bench = Bench(spec("time"), spec("notes"))
    bench.up("time", info(instructions="Ask the time."))
    session = bench.open(ALL, initialize=False)
    sink = bench.ask(session, 1, "initialize", {"protocolVersion": "2025-06-18", "clientInfo": {"name": "c"}})
    result = bench.one(sink)["result"]
    assert result["instructions"] == "## time\n\nAsk the time."
    assert result["serverInfo"]["name"] == "mcpd"
    assert result["capabilities"]["tools"] == {"listChanged": True}
    assert session.client_info == {"name": "c"}


def test_pool_gives_calls_to_the_instance_with_the_fewest(bench: Bench) -> None:
    bench.up("time", key="time@2")
    session = bench.open(TIME)
    for id in range(4):
        bench.ask(session, id, "tools/call", {"name": "echo"})
    assert (len(bench.written["time"]), len(bench.written["time@2"])) == (2, 2)
    bench.router.presence.drain("time")
    bench.ask(session, 5, "tools/call", {"name": "echo"})
    assert len(bench.written["time@2"]) == 3


def test_what_a_child_says_may_be_for_a_call_that_was_given_up(bench: Bench) -> None:
    one, two = bench.open(TIME, sampling={}), bench.open(TIME, sampling={})
    bench.ask(one, 1, "tools/call", {"name": "echo"})
    bench.tell(one, {"method": "notifications/cancelled", "params": {"requestId": 1}})
    bench.now += 11
    bench.run(bench.router.tick(bench.now))
    sink = bench.ask(two, 1, "tools/call", {"name": "echo"})
    question = {"method": "sampling/createMessage", "params": {}}
    bench.say("time", {"id": "a", **question})
    assert error(bench.written["time"][-1])[0] == -32600
    bench.answer("time", {}, 0)  # now the child is done with the first call
    bench.say("time", {"id": "b", **question})
    assert bench.one(sink)["method"] == "sampling/createMessage"
