"""The operator's tool: asks the daemon over its control socket, prints what it says.

Exit codes: 0 done, 1 it failed, 2 usage, 69 no daemon, 78 bad configuration.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from typing import Annotated, Any

import msgspec
import typer

from mcpd import __version__
from mcpd.cli import audit, editing, import_command, pins, tokens
from mcpd.cli.client_config import client_config
from mcpd.cli.failures import FAILED, Commands, Failed
from mcpd.cli.options import Config, Json, Operator, Server, Socket, operator_of, print_json, server_names
from mcpd.cli.upgrading import upgrade
from mcpd.control.view import Event, ToolStatus

GLOBAL_OPTIONS = ("--config", "--socket")


class Anywhere(Commands):
    """`--config` and `--socket` may stand behind the command too, where people write them."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ours: list[str] = []
        others: list[str] = []
        rest = iter(args)
        for word in rest:
            if word == "--":
                others += [word, *rest]
            elif word in GLOBAL_OPTIONS:
                ours += [word, *itertools.islice(rest, 1)]
            elif word.startswith(tuple(f"{option}=" for option in GLOBAL_OPTIONS)):
                ours.append(word)
            else:
                others.append(word)
        return list(super().parse_args(ctx, ours + others))


app = typer.Typer(
    name="mcpctl",
    cls=Anywhere,
    help="Operate the MCP servers that mcpd runs.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Names = Annotated[list[str] | None, typer.Argument(metavar="NAME", help="Servers.", autocompletion=server_names)]
All = Annotated[bool, typer.Option("--all", help="All servers of the registry.")]


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"mcpctl {__version__}")
        raise typer.Exit


@app.callback()
def main(
    ctx: typer.Context,
    config: Config = None,
    socket: Socket = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Operate the MCP servers that mcpd runs."""
    ctx.obj = Operator(config, socket)


@app.command("list")
def list_servers(ctx: typer.Context, as_json: Json = False) -> None:
    """List the servers and their states."""
    from mcpd.cli import render

    statuses = operator_of(ctx).client.servers()
    if as_json:
        return print_json(statuses)
    out = render.console()
    return render.show(render.servers(statuses, render.width_of(out), time.time()), out)


@app.command()
def status(ctx: typer.Context, name: Server, as_json: Json = False) -> None:
    """Show one server: what it runs, how it ended before, its last words."""
    from mcpd.cli import render

    detail = operator_of(ctx).client.server(name)
    if as_json:
        return print_json(detail)
    out = render.console()
    return render.show(render.detail(detail, render.width_of(out), time.time()), out)


@app.command()
def start(ctx: typer.Context, names: Names = None, every: All = False, as_json: Json = False) -> None:
    """Start servers and wait until they are READY."""
    _act(ctx, "start", names, every, as_json)


@app.command()
def stop(ctx: typer.Context, names: Names = None, every: All = False, as_json: Json = False) -> None:
    """Stop servers and wait until nothing of them runs."""
    _act(ctx, "stop", names, every, as_json)


@app.command()
def restart(
    ctx: typer.Context,
    names: Names = None,
    every: All = False,
    rolling: Annotated[
        bool, typer.Option("--rolling", help="Start new instances beside the old ones, so that no call notices.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Restart servers and wait until they are READY."""
    _act(ctx, "roll" if rolling else "restart", names, every, as_json)


@app.command("reset-failed")
def reset_failed(ctx: typer.Context, names: Names = None, every: All = False, as_json: Json = False) -> None:
    """Forget failures and delays, and try again now."""
    _act(ctx, "reset_failed", names, every, as_json)


def _act(ctx: typer.Context, verb: str, names: list[str] | None, every: bool, as_json: bool) -> None:
    from mcpd.cli import render
    from mcpd.cli.acting import act

    if every == bool(names):
        raise typer.BadParameter("name servers, or say --all", ctx, param_hint="NAME")
    client = operator_of(ctx).client
    known = [one.name for one in client.servers()]
    wanted = known if every else list(dict.fromkeys(names or ()))
    if unknown := [name for name in wanted if name not in known]:
        from mcpd.config.suggest import names_there

        raise Failed(f"there is no server {', '.join(map(repr, unknown))}", names_there(unknown[0], known))

    progress = render.console(sys.stderr)
    began = time.monotonic()
    try:
        outcomes = act(
            client, getattr(client, verb), wanted, lambda event: render.show(render.event(event, time.time()), progress)
        )
    except KeyboardInterrupt:
        typer.echo("mcpctl: the daemon goes on with it; `mcpctl list` shows how", err=True)
        raise
    if as_json:
        print_json([{"name": name, **msgspec.to_builtins(outcome)} for name, outcome in outcomes.items()])
    else:
        out = render.console()
        for name, outcome in outcomes.items():
            tail = "" if outcome.ok else _last_words(ctx, name)
            render.show(render.outcome(name, outcome, time.monotonic() - began, tail), out)
    if not all(outcome.ok for outcome in outcomes.values()):
        raise typer.Exit(FAILED)


def _last_words(ctx: typer.Context, name: str) -> str:
    detail = operator_of(ctx).client.server(name)
    return detail.stderr_tail or (detail.exits[-1].stderr_tail if detail.exits else "")


@app.command()
def reload(
    ctx: typer.Context,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would change; change nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Read the registry again; restart only what changed."""
    from mcpd.cli import render
    from mcpd.cli.editing import tell_other_registry

    operator = operator_of(ctx)
    tell_other_registry(operator)
    report = operator.client.reload(dry_run)
    if as_json:
        print_json(report)
    else:
        render.show(render.reload_report(report), render.console())
        for text in (*report.warnings, *report.problems):
            typer.echo(f"mcpctl: {text}", err=True)
    if report.problems:
        raise typer.Exit(FAILED)


@app.command()
def logs(
    ctx: typer.Context,
    name: Server,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on with what comes.")] = False,
    lines: Annotated[int, typer.Option("-n", "--lines", min=0, help="How many of the last lines.")] = 100,
) -> None:
    """Show what a server writes on stderr."""
    from mcpd.cli.text import TerminalFilter

    out = sys.stdout.buffer
    shown = TerminalFilter() if sys.stdout.isatty() else bytes
    with operator_of(ctx).client.logs(name, lines, follow) as chunks:
        for chunk in chunks:
            out.write(shown(chunk))
            out.flush()


@app.command()
def events(
    ctx: typer.Context,
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Of one server only.", autocompletion=server_names)
    ] = None,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on with what comes.")] = False,
    lines: Annotated[int, typer.Option("-n", "--lines", min=0, help="How many of the last ones.")] = 50,
    as_json: Json = False,
) -> None:
    """Show changes of state, of all servers or of one."""
    from mcpd.cli import render

    out = render.console()
    client = operator_of(ctx).client
    if name is not None:
        client.server(name)
    with client.events(-lines if lines else 2**53, follow) as found:
        for event in found:
            if name is not None and isinstance(event, Event) and event.server != name:
                continue
            if as_json:
                typer.echo(msgspec.json.encode(event).decode())
            else:
                render.show(render.event(event, time.time()), out)


@app.command()
def sessions(ctx: typer.Context, as_json: Json = False) -> None:
    """List the clients that are connected."""
    from mcpd.cli import render

    found = operator_of(ctx).client.sessions()
    if as_json:
        return print_json(found)
    out = render.console()
    return render.show(render.sessions(found, render.width_of(out), time.time()), out)


@app.command()
def tools(
    ctx: typer.Context,
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Of one server only.", autocompletion=server_names)
    ] = None,
    as_json: Json = False,
) -> None:
    """List the tools that the servers offer."""
    from mcpd.cli import render

    found = operator_of(ctx).client.tools(name)
    if as_json:
        return print_json(found)
    out = render.console()
    return render.show(render.tools(found, render.width_of(out)), out)


@app.command()
def call(
    ctx: typer.Context,
    name: Server,
    tool: Annotated[str, typer.Argument(metavar="TOOL", help="One of its tools.")],
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[ARGUMENT]...", help="key=value, key:=JSON, or one JSON object; - reads it from stdin."
        ),
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.001, help="Seconds to wait for the answer.")] = 300.0,
    as_json: Json = False,
) -> None:
    """Call a tool and print its result.

    The exit code is 1 if the tool says that it failed.
    """
    from mcpd.cli import calling

    client = operator_of(ctx).client
    found = _tool(client.tools(name), name, tool)
    given = [sys.stdin.read()] if words == ["-"] else list(words or ())
    arguments = calling.arguments(given, msgspec.json.decode(found.input_schema))
    raw = client.call(name, found.name, arguments, timeout)
    result = calling.parsed(raw)
    if as_json:
        sys.stdout.buffer.write(raw + b"\n")
    else:
        typer.echo(calling.result_text(result), err=calling.is_error(result))
    if calling.is_error(result):
        raise typer.Exit(FAILED)


def _tool(found: list[ToolStatus], server: str, name: str) -> ToolStatus:
    for one in found:
        if name in (one.name, one.public_name):
            return one
    names = ", ".join(one.name for one in found)
    if not names:
        raise Failed(f"{server} has no tool {name!r}", "it has none now: is it READY?")
    from mcpd.config.suggest import did_you_mean

    meant = did_you_mean(name, [one.name for one in found])
    raise Failed(f"{server} has no tool {name!r}", f"{meant + ' ' if meant else ''}it has {names}")


app.add_typer(tokens.app, name="token")
app.add_typer(pins.app, name="pins")
app.command()(audit.audit)
app.command("client-config")(client_config)
editing.add_to(app)
import_command.add_to(app)
app.command()(upgrade)


@app.command()
def doctor(ctx: typer.Context, as_json: Json = False) -> None:
    """Tell what this machine gives to isolate servers, and what each that runs really has.

    The exit code is 1 if something that is asked for is not given.
    """
    from mcpd.cli import doctor as diagnosing
    from mcpd.cli import render

    found = diagnosing.diagnose(operator_of(ctx), os.environ)
    if as_json:
        print_json(found)
    else:
        out = render.console()
        for line, style in diagnosing.shown(found):
            out.print(line, style=style, soft_wrap=True)
    if found.failed:
        raise typer.Exit(FAILED)


@app.command("connect", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def connect(ctx: typer.Context) -> None:
    """Be an MCP server on stdin and stdout, for a client."""
    from mcpd.cli import connect as program

    config = operator_of(ctx).config
    raise typer.Exit(program.main([*ctx.args, *(["--config", str(config)] if config is not None else [])]))
