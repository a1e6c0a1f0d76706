"""Whatever JSON clients and servers say, in any order: nothing is raised but what callers expect, each request is
answered exactly once, and nothing is left behind.

Messages are put together at random out of the members and values that the router looks at, mostly in the wrong places.
"""

from __future__ import annotations

import json
import random
from dataclasses import replace
from typing import Any

import pytest

from mcpd.config.registry import ViewSpec
from mcpd.errors import Overloaded
from mcpd.routing.effects import Claim, Release, Timer
from mcpd.routing.sessions import Session
from mcpd.wire.address import View
from mcpd.wire.eras import Era
from mcpd.wire.jsonrpc import WireError, decode
from mcpd.wire.meta import request_meta
from support import routing
from support.routing import Bench, info, registry, spec

STEPS = 300


def words(text: str) -> list[str]:
    return text.split()


PREFIX = "io.modelcontextprotocol/"
WHO = f'"_meta":{{"{PREFIX}protocolVersion":"2026-07-28","{PREFIX}clientCapabilities":{{"sampling":{{}}}}}}'
ABLE: dict[str, Any] = {"sampling": {}, "elicitation": {}, "roots": {}}
VALUES = words(
    """
    1 0 -1 1.5 1e400 null true "x" "" "\\ud83d" "²" "mcpd:1000" "mcpd:²" "a://1" "mcpd+one:a://1" "one__echo"
    "echo" "files/{x}" "\\u0000" "debug" "ref/prompt" "ref/resource" "input_required" "search_tools" "call_tool"
    "describe_tool" "url" "roots/list" "sampling/createMessage" "elicitation/create"
    """
)
VALUES += ["9" * 5000, f'"{"x" * 70}"']
KEYS = words(
    """
    name arguments uri cursor _meta progressToken level ref type argument requestState inputResponses
    notifications resourceSubscriptions requestId progress query limit protocolVersion capabilities clientInfo
    inputRequests resultType method params contents content mode url code message tools data task
    """
)
METHODS = words(
    """
    initialize ping tools/list tools/call prompts/list prompts/get resources/list resources/read
    resources/subscribe resources/unsubscribe resources/templates/list completion/complete logging/setLevel
    server/discover tasks/list x/y
    """
)
NEEDED = {
    "tools/call": ("name", "arguments"),
    "prompts/get": ("name",),
    "resources/read": ("uri",),
    "resources/subscribe": ("uri",),
    "completion/complete": ("ref",),
    "logging/setLevel": ("level",),
}
NOTICES = words(
    """
    cancelled progress roots/list_changed initialized message resources/updated tools/list_changed
    subscriptions/acknowledged elicitation/complete x
    """
)
QUESTIONS = ["ping", "roots/list", "sampling/createMessage", "elicitation/create", "x/y"]
VIEWS = [View("all"), View("server", "one"), View("server", "new"), View("server", "own"), View("view", "small")]


class _Lenient:
    """What the bench reads JSON with: numbers of thousands of digits stay text."""

    @staticmethod
    def loads(frame: bytes) -> Any:
        return json.loads(frame, parse_int=lambda digits: int(digits) if len(digits) < 100 else digits)

    dumps = json.dumps


class Babel:
    """Servers of both eras, shared and not, and clients of both, all of whom talk nonsense."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        servers = (spec("one"), spec("two"), spec("new"), spec("own", sharing="session"))
        self.bench = Bench(*servers)
        compact = {"small": ViewSpec(name="small", servers=("one", "two"), compact=True)}
        self.bench.run(self.bench.router.configure(registry(*servers).model_copy(update={"views": compact})))
        known = info("echo", resources=("a://1",), templates=("files/{x}",), prompts=("echo",))
        self.bench.up("one", known)
        self.bench.up("two", known)
        self.bench.up("new", replace(info("echo"), era=Era.PER_REQUEST, server_info=b'{"name":"new"}'))
        self.bench.run(self.bench.router.presence.claimable("own", known, self.bench.now))
        self.sessions: list[Session] = []
        self.asked: dict[str, str] = {}  # sinks of requests that have to be answered, and whose they are
        self.number = 0

    def value(self, depth: int = 0) -> str:
        kind = self.chance.random()
        if depth > 3 or kind < 0.45:
            return self.chance.choice(VALUES)
        if kind < 0.6:
            return "[" + ",".join(self.value(depth + 1) for _ in range(self.chance.randrange(3))) + "]"
        return self.object(depth=depth + 1)

    def object(self, *needed: str, depth: int = 1, last: str = "") -> str:
        keys = [*needed, *self.chance.sample(KEYS, self.chance.randrange(4))]
        if self.chance.random() < 0.97:
            keys = list(dict.fromkeys(keys))
        members = [f'"{key}":{self.value(depth)}' for key in keys if not (last and key == "_meta")]
        return "{" + ",".join([*members, last] if last else members) + "}"

    def id(self, known: Any) -> Any:
        return self.chance.choice([self.chance.randrange(40), '"a"', *known])

    def step(self) -> None:
        self.number += 1
        self.bench.now += self.chance.choice([0, 0, 0, 0.05, 1, 40])
        steps = [self.a_session, self.a_request, self.a_newer_request, self.a_client_speaks, self.a_child_speaks]
        steps += [self.the_fleet_works, self.time_passes, self.a_session_ends]
        [step] = self.chance.choices(steps, [6, 36, 16, 16, 20, 3, 3, 2])
        step()

    def a_session(self) -> None:
        self.sessions.append(self.bench.open(self.chance.choice(VIEWS), **ABLE))

    def a_request(self) -> None:
        if not self.sessions:
            return
        session, method = self.chance.choice(self.sessions), self.chance.choice(METHODS)
        params = self.object(*NEEDED.get(method, ()))
        frame = f'{{"jsonrpc":"2.0","id":{self.id(())},"method":"{method}","params":{params}}}'
        self.submit(session, frame, f"{session.id}.{self.number}")

    def a_newer_request(self) -> None:
        method = self.chance.choice(METHODS)
        params = self.object(*NEEDED.get(method, ()), last=WHO)
        frame = f'{{"jsonrpc":"2.0","id":{self.number},"method":"{method}","params":{params}}}'
        try:
            client = request_meta(decode(frame.encode()).params)
        except WireError:
            return  # it is refused at the door
        assert client is not None
        view, who, sink = self.chance.choice(VIEWS), self.chance.choice("pq"), f"r{self.number}"
        router, at = self.bench.router, self.bench.now
        session = router.open_request(sink, view, who, "streamable-http", client, sink, at)
        self.submit(session, frame, sink)
        if self.chance.random() < 0.3:
            self.end(session)

    def submit(self, session: Session, frame: str, sink: str) -> None:
        message = decode(frame.encode())
        try:
            self.bench.run(self.bench.router.from_client(session, message, sink, self.bench.now))
        except Overloaded:
            return
        self.asked[sink] = session.id

    def a_client_speaks(self) -> None:
        if not self.sessions:
            return
        session = self.chance.choice(self.sessions)
        if self.chance.random() < 0.6:
            params = self.object("requestId", "progressToken")
            rest = f'"method":"notifications/{self.chance.choice(NOTICES)}","params":{params}'
        else:
            rest = f'"id":{self.id(session.asks)},"result":{self.value()}'
        message = decode(f'{{"jsonrpc":"2.0",{rest}}}'.encode())
        self.bench.run(self.bench.router.from_client(session, message, "none", self.bench.now))

    def a_child_speaks(self) -> None:
        upstream = self.chance.choice(list(self.bench.router.state.upstreams.values()))
        kind = self.chance.random()
        if kind < 0.5:
            known = [*upstream.calls] * 5
            outcome = self.chance.choice(["result", "error"])
            value = self.chance.choice([self.object("resultType", "inputRequests"), self.object("code"), self.value()])
            rest = f'"id":{self.id(known)},"{outcome}":{value}'
        elif kind < 0.75:
            rest = f'"id":{self.id(())},"method":"{self.chance.choice(QUESTIONS)}","params":{self.object()}'
        else:
            rest = (
                f'"method":"notifications/{self.chance.choice(NOTICES)}","params":{self.object("uri", "progressToken")}'
            )
        try:
            message = decode(f'{{"jsonrpc":"2.0",{rest}}}'.encode())
            self.bench.run(self.bench.router.from_instance(upstream, message, self.bench.now))
        except WireError:
            pass  # it goes to the server's log

    def the_fleet_works(self) -> None:
        """Timers fire; instances are given to those who claimed one, and taken from those who gave theirs back."""
        router, effects, self.bench.others = self.bench.router, self.bench.others, []
        for effect in effects:
            having = {one.party: one.key for one in router.state.upstreams.values()}
            if isinstance(effect, Timer):
                self.bench.run(router.timer(effect.call, self.bench.now))
            elif isinstance(effect, Claim) and effect.party not in having:
                self.number += 1
                key, party = f"own#{self.number}", effect.party
                self.bench.run(router.presence.attach(key, "own", 1, info("echo"), self.bench.now, party))
            elif isinstance(effect, Release) and effect.party in having:
                self.bench.run(router.presence.detach(having[effect.party], "it was given back"))

    def time_passes(self) -> None:
        self.bench.run(self.bench.router.tick(self.bench.now))

    def a_session_ends(self) -> None:
        if self.sessions:
            self.end(self.sessions.pop(self.chance.randrange(len(self.sessions))))

    def end(self, session: Session) -> None:
        self.bench.run(self.bench.router.close_session(session, self.bench.now))
        assert session.calls == {}
        self.asked = {sink: id for sink, id in self.asked.items() if id != session.id}

    def check(self) -> None:
        """Long after, all is as if nothing had been."""
        for _ in range(12):
            self.bench.now += 400
            self.the_fleet_works()
            self.time_passes()
        unanswered = [sink for sink in self.asked if sink not in self.bench.final and sink not in self.bench.ended]
        assert unanswered == []
        assert [sink for sink, times in self.bench.final.items() if times > 1] == []
        for upstream in self.bench.router.state.upstreams.values():
            assert (upstream.active, upstream.calls, upstream.asks) == (0, {}, {})
        for account in self.bench.router.state.accounts.values():
            assert account.in_flight == 0


@pytest.mark.parametrize("seed", range(12))
def test_nonsense_breaks_nothing(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routing, "json", _Lenient)
    babel = Babel(seed)
    for _ in range(STEPS):
        babel.step()
    babel.check()
