"""Cut a stream of bytes into newline-terminated frames of bounded length (MCP stdio transport).

A frame that grows past the limit is discarded up to its line break, so that memory stays bounded by the limit
plus one chunk, whatever the other side sends.
"""

from __future__ import annotations

from dataclasses import dataclass, field

MAX_LINE = 16 * 1024 * 1024
SAMPLE = 256
BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Overlong:
    """A line was discarded: how long it was (bytes), how it began, and how it ended."""

    length: int
    sample: bytes
    tail: bytes = field(default=b"", compare=False)


class LineSplitter:
    """Feed chunks, get frames: without their line break, without empty lines, without a leading BOM."""

    __slots__ = ("_discarded", "_discarding", "_first", "_held", "_limit", "_parts", "_sample", "_sample_size", "_tail")

    def __init__(self, limit: int = MAX_LINE) -> None:
        self._limit = limit
        self._sample_size = min(SAMPLE, limit)
        self._parts: list[bytes] = []
        self._held = 0
        self._discarding = False
        self._discarded = 0
        self._sample = self._tail = b""
        self._first = True

    @property
    def pending(self) -> bytes:
        """The beginning of the line that is not finished yet (at most `SAMPLE` bytes)."""
        return b"".join(self._parts)[:SAMPLE]

    def feed(self, chunk: bytes) -> list[bytes | Overlong]:
        """Return the frames that `chunk` completes, in order."""
        if self._first and chunk:
            self._first = False
            chunk = chunk.removeprefix(BOM)
        head, newline, rest = chunk.partition(b"\n")
        if not newline:
            self._hold(chunk)
            return []
        frames: list[bytes | Overlong] = []
        self._finish(head, frames)
        if rest:
            lines = rest.split(b"\n")
            tail = lines.pop()
            for line in lines:
                if len(line) > self._limit:
                    frames.append(Overlong(len(line), line[: self._sample_size], line[-SAMPLE:]))
                else:
                    _append(line, frames)
            if tail:
                self._hold(tail)
        return frames

    def _hold(self, part: bytes) -> None:
        if self._discarding:
            self._discarded += len(part)
            self._tail = (self._tail + part[-SAMPLE:])[-SAMPLE:]
            return
        self._parts.append(part)
        self._held += len(part)
        if self._held > self._limit:
            line = b"".join(self._parts)
            self._sample, self._tail = line[: self._sample_size], line[-SAMPLE:]
            self._discarded = self._held
            self._discarding = True
            self._parts.clear()
            self._held = 0

    def _finish(self, head: bytes, frames: list[bytes | Overlong]) -> None:
        if not self._discarding and self._parts:
            self._hold(head)
            head = b""
        if self._discarding:
            tail = (self._tail + head[-SAMPLE:])[-SAMPLE:]
            frames.append(Overlong(self._discarded + len(head), self._sample, tail))
            self._discarding = False
            self._sample = self._tail = b""
        elif self._parts:
            line = b"".join(self._parts)
            self._parts.clear()
            self._held = 0
            _append(line, frames)
        elif len(head) > self._limit:
            frames.append(Overlong(len(head), head[: self._sample_size], head[-SAMPLE:]))
        else:
            _append(head, frames)


def _append(line: bytes, frames: list[bytes | Overlong]) -> None:
    if line.endswith(b"\r"):
        line = line[:-1]
    if line and not line.isspace():
        frames.append(line)
