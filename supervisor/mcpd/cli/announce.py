"""What `mcpd start` shows: where the daemon is reached, its servers until each is up, and what to do next."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from mcpd.cli import render
from mcpd.cli.logstream import LogStream
from mcpd.control.client import ControlClient
from mcpd.control.view import ServerStatus
from mcpd.errors import McpdError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

SETTLED: Final = frozenset({"READY", "NOT_READY", "BACKOFF", "FAILED", "ABANDONED", "STOPPED", "DISABLED", "IDLE"})
POLL: Final = 0.15
PATIENCE: Final = 30.0
START_DELAY: Final = 1.0
"""For how long a server that should run may stand there as STOPPED: its turn has not come yet."""


def announce_quietly(client: ControlClient, log: LogStream | None) -> None:
    """Announce the running daemon on stdout, in a thread: a terminal that is stopped must not stop the event loop. It
    asks by the socket like everybody else."""
    try:
        announce(client, render.console(), log)
    except (McpdError, OSError):
        return  # the daemon is going down already, or nobody reads


def announce(client: ControlClient, out: Console, log: LogStream | None = None, patience: float = PATIENCE) -> None:
    """Print the banner, the servers until all have settled or `patience` seconds are over, and what to do next."""
    render.show(render.daemon_banner(client.daemon()), out)
    out.file.flush()
    follow = _live if out.is_terminal else _lines
    statuses = follow(client, out, log, time.monotonic() + patience)
    render.show(render.next_steps(statuses), out)
    out.file.flush()


def _is_settled(status: ServerStatus, elapsed: float) -> bool:
    may_wait = status.state == "STOPPED" and status.enabled and elapsed < START_DELAY
    return status.state in SETTLED and not may_wait


def _lines(client: ControlClient, out: Console, log: LogStream | None, deadline: float) -> list[ServerStatus]:
    """A line for each server when it settles, and at the end the table."""
    told: dict[str, str] = {}
    began = time.monotonic()

    def tell(statuses: list[ServerStatus]) -> None:
        for status in statuses:
            if _is_settled(status, time.monotonic() - began) and told.get(status.name) != status.state:
                told[status.name] = status.state
                render.show(render.settled(status), out)
        out.file.flush()

    statuses = _watch(client, deadline, tell)
    render.show(render.servers(statuses, None, time.time()), out)
    return statuses


def _live(client: ControlClient, out: Console, log: LogStream | None, deadline: float) -> list[ServerStatus]:
    """The table itself, drawn again while states change; what is logged meanwhile is printed above it."""
    from rich.live import Live
    from rich.text import Text

    with Live(console=out, auto_refresh=False, redirect_stdout=False, redirect_stderr=False) as live:
        if log is not None:
            log.divert = lambda line: live.console.print(Text.from_ansi(line), soft_wrap=True)
        try:
            return _watch(
                client,
                deadline,
                lambda statuses: live.update(_without_break(statuses, out), refresh=True),
            )
        finally:
            if log is not None:
                log.divert = None


def _without_break(statuses: list[ServerStatus], out: Console) -> Text:
    text = render.servers(statuses, out.width, time.time())
    text.rstrip()
    return text


def _watch(client: ControlClient, deadline: float, tell: Callable[[list[ServerStatus]], None]) -> list[ServerStatus]:
    pause, began = threading.Event(), time.monotonic()
    while True:
        statuses = client.servers()
        tell(statuses)
        now = time.monotonic()
        if all(_is_settled(status, now - began) for status in statuses) or now >= deadline:
            return statuses
        pause.wait(POLL)
