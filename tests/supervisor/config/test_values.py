"""Durations, sizes and names: what is taken, what is refused, and in which words."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import PydanticCustomError

from mcpd.config.values import (
    DURATION_UNITS,
    LARGEST_SIZE,
    LONGEST_DURATION,
    SIZE_UNITS,
    check_name,
    check_secret_name,
    check_text,
    describe,
    parse_duration,
    parse_size,
)


@pytest.mark.parametrize(
    ("written", "seconds"),
    {
        "500ms": 0.5,
        "5s": 5,
        "10m": 600,
        "1h": 3600,
        "1.5h": 5400,
        "0s": 0,
        "2 s": 2,
        "30": 30,
        30: 30,
        0.25: 0.25,
    }.items(),
)
def test_duration_is_seconds(written, seconds):
    assert parse_duration(written) == seconds


@pytest.mark.parametrize(
    "written", ["", "s", "5 parsecs", "5S", "1m30s", "-1s", "+1s", "1e3s", "٣s", "5s\n5s", "9000h"]
)
def test_text_that_is_no_duration_is_refused_with_the_way_to_write_one(written):
    with pytest.raises(PydanticCustomError) as caught:
        parse_duration(written)

    assert "10m" in caught.value.context["remedy"]


@pytest.mark.parametrize("written", [True, None, [], {}, -1, -0.5, math.inf, math.nan, LONGEST_DURATION + 1])
def test_value_that_is_no_duration_is_refused(written):
    with pytest.raises(PydanticCustomError):
        parse_duration(written)


@given(st.integers(0, 100_000), st.sampled_from(sorted(DURATION_UNITS)))
def test_duration_is_number_times_unit(number, unit):
    seconds = number * DURATION_UNITS[unit]

    if seconds > LONGEST_DURATION:
        with pytest.raises(PydanticCustomError):
            parse_duration(f"{number}{unit}")
    else:
        assert parse_duration(f"{number}{unit}") == pytest.approx(seconds)


@given(st.text(max_size=20) | st.floats() | st.integers() | st.booleans() | st.none())
def test_duration_is_a_finite_number_or_a_refusal(written):
    try:
        seconds = parse_duration(written)
    except PydanticCustomError:
        return
    assert 0 <= seconds <= LONGEST_DURATION


@pytest.mark.parametrize(
    ("written", "size"),
    {
        "64KiB": 65536,
        "4MiB": 4194304,
        "1GiB": 2**30,
        "1TiB": 2**40,
        "12B": 12,
        "0.5KiB": 512,
        "100": 100,
        99.0: 99,
    }.items(),
)
def test_size_is_bytes(written, size):
    assert parse_size(written) == size
    assert type(parse_size(written)) is int


@pytest.mark.parametrize("written", ["", "MiB", "4MB", "4mib", "4 Mi B", "-4MiB", "0.3B", 0.5, True, None, "9999TiB"])
def test_what_is_no_size_is_refused(written):
    with pytest.raises(PydanticCustomError) as caught:
        parse_size(written)

    assert "MiB" in caught.value.context["remedy"]


@given(st.integers(0, 2**20), st.sampled_from(sorted(SIZE_UNITS)))
def test_size_is_number_times_unit(number, unit):
    size = number * SIZE_UNITS[unit]

    if size > LARGEST_SIZE:
        with pytest.raises(PydanticCustomError):
            parse_size(f"{number}{unit}")
    else:
        assert parse_size(f"{number}{unit}") == size


@pytest.mark.parametrize("name", ["time", "a", "0", "my-server-2", "a" * 32, "a-"])
def test_name_is_taken(name):
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", "-a", "Time", "a_b", "a.b", "a b", "a/b", "a" * 33, "a\n", "é"])
def test_name_that_could_not_be_a_file_url_and_prefix_is_refused(name):
    with pytest.raises(PydanticCustomError):
        check_name(name)


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "../a", "a\0", "-rf", "a" * 129, "a\n"])
def test_secret_name_cannot_lead_out_of_its_directory(name):
    with pytest.raises(PydanticCustomError):
        check_secret_name(name)


def test_secret_name_is_taken():
    assert check_secret_name("github.token_2-b") == "github.token_2-b"


def test_text_with_nul_is_refused():
    assert check_text("plain") == "plain"
    with pytest.raises(PydanticCustomError):
        check_text("a\0b")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (True, "a boolean (true)"),
        (1, "an integer (1)"),
        (1.5, "a float (1.5)"),
        ("x", "a string ('x')"),
        ([1], "an array"),
        ({"a": 1}, "a table"),
        (None, "a NoneType"),
        ("y" * 99, f"a string ('{'y' * 56}...)"),
    ],
)
def test_values_are_described_in_toml_words(value, words):
    assert describe(value) == words
