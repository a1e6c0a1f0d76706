"""One member is set; all that stood there before stands there still."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpd.cli.jsonedit import NotJson, read, set_member

ENTRY = {"command": "/x", "args": ["connect"]}
PATH = ("mcpServers", "mcpd")

INLINE = '{"command": "/x", "args": ["connect"]}'


def block(margin: str, unit: str = "  ", newline: str = "\n") -> str:
    """The entry over several lines."""
    return json.dumps(ENTRY, indent=unit).replace("\n", newline + margin)


CASES = [
    ("", '{\n  "mcpServers": {\n    "mcpd": ' + block("    ") + "\n  }\n}\n"),
    ('{"a": 1}', '{"a": 1, "mcpServers": {"mcpd": ' + INLINE + "}}"),
    ('{"mcpServers":{}}', '{"mcpServers":{"mcpd": ' + INLINE + "}}"),
    (
        '{\n\t"theme": "dark", // mine\n\t"mcpServers": {\n\t\t"git": { "command": "uvx" } // keep\n\t}\n}\n',
        '{\n\t"theme": "dark", // mine\n\t"mcpServers": {\n\t\t"git": { "command": "uvx" }, // keep\n'
        '\t\t"mcpd": ' + block("\t\t", "\t") + "\n\t}\n}\n",
    ),
    (
        '{\n    "mcpServers": {},\n    "z": [1,2,   3],\n}',
        '{\n    "mcpServers": {\n        "mcpd": ' + block(" " * 8, " " * 4) + '\n    },\n    "z": [1,2,   3],\n}',
    ),
    (
        '{\r\n  "big": 123456789012345678901234567890,\r\n  "f": 1.50\r\n}',
        '{\r\n  "big": 123456789012345678901234567890,\r\n  "f": 1.50,\r\n  "mcpServers": {\r\n    "mcpd": '
        + block("    ", newline="\r\n")
        + "\r\n  }\r\n}",
    ),
    (
        '{\n  "mcpServers": {\n    // none yet\n  }\n}',
        '{\n  "mcpServers": {\n    // none yet\n    "mcpd": ' + block("    ") + "\n  }\n}",
    ),
]


@pytest.mark.parametrize(("before", "after"), CASES)
def test_a_member_is_written_like_its_neighbours(before: str, after: str) -> None:
    assert set_member(before, PATH, ENTRY) == after


@pytest.mark.parametrize(("before", "after"), CASES)
def test_doing_it_again_changes_nothing(before: str, after: str) -> None:
    assert set_member(after, PATH, ENTRY) == after


def test_only_the_value_is_replaced() -> None:
    before = '{\n  "mcpServers": {\n    "a": 1,\n    "mcpd": {"command": "/old"}, /* why */\n    "b": 2\n  }\n}\n'

    after = set_member(before, PATH, {"command": "/new"})

    assert after == before.replace('{"command": "/old"}', '{\n      "command": "/new"\n    }')


def test_a_byte_order_mark_stays() -> None:
    assert set_member("\ufeff{}", ("a",), 1) == '\ufeff{\n  "a": 1\n}\n'
    assert read('\ufeff{"a": 1}') == {"a": 1}


def test_of_a_key_that_stands_twice_the_last_counts() -> None:
    assert set_member('{"a": 1, "a": {"x": 1}}', ("a", "y"), 2) == '{"a": 1, "a": {"x": 1, "y": 2}}'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "the top is not an object"),
        ('{"mcpServers": []}', "mcpServers is not an object"),
        ('{\n"a": tru}', "line 2: not JSON: a value is missing"),
        ('{"a" 1}', "a colon is missing"),
        ('{"a": 1 "b": 2}', "a comma is missing"),
        ("{a: 1}", "a key in quotes is missing"),
        ('{"a": "x', "a string is not closed"),
        ('{"a": [1 2]}', "a comma is missing"),
        ("{} {}", "something stands behind the end"),
        ('{"a": 1', "a comma is missing"),
        ("{/* }", "a key in quotes is missing"),
        ('{"a": ' + "[" * 300 + "]" * 300 + "}", "nested too deeply"),
    ],
)
def test_what_cannot_be_read_is_not_touched(text: str, message: str) -> None:
    with pytest.raises(NotJson, match=message):
        set_member(text, PATH, ENTRY)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(
    document=st.dictionaries(st.text(), JSON, max_size=5),
    servers=st.dictionaries(st.text(), JSON, max_size=4) | st.none(),
    indent=st.sampled_from([None, 1, 2, 4, "\t"]),
    name=st.text(),
    value=JSON,
)
def test_any_document_gets_exactly_that_member(
    document: dict[str, Any], servers: dict[str, Any] | None, indent: int | str | None, name: str, value: Any
) -> None:
    """Found again by the standard library's own reader."""
    document.pop("mcpServers", None)
    if servers is not None:
        document["mcpServers"] = servers
    text = json.dumps(document, indent=indent)
    assert read(text) == document

    after = set_member(text, ("mcpServers", name), value)

    assert json.loads(after) == {**document, "mcpServers": {**(servers or {}), name: value}}
    assert set_member(after, ("mcpServers", name), value) == after
