"""Many clients of both eras in front of shared servers of both eras and of servers of their own.

Whatever the order of calls, questions, answers, retries, deaths and departures: what is said for one client's call
reaches that client's call, or nobody. Every message names its owner in a member `for`.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mcpd.errors import Overloaded
from mcpd.routing.effects import Claim, Release, Timer
from mcpd.routing.sessions import Session
from mcpd.wire.address import View
from mcpd.wire.eras import Era
from mcpd.wire.jsonrpc import decode
from mcpd.wire.meta import request_meta
from support.routing import Bench, info, spec

PREFIX = "io.modelcontextprotocol/"
ABLE = {"sampling": {}}
OLDER, NEWER, OWN = "older", "newer", "own"
ALL = View("all")
VIEWS = [ALL, *(View("server", name) for name in (OLDER, NEWER, OWN))]
CALL_TIME = 300.0  # a child may be at work for a call as long as that, also for one that was cancelled


class Attribution(RuleBasedStateMachine):
    """`owner` of a sink: whose messages it may get, a session's or those of one per-request call with its retries."""

    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench(spec(OLDER), spec(NEWER), spec(OWN, sharing="session"))
        self.about = {
            OLDER: info("echo"),
            NEWER: replace(info("echo"), era=Era.PER_REQUEST),
            OWN: info("echo"),
        }
        self.sessions: list[Session] = []
        self.requests: list[Session] = []  # of the per-request era, while they last
        self.owner: dict[str, str] = {}
        self.parked: list[tuple[str, str, View, dict[str, Any], str]] = []  # principal, handle, view, params, owner
        self.claims: list[Claim] = []
        self.own_party: dict[str, str] = {}  # instance -> party
        self.done: set[int] = set()
        self.number = 0

    @initialize()
    def begin(self) -> None:
        self.start(OLDER)
        self.start(NEWER)
        self.bench.run(self.bench.router.presence.claimable(OWN, self.about[OWN], self.bench.now))

    def start(self, name: str) -> None:
        self.bench.up(name, self.about[name])

    def fresh(self) -> int:
        self.number += 1
        return self.number

    # clients

    @rule(view=st.sampled_from(VIEWS), able=st.booleans())
    def open(self, view: View, able: bool) -> None:
        server = self.bench.router.state.servers.get(view.name)
        if len(self.sessions) < 4 and (server is None or server.info is not None):
            session = self.bench.open(view, **(ABLE if able else {}))
            self.owner[f"{session.id}.push"] = session.id
            self.sessions.append(session)

    def params(self, view: View, server: str, owner: str) -> dict[str, Any]:
        name = f"{server}__echo" if view is ALL else "echo"
        return {"name": name, "arguments": {"whose": owner, "at": self.bench.now}}

    @precondition(lambda self: self.sessions)
    @rule(data=st.data(), server=st.sampled_from([OLDER, NEWER, OWN]))
    def call(self, data: st.DataObject, server: str) -> None:
        session = data.draw(st.sampled_from(self.sessions))
        if session.view is not ALL:
            server = session.view.name
        id = self.fresh()
        self.owner[f"{session.id}.{id}"] = session.id
        try:
            self.bench.ask(session, id, "tools/call", self.params(session.view, server, session.id))
        except Overloaded:
            return

    @rule(
        who=st.sampled_from(["p", "q"]),
        view=st.sampled_from(VIEWS),
        server=st.sampled_from([OLDER, NEWER, OWN]),
        able=st.booleans(),
    )
    def request(self, who: str, view: View, server: str, able: bool) -> None:
        owner = f"{who}{self.fresh()}"
        self.send(who, view, self.params(view, view.name or server, owner), owner, ABLE if able else {})

    def send(self, who: str, view: View, params: dict[str, Any], owner: str, able: dict[str, Any]) -> str:
        id = self.fresh()
        sink = f"{who}.{id}"
        self.owner[sink] = owner
        meta = {PREFIX + "protocolVersion": "2026-07-28", PREFIX + "clientCapabilities": able}
        body = {"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {**params, "_meta": meta}}
        message = decode(json.dumps(body).encode())
        client = request_meta(message.params)
        assert client is not None
        router = self.bench.router
        session = router.open_request(f"r{id}", view, who, "streamable-http", client, sink, self.bench.now)
        self.requests.append(session)
        self.bench.run(router.from_client(session, message, sink, self.bench.now))
        self.note_parked(who, view, params, sink)
        return sink

    def note_parked(self, who: str, view: View, params: dict[str, Any], sink: str) -> None:
        for message in self.bench.got.get(sink, []):
            state = message.get("result", {}).get("requestState")
            known = [handle for _, handle, *_ in self.parked]
            if state is not None and state.startswith("mcpd:") and state not in known:
                asked = {key: value for key, value in params.items() if key not in ("requestState", "inputResponses")}
                self.parked.append((who, state, view, asked, self.owner[sink]))

    @rule()
    def windows_close(self) -> None:
        timers = [effect for effect in self.bench.others if isinstance(effect, Timer)]
        self.bench.others = [effect for effect in self.bench.others if not isinstance(effect, Timer)]
        for timer in timers:
            call = timer.call
            sink, session = call.sink, call.session
            params = json.loads(bytes(call.message.params)) if call.message is not None else {}
            params.pop("_meta", None)
            self.bench.run(self.bench.router.timer(call, self.bench.now))
            if session.era is Era.PER_REQUEST:
                self.note_parked(session.principal, session.view, params, sink)

    @rule(who=st.sampled_from(["p", "q"]), view=st.sampled_from([ALL, View("server", OLDER)]))
    def call_that_is_asked_something(self, who: str, view: View) -> None:
        """All that it takes to park a call, in one step: it is rare by chance."""
        if OLDER not in self.bench.router.state.upstreams:
            return
        owner = f"{who}{self.fresh()}"
        self.send(who, view, self.params(view, OLDER, owner), owner, ABLE)
        sent = [message for instance, message in self.at_work() if instance == OLDER]
        if sent and sent[-1]["params"]["arguments"]["whose"] == owner:
            question = {"id": f"q{self.fresh()}", "method": "sampling/createMessage", "params": {"for": owner}}
            self.bench.say(OLDER, question)
            self.windows_close()

    @precondition(lambda self: self.parked)
    @rule(data=st.data(), thief=st.booleans(), complete=st.booleans())
    def retry(self, data: st.DataObject, thief: bool, complete: bool) -> None:
        entry = data.draw(st.sampled_from(self.parked))
        who, handle, view, params, owner = entry
        answers = {str(number): {"for": owner} for number in range(self.number + 200)} if complete else {}
        if thief:
            stolen = self.send("q" if who == "p" else "p", view, {**params, "requestState": handle}, "thief", ABLE)
            assert "error" in self.bench.got[stolen][0], "a handle is good for nobody else"
            return
        self.parked.remove(entry)
        self.send(who, view, {**params, "requestState": handle, "inputResponses": answers}, owner, ABLE)

    @precondition(lambda self: self.sessions)
    @rule(data=st.data())
    def client_answers(self, data: st.DataObject) -> None:
        session = data.draw(st.sampled_from(self.sessions))
        if session.asks:
            number = data.draw(st.sampled_from(sorted(session.asks)))
            self.bench.tell(session, {"id": number, "result": {"for": session.id}})

    @precondition(lambda self: self.sessions)
    @rule(data=st.data())
    def client_cancels(self, data: st.DataObject) -> None:
        session = data.draw(st.sampled_from(self.sessions))
        if session.calls:
            id = data.draw(st.sampled_from(sorted(session.calls)))
            self.bench.tell(session, {"method": "notifications/cancelled", "params": {"requestId": json.loads(id)}})

    @precondition(lambda self: self.sessions)
    @rule(data=st.data())
    def session_ends(self, data: st.DataObject) -> None:
        session = data.draw(st.sampled_from(self.sessions))
        self.sessions.remove(session)
        self.bench.run(self.bench.router.close_session(session, self.bench.now))

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def stream_is_closed(self, data: st.DataObject) -> None:
        session = data.draw(st.sampled_from(self.requests))
        self.requests.remove(session)
        self.bench.run(self.bench.router.close_session(session, self.bench.now))

    # children

    def at_work(self, fresh: bool = False) -> list[tuple[str, dict[str, Any]]]:
        """(instance, request) of what children have been sent and not answered."""
        found = []
        for instance in self.bench.router.state.upstreams:
            for message in self.bench.written.get(instance, []):
                if message.get("method") != "tools/call" or message["id"] in self.done:
                    continue
                if not fresh or self.bench.now - message["params"]["arguments"]["at"] < CALL_TIME:
                    found.append((instance, message))
        return found

    @rule(data=st.data(), asks=st.booleans())
    def child_answers(self, data: st.DataObject, asks: bool) -> None:
        if not (open_calls := self.at_work()):
            return
        instance, message = data.draw(st.sampled_from(open_calls))
        owner = message["params"]["arguments"]["whose"]
        result: dict[str, Any] = {"for": owner}
        if instance == NEWER and asks:
            question = {"method": "sampling/createMessage", "params": {"for": owner}}
            result = {
                "for": owner,
                "resultType": "input_required",
                "requestState": "s",
                "inputRequests": {"k": question},
            }
        elif instance == NEWER:
            result["resultType"] = "complete"
        self.done.add(message["id"])
        self.bench.say(instance, {"id": message["id"], "result": result})

    @rule(data=st.data(), kind=st.sampled_from(["ask", "log", "vendor"]))
    def child_speaks_up(self, data: st.DataObject, kind: str) -> None:
        """For one of its calls, without saying for which."""
        if not (open_calls := self.at_work(fresh=True)):
            return
        instance, message = data.draw(st.sampled_from(open_calls))
        owner = message["params"]["arguments"]["whose"]
        if kind == "ask":
            question = {"id": f"q{self.fresh()}", "method": "sampling/createMessage", "params": {"for": owner}}
            self.bench.say(instance, question)
        elif kind == "log":
            params = {"level": "error", "data": "x", "for": owner}
            self.bench.say(instance, {"method": "notifications/message", "params": params})
        else:
            self.bench.say(instance, {"method": "notifications/vendor", "params": {"for": owner}})

    # the fleet

    @rule(fails=st.booleans())
    def claims_are_met(self, fails: bool) -> None:
        claims = [effect for effect in self.bench.others if isinstance(effect, Claim)]
        self.bench.others = [effect for effect in self.bench.others if not isinstance(effect, Claim)]
        for claim in claims:
            if fails:
                self.bench.run(self.bench.router.presence.unclaimed(OWN, claim.party, "no"))
                continue
            key = f"own#{self.fresh()}"
            self.own_party[key] = claim.party
            router = self.bench.router
            self.bench.run(router.presence.attach(key, OWN, 1, self.about[OWN], self.bench.now, claim.party))

    @rule()
    def released_instances_end(self) -> None:
        released = {effect.party for effect in self.bench.others if isinstance(effect, Release)}
        self.bench.others = [effect for effect in self.bench.others if not isinstance(effect, Release)]
        for key, party in tuple(self.own_party.items()):
            if party in released:
                self.end_instance(key)

    def end_instance(self, key: str) -> None:
        self.bench.run(self.bench.router.presence.detach(key, "the end"))
        self.done |= {
            message["id"] for message in self.bench.written.get(key, []) if "id" in message and "method" in message
        }
        self.own_party.pop(key, None)

    @rule(data=st.data())
    def child_dies(self, data: st.DataObject) -> None:
        alive = sorted(self.bench.router.state.upstreams)
        if alive:
            self.end_instance(data.draw(st.sampled_from(alive)))

    @rule(name=st.sampled_from([OLDER, NEWER]))
    def child_starts(self, name: str) -> None:
        if name not in self.bench.router.state.upstreams:
            self.start(name)

    @rule(seconds=st.sampled_from([1, 20, 130, 400]))
    def time_passes(self, seconds: int) -> None:
        self.bench.now += seconds
        self.bench.run(self.bench.router.tick(self.bench.now))

    @invariant()
    def nothing_reaches_another(self) -> None:
        for sink, messages in self.bench.got.items():
            owner = self.owner.get(sink, sink.split(".")[0])
            for message in messages:
                for inside in insides(message):
                    given = inside.get("for", owner)
                    assert given == owner or alike(given, owner), (sink, owner, message)

    @invariant()
    def answers_of_clients_reach_the_child_that_asked(self) -> None:
        for instance, messages in self.bench.written.items():
            party = self.own_party.get(instance)
            for message in messages:
                given = message.get("result", {}).get("for")
                if given is not None and party is not None:
                    assert given == party or given[0] == party[0], (instance, party, message)

    def teardown(self) -> None:
        for key in tuple(self.bench.router.state.upstreams):
            self.end_instance(key)
        for name in (OLDER, NEWER, OWN):
            self.bench.run(self.bench.router.presence.absent(name, "the end", self.bench.now))
        self.bench.now += 4000
        self.bench.run(self.bench.router.tick(self.bench.now))
        for session in (*self.sessions, *self.requests):
            self.bench.run(self.bench.router.close_session(session, self.bench.now))
            assert session.calls == {}
        state = self.bench.router.state
        assert state.upstreams == {}
        assert state.sessions == {}


def alike(one: str, other: str) -> bool:
    """Whether two per-request calls are of one principal. While one of them is parked, what its child says can go to
    the other: nothing tells them apart, and both are that principal's."""
    return one[0] == other[0] and one[0] in "pq"


def insides(message: dict[str, Any]) -> list[dict[str, Any]]:
    """The objects of a message in which an owner may be named."""
    found = [message.get("params") or {}, message.get("result") or {}]
    for question in found[1].get("inputRequests", {}).values():
        found.append(question.get("params", {}))  # noqa: PERF401
    return [one for one in found if isinstance(one, dict)]


TestAttribution = Attribution.TestCase
TestAttribution.settings = settings(max_examples=80, stateful_step_count=60, deadline=None)
