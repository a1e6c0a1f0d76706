"""Who servers of a root daemon are."""

from __future__ import annotations

import pwd

import pytest

from mcpd.errors import SpawnError
from mcpd.sandbox import identity
from mcpd.sandbox.identity import FIRST, LAST, Users


def test_each_server_has_a_uid_of_its_own_that_stays() -> None:
    users = Users("dynamic", "/run/mcpd")
    given = {name: users.of(name) for name in map(str, range(200))}

    assert len({one.uid for one in given.values()}) == 200
    assert all(FIRST <= one.uid <= LAST and one.gid == one.uid for one in given.values())
    assert given == {name: users.of(name) for name in given}
    assert Users("dynamic", "/run/mcpd").of("0") == given["0"]


def test_uid_that_something_runs_under_or_that_is_registered_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    first = Users("dynamic", "x").of("time").uid
    monkeypatch.setattr(identity, "_running", lambda: {first})
    second = Users("dynamic", "x").of("time").uid
    monkeypatch.setattr(identity, "_registered", lambda: {second})
    third = Users("dynamic", "x").of("time").uid

    assert len({first, second, third}) == 3


def test_range_that_is_used_up_is_a_shortage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "_running", lambda: set(range(FIRST, LAST + 1)))
    with pytest.raises(SpawnError, match="free") as caught:
        Users("dynamic", "x").of("time")
    assert caught.value.result == "resources"


def test_named_user_is_everybody_and_never_root() -> None:
    nobody = pwd.getpwnam("nobody")
    users = Users("nobody", "x")

    assert (users.of("a").uid, users.of("b").gid) == (nobody.pw_uid, nobody.pw_gid)
    for name, message in (("root", "never run as root"), ("no-such-user-here", "there is no user")):
        with pytest.raises(SpawnError, match=message) as caught:
            Users(name, "x").of("a")
        assert caught.value.result == "sandbox"


def test_forgotten_server_gives_its_uid_back() -> None:
    users = Users("dynamic", "x")
    uid = users.of("a").uid
    users.forget("a")
    assert users.of("a").uid == uid
