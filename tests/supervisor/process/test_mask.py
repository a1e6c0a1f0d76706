"""No secret is seen, however the text comes in pieces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpd.process.mask import MASKED, MOST_FORMS, Mask


@pytest.mark.parametrize(
    ("secrets", "text", "masked"),
    [
        ([b"hunter22"], b"the key is hunter22!", b"the key is [secret]!"),
        ([b"hunter22"], b"hunter22hunter22", b"[secret][secret]"),
        ([b"short"], b"short", b"short"),
        ([b"x"], b"exact text x", b"exact text x"),
        ([b""], b"anything", b"anything"),
        ([], b"anything", b"anything"),
        ([b"hunter22\n"], b"hunter22\n", b"[secret]\n"),
        ([b"-----BEGIN\nabcdefgh\n-----END"], b"a line abcdefgh of it", b"a line [secret] of it"),
        ([b"-----BEGIN\nabcdefgh\n-----END"], rb"-----BEGIN\nabcdefgh\n-----END", b"[secret]"),
        ([b'say "hi" now'], b'{"x":"say \\"hi\\" now"}', b'{"x":"[secret]"}'),
        (["schlüssel".encode()], b'{"x":"schl\\u00fcssel"}', b'{"x":"[secret]"}'),
        (["schlüssel".encode()], "schlüssel".encode(), b"[secret]"),
        ([b"\xff\xfe\0binary"], b"a \xff\xfe\0binary b", b"a [secret] b"),
        ([b"abcdef", b"abcdefghi"], b"abcdefghi abcdef", b"[secret] [secret]"),
        ([b"abcdef", b"defghi"], b"abcdefghi", b"[secret]"),
        ([b"a.c*e+g"], b"a.c*e+g abcdefg", b"[secret] abcdefg"),
    ],
)
def test_secrets_are_masked(secrets: list[bytes], text: bytes, masked: bytes) -> None:
    assert Mask(secrets).apply(text) == masked
    assert Mask(secrets).text(text.decode("utf-8", "replace")) == masked.decode("utf-8", "replace") or b"\xff" in text


SECRETS = st.lists(st.text(alphabet="ab", min_size=6, max_size=9).map(str.encode), max_size=3)


@given(SECRETS, st.lists(st.text(alphabet="abc", max_size=12).map(str.encode), max_size=8))
def test_in_pieces_nothing_of_one_is_left(secrets: list[bytes], pieces: list[bytes]) -> None:
    stream = Mask(secrets).stream()
    shown = b"".join([*(stream.feed(piece) for piece in pieces), stream.rest()])
    for secret in secrets:
        assert secret not in shown.replace(MASKED, b" ")


@given(SECRETS, st.lists(st.text(alphabet="abc", max_size=12).map(str.encode), max_size=8))
def test_no_more_is_held_back_than_twice_the_longest(secrets: list[bytes], pieces: list[bytes]) -> None:
    stream = Mask(secrets).stream()
    for piece in pieces * 3:
        stream.feed(piece)
        assert len(stream._held) <= 2 * max(map(len, secrets), default=0)


@given(
    st.lists(st.binary(max_size=20), max_size=8), st.sampled_from([[], [b"zzzzzzzz"], [b"hunter22", b"sesame-open"]])
)
def test_other_texts_come_through_whole(pieces: list[bytes], secrets: list[bytes]) -> None:
    stream = Mask(secrets).stream()
    assert b"".join([*(stream.feed(piece) for piece in pieces), stream.rest()]) == b"".join(pieces)


@given(st.integers(0, 40), st.integers(0, 40))
def test_one_secret_cut_anywhere(first: int, second: int) -> None:
    text = b"before hunter22-is-it hunter22-is-it after"
    cuts = sorted((first, second))
    stream = Mask([b"hunter22-is-it"]).stream()
    pieces = [text[: cuts[0]], text[cuts[0] : cuts[1]], text[cuts[1] :]]
    shown = b"".join([*(stream.feed(piece) for piece in pieces), stream.rest()])
    assert shown == b"before [secret] [secret] after"


def test_in_bytes_one_by_one_overlapping_ones_are_hidden_together() -> None:
    stream = Mask([b"abcdef", b"defghijkl"]).stream()
    shown = b"".join([*(stream.feed(b"%c" % byte) for byte in b"-abcdefghijkl-"), stream.rest()])
    assert shown == b"-[secret]-"


@pytest.mark.parametrize("end", range(30))
def test_of_a_text_that_was_cut_off_no_part_of_one_is_shown(end: int) -> None:
    text = b"key=hunter22-is-it, and on"
    shown = Mask([b"hunter22-is-it"]).beginning(text[:end])
    assert b"h" not in shown
    assert shown == Mask([b"hunter22-is-it"]).apply(text)[: len(shown)]


def test_what_cannot_be_one_is_not_held_back() -> None:
    stream = Mask([b"hunter22"]).stream()
    assert stream.feed(b"ready\n") == b"ready\n"
    assert stream.feed(b"hunt") == b""
    assert stream.feed(b"ing\n") == b"hunting\n"


def test_many_lines_are_known_and_there_is_an_end_to_it() -> None:
    lines = [b"%064d" % number for number in range(1000)]
    mask = Mask([b"\n".join(lines)])
    assert mask.apply(b"<" + lines[999] + b">") == b"<[secret]>"
    long = [b"x" * (10 + number) for number in range(2000)]
    assert len(Mask([b"\n".join(long)])._forms) == MOST_FORMS


def test_long_secrets_cost_little() -> None:
    mask = Mask([b"a" * 60_000 + b"b"])
    stream = mask.stream()
    assert stream.feed(b"a" * 59_999 + b"c") == b"a" * 59_999 + b"c"
