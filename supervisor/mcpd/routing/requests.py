"""What comes from a client: answered here, handed to the instance that it is for, or kept until one is there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from mcpd.routing import compact, greeting
from mcpd.routing.calls import Calls
from mcpd.routing.correlation import Call, Phase, Server, Upstream
from mcpd.routing.effects import Deliver, Effect
from mcpd.routing.info import ListKind
from mcpd.routing.ledger import name_of, named
from mcpd.routing.listening import MAX_URIS, Subscriptions
from mcpd.routing.parking import ParkingLot, handle_of
from mcpd.routing.rewriting import linked_uris, rename_contents
from mcpd.routing.sessions import Session
from mcpd.routing.state import FIRST_LISTS_WAIT, State
from mcpd.routing.targets import Targets
from mcpd.wire import eras, meta, methods
from mcpd.wire.eras import Era
from mcpd.wire.jsonrpc import (
    Bytes,
    Message,
    WireError,
    dump,
    members,
    pack,
    result,
    text_at,
    value_of,
)

Handler = Callable[[Call, Message, float], Sequence[Effect]]
EMPTY = b"{}"
BACKSLASH = ord("\\")
MARK_OF_RESOURCE = b'"resource'  # in a result: there may be links to resources, or resources themselves


class Requests:
    """Everything on its way up. `awaiting_lists` holds list requests until the servers are there, by deadline."""

    def __init__(self, state: State, calls: Calls, parking: ParkingLot) -> None:
        self._state = state
        self._calls = calls
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
            return self._calls.fail(call, methods.INVALID_REQUEST, f"{method} before initialize: send initialize first")
        try:
            if newer and method in methods.INTERACTIVE and (handle := handle_of(message)) is not None:
                resumed = self._parking.resume(call, handle, message, at)
                if resumed is None:
                    why = "requestState: not known (any more), or not for this request; call again without it"
                    return self._calls.fail(call, methods.INVALID_PARAMS, why)
                return resumed
            if session.prefixed:
                handler = (self._of_merged_newer if newer else self._of_merged).get(method, self._unknown)
                return handler(call, message, at)
            server = self._state.servers.get(session.view.name)
            if server is None or server.name not in session.servers:
                return self._calls.fail(
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
            return self._calls.forward(
                call, server, message, bytes(message.params), at, message.given if newer else None
            )
        except WireError as problem:  # the envelope was right: it is the params
            return self._calls.fail(call, methods.INVALID_PARAMS, f"{method}: {problem.message}")

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

    def _unknown(self, call: Call, message: Message, at: float) -> Sequence[Effect]:
        return self._calls.fail(call, methods.METHOD_NOT_FOUND, f"there is no method {message.method!r} here")

    def _ping(self, call: Call, message: Message, at: float) -> Sequence[Effect]:
        return self._calls.answer(call, EMPTY)

    def _initialize(self, call: Call, message: Message, at: float) -> Sequence[Effect]:
        session = call.session
        if session.protocol_version is not None:
            return self._calls.fail(call, methods.INVALID_REQUEST, "initialize: this session is initialised already")
        params = message.given
        if "protocolVersion" not in params:
            return self._calls.fail(call, methods.INVALID_PARAMS, "initialize: protocolVersion is missing")
        version = eras.negotiate(text_at(params, "protocolVersion"))
        if session.prefixed:
            answer = greeting.merged_initialize(self._state, session, version)
        else:
            server = self._state.servers[session.view.name]
            about = server.about(Era.HANDSHAKE)
            if about is None:
                return self._calls.wait(call, server, message, at)
            answer = greeting.single_initialize(about, version, session, server)
        session.capabilities = members(params["capabilities"]) if "capabilities" in params else {}
        info = value_of(params["clientInfo"]) if "clientInfo" in params else {}
        session.client_info = info if isinstance(info, dict) else {}
        session.protocol_version = version
        return self._calls.answer(call, answer)

    def _discover(self, call: Call, message: Message, at: float) -> Sequence[Effect]:
        session = call.session
        if session.prefixed:
            return self._calls.answer(call, greeting.merged_discovery(self._state, session))
        server = self._state.servers[session.view.name]
        info = server.about(Era.PER_REQUEST)
        if info is None:
            return self._calls.wait(call, server, message, at)
        call.over = True
        self._state.drop(call)
        value = meta.complete(greeting.single_discovery(info, session, server), call.method, info.server_info)
        return (Deliver(call.sink, result(call.id, value), True),)

    def _listen(self, call: Call, message: Message, at: float) -> Sequence[Effect]:
        return self.subscriptions.listen(call, message)

    def _set_level(self, call: Call, message: Message, at: float) -> Sequence[Effect]:
        session = call.session
        level = value_of(message.given.get("level", b"null"))
        if level not in methods.LOG_LEVELS:
            return self._calls.fail(
                call, methods.INVALID_PARAMS, f"level must be one of {', '.join(methods.LOG_LEVELS)}"
            )
        servers = [self._state.servers[name] for name in session.servers]
        if not session.prefixed and servers[0].info is not None and servers[0].capability("logging") is None:
            return self._unknown(call, message, at)
        session.level = methods.LOG_LEVELS.index(level)
        effects: list[Effect] = []
        for server in servers:
            for upstream in server.used_by(session):
                effects += self.set_upstream_level(upstream)
        return (*effects, *self._calls.answer(call, EMPTY))

    def _list(self, kind: ListKind) -> Handler:
        def handle(call: Call, message: Message, at: float) -> Sequence[Effect]:
            if call.session.compact and kind == "tools":
                return self._calls.answer(call, compact.TOOLS)
            servers = [self._state.servers[name] for name in call.session.servers]
            if not call.session.prefixed and servers[0].phase is Phase.ABSENT:
                return self._calls.wait(call, servers[0], message, at)
            if call.patient and (until := _worth_waiting(servers, at)):
                call.message = message
                call.deadline = call.deadline or until
                self.awaiting_lists.append(call)
                return ()
            params = message.given
            cursor = value_of(params["cursor"]) if "cursor" in params else None
            if not isinstance(cursor, str | None):
                raise WireError(methods.INVALID_PARAMS, "cursor must be a string")
            return self._calls.answer(call, self._state.catalogue(call.session).page(kind, cursor))

        return handle

    def _call_tool(self, call: Call, message: Message, at: float) -> Sequence[Effect]:
        found: Mapping[str, Bytes] = message.given
        public = text_at(found, "name")
        if call.session.compact:
            if public not in compact.NAMES:
                why = f"Unknown tool: {public}; find tools with {compact.SEARCH}"
                return self._calls.fail(call, methods.INVALID_PARAMS, why)
            try:
                if public != compact.CALL:
                    return self._calls.answer(
                        call, self._looked_up(call.session, public, found.get("arguments", b"{}"))
                    )
                public, found = compact.target_of(found)
            except WireError as problem:
                return self._calls.answer(call, compact.failed_result(problem.message))
        call.name = public
        target = self._targets.tool(call.session, public)
        if target is None and call.session.compact:
            return self._calls.answer(call, compact.unknown_result(public))
        if target is None:
            return self._calls.fail(call, methods.INVALID_PARAMS, f"Unknown tool: {public}")
        server, own = target
        call.name = own
        if server.hold is not None and own not in server.hold.good:
            return self._held(call, server, "tool", own, server.hold.changed)
        if call.session.prefixed:
            call.on_result = self._learner(server.name)
        if own == public and not call.session.compact:
            return self._calls.forward(call, server, message, bytes(message.params), at, found)
        found = {**found, "name": dump(own)}
        return self._calls.forward(call, server, message, pack(found), at, found)

    def _looked_up(self, session: Session, tool: str, arguments: Bytes) -> bytes:
        """The result of one of the tools of a compact view that tell of the others."""
        index = self._targets.tool_index(session)
        found = compact.search_result if tool == compact.SEARCH else compact.describe_result
        return found(index, arguments)

    def _held(self, call: Call, server: Server, kind: str, name: str, changed: frozenset[str]) -> Sequence[Effect]:
        """What is not the one that was pinned is refused until an operator has looked at it."""
        if name not in changed:
            return self._calls.fail(call, methods.INVALID_PARAMS, f"Unknown {kind}: {name}")
        why = (
            f"{kind} {name!r} of server {server.name!r} is held back: it is not what it was when it was pinned; "
            f"an operator can look at it with `mcpctl pins diff {server.name}`, and approve it"
        )
        return self._calls.fail(call, methods.SERVER_UNAVAILABLE, why)

    def _get_prompt(self, call: Call, message: Message, at: float) -> Sequence[Effect]:
        found = message.given
        public = call.name = text_at(found, "name")
        target = self._targets.prompt(call.session, public)
        if target is None:
            return self._calls.fail(call, methods.INVALID_PARAMS, f"Unknown prompt: {public}")
        server, own = target
        call.name = own
        if server.hold is not None and own not in server.hold.good_prompts:
            return self._held(call, server, "prompt", own, server.hold.changed_prompts)
        return self._calls.forward(call, server, message, pack({**found, "name": dump(own)}), at)

    def _read_resource(self, call: Call, message: Message, at: float) -> Sequence[Effect]:
        found = message.given
        public = call.name = text_at(found, "uri")
        target = self._targets.resource(call.session, public)
        if target is None:
            return self._calls.fail(call, methods.RESOURCE_NOT_FOUND, f"Resource not found: {public}")
        server, own = target
        call.name = own
        if own == public:
            return self._calls.forward(call, server, message, bytes(message.params), at)
        call.on_result = lambda value: rename_contents(value, own, public)
        return self._calls.forward(call, server, message, pack({**found, "uri": dump(own)}), at)

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
            return self._calls.fail(call, methods.RESOURCE_NOT_FOUND, "Resource not found")
        server, own, public, params = target
        upstream = server.pick(call.session)
        if self.subscriptions.are_many(call.session):
            return self._calls.fail(call, methods.INVALID_REQUEST, f"this session has {MAX_URIS} subscriptions")
        if upstream is not None and upstream.era is Era.PER_REQUEST:
            return (*self.subscriptions.add(call.session, server, own, public), *self._calls.answer(call, EMPTY))
        self._state.subscriptions.setdefault((server.name, own), {})[call.session] = public
        return self._calls.forward(call, server, message, params, at)

    def _unsubscribe(self, call: Call, message: Message, at: float) -> Sequence[Effect]:
        target = self._targets.subscription(call, message)
        if target is None:
            return self._calls.fail(call, methods.RESOURCE_NOT_FOUND, "Resource not found")
        server, own, _, params = target
        upstream = server.pick(call.session)
        if upstream is not None and upstream.era is Era.PER_REQUEST:
            return (*self.subscriptions.remove(call.session, server.name, own), *self._calls.answer(call, EMPTY))
        subscribers = self._state.subscriptions.get((server.name, own), {})
        subscribers.pop(call.session, None)
        if not subscribers:
            self._state.subscriptions.pop((server.name, own), None)
        if any(server.shared or one.party == call.session.party for one in subscribers):
            return self._calls.answer(call, EMPTY)  # others still want the updates
        return self._calls.forward(call, server, message, params, at)

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
            return self._calls.fail(call, methods.INVALID_PARAMS, f"Nothing to complete: {public} is not known")
        server, own = target
        return self._calls.forward(call, server, message, pack({**found, "ref": pack({**ref, key: dump(own)})}), at)


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
