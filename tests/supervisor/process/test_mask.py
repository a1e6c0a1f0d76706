"""No secret is seen, however the text comes in pieces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpd.process.mask import MASKED, Mask


@pytest.mark.parametrize(
    ("secrets", "text", "masked"),
    [
        (["hunter22"], b"the key is hunter22!", b"the key is [secret]!"),
        (["hunter22"], b"hunter22hunter22", b"[secret][secret]"),
        (["short"], b"short", b"short"),
        ([], b"anything", b"anything"),
        (["hunter22\n"], b"hunter22\n", b"[secret]\n"),
        (["-----BEGIN\nabcdefgh\n-----END"], b"a line abcdefgh of it", b"a line [secret] of it"),
        (['say "hi" now'], b'{"x":"say \\"hi\\" now"}', b'{"x":"[secret]"}'),
        (["abcdef", "abcdefghi"], b"abcdefghi abcdef", b"[secret] [secret]"),
        (["a.c*e+g"], b"a.c*e+g abcdefg", b"[secret] abcdefg"),
    ],
)
def test_secrets_are_masked(secrets: list[str], text: bytes, masked: bytes) -> None:
    assert Mask(secrets).apply(text) == masked


SECRETS = st.lists(st.text(alphabet="ab", min_size=6, max_size=9), max_size=3)


@given(SECRETS, st.lists(st.text(alphabet="abc", max_size=12).map(str.encode), max_size=8))
def test_in_pieces_nothing_of_one_is_left(secrets: list[str], pieces: list[bytes]) -> None:
    mask = Mask(secrets)
    stream = mask.stream()
    shown = b"".join([*(stream.feed(piece) for piece in pieces), stream.rest()])
    for secret in secrets:
        assert secret.encode() not in shown.replace(MASKED, b" ")


@given(st.lists(st.binary(max_size=20), max_size=8), st.sampled_from([[], ["zzzzzzzz"], ["hunter22", "sesame-open"]]))
def test_other_texts_come_through_whole(pieces: list[bytes], secrets: list[str]) -> None:
    stream = Mask(secrets).stream()
    assert b"".join([*(stream.feed(piece) for piece in pieces), stream.rest()]) == b"".join(pieces)


@given(st.integers(0, 40), st.integers(0, 40))
def test_one_secret_cut_anywhere(first: int, second: int) -> None:
    text = b"before hunter22-is-it hunter22-is-it after"
    cuts = sorted((first, second))
    stream = Mask(["hunter22-is-it"]).stream()
    pieces = [text[: cuts[0]], text[cuts[0] : cuts[1]], text[cuts[1] :]]
    shown = b"".join([*(stream.feed(piece) for piece in pieces), stream.rest()])
    assert shown == b"before [secret] [secret] after"


def test_what_cannot_be_one_is_not_held_back() -> None:
    stream = Mask(["hunter22"]).stream()
    assert stream.feed(b"ready\n") == b"ready\n"
    assert stream.feed(b"hunt") == b""
    assert stream.feed(b"ing\n") == b"hunting\n"


def test_long_secrets_cost_little() -> None:
    mask = Mask(["a" * 60_000 + "b"])
    stream = mask.stream()
    assert stream.feed(b"a" * 59_999 + b"c") == b"a" * 59_999 + b"c"
