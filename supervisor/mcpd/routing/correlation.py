"""Which request is whose: calls on their way up, servers' requests on their way down, and what they wait for.

mcpd mints every id that a child sees, from one counter for all instances and generations, so that a late, repeated
or forged answer finds nothing to match.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any

from mcpd.config.registry import ServerSpec, ToolRules
from mcpd.routing.info import Lists, ServerInfo
from mcpd.routing.sessions import Session
from mcpd.wire.jsonrpc import Message


class Call:
    """A client's request, from its arrival to its one answer.

    `upstream` is the instance that has it, None while it waits. `over`: its client has been answered, or wants no
    answer; it is kept a while longer because the child may still be at work for this session. `token` is the client's
    progress token as raw JSON. `patient`: a list may wait for servers that were never up yet.
    """

    __slots__ = (
        "deadline",
        "hard_deadline",
        "id",
        "message",
        "on_result",
        "over",
        "patient",
        "session",
        "sink",
        "token",
        "upstream",
    )

    def __init__(self, session: Session, message: Message, sink: Any) -> None:
        self.session = session
        self.message: Message | None = message  # let go of as soon as it is forwarded
        self.id = message.key
        self.sink = sink
        self.upstream: Upstream | None = None
        self.token: bytes | None = None
        self.on_result: Callable[[bytes], bytes] | None = None
        self.deadline = 0.0
        self.hard_deadline = 0.0
        self.over = False
        self.patient = True


class Ask:
    """A child's own request that waits for a client's answer. `token`: the child's progress token, raw JSON."""

    __slots__ = ("call", "child_id", "deadline", "number", "session", "token", "upstream")

    def __init__(self, upstream: Upstream, child_id: bytes, call: Call, number: int, deadline: float) -> None:
        self.upstream = upstream
        self.child_id = child_id
        self.session = call.session
        self.call = call
        self.number = number
        self.deadline = deadline
        self.token: bytes | None = None


class Upstream:
    """A READY instance. `owner`: the one session that had calls on it since it was last idle; None if `mixed`."""

    __slots__ = ("asks", "calls", "draining", "generation", "info", "key", "level", "mixed", "own", "owner", "server")

    def __init__(self, key: str, generation: int, server: Server, info: ServerInfo) -> None:
        self.key = key
        self.generation = generation
        self.server = server
        self.info = info
        self.calls: dict[int, Call] = {}
        self.asks: dict[bytes, Ask] = {}
        self.own: set[int] = set()  # requests that mcpd itself sent, whose answers interest nobody
        self.owner: Session | None = None
        self.mixed = False
        self.level: int | None = None
        self.draining = False

    def begin(self, number: int, call: Call) -> None:
        """A call goes to this instance."""
        if not self.calls:
            self.owner = call.session
            self.mixed = False
        elif self.owner is not call.session:
            self.mixed = True
        self.calls[number] = call
        call.upstream = self

    def finish(self, number: int) -> Call | None:
        """The call of that upstream id is done with; None if there is none."""
        call = self.calls.pop(number, None)
        if not self.calls:
            self.owner = None
            self.mixed = False
        return call

    def latest_call_of(self, session: Session) -> tuple[int, Call] | None:
        """The newest call that this session still waits for here."""
        for number in reversed(self.calls):
            call = self.calls[number]
            if call.session is session and not call.over:
                return number, call
        return None


class Phase(Enum):
    """What a call to a server can expect. COMING: it is being started, so the call waits."""

    COMING = "coming"
    UP = "up"
    ABSENT = "absent"


class Server:
    """A registry entry as the router sees it; `waiting` holds calls until an instance can take them."""

    __slots__ = (
        "call_timeout",
        "calls_total",
        "info",
        "interactive",
        "lists",
        "name",
        "phase",
        "reason",
        "roots",
        "rules",
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
        self.interactive = False
        self.calls_total = 0
        self.configure(spec)

    def configure(self, spec: ServerSpec) -> None:
        """Take over what can change without a restart."""
        self.call_timeout = spec.call_timeout
        self.roots = spec.roots
        self.rules: ToolRules | None = spec.tools if has_rules(spec.tools) else None

    def pick(self) -> Upstream | None:
        """The instance for a new call: the one with the fewest in flight."""
        upstreams = self.upstreams
        if len(upstreams) == 1:
            return None if upstreams[0].draining else upstreams[0]
        free = [one for one in upstreams if not one.draining]
        return min(free, key=lambda one: len(one.calls)) if free else None

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
