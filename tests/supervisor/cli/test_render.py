"""What the daemon says, as people see it."""

from __future__ import annotations

import io

import pytest

from mcpd.cli import render
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

NOW = 1_700_000_000.0
TIME = ServerStatus(
    name="time",
    state="READY",
    since=NOW - 185,
    pid=4711,
    rss=45 * 2**20,
    cpu=1.25,
    uptime=190.0,
    isolation="unsandboxed",
    tools=3,
    calls=1,
    calls_total=12,
    era="handshake",
    protocol="2025-11-25",
    generation=1,
)
BROKEN = ServerStatus(
    name="broken",
    state="BACKOFF",
    since=NOW - 3,
    restarts=4,
    isolation="unsandboxed",
    generation=5,
    last_error="exit-code: exit code 3\x1b[2J",
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_list_has_every_column_and_a_summary() -> None:
    assert render.servers([TIME, BROKEN], None, NOW).plain == (
        "NAME    STATE    SINCE  RESTARTS   PID       RSS  ISOLATION    TOOLS  CALLS  LAST ERROR\n"
        "time    READY    3m05s         0  4711  45.0 MiB  unsandboxed      3      1\n"
        "broken  BACKOFF     3s         4     -         -  unsandboxed      0      0  exit-code: exit code 3 [2J\n"
        "2 servers: 1 READY, 1 BACKOFF; 45.0 MiB; 1 call in flight\n"
    )


def test_the_list_shows_what_a_resting_server_saves() -> None:
    idle = ServerStatus(name="maps", state="IDLE", since=NOW - 60, activation="lazy", saved=38 * 2**20)

    lines = render.servers([TIME, idle], None, NOW).plain.splitlines()

    assert "saves 38.0 MiB" in lines[2]
    assert lines[3] == "2 servers: 1 READY, 1 IDLE; 45.0 MiB, 38.0 MiB saved; 1 call in flight"


@pytest.mark.parametrize(
    ("width", "titles"),
    [
        (100, "NAME STATE SINCE RESTARTS PID RSS ISOLATION TOOLS CALLS LAST ERROR"),
        (80, "NAME STATE SINCE RSS ISOLATION TOOLS CALLS LAST ERROR"),
        (60, "NAME STATE SINCE ISOLATION LAST ERROR"),
        (20, "NAME STATE"),
    ],
)
def test_a_narrow_terminal_gets_what_matters_most(width: int, titles: str) -> None:
    table = render.servers([TIME, BROKEN], width, NOW).plain.split("\n")

    assert table[0].split() == titles.split()
    assert all(len(line) <= width for line in table[:3])


def test_an_empty_registry_says_what_to_do() -> None:
    text = render.servers([], None, NOW).plain

    assert text == "no servers: write [servers.NAME] tables into the registry, then `mcpctl reload`\n"


@pytest.mark.parametrize("variable", [None, "1"])
def test_no_color_is_obeyed(variable: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    if variable is not None:
        monkeypatch.setenv("NO_COLOR", variable)
    stream = Terminal()

    render.show(render.servers([TIME, BROKEN], None, NOW), render.console(stream))

    assert ("\x1b" in stream.getvalue()) is (variable is None)


def test_a_pipe_gets_no_escape_and_no_wrapping() -> None:
    stream = io.StringIO()
    out = render.console(stream)

    render.show(render.event(Event(seq=1, at=NOW, reason="x" * 5000), NOW), out)

    assert render.width_of(out) is None
    assert stream.getvalue().count("\n") == 1
    assert "\x1b" not in stream.getvalue()


def test_a_servers_page_has_all_that_is_known() -> None:
    detail = ServerDetail(
        status=BROKEN,
        exits=(
            ExitRecord(at=NOW - 9, reason="signal", status="killed by SIGKILL", generation=4),
            ExitRecord(at=NOW - 3, reason="exit-code", status="exit code 3", generation=5, stderr_tail="a\n\x1b[2Jb\n"),
        ),
        argv=("/bin/sh", "-c", "exit 3"),
        cwd="/srv",
        env=("API_KEY", "TZ"),
        log="/var/broken.log",
        next_start=1.5,
        notes=("wedged for 3s",),
    )

    lines = [" ".join(line.split()) for line in render.detail(detail, None, NOW).plain.split("\n")]

    assert lines == [
        "broken BACKOFF for 3s",
        "last error exit-code: exit code 3 [2J",
        "next start in 1s",
        "isolation unsandboxed",
        "restarts 4; generation 5",
        "calls 0 in flight, 0 in all",
        "tools 0",
        "command /bin/sh -c 'exit 3'",
        "directory /srv",
        "variables API_KEY, TZ",
        "log /var/broken.log",
        "wedged for 3s",
        "",
        "ended before",
        "AT REASON GENERATION STATUS",
        f"{render.moment(NOW - 3)} exit-code 5 exit code 3",
        f"{render.moment(NOW - 9)} signal 4 killed by SIGKILL",
        "",
        "its last words on stderr",
        "a",
        "[2Jb",
        "",
    ]


def test_a_running_server_shows_its_process_and_a_pool_each() -> None:
    one = InstanceStatus(
        key="time", generation=1, state="READY", since=NOW, pid=4711, supervised_pid=4700, uptime=190.0, rss=2**20
    )
    two = InstanceStatus(key="time@2", generation=1, state="STARTING", since=NOW)

    single = render.detail(
        ServerDetail(status=TIME, instances=(one,), server_name="clock", server_version="1.2"), None, NOW
    ).plain
    pool = render.detail(ServerDetail(status=TIME, instances=(one, two)), None, NOW).plain

    assert "pid         4711 (under 4700)\n" in single
    assert "uses        45.0 MiB, 1.2 s of CPU in 3m10s\n" in single
    assert "program     clock 1.2\n" in single
    assert "protocol    2025-11-25 (handshake)\n" in single
    assert "pid         time 4711, time@2 -\n" in pool
    assert "time@2    STARTING  -          -       -        -      0\n" in pool


def test_signs_of_life_and_the_last_events_are_shown() -> None:
    busy = InstanceStatus(
        key="time", generation=1, state="READY", since=NOW, pid=1, health="busy", silent=12.0, answered=40.0, missed=2,
        cpu_share=0.97,
    )  # fmt: skip
    timeline = (
        Event(seq=1, at=NOW - 60, server="time", instance="time", generation=1, old="INITIALIZING", new="READY"),
        Event(seq=2, at=NOW - 20, server="time", reason="it asks its clients for things"),
    )

    shown = render.detail(ServerDetail(status=TIME, instances=(busy,), timeline=timeline), None, NOW).plain

    assert (
        "health      busy, last byte 12s ago, last ping answered 40s ago, 2 pings missed, 97% of a processor\n" in shown
    )
    assert "lately\n" in shown
    assert "INITIALIZING → READY\n" in shown
    assert "it asks its clients for things\n" in shown


def test_only_the_end_of_a_long_stderr_is_shown() -> None:
    text = render.stderr_tail("".join(f"line {n}\n" for n in range(100))).plain

    assert text.split("\n")[0] == "    line 80"
    assert text.endswith("    line 99\n")


def test_events_and_gaps() -> None:
    at = render.moment(NOW, NOW)
    change = Event(seq=1, at=NOW, server="time", instance="time@2", old="READY", new="EXITED", reason="signal\n9")

    assert render.event(change, NOW).plain == f"{at}  time@2  READY → EXITED  signal 9\n"
    assert render.event(Event(seq=1, at=NOW, reason="reloaded"), NOW).plain == f"{at}  reloaded\n"
    assert render.event(Event(seq=1, at=NOW, server="a", new="READY", old="X"), NOW).plain == f"{at}  a  X → READY\n"
    assert render.event(Gap(missed=1), NOW).plain == "... 1 event left out ...\n"


def test_sessions() -> None:
    session = SessionStatus(
        id="0123abcd",
        principal="default",
        view="all",
        transport="streamable-http",
        since=NOW - 61,
        client_name="claude\x07",
        client_version="1.0",
        protocol="2025-11-25",
        idle=0.5,
        in_flight=2,
    )

    assert render.sessions([session], None, NOW).plain == (
        "ID        CLIENT       VIEW  TRANSPORT        PROTOCOL    PRINCIPAL  SINCE   IDLE  CALLS\n"
        "0123abcd  claude  1.0  all   streamable-http  2025-11-25  default    1m01s  500ms      2\n"
        "1 session\n"
    )
    assert render.sessions([], None, NOW).plain == "0 sessions\n"


def test_tools() -> None:
    tool = ToolStatus(server="time", name="now", public_name="time__now", description="\nThe time.\nIn a zone.")

    assert render.tools([tool], None).plain == (
        "SERVER  TOOL  PUBLIC NAME  DESCRIPTION\ntime    now   time__now    The time.\n1 tool\n"
    )


def test_a_reload_says_what_it_touched() -> None:
    report = ReloadReport(
        added=("a", "b"), removed=("c",), restarted=("d",), changed_live=("e",), unchanged=("f",), daemon=("port",)
    )

    assert render.reload_report(report).plain == (
        "added: a, b\nremoved: c\nrestarted: d\nchanged without a restart: e\nunchanged: 1 server\n"
        "counts after the daemon's own restart: port\n"
    )
    rotated = ReloadReport(restarted=("a", "b"), rotated={"a": ("github",), "b": ("x", "y")}, dry_run=True)
    assert render.reload_report(rotated).plain == (
        "would be restarted: a, b\n  a because of its secret github\n  b because of its secrets x, y\n"
    )
    assert render.reload_report(ReloadReport(added=("a",), dry_run=True)).plain == "would be added: a\n"
    assert render.reload_report(ReloadReport()).plain == "no server changed\n"
    assert render.reload_report(ReloadReport(dry_run=True)).plain == "no server changes\n"


def test_outcomes() -> None:
    good = render.outcome("time", Outcome(ok=True, state="READY"), 0.8, "")
    bad = render.outcome("time", Outcome(ok=False, state="FAILED", reason="exec: no such file"), 0.8, "oops\n")
    silent = render.outcome("time", Outcome(ok=False, state="STOPPED"), 0.8, "")

    assert good.plain == "time  READY  after 800ms\n"
    assert bad.plain == (
        "time  FAILED  exec: no such file\n  its last words on stderr:\n    oops\n"
        "  next: mcpctl status time, mcpctl logs time\n"
    )
    assert silent.plain.startswith("time  STOPPED  it did not work\n")


def daemon(**more: object) -> DaemonStatus:
    fields = {
        "version": "0.1.0",
        "pid": 1,
        "started_at": NOW,
        "uptime": 1.0,
        "registry": "/r.toml",
        "state_dir": "/s",
        "runtime_dir": "/r",
        "urls": ("http://127.0.0.1:6270",),
        "token_file": "/s/token",
    }
    return DaemonStatus(**(fields | more))  # type: ignore[arg-type]


def test_the_banner_names_the_tokens_place_and_not_the_token() -> None:
    assert render.daemon_banner(daemon(warnings=("not contained: no bwrap",))).plain == (
        "mcpd 0.1.0, pid 1, /r.toml\n"
        "  Streamable HTTP  http://127.0.0.1:6270/mcp\n"
        "  HTTP+SSE         http://127.0.0.1:6270/sse\n"
        "  bearer token     in /s/token\n"
        "  stdio            mcpctl connect\n"
        "  not contained: no bwrap\n"
    )
    assert "no token is asked for" in render.daemon_banner(daemon(token_file=None, auth="none")).plain


def test_what_to_do_next_depends_on_what_is_there() -> None:
    assert render.next_steps([TIME]).plain.split("\n")[1:4] == [
        f"  {'mcpctl list':<46}what runs",
        f"  {'mcpctl tools time':<46}what it can do",
        f"  {'mcpctl client-config claude-desktop --write':<46}let a client use them",
    ]
    assert "mcpctl logs broken" in render.next_steps([TIME, BROKEN]).plain
    assert render.settled(BROKEN).plain == "  broken           BACKOFF  exit-code: exit code 3 [2J\n"
    assert render.settled(TIME).plain == "  time             READY\n"
