"""Who servers of a root daemon are."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

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


def test_one_look_at_all_processes_does_for_a_swarm_of_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []

    def look() -> set[int]:
        looks.append(1)
        return set()

    monkeypatch.setattr(identity, "_running", look)
    users = Users("dynamic", "x")
    for name in map(str, range(20)):
        users.of(name)
    assert len(looks) == 1

    monkeypatch.setattr(identity, "LOOK_EVERY", 0.0)
    users.of("later")
    assert len(looks) == 2


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


def test_forgotten_server_gives_its_uid_back_but_not_at_once_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    users = Users("dynamic", "x")
    uid = users.of("a").uid
    users.forget("a")
    monkeypatch.setattr(identity, "_candidates", lambda text: iter((uid, uid + 1)))

    assert users.of("b").uid == uid + 1  # although it begins to look there
    assert users.of("c").uid == uid  # nothing else is left
    users.forget("c")
    assert users.of("c").uid == uid


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's servers have uids of their own")
def test_uid_that_owns_what_another_server_keeps_is_not_given_away(tmp_path: Path) -> None:
    """Also after a restart, when nobody remembers who had it."""
    uid = Users("dynamic", "x", tmp_path).of("a").uid
    (tmp_path / "gone").mkdir()
    os.chown(tmp_path / "gone", uid, uid)

    assert Users("dynamic", "x", tmp_path).of("a").uid != uid
    (tmp_path / "gone").rename(tmp_path / "a")
    assert Users("dynamic", "x", tmp_path).of("a").uid == uid
