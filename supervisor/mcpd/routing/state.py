"""What the router remembers: servers, their instances, sessions, and who is subscribed to what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from mcpd.config.registry import Registry
from mcpd.routing.catalogue import Catalogue, merge
from mcpd.routing.correlation import Call, Phase, Server, Upstream
from mcpd.routing.ledger import Account, Note
from mcpd.routing.sessions import Session
from mcpd.routing.sight import Sight, sight_of
from mcpd.wire import methods
from mcpd.wire.address import View
from mcpd.wire.mirrored import ANNOTATION
from mcpd.wire.principal import EVERYTHING, Grants

MAX_WAITING = 1024  # calls that wait for one server
MAX_SESSION_CALLS = 1024  # calls in flight for one session
MAX_UPSTREAM_CALLS = 16384  # calls in flight at one instance
MAX_ASKS = 64  # requests of one instance that wait for clients
MAX_LEARNED = 4096  # URIs seen in results, whose server is remembered
FIRST_LISTS_WAIT = 5.0  # seconds that a list waits for servers that were never up yet
# Seconds that a call waits for a server that is being started (or longer, if its start may take longer), or is held by
# another session.
WAIT_FOR_SERVER = 30.0
PARTY_IDLE = 600.0  # seconds after which a per-request client's own instance is given back
MAX_ACCOUNTS = 1024  # principals after which those that do nothing are forgotten
MAX_JOURNAL = 20_000  # entries that wait to be written
MAX_JOURNAL_BYTES = 64 * 2**20  # of arguments; those of further calls are not kept
MAX_CATALOGUES = 4096  # merged lists that are kept
MAX_SIGHTS = 1024  # different grants whose meaning is remembered
CANCEL_GRACE = 10.0  # seconds that a cancelled call still counts as the child's work for its session


@dataclass(slots=True)
class Counters:
    """What went wrong without anybody having been told, for metrics."""

    unmatched_answers: int = 0
    dropped_messages: int = 0
    refused_asks: int = 0
    timeouts: int = 0
    limited: Counter[str] = field(default_factory=Counter)  # calls refused, by the bound that was reached
    unnoted: int = 0  # calls for which the journal had no room


class State:
    """The tables of the router; its methods only look things up."""

    def __init__(self, first_id: int = 0) -> None:
        self.servers: dict[str, Server] = {}
        self.views: dict[str, tuple[str, ...]] = {}
        self.compact_views: set[str] = set()
        self.upstreams: dict[str, Upstream] = {}
        self.sessions: dict[str, Session] = {}
        self.subscriptions: dict[tuple[str, str], dict[Session, str]] = {}
        self.learned: dict[str, str] = {}
        self.counters = Counters()
        self.accounts: dict[str, Account] = {}
        self.journal: list[Note] | None = None  # calls that are over; None: nobody wants to know
        self.journal_arguments = False
        self.journal_bytes = 0
        self.now = 0.0  # when the event came that is being handled
        self.separator = "__"
        self.max_in_flight = 4096
        self.request_interval = 0.0  # seconds that a request to a server costs its principal; 0: nothing
        self.request_burst = 1
        self.max_call_time = 3600.0
        self.input_timeout = 120.0
        self.version = ""
        self._sequence = first_id
        # what views of all servers and of one see: the same tuples each time, as their sessions keep them
        self._everyone: tuple[str, ...] = ()
        self._alone: dict[str, tuple[str, ...]] = {}
        self._mirrors: bool | None = None
        self._catalogues: dict[tuple[tuple[str, ...], bool, Sight | None], Catalogue] = {}
        # the same by identity: to hash the names of hundreds of servers takes as long as all else of a call
        self._found: dict[tuple[int, bool, int], tuple[tuple[str, ...], Sight | None, Catalogue]] = {}
        self._sights: dict[Grants, Sight | None] = {}

    def next_id(self) -> int:
        """An id that no child and no client has seen yet."""
        self._sequence += 1
        return self._sequence

    def configure(self, registry: Registry) -> list[Server]:
        """Take over the registry; returns the servers that are gone."""
        self.separator = registry.frontdoor.separator
        self.max_call_time = registry.frontdoor.max_call_time
        self.input_timeout = registry.frontdoor.input_timeout
        self.max_in_flight = registry.frontdoor.max_in_flight
        rate = registry.frontdoor.request_rate
        self.request_interval = 1 / rate if rate else 0.0
        self.request_burst = registry.frontdoor.request_burst
        self.views = {name: view.servers for name, view in registry.views.items()}
        self.compact_views = {name for name, view in registry.views.items() if view.compact}
        gone = [server for name, server in self.servers.items() if name not in registry.servers]
        kept = self.servers
        self.servers = {}
        for name, spec in registry.servers.items():
            server = kept.get(name)
            if server is None:
                server = Server(spec)
            else:
                server.configure(spec)
            server.metered = bool(self.request_interval or server.interval)
            self.servers[name] = server
        self._everyone = tuple(self.servers)
        self._alone = {name: (name,) for name in self.servers}
        self._sights.clear()
        for session in self.sessions.values():
            self.show(session, self.servers_of(session.view, session.grants) or ())
            session.compact = self.is_compact(session.view)
        self.forget_catalogues()
        return gone

    def servers_of(self, view: View, grants: Grants = EVERYTHING) -> tuple[str, ...] | None:
        """The servers that a view shows, in its order; None for an unknown view, and for one that the grants hide."""
        if view.kind == "server":
            servers = self._alone.get(view.name)
        elif view.kind == "all":
            servers = self._everyone
        else:
            servers = self.views.get(view.name)
        if grants is EVERYTHING or servers is None:
            return servers
        sight = self.sight(grants)
        if sight is None:
            return servers
        if view.kind == "view" and grants.views is not None and view.name not in grants.views:
            return None
        seen = tuple(name for name in servers if name in sight.servers)
        return seen if seen or view.kind == "all" else None

    def account(self, principal: str) -> Account:
        """What a principal has under way, over all its sessions."""
        found = self.accounts.get(principal)
        if found is None:
            if len(self.accounts) >= MAX_ACCOUNTS:
                self.accounts = {name: one for name, one in self.accounts.items() if not one.is_idle(self.now)}
            # the connections of a user of this machine are told apart (`local:1000#7`), but it is one user
            user = principal.partition("#")[0] if principal.startswith("local:") else principal
            found = self.accounts[principal] = Account() if user == principal else self.account(user)
        return found

    def drop(self, call: Call) -> None:
        """A call is no longer one of its session's."""
        session = call.session
        if session.calls.pop(call.id, None) is not None:
            session.account.in_flight -= 1

    def done(self, call: Call, outcome: str, code: int = 0) -> None:
        """A call has had its answer, or wants none."""
        session = call.session
        if session.calls.pop(call.id, None) is not None:
            session.account.in_flight -= 1
        journal = self.journal
        if journal is None or call.method not in methods.INTERACTIVE:
            return
        if len(journal) >= MAX_JOURNAL:
            self.counters.unnoted += 1
            return
        arguments = call.arguments
        if arguments:
            self.journal_bytes += len(arguments)
            if self.journal_bytes > MAX_JOURNAL_BYTES:
                arguments = b""
        journal.append(
            (
                call.began,
                self.now,
                session.principal,
                session.id,
                session.transport,
                session.view,
                call.server,
                call.method,
                call.name,
                outcome,
                code,
                arguments,
            )
        )

    def sight(self, grants: Grants) -> Sight | None:
        """What a client with these grants sees; None: everything."""
        if grants is EVERYTHING:
            return None
        if grants not in self._sights:
            if len(self._sights) >= MAX_SIGHTS:
                self._sights.clear()
            self._sights[grants] = sight_of(grants, self.servers, self.views)
        return self._sights[grants]

    def show(self, session: Session, servers: tuple[str, ...]) -> None:
        """Let a session see these servers, as far as its grants go."""
        sight = self.sight(session.grants)
        session.sight = sight
        session.servers = session.readable = servers
        if sight is not None and sight.partial:
            session.readable = tuple(name for name in servers if name not in sight.partial)

    def is_compact(self, view: View) -> bool:
        """Whether a view shows three tools that stand for all of them."""
        return view.kind == "view" and view.name in self.compact_views

    def sessions_of(self, server: str) -> Iterator[Session]:
        """The initialised sessions that see a server."""
        for session in self.sessions.values():
            if session.protocol_version is not None and server in session.servers:
                yield session

    def catalogue(self, session: Session) -> Catalogue:
        """The merged lists of what a session sees, without servers that are absent."""
        return self.catalogue_of(session.servers, session.sight, prefixed=session.prefixed)

    def catalogue_of(self, servers: tuple[str, ...], sight: Sight | None = None, *, prefixed: bool) -> Catalogue:
        """The merged lists of these servers, or what `sight` lets see of them."""
        known = self._found.get((id(servers), prefixed, id(sight)))
        if known is not None and known[0] is servers and known[1] is sight:
            return known[2]
        key = (servers, prefixed, sight)
        found = self._catalogues.get(key)
        if found is None:
            if len(self._catalogues) >= MAX_CATALOGUES:
                self._catalogues.clear()
            shown = [self.servers[name] for name in servers if name in self.servers]
            present = [server for server in shown if server.phase is not Phase.ABSENT]
            found = self._catalogues[key] = merge(present, self.separator, prefixed=prefixed, sight=sight)
        if len(self._found) >= MAX_CATALOGUES:
            self._found.clear()
        self._found[id(servers), prefixed, id(sight)] = (servers, sight, found)
        return found

    def forget_catalogues(self) -> None:
        """Some list, or who is there, has changed."""
        self._catalogues.clear()
        self._found.clear()
        self._mirrors = None

    @property
    def mirrors(self) -> bool:
        """Whether any tool may have parameters that clients repeat in headers."""
        if self._mirrors is None:
            known = [server.lists.tools for server in self.servers.values() if server.lists is not None]
            self._mirrors = any(ANNOTATION in entry for tools in known for entry in tools)
        return self._mirrors

    def level_for(self, server: str) -> int | None:
        """The most verbose log level that any session asked for; None if none did."""
        levels = [session.level for session in self.sessions_of(server) if session.level is not None]
        return min(levels) if levels else None

    def learn(self, uri: str, server: str) -> None:
        """Remember which server gave out a URI."""
        if len(self.learned) >= MAX_LEARNED:
            self.learned.pop(next(iter(self.learned)))
        self.learned[uri] = server
