"""What the daemon says, as text for people."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, TextIO

from mcpd.cli.table import Column, table
from mcpd.cli.text import clean, clean_lines, duration, moment, size
from mcpd.control.view import (
    DaemonStatus,
    Event,
    ExitRecord,
    Gap,
    InstanceStatus,
    Outcome,
    ReloadReport,
    ServerDetail,
    ServerStatus,
    SessionStatus,
    ToolStatus,
)

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

UNLIMITED: Final = 100_000
STDERR_LINES: Final = 20
STATE_STYLES: Final[Mapping[str, str]] = {
    "READY": "green",
    "NOT_READY": "yellow",
    "STARTING": "cyan",
    "INITIALIZING": "cyan",
    "STOPPING": "cyan",
    "EXITED": "yellow",
    "BACKOFF": "yellow",
    "FAILED": "bold red",
    "ABANDONED": "bold red",
    "STOPPED": "dim",
    "DISABLED": "dim",
    "IDLE": "dim",
}


def console(stream: TextIO | None = None) -> Console:
    """Colours on a terminal only, and none at all with NO_COLOR (https://no-color.org); no limit of width elsewhere."""
    from rich.console import Console

    out = stream or sys.stdout
    plain = not out.isatty() or bool(os.environ.get("NO_COLOR"))
    return Console(
        file=out,
        color_system=None if plain else "auto",
        width=None if out.isatty() else UNLIMITED,
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=True,
    )


def show(text: Text | str, out: Console) -> None:
    """Print without wrapping; `text` brings its own last line break."""
    out.print(text, end="", soft_wrap=True)


def width_of(out: Console) -> int | None:
    return out.width if out.is_terminal else None


def _state_style(row: ServerStatus | InstanceStatus) -> str:
    return STATE_STYLES.get(row.state, "")


def servers(statuses: Sequence[ServerStatus], width: int | None, now: float) -> Text:
    """`mcpctl list`: a table and a line that sums it up."""
    columns: Sequence[Column[ServerStatus]] = (
        Column("NAME", lambda row: row.name),
        Column("STATE", lambda row: row.state, style=_state_style),
        Column("SINCE", lambda row: duration(now - row.since), rank=2, right=True),
        Column("RESTARTS", lambda row: str(row.restarts), rank=7, right=True),
        Column("PID", lambda row: _number(row.pid), rank=8, right=True),
        Column("RSS", _memory, rank=4, right=True),
        Column("ISOLATION", lambda row: row.isolation or "-", rank=3),
        Column("TOOLS", lambda row: str(row.tools), rank=5, right=True),
        Column("CALLS", lambda row: str(row.calls), rank=6, right=True),
        Column("LAST ERROR", lambda row: row.last_error or "", rank=1, elastic=True),
    )
    result = table(columns, statuses, width) if statuses else _text("")
    return result.append(f"{summary(statuses)}\n", "dim")


def _memory(row: ServerStatus) -> str:
    return f"saves {size(row.saved)}" if row.rss is None and row.saved else size(row.rss)


def summary(statuses: Sequence[ServerStatus]) -> str:
    """`3 servers: 2 READY, 1 IDLE; 61.2 MiB, 38.0 MiB saved; 1 call in flight`."""
    if not statuses:
        return "no servers: write [servers.NAME] tables into the registry, then `mcpctl reload`"
    states = Counter(status.state for status in statuses)
    by_count = sorted(states.most_common(), key=lambda pair: pair[0] != "READY")
    counted = ", ".join(f"{count} {state}" for state, count in by_count)
    memory = sum(status.rss or 0 for status in statuses)
    calls = sum(status.calls for status in statuses)
    parts = [f"{_count(len(statuses), 'server')}: {counted}"]
    saved = sum(status.saved or 0 for status in statuses)
    parts += [", ".join([size(memory), *([f"{size(saved)} saved"] if saved else [])])] if memory or saved else []
    parts += [f"{_count(calls, 'call')} in flight"] if calls else []
    return "; ".join(parts)


def detail(server: ServerDetail, width: int | None, now: float) -> Text:
    """`mcpctl status NAME`."""
    result = _text("")
    status = server.status
    result.append(status.name, "bold").append("  ").append(status.state, _state_style(status))
    result.append(f" for {duration(now - status.since)}\n")
    for name, value in _facts(server):
        if value:
            result.append(f"  {name:<12}", "dim").append(f"{clean(value)}\n")
    for note in server.notes:
        result.append(f"  {clean(note)}\n", "yellow")
    if len(server.instances) > 1:
        result.append("\n").append(table(_INSTANCES, server.instances, width))
    if server.timeline:
        result.append("\nlately\n", "bold")
        for one in server.timeline:
            result.append("  ").append(event(one, now))
    if server.exits:
        result.append("\nended before\n", "bold").append(table(_EXITS, server.exits[::-1], width))
    tail = server.stderr_tail or (server.exits[-1].stderr_tail if server.exits else "")
    if tail.strip():
        result.append("\nits last words on stderr\n", "bold").append(stderr_tail(tail))
    return result


def _facts(server: ServerDetail) -> Sequence[tuple[str, str]]:
    status = server.status
    pids = [f"{instance.key} {_number(instance.pid)}" for instance in server.instances]
    supervised = next((one.supervised_pid for one in server.instances if one.supervised_pid), None)
    pid = f"{status.pid} (under {supervised})" if supervised not in (None, status.pid) else _number(status.pid)
    usage = f"{size(status.rss)}, {status.cpu or 0:.1f} s of CPU in {duration(status.uptime)}"
    calls = f"{status.calls} in flight, {status.calls_total} in all"
    program = " ".join(filter(None, (server.server_name, server.server_version)))
    protocol = " ".join(filter(None, (status.protocol, f"({status.era})" if status.era else "")))
    return (
        ("last error", status.last_error or ""),
        ("next start", f"in {duration(server.next_start)}" if server.next_start is not None else ""),
        ("health", _health(server.instances)),
        ("pid", ", ".join(pids) if len(pids) > 1 else pid if status.pid else ""),
        ("uses", usage if status.pid else ""),
        ("isolation", status.isolation),
        ("limits", "; ".join(f"{name} {text}" for name, text in server.limits.items())),
        ("restarts", f"{status.restarts}; generation {status.generation}"),
        ("calls", calls),
        ("tools", str(status.tools)),
        ("program", program),
        ("protocol", protocol),
        ("activation", "" if status.activation == "eager" else status.activation),
        ("command", _command(server.argv)),
        ("directory", server.cwd),
        ("variables", ", ".join(server.env)),
        ("log", server.log),
    )


def _health(instances: Sequence[InstanceStatus]) -> str:
    """Of the only instance; more than one stand in a table of their own."""
    if len(instances) != 1 or not instances[0].health:
        return ""
    one = instances[0]
    parts = [one.health]
    if one.silent is not None:
        parts.append(f"last byte {duration(one.silent)} ago")
    if one.answered is not None:
        parts.append(f"last ping answered {duration(one.answered)} ago")
    if one.missed:
        parts.append(f"{one.missed} pings missed")
    if one.cpu_share is not None:
        parts.append(f"{one.cpu_share:.0%} of a processor")
    return ", ".join(parts)


_INSTANCES: Final[Sequence[Column[InstanceStatus]]] = (
    Column("INSTANCE", lambda row: row.key),
    Column("STATE", lambda row: row.state, style=_state_style),
    Column("HEALTH", lambda row: row.health or "-"),
    Column("PID", lambda row: _number(row.pid), right=True),
    Column("UPTIME", lambda row: duration(row.uptime), rank=2, right=True),
    Column("RSS", lambda row: size(row.rss), rank=1, right=True),
    Column("CALLS", lambda row: str(row.calls), rank=3, right=True),
)

_EXITS: Final[Sequence[Column[ExitRecord]]] = (
    Column("AT", lambda row: moment(row.at)),
    Column("REASON", lambda row: row.reason),
    Column("GENERATION", lambda row: str(row.generation), rank=2, right=True),
    Column("STATUS", lambda row: row.status, rank=1, elastic=True),
)


def stderr_tail(tail: str) -> Text:
    """The last lines, indented."""
    lines = clean_lines(tail.rstrip("\n")).split("\n")[-STDERR_LINES:]
    return _text("".join(f"    {line}\n" for line in lines))


def event(one: Event | Gap, now: float) -> Text:
    """One line of `mcpctl events`."""
    if isinstance(one, Gap):
        return _text(f"... {_count(one.missed, 'event')} left out ...\n", "dim")
    result = _text("").append(moment(one.at, now), "dim").append("  ")
    if one.server:
        result.append(f"{clean(one.instance or one.server)}  ")
    if one.new:
        result.append(f"{one.old} → ").append(one.new, STATE_STYLES.get(one.new, ""))
        result.append("  " if one.reason else "")
    return result.append(f"{clean(one.reason)}\n")


def outcome(name: str, one: Outcome, took: float, last_words: str) -> Text:
    """What came of a command for one server."""
    result = _text("").append(name, "bold").append("  ")
    result.append(one.state, STATE_STYLES.get(one.state, ""))
    if one.ok:
        return result.append(f"  after {duration(took)}\n", "dim")
    result.append(f"  {clean(one.reason) or 'it did not work'}\n")
    if last_words.strip():
        result.append("  its last words on stderr:\n", "dim").append(stderr_tail(last_words))
    return result.append(f"  next: mcpctl status {name}, mcpctl logs {name}\n", "dim")


def sessions(statuses: Sequence[SessionStatus], width: int | None, now: float) -> Text:
    """`mcpctl sessions`."""
    columns: Sequence[Column[SessionStatus]] = (
        Column("ID", lambda row: row.id),
        Column("CLIENT", lambda row: f"{row.client_name} {row.client_version}".strip() or "-", elastic=True),
        Column("VIEW", lambda row: row.view),
        Column("TRANSPORT", lambda row: row.transport, rank=2),
        Column("PROTOCOL", lambda row: row.protocol or "-", rank=5),
        Column("PRINCIPAL", lambda row: row.principal, rank=4),
        Column("SINCE", lambda row: duration(now - row.since), rank=3, right=True),
        Column("IDLE", lambda row: duration(row.idle), rank=1, right=True),
        Column("CALLS", lambda row: str(row.in_flight), right=True),
    )
    result = table(columns, statuses, width) if statuses else _text("")
    return result.append(f"{_count(len(statuses), 'session')}\n", "dim")


def tools(statuses: Sequence[ToolStatus], width: int | None) -> Text:
    """`mcpctl tools`."""
    columns: Sequence[Column[ToolStatus]] = (
        Column("SERVER", lambda row: row.server),
        Column("TOOL", lambda row: row.name),
        Column("PUBLIC NAME", lambda row: row.public_name, rank=2),
        Column("DESCRIPTION", lambda row: row.description.strip().split("\n")[0], rank=1, elastic=True),
    )
    result = table(columns, statuses, width) if statuses else _text("")
    return result.append(f"{_count(len(statuses), 'tool')}\n", "dim")


def reload_report(report: ReloadReport) -> Text:
    """`mcpctl reload`."""
    would = "would be " if report.dry_run else ""
    parts = (
        ("added", report.added),
        ("removed", report.removed),
        ("restarted", report.restarted),
        ("changed without a restart", report.changed_live),
    )
    result = _text("")
    for word, names in parts:
        if names:
            result.append(f"{would}{word}: {', '.join(names)}\n")
    for server, secrets in report.rotated.items():
        result.append(
            f"  {server} because of its secret{'s' if len(secrets) > 1 else ''} {', '.join(secrets)}\n", "dim"
        )
    if not any(names for _, names in parts):
        result.append("no server changes\n" if report.dry_run else "no server changed\n")
    if report.unchanged:
        result.append(f"unchanged: {_count(len(report.unchanged), 'server')}\n", "dim")
    if report.daemon:
        result.append(f"counts after the daemon's own restart: {', '.join(report.daemon)}\n", "yellow")
    return result


def daemon_banner(status: DaemonStatus) -> Text:
    """Where clients find the daemon, and where its token is."""
    result = _text("").append("mcpd", "bold").append(f" {status.version}, pid {status.pid}, {status.registry}\n")
    for url in status.urls:
        result.append("  Streamable HTTP  ", "dim").append(f"{url}/mcp\n", "bold")
        result.append("  HTTP+SSE         ", "dim").append(f"{url}/sse\n")
    if status.token_file:
        result.append("  bearer token     ", "dim").append(f"in {status.token_file}\n")
    elif status.auth == "none":
        result.append("  no token is asked for: every local program can use these servers\n", "yellow")
    result.append("  stdio            ", "dim").append("mcpctl connect\n")
    for warning in status.warnings:
        result.append(f"  {clean(warning)}\n", "yellow")
    return result


def settled(status: ServerStatus) -> Text:
    """A server's line while the daemon starts, where there is no table to be drawn again."""
    result = _text("  ").append(f"{status.name:<16} ").append(status.state, STATE_STYLES.get(status.state, ""))
    return result.append(f"  {clean(status.last_error)}\n" if status.last_error else "\n")


def next_steps(statuses: Sequence[ServerStatus]) -> Text:
    """Two or three commands to try now."""
    failed = next((one.name for one in statuses if one.state in ("BACKOFF", "FAILED")), None)
    ready = next((one.name for one in statuses if one.state == "READY" and one.tools), None)
    steps = [("mcpctl list", "what runs")]
    steps += [(f"mcpctl logs {failed}", "why it does not start")] if failed else []
    steps += [(f"mcpctl tools {ready}", "what it can do")] if ready else []
    steps += [("mcpctl client-config claude-desktop --write", "let a client use them")]
    result = _text("next:\n")
    for command, what in steps[:3]:
        result.append(f"  {command:<46}", "bold").append(f"{what}\n", "dim")
    return result


def _command(argv: Sequence[str]) -> str:
    import shlex

    return shlex.join(argv)


def _number(value: int | None) -> str:
    return "-" if value is None else str(value)


def _count(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"


def _text(text: str, style: str = "") -> Text:
    from rich.text import Text

    return Text(text, style, no_wrap=True)
