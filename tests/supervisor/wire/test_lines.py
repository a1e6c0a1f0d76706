"""Frames are the same however the bytes are cut, and memory is bounded whatever comes."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpd.wire.lines import SAMPLE, LineSplitter, Overlong

CASES = {
    "one line": (b"{}\n", [b"{}"]),
    "several lines": (b"1\n2\n3\n", [b"1", b"2", b"3"]),
    "carriage returns are part of the line break": (b"1\r\n2\r\n", [b"1", b"2"]),
    "a byte order mark is dropped": (b"\xef\xbb\xbf{}\n", [b"{}"]),
    "empty and blank lines are nothing": (b"\n\r\n  \n1\n", [b"1"]),
    "what has no line break yet is held back": (b"1\n2", [b"1"]),
    "an overlong line is discarded up to its end": (b"0123456789\n1\n", [Overlong(10, b"01234567"), b"1"]),
}


def whole(data: bytes, limit: int = 8) -> list[bytes | Overlong]:
    return LineSplitter(limit).feed(data)


@pytest.mark.parametrize(("data", "frames"), CASES.values(), ids=CASES.keys())
def test_stream_is_cut_into_frames(data: bytes, frames: list[bytes | Overlong]) -> None:
    assert whole(data) == frames


# a byte order mark is only taken off whole: the first read of a pipe holds all of it
UNMARKED = {title: case for title, case in CASES.items() if "mark" not in title}


@pytest.mark.parametrize(("data", "frames"), UNMARKED.values(), ids=UNMARKED.keys())
def test_frames_are_the_same_byte_by_byte(data: bytes, frames: list[bytes | Overlong]) -> None:
    splitter = LineSplitter(8)
    found = [frame for index in range(len(data)) for frame in splitter.feed(data[index : index + 1])]
    assert found == frames


@given(st.lists(st.binary(max_size=12).filter(lambda line: b"\n" not in line)), st.lists(st.integers(1, 7), min_size=1))
def test_frames_do_not_depend_on_how_the_stream_is_cut(lines: list[bytes], sizes: list[int]) -> None:
    data = b"".join(line + b"\n" for line in lines)
    if data.startswith(b"\xef"):
        data = b"\n" + data
    expected = whole(data)
    splitter = LineSplitter(8)
    found: list[bytes | Overlong] = []
    at = turn = 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        found += splitter.feed(data[at : at + size])
        at += size
        turn += 1
    assert found == expected


def test_overlong_line_takes_no_more_memory_than_the_limit() -> None:
    splitter = LineSplitter(1000)
    for _ in range(10_000):
        assert splitter.feed(b"x" * 1000) == []
        assert sys.getsizeof(splitter.pending) < 2 * SAMPLE
    assert splitter.feed(b"\n1\n") == [Overlong(10_000_000, b"x" * SAMPLE), b"1"]


def test_line_of_exactly_the_limit_passes() -> None:
    assert whole(b"01234567\n") == [b"01234567"]
    splitter = LineSplitter(8)
    assert splitter.feed(b"0123") + splitter.feed(b"4567") + splitter.feed(b"\n") == [b"01234567"]


def test_half_a_line_is_to_be_seen() -> None:
    splitter = LineSplitter(100)
    splitter.feed(b'{"jsonrpc":')
    assert splitter.pending == b'{"jsonrpc":'
