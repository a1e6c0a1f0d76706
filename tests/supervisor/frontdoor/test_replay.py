"""The ring of recent events."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpd.frontdoor.replay import Kept, Replay, parse_event_id


def test_only_later_events_of_the_same_stream_come_again() -> None:
    ring = Replay()
    for number, stream in enumerate((b"c1", b"p2", b"c1", b"c1"), 1):
        ring.add(Kept(stream, number, 0.0, b"e%d" % number))

    assert ring.after(b"c1", 1) == [b"e3", b"e4"]
    assert ring.after(b"p2", 0) == [b"e2"]
    assert ring.after(b"p2", 2) == []
    assert ring.knows(b"p2")
    assert not ring.knows(b"p9")


def test_the_oldest_make_room_by_count() -> None:
    ring = Replay(limit_events=2)
    for number in range(1, 5):
        ring.add(Kept(b"c1", number, 0.0, b"e%d" % number))

    assert ring.after(b"c1", 0) == [b"e3", b"e4"]


def test_the_newest_is_kept_whatever_its_size() -> None:
    ring = Replay(limit_bytes=10)
    ring.add(Kept(b"c1", 1, 0.0, b"small"))
    ring.add(Kept(b"c1", 2, 0.0, b"x" * 100))

    assert ring.after(b"c1", 0) == [b"x" * 100]


def test_old_events_are_forgotten() -> None:
    ring = Replay()
    ring.add(Kept(b"c1", 1, 10.0, b"old"))
    ring.add(Kept(b"c1", 2, 20.0, b"new"))
    ring.expire(15.0)

    assert ring.after(b"c1", 0) == [b"new"]


@given(st.lists(st.tuples(st.sampled_from([b"c1", b"c2"]), st.binary(max_size=20)), max_size=60))
def test_the_bounds_hold_whatever_is_added(events: list[tuple[bytes, bytes]]) -> None:
    ring = Replay(limit_bytes=50, limit_events=5)
    for number, (stream, event) in enumerate(events):
        ring.add(Kept(stream, number, 0.0, event))
        kept = ring.after(b"c1", -1) + ring.after(b"c2", -1)

        assert len(kept) <= 5
        assert sum(map(len, kept)) <= 50
        assert event in kept


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"c1-2", (b"c1", 2)),
        (b"p12-345", (b"p12", 345)),
        (b"", None),
        (b"c1", None),
        (b"c1-", None),
        (b"x1-2", None),
        (b"c-2", None),
        (b"c1-2-", None),
        (b"c1--2", None),
        (b"c\xb2-2", None),
        (b"c1-" + b"9" * 60, None),
    ],
)
def test_event_ids_are_ours_or_none(value: bytes, expected: tuple[bytes, int] | None) -> None:
    assert parse_event_id(value) == expected
