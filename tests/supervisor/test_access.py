"""Named tokens: made, checked, revoked, expired, and kept over a restart."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpd.access import Tokens
from mcpd.control.view import TokenRequest
from mcpd.errors import ClientFault, ConfigError, NotFound
from mcpd.frontdoor.auth import BearerAuthenticator
from mcpd.store.tokens import TokenFile
from mcpd.wire.principal import EVERYTHING, Grants, Principal


class Place:
    """A state directory, the time, and who was told to be gone."""

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir
        self.now = 1_700_000_000.0
        self.gone: list[str] = []
        self.open()

    def open(self) -> None:
        self.tokens = Tokens(self.state_dir, lambda: self.now, self.gone.append)
        self.door = BearerAuthenticator(self.tokens.verifier, self.tokens.principal_of)

    def create(self, name: str = "ada", **asked: Any) -> str:
        return self.tokens.create(TokenRequest(name=name, **asked))

    def shown(self, token: str) -> Principal | None:
        return self.door.principal(b"Bearer " + token.encode())


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_the_default_token_may_use_everything(place: Place) -> None:
    default = (place.state_dir / "token").read_text().strip()
    assert place.shown(default) == Principal("default", EVERYTHING)


def test_a_token_opens_what_it_names(place: Place) -> None:
    token = place.create(servers=("b", "a"), views=("v",), tools=("a/x", "a/y/z"))

    found = place.shown(token)
    assert found == Principal(
        "ada", Grants(frozenset({"a", "b"}), frozenset({"v"}), frozenset({("a", "x"), ("a", "y/z")}))
    )
    assert place.shown(token) is found
    assert place.shown(token + "x") is None


def test_it_is_kept_over_a_restart_by_its_digest_only(place: Place) -> None:
    token = place.create()
    place.open()

    assert place.shown(token) == Principal("ada")
    kept = place.state_dir / "tokens.jsonl"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert token not in kept.read_text()
    assert sorted(os.listdir(place.state_dir)) == ["token", "tokens.jsonl"]


def test_a_revoked_one_opens_nothing_and_what_it_has_open_ends(place: Place) -> None:
    token, other = place.create("ada"), place.create("bob")
    place.tokens.revoke("ada")

    assert place.shown(token) is None
    assert place.shown(other) == Principal("bob")
    assert place.gone == ["ada"]
    place.open()
    assert place.shown(token) is None
    with pytest.raises(NotFound, match="'ada'") as refused:
        place.tokens.revoke("ada")
    assert refused.value.remedy == "there are bob"


def test_an_expired_one_opens_nothing_and_what_it_has_open_ends_once(place: Place) -> None:
    token = place.create(lifetime=60)
    place.now += 59
    place.tokens.tick()
    assert place.shown(token) is not None

    place.now += 1
    assert place.shown(token) is None
    place.tokens.tick()
    place.tokens.tick()
    assert place.gone == ["ada"]
    [status] = place.tokens.list()
    assert (status.expired, status.expires) == (True, place.now)


def test_a_name_is_used_once_unless_it_is_to_be_replaced(place: Place) -> None:
    old = place.create(servers=("a",))
    with pytest.raises(ClientFault, match="already"):
        place.create()
    new = place.create(replace=True)

    assert place.shown(old) is None
    assert place.shown(new) == Principal("ada", EVERYTHING)
    assert place.gone == ["ada"]


def test_no_grants_are_other_than_none_named(place: Place) -> None:
    nothing = place.shown(place.create(servers=()))
    assert nothing is not None
    assert nothing.grants == Grants(servers=frozenset())


@pytest.mark.parametrize(
    "asked",
    [
        {"name": "default"},
        {"name": "operator"},
        {"name": "anybody"},
        {"name": ""},
        {"name": "Ada"},
        {"name": "local:0"},
        {"name": "a" * 65},
        {"name": "ada", "lifetime": 0},
        {"name": "ada", "lifetime": -1},
        {"name": "ada", "lifetime": 1e12},
        {"name": "ada", "lifetime": float("nan")},
        {"name": "ada", "tools": ("x",)},
        {"name": "ada", "tools": ("/x",)},
        {"name": "ada", "tools": ("a/",)},
        {"name": "ada", "servers": tuple(map(str, range(1025)))},
    ],
)
def test_what_makes_no_sense_is_refused(place: Place, asked: Any) -> None:
    with pytest.raises(ClientFault):
        place.create(**asked)
    assert place.tokens.list() == []


@pytest.mark.parametrize("line", ["x", "{}", "[]", "null", '{"name": 1}', '{"name":"a","digest":"zz"}'])
def test_a_file_that_was_edited_wrongly_is_refused(place: Place, line: str) -> None:
    place.create()
    kept = place.state_dir / "tokens.jsonl"
    kept.write_text(kept.read_text() + line + "\n")
    with pytest.raises(ConfigError, match="line 2"):
        place.open()


def test_a_file_that_others_may_read_is_refused(place: Place) -> None:
    place.create()
    (place.state_dir / "tokens.jsonl").chmod(0o644)
    with pytest.raises(ConfigError, match="0644"):
        place.open()


def test_a_change_that_cannot_be_kept_is_none(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    token = place.create()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(ConfigError, match="No space left"):
        place.tokens.revoke("ada")
    assert place.shown(token) is not None
    assert place.gone == []
    assert sorted(os.listdir(place.state_dir)) == ["token", "tokens.jsonl"]


@given(content=st.binary(max_size=300))
def test_any_file_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    state_dir = tmp_path_factory.mktemp("state")
    path = state_dir / "tokens.jsonl"
    path.touch(0o600)
    path.write_bytes(content)
    try:
        assert len(TokenFile(state_dir)) == 0
    except ConfigError as refused:
        assert "tokens.jsonl" in str(refused)  # noqa: PT017 - either outcome is fine
