"""Arguments from words, results as text."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mcpd.cli.calling import arguments, is_error, parsed, result_text
from mcpd.cli.failures import USAGE, Failed

SCHEMA = {
    "type": "object",
    "properties": {
        "text": {"type": "string"},
        "times": {"type": "integer"},
        "loud": {"type": "boolean"},
        "where": {"type": ["string", "null"]},
        "tags": {"type": "array"},
        "any": {},
    },
}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "{}"),
        (["text=5"], '{"text": "5"}'),
        (["text="], '{"text": ""}'),
        (["text=a=b"], '{"text": "a=b"}'),
        (["times=3", "loud=true"], '{"times": 3, "loud": true}'),
        (["times=123456789012345678901234567890"], '{"times": 123456789012345678901234567890}'),
        (["where=null"], '{"where": "null"}'),
        (["where:=null"], '{"where": null}'),
        (['tags=["a"]'], '{"tags": ["a"]}'),
        (["any=1.50"], '{"any": 1.50}'),
        (["any=word"], '{"any": "word"}'),
        (["unknown=yes"], '{"unknown": "yes"}'),
        (["times=1", "times=2"], '{"times": 2}'),
        (['{"a": 1.10, "b": [1]}'], '{"a": 1.10, "b": [1]}'),
        ([' {"a": 1}'], ' {"a": 1}'),
    ],
)
def test_words_become_an_object_by_the_tools_schema(words: list[str], expected: str) -> None:
    assert arguments(words, SCHEMA).decode() == expected
    json.loads(expected)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["times=many"], "times: integer is expected, found 'many'"),
        (["tags=a"], "tags: a JSON array is expected, found 'a'"),
        (["any:=word"], "any: JSON is expected"),
        (["word"], "'word': key=value"),
        (["=1"], "key=value"),
        ([":=1"], "key=value"),
        (['{"a": 1'], "the arguments are not JSON"),
        (['{"a": 1} x'], "the arguments are not JSON"),
    ],
)
def test_words_that_do_not_fit_are_a_mistake_of_usage(words: list[str], message: str) -> None:
    with pytest.raises(Failed, match=message) as caught:
        arguments(words, SCHEMA)

    assert caught.value.code == USAGE


@pytest.mark.parametrize(
    ("result", "text"),
    [
        ({"content": [{"type": "text", "text": "one\ntwo"}, {"type": "text", "text": "three"}]}, "one\ntwo\nthree"),
        ({"content": [{"type": "text", "text": "\x1b[31mred"}]}, " [31mred"),
        ({"content": [], "structuredContent": {"a": "é"}}, '{\n  "a": "é"\n}'),
        ({"content": [{"type": "text", "text": "x"}], "structuredContent": {"a": 1}}, "x"),
        ({"content": [{"type": "image", "mimeType": "image/png", "data": "A" * 4000}]}, "[image image/png, 2.9 KiB]"),
        ({"content": [{"type": "resource", "resource": {"uri": "a:b", "text": "inside"}}]}, "inside"),
        ({"content": [{"type": "resource", "resource": {"uri": "a:b", "blob": "AA"}}]}, "[resource a:b]"),
        ({"content": [{"type": "resource_link", "uri": "a:b"}]}, "[link to a:b]"),
        ({"content": [{"type": "new"}, 3]}, "[new ]"),
        ({"content": "odd"}, ""),
        ({}, ""),
    ],
)
def test_results_are_shown_as_what_they_are(result: dict[str, Any], text: str) -> None:
    assert result_text(result) == text


def test_a_result_may_hold_what_strict_readers_refuse() -> None:
    result = parsed(b'{"content": [{"type": "text", "text": "half \\ud83d \xff"}], "isError": true}')

    assert result_text(result) == "half   \ufffd"
    assert is_error(result)
    assert not is_error({"isError": "true"})
    assert parsed(b"[]") == {}
