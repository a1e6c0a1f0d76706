"""Who is at the other end of a unix socket, and whether it may be there: what the kernel says, not what it says itself.

The credentials are those of the process that connected, at that moment (unix(7), SO_PEERCRED; socket(7),
SO_PEERGROUPS); a descriptor that is handed on takes them along.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Collection
from typing import Final, NamedTuple

_UCRED: Final = struct.Struct("3i")
_PEERGROUPS: Final = 59  # asm-generic/socket.h; Python has no name for it
_ROOM: Final = 1024  # bytes; more Python does not ask for


class Peer(NamedTuple):
    """The process that connected."""

    pid: int
    uid: int
    gid: int


class Stranger(Exception):
    """Whoever connected may not; the text says why, `remedy` what can be done."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


class Peers:
    """Those who may connect to a socket: some users, and the members of a group if there is one."""

    __slots__ = ("_key", "_uids", "gid")

    def __init__(self, uids: Collection[int] | None = None, gid: int | None = None, key: str = "") -> None:
        """`uids`: the daemon's user and root, unless others are named. `key`: the one of the registry that names the
        group."""
        self._uids = frozenset((os.getuid(), 0) if uids is None else uids)
        self.gid = gid
        self._key = key

    def admit(self, connection: socket.socket) -> Peer:
        """Who it is; raises Stranger."""
        peer = peer_of(connection)
        if peer.uid in self._uids or (self.gid is not None and self._is_member(peer, connection)):
            return peer
        whose = f"this socket is not for user {peer.uid}: it is the daemon's user's and root's"
        if self.gid is not None:
            raise Stranger(f"{whose}, and group {self.gid}'s", "join the group, and log in anew")
        remedy = f"name a group of yours as {self._key} in the registry" if self._key else "ask the daemon's user"
        raise Stranger(whose, remedy)

    def _is_member(self, peer: Peer, connection: socket.socket) -> bool:
        return peer.gid == self.gid or self.gid in groups_of(connection)


def peer_of(connection: socket.socket) -> Peer:
    """The process that connected, as the kernel saw it then."""
    return Peer(*_UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)))


def groups_of(connection: socket.socket) -> frozenset[int]:
    """Its supplementary groups; none if the kernel does not tell, or if there are more than 256."""
    try:
        found = connection.getsockopt(socket.SOL_SOCKET, _PEERGROUPS, _ROOM)
    except OSError:
        return frozenset()
    return frozenset(struct.unpack(f"{len(found) // 4}I", found[: len(found) // 4 * 4]))
