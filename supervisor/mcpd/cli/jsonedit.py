"""Set one member of a JSON file and leave every other byte of it as it is.

Read is what editors write: JSON with comments and trailing commas (JSONC) too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

_SPACE: Final = re.compile(r"(?:[ \t\r\n]|//[^\n]*|/\*.*?\*/)*", re.DOTALL)
_SCALAR: Final = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][-+]?\d+)?|true|false|null")
_DECODER: Final = json.JSONDecoder()
_BOM: Final = "\ufeff"
DEPTH: Final = 200


class NotJson(ValueError):
    """The text cannot be read; the message names the line."""


@dataclass
class Node:
    """A value and where it stands; `members` of an object, each with the place of its key; `last_end`: behind the last
    one and its comma."""

    start: int
    end: int = 0
    value: Any = None
    members: dict[str, tuple[int, Node]] | None = None
    has_trailing_comma: bool = False
    last_end: int = 0


def read(text: str) -> Any:
    """The value of a JSON (or JSONC) text. Raises NotJson."""
    return _parse(text.removeprefix(_BOM)).value


def set_member(text: str, path: Sequence[str], value: Any) -> str:
    """`text` with the member at `path` set; objects on the way that are missing are made.

    An empty text counts as an empty object. If the member has that value already, `text` itself is returned. Raises
    NotJson, also if something on the way is no object.
    """
    bom = _BOM if text.startswith(_BOM) else ""
    body = text.removeprefix(_BOM)
    if not body.strip() or body.split() in (["{}"], ["{", "}"]):
        return bom + json.dumps(_nested(path, value), indent=2, ensure_ascii=False) + "\n"
    root = node = _parse(body)
    for depth, key in enumerate(path):
        if node.members is None:
            raise NotJson(f"{'.'.join(path[:depth]) or 'the top'} is not an object")
        if key not in node.members:
            result = _insert(body, root, node, key, _nested(path[depth + 1 :], value))
            break
        node = node.members[key][1]
    else:
        if node.value == value:
            return text
        result = body[: node.start] + _written(body, value, root, _indentation(body, node.start)) + body[node.end :]
    expected = _with(root.value, path, value)
    if _parse(result).value != expected:
        raise NotJson("its form is not understood well enough to change it")
    return bom + result


def _nested(path: Sequence[str], value: Any) -> Any:
    for key in reversed(path):
        value = {key: value}
    return value


def _with(document: Mapping[str, Any], path: Sequence[str], value: Any) -> Any:
    if not path:
        return value
    return {**document, path[0]: _with(document.get(path[0], {}), path[1:], value)}


def _insert(text: str, root: Node, node: Node, key: str, value: Any) -> str:
    """A new last member of the object `node`, written like its neighbours, behind their comments."""
    head, tail = text[: node.last_end or node.start + 1], text[node.last_end or node.start + 1 : node.end - 1]
    comments = tail.rstrip()
    comma = "," if node.members and not node.has_trailing_comma else ""
    if _is_inline(text, root, node):
        piece = f"{json.dumps(key, ensure_ascii=False)}: {json.dumps(value, ensure_ascii=False)}"
        return head + comma + comments + (" " if node.members else "") + piece + text[node.end - 1 :]
    newline, own = _newline(text), _indentation(text, node.start)
    margin = next((_indentation(text, start) for start, _ in (node.members or {}).values()), own + _unit(text, root))
    piece = f"{newline}{margin}{json.dumps(key, ensure_ascii=False)}: {_written(text, value, root, margin)}"
    closing = tail[len(comments) :] if node.members else newline + own
    return head + comma + comments + piece + closing + text[node.end - 1 :]


def _is_inline(text: str, root: Node, node: Node) -> bool:
    """Whether its members stand in one line, or would if it had any."""
    neighbour = node if node.members else root
    return "\n" not in text[neighbour.start : neighbour.end]


def _written(text: str, value: Any, root: Node, margin: str) -> str:
    """`value` over several lines, the first of which begins where it is put; in one where all of the text is one."""
    if _is_inline(text, root, root):
        return json.dumps(value, ensure_ascii=False)
    lines = json.dumps(value, indent=_unit(text, root), ensure_ascii=False).split("\n")
    return f"{_newline(text)}{margin}".join(lines)


def _unit(text: str, root: Node) -> str:
    """One step of indentation, as the members of the outermost object have it."""
    first = next((start for start, _ in (root.members or {}).values()), 0)
    return _indentation(text, first) or "  "


def _newline(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


def _indentation(text: str, at: int) -> str:
    """The space at the beginning of the line in which `at` is."""
    line = text[text.rfind("\n", 0, at) + 1 :]
    return line[: len(line) - len(line.lstrip(" \t"))]


def _parse(text: str) -> Node:
    node = _value(text, _skip(text, 0), 0)
    rest = _skip(text, node.end)
    if rest != len(text):
        raise _error(text, rest, "something stands behind the end")
    return node


def _value(text: str, at: int, depth: int) -> Node:
    if depth > DEPTH:
        raise _error(text, at, "nested too deeply")
    if text[at : at + 1] == "{":
        return _object(text, at, depth)
    if text[at : at + 1] == "[":
        return _array(text, at, depth)
    if text[at : at + 1] == '"':
        value, end = _string(text, at)
        return Node(at, end, value)
    scalar = _SCALAR.match(text, at)
    if scalar is None:
        raise _error(text, at, "a value is missing")
    return Node(at, scalar.end(), json.loads(scalar[0]))


def _object(text: str, start: int, depth: int) -> Node:
    node = Node(start, members={}, value={})
    assert node.members is not None
    at = _skip(text, start + 1)
    while text[at : at + 1] != "}":
        if node.members and not node.has_trailing_comma:
            raise _error(text, at, "a comma is missing")
        if text[at : at + 1] != '"':
            raise _error(text, at, "a key in quotes is missing")
        key_start = at
        key, at = _string(text, at)
        at = _skip(text, at)
        if text[at : at + 1] != ":":
            raise _error(text, at, "a colon is missing")
        member = _value(text, _skip(text, at + 1), depth + 1)
        node.members[key] = (key_start, member)
        node.value[key] = member.value
        node.last_end = member.end
        at = _skip(text, member.end)
        node.has_trailing_comma = text[at : at + 1] == ","
        if node.has_trailing_comma:
            node.last_end = at + 1
            at = _skip(text, at + 1)
    node.end = at + 1
    return node


def _array(text: str, start: int, depth: int) -> Node:
    node = Node(start, value=[])
    at, comma = _skip(text, start + 1), True
    while text[at : at + 1] != "]":
        if not comma:
            raise _error(text, at, "a comma is missing")
        element = _value(text, at, depth + 1)
        node.value.append(element.value)
        at = _skip(text, element.end)
        comma = text[at : at + 1] == ","
        at = _skip(text, at + 1) if comma else at
    node.end = at + 1
    return node


def _string(text: str, at: int) -> tuple[str, int]:
    try:
        value, end = _DECODER.raw_decode(text, at)
    except json.JSONDecodeError as error:
        raise _error(text, error.pos, "a string is not closed, or not valid") from None
    return str(value), end


def _skip(text: str, at: int) -> int:
    space = _SPACE.match(text, at)
    assert space is not None
    return space.end()


def _error(text: str, at: int, message: str) -> NotJson:
    return NotJson(f"line {text.count(chr(10), 0, at) + 1}: not JSON: {message}")
