"""What is remembered of a client's connection: the log level that it set and the resources that it follows."""

from typing import Any, get_args

from mcp.server.connection import Connection
from mcp.server.session import ServerSession
from mcp_types import LoggingLevel

from mcpworker.errors import Overloaded

__all__ = ["asked_level", "connection_of", "follow", "followed", "set_level", "unfollow", "wanted_levels"]

_LEVELS: tuple[LoggingLevel, ...] = get_args(LoggingLevel)
_LEVEL_KEY = "mcpworker.log_level"
_FOLLOWED_KEY = "mcpworker.followed"
_MAX_FOLLOWED = 10_000


def connection_of(session: ServerSession) -> Connection:
    """The connection behind a request's session.

    The SDK gives handlers a session of their own for each request; `Connection`, whose `state` and `exit_stack` are
    public, is the only thing that lives as long as the client stays, and this attribute the only way to it.
    """
    return session._connection


def set_level(session: ServerSession, level: LoggingLevel) -> None:
    """Remember the least level of log messages that a client wants (logging/setLevel, up to 2025-11-25)."""
    connection_of(session).state[_LEVEL_KEY] = frozenset(_LEVELS[_LEVELS.index(level) :])


def asked_level(session: ServerSession) -> LoggingLevel | None:
    """The least level that a client asked for by `logging/setLevel`, None if it never did."""
    levels: frozenset[LoggingLevel] | None = connection_of(session).state.get(_LEVEL_KEY)
    return None if levels is None else _LEVELS[len(_LEVELS) - len(levels)]


def wanted_levels(session: ServerSession) -> frozenset[LoggingLevel]:
    """The levels that a client wants: all, until it says otherwise."""
    levels: frozenset[LoggingLevel] = connection_of(session).state.get(_LEVEL_KEY, frozenset(_LEVELS))
    return levels


def _followed(connection: Connection) -> set[str]:
    uris: set[str] = connection.state.setdefault(_FOLLOWED_KEY, set())
    return uris


def follow(session: ServerSession, uri: str) -> None:
    """Remember that a client wants to hear of changes of a resource.

    Raises:
        Overloaded: it follows too many already.
    """
    uris = _followed(connection_of(session))
    if len(uris) >= _MAX_FOLLOWED:
        raise Overloaded(f"this client follows {_MAX_FOLLOWED} resources already; unsubscribe from some")
    uris.add(uri)


def unfollow(session: ServerSession, uri: str) -> None:
    """Forget it again."""
    _followed(connection_of(session)).discard(uri)


def followed(session: ServerSession) -> Any:
    """The URIs that a client follows."""
    return _followed(connection_of(session))
