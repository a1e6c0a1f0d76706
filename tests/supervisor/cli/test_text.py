"""Values as short text, and nothing in it that a terminal would obey."""

from __future__ import annotations

import itertools

import pytest

from mcpd.cli.text import TerminalFilter, clean, clean_lines, duration, moment, size


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (-1.0, "0ms"),
        (0.0, "0ms"),
        (0.85, "850ms"),
        (1.0, "1s"),
        (59.9, "59s"),
        (60, "1m00s"),
        (185, "3m05s"),
        (3600, "1h00m"),
        (7800, "2h10m"),
        (86400 * 4 + 3 * 3600, "4d03h"),
    ],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (None, "-"),
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 KiB"),
        (2**20, "1.0 MiB"),
        (32_925_696, "31.4 MiB"),
        (999 * 2**20 + 2**19, "999.5 MiB"),
        (2**30, "1.0 GiB"),
        (5000 * 2**30, "5000.0 GiB"),
    ],
)
def test_sizes(count: int | None, text: str) -> None:
    assert size(count) == text


def test_a_moment_of_another_day_has_its_date() -> None:
    assert len(moment(1_000_000.0, 1_000_001.0)) == len("12:34:56")
    assert moment(1_000_000.0, 2_000_000.0).startswith("1970-01-1")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é 漢 🙂", "plain é 漢 🙂"),
        ("\x1b[31mred\x07", " [31mred "),
        ("two\nlines\r\n", "two lines  "),
        ("turned \u202e round\u2069", "turned   round "),
        ("\u2028\udcff\x85", "   "),
    ],
)
def test_nothing_is_left_that_a_terminal_would_obey(text: str, shown: str) -> None:
    assert clean(text) == shown


def test_lines_stay_lines() -> None:
    assert clean_lines("a\tb\n\x1b]0;title\x07c") == "a       b\n ]0;title c"


LOG = "é \x1b[1;31mred\x1b[0m\x1b]0;title\x07 \x1b[2J漢\r\nend 50%\r100%\n".encode()
SHOWN = "é \x1b[1;31mred\x1b[0m?]0;title? ?[2J漢\nend 50%\n100%\n".encode()


def test_colours_of_a_log_pass_and_nothing_else_does() -> None:
    assert TerminalFilter()(LOG) == SHOWN


def test_it_does_not_matter_how_a_log_is_cut() -> None:
    """But at a CR LF, which then shows as two line breaks."""
    for cut in range(len(LOG)):
        shown = TerminalFilter()
        pieces = shown(LOG[:cut]) + shown(LOG[cut:])
        assert pieces.replace(b"\n\n", b"\n") == SHOWN, cut


def test_bytes_that_are_no_text_are_marked() -> None:
    shown = TerminalFilter()

    assert b"".join(map(shown, (b"a\xff", b"b\xe6", b"\xbc", b"\xa2"))).decode() == "a\ufffdb漢"


def test_an_endless_escape_is_not_held_back() -> None:
    shown = TerminalFilter()

    out = b"".join(shown(piece) for piece in itertools.repeat(b"\x1b[1;1", 50))
    assert len(out) > 200
