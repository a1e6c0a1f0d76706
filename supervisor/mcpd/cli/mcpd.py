"""The daemon's own command line.

Exit codes: 0 done, 1 it failed, 2 usage, 69 no daemon, 78 bad configuration.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from mcpd.cli.failures import BAD_CONFIG, Commands, complain
from mcpd.cli.options import Config, Json, Operator, Socket

app = typer.Typer(
    name="mcpd",
    cls=Commands,
    help="Run MCP servers as services.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        version()
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Run MCP servers as services. `mcpctl` operates what runs."""


@app.command()
def start(
    config: Config = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return once it is up; it goes on by itself.")] = False,
    unsandboxed: Annotated[bool, typer.Option("--unsandboxed", help="Run every server without a sandbox.")] = False,
    log_file: Annotated[Path | None, typer.Option(help="Log to this file, not to stderr.", metavar="PATH")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but the log.")] = False,
) -> None:
    """Start the daemon and its servers."""
    from mcpd.cli.start import Options
    from mcpd.cli.start import start as start_with

    raise typer.Exit(start_with(Options(config, detach, unsandboxed, log_file, quiet)))


@app.command()
def stop(
    config: Config = None,
    socket: Socket = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait until it is gone.")] = 90.0,
) -> None:
    """Stop the daemon, and wait until it is gone."""
    from mcpd.cli.detach import stop_daemon

    pid = stop_daemon(Operator(config, socket).client, timeout)
    typer.echo(f"mcpd (pid {pid}) has stopped")


@app.command()
def check(config: Config = None, as_json: Json = False) -> None:
    """Tell everything that is wrong with the registry."""
    from mcpd.config.load import find_registry, load
    from mcpd.errors import ConfigError

    try:
        registry = load(find_registry(config, os.environ), os.environ)
    except ConfigError as error:
        if as_json:
            _print_problems(error.problems, ())
            raise typer.Exit(BAD_CONFIG) from None
        complain("mcpd", error)
        typer.echo(f"mcpd: {len(error.problems)} problem{'s' * (len(error.problems) != 1)}", err=True)
        raise typer.Exit(BAD_CONFIG) from None
    if as_json:
        _print_problems((), registry.warnings)
        return
    for warning in registry.warnings:
        typer.echo(f"mcpd: warning: {warning}", err=True)
    count = len(registry.servers)
    typer.echo(f"{registry.path}: {count} server{'s' * (count != 1)}, no problems")


def _print_problems(problems: object, warnings: object) -> None:
    import msgspec

    content = msgspec.json.encode({"problems": problems, "warnings": warnings}, enc_hook=str)
    typer.echo(msgspec.json.format(content, indent=2).decode())


@app.command()
def run(
    target: Annotated[str, typer.Argument(metavar="FILE[:OBJECT]", help="A server script, and the server in it.")],
    arguments: Annotated[list[str] | None, typer.Argument(metavar="ARGUMENT", help="For it, after --.")] = None,
    transport: Annotated[
        str | None, typer.Option("--transport", "-t", metavar="stdio|sse|streamable-http", help="How it is reached.")
    ] = None,
    host: Annotated[str | None, typer.Option(help="The address to listen on.")] = None,
    port: Annotated[int | None, typer.Option("--port", "-p", help="The port to listen on.")] = None,
    log_level: Annotated[str | None, typer.Option("--log-level", "-l", help="DEBUG, INFO, WARNING, ERROR.")] = None,
) -> None:
    """Run one server script in the foreground, without a daemon."""
    options = {"--transport": transport, "--host": host, "--port": port, "--log-level": log_level}
    argv = [sys.executable, "-m", "mcpworker", "run"]
    for name, value in options.items():
        argv += [name, str(value)] if value is not None else []
    argv += [target, *(["--", *arguments] if arguments else [])]
    os.environ["MCPWORKER_PROGRAM"] = "mcpd run"
    sys.stdout.flush()
    os.execv(sys.executable, argv)  # noqa: S606 - the server takes this process's place: signals and pipes are its own


@app.command()
def version() -> None:
    """Print the version."""
    from mcpd import __version__

    typer.echo(f"mcpd {__version__}")
