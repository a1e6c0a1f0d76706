"""`mcpctl audit`: who called what, and how it ended."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import typer

from mcpd.cli.options import Json, operator_of, server_names
from mcpd.cli.text import clean
from mcpd.control.view import AuditLine

if TYPE_CHECKING:
    from rich.text import Text

SEARCHED: Final = 100_000
"""So many lines at the end of the log are looked through for those that are asked for."""
_LINE = msgspec.json.Decoder(AuditLine)
_GOOD: Final = "ok"


def audit(
    ctx: typer.Context,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on with what comes.")] = False,
    lines: Annotated[int, typer.Option("-n", "--lines", min=0, help="How many of the last ones.")] = 50,
    server: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of one server only.", autocompletion=server_names)
    ] = None,
    principal: Annotated[str | None, typer.Option(metavar="NAME", help="Of one client only.")] = None,
    tool: Annotated[str | None, typer.Option(metavar="NAME", help="Of one tool, prompt or URI only.")] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Only what did not end well.")] = False,
    as_json: Json = False,
) -> None:
    """Show who called which tool, how long it took, and how it ended."""
    from mcpd.cli import render

    def wanted(line: AuditLine) -> bool:
        if line.lost:
            return True
        return (
            (server is None or line.server == server)
            and (principal is None or line.principal == principal)
            and (tool is None or line.name == tool)
            and not (failed and line.outcome == _GOOD)
        )

    out = render.console()

    def show(raw: bytes, line: AuditLine) -> None:
        if as_json:
            typer.echo(raw.decode(errors="replace"))
        else:
            render.show(shown(line), out)

    searched = SEARCHED if server or principal or tool or failed else lines
    client = operator_of(ctx).client
    with ExitStack() as stack:
        # from before the end is read, so that nothing falls in between; what is in both is shown once
        coming = stack.enter_context(client.audit(0, follow=True)) if follow else ()
        with client.audit(searched) as chunks:
            last = deque(_wanted(_split(chunks), wanted), maxlen=lines)
        known = {raw for raw, _ in last}
        for raw, line in last:
            show(raw, line)
        for raw, line in _wanted(_split(coming), wanted):
            if raw not in known:
                show(raw, line)


def shown(line: AuditLine) -> Text:
    """One call for people."""
    from rich.text import Text

    result = Text().append(_moment(line.at), "dim")
    if line.lost:
        return result.append(f"  {line.lost} calls are missing here\n", "red")
    result.append(f"  {clean(line.principal)}  ")
    result.append(f"{clean(line.server) or '-'}  {clean(line.name) or '-'}", "bold")
    result.append(f"  {_time(line.ms)}  ", "dim")
    result.append(line.outcome + (f" ({line.code})" if line.code else ""), "" if line.outcome == _GOOD else "yellow")
    if line.method != "tools/call":
        result.append(f"  {clean(line.method)}", "dim")
    if len(line.arguments):
        result.append(f"  {clean(bytes(line.arguments).decode(errors='replace'))}", "dim")
    return result.append("\n")


def _wanted(lines: Iterable[bytes], wanted: Callable[[AuditLine], bool]) -> Iterator[tuple[bytes, AuditLine]]:
    for raw in lines:
        try:
            line = _LINE.decode(raw)
        except msgspec.MsgspecError:
            continue  # half a line, where a disk was full
        if wanted(line):
            yield raw, line


def _split(chunks: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (line for line in lines if line)
    if rest:
        yield rest


def _moment(at: str) -> str:
    try:
        return datetime.fromisoformat(at).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except ValueError:
        return clean(at)


def _time(ms: float) -> str:
    return f"{ms / 1000:.1f} s" if ms >= 1000 else f"{ms:g} ms"
