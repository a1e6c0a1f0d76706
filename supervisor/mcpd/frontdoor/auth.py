"""Who a client is: what its Authorization header proves."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Final, Protocol

from mcpd.store.tokens import TokenVerifier
from mcpd.wire.principal import Principal

ANYBODY: Final = Principal("anybody")


class Denied(Exception):
    """Credentials that are worth nothing, and why; `error` in the words of RFC 6750, section 3.1.

    `counts`: whether it was wrong, and not merely too late. `scope`: which scopes would do.
    """

    def __init__(
        self, error: str, description: str, status: int = 401, scope: str = "", *, counts: bool = True
    ) -> None:
        super().__init__(description)
        self.error = error
        self.status = status
        self.scope = scope
        self.counts = counts and status == 401


class Authenticator(Protocol):
    """Turns a request's credentials into a principal."""

    def principal(self, authorization: bytes | None) -> Principal | None:
        """Whoever presents this header value, None if it proves nothing. Raises Denied where more is to be said."""
        ...

    def known(self, authorization: bytes | None) -> Principal | None:
        """The same as far as that costs next to nothing to tell; None where it would have to be found out."""
        ...

    def good_until(self, authorization: bytes | None) -> float:
        """When a header value that has just proved something will prove nothing any more (wall time); infinite where
        that is told otherwise."""
        ...


class BearerAuthenticator:
    """`auth = "token"`: bearer tokens in the Authorization header, and nowhere else (RFC 6750, section 2.1)."""

    __slots__ = ("_principal_of", "_verify")

    def __init__(self, verifier: TokenVerifier, principal_of: Callable[[str], Principal] = Principal) -> None:
        """`principal_of` tells who the owner of a token is, and what it may use."""
        self._verify = verifier.verify
        self._principal_of = principal_of

    def principal(self, authorization: bytes | None) -> Principal | None:
        if authorization is None or authorization[:7].lower() != b"bearer ":
            return None
        name = self._verify(authorization[7:].strip())
        return None if name is None else self._principal_of(name)

    def known(self, authorization: bytes | None) -> Principal | None:
        return self.principal(authorization)

    def good_until(self, authorization: bytes | None) -> float:
        return inf  # whoever keeps the tokens ends what they have open


class OpenAuthenticator:
    """`auth = "none"`: everybody who can connect is the same principal. For loopback only."""

    __slots__ = ()

    def principal(self, authorization: bytes | None) -> Principal | None:
        return ANYBODY

    def known(self, authorization: bytes | None) -> Principal | None:
        return ANYBODY

    def good_until(self, authorization: bytes | None) -> float:
        return inf
