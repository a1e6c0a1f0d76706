"""The merged lists of a view: what each server lists, under the names that the view shows, and whose each name is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from re import Pattern
from typing import TYPE_CHECKING

from mcpd.routing.correlation import Server, allowed, shown_name
from mcpd.routing.info import LIST_KINDS, ListKind
from mcpd.routing.names import public_name, template_pattern, wrap_uri
from mcpd.routing.sight import Sight
from mcpd.wire import methods, mirrored
from mcpd.wire.jsonrpc import WireError, dump, members, pack, text

if TYPE_CHECKING:
    from mcpd.routing.compact import ToolIndex

PAGE = 1000
RESULT_KEY: dict[ListKind, bytes] = {
    "tools": b"tools",
    "prompts": b"prompts",
    "resources": b"resources",
    "templates": b"resourceTemplates",
}


@dataclass(slots=True)
class Catalogue:
    """`entries`: the bytes to show, by kind. The maps lead from a public name or URI to (server, own name).

    `mirroring`: the input schemas of tools with parameters that clients repeat in headers, by public name.
    """

    entries: dict[ListKind, list[bytes]]
    tools: dict[str, tuple[str, str]] = field(default_factory=dict)
    prompts: dict[str, tuple[str, str]] = field(default_factory=dict)
    resources: dict[str, tuple[str, str]] = field(default_factory=dict)
    templates: dict[str, tuple[str, str]] = field(default_factory=dict)
    patterns: list[tuple[Pattern[str], str]] = field(default_factory=list)
    notices: list[tuple[str, str]] = field(default_factory=list)
    mirroring: dict[str, bytes] = field(default_factory=dict)
    index: ToolIndex | None = None  # of a compact view
    _pages: dict[tuple[ListKind, int], bytes] = field(default_factory=dict)

    def page(self, kind: ListKind, cursor: str | None) -> bytes:
        """The result of a list request; raises WireError for a cursor that is not ours."""
        start = _offset(cursor)
        page = self._pages.get((kind, start))
        if page is None:
            entries = self.entries[kind]
            if start and start >= len(entries):
                raise WireError(methods.INVALID_PARAMS, "the cursor is not valid (any more): list from the beginning")
            more = b',"nextCursor":"mcpd:%d"' % (start + PAGE) if start + PAGE < len(entries) else b""
            page = b'{"%b":[%b]%b}' % (RESULT_KEY[kind], b",".join(entries[start : start + PAGE]), more)
            self._pages[kind, start] = page
        return page

    def owner_by_template(self, uri: str) -> str | None:
        """The first server one of whose templates fits a URI."""
        return next((server for pattern, server in self.patterns if pattern.fullmatch(uri)), None)


def _offset(cursor: str | None) -> int:
    if cursor is None:
        return 0
    mark, _, number = cursor.partition(":")
    if mark != "mcpd" or not (number.isascii() and number.isdigit()) or len(number) > 9 or int(number) % PAGE:
        raise WireError(methods.INVALID_PARAMS, "the cursor is not one that this server gave")
    return int(number)


def merge(servers: Iterable[Server], separator: str, *, prefixed: bool, sight: Sight | None = None) -> Catalogue:
    """The catalogue of these servers, in their order, without what `sight` hides; those whose lists are not known are
    left out."""
    catalogue = Catalogue({kind: [] for kind in LIST_KINDS})
    for server in servers:
        if server.lists is None:
            continue
        _add_named(catalogue, server, "tools", separator if prefixed else None, sight)
        if sight is not None and server.name in sight.partial:
            continue
        _add_named(catalogue, server, "prompts", separator if prefixed else None)
        _add_uris(catalogue, server, "resources", "uri")
        _add_uris(catalogue, server, "templates", "uriTemplate")
    return catalogue


def _add_named(
    catalogue: Catalogue, server: Server, kind: ListKind, separator: str | None, sight: Sight | None = None
) -> None:
    known = catalogue.tools if kind == "tools" else catalogue.prompts
    for entry in getattr(server.lists, kind):
        try:
            found = members(entry)
            own = text(found["name"])
        except (WireError, KeyError):
            catalogue.notices.append((server.name, f"an entry of its {kind} list has no usable name; it is left out"))
            continue
        shown = own
        if kind == "tools":
            if not allowed(server.rules, own) or (sight is not None and not sight.allows(server.name, own)):
                continue
            shown = shown_name(server.rules, own)
        if separator is not None:
            whole = f"{server.name}{separator}{shown}"
            shown = public_name(server.name, shown, separator)
            if shown != whole:
                catalogue.notices.append((server.name, f"{whole!r} is longer than 64 characters: shown as {shown!r}"))
        if shown in known:
            other = known[shown][0]
            catalogue.notices.append((server.name, f"{own!r} is left out: {shown!r} is {other}'s already"))
            continue
        known[shown] = (server.name, own)
        if kind == "tools" and "inputSchema" in found and mirrored.ANNOTATION in bytes(found["inputSchema"]):
            catalogue.mirroring[shown] = bytes(found["inputSchema"])
        if shown != own:
            entry = pack({**found, "name": dump(shown)})
        catalogue.entries[kind].append(entry)


def _add_uris(catalogue: Catalogue, server: Server, kind: ListKind, key: str) -> None:
    known = catalogue.resources if kind == "resources" else catalogue.templates
    for entry in getattr(server.lists, kind):
        try:
            found = members(entry)
            own = text(found[key])
        except (WireError, KeyError):
            catalogue.notices.append((server.name, f"an entry of its {kind} list has no usable {key}; it is left out"))
            continue
        shown = own
        if own in known:
            shown = wrap_uri(server.name, own)
            if shown in known:
                continue  # the same server lists it twice
            entry = pack({**found, key: dump(shown)})
        known[shown] = (server.name, own)
        catalogue.entries[kind].append(entry)
        if kind == "templates":
            catalogue.patterns.append((template_pattern(shown), server.name))
