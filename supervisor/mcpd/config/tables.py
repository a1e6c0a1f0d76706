"""The tables of all files of a registry put together: which there are, and what stands over what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from mcpd.config.documents import Document
from mcpd.config.layers import Layer, anchor
from mcpd.config.positions import KeyPath
from mcpd.config.report import Place, Report, dotted
from mcpd.config.suggest import did_you_mean

SINGLE: Final = ("daemon", "frontdoor", "sandbox", "defaults")
NAMED: Final = ("profiles", "views", "servers")


class Named(msgspec.Struct, frozen=True):
    """One `[servers.NAME]`, `[views.NAME]` or `[profiles.NAME]`, and the directory of its file."""

    layer: Layer
    directory: Path


@dataclass(frozen=True)
class Tables:
    """Every table of the dialect; a single one that is not written is empty."""

    single: dict[str, Layer] = field(default_factory=dict)
    named: dict[str, dict[str, Named]] = field(default_factory=lambda: {kind: {} for kind in NAMED})


def put_together(documents: list[Document], main: Path, home: Path, report: Report) -> Tables:
    """The tables of all documents. Of two with one name the second is reported, with both places."""
    tables = Tables()
    for document in documents:
        for kind, data in document.data.items():
            if kind in NAMED and isinstance(data, dict):
                _add_named(tables.named[kind], kind, data, document, home, report)
            elif kind in SINGLE and isinstance(data, dict) and document.file == main:
                tables.single[kind] = _layer(document, (kind,), data, home)
            else:
                report.problem(document.place((kind,)), *_objection(kind, data, main))
    for kind in SINGLE:
        tables.single.setdefault(kind, _absent(main, kind))
    return tables


def _absent(main: Path, kind: str) -> Layer:
    return Layer({}, lambda path: Place(main, None, dotted((kind, *path))))


def _add_named(
    known: dict[str, Named], kind: str, data: Mapping[str, Any], document: Document, home: Path, report: Report
) -> None:
    for name, table in data.items():
        place = document.place((kind, name))
        if not isinstance(table, dict):
            report.problem(place, "expected a table", f"write a table [{kind}.NAME]")
        elif name in known:
            first = known[name].layer.locate(())
            report.problem(place, f"{name!r} is already defined at {first}", "rename or remove one of the two")
        else:
            known[name] = Named(_layer(document, (kind, name), table, home), document.directory)


def _layer(document: Document, at: KeyPath, data: Mapping[str, Any], home: Path) -> Layer:
    return Layer(anchor(data, document.directory, home), lambda path: document.place((*at, *path)))


def _objection(kind: str, data: Any, main: Path) -> tuple[str, str]:
    if kind in SINGLE and isinstance(data, dict):
        return f"[{kind}] stands in a file of servers.d", f"move it to {main}"
    if kind in SINGLE or kind in NAMED:
        return "expected a table", f"write a table [{kind}{'.NAME' if kind in NAMED else ''}]"
    word = "table" if isinstance(data, dict) else "key"
    tables = f"the tables are {', '.join(sorted((*SINGLE, *NAMED)))}"
    return f"unknown {word} {kind!r}", did_you_mean(kind, (*SINGLE, *NAMED)) or tables
