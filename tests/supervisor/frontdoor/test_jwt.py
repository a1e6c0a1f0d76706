"""Signed tokens: which are taken, for whom, and for what."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import time
from math import inf
from pathlib import Path
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpd.config.settings import JwtSettings
from mcpd.frontdoor.auth import Denied
from mcpd.frontdoor.jwt import LONGEST_TOKEN, REMEMBERED, JwtAuthenticator, KeyRing, keys_of
from mcpd.wire.principal import EVERYTHING, Grants, Principal
from support.issuer import AUDIENCE, ISSUER, Issuer

ALGORITHMS = frozenset({"RS256", "ES256", "EdDSA"})
ME = Issuer()


class Desk:
    """An authenticator whose time a test tells."""

    def __init__(self, path: Path, **settings: Any) -> None:
        self.ahead = 0.0
        self.file = path / "jwks.json"
        self.settings = JwtSettings(issuer=ISSUER, audience=AUDIENCE, jwks=str(self.file), **settings)
        self.ring = KeyRing(str(self.file), self.settings.algorithms)
        self.authenticator = JwtAuthenticator(self.settings, self.ring, lambda: time.time() + self.ahead)
        self.publish(ME.jwks())

    def publish(self, content: bytes) -> None:
        self.file.write_bytes(content)
        os.utime(self.file, ns=(time.time_ns(), time.time_ns()))
        asyncio.run(self.ring.refresh())

    def show(self, token: str | bytes) -> Principal | None:
        return self.authenticator.principal(b"Bearer " + (token.encode() if isinstance(token, str) else token))

    def refused(self, token: str | bytes) -> Denied:
        with pytest.raises(Denied) as denied:
            self.show(token)
        return denied.value


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_it_is_known_until_when_a_token_is_good(desk: Desk) -> None:
    token = f"Bearer {ME.token(exp=int(time.time()) + 100)}".encode()
    assert desk.authenticator.good_until(token) == desk.authenticator.good_until(None) == inf
    assert desk.authenticator.known(token) is None
    assert desk.authenticator.principal(token) is desk.authenticator.known(token)
    desk.ahead = 131
    assert desk.authenticator.known(token) is None
    assert desk.authenticator.known(b"Basic x") is desk.authenticator.known(None) is None
    desk.ahead = 0
    assert desk.authenticator.good_until(token) == pytest.approx(time.time() + 130, abs=5)


@pytest.mark.parametrize("key", ["rsa", "ec", "ed"])
def test_a_good_token_names_its_owner(desk: Desk, key: str) -> None:
    token = ME.token(key)
    assert desk.show(token) == Principal("jwt:ada", EVERYTHING)
    assert desk.show(token) is desk.show(token)


def test_without_a_token_there_is_nobody(desk: Desk) -> None:
    assert desk.authenticator.principal(None) is None
    assert desk.authenticator.principal(b"Basic YTpi") is None


@pytest.mark.parametrize(
    ("claims", "why"),
    [
        ({"iss": "https://evil.example"}, "another issuer"),
        ({"iss": None}, "iss is missing"),
        ({"aud": "https://other.example"}, "somebody else"),
        ({"aud": None}, "aud is missing"),
        ({"exp": None}, "exp is missing"),
        ({"exp": "soon"}, "no signed token"),
        ({"exp": True, "iat": None}, "expired"),
        ({"nbf": int(time.time()) + 3600}, "not good yet"),
        ({"sub": None}, "sub is missing"),
        ({"sub": ""}, "sub is missing"),
        ({"sub": "a" * 200}, "sub is missing"),
        ({"sub": "a\nb"}, "sub is missing"),
    ],
)
def test_claims_have_to_be_right(desk: Desk, claims: dict[str, Any], why: str) -> None:
    refused = desk.refused(ME.token(**claims))
    assert why in str(refused)
    assert (refused.error, refused.status) == ("invalid_token", 401)


def test_one_of_several_audiences_will_do(desk: Desk) -> None:
    assert desk.show(ME.token(aud=["https://other.example", AUDIENCE])) is not None


def test_another_signer_is_refused_and_counts(desk: Desk) -> None:
    refused = desk.refused(Issuer().token())
    assert "signature is wrong" in str(refused)
    assert refused.counts


def test_an_expired_one_is_refused_and_does_not_count(desk: Desk) -> None:
    refused = desk.refused(ME.token(exp=int(time.time()) - 60))
    assert "expired" in str(refused)
    assert not refused.counts


def test_one_that_was_good_expires(desk: Desk) -> None:
    token = ME.token(exp=int(time.time()) + 60)
    assert desk.show(token) is not None
    desk.ahead = 85
    assert desk.show(token) is not None
    desk.ahead = 95
    assert "expired" in str(desk.refused(token))


def test_unsigned_tokens_are_refused(desk: Desk) -> None:
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ada", "exp": int(time.time()) + 60}
    assert "not signed as it has to be" in str(desk.refused(jwt.encode(claims, "", "none", headers={"kid": "ec"})))


@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
def test_the_public_key_is_no_password(desk: Desk) -> None:
    """An HMAC under the public key, which everybody has (CVE-2016-5431 and its likes)."""
    public = json.loads(ME.jwks("rsa"))["keys"][0]["n"]
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ada", "exp": int(time.time()) + 60}
    forged = jwt.encode(claims, public, "HS256", headers={"kid": "rsa"})
    assert "not signed as it has to be" in str(desk.refused(forged))


def test_a_key_checks_signatures_of_its_own_kind_only(desk: Desk) -> None:
    assert desk.refused(ME.token("rsa", headers={"kid": "ec"}))
    assert desk.refused(ME.token("ec", headers={"kid": "rsa"}))


def test_algorithms_that_are_not_wanted_are_refused(tmp_path: Path) -> None:
    desk = Desk(tmp_path, algorithms=("RS256",))
    assert desk.show(ME.token("rsa")) is not None
    assert desk.refused(ME.token("ec"))
    assert desk.refused(ME.token("rsa", alg="PS256"))


def test_a_token_without_a_key_s_name_is_checked_with_the_only_key(desk: Desk) -> None:
    token = ME.token("ec", headers={"kid": ""})
    assert desk.refused(token)
    desk.publish(ME.jwks("ec"))
    assert desk.show(token) is not None


def test_keys_that_are_withdrawn_are_good_for_nothing(desk: Desk) -> None:
    token = ME.token("ec")
    assert desk.show(token) is not None
    desk.publish(ME.jwks("rsa"))
    assert "key that is not known" in str(desk.refused(token))
    desk.publish(ME.jwks("rsa", "ec"))
    assert desk.show(token) is not None


@pytest.mark.parametrize("content", [b"", b"{}", b'{"keys":[]}', b'{"keys":[{"kty":"oct","k":"AA"}]}', b"\xff", b"[1]"])
def test_what_is_no_key_set_leaves_the_keys_as_they_were(desk: Desk, content: bytes) -> None:
    desk.publish(content)
    assert desk.ring.error
    assert desk.show(ME.token()) is not None


def test_without_keys_it_is_not_the_client_s_fault(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.ring.keys = {}
    refused = desk.refused(ME.token())
    assert (refused.status, refused.counts) == (503, False)


def test_symmetric_and_encrypting_keys_are_left_out() -> None:
    keys = json.loads(ME.jwks())["keys"]
    keys[0]["use"] = "enc"
    keys.append({"kty": "oct", "k": base64.urlsafe_b64encode(b"x" * 32).decode(), "kid": "secret"})
    keys.append({"kty": "EC", "crv": "P-256", "kid": "broken"})
    assert sorted(keys_of(json.dumps({"keys": keys}).encode(), ALGORITHMS)) == ["ec", "ed"]


@pytest.mark.parametrize(
    ("claims", "grants"),
    [
        ({"scope": "mcp"}, EVERYTHING),
        ({"scope": "git unknown"}, Grants(servers=frozenset({"git"}))),
        ({"scp": ["git", "log", 5]}, Grants(servers=frozenset({"git"}))),
        ({"scp": "log"}, Grants(servers=frozenset(), tools=frozenset({("git", "git_log")}))),
        ({"scope": "two log"}, Grants(servers=frozenset({"a", "b"}), tools=frozenset({("git", "git_log")}))),
    ],
)
def test_scopes_say_what_it_is_good_for(tmp_path: Path, claims: dict[str, Any], grants: Grants) -> None:
    scopes = {"mcp": "*", "git": ("git",), "log": ("git/git_log",), "two": ("a", "b")}
    found = Desk(tmp_path, scopes=scopes).show(ME.token(**claims))
    assert found is not None
    assert found.grants == grants


@pytest.mark.parametrize("claims", [{}, {"scope": ""}, {"scope": "other"}, {"scope": 5}, {"scope": None, "scp": {}}])
def test_a_token_without_a_scope_of_ours_is_good_for_nothing(tmp_path: Path, claims: dict[str, Any]) -> None:
    refused = Desk(tmp_path, scopes={"git": ("git",), "mcp": "*"}).refused(ME.token(**claims))
    assert (refused.error, refused.status, refused.scope) == ("insufficient_scope", 403, "git mcp")


def test_another_claim_may_name_the_owner(tmp_path: Path) -> None:
    assert Desk(tmp_path, principal="email").show(ME.token(email="ada@x")) == Principal("jwt:ada@x")


def test_no_more_than_so_many_are_remembered(desk: Desk) -> None:
    known = desk.authenticator._known
    for number in range(REMEMBERED):
        known[b"%d" % number] = (Principal("x"), 1e12)
    desk.show(ME.token())
    assert len(known) == REMEMBERED


def test_a_token_that_is_too_long_is_not_looked_at(desk: Desk) -> None:
    assert "too long" in str(desk.refused(b"x" * (LONGEST_TOKEN + 1)))


TOKEN = ME.token()


@given(st.one_of(st.binary(max_size=200), st.text(alphabet="eyJ.abc-_019=", max_size=120).map(str.encode)))
def test_rubbish_is_refused(tmp_path_factory: pytest.TempPathFactory, token: bytes) -> None:
    refused = shared(tmp_path_factory).refused(token.strip() or b"x")
    assert refused.status == 401


@given(at=st.integers(0, len(TOKEN) - 1), byte=st.characters(codec="latin-1"))
def test_one_changed_character_spoils_a_token(tmp_path_factory: pytest.TempPathFactory, at: int, byte: str) -> None:
    changed = TOKEN[:at] + byte + TOKEN[at + 1 :]
    if _decoded(changed) != _decoded(TOKEN):
        assert shared(tmp_path_factory).refused(changed.encode("latin-1")).status == 401


def _decoded(token: str) -> list[bytes]:
    """The parts as bytes: the last character of base64 has bits that mean nothing."""
    try:
        return [base64.urlsafe_b64decode(part + "==") for part in token.split(".")]
    except ValueError:
        return []


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=9), lambda kids: st.dictionaries(st.text(max_size=5), kids)
    )
)
def test_any_json_is_a_key_set_or_refused(value: Any) -> None:
    with pytest.raises(ValueError):
        keys_of(json.dumps({"keys": [value]}).encode(), ALGORITHMS)


_made: list[Desk] = []


def shared(factory: pytest.TempPathFactory) -> Desk:
    if not _made:
        _made.append(Desk(factory.mktemp("jwt")))
    return _made[0]
