"""Parameters that clients of the per-request era repeat in HTTP headers, so that proxies can act on them.

A tool's input schema marks such a parameter with `x-mcp-header` (2026-07-28, transports, Custom Headers).
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from mcpd.wire.jsonrpc import Bytes

ANNOTATION: Final = b"x-mcp-header"
PREFIX: Final = b"mcp-param-"

_KEY: Final = ANNOTATION.decode()
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110, section 5.6.2
_DECIMAL: Final = re.compile(r"-?[0-9]{1,100}(\.0+)?")
_TYPES: Final = frozenset({"string", "integer", "boolean"})
# Keywords of JSON Schema 2020-12 below which schemas stand, other than `properties`.
_ONE: Final = frozenset(
    {
        "items",
        "contains",
        "unevaluatedItems",
        "additionalProperties",
        "propertyNames",
        "unevaluatedProperties",
        "not",
        "if",
        "then",
        "else",
        "contentSchema",
    }
)
_SEVERAL: Final = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_NAMED: Final = frozenset({"patternProperties", "dependentSchemas", "$defs", "definitions"})


class Mirror(msgspec.Struct, frozen=True):
    """One such parameter: the way to it through the arguments, and its header's name in lower case."""

    path: tuple[str, ...]
    header: bytes
    is_integer: bool


def mirrors_of(schema: Bytes) -> tuple[Mirror, ...]:
    """The mirrored parameters of an input schema; none if any annotation is not valid, because then conforming clients
    do not use the tool and send no headers."""
    try:
        root = json.loads(bytes(schema))
    except (ValueError, RecursionError):
        return ()
    found: dict[bytes, Mirror] = {}
    for path, node in _schemas(root):
        if _KEY not in node:
            continue
        token, kind = node[_KEY], node.get("type")
        if not path or not isinstance(token, str) or not _TOKEN.fullmatch(token):
            return ()
        header = PREFIX + token.lower().encode()
        if not isinstance(kind, str) or kind not in _TYPES or header in found:
            return ()
        found[header] = Mirror(path, header, kind == "integer")
    return tuple(found.values())


def _schemas(root: Any) -> Iterator[tuple[tuple[str, ...] | None, dict[str, Any]]]:
    """Each schema in a schema, with the path to its value if only `properties` lead there, else None."""
    stack: list[tuple[tuple[str, ...] | None, Any]] = [((), root)]
    while stack:
        path, node = stack.pop()
        if not isinstance(node, dict):
            continue
        yield path, node
        for keyword, value in node.items():
            if keyword == "properties" and isinstance(value, dict):
                for name, inner in value.items():
                    stack.append((None if path is None else (*path, name), inner))
            elif keyword in _ONE:
                stack.append((None, value))
            elif keyword in _SEVERAL and isinstance(value, list):
                stack += ((None, inner) for inner in value)
            elif keyword in _NAMED and isinstance(value, dict):
                stack += ((None, inner) for inner in value.values())


def difference(mirrors: tuple[Mirror, ...], arguments: Bytes, headers: Mapping[bytes, bytes]) -> str | None:
    """What does not agree between the arguments of a call and the headers that repeat them; None if all does.

    `null` counts as absent; a header whose argument is absent is refused, because somebody may act on a value that
    the body never carried.
    """
    try:
        found = json.loads(bytes(arguments)) if len(arguments) else {}
    except ValueError:  # it is JSON, but of more digits than the interpreter wants to read
        return "the arguments hold a number of too many digits, so that they cannot be compared with the headers"
    for mirror in mirrors:
        name = mirror.header.decode()
        argument = ".".join(mirror.path)
        raw = headers.get(mirror.header)
        value = _at(found, mirror.path)
        shown = _shown(value)
        if shown is None:
            if raw is not None:
                return f"the header {name} is there, but the argument {argument!r} is not"
            continue
        if raw is None:
            return f"the argument {argument!r} is there, but its header {name} is missing"
        given = decode_value(raw)
        if given is None:
            return f"the header {name} is not valid base64 of UTF-8 text"
        if not (given == shown or (mirror.is_integer and _same_integer(given, value))):
            return f"the header {name} is not the same as the argument {argument!r}"
    return None


def decode_value(raw: bytes) -> str | None:
    """The text of a header's value, which may be written as `=?base64?...?=`; None if that is spoilt."""
    value = raw.strip(b" \t")
    if not (value.startswith(b"=?base64?") and value.endswith(b"?=") and len(value) >= 11):
        return value.decode("latin-1")
    payload = value[9:-2]
    try:
        plain = base64.b64decode(payload, validate=True)
        return plain.decode() if base64.b64encode(plain) == payload else None
    except (binascii.Error, UnicodeDecodeError):
        return None


def _at(arguments: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        if not isinstance(arguments, dict):
            return None
        arguments = arguments.get(key)
    return arguments


def _shown(value: Any) -> str | None:
    """How a client writes a value into a header; None for what it leaves out."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str | int | float):
        return None
    try:
        return str(value)
    except ValueError:  # more digits than the interpreter wants to write
        return None


def _same_integer(given: str, value: Any) -> bool:
    """Whether a decimal number in a header is this integer: `42` is `42.0`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1:
        return False
    return _DECIMAL.fullmatch(given) is not None and int(given.partition(".")[0]) == int(value)
