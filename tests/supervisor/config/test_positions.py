"""The line of each key, against documents written by hand and against tomli for documents made up."""

import pytest
import tomli
import tomlkit
from hypothesis import given
from hypothesis import strategies as st

from mcpd.config.positions import nearest, positions

DOCUMENT = '''\
# comment with [brackets] and "quotes"
title = "a # b"
dotted.inner . "quoted.key" = 1

[servers.time]   # a table
"script" = 'C:\\x'
text = """
not = a key
"quoted" \\""" still ""\"""
raw = \'\'\'
[not.a.table]\'\'\'\'
env = { TZ = "UTC", API = { secret = "x" } }
args = [
  "one",  # ]
  [1, 2],
  { deep = true },
]
when = 1979-05-27 07:32:00Z

[[list]]
a = 1
[[list]]
  [list.sub]
  b = inf
'''

EXPECTED = {
    ("title",): 2,
    ("dotted",): 3,
    ("dotted", "inner"): 3,
    ("dotted", "inner", "quoted.key"): 3,
    ("servers",): 5,
    ("servers", "time"): 5,
    ("servers", "time", "script"): 6,
    ("servers", "time", "text"): 7,
    ("servers", "time", "raw"): 10,
    ("servers", "time", "env"): 12,
    ("servers", "time", "env", "TZ"): 12,
    ("servers", "time", "env", "API"): 12,
    ("servers", "time", "env", "API", "secret"): 12,
    ("servers", "time", "args"): 13,
    ("servers", "time", "args", 0): 14,
    ("servers", "time", "args", 1): 15,
    ("servers", "time", "args", 1, 0): 15,
    ("servers", "time", "args", 1, 1): 15,
    ("servers", "time", "args", 2): 16,
    ("servers", "time", "args", 2, "deep"): 16,
    ("servers", "time", "when"): 18,
    ("list",): 20,
    ("list", 0): 20,
    ("list", 0, "a"): 21,
    ("list", 1): 22,
    ("list", 1, "sub"): 23,
    ("list", 1, "sub", "b"): 24,
}


@pytest.mark.parametrize("line_break", ["\n", "\r\n"])
def test_each_key_has_its_line(line_break):
    text = DOCUMENT.replace("\n", line_break)
    tomli.loads(text)

    assert positions(text) == EXPECTED


@pytest.mark.parametrize(
    "text", ["", "\n\n", "# only a comment", "a = 1", "a = []", "a = {}", "a = [1,]", "[a]", "a=[ ]#x"]
)
def test_small_documents_are_walked_to_their_end(text):
    assert set(positions(text)) == set(_paths(tomli.loads(text)))


def test_inline_table_over_several_lines():
    text = "a = {\n  b = 1, # one\n  c = 2,\n}\nd = 3\n"

    assert positions(text) == {("a",): 1, ("a", "b"): 2, ("a", "c"): 3, ("d",): 5}


def test_key_that_is_absent_has_the_line_of_the_table_around_it():
    lines = positions("[a]\n[a.b]\nc = 1\n")

    assert nearest(lines, ("a", "b", "x", "y")) == 2
    assert nearest(lines, ("z",)) is None
    assert nearest(lines, ()) is None


_TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=8) | st.sampled_from(
    ["]", "}", "#", '"', "'"]
)
_VALUES = st.recursive(
    st.booleans() | st.integers(-999, 999) | st.floats(allow_nan=False) | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(_TEXT, _VALUES, max_size=5))
def test_walk_finds_exactly_the_keys_that_tomli_finds(data):
    text = tomlkit.dumps(data)

    assert set(positions(text)) == set(_paths(tomli.loads(text)))


def _paths(data, path=()):
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from _paths(value, (*path, key))
