"""Whose a name or URI of a view is: (server, the server's own name for it)."""

from __future__ import annotations

from mcpd.routing import compact
from mcpd.routing.correlation import Call, Server, own_name
from mcpd.routing.names import split_name, unwrap_uri
from mcpd.routing.sessions import Session
from mcpd.routing.state import State
from mcpd.wire.jsonrpc import Message, dump, pack, text_at


class Targets:
    """Looks up; None where a session can see nothing of that name."""

    def __init__(self, state: State) -> None:
        self._state = state

    def tool(self, session: Session, public: str) -> tuple[Server, str] | None:
        """A tool, listed (yet) or not."""
        known = self._state.catalogue(session).tools.get(public)
        if known is not None:
            return self._state.servers[known[0]], known[1]
        # not listed (yet): the prefix alone says whose it would be
        separator = self._state.separator
        name, shown = session.servers[0], public
        if session.prefixed:
            split = split_name(public, session.servers, separator)
            if split is None:
                return None
            name, shown = split
        server = self._state.servers[name]
        own = own_name(server.rules, shown)
        if own is None or (session.sight is not None and not session.sight.allows(name, own)):
            return None
        return server, own

    def prompt(self, session: Session, public: str) -> tuple[Server, str] | None:
        """A prompt of a view of several servers, listed (yet) or not."""
        known = self._state.catalogue(session).prompts.get(public)
        known = known or split_name(public, session.readable, self._state.separator)
        return (self._state.servers[known[0]], known[1]) if known else None

    def resource(self, session: Session, uri: str) -> tuple[Server, str] | None:
        """(server, own URI) of a URI in a view of several servers."""
        catalogue = self._state.catalogue(session)
        known = catalogue.resources.get(uri) or unwrap_uri(uri, session.readable)
        if known is None:
            name = self._state.learned.get(uri) or catalogue.owner_by_template(uri)
            if name is None:
                able = [n for n in session.readable if self._state.servers[n].capability("resources") is not None]
                name = able[0] if len(able) == 1 else None
            known = (name, uri) if name in session.readable else None
        return (self._state.servers[known[0]], known[1]) if known else None

    def resource_in_view(self, session: Session, uri: str) -> tuple[Server, str] | None:
        """(server, own URI) of a URI, whatever the view."""
        if session.prefixed:
            return self.resource(session, uri)
        server = self._state.servers.get(session.view.name)
        return (server, uri) if server is not None and server.name in session.readable else None

    def subscription(self, call: Call, message: Message) -> tuple[Server, str, str, bytes] | None:
        """(server, own URI, public URI, params for the server) of a (un)subscribe request."""
        found = message.given
        public = text_at(found, "uri")
        if not call.session.prefixed:
            if call.session.view.name not in call.session.readable:
                return None
            return self._state.servers[call.session.view.name], public, public, bytes(message.params)
        target = self._subscribed(call.session, public) or self.resource(call.session, public)
        if target is None:
            return None
        server, own = target
        return server, own, public, pack({**found, "uri": dump(own)})

    def _subscribed(self, session: Session, public: str) -> tuple[Server, str] | None:
        """Whose a URI is to which a session is subscribed already: lists may have changed since."""
        for (name, own), subscribers in self._state.subscriptions.items():
            if subscribers.get(session) == public and name in session.readable:
                return self._state.servers[name], own
        return None

    def tool_index(self, session: Session) -> compact.ToolIndex:
        """The index of a compact view, made anew once its catalogue is another."""
        catalogue = self._state.catalogue(session)
        if catalogue.index is None:
            catalogue.index = compact.ToolIndex(catalogue)
        return catalogue.index
