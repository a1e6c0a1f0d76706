"""`mcpctl pins`: what servers offered when they were first seen, and what is other now."""

from __future__ import annotations

import difflib
import json
import unicodedata
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import typer

from mcpd.cli.failures import FAILED
from mcpd.cli.options import Json, Server, operator_of, print_json
from mcpd.cli.table import Column, table
from mcpd.cli.text import clean
from mcpd.control.view import PinDifference, PinStatus

if TYPE_CHECKING:
    from rich.text import Text

app = typer.Typer(help="Show and approve what servers offer, compared with what was pinned.", no_args_is_help=True)


@app.command("list")
def list_pins(ctx: typer.Context, as_json: Json = False) -> None:
    """List the servers, and whether they offer what was pinned."""
    from mcpd.cli import render

    found = operator_of(ctx).client.pins()
    if as_json:
        return print_json(found)
    out = render.console()
    return render.show(shown(found, render.width_of(out)), out)


@app.command()
def diff(ctx: typer.Context, name: Server, as_json: Json = False) -> None:
    """Show what is other than it was pinned.

    The exit code is 1 if there is anything. Characters that would not be seen are spelt out.
    """
    from mcpd.cli import render

    found = operator_of(ctx).client.pin_differences(name)
    if as_json:
        print_json(found)
    else:
        out = render.console()
        for one in found:
            render.show(difference(one), out)
        if not found:
            typer.echo(f"{name} offers what was pinned")
    if found:
        raise typer.Exit(FAILED)


@app.command()
def approve(ctx: typer.Context, name: Server) -> None:
    """Pin what a server offers now."""
    status = operator_of(ctx).client.approve_pins(name)
    typer.echo(f"{name}: {status.tools} tools pinned, sha256 {status.sha256[:16]}")


def shown(found: Sequence[PinStatus], width: int | None) -> Text:
    """The table of `mcpctl pins list`."""
    from rich.text import Text

    columns: Sequence[Column[PinStatus]] = (
        Column("SERVER", lambda row: row.server),
        Column("POLICY", lambda row: row.policy),
        Column("TOOLS", lambda row: str(row.tools), right=True),
        Column("NOW", _now, elastic=True, style=lambda row: "yellow" if _now(row) not in ("as pinned", "-") else ""),
        Column("SHA256", lambda row: row.sha256[:16] or "-", rank=1),
    )
    return table(columns, found, width) if found else Text()


def _now(row: PinStatus) -> str:
    if not row.pinned or not row.seen:
        return "-"
    named = (("changed", row.changed), ("new", row.added), ("gone", row.removed))
    parts = [f"{word}: {', '.join(names)}" for word, names in named if names]
    return "; ".join([*parts, *(["other instructions"] if row.instructions_changed else [])]) or "as pinned"


def difference(one: PinDifference) -> Text:
    """A readable difference of one tool, prompt or template, or of the instructions."""
    from rich.text import Text

    what = f"{one.kind} {clean(one.name)}" if one.name else one.kind
    word = "new" if one.before is None else "gone" if one.after is None else "changed"
    result = Text().append(f"{what}: {word}\n", "bold")
    for line in difflib.unified_diff(_lines(one.before), _lines(one.after), lineterm="", n=2):
        if line.startswith(("---", "+++", "@@")):
            continue
        result.append(f"  {line}\n", {"-": "red", "+": "green"}.get(line[:1], "dim"))
    return result


def _lines(raw: str | None) -> list[str]:
    """JSON a value a line, long texts by their own lines, with nothing hidden in them."""
    return [] if raw is None else [spelt(line) for line in _flat(json.loads(raw), "")]


def _flat(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list) and value:
        for number, inner in enumerate(value):
            yield from _flat(inner, f"{path}[{number}]")
    elif isinstance(value, str):
        for line in value.splitlines() or [""]:
            yield f"{path}: {line}" if path else line
    else:
        yield f"{path}: {json.dumps(value)}"


def spelt(text: str) -> str:
    """Text in which every character is seen."""
    return "".join(
        f"<U+{ord(char):04X}>" if char != " " and unicodedata.category(char)[0] in "CZ" else char for char in text
    )
