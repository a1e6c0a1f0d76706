"""What servers offer, remembered over their processes' ends: by this daemon, and in the store for the next one."""

from __future__ import annotations

from typing import Final

import msgspec
import structlog

from mcpd.config.registry import ServerSpec
from mcpd.fleet.era import fingerprint
from mcpd.routing.info import ServerInfo
from mcpd.store.store import Store

MAX_KEPT: Final = 4 * 2**20
"""A larger catalogue is not written to the store; the next daemon starts the server once to learn it."""

_log = structlog.get_logger("mcpd.fleet")


class Known(msgspec.Struct, frozen=True):
    """A server as it was when it last ran; `rss`: the memory that it used then, in bytes."""

    fingerprint: str
    info: ServerInfo
    rss: int = 0


class Catalogues:
    """Only of servers that may be listed without running: lazy ones, and those of which each session has its own."""

    def __init__(self, store: Store | None) -> None:
        self._store = store
        self._known: dict[str, Known] = {}
        self._learnt: set[str] = set()  # by this daemon

    def recall(self, spec: ServerSpec) -> Known | None:
        """None if it is not known, or is another program now."""
        known = self._known.get(spec.name) or self._read(spec.name)
        return known if known is not None and known.fingerprint == fingerprint(spec) else None

    def rests(self, spec: ServerSpec) -> bool:
        """Whether a server needs no process until it is used. One that is not lazy is tried once by each daemon."""
        if spec.activation != "lazy" and (spec.sharing != "session" or spec.name not in self._learnt):
            return False
        return self.recall(spec) is not None

    def learn(self, spec: ServerSpec, info: ServerInfo, rss: int) -> None:
        """It runs, or just did; `rss` 0: not measured."""
        before = self._known.get(spec.name)
        known = Known(fingerprint(spec), info, rss or (before.rss if before is not None else 0))
        self._learnt.add(spec.name)
        if known == before:
            return
        self._known[spec.name] = known
        if self._store is not None:
            raw = msgspec.msgpack.encode(known)
            self._store.set_catalogue(spec.name, raw if len(raw) <= MAX_KEPT else None)

    def forget(self, server: str) -> None:
        """Its entry is another: what it offers has to be learnt anew."""
        self._learnt.discard(server)
        self._known.pop(server, None)
        if self._store is not None:
            self._store.set_catalogue(server, None)

    def _read(self, server: str) -> Known | None:
        raw = self._store.catalogue(server) if self._store is not None else None
        if raw is None:
            return None
        try:
            known = self._known[server] = msgspec.msgpack.decode(raw, type=Known)
        except msgspec.MsgspecError as problem:  # of an other version of mcpd
            _log.warning("catalogue.unreadable", server=server, problem=str(problem))
            return None
        return known
