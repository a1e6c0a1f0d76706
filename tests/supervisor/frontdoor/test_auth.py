"""Who a client is."""

from __future__ import annotations

import pytest

from mcpd.frontdoor.auth import ANYBODY, BearerAuthenticator, OpenAuthenticator
from mcpd.store.tokens import TokenVerifier
from mcpd.wire.principal import Principal

ADA = Principal("ada")
BEARER = BearerAuthenticator(TokenVerifier({"ada": b"secret"}))


@pytest.mark.parametrize(
    ("authorization", "principal"),
    [
        (b"Bearer secret", ADA),
        (b"bearer   secret ", ADA),
        (b"Bearer secrets", None),
        (b"Bearer ", None),
        (b"Bearersecret", None),
        (b"Token secret", None),
        (b"", None),
        (None, None),
    ],
)
def test_only_a_bearer_token_is_one(authorization: bytes | None, principal: Principal | None) -> None:
    assert BEARER.principal(authorization) == principal


def test_where_nothing_is_asked_everybody_is_the_same() -> None:
    assert OpenAuthenticator().principal(None) == OpenAuthenticator().principal(b"Bearer x") == ANYBODY
