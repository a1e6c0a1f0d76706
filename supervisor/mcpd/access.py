"""The tokens of the front door, as operators make and revoke them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

import structlog

from mcpd.control.view import TokenRequest, TokenStatus
from mcpd.errors import ClientFault, NotFound, Overloaded
from mcpd.store import tokens
from mcpd.store.tokens import Token, TokenFile, TokenVerifier
from mcpd.wire.principal import EVERYTHING, Grants, Principal

MOST: Final = 4096
LONGEST_LIFE: Final = 100 * 366 * 24 * 3600.0
MOST_GRANTS: Final = 1024
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_TOOL = re.compile(r"[a-z0-9][a-z0-9-]{0,31}/.{1,256}", re.DOTALL)
_RESERVED: Final = frozenset({tokens.DEFAULT_PRINCIPAL, "anybody", "operator"})

log = structlog.get_logger("mcpd.access")


class Tokens:
    """All tokens of a state directory. `on_gone` is told of each principal whose token counts no longer."""

    def __init__(
        self, state_dir: Path, wall: Callable[[], float], on_gone: Callable[[str], object] = lambda name: None
    ) -> None:
        """Makes the default token where there is none. Raises ConfigError if the files cannot be used."""
        self.on_gone = on_gone
        self.verifier = TokenVerifier({tokens.DEFAULT_PRINCIPAL: tokens.read_or_create(state_dir)}, wall)
        self._file = TokenFile(state_dir)
        self._wall = wall
        self._principals: dict[str, Principal] = {}
        self._over: set[str] = set()
        self._take_over()

    def principal_of(self, name: str) -> Principal:
        """The owner of a token: always the same object for the same token, so that comparing it costs nothing."""
        return self._principals[name]

    def list(self) -> list[TokenStatus]:
        return [_status(one, self._wall()) for one in self._file]

    def create(self, asked: TokenRequest) -> str:
        """Make a token and return it; it is shown this once. Raises ClientFault, Overloaded."""
        _check(asked)
        if asked.name in self._file and not asked.replace:
            raise ClientFault(f"there is a token {asked.name!r} already", "revoke it first, or say --replace")
        if len(self._file) >= MOST:
            raise Overloaded(f"there are {MOST} tokens; revoke some")
        now = self._wall()
        token = tokens.new_token()
        replaced = asked.name in self._file
        self._file.add(
            Token(
                asked.name,
                tokens.digest_of(token),
                now,
                None if asked.lifetime is None else now + asked.lifetime,
                _sorted(asked.servers),
                _sorted(asked.views),
                _sorted(asked.tools),
            )
        )
        self._over.discard(asked.name)
        self._take_over()
        if replaced:
            self.on_gone(asked.name)
        log.info("token.created", name=asked.name, lifetime=asked.lifetime)
        return token.decode()

    def revoke(self, name: str) -> None:
        """Let a token open nothing any more, and end what it has open. Raises NotFound."""
        if self._file.remove(name) is None:
            known = ", ".join(sorted(one.name for one in self._file))
            raise NotFound(
                f"there is no token {name!r}", f"there are {known}" if known else "only the default one is there"
            )
        self._take_over()
        self.on_gone(name)
        log.info("token.revoked", name=name)

    def tick(self) -> None:
        """End what is open of tokens that have expired; to be called now and then."""
        now = self._wall()
        for one in self._file:
            if one.expires is not None and one.expires <= now and one.name not in self._over:
                self._over.add(one.name)
                self.on_gone(one.name)
                log.info("token.expired", name=one.name)

    def _take_over(self) -> None:
        self.verifier.set_named(self._file)
        self._principals = {one.name: Principal(one.name, _grants(one)) for one in self._file}
        self._principals[tokens.DEFAULT_PRINCIPAL] = Principal(tokens.DEFAULT_PRINCIPAL)


def _grants(token: Token) -> Grants:
    if token.servers is None and token.views is None and token.tools is None:
        return EVERYTHING
    pairs = None if token.tools is None else frozenset(_pair(tool) for tool in token.tools)
    return Grants(_set(token.servers), _set(token.views), pairs)


def _pair(tool: str) -> tuple[str, str]:
    server, _, name = tool.partition("/")
    return server, name


def _set(names: Iterable[str] | None) -> frozenset[str] | None:
    return None if names is None else frozenset(names)


def _sorted(names: Sequence[str] | None) -> tuple[str, ...] | None:
    return None if names is None else tuple(sorted(set(names)))


def _status(token: Token, now: float) -> TokenStatus:
    return TokenStatus(
        name=token.name,
        created=token.created,
        expires=token.expires,
        expired=token.expires is not None and token.expires <= now,
        servers=token.servers,
        views=token.views,
        tools=token.tools,
    )


def _check(asked: TokenRequest) -> None:
    if _NAME.fullmatch(asked.name) is None or asked.name in _RESERVED:
        raise ClientFault(
            f"{asked.name!r} cannot be the name of a token",
            f"use up to 64 of a-z, 0-9, '.', '_' and '-', but none of {', '.join(sorted(_RESERVED))}",
        )
    if asked.lifetime is not None and not 0 < asked.lifetime <= LONGEST_LIFE:
        raise ClientFault(
            "lifetime: seconds, up to 100 years of them, are needed", "leave it out for a token without end"
        )
    if sum(len(names) for names in (asked.servers or (), asked.views or (), asked.tools or ())) > MOST_GRANTS:
        raise ClientFault(f"a token can name {MOST_GRANTS} servers, views and tools", "make a view of them")
    for tool in asked.tools or ():
        if _TOOL.fullmatch(tool) is None:
            raise ClientFault(f"{tool!r} is no tool", "write SERVER/TOOL, with the server's own name of the tool")
