"""`mcpctl upgrade`: another version of a server's package, installed beside the one it has, then put in its place."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from mcpd.cli.failures import Failed
from mcpd.cli.options import Operator, operator_of, server_names
from mcpd.control.view import Outcome, Upgrade

if TYPE_CHECKING:
    from mcpd.control.view import Event


def upgrade(
    ctx: typer.Context,
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="A server with a package.", autocompletion=server_names)
    ] = None,
    version: Annotated[
        str | None, typer.Argument(metavar="VERSION", help="An older one goes back to it; none: the newest.")
    ] = None,
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove installed versions that no server uses; without NAME of all.")
    ] = False,
) -> None:
    """Move a server to another version of its package.

    It is installed first, so that the server is away only for its restart. The version before stays installed:
    `mcpctl upgrade NAME VERSION` goes back to it at once. A version that is installed, but whose files were changed, is
    installed anew.
    """
    operator = operator_of(ctx)
    if name is None:
        if not prune:
            raise typer.BadParameter("name a server, or say --prune", ctx, param_hint="NAME")
    else:
        found = _install(operator, name, version)
        if found.renewed:
            typer.echo(f"{name}: {found.after} was not what was installed, and is now; `mcpctl restart {name}` runs it")
        elif found.before == found.after:
            typer.echo(f"{name}: {found.after} is what it has already")
        else:
            _write(ctx, name, found)
    if prune:
        gone = operator.client.prune(name)
        typer.echo("\n".join(f"removed {package}" for package in gone) or "nothing to remove")


def _install(operator: Operator, name: str, version: str | None) -> Upgrade:
    """Have the daemon install it, and show how that goes on."""
    from mcpd.cli import render
    from mcpd.cli.acting import act

    client, found = operator.client, []
    known = [one.name for one in client.servers()]
    if name not in known:
        from mcpd.config.suggest import names_there

        raise Failed(f"there is no server {name!r}", names_there(name, known))

    def command(server: str) -> Outcome:
        found.append(client.upgrade(server, version))
        return Outcome(ok=True, state="")

    progress = render.console(sys.stderr)

    def show(event: Event) -> None:
        render.show(render.event(event, time.time()), progress)

    act(client, command, [name], show)
    return found[0]


def _write(ctx: typer.Context, name: str, found: Upgrade) -> None:
    """Write it into the registry, and have the daemon read that."""
    from mcpd.cli import editing
    from mcpd.config import edit

    old = found.before.rpartition("==" if "==" in found.before else "@")[2]
    try:
        editing.carry_out(
            ctx, lambda path: edit.repackage(path, name, found.after), name, f"set to {found.after}", dry_run=False
        )
    finally:
        typer.echo(f"`mcpctl upgrade {name} {old}` goes back to {found.before}", err=True)
