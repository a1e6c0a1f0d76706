"""The commands of `mcpctl` that change the registry's files for one server, and then have the daemon read them.

A change is checked as the daemon would check it, before it is written; what the daemon refuses all the same (its PATH
may be another) is taken back.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mcpd.cli.failures import BAD_CONFIG, FAILED, Failed, complain
from mcpd.cli.granting import HINT, grant_of, named_directories
from mcpd.cli.options import Operator, Server, operator_of
from mcpd.control.client import NoDaemon, Refused
from mcpd.errors import ConfigError

if TYPE_CHECKING:
    from mcpd.config.rewrite import Edit
    from mcpd.control.view import ReloadReport

DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would change in the file; change nothing.")]
Into = Annotated[
    Path | None, typer.Option("--file", metavar="NAME.toml", help="Into this file of servers.d, made if missing.")
]


def add_to(app: typer.Typer) -> None:
    """Make these commands of `app`."""
    app.command()(add)
    app.command()(remove)
    app.command()(enable)
    app.command()(disable)


def add(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it shall be called.")],
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[-- WORD...]", help="The program and its arguments; or arguments.")
    ] = None,
    command: Annotated[
        str | None, typer.Option(metavar="PROGRAM", help="A program, or a whole line, split as a shell does.")
    ] = None,
    script: Annotated[str | None, typer.Option(metavar="FILE[:OBJECT]", help="A Python file.")] = None,
    package: Annotated[
        str | None, typer.Option(metavar="PACKAGE", help="npm:NAME@VERSION or pypi:NAME==VERSION.")
    ] = None,
    env: Annotated[list[str] | None, typer.Option("--env", "-e", metavar="KEY=VALUE", help="A variable.")] = None,
    secret: Annotated[
        list[str] | None, typer.Option(metavar="KEY=FILE", help="A variable, its value in this file of secrets_dir.")
    ] = None,
    cwd: Annotated[Path | None, typer.Option(metavar="DIR", help="Where it is started.")] = None,
    profile: Annotated[str | None, typer.Option(metavar="PROFILE", help="Its sandbox; see docs/sandbox.md.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any other key: limits.memory=1GiB")
    ] = None,
    disabled: Annotated[bool, typer.Option("--disabled", help="Write it down, but do not start it.")] = False,
    file: Into = None,
    dry_run: DryRun = False,
) -> None:
    """Add a server to the registry, and start it.

    mcpctl add time --script servers/time.py; mcpctl add memory --package npm:some-server@1.2.3
    """
    from mcpd.config import edit

    table = _source(ctx, command, script, package, list(words or ()))
    if cwd is not None:
        table["cwd"] = os.path.abspath(cwd)
    variables: dict[str, Any] = dict(_pair(one, "--env") for one in env or ())
    variables |= {key: {"secret": value} for key, value in (_pair(one, "--secret") for one in secret or ())}
    if variables:
        table["env"] = variables
    if profile is not None:
        table["sandbox"] = {"profile": profile}
    if disabled:
        table["enabled"] = False
    for one in settings or ():
        _set(table, *_pair(one, "--set"))
    try:
        carry_out(ctx, lambda path: edit.add(path, {name: table}, file=file), name, "added", dry_run, may_make=True)
    except typer.Exit as end:
        if end.exit_code == FAILED:  # added, and does not start
            _tell_of_strict(name, table)
        raise
    if not dry_run:
        _tell_of_strict(name, table)


def _tell_of_strict(name: str, table: Mapping[str, Any]) -> None:
    if "sandbox" in table:
        return
    words = table.get("args", table.get("command", ()))
    notes = [grant_of(path) for path in named_directories(words, os.path.expanduser("~"))]
    typer.echo(f"{name} runs {HINT}" + "".join(f"{name}: {note}\n" for note in notes), err=True, nl=False)


def _source(
    ctx: typer.Context, command: str | None, script: str | None, package: str | None, words: list[str]
) -> dict[str, Any]:
    if sum(one is not None for one in (command, script, package)) > 1:
        raise typer.BadParameter("it is either a command, a script or a package", ctx, param_hint="--script")
    if package is not None:
        return {"package": package, "args": words} if words else {"package": package}
    if script is not None:
        table: dict[str, Any] = {"script": os.path.abspath(os.path.expanduser(script))}
        return {**table, "args": words} if words else table
    if command is not None:
        split = [command] if Path(command).exists() else shlex.split(command)
        words = [*split, *words]
    if not words:
        raise typer.BadParameter("say what it runs: --script FILE, --command PROGRAM, or -- PROGRAM …", ctx)
    if "/" in words[0]:
        words[0] = os.path.abspath(os.path.expanduser(words[0]))
    return {"command": words}


def _pair(text: str, option: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise typer.BadParameter(f"{text!r} is not KEY=VALUE", param_hint=option)
    return key, value


def _set(table: dict[str, Any], key: str, text: str) -> None:
    """`a.b` = what `text` is in TOML, or, where that is nothing, the text itself."""
    import tomli

    try:
        value = tomli.loads(f"value = {text}")["value"]
    except tomli.TOMLDecodeError:
        value = text
    *path, last = key.split(".")
    for part in path:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise typer.BadParameter(f"{part} is no table", param_hint="--set")
    table[last] = value


def remove(ctx: typer.Context, name: Server, dry_run: DryRun = False) -> None:
    """Stop a server and take it out of the registry."""
    from mcpd.config import edit

    carry_out(ctx, lambda path: edit.remove(path, name), name, "removed", dry_run)


def enable(ctx: typer.Context, name: Server, dry_run: DryRun = False) -> None:
    """Write down that a server is to be run, and start it."""
    from mcpd.config import edit

    if carry_out(ctx, lambda path: edit.enable(path, name, True), name, "enabled", dry_run):
        state = next((one.state for one in operator_of(ctx).client.servers() if one.name == name), "")
        if state == "STOPPED":
            typer.echo(f"{name} was stopped by hand: `mcpctl start {name}` starts it", err=True)


def disable(ctx: typer.Context, name: Server, dry_run: DryRun = False) -> None:
    """Write down that a server is not to be run, and stop it."""
    from mcpd.config import edit

    carry_out(ctx, lambda path: edit.enable(path, name, False), name, "disabled", dry_run)


def carry_out(
    ctx: typer.Context, plan: Callable[[Path], Edit], name: str, done: str, dry_run: bool, may_make: bool = False
) -> bool:
    """Make the change; returns whether a daemon has it."""
    from mcpd.config import edit, rewrite

    operator = operator_of(ctx)
    path = registry_path(operator, may_make=may_make)
    change = plan(path)
    if not change:
        typer.echo(f"{change.file}: {name} is {done} already")
        return False
    if new := edit.objections(path, change, os.environ):
        raise ConfigError(*new)
    if dry_run:
        typer.echo(change.diff(), nl=False)
        return False
    was_right = not edit.problems(path, os.environ)
    backup = rewrite.write(change, like=path)
    typer.echo(f"{change.file}: {name} {done}" + (f"; before: {backup}" if backup else ""))
    return reload(operator, path, (lambda: rewrite.take_back(change)) if was_right else None, (name,))


def registry_path(operator: Operator, *, may_make: bool = False) -> Path:
    """The registry that is meant: the one that was named, the running daemon's, or the usual one.

    With `may_make` one that is not there yet, but would be looked for. Raises ConfigError.
    """
    from mcpd.config.environment import config_home
    from mcpd.config.load import find_registry

    if operator.config is None:
        try:
            return Path(operator.client.daemon().registry)
        except NoDaemon:
            pass
    try:
        return find_registry(operator.config, os.environ)
    except ConfigError:
        if operator.config is not None or not may_make:
            raise
        return config_home(os.environ) / "mcpd" / "mcpd.toml"


def tell_other_registry(operator: Operator) -> None:
    """Say so if the daemon runs with another registry than the one that was named: it reads its own."""
    if operator.config is None:
        return
    runs_with = operator.client.daemon().registry
    if os.path.realpath(runs_with) != os.path.realpath(operator.config):
        typer.echo(f"mcpctl: the daemon runs with {runs_with}: it reads that, not {operator.config}", err=True)


def reload(operator: Operator, path: Path, take_back: Callable[[], None] | None, names: Sequence[str]) -> bool:
    """Have the daemon read the registry, if one runs; if it refuses, take the change back, and raise Failed."""
    try:
        runs_with = Path(operator.client.daemon().registry)
        if os.path.realpath(runs_with) != os.path.realpath(path):
            typer.echo(f"the daemon runs with {runs_with}, and was not told", err=True)
            return False
        report = operator.client.reload()
    except NoDaemon:
        typer.echo("no daemon is running: it counts from the next start")
        return False
    except Refused as refusal:
        complain("mcpctl", refusal)
        if take_back is None:
            text = "the file is changed, but the daemon goes on with the registry that it has"
            raise Failed(text, "there is more to mend: see above", BAD_CONFIG) from None
        take_back()
        raise Failed("the daemon refuses it; the change is taken back", "", BAD_CONFIG) from None
    _tell(report, names)
    return True


def _tell(report: ReloadReport, names: Sequence[str]) -> None:
    from mcpd.cli import render

    render.show(render.reload_report(report), render.console())
    about = tuple(f"servers.{name}" for name in names)
    for text in report.warnings:
        if any(key in text for key in about):
            typer.echo(f"mcpctl: warning: {text}", err=True)
    for text in report.problems:
        typer.echo(f"mcpctl: {text}", err=True)
    if report.problems:
        failed = [name for name in names if any(f"servers.{name}:" in text for text in report.problems)]
        if failed:
            typer.echo(f"  see {', '.join(f'`mcpctl logs {name}`' for name in failed)}", err=True)
        raise typer.Exit(FAILED)
