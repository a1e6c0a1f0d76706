"""`mcpctl token`: print the default token, make named ones, list and revoke them."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Final

import typer

from mcpd.cli.options import Json, operator_of, print_json
from mcpd.cli.table import Column, table
from mcpd.cli.text import duration
from mcpd.control.view import TokenRequest, TokenStatus

if TYPE_CHECKING:
    from rich.text import Text

UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 24 * 3600, "w": 7 * 24 * 3600, "y": 365 * 24 * 3600}
_LIFETIME = re.compile(r"([0-9]{1,9})([smhdwy])")

app = typer.Typer(help="Print, make and revoke the tokens of the front door.", invoke_without_command=True)


@app.callback(invoke_without_command=True)
def token(
    ctx: typer.Context,
    path: Annotated[bool, typer.Option("--path", help="Print where it is kept, not the token.")] = False,
) -> None:
    """Print the default token of the front door, or deal with named ones."""
    if ctx.invoked_subcommand is not None:
        return
    from mcpd.cli.frontdoor import token_file

    file = token_file(operator_of(ctx))
    typer.echo(str(file) if path else file.read_text().strip())


@app.command()
def create(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whose token it is.")],
    servers: Annotated[str | None, typer.Option(metavar="A,B", help="Only these servers.")] = None,
    views: Annotated[str | None, typer.Option(metavar="V,W", help="Only these views, and their servers.")] = None,
    tools: Annotated[
        str | None,
        typer.Option(metavar="A/X,B/Y", help="Of these servers only these tools (the servers' names)."),
    ] = None,
    expires: Annotated[str | None, typer.Option(metavar="30d", help="After so many s, m, h, d, w or y.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="In the place of the one that has this name.")] = False,
    as_json: Json = False,
) -> None:
    """Make a token and print it, this once.

    With no limits it is worth as much as the default token.
    """
    asked = TokenRequest(
        name=name,
        lifetime=None if expires is None else _lifetime(ctx, expires),
        servers=_names(servers),
        views=_names(views),
        tools=_names(tools),
        replace=replace,
    )
    made = operator_of(ctx).client.create_token(asked)
    if as_json:
        print_json({"name": name, "token": made})
    else:
        typer.echo(made)
        typer.echo("it is not shown again, and is kept by its digest only", err=True)


@app.command("list")
def list_tokens(ctx: typer.Context, as_json: Json = False) -> None:
    """List the named tokens: until when they are good, and for what."""
    from mcpd.cli import render

    found = operator_of(ctx).client.tokens()
    if as_json:
        return print_json(found)
    out = render.console()
    return render.show(shown(found, render.width_of(out), time.time()), out)


@app.command()
def revoke(
    ctx: typer.Context, names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Named tokens.")]
) -> None:
    """Let tokens open nothing any more; their sessions end at once."""
    client = operator_of(ctx).client
    for name in names:
        client.revoke_token(name)
        typer.echo(f"{name}: revoked")


def shown(found: Sequence[TokenStatus], width: int | None, now: float) -> Text:
    """The table of `mcpctl token list`."""
    from rich.text import Text

    columns: Sequence[Column[TokenStatus]] = (
        Column("NAME", lambda row: row.name),
        Column("EXPIRES", lambda row: _expiry(row, now), style=lambda row: "red" if row.expired else ""),
        Column("MAY USE", _grants, elastic=True),
        Column("MADE", lambda row: f"{duration(now - row.created)} ago", rank=1, right=True),
    )
    result = table(columns, found, width) if found else Text()
    return result.append(f"{len(found)} named token{'' if len(found) == 1 else 's'}, and the default one\n", "dim")


def _expiry(row: TokenStatus, now: float) -> str:
    if row.expires is None:
        return "never"
    return "expired" if row.expired else f"in {duration(row.expires - now)}"


def _grants(row: TokenStatus) -> str:
    named = (("servers", row.servers), ("views", row.views), ("tools", row.tools))
    parts = [f"{word} {', '.join(names) or 'none'}" for word, names in named if names is not None]
    return "; ".join(parts) or "everything"


def _names(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(name for each in text.split(",") if (name := each.strip()))


def _lifetime(ctx: typer.Context, text: str) -> float:
    found = _LIFETIME.fullmatch(text)
    if found is None or not int(found[1]):
        raise typer.BadParameter(f"{text!r} is no lifetime: write 30d, 12h, 90m", ctx, param_hint="--expires")
    return float(int(found[1]) * UNITS[found[2]])
