"""Options that several commands have, and what follows from them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import typer

from mcpd.cli import connect
from mcpd.cli.failures import BAD_CONFIG, Failed
from mcpd.control.client import ControlClient
from mcpd.control.messages import SOCKET_NAME

Config = Annotated[
    Path | None,
    typer.Option(help="The registry that the daemon runs with.", metavar="FILE", envvar="MCPD_CONFIG"),
]
Socket = Annotated[
    Path | None,
    typer.Option(help="The daemon's control.sock, if it is not where the registry says.", metavar="PATH"),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


@dataclass(frozen=True)
class Operator:
    """Where the daemon is to be looked for."""

    config: Path | None = None
    socket: Path | None = None

    @cached_property
    def client(self) -> ControlClient:
        if self.socket is not None:
            return ControlClient(self.socket)
        return ControlClient(*(Path(place).with_name(SOCKET_NAME) for place in mcp_sockets(self.config, os.environ)))


def operator_of(ctx: typer.Context) -> Operator:
    """What was said before and behind the command of where the daemon is."""
    found = ctx.find_root().obj
    assert isinstance(found, Operator)
    return found


def print_json(content: Any) -> None:
    """For programs; indented all the same."""
    import msgspec

    typer.echo(msgspec.json.format(msgspec.json.encode(content), indent=2).decode())


def mcp_sockets(config: Path | None, environ: Mapping[str, str]) -> list[str]:
    """Where `mcpctl connect` would look for the daemon, likeliest first: its neighbours are looked for there too."""
    options = connect.Options()
    options.config = str(config) if config is not None else None
    try:
        return connect.socket_paths(options, environ, os.getuid())
    except (OSError, ValueError) as error:
        raise Failed(str(error), code=BAD_CONFIG) from None


def server_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """For shell completion: the servers of the running daemon. Never raises, and never prints."""
    try:
        given = ctx.find_root().params
        operator = Operator(given.get("config"), given.get("socket"))
        return [status.name for status in operator.client.servers() if status.name.startswith(incomplete)]
    except Exception:  # noqa: BLE001 - a shell's prompt is no place for any complaint
        return []


Server = Annotated[str, typer.Argument(metavar="NAME", help="A server of the registry.", autocompletion=server_names)]
