"""`mcpctl import`: take over the servers that a client starts itself, and undo that."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from mcpd.cli.editing import DryRun, Into, registry_path, reload
from mcpd.cli.failures import FAILED, Failed
from mcpd.cli.granting import HINT
from mcpd.cli.options import Operator, operator_of
from mcpd.errors import ConfigError, NotFound

if TYPE_CHECKING:
    from mcpd.config.rewrite import Edit

LARGEST_INPUT: Final = 64 * 1024 * 1024


def add_to(app: typer.Typer) -> None:
    """Make the command one of `app`."""
    app.command("import")(import_servers)


def import_servers(
    ctx: typer.Context,
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="FILE", help="A client's configuration; or claude-desktop, claude-code, cursor, vscode."
        ),
    ] = None,
    inline: Annotated[bool, typer.Option("--inline", help="Leave what looks secret in the registry.")] = False,
    profile: Annotated[
        str | None, typer.Option(metavar="PROFILE", help="The sandbox of each: strict, unless another is named.")
    ] = None,
    project: Annotated[
        str | None, typer.Option(metavar="DIR", help="Those of one project in Claude Code's file.")
    ] = None,
    file: Into = None,
    undo: Annotated[bool, typer.Option("--undo", help="Take out what the last import brought.")] = False,
    dry_run: DryRun = False,
) -> None:
    """Take over the servers that a client starts itself.

    They run contained, under `strict`, unless --profile says otherwise (`--profile unsandboxed`: as the client ran
    them). What looks like a secret becomes a file in the secrets directory.
    """
    from mcpd.cli.import_entries import Wishes, convert, entries_of, other_projects
    from mcpd.cli.newest import newest

    if undo == (source is not None):
        raise typer.BadParameter("name a file, or say --undo", ctx, param_hint="FILE")
    operator = operator_of(ctx)
    if source is None:
        _undo_import(operator, registry_path(operator), dry_run)
        return
    path = registry_path(operator, may_make=True)
    where = _client_file(source)
    document = _read_json(where)
    wishes = Wishes(
        taken=_names_in(path), inline=inline, profile=profile, environ=os.environ, home=Path.home(), newest=newest
    )  # fmt: skip
    converted, rejected = convert(entries_of(document, project), wishes)
    refused = [(one.title, one.reason) for one in rejected]
    if project is None:
        refused += [(name, "it is a project of its own: see --project") for name in other_projects(document)]
    _Import(operator, path, where, file).carry_out(converted, refused, dry_run)


def _runs(table: Mapping[str, Any]) -> str:
    return shlex.join(table["command"]) if "command" in table else " ".join([table["package"], *table.get("args", ())])


def _client_file(source: str) -> Path:
    import sys

    from mcpd.cli.clients import TARGETS

    if source in TARGETS and not Path(source).exists():
        return TARGETS[source].path(sys.platform, os.environ, Path.home())
    path = Path(os.path.abspath(os.path.expanduser(source)))
    if not path.exists():
        raise Failed(f"{path}: No such file or directory", f"name a file, or a client: {', '.join(TARGETS)}")
    return path


def _read_json(path: Path) -> Any:
    from mcpd.cli.jsonedit import NotJson, read

    with path.open("rb") as stream:
        content = stream.read(LARGEST_INPUT + 1)
    if len(content) > LARGEST_INPUT:
        raise Failed(f"{path}: is over {LARGEST_INPUT} bytes", "is it the right file?")
    try:
        return read(content.decode("utf-8-sig"))
    except (NotJson, UnicodeDecodeError) as error:
        raise Failed(f"{path}: {error}", "mend the file; it was only read") from None


def _names_in(path: Path) -> frozenset[str]:
    """The servers of the registry. Raises ConfigError if it cannot be used as it is."""
    from mcpd.config.load import load

    return frozenset(load(path, os.environ, tolerate_missing=True).servers) if path.exists() else frozenset()


class _Import:
    """One import into one file; what it did is noted beside the registry, to be undone."""

    def __init__(self, operator: Operator, path: Path, source: Path, file: Path | None) -> None:
        self._operator = operator
        self._path = path
        self._source = source
        self._file = file

    def carry_out(self, converted: Sequence[Any], refused: list[tuple[str, str]], dry_run: bool) -> None:
        """Add what can be added; tell of everything."""
        change, converted = self._plan(converted, refused)
        if not dry_run or change is None:
            self._tell(converted, refused)
            if any("sandbox" not in one.table for one in converted):
                typer.echo(f"each runs {HINT}    or take them over as the client ran them: --profile unsandboxed")
        if change is None:
            if refused:
                raise typer.Exit(FAILED)
            typer.echo(f"{self._source}: there is no server in it")
            return
        if dry_run:
            typer.echo(change.diff(), nl=False)
            self._tell((), refused)
            return
        self._write(change, converted)

    def _plan(self, converted: Sequence[Any], refused: list[tuple[str, str]]) -> tuple[Edit | None, Sequence[Any]]:
        """The edit for those entries that are right by themselves; the others go to `refused`."""
        from mcpd.config import edit

        left = list(converted)
        while left:
            tables = {one.name: one.table for one in left}
            change = edit.add(self._path, tables, file=self._file, comment=f"imported from {self._source}")
            new = edit.objections(self._path, change, os.environ)
            if not new:
                return change, left
            wrong = {one.name: str(problem) for one in left for problem in new if _is_about(problem.key, one.name)}
            if not wrong:
                raise ConfigError(*new)
            refused += [(one.title, wrong[one.name]) for one in left if one.name in wrong]
            left = [one for one in left if one.name not in wrong]
        return None, ()

    def _tell(self, converted: Sequence[Any], refused: Sequence[tuple[str, str]]) -> None:
        for one in converted:
            typer.echo(f"  {one.name}  {_runs(one.table)}")
            for text in one.notes:
                typer.echo(f"    {text}")
        for title, reason in refused:
            typer.echo(f"  not converted: {title}: {reason}", err=True)

    def _write(self, change: Edit, converted: Sequence[Any]) -> None:
        from mcpd.cli import import_note
        from mcpd.config import rewrite

        secrets_dir = self._secrets_dir(change)
        secrets = {file: value for one in converted for file, value in one.secrets.items()}
        made = import_note.write_secrets(secrets_dir, secrets)
        try:
            backup = rewrite.write(change, import_note.BACKUP, like=self._path)
        except BaseException:
            import_note.remove_secrets(made)
            raise
        names = [one.name for one in converted]
        import_note.remember(self._path, import_note.note_of(self._source, change, backup, made, names))
        for secret in made:
            typer.echo(f"{secret}: the secret of a server, mode 0600")
        typer.echo(f"{change.file}: {len(names)} added; `mcpctl import --undo` takes them out again")

        def take_back() -> None:
            rewrite.take_back(change)
            import_note.remove_secrets(made)
            import_note.forget(self._path)

        reload(self._operator, self._path, take_back, names)

    def _secrets_dir(self, change: Edit) -> Path:
        from mcpd.config.load import load

        instead: Mapping[Path, str] = {change.file: change.after}
        return load(self._path, os.environ, tolerate_missing=True, instead=instead).daemon.secrets_dir


def _is_about(key: str, name: str) -> bool:
    return key == f"servers.{name}" or key.startswith(f"servers.{name}.")


def _undo_import(operator: Operator, path: Path, dry_run: bool) -> None:
    from mcpd.cli import import_note
    from mcpd.config import edit, rewrite

    note = import_note.noted(path)
    if note is None:
        raise Failed(f"{path}: no import is noted beside it", "`mcpctl remove NAME` takes out one server")
    try:
        change = import_note.undoing(path, note)
    except NotFound:
        change = None
    if change is not None:
        if new := edit.objections(path, change, os.environ):
            raise ConfigError(*new)
        if dry_run:
            typer.echo(change.diff(), nl=False)
            return
        rewrite.write(change)
    import_note.remove_secrets(note.secrets)
    import_note.forget(path)
    typer.echo(f"{note.file}: as before the import of {note.source}")
    reload(operator, path, None, ())
