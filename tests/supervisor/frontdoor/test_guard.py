"""Host, Origin, repeated headers, tokens."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpd.config.settings import FrontdoorSettings, JwtSettings
from mcpd.frontdoor.asgi import Refusal
from mcpd.frontdoor.auth import ANYBODY, BearerAuthenticator, OpenAuthenticator
from mcpd.frontdoor.challenge import LONGEST_PATH
from mcpd.frontdoor.guard import CACHED, Guard
from mcpd.frontdoor.jwt import JwtAuthenticator, KeyRing, keys_of
from mcpd.store.tokens import TokenVerifier
from mcpd.wire.principal import Principal
from support.issuer import Issuer

KEYS = keys_of(Issuer().jwks("ec"), frozenset({"ES256"}))
TOKEN = b"a-token-of-forty-three-characters-or-nearly"


def guard(**settings: Any) -> Guard:
    return Guard(FrontdoorSettings(**settings), BearerAuthenticator(TokenVerifier({"ada": TOKEN})))


def status(checked: Guard, *headers: tuple[bytes, bytes]) -> int:
    """200 if the headers pass, else the status of the refusal."""
    try:
        checked.headers(list(headers))
    except Refusal as refused:
        return refused.reply.status
    return 200


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        (b"localhost", 200),
        (b"LOCALHOST:6270", 200),
        (b"localhost.:6270", 200),
        (b"mcp.localhost", 200),
        (b"127.0.0.1:6270", 200),
        (b"127.9.9.9", 200),
        (b"[::1]:6270", 200),
        (b"[::1]", 200),
        (b"evil.example", 403),
        (b"evil.example:6270", 403),
        (b"localhost.evil.example", 403),
        (b"127.0.0.1.evil.example", 403),
        (b"evillocalhost", 403),
        (b"10.0.0.1", 403),
        (b"[::2]", 403),
        (b"::1", 403),
        (b"[::1", 403),
        (b"[::1]x", 403),
        (b"localhost:", 403),
        (b"localhost:port", 403),
        (b"localhost:99999", 403),
        (b"localhost:6270:1", 403),
        (b"user@localhost", 403),
        (b"", 403),
        (b"\xff", 403),
    ],
)
def test_hosts_by_default(host: bytes, expected: int) -> None:
    checked = guard()
    assert status(checked, (b"host", host)) == expected
    assert status(checked, (b"host", host)) == expected


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        (b"tools.example", 200),
        (b"Tools.Example:6270", 200),
        (b"other.example:8443", 200),
        (b"other.example", 403),
        (b"other.example:6270", 403),
        (b"192.168.7.7:6270", 200),
        (b"[2001:db8::1]:99", 200),
        (b"[2001:db8::1]:98", 403),
    ],
)
def test_configured_hosts(host: bytes, expected: int) -> None:
    names = ("tools.example", "other.example:8443", "[2001:db8::1]:99")
    assert status(guard(host="192.168.7.7", allowed_hosts=names), (b"host", host)) == expected


def test_a_request_without_host_is_refused() -> None:
    assert status(guard()) == 400


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        (b"http://localhost", 200),
        (b"http://localhost:3000", 200),
        (b"https://127.0.0.1:8443", 200),
        (b"http://[::1]:80", 200),
        (b"https://app.example", 200),
        (b"HTTPS://app.example", 200),
        (b"https://app.example:444", 403),
        (b"http://app.example", 403),
        (b"https://evil.example", 403),
        (b"http://localhost.evil.example", 403),
        (b"ftp://localhost", 403),
        (b"null", 403),
        (b"", 403),
        (b"localhost", 403),
    ],
)
def test_origins(origin: bytes, expected: int) -> None:
    checked = guard(allowed_origins=("https://app.example/",))
    assert status(checked, (b"host", b"localhost"), (b"origin", origin)) == expected


def test_every_origin_may_be_allowed() -> None:
    checked = guard(allowed_origins=("*",))
    assert status(checked, (b"host", b"localhost"), (b"origin", b"https://evil.example")) == 200


@pytest.mark.parametrize("name", [b"host", b"authorization", b"content-length", b"origin", b"mcp-session-id"])
def test_a_header_that_decides_may_not_stand_twice(name: bytes) -> None:
    assert status(guard(), (b"host", b"localhost"), (name, b"localhost"), (name, b"localhost")) == 400


def test_lists_are_joined() -> None:
    headers = guard().headers(
        [(b"host", b"localhost"), (b"accept", b"application/json"), (b"accept", b"text/event-stream")]
    )
    assert headers[b"accept"] == b"application/json, text/event-stream"


def test_what_is_remembered_is_bounded() -> None:
    checked = guard(allowed_origins=("*",))
    for number in range(CACHED + 10):
        host, origin = b"h%d.localhost" % number, b"http://h%d.example" % number
        assert status(checked, (b"host", host), (b"origin", origin)) == 200
    assert len(checked._good_hosts) == len(checked._good_origins) == CACHED


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_no_bytes_break_the_checks(host: bytes, origin: bytes) -> None:
    assert status(guard(), (b"host", host), (b"origin", origin)) in (200, 403)


@pytest.mark.parametrize("scheme", [b"Bearer ", b"bearer ", b"BEARER  "])
def test_a_good_token_names_its_principal(scheme: bytes) -> None:
    assert guard().principal({b"authorization": scheme + TOKEN}) == Principal("ada")


@pytest.mark.parametrize(
    "authorization", [b"", b"Bearer", b"Bearer ", b"Bearer x" + TOKEN, b"Basic " + TOKEN, TOKEN, b"Bearer \xff\xfe"]
)
def test_a_wrong_token_is_told_to_be_wrong(authorization: bytes) -> None:
    with pytest.raises(Refusal) as caught:
        guard().principal({b"authorization": authorization})
    reply = caught.value.reply

    assert reply.status == 401
    assert b'error="invalid_token"' in dict(reply.headers)[b"www-authenticate"]


def test_no_token_gets_a_plain_challenge() -> None:
    with pytest.raises(Refusal) as caught:
        guard().principal({})

    assert dict(caught.value.reply.headers)[b"www-authenticate"] == b'Bearer realm="mcpd"'


def test_without_authentication_everybody_is_the_same() -> None:
    assert Guard(FrontdoorSettings(), OpenAuthenticator()).principal({}) == ANYBODY


@given(path=st.text(max_size=300), host=st.binary(max_size=30), forwarded=st.binary(max_size=10), sent=st.binary())
def test_whatever_is_asked_where_signed_tokens_are_needed(
    path: str, host: bytes, forwarded: bytes, sent: bytes
) -> None:
    """The challenge is one header, and the metadata are JSON or none, whatever stood in the request."""
    settings = FrontdoorSettings(
        auth="jwt",
        trusted_proxy=("10.0.0.1",),
        jwt=JwtSettings(issuer="https://i", audience="a", jwks="/k", scopes={'a"b': "*"}),
    )
    ring = KeyRing("/k", settings.jwt.algorithms)
    ring.keys = KEYS
    asked = Guard(settings, JwtAuthenticator(settings.jwt, ring))
    headers = {b"host": host, b"x-forwarded-proto": forwarded, b"x-forwarded-for": b"192.0.2.1"}
    for peer in (("10.0.0.1", 1), ("127.0.0.1", 1)):
        found = asked.metadata(headers, peer, path)
        assert (found is None) == (len(path) > LONGEST_PATH)
        json.dumps(found).encode()
        for authorization in ({}, {b"authorization": b"Bearer " + sent}):
            with pytest.raises(Refusal) as caught:
                asked.principal({**headers, **authorization}, peer, path)
            challenge = dict(caught.value.reply.headers)[b"www-authenticate"]
            assert challenge.isascii()
            assert challenge.decode().isprintable()
            assert challenge.count(b'"') % 2 == 0
