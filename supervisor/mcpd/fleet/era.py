"""Which era a server is spoken to in: what its entry says, what was found out before, and what it refuses.

A stdio server on the official Python SDK is locked to the era of its first request, so to ask a server that refused
one era in the other takes another process.
"""

from __future__ import annotations

import hashlib
import json
import os
from typing import Final, Protocol

from mcpd.config.registry import ServerSpec
from mcpd.fleet.calls import ErrorAnswer
from mcpd.lifecycle.reconcile import is_second_era
from mcpd.wire import methods
from mcpd.wire.eras import Era

MARK: Final = "era"
# What servers of the other era answer to `initialize` (2026-07-28, versioning; the SDKs).
REFUSALS: Final = frozenset({methods.UNSUPPORTED_VERSION, methods.INVALID_REQUEST, methods.METHOD_NOT_FOUND})

_OTHER: Final = {Era.HANDSHAKE: Era.PER_REQUEST, Era.PER_REQUEST: Era.HANDSHAKE}


class Marks(Protocol):
    """What keeps the finds; `store.store.Store` is one."""

    def marks(self, server: str) -> dict[str, str]: ...
    def set_mark(self, server: str, key: str, value: str | None) -> None: ...


class EraMemory:
    """What was found out about the eras of servers. Without a store it lasts as long as the daemon."""

    def __init__(self, store: Marks | None) -> None:
        self._store = store
        self._found: dict[str, str] = {}

    def recall(self, spec: ServerSpec) -> Era | None:
        """The era that this program was found to speak; None if it is not known, or is another program now."""
        kept = self._found.get(spec.name)
        if kept is None and self._store is not None:
            kept = self._store.marks(spec.name).get(MARK)
        era, _, print = (kept or "").partition(" ")
        return Era(era) if era in _OTHER and print == fingerprint(spec) else None

    def learn(self, spec: ServerSpec, era: Era) -> None:
        """A server has agreed to speak so."""
        kept = f"{era} {fingerprint(spec)}"
        if self._found.get(spec.name) != kept:
            self._found[spec.name] = kept
            if self._store is not None:
                self._store.set_mark(spec.name, MARK, kept)


def fingerprint(spec: ServerSpec) -> str:
    """What tells a program from a later version of itself: its arguments, and the times of the files that they name."""
    script = [str(spec.script.file), spec.script.object] if spec.script is not None else []
    argv = [*spec.command, *script, str(spec.package or ""), *spec.args]
    times = [_time_of(spec, word) for word in argv if word]
    return hashlib.sha256(json.dumps([argv, times]).encode()).hexdigest()[:32]


def _time_of(spec: ServerSpec, word: str) -> list[int]:
    try:
        found = os.stat(os.path.join(spec.cwd, word))
    except (OSError, ValueError):  # it is no file, only a word
        return []
    return [found.st_mtime_ns, found.st_size]


class EraChoice:
    """The era in which the next process of one instance is asked; `asked`."""

    def __init__(self, key: str, spec: ServerSpec, memory: EraMemory) -> None:
        self._key = key
        self._memory = memory
        self._first = ""  # the refusal that led to the era which is asked now
        self.adopt(spec)

    def adopt(self, spec: ServerSpec) -> None:
        """The server's entry is another."""
        self._spec = spec
        self._is_found_out = spec.era == "auto"
        if is_second_era(self._key) or spec.era == "per-request":
            self.asked = Era.PER_REQUEST
        else:
            self.asked = (self._memory.recall(spec) if self._is_found_out else None) or Era.HANDSHAKE

    def is_refused(self, era: Era, problem: ErrorAnswer) -> bool:
        """Whether an error answer to a process that was asked in `era` means that the other one is to be tried, which
        is `asked` then. If that was tried already, the server is simply broken (`blame`)."""
        if not self._is_found_out:
            return False
        if problem.method == methods.INITIALIZE:
            refused = problem.code in REFUSALS
        else:
            refused = problem.method == methods.DISCOVER
        if not refused or self._first:
            return False
        self._first = str(problem)
        self.asked = _OTHER[era]
        return True

    def blame(self, problem: ErrorAnswer) -> str:
        """Why it is no use, with what it said in the other era; the next try begins from the start."""
        if not self._first:
            return str(problem)
        text, self._first = f"{self._first}; {problem}", ""
        self.asked = self._memory.recall(self._spec) or Era.HANDSHAKE
        return text

    def agreed(self, era: Era) -> None:
        """A process that was asked in `era` spoke so."""
        self._first = ""
        if self._is_found_out:
            self._memory.learn(self._spec, era)
