"""Values as short text for people."""

from __future__ import annotations

import re
import time
import unicodedata
from codecs import getincrementaldecoder
from datetime import UTC, datetime
from typing import Final

_COLOUR: Final = re.compile(r"(\x1b\[[0-9;:]{0,30}m)")  # ECMA-48, 8.3.117: SGR
_COLOUR_BEGUN: Final = re.compile(r"\x1b(?:\[[0-9;:]{0,30})?")
_LONGEST_COLOUR: Final = 33
_RETURN: Final = re.compile(r"\r\n?")
_STEPS: Final = ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s"))


def duration(seconds: float | None) -> str:
    """`850ms`, `12s`, `3m05s`, `2h10m`, `4d03h`."""
    if seconds is None:
        return "-"
    if seconds < 1:
        return f"{max(0, round(seconds * 1000))}ms"
    for unit, word, below, below_word in _STEPS:
        if seconds >= unit:
            return f"{int(seconds // unit)}{word}{int(seconds % unit // below):02}{below_word}"
    return f"{int(seconds)}s"


def size(count: int | None) -> str:
    """`512 B`, `31.4 MiB`."""
    if count is None:
        return "-"
    if count < 1000:
        return f"{count} B"
    value, power = count / 1024, 0
    while value >= 1000 and power < 2:
        value, power = value / 1024, power + 1
    return f"{value:.1f} {('KiB', 'MiB', 'GiB')[power]}"


def moment(at: float, now: float | None = None) -> str:
    """Local time; with the date if it is not today's."""
    when = datetime.fromtimestamp(at, UTC).astimezone()
    today = datetime.fromtimestamp(time.time() if now is None else now, UTC).astimezone().date()
    return when.strftime("%H:%M:%S" if when.date() == today else "%Y-%m-%d %H:%M:%S")


def clean(text: str) -> str:
    """One line without anything that a terminal would obey: what servers and clients say is theirs, not ours."""
    return "".join(character if _is_shown(character) else " " for character in text)


def clean_lines(text: str) -> str:
    """As `clean`, line by line."""
    return "\n".join(clean(line.expandtabs()) for line in text.split("\n"))


class TerminalFilter:
    """Bytes of a log as a terminal may get them: colours pass, everything else that it would obey does not.

    Kept between calls: what may be the beginning of a colour or of a character.
    """

    def __init__(self) -> None:
        self._decoder = getincrementaldecoder("utf-8")("replace")
        self._rest = ""

    def __call__(self, chunk: bytes) -> bytes:
        text = self._rest + self._decoder.decode(chunk)
        start = text.rfind("\x1b", -_LONGEST_COLOUR)
        self._rest = text[start:] if start >= 0 and _COLOUR_BEGUN.fullmatch(text, start) else ""
        text = text[: len(text) - len(self._rest)]
        pieces = _COLOUR.split(_RETURN.sub("\n", text))
        pieces[::2] = [
            "".join(one if one in "\n\t" or _is_shown(one) else "?" for one in piece) for piece in pieces[::2]
        ]
        return "".join(pieces).encode()


def _is_shown(character: str) -> bool:
    # Cc: escape sequences begin with one. Cf: directions of writing that turn a line around. Zl, Zp: line breaks.
    return character == " " or unicodedata.category(character) not in ("Cc", "Cf", "Zl", "Zp", "Cs")
