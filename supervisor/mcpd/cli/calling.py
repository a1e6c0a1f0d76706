"""`mcpctl call`: arguments from a command line, and a result for people."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from mcpd.cli.failures import USAGE, Failed
from mcpd.cli.text import clean_lines, size

WORDS: Final = {"string": "text", "object": "a JSON object", "array": "a JSON array"}


def arguments(words: Sequence[str], schema: Mapping[str, Any]) -> bytes:
    """A JSON object: written out, or from `key=value` and `key:=JSON`.

    `schema` (JSON Schema, the tool's inputSchema) says whether a value is text or something else; where it does not, a
    value that is JSON counts as such, anything else as text. Raises Failed.
    """
    if len(words) == 1 and words[0].lstrip().startswith("{"):
        return _document(words[0])
    members: dict[str, str] = {}
    for word in words:
        key, separator, text = word.partition("=")
        if not separator or key in ("", ":"):
            raise Failed(f"{word!r}: key=value, key:=JSON, or one JSON object is expected", "quote it", USAGE)
        if key.endswith(":"):
            key, text = key[:-1], _json(key[:-1], text, "JSON")
        else:
            text = _typed(key, text, schema.get("properties", {}).get(key))
        members[key] = text
    return ("{" + ", ".join(f"{json.dumps(key)}: {text}" for key, text in members.items()) + "}").encode()


def _document(text: str) -> bytes:
    try:
        if isinstance(json.loads(text), dict):
            return text.encode()
    except json.JSONDecodeError as error:
        raise Failed(f"the arguments are not JSON: {error}", "check quotes and commas", USAGE) from None
    raise Failed("the arguments are no JSON object", 'write {"key": "value"}', USAGE)


def _typed(key: str, text: str, schema: object) -> str:
    """`text` as JSON; what is JSON already is kept as it is written, so that no digit of a number is lost."""
    kind = schema.get("type") if isinstance(schema, dict) else None
    kinds = [kind] if isinstance(kind, str) else kind if isinstance(kind, list) else []
    if "string" in kinds:
        return json.dumps(text)
    if kinds:
        return _json(key, text, " or ".join(WORDS.get(kind, str(kind)) for kind in kinds))
    try:
        json.loads(text)
    except json.JSONDecodeError:
        return json.dumps(text)
    return text


def _json(key: str, text: str, expected: str) -> str:
    try:
        json.loads(text)
    except json.JSONDecodeError:
        raise Failed(f"{key}: {expected} is expected, found {text!r}", "`mcpctl tools NAME --json`", USAGE) from None
    return text


def parsed(raw: bytes) -> dict[str, Any]:
    """A result; it may hold what msgspec refuses (lone surrogates), and bytes that are no UTF-8."""
    result = json.loads(raw.decode("utf-8", "replace"))
    return result if isinstance(result, dict) else {}


def is_error(result: Mapping[str, Any]) -> bool:
    """The tool ran and says that it failed (2025-11-25, server/tools, "Error Handling")."""
    return result.get("isError") is True


def result_text(result: Mapping[str, Any]) -> str:
    """What a person wants to see of a result: its texts; of other contents what they are."""
    blocks = result.get("content")
    parts = [_block(block) for block in blocks if isinstance(block, dict)] if isinstance(blocks, list) else []
    if not parts and "structuredContent" in result:
        parts = [json.dumps(result["structuredContent"], indent=2, ensure_ascii=False)]
    return clean_lines("\n".join(parts))


def _block(block: Mapping[str, Any]) -> str:
    kind = block.get("type")
    if kind == "text":
        return str(block.get("text", ""))
    if kind == "resource" and isinstance(resource := block.get("resource"), dict):
        return str(resource.get("text") or f"[resource {resource.get('uri')}]")
    if kind == "resource_link":
        return f"[link to {block.get('uri')}]"
    data = block.get("data")
    amount = f", {size(len(data) * 3 // 4)}" if isinstance(data, str) else ""
    return f"[{kind} {block.get('mimeType', '')}{amount}]"
