"""Parameters that clients repeat in headers; the same cases as the official SDK's, which is asked as well."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp.shared.inbound import (
    decode_header_value,
    encode_header_value,
    find_invalid_x_mcp_header,
    mcp_param_headers,
    validate_mcp_param_headers,
    x_mcp_header_map,
)

from mcpd.wire.mirrored import Mirror, decode_value, difference, mirrors_of

NESTED: dict[str, Any] = {
    "type": "object",
    "properties": {
        "region": {"type": "string", "x-mcp-header": "Region"},
        "where": {"type": "object", "properties": {"count": {"type": "integer", "x-mcp-header": "X-Count"}}},
        "dry": {"type": "boolean", "x-mcp-header": "dry"},
        "free": {"type": "string"},
    },
}


def raw(value: Any) -> bytes:
    return json.dumps(value).encode()


def headers(**named: str) -> dict[bytes, bytes]:
    return {b"mcp-param-" + name.replace("_", "-").encode(): value.encode() for name, value in named.items()}


def test_annotations_are_found_along_properties() -> None:
    assert set(mirrors_of(raw(NESTED))) == {
        Mirror(("region",), b"mcp-param-region", False),
        Mirror(("where", "count"), b"mcp-param-x-count", True),
        Mirror(("dry",), b"mcp-param-dry", False),
    }


ANNOTATED = {"type": "string", "x-mcp-header": "A"}
INVALID: dict[str, Any] = {
    "at the root": {"type": "string", "x-mcp-header": "A"},
    "in items": {"properties": {"a": {"type": "array", "items": ANNOTATED}}},
    "in a definition": {"$defs": {"a": ANNOTATED}},
    "in one of several": {"anyOf": [{"properties": {"a": ANNOTATED}}]},
    "a number": {"properties": {"a": {"type": "number", "x-mcp-header": "A"}}},
    "two types": {"properties": {"a": {"type": ["string", "null"], "x-mcp-header": "A"}}},
    "without a type": {"properties": {"a": {"x-mcp-header": "A"}}},
    "no token": {"properties": {"a": {"type": "string", "x-mcp-header": "A B"}}},
    "no name": {"properties": {"a": {"type": "string", "x-mcp-header": ""}}},
    "no text": {"properties": {"a": {"type": "string", "x-mcp-header": 7}}},
    "twice": {"properties": {"a": ANNOTATED, "b": {"type": "string", "x-mcp-header": "a"}}},
}


@pytest.mark.parametrize("schema", INVALID.values(), ids=INVALID.keys())
def test_one_bad_annotation_and_none_counts(schema: dict[str, Any]) -> None:
    assert find_invalid_x_mcp_header(schema) is not None
    properties = {**schema.get("properties", {}), "good": {"type": "string", "x-mcp-header": "Good"}}
    assert mirrors_of(raw({**schema, "properties": properties})) == ()


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"a": {"type": "string", "default": {"x-mcp-header": "A"}}}},
        {"properties": {"a": {"enum": [{"x-mcp-header": "A"}]}}},
        True,
        [],
    ],
)
def test_data_is_no_annotation(schema: Any) -> None:
    assert mirrors_of(raw(schema)) == ()


@pytest.mark.parametrize("schema", [b"", b"{", b"[" * 100_000])
def test_what_is_no_schema_has_none(schema: bytes) -> None:
    assert mirrors_of(schema) == ()


AGREEING: list[tuple[dict[str, Any], dict[str, str]]] = [
    ({}, {}),
    ({"region": None}, {}),
    ({"region": "eu"}, {"region": "eu"}),
    ({"region": "eu"}, {"region": " eu\t"}),
    ({"region": "Grüße"}, {"region": "=?base64?R3LDvMOfZQ==?="}),
    ({"region": "=?base64?"}, {"region": "=?base64?"}),
    ({"region": ""}, {"region": ""}),
    ({"where": {"count": 3}}, {"x_count": "3"}),
    ({"where": {"count": 3.0}}, {"x_count": "3"}),
    ({"where": {"count": 3}}, {"x_count": "3.0"}),
    ({"where": {"count": 2**70}}, {"x_count": str(2**70)}),
    ({"where": 7}, {}),
    ({"dry": True}, {"dry": "true"}),
    ({"region": ["no scalar"]}, {}),
]
DIFFERENT: list[tuple[dict[str, Any], dict[str, str]]] = [
    ({"region": "eu"}, {}),
    ({"region": "eu"}, {"region": "us"}),
    ({"region": "eu"}, {"region": "EU"}),
    ({}, {"region": "eu"}),
    ({"region": None}, {"region": "null"}),
    ({"region": "Hello"}, {"region": "=?base64?SGVsbG8?="}),
    ({"region": "Hello"}, {"region": "=?base64?SGVs!!!bG8=?="}),
    ({"region": "Hello"}, {"region": "=?base64?/w==?="}),
    ({"region": "Hello"}, {"region": "=?base64?SGVsbG9=?="}),
    ({"region": "Hello"}, {"region": "SGVsbG8=?="}),
    ({"where": {"count": 3}}, {"x_count": "3.5"}),
    ({"where": {"count": 3}}, {"x_count": "3e0"}),
    ({"where": {"count": True}}, {"x_count": "1"}),
    ({"dry": True}, {"dry": "True"}),
    ({"region": ["no scalar"]}, {"region": "x"}),
]


@pytest.mark.parametrize(("arguments", "sent"), AGREEING)
def test_what_agrees(arguments: dict[str, Any], sent: dict[str, str]) -> None:
    assert difference(mirrors_of(raw(NESTED)), raw(arguments), headers(**sent)) is None


@pytest.mark.parametrize(("arguments", "sent"), DIFFERENT)
def test_what_does_not(arguments: dict[str, Any], sent: dict[str, str]) -> None:
    assert difference(mirrors_of(raw(NESTED)), raw(arguments), headers(**sent)) is not None


def test_no_arguments_at_all() -> None:
    mirrors = mirrors_of(raw(NESTED))
    assert difference(mirrors, b"", {}) is None
    assert difference(mirrors, b"[]", {}) is None
    assert difference(mirrors, b"", headers(region="eu")) == (
        "the header mcp-param-region is there, but the argument 'region' is not"
    )


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()


@given(SCALARS, SCALARS, SCALARS)
def test_what_a_good_client_sends_agrees(region: Any, count: Any, dry: Any) -> None:
    try:
        arguments = json.dumps({"region": region, "where": {"count": count}, "dry": dry}).encode()
        sent = mcp_param_headers(x_mcp_header_map(NESTED), json.loads(arguments))
    except (UnicodeEncodeError, ValueError):
        return  # a lone surrogate: no client can write it into a header
    raw_headers = {name.lower().encode(): value.encode("latin-1") for name, value in sent.items()}
    assert validate_mcp_param_headers(NESTED, json.loads(arguments), sent) is None
    assert difference(mirrors_of(raw(NESTED)), arguments, raw_headers) is None


@given(st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\0")))
def test_values_are_read_as_the_sdk_reads_them(value: str) -> None:
    if value == value.strip(" \t"):
        assert decode_value(value.encode("latin-1")) == decode_header_value(value)


@given(st.text())
def test_values_survive_the_way(value: str) -> None:
    try:
        sent = encode_header_value(value)
    except UnicodeEncodeError:
        return  # a lone surrogate
    assert decode_value(sent.encode("latin-1")) == value


def test_numbers_of_more_digits_than_the_interpreter_reads_are_refused() -> None:
    arguments = b'{"where":{"count":%b}}' % (b"9" * 5000)
    assert "too many digits" in str(difference(mirrors_of(raw(NESTED)), arguments, {b"mcp-param-x-count": b"9"}))
