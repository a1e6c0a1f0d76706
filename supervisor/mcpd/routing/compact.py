"""A compact view: three tools stand for all behind it, so that hundreds of them cost a model a few hundred tokens.

`search_tools` finds, `describe_tool` shows one with its schema, `call_tool` calls it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from mcpd.routing.catalogue import Catalogue
from mcpd.routing.ranking import Ranking
from mcpd.wire import methods
from mcpd.wire.jsonrpc import Bytes, WireError, dump, members, pack, text, text_at, value_of

SEARCH = "search_tools"
DESCRIBE = "describe_tool"
CALL = "call_tool"
NAMES = frozenset({SEARCH, DESCRIBE, CALL})
DEFAULT_LIMIT = 10
MAX_LIMIT = 50
SUMMARY = 200  # characters of a description that a search shows
_WEIGHTS = (4.0, 1.0, 0.5)  # of a word in the name, the description, the parameters


def _tool(name: str, title: str, description: str, properties: dict[str, Any], *required: str) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "required": list(required)}
    return {"name": name, "title": title, "description": description, "inputSchema": schema}


_NAME = {"type": "string", "description": "The tool's name, as search_tools gives it."}
TOOLS = dump(
    {
        "tools": [
            _tool(
                SEARCH,
                "Search tools",
                "Find tools by what they do. Returns the best matches: name, summary, parameters. Many more tools are "
                "available than are listed here; search before concluding that something cannot be done.",
                {
                    "query": {"type": "string", "description": "A few words, such as 'read file'. Empty: all tools."},
                    "limit": {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
                },
                "query",
            ),
            _tool(
                DESCRIBE, "Describe a tool", "The full description and input schema of a tool.", {"name": _NAME}, "name"
            ),
            _tool(
                CALL,
                "Call a tool",
                "Call a tool by name with arguments that fit its input schema (see describe_tool).",
                {"name": _NAME, "arguments": {"type": "object", "description": "The tool's own arguments."}},
                "name",
            ),
        ]
    }
)


class Found(msgspec.Struct, frozen=True):
    """A tool as a search shows it."""

    name: str
    summary: str
    parameters: tuple[str, ...]


class ToolIndex:
    """Ranks the tools of a catalogue by the words of a query."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._entries = {text(members(entry)["name"]): entry for entry in catalogue.entries["tools"]}
        self._tools = [_found(name, entry) for name, entry in self._entries.items()]
        texts = ((one.name, _description(self._entries[one.name]), " ".join(one.parameters)) for one in self._tools)
        self._ranking = Ranking(texts, _WEIGHTS)

    def search(self, query: str, limit: int) -> list[Found]:
        """The best matches first; all tools, in their order, for a query without words."""
        return [self._tools[at] for at in self._ranking.best(query, limit)]

    def entry(self, name: str) -> bytes | None:
        """A tool's whole entry."""
        return self._entries.get(name)


def search_result(index: ToolIndex, arguments: Bytes) -> bytes:
    """The result of a `search_tools` call; raises WireError for arguments that make no sense."""
    found = members(arguments)
    query = text_at(found, "query")
    limit = value_of(found["limit"]) if "limit" in found else DEFAULT_LIMIT
    if not isinstance(limit, int | float) or not 1 <= limit <= MAX_LIMIT:
        raise WireError(methods.INVALID_PARAMS, f"limit must be a number from 1 to {MAX_LIMIT}")
    matches = [
        {"name": one.name, "summary": one.summary, "parameters": one.parameters}
        for one in index.search(query, int(limit))
    ]
    if not matches:
        return _text_result("No tool matches. Try other or fewer words; an empty query lists all tools.")
    return _text_result(dump({"tools": matches}).decode(), {"tools": matches})


def describe_result(index: ToolIndex, arguments: Bytes) -> bytes:
    """The result of a `describe_tool` call."""
    name = text_at(members(arguments), "name")
    entry = index.entry(name)
    if entry is None:
        return unknown_result(name)
    return pack(
        {
            "content": dump([{"type": "text", "text": entry.decode(errors="replace")}]),
            "structuredContent": entry,
            "isError": b"false",
        }
    )


def target_of(params: Mapping[str, Bytes]) -> tuple[str, dict[str, Bytes]]:
    """(name, params) of the call that a `call_tool` call stands for; other members, such as `_meta`, are kept."""
    arguments = members(params.get("arguments", b"{}"))
    name = text_at(arguments, "name")
    return name, {**params, "name": dump(name), "arguments": _inner(arguments.get("arguments", b"{}"))}


def _inner(arguments: Bytes) -> Bytes:
    """A tool's own arguments: models that write objects within objects often write the inner one as a string."""
    raw = bytes(arguments)
    if raw == b"null":
        return b"{}"
    if raw[:1] == b'"':
        raw = text(raw).encode(errors="replace")
        members(raw)  # raises, for what is no object
    return raw


def unknown_result(name: str) -> bytes:
    """For a tool that is not there."""
    return failed_result(f"Unknown tool: {name}. Use {SEARCH} to find one.")


def failed_result(why: str) -> bytes:
    """What is wrong with the arguments, as a result: that a model sees, and can do better (2025-11-25, server/tools,
    Error Handling)."""
    return _text_result(why, failed=True)


def _text_result(content: str, structured: Any = None, *, failed: bool = False) -> bytes:
    result: dict[str, Any] = {"content": [{"type": "text", "text": content}], "isError": failed}
    if structured is not None:
        result["structuredContent"] = structured
    return dump(result)


def _found(name: str, entry: bytes) -> Found:
    summary = " ".join(_description(entry).split())
    if len(summary) > SUMMARY:
        summary = summary[: SUMMARY - 1].rsplit(" ", 1)[0] + "…"
    try:
        schema = members(members(entry).get("inputSchema", b"{}"))
        parameters = tuple(members(schema["properties"])) if "properties" in schema else ()
    except WireError:
        parameters = ()
    return Found(name, summary, parameters)


def _description(entry: bytes) -> str:
    found = members(entry)
    parts = [value_of(found[key]) for key in ("title", "description") if key in found]
    return " ".join(part for part in parts if isinstance(part, str))
