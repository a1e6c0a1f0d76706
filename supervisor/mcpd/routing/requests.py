"""What comes from a client: answered here, handed to the instance that it is for, or kept until one is there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from mcpd.errors import Overloaded, TooMany
from mcpd.routing import compact
from mcpd.routing.correlation import Call, Parking, Phase, Rounds, Server, Upstream
from mcpd.routing.effects import Claim, Deliver, Effect, Wake, WriteLine
from mcpd.routing.info import ListKind
from mcpd.routing.ledger import name_of, named, outcome_of, refusal_of
from mcpd.routing.listening import MAX_URIS, Subscriptions
from mcpd.routing.parking import ParkingLot, handle_of
from mcpd.routing.rewriting import linked_uris, mint_token, rename_contents, single_initialize
from mcpd.routing.sessions import Session
from mcpd.routing.state import FIRST_LISTS_WAIT, MAX_UPSTREAM_CALLS, MAX_WAITING, WAIT_FOR_SERVER, State
from mcpd.routing.targets import Targets
from mcpd.wire import eras, meta, methods
from mcpd.wire.eras import Era
from mcpd.wire.jsonrpc import (
    Bytes,
    Message,
    WireError,
    dump,
    error,
    members,
    pack,
    request,
    result,
    text_at,
    value_of,
)

Handler = Callable[[Call, Message, float], Sequence[Effect]]
EMPTY = b"{}"
BACKSLASH = ord("\\")
OF_TOOLS = frozenset({"tools", "logging"})  # capabilities of which a client has use that may use tools only
# A view of several servers claims all of these, so that a server that is added, or comes up late, is of use to
# clients that read capabilities only once.
MERGED_CAPABILITIES = (
    b'{"completions":{},"logging":{},"prompts":{"listChanged":true},'
    b'"resources":{"listChanged":true,"subscribe":true},"tools":{"listChanged":true}}'
)
EVERYTHING_ASKED = b'{"sampling":{},"elicitation":{"form":{},"url":{}},"roots":{"listChanged":true}}'
MARK_OF_RESOURCE = b'"resource'  # in a result: there may be links to resources, or resources themselves


class Requests:
    """Everything on its way up. `awaiting_lists` holds list requests until the servers are there, by deadline."""

    def __init__(self, state: State, parking: ParkingLot) -> None:
        self._state = state
        self._parking = parking
        self._targets = Targets(state)
        self.subscriptions = Subscriptions(state, self._targets.resource_in_view)
        self.awaiting_lists: list[Call] = []
        self._common: dict[str, Handler] = {
            methods.INITIALIZE: self._initialize,
            methods.PING: self._ping,
            methods.SET_LEVEL: self._set_level,
            methods.SUBSCRIBE: self._subscribe,
            methods.UNSUBSCRIBE: self._unsubscribe,
        }
        self._lists: dict[str, Handler] = {
            methods.TOOLS_LIST: self._list("tools"),
            methods.PROMPTS_LIST: self._list("prompts"),
            methods.RESOURCES_LIST: self._list("resources"),
            methods.TEMPLATES_LIST: self._list("templates"),
        }
        self._of_merged: dict[str, Handler] = {
            **self._common,
            **self._lists,
            methods.TOOLS_CALL: self._call_tool,
            methods.PROMPTS_GET: self._get_prompt,
            methods.RESOURCES_READ: self._read_resource,
            methods.COMPLETE: self._complete,
        }
        ruled: dict[str, Handler] = {methods.TOOLS_LIST: self._list("tools"), methods.TOOLS_CALL: self._call_tool}
        self._of_ruled: dict[str, Handler] = {**self._common, **ruled}
        self._of_held: dict[str, Handler] = {
            methods.PROMPTS_LIST: self._list("prompts"),
            methods.TEMPLATES_LIST: self._list("templates"),
            methods.PROMPTS_GET: self._get_prompt,
        }
        # the per-request era has other methods of its own, and not those of the handshake
        newer: dict[str, Handler] = {
            **dict.fromkeys(self._common, self._unknown),
            methods.DISCOVER: self._discover,
            methods.LISTEN: self._listen,
        }
        self._of_merged_newer: dict[str, Handler] = {**self._of_merged, **newer}
        self._of_ruled_newer: dict[str, Handler] = {**ruled, **newer}
        self._newer = newer

    def handle(self, call: Call, message: Message, at: float) -> Sequence[Effect]:
        """Deal with a request that is in `call.session.calls`; whatever is wrong with it becomes its answer."""
        session = call.session
        method = message.method
        newer = session.era is Era.PER_REQUEST
        if session.protocol_version is None and method not in (methods.INITIALIZE, methods.PING):
            return self.fail(call, methods.INVALID_REQUEST, f"{method} before initialize: send initialize first")
        try:
            if newer and method in methods.INTERACTIVE and (handle := handle_of(message)) is not None:
                resumed = self._parking.resume(call, handle, message, at)
                if resumed is None:
                    why = "requestState: not known (any more), or not for this request; call again without it"
                    return self.fail(call, methods.INVALID_PARAMS, why)
                return resumed
            if session.prefixed:
                handler = (self._of_merged_newer if newer else self._of_merged).get(method, self._unknown)
                return handler(call, message, at)
            server = self._state.servers.get(session.view.name)
            if server is None or server.name not in session.servers:
                return self.fail(
                    call, methods.SERVER_UNAVAILABLE, f"server {session.view.name!r} is not there any more"
                )
            sight = session.sight
            ruled = server.rules is not None or server.hold is not None
            if not ruled and (sight is None or server.name not in sight.tools):
                known = (self._newer if newer else self._common).get(method)
            else:
                known = (self._of_ruled_newer if newer else self._of_ruled).get(method)
            if known is not None:
                return known(call, message, at)
            if sight is not None and server.name in sight.partial:  # its tools were granted, and nothing else
                return self._unknown(call, message, at)
            if server.hold is not None and method in self._of_held:
                return self._of_held[method](call, message, at)
            if method.startswith("tasks/") and server.shared:  # its lists would show one client's tasks to another
                return self._unknown(call, message, at)
            if server.phase is Phase.IDLE and method in self._lists:  # known, without starting it
                return self._lists[method](call, message, at)
            if self._state.journal is not None and method in methods.INTERACTIVE:
                call.name = name_of(method, message.given) if newer else named(method, bytes(message.params))
            return self.forward(call, server, message, bytes(message.params), at, message.given if newer else None)
        except WireError as problem:  # the envelope was right: it is the params
            return self.fail(call, methods.INVALID_PARAMS, f"{method}: {problem.message}")

    def forward(
        self,
        call: Call,
        server: Server,
        message: Message,
        params: bytes,
        at: float,
        found: Mapping[str, Bytes] | None = None,
    ) -> Sequence[Effect]:
        """Hand a request to an instance of a server, or keep it until there is one that can take it. `found`: the
        members of `params`, where they are known."""
        session = call.session
        call.server = server.name
        upstream = server.pick(session)
        if upstream is None or (server.interactive and upstream.is_held_from(session)):
            return self._wait(call, server, message, at)
        if not server.shared:
            server.claims[session.party] = at
        if len(upstream.calls) >= MAX_UPSTREAM_CALLS:
            raise self._overloaded(call, f"server {server.name!r} has {MAX_UPSTREAM_CALLS} calls in flight")
        if server.metered:
            self._charge(call, server, at)
        if self._state.journal_arguments:
            call.arguments = params
        call.message = None
        if upstream.era is not session.era:
            if upstream.era is Era.HANDSHAKE:
                assert session.client is not None
                params = meta.without_client(params, session.client, members(params) if found is None else found)
                if call.method in methods.INTERACTIVE:
                    call.message = message
                    call.parking = Parking()
            else:
                call.rounds = Rounds(server, message.method, params, bytes(message.extra))
        server.calls_total += 1
        return self.send(call, upstream, message.method, params, message.extra, at)

    def _charge(self, call: Call, server: Server, at: float) -> None:
        """Take a request out of its client's bucket for this server, and out of the server's own. If one is empty
        nothing is taken: raises TooMany, or Overloaded."""
        state = self._state
        interval = state.request_interval
        theirs = call.session.account.bucket(server.name)
        if interval and (wait := theirs.wait(at, interval, state.request_burst)):
            state.counters.limited["rate"] += 1
            state.done(call, "overloaded")
            why = f"more than {1 / interval:g} requests a second to server {server.name!r}"
            raise TooMany(why, wait, limit="rate")
        if server.interval and (wait := server.bucket.wait(at, server.interval, server.burst)):
            state.counters.limited["server-rate"] += 1
            state.done(call, "overloaded")
            why = f"server {server.name!r} takes {1 / server.interval:g} requests a second, of all clients together"
            raise Overloaded(why, wait, limit="server-rate")
        if interval:
            theirs.take(at, interval)
        if server.interval:
            server.bucket.take(at, server.interval)

    def send(
        self, call: Call, upstream: Upstream, method: str, params: bytes, extra: Bytes, at: float
    ) -> Sequence[Effect]:
        """Write a request to an instance, under an id and a progress token of ours."""
        number = self._state.next_id()
        if _may_have_token(call.session.client, params):
            params = mint_token(call, number, params)
        if call.rounds is not None:
            session = call.session
            level = methods.LOG_LEVELS[session.level] if session.level is not None else None
            capabilities, about = pack(session.capabilities), dump(session.client_info)
            params = meta.with_client(params, capabilities, about, eras.PER_REQUEST_REVISIONS[-1], level)
        timeout = upstream.server.call_timeout
        call.deadline = at + timeout
        call.hard_deadline = call.hard_deadline or at + max(self._state.max_call_time, timeout)
        upstream.begin(number, call)
        return (WriteLine(upstream.key, request(b"%d" % number, method, params, extra), number),)

    def fail(self, call: Call, code: int, why: str) -> Sequence[Effect]:
        """Answer a call with an error."""
        self._state.done(call, refusal_of(code), code)
        call.over = True
        if call.session.era is Era.PER_REQUEST and code == methods.RESOURCE_NOT_FOUND:
            code = methods.INVALID_PARAMS
        return (Deliver(call.sink, error(call.id, code, why), True),)

    def answer(self, call: Call, value: bytes) -> Sequence[Effect]:
        """Answer a call with a result."""
        self._state.done(call, outcome_of(call.method, value))
        call.over = True
        if call.session.era is Era.PER_REQUEST:
            value = meta.complete(value, call.method, self._own_info())
        return (Deliver(call.sink, result(call.id, value), True),)

    def _own_info(self) -> bytes:
        return dump({"name": "mcpd", "version": self._state.version})

    def set_upstream_level(self, upstream: Upstream) -> Sequence[Effect]:
        """Ask an instance for the most verbose level that any session wants."""
        alone = self._state.sessions.get(upstream.party) if upstream.party is not None else None
        level = alone.level if alone is not None else self._state.level_for(upstream.server.name)
        if level is None or level == upstream.level or upstream.era is Era.PER_REQUEST:
            return ()
        if upstream.server.capability("logging") is None:
            return ()
        upstream.level = level
        params = dump({"level": methods.LOG_LEVELS[level]})
        return (self.subscriptions.own_request(upstream, methods.SET_LEVEL, params),)

    def _wait(self, call: Call, server: Server, message: Message, at: float) -> Sequence[Effect]:
        if server.phase is Phase.ABSENT:
            return self.fail(
                call, methods.SERVER_UNAVAILABLE, f"server {server.name!r} is not running: {server.reason}"
            )
        if len(server.waiting) >= MAX_WAITING:
            raise self._overloaded(call, f"{MAX_WAITING} calls already wait for server {server.name!r}")
        call.message = message
        starting = server.phase is not Phase.UP or not server.shared
        call.deadline = at + (max(WAIT_FOR_SERVER, server.start_timeout) if starting else WAIT_FOR_SERVER)
        server.waiting.append(call)
        if server.phase is Phase.IDLE:
            server.phase = Phase.COMING
            return (Wake(server.name),)
        if not server.shared and server.phase is Phase.UP and call.session.party not in server.claims:
            return (self._claim(server, call.session, at),)
        return ()

    def _claim(self, server: Server, session: Session, at: float) -> Claim:
        """Ask for an instance of the session's own. A per-request client says with each request what it can do, so its
        instance is told of everything that can be asked; what a request does not allow is refused then."""
        server.claims[session.party] = at
        newer = session.era is Era.PER_REQUEST
        capabilities = EVERYTHING_ASKED if newer else pack(session.capabilities)
        return Claim(server.name, session.party, capabilities)

    def _overloaded(self, call: Call, why: str) -> Overloaded:
        self._state.counters.limited["server"] += 1
        self._state.done(call, "overloaded")
        return Overloaded(why, limit="server")

    def _unknown(self, call: Call, message: Message, at: float) -> Sequence[Effect]:
        return self.fail(call, methods.METHOD_NOT_FOUND, f"there is no method {message.method!r} here")

    def _ping(self, call: Call, message: Message, at: float) -> Sequence[Effect]:
        return self.answer(call, EMPTY)

    def _initialize(self, call: Call, message: Message, at: float) -> Sequence[Effect]:
        session = call.session
        if session.protocol_version is not None:
            return self.fail(call, methods.INVALID_REQUEST, "initialize: this session is initialised already")
        params = message.given
        if "protocolVersion" not in params:
            return self.fail(call, methods.INVALID_PARAMS, "initialize: protocolVersion is missing")
        version = eras.negotiate(text_at(params, "protocolVersion"))
        if session.prefixed:
            answer = self._merged_initialize(session, version)
        else:
            server = self._state.servers[session.view.name]
            about = server.about(Era.HANDSHAKE)
            if about is None:
                return self._wait(call, server, message, at)
            answer = single_initialize(about, version, self._hidden_capabilities(session, server))
        session.capabilities = members(params["capabilities"]) if "capabilities" in params else {}
        info = value_of(params["clientInfo"]) if "clientInfo" in params else {}
        session.client_info = info if isinstance(info, dict) else {}
        session.protocol_version = version
        return self.answer(call, answer)

    def _discover(self, call: Call, message: Message, at: float) -> Sequence[Effect]:
        session = call.session
        found: dict[str, Bytes] = {"supportedVersions": dump(eras.PER_REQUEST_REVISIONS)}
        if session.prefixed:
            merged = self._merged_initialize(session, "")
            found |= {key: value for key, value in members(merged).items() if key in ("capabilities", "instructions")}
            return self.answer(call, pack(found))
        server = self._state.servers[session.view.name]
        info = server.about(Era.PER_REQUEST)
        if info is None:
            return self._wait(call, server, message, at)
        hidden = self._hidden_capabilities(session, server) | {"tasks"}
        found["capabilities"] = pack({key: value for key, value in info.capabilities.items() if key not in hidden})
        if info.instructions is not None:
            found["instructions"] = dump(info.instructions)
        call.over = True
        self._state.drop(call)
        value = meta.complete(pack(found), call.method, info.server_info)
        return (Deliver(call.sink, result(call.id, value), True),)

    def _hidden_capabilities(self, session: Session, server: Server) -> frozenset[str]:
        """What a session is not told that a server can do."""
        info = server.info
        if info is not None and session.sight is not None and server.name in session.sight.partial:
            return frozenset(info.capabilities) - OF_TOOLS
        return frozenset({"tasks"} if server.shared else ())

    def _listen(self, call: Call, message: Message, at: float) -> Sequence[Effect]:
        return self.subscriptions.listen(call, message)

    def _merged_initialize(self, session: Session, version: str) -> bytes:
        sections = [
            f"## {name}\n\n{server.info.instructions}"
            for name in session.servers
            if (server := self._state.servers[name]).info is not None and server.info.instructions
        ]
        found = {
            "protocolVersion": dump(version),
            "capabilities": MERGED_CAPABILITIES,
            "serverInfo": dump({"name": "mcpd", "version": self._state.version}),
        }
        if sections:
            found["instructions"] = dump("\n\n".join(sections))
        return pack(found)

    def _set_level(self, call: Call, message: Message, at: float) -> Sequence[Effect]:
        session = call.session
        level = value_of(message.given.get("level", b"null"))
        if level not in methods.LOG_LEVELS:
            return self.fail(call, methods.INVALID_PARAMS, f"level must be one of {', '.join(methods.LOG_LEVELS)}")
        servers = [self._state.servers[name] for name in session.servers]
        if not session.prefixed and servers[0].info is not None and servers[0].capability("logging") is None:
            return self._unknown(call, message, at)
        session.level = methods.LOG_LEVELS.index(level)
        effects: list[Effect] = []
        for server in servers:
            for upstream in server.used_by(session):
                effects += self.set_upstream_level(upstream)
        return (*effects, *self.answer(call, EMPTY))

    def _list(self, kind: ListKind) -> Handler:
        def handle(call: Call, message: Message, at: float) -> Sequence[Effect]:
            if call.session.compact and kind == "tools":
                return self.answer(call, compact.TOOLS)
            servers = [self._state.servers[name] for name in call.session.servers]
            if not call.session.prefixed and servers[0].phase is Phase.ABSENT:
                return self._wait(call, servers[0], message, at)
            if call.patient and (until := _worth_waiting(servers, at)):
                call.message = message
                call.deadline = call.deadline or until
                self.awaiting_lists.append(call)
                return ()
            params = message.given
            cursor = value_of(params["cursor"]) if "cursor" in params else None
            if not isinstance(cursor, str | None):
                raise WireError(methods.INVALID_PARAMS, "cursor must be a string")
            return self.answer(call, self._state.catalogue(call.session).page(kind, cursor))

        return handle

    def _call_tool(self, call: Call, message: Message, at: float) -> Sequence[Effect]:
        found: Mapping[str, Bytes] = message.given
        public = text_at(found, "name")
        if call.session.compact:
            if public not in compact.NAMES:
                why = f"Unknown tool: {public}; find tools with {compact.SEARCH}"
                return self.fail(call, methods.INVALID_PARAMS, why)
            try:
                if public != compact.CALL:
                    return self.answer(call, self._looked_up(call.session, public, found.get("arguments", b"{}")))
                public, found = compact.target_of(found)
            except WireError as problem:
                return self.answer(call, compact.failed_result(problem.message))
        call.name = public
        target = self._targets.tool(call.session, public)
        if target is None and call.session.compact:
            return self.answer(call, compact.unknown_result(public))
        if target is None:
            return self.fail(call, methods.INVALID_PARAMS, f"Unknown tool: {public}")
        server, own = target
        call.name = own
        if server.hold is not None and own not in server.hold.good:
            return self._held(call, server, "tool", own, server.hold.changed)
        if call.session.prefixed:
            call.on_result = self._learner(server.name)
        if own == public and not call.session.compact:
            return self.forward(call, server, message, bytes(message.params), at, found)
        found = {**found, "name": dump(own)}
        return self.forward(call, server, message, pack(found), at, found)

    def _looked_up(self, session: Session, tool: str, arguments: Bytes) -> bytes:
        """The result of one of the tools of a compact view that tell of the others."""
        index = self._targets.tool_index(session)
        found = compact.search_result if tool == compact.SEARCH else compact.describe_result
        return found(index, arguments)

    def _held(self, call: Call, server: Server, kind: str, name: str, changed: frozenset[str]) -> Sequence[Effect]:
        """What is not the one that was pinned is refused until an operator has looked at it."""
        if name not in changed:
            return self.fail(call, methods.INVALID_PARAMS, f"Unknown {kind}: {name}")
        why = (
            f"{kind} {name!r} of server {server.name!r} is held back: it is not what it was when it was pinned; "
            f"an operator can look at it with `mcpctl pins diff {server.name}`, and approve it"
        )
        return self.fail(call, methods.SERVER_UNAVAILABLE, why)

    def _get_prompt(self, call: Call, message: Message, at: float) -> Sequence[Effect]:
        found = message.given
        public = call.name = text_at(found, "name")
        target = self._targets.prompt(call.session, public)
        if target is None:
            return self.fail(call, methods.INVALID_PARAMS, f"Unknown prompt: {public}")
        server, own = target
        call.name = own
        if server.hold is not None and own not in server.hold.good_prompts:
            return self._held(call, server, "prompt", own, server.hold.changed_prompts)
        return self.forward(call, server, message, pack({**found, "name": dump(own)}), at)

    def _read_resource(self, call: Call, message: Message, at: float) -> Sequence[Effect]:
        found = message.given
        public = call.name = text_at(found, "uri")
        target = self._targets.resource(call.session, public)
        if target is None:
            return self.fail(call, methods.RESOURCE_NOT_FOUND, f"Resource not found: {public}")
        server, own = target
        call.name = own
        if own == public:
            return self.forward(call, server, message, bytes(message.params), at)
        call.on_result = lambda value: rename_contents(value, own, public)
        return self.forward(call, server, message, pack({**found, "uri": dump(own)}), at)

    def _learner(self, server: str) -> Callable[[bytes], bytes]:
        def learn(value: bytes) -> bytes:
            if MARK_OF_RESOURCE in value:
                for uri in linked_uris(value):
                    self._state.learn(uri, server)
            return value

        return learn

    def _subscribe(self, call: Call, message: Message, at: float) -> Sequence[Effect]:
        target = self._targets.subscription(call, message)
        if target is None:
            return self.fail(call, methods.RESOURCE_NOT_FOUND, "Resource not found")
        server, own, public, params = target
        upstream = server.pick(call.session)
        if self.subscriptions.are_many(call.session):
            return self.fail(call, methods.INVALID_REQUEST, f"this session has {MAX_URIS} subscriptions")
        if upstream is not None and upstream.era is Era.PER_REQUEST:
            return (*self.subscriptions.add(call.session, server, own, public), *self.answer(call, EMPTY))
        self._state.subscriptions.setdefault((server.name, own), {})[call.session] = public
        return self.forward(call, server, message, params, at)

    def _unsubscribe(self, call: Call, message: Message, at: float) -> Sequence[Effect]:
        target = self._targets.subscription(call, message)
        if target is None:
            return self.fail(call, methods.RESOURCE_NOT_FOUND, "Resource not found")
        server, own, _, params = target
        upstream = server.pick(call.session)
        if upstream is not None and upstream.era is Era.PER_REQUEST:
            return (*self.subscriptions.remove(call.session, server.name, own), *self.answer(call, EMPTY))
        subscribers = self._state.subscriptions.get((server.name, own), {})
        subscribers.pop(call.session, None)
        if not subscribers:
            self._state.subscriptions.pop((server.name, own), None)
        if any(server.shared or one.party == call.session.party for one in subscribers):
            return self.answer(call, EMPTY)  # others still want the updates
        return self.forward(call, server, message, params, at)

    def _complete(self, call: Call, message: Message, at: float) -> Sequence[Effect]:
        found = message.given
        ref = members(found.get("ref", b"null"))
        kind = text_at(ref, "type")
        if kind == "ref/prompt":
            public = text_at(ref, "name")
            target = self._targets.prompt(call.session, public)
            key = "name"
        else:
            public = text_at(ref, "uri")
            catalogue = self._state.catalogue(call.session)
            known = catalogue.templates.get(public)
            target = (
                (self._state.servers[known[0]], known[1]) if known else self._targets.resource(call.session, public)
            )
            key = "uri"
        if target is None:
            return self.fail(call, methods.INVALID_PARAMS, f"Nothing to complete: {public} is not known")
        server, own = target
        return self.forward(call, server, message, pack({**found, "ref": pack({**ref, key: dump(own)})}), at)


def _may_have_token(client: meta.RequestMeta | None, params: bytes) -> bool:
    """Whether params may hold a progress token, which stands in `_meta`: that is known where it names the client."""
    if client is not None:
        return b"progressToken" in client.others
    # one byte is found 50 times as fast, and from the end what is not there several times as fast
    return params.rfind(b"progressToken") >= 0 or (BACKSLASH in params and params.rfind(b"\\u") >= 0)


def _worth_waiting(servers: Sequence[Server], at: float) -> float:
    """Until when a list waits for servers that never were up; 0: it is answered now.

    For one that does not come up lists wait once, not again and again: who asks later is told by `list_changed`.
    """
    until = 0.0
    for server in servers:
        if server.lists is None and server.phase is Phase.COMING:
            server.missed_until = server.missed_until or at + FIRST_LISTS_WAIT
            until = max(until, server.missed_until)
    return until if until > at else 0.0
