"""Which request is whose: calls on their way up, servers' requests on their way down, and what they wait for.

mcpd mints every id that a child sees, from one counter for all instances and generations, so that a late, repeated
or forged answer finds nothing to match.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import msgspec

from mcpd.config.registry import ServerSpec, ToolRules
from mcpd.routing.info import Lists, ServerInfo
from mcpd.routing.ledger import Bucket
from mcpd.routing.sessions import Session
from mcpd.wire.eras import Era
from mcpd.wire.jsonrpc import Message


class Call:
    """A client's request, from its arrival to its one answer.

    `upstream` is the instance that has it, None while it waits. `over`: its client has been answered, or wants no
    answer; it is kept a while longer because the child may still be at work for this session. `token` is the client's
    progress token as raw JSON. `patient`: a list may wait for servers that were never up yet. What only a bridge
    between the eras needs is in `parking` or `rounds`. `began`, `server`, `name`, `arguments`: for the journal.
    """

    __slots__ = (
        "arguments",
        "began",
        "deadline",
        "ghost_until",
        "hard_deadline",
        "id",
        "message",
        "method",
        "name",
        "on_result",
        "over",
        "parking",
        "patient",
        "rounds",
        "server",
        "session",
        "sink",
        "token",
        "upstream",
    )

    def __init__(self, session: Session, message: Message, sink: Any, at: float = 0.0) -> None:
        self.session = session
        self.message: Message | None = message  # let go of once nobody needs it again
        self.method = message.method
        self.id = message.key
        self.sink = sink
        self.began = at
        self.server = ""
        self.name = ""
        self.arguments = b""
        self.upstream: Upstream | None = None
        self.token: bytes | None = None
        self.on_result: Callable[[bytes], bytes] | None = None
        self.deadline = 0.0
        self.hard_deadline = 0.0
        self.ghost_until = 0.0
        self.over = False
        self.patient = True
        self.parking: Parking | None = None
        self.rounds: Rounds | None = None

    @property
    def is_parked(self) -> bool:
        """Whether its client has been answered `input_required`, and has to come back before anything goes on."""
        return self.parking is not None and self.parking.handle is not None


class Ask:
    """A question that waits for a client's answer. `token`: the child's progress token, raw JSON.

    `child_id` is the id of the child's own request; a question out of an `input_required` result has a `key` instead.
    """

    __slots__ = ("call", "child_id", "deadline", "key", "number", "request", "session", "sink", "token", "upstream")

    def __init__(
        self,
        upstream: Upstream,
        child_id: bytes,
        session: Session,
        call: Call | None,
        number: int,
        deadline: float,
        key: str | None = None,
    ) -> None:
        self.upstream = upstream
        self.child_id = child_id
        self.session = session
        self.call = call  # None: a session's own server asks outside of any call
        self.sink = session.push if call is None else call.sink
        self.number = number
        self.deadline = deadline
        self.key = key
        self.token: bytes | None = None
        self.request = b""  # method and params as one object, kept for clients that have to come back for it


class Parking(msgspec.Struct):
    """A per-request client's call to a handshake-era child that asks the client something.

    `questions` are open, by the key under which the client sees them. While `handle` is set the client has been told
    `input_required`, and has to come back with it; `outcome` is the answer, if the child gave one meanwhile.
    """

    questions: dict[str, Ask] = msgspec.field(default_factory=dict)
    collecting: bool = False
    handle: str | None = None
    until: float = 0.0
    outcome: Message | None = None


@dataclass(slots=True)
class Rounds:
    """A handshake-era client's call to a per-request child that answers `input_required`.

    `params` and `extra` are what was asked at first; `answers` collects what the client says this round, until none
    of `open` is left.
    """

    server: Server
    method: str
    params: bytes
    extra: bytes
    count: int = 0
    state: bytes | None = None
    open: dict[str, Ask] = field(default_factory=dict)
    answers: dict[str, bytes] = field(default_factory=dict)


class Upstream:
    """A READY instance. `owner`: the one session that had calls on it since it was last idle; None if `mixed`.

    A parked call does not count: its child waits for that call's client, and has nothing else to say for it.

    `ghosts` are calls that were given up, and that the child neither answered nor need have noticed: (session, until
    when) by upstream id. They hold nobody up, but what the child says might be for them.
    """

    __slots__ = (
        "active",
        "asks",
        "calls",
        "draining",
        "era",
        "generation",
        "ghosts",
        "info",
        "key",
        "level",
        "listening",
        "mixed",
        "own",
        "owner",
        "party",
        "server",
    )

    def __init__(self, key: str, generation: int, server: Server, info: ServerInfo, party: str | None = None) -> None:
        self.key = key
        self.party = party  # whose it is alone; None: everybody's
        self.generation = generation
        self.server = server
        self.info = info
        self.era = info.era
        self.calls: dict[int, Call] = {}
        self.ghosts: dict[int, tuple[Session, float]] = {}
        self.active = 0  # calls that are not parked
        self.asks: dict[bytes, Ask] = {}
        self.own: set[int] = set()  # requests that mcpd itself sent, whose answers interest nobody
        self.owner: Session | None = None
        self.mixed = False
        self.level: int | None = None
        self.listening = 0  # the id of our own subscriptions/listen there
        self.draining = False

    def begin(self, number: int, call: Call) -> None:
        """A call goes to this instance."""
        self.calls[number] = call
        call.upstream = self
        self.activate(call)

    def activate(self, call: Call) -> None:
        """The child is at work for a call (again)."""
        if not self.active or self.party is not None or self._only_left_over(call.session):
            self.owner = call.session
            self.mixed = False
        elif self.owner is not call.session:
            self.mixed = True
        self.active += 1

    def _only_left_over(self, session: Session) -> bool:
        """Whether all that the child may be at work for are calls which this client itself has given up."""
        owner = self.owner
        if owner is None or self.mixed or owner is session or owner.party != session.party:
            return False
        return all(call.over or call.is_parked or call.session is session for call in self.calls.values())

    def deactivate(self) -> None:
        """The child is not at work for one of the calls any more."""
        self.active -= 1
        if not self.active:
            self.owner = None
            self.mixed = False

    def finish(self, number: int) -> Call | None:
        """The call of that upstream id is done with; None if there is none."""
        call = self.calls.pop(number, None)
        if call is not None and (call.parking is None or call.parking.handle is None):
            self.deactivate()
        return call

    def give_up(self, number: int) -> None:
        """A call that is over has been waited for long enough."""
        call = self.finish(number)
        if call is not None:
            self.ghosts[number] = (call.session, call.ghost_until)

    def is_haunted(self, session: Session, at: float) -> bool:
        """Whether the child may still be at work for a given-up call of another client."""
        if not self.ghosts:
            return False
        self.ghosts = {number: ghost for number, ghost in self.ghosts.items() if ghost[1] > at}
        return any(ghost[0].party != session.party for ghost in self.ghosts.values())

    def is_parked_on_by_others(self, session: Session) -> bool:
        """Whether calls of other principals are parked: what the child says might, after all, be for one of those."""
        return self.active < len(self.calls) and any(
            call.is_parked and call.session.principal != session.principal for call in self.calls.values()
        )

    def is_held_from(self, session: Session) -> bool:
        """Whether another client's calls, or other ones of this client, are being worked on, or calls of another
        principal wait here for input."""
        if self.party is not None:
            return False
        if self.active and self.owner is not session and not self._only_left_over(session):
            return True
        return self.is_parked_on_by_others(session)

    def latest_call_of(self, session: Session) -> tuple[int, Call] | None:
        """The newest call that this session still waits for here; on an instance of its own, its party."""
        for number in reversed(self.calls):
            call = self.calls[number]
            if (call.session is session or self.party is not None) and not (call.over or call.is_parked):
                return number, call
        return None


class Phase(Enum):
    """What a call to a server can expect. COMING: it is being started, so the call waits. IDLE: the call starts it."""

    COMING = "coming"
    IDLE = "idle"
    UP = "up"
    ABSENT = "absent"


class Hold(msgspec.Struct, frozen=True):
    """Of a server that is kept as it was pinned: which tools and prompts still are as they were, and which are there
    but others now."""

    good: frozenset[str]
    changed: frozenset[str]
    good_prompts: frozenset[str] = frozenset()
    changed_prompts: frozenset[str] = frozenset()


class Server:
    """A registry entry as the router sees it; `waiting` holds calls until an instance can take them."""

    __slots__ = (
        "bucket",
        "burst",
        "call_timeout",
        "calls_total",
        "claims",
        "hold",
        "info",
        "interactive",
        "interval",
        "lists",
        "metered",
        "missed_until",
        "name",
        "phase",
        "reason",
        "roots",
        "rules",
        "shared",
        "start_timeout",
        "upstreams",
        "waiting",
    )

    def __init__(self, spec: ServerSpec) -> None:
        self.name = spec.name
        self.phase = Phase.COMING if spec.enabled else Phase.ABSENT
        self.reason = "" if spec.enabled else "it is disabled"
        self.upstreams: list[Upstream] = []
        self.waiting: list[Call] = []
        self.info: ServerInfo | None = None
        self.lists: Lists | None = None
        self.missed_until = 0.0  # how long lists wait for it, from the first one that did; 0: none has yet
        self.interactive = False
        self.hold: Hold | None = None
        self.calls_total = 0
        self.bucket = Bucket()  # of all clients together
        self.metered = False  # whether requests are taken out of a bucket, this one or their client's
        self.claims: dict[str, float] = {}  # parties that have, or wait for, an instance; when each last used it
        self.configure(spec)

    def configure(self, spec: ServerSpec) -> None:
        """Take over what can change without a restart."""
        self.call_timeout = spec.call_timeout
        self.start_timeout = spec.start_timeout
        self.roots = spec.roots
        self.interval = 1 / spec.request_rate if spec.request_rate else 0.0
        self.burst = spec.request_burst
        self.shared = spec.sharing == "shared"
        self.rules: ToolRules | None = spec.tools if has_rules(spec.tools) else None

    def pick(self, session: Session) -> Upstream | None:
        """The instance for a new call: the session's own, or of its era, and then the one with the fewest in flight."""
        upstreams = self.upstreams
        if not self.shared:
            upstreams = [one for one in upstreams if one.party == session.party]
        if len(upstreams) == 1:
            return None if upstreams[0].draining else upstreams[0]
        free = [one for one in upstreams if not one.draining]
        if not free:
            return None
        if self.interactive:
            return min(free, key=lambda one: (one.is_held_from(session), one.era is not session.era, len(one.calls)))
        return min(free, key=lambda one: (one.era is not session.era, len(one.calls)))

    def used_by(self, session: Session) -> list[Upstream]:
        """The instances that a session's calls may go to."""
        return [one for one in self.upstreams if one.party is None or one.party == session.party]

    def about(self, era: Era) -> ServerInfo | None:
        """What clients of an era are told of it: what its instance of that era said, if it has one."""
        return next((one.info for one in self.upstreams if one.era is era), self.info)

    def capability(self, name: str) -> bytes | None:
        """The raw value of one of the server's capabilities."""
        return self.info.capabilities.get(name) if self.info else None


def has_rules(rules: ToolRules) -> bool:
    """Whether the operator hides or renames any tool."""
    return rules.allow is not None or bool(rules.deny) or bool(rules.rename)


def allowed(rules: ToolRules | None, tool: str) -> bool:
    """Whether clients may use a tool, by its own name."""
    return rules is None or ((rules.allow is None or tool in rules.allow) and tool not in rules.deny)


def shown_name(rules: ToolRules | None, tool: str) -> str:
    """The name under which a tool is shown."""
    return rules.rename.get(tool, tool) if rules else tool


def own_name(rules: ToolRules | None, shown: str) -> str | None:
    """The server's own name of a tool that clients call `shown`; None where the operator does not let them."""
    if rules is None:
        return shown
    renamed: Mapping[str, str] = {new: old for old, new in rules.rename.items()}
    own = renamed.get(shown, shown)
    if shown not in renamed and shown in rules.rename:
        return None  # it goes by its new name only
    return own if allowed(rules, own) else None
