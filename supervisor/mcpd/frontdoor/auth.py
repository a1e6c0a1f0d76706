"""Who a client is: what its Authorization header proves."""

from __future__ import annotations

from typing import Final, Protocol

from mcpd.store.tokens import TokenVerifier

ANYBODY: Final = "anybody"


class Authenticator(Protocol):
    """Turns a request's credentials into a principal."""

    def principal(self, authorization: bytes | None) -> str | None:
        """The name of whoever presents this header value, None if it proves nothing."""
        ...


class BearerAuthenticator:
    """`auth = "token"`: bearer tokens in the Authorization header, and nowhere else (RFC 6750, section 2.1)."""

    __slots__ = ("_verify",)

    def __init__(self, verifier: TokenVerifier) -> None:
        self._verify = verifier.verify

    def principal(self, authorization: bytes | None) -> str | None:
        if authorization is None or authorization[:7].lower() != b"bearer ":
            return None
        return self._verify(authorization[7:].strip())


class OpenAuthenticator:
    """`auth = "none"`: everybody who can connect is the same principal. For loopback only."""

    __slots__ = ()

    def principal(self, authorization: bytes | None) -> str | None:
        return ANYBODY
