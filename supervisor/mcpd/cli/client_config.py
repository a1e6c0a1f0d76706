"""`mcpctl client-config`: make a client start, or reach, this daemon."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from mcpd.cli.options import operator_of, print_json, server_names


def client_config(
    ctx: typer.Context,
    target: Annotated[str, typer.Argument(metavar="TARGET", help="claude-desktop, claude-code, cursor or vscode.")],
    write: Annotated[bool, typer.Option("--write", help="Write it into the client's file, with a backup.")] = False,
    server: Annotated[
        str | None, typer.Option(metavar="NAME", help="One server, not all.", autocompletion=server_names)
    ] = None,
    view: Annotated[str | None, typer.Option(metavar="VIEW", help="A view of the registry.")] = None,
    http: Annotated[bool, typer.Option("--http", help="By URL and token, not by command.")] = False,
    name: Annotated[str | None, typer.Option(help="What the client shall call it.")] = None,
    file: Annotated[Path | None, typer.Option(help="Another file than the client's usual one.", metavar="PATH")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an entry of that name that is not mcpd's.")] = False,
) -> None:
    """Make a client use the managed servers.

    Prints the entry for the client's configuration, or writes it there; all else in that file stays as it is.
    """
    from mcpd.cli import clients
    from mcpd.cli.frontdoor import entry_for

    if target not in clients.TARGETS:
        raise typer.BadParameter(f"{target!r} is none of {', '.join(clients.TARGETS)}", ctx, param_hint="TARGET")
    if server is not None and view is not None:
        raise typer.BadParameter("one server or one view at a time", ctx, param_hint="--view")
    kind = clients.TARGETS[target]
    path = file or kind.path(sys.platform, os.environ, Path.home())
    entry = entry_for(operator_of(ctx), kind, server, view, http)
    called = name or server or (f"mcpd-{view}" if view else "mcpd")
    if not write:
        print_json({kind.key: {called: entry}})
        typer.echo(f"to be merged into {path}; --write does that", err=True)
        return
    written = clients.write(path, kind, called, entry, force)
    if not written.changed:
        typer.echo(f"{path}: has the entry {called!r} already")
        return
    typer.echo(f"{path}: entry {called!r} written" + (f"; before: {written.backup}" if written.backup else ""))
    typer.echo(f"next: {kind.next_step}")
