"""The router under random interleavings of clients, children and deaths.

Every request gets exactly one answer (or its end), nothing reaches a session that it does not belong to, and when
everybody is gone nothing is pending.
"""

from __future__ import annotations

import json
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mcpd.errors import Overloaded
from mcpd.routing.sessions import Session
from mcpd.wire.address import View
from mcpd.wire.jsonrpc import decode
from support.routing import Bench, info, spec

VIEWS = [View("all"), View("server", "a"), View("server", "b")]
SERVERS = ["a", "b"]
CALL_TIME = 300.0  # a child may be at work for a call as long as that, also for one that was cancelled


class Traffic(RuleBasedStateMachine):
    """Each call carries its session's name; children put it into everything that they send for that call."""

    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench(*(spec(name) for name in SERVERS))
        self.sessions: list[Session] = []
        self.closed: list[Session] = []
        self.asked: dict[str, int] = {}  # sink -> requests made with it
        self.cancelled: set[str] = set()
        self.answered: dict[str, set[int]] = {name: set() for name in SERVERS}
        self.generation = 0
        self.next_id = 0

    @initialize()
    def begin(self) -> None:
        for name in SERVERS:
            self.start(name)

    def start(self, name: str) -> None:
        self.generation += 1
        self.bench.up(name, info("echo", resources=(f"{name}://r",)), generation=self.generation)

    def alive(self, name: str) -> bool:
        return name in self.bench.router.state.upstreams

    @rule(view=st.sampled_from(VIEWS), able=st.booleans())
    def open(self, view: View, able: bool) -> None:
        if len(self.sessions) >= 4 or (view.kind == "server" and not self.alive(view.name)):
            return
        session = self.bench.open(view, **({"sampling": {}} if able else {}))
        self.sessions.append(session)

    @precondition(lambda self: self.sessions)
    @rule(data=st.data(), server=st.sampled_from(SERVERS), token=st.booleans(), text_id=st.booleans())
    def call(self, data: st.DataObject, server: str, token: bool, text_id: bool) -> None:
        session = data.draw(st.sampled_from(self.sessions))
        self.next_id += 1
        id = str(self.next_id) if text_id else self.next_id
        name = f"{server}__echo" if session.prefixed else "echo"
        params: dict[str, Any] = {"name": name, "arguments": {"whose": session.id}}
        if token:
            params["_meta"] = {"progressToken": f"token of {session.id}"}
        sink = f"{session.id}.{id}"
        params["arguments"]["at"] = self.bench.now
        try:
            self.bench.ask(session, id, "tools/call", params)
        except Overloaded:
            return
        self.asked[sink] = self.asked.get(sink, 0) + 1

    def requests(self, server: str) -> list[dict[str, Any]]:
        """What the child has been sent and has not answered."""
        return [
            message
            for message in self.bench.written.get(server, [])
            if message.get("method") == "tools/call" and message["id"] not in self.answered[server]
        ]

    def whose(self, message: dict[str, Any]) -> str:
        return str(message["params"]["arguments"]["whose"])

    @rule(data=st.data(), server=st.sampled_from(SERVERS), twice=st.booleans())
    def child_answers(self, data: st.DataObject, server: str, twice: bool) -> None:
        if not self.alive(server) or not (open_requests := self.requests(server)):
            return
        message = data.draw(st.sampled_from(open_requests))
        for _ in range(2 if twice else 1):
            self.bench.say(server, {"id": message["id"], "result": {"for": self.whose(message)}})
        self.answered[server].add(message["id"])

    @rule(server=st.sampled_from(SERVERS), id=st.one_of(st.integers(-2, 50), st.text(max_size=3)))
    def child_answers_what_nobody_asked(self, server: str, id: int | str) -> None:
        known = {message["id"] for message in self.bench.written.get(server, []) if "id" in message}
        if self.alive(server) and id not in known:
            self.bench.say(server, {"id": id, "result": {"for": "nobody"}})

    @rule(data=st.data(), server=st.sampled_from(SERVERS))
    def child_reports_progress(self, data: st.DataObject, server: str) -> None:
        if not self.alive(server) or not (open_requests := self.requests(server)):
            return
        message = data.draw(st.sampled_from(open_requests))
        token = message["params"].get("_meta", {}).get("progressToken", message["id"])
        params = {"progressToken": token, "progress": 1, "for": self.whose(message)}
        self.bench.say(server, {"method": "notifications/progress", "params": params})

    @rule(data=st.data(), server=st.sampled_from(SERVERS), kind=st.sampled_from(["ask", "log", "vendor"]))
    def child_speaks_up(self, data: st.DataObject, server: str, kind: str) -> None:
        """For one of its calls, without saying for which: it can only go to that call's session, or nowhere."""
        fresh = [one for one in self.requests(server) if self.bench.now - one["params"]["arguments"]["at"] < CALL_TIME]
        if not self.alive(server) or not (open_requests := fresh):
            return
        whose = self.whose(data.draw(st.sampled_from(open_requests)))
        self.next_id += 1
        if kind == "ask":
            params = {"for": whose}
            self.bench.say(server, {"id": f"q{self.next_id}", "method": "sampling/createMessage", "params": params})
        elif kind == "log":
            params = {"level": "error", "data": "x", "for": whose}
            self.bench.say(server, {"method": "notifications/message", "params": params})
        else:
            self.bench.say(server, {"method": "notifications/vendor", "params": {"for": whose}})

    @precondition(lambda self: self.sessions)
    @rule(data=st.data())
    def client_answers(self, data: st.DataObject) -> None:
        session = data.draw(st.sampled_from(self.sessions))
        if session.asks:
            number = data.draw(st.sampled_from(sorted(session.asks)))
            self.bench.tell(session, {"id": number, "result": {"by": session.id}})

    @precondition(lambda self: len(self.sessions) > 1)
    @rule(data=st.data())
    def client_answers_for_another(self, data: st.DataObject) -> None:
        session, other = data.draw(st.permutations(self.sessions))[:2]
        before = json.dumps(self.bench.written)
        for number in other.asks:
            self.bench.tell(session, {"id": number, "result": {"by": session.id}})
        assert json.dumps(self.bench.written) == before

    @precondition(lambda self: self.sessions)
    @rule(data=st.data())
    def client_cancels(self, data: st.DataObject) -> None:
        session = data.draw(st.sampled_from(self.sessions))
        if session.calls:
            id = data.draw(st.sampled_from(sorted(session.calls)))
            self.cancelled.add(f"{session.id}.{json.loads(id)}")
            frame = b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":%b}}' % id
            self.bench.run(self.bench.router.from_client(session, decode(frame), "none", self.bench.now))

    @precondition(lambda self: self.sessions)
    @rule(data=st.data())
    def client_leaves(self, data: st.DataObject) -> None:
        session = data.draw(st.sampled_from(self.sessions))
        self.sessions.remove(session)
        self.closed.append(session)
        self.seen_at_close = json.dumps(self.messages_of(session))
        self.bench.run(self.bench.router.close_session(session, self.bench.now))
        assert json.dumps(self.messages_of(session)) == self.seen_at_close

    @rule(server=st.sampled_from(SERVERS), comes_back=st.booleans())
    def child_dies(self, server: str, comes_back: bool) -> None:
        self.bench.run(self.bench.router.presence.detach(server, "signal KILL"))
        self.answered[server] |= {message["id"] for message in self.requests(server)}
        if comes_back:
            self.bench.run(self.bench.router.presence.coming(server))
        else:
            self.bench.run(self.bench.router.presence.absent(server, "it is down", self.bench.now))

    @rule(server=st.sampled_from(SERVERS))
    def child_starts(self, server: str) -> None:
        if not self.alive(server):
            self.start(server)

    @rule(seconds=st.sampled_from([1, 20, 150, 400]))
    def time_passes(self, seconds: int) -> None:
        self.bench.now += seconds
        self.bench.run(self.bench.router.tick(self.bench.now))

    def messages_of(self, session: Session) -> list[Any]:
        return [m for sink, got in self.bench.got.items() if sink.startswith(f"{session.id}.") for m in got]

    @invariant()
    def nothing_reaches_another_session(self) -> None:
        for sink, messages in self.bench.got.items():
            owner = sink.split(".")[0]
            for message in messages:
                inside = message.get("result") or message.get("params") or {}
                assert inside.get("for", owner) == owner, (sink, message)
        for server in SERVERS:
            for message in self.bench.written.get(server, []):
                if "result" in message and "by" in message["result"]:
                    assert message["id"].startswith("q")

    @invariant()
    def no_request_has_two_answers(self) -> None:
        for sink, count in self.bench.final.items():
            assert count <= self.asked.get(sink, 1)

    def teardown(self) -> None:
        for server in SERVERS:
            self.bench.run(self.bench.router.presence.detach(server, "the end"))
            self.bench.run(self.bench.router.presence.absent(server, "the end", self.bench.now))
        left = {session.id for session in self.closed}
        for sink, count in self.asked.items():
            if sink.split(".")[0] not in left:
                ends = self.bench.final.get(sink, 0) + self.bench.ended.count(sink)
                assert ends == count, f"{sink}: {ends} ends of {count} requests"
        for session in self.sessions:
            assert session.calls == {}
            assert session.asks == {}
            self.bench.run(self.bench.router.close_session(session, self.bench.now))
        state = self.bench.router.state
        assert state.upstreams == {}
        assert state.sessions == {}
        assert state.subscriptions == {}
        assert all(not server.waiting or all(call.over for call in server.waiting) for server in state.servers.values())


TestTraffic = Traffic.TestCase
TestTraffic.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
