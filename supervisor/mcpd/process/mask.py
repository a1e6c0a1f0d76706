"""Takes secrets out of what servers print. Sans-IO: bytes in, bytes out."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

SHORTEST: Final = 6
"""Shorter values are left alone: they would turn up everywhere, and say where the secret is by what they hide."""
MASKED: Final = b"[secret]"


class Mask:
    """Knows the secrets of one server: whole, each line of those of several lines, and as JSON spells them."""

    def __init__(self, secrets: Iterable[str]) -> None:
        forms: set[bytes] = set()
        for secret in secrets:
            for part in (secret, *secret.splitlines()):
                raw = part.strip().encode(errors="replace")
                escaped = raw.replace(b"\\", b"\\\\").replace(b'"', b'\\"').replace(b"\n", b"\\n")
                forms |= {form for form in (raw, escaped) if len(form) >= SHORTEST}
        # the longest first, so that nothing of it is left where another one is a part of it
        self._forms = sorted(forms, key=lambda form: (-len(form), form))
        self._pattern = re.compile(b"|".join(map(re.escape, self._forms))) if forms else None

    def apply(self, data: bytes) -> bytes:
        """`data` without them; for a whole text."""
        return data if self._pattern is None else self._pattern.sub(MASKED, data)

    def stream(self) -> MaskedStream:
        """The same for a text that comes in pieces."""
        return MaskedStream(self)

    def settled(self, data: bytes) -> int:
        """How much of `data` will stay as it is, whatever comes behind it: the rest may be the beginning of one."""
        if self._pattern is None:
            return len(data)
        cut = min((self._begins(form, data) for form in self._forms), default=len(data))
        for match in self._pattern.finditer(data):
            if match.start() < cut < match.end():
                return match.end()
        return cut

    @staticmethod
    def _begins(form: bytes, data: bytes) -> int:
        """Where at the end of `data` a part of `form` stands that is not all of it; the length of `data` if nowhere."""
        at = data.find(form[:1], max(0, len(data) - len(form) + 1))
        while at >= 0 and not form.startswith(data[at:]):
            at = data.find(form[:1], at + 1)
        return at if at >= 0 else len(data)


class MaskedStream:
    """Holds back what may be the beginning of a secret until it is known."""

    __slots__ = ("_held", "_mask")

    def __init__(self, mask: Mask) -> None:
        self._mask = mask
        self._held = b""

    def feed(self, chunk: bytes) -> bytes:
        """What is known by now of all that came."""
        data = self._held + chunk
        cut = self._mask.settled(data)
        self._held = data[cut:]
        return self._mask.apply(data[:cut])

    def rest(self) -> bytes:
        """What was held back; nothing more comes."""
        held, self._held = self._held, b""
        return self._mask.apply(held)
