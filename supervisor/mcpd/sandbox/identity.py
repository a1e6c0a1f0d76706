"""Who servers run as when the daemon is root: a user of its own for each, of the range that systemd keeps for this."""

from __future__ import annotations

import os
import pwd
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from mcpd.errors import SpawnError
from mcpd.sandbox.policy import Identity

FIRST, LAST = 61184, 65519
"""systemd.io/UIDS-GIDS: the range of DynamicUser=."""
LOOK_EVERY: Final = 1.0
_SYSTEMD: Final = "/run/systemd/dynamic-uid"


class Users:
    """Gives each server a uid: the same one as long as the server is known here, and as a rule after a restart too."""

    def __init__(self, run_as: str, salt: str, kept: Path | None = None) -> None:
        """`salt` keeps two daemons of one machine apart: where each begins to look follows from it and the name.

        `kept`: the directory with those that servers keep, each named as its server and owned by its uid.
        """
        self._run_as = run_as
        self._salt = salt
        self._kept = kept
        self._given: dict[str, int] = {}
        self._had: dict[int, str] = {}
        self._seen: frozenset[int] = frozenset()
        self._looked_at = float("-inf")

    def of(self, server: str) -> Identity:
        """Raises SpawnError: there is no such user, it is root, or all uids of the range are taken."""
        if self._run_as != "dynamic":
            return self._named()
        uid = self._given.get(server)
        if uid is None:
            uid = self._given[server] = self._unused(server)
        return Identity(uid, uid)

    def forget(self, server: str) -> None:
        """The server is gone from the registry, and nothing of it runs. Others get its uid only when all are used up:
        outside of sandboxes there may be files of it."""
        uid = self._given.pop(server, None)
        if uid is not None:
            self._had[uid] = server

    def _named(self) -> Identity:
        try:
            found = pwd.getpwnam(self._run_as)
        except KeyError:
            raise SpawnError("sandbox", f"sandbox.run_as: there is no user {self._run_as!r}; make it") from None
        if found.pw_uid == 0:
            raise SpawnError("sandbox", "sandbox.run_as: servers never run as root; name another user")
        return Identity(found.pw_uid, found.pw_gid)

    def _unused(self, server: str) -> int:
        taken = {*self._given.values(), *self._others(), *self._owners(server)}
        last_resort: int | None = None
        for uid in _candidates(f"{self._salt}:{server}"):
            if uid in taken or os.path.exists(f"{_SYSTEMD}/{uid}"):
                continue
            if self._had.get(uid, server) == server:
                return uid
            last_resort = last_resort or uid
        if last_resort is None:
            raise SpawnError("resources", f"no uid from {FIRST} to {LAST} is free")
        return last_resort

    def _owners(self, server: str) -> set[int]:
        """Who owns what other servers keep, also those that are gone."""
        if self._kept is None or not self._kept.is_dir():
            return set()
        with os.scandir(self._kept) as entries:
            return {entry.stat(follow_symlinks=False).st_uid for entry in entries if entry.name != server}

    def _others(self) -> frozenset[int]:
        """Uids that are somebody's. A daemon asks for all of its servers at once, and a look at every process takes
        time: so it is looked once for those."""
        now = time.monotonic()
        if now >= self._looked_at + LOOK_EVERY:
            self._seen, self._looked_at = frozenset((*_running(), *_registered())), now
        return self._seen


def _candidates(text: str) -> Iterator[int]:
    count = LAST - FIRST + 1
    start = zlib.crc32(text.encode()) % count
    return (FIRST + (start + step) % count for step in range(count))


def _running() -> set[int]:
    """The uids of the range under which something runs now."""
    found = set()
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                found.add(os.stat(f"/proc/{name}").st_uid)
            except OSError:
                continue
    return found


def _registered() -> set[int]:
    return {entry.pw_uid for entry in pwd.getpwall()}
