"""What operators see of the fleet, and can ask of it: the seam between the control API and whoever runs the servers.

The structs are also the JSON of the control socket: fields are only ever added, each with a default. This module
imports nothing of ours, so that both sides of the seam may use it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal, Protocol

import msgspec


class ServerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One line of `mcpctl list`.

    `state` is one of the states of design section 8, in capitals. `since`: wall time (seconds since 1970) at which it
    was entered. What only a running instance has (`pid`, `rss` in bytes, `cpu` in seconds, `uptime` in seconds) is
    None without one; a pool gives the sums, and the pid of its first instance. `pid` is the server's own process as the
    host sees it, where that is known. `restarts` counts the starts that nobody asked for. `calls` are in flight now.
    `saved`: the memory in bytes that a lazy server which is IDLE used when it last ran.
    """

    name: str
    state: str
    since: float
    restarts: int = 0
    pid: int | None = None
    rss: int | None = None
    cpu: float | None = None
    uptime: float | None = None
    isolation: str = ""
    tools: int = 0
    calls: int = 0
    calls_total: int = 0
    era: str | None = None
    protocol: str | None = None
    generation: int = 0
    last_error: str | None = None
    enabled: bool = True
    activation: str = "eager"
    sharing: str = "shared"
    saved: int | None = None


class InstanceStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One process (tree) of a server; `supervised_pid` is the process that mcpd started (bwrap, or the server).

    `health` is what the signs of life say: starting, slow start, spare, alive, silent, busy, wedged; empty where no
    process runs. `silent`: seconds since its last byte; `answered`: since it last answered a ping; `missed`: pings
    without an answer since then; `cpu_share`: of a processor, between its last two missed pings.
    """

    key: str
    generation: int
    state: str
    since: float
    pid: int | None = None
    supervised_pid: int | None = None
    processes: int | None = None
    rss: int | None = None
    cpu: float | None = None
    uptime: float | None = None
    calls: int = 0
    oldest_call: float | None = None
    health: str = ""
    silent: float | None = None
    answered: float | None = None
    missed: int = 0
    cpu_share: float | None = None


class ExitRecord(msgspec.Struct, frozen=True, kw_only=True):
    """How an instance ended: `reason` in the words of design section 8, `status` for people ("exit status 3")."""

    at: float
    reason: str
    status: str = ""
    instance: str = ""
    generation: int = 0
    stderr_tail: str = ""


class Event(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="event", rename={"old": "from", "new": "to"}
):
    """A change of state: {seq, at, server, instance, generation, from, to, reason}.

    `seq` grows by one with each event, over the daemon's restarts too. What is worth telling but is no change of a
    state (a database set aside, a reload) has empty `old` and `new`, and its text in `reason`.
    """

    seq: int
    at: float
    server: str = ""
    instance: str = ""
    generation: int = 0
    old: str = ""
    new: str = ""
    reason: str = ""


class ServerDetail(msgspec.Struct, frozen=True, kw_only=True):
    """All that `mcpctl status NAME` shows. `exits` and `timeline` (its last events): newest last, bounded. `env`: names
    of variables, never values.

    `next_start`: seconds until the next try, in BACKOFF. `argv` is the server's own, without the sandbox's.
    """

    status: ServerStatus
    instances: tuple[InstanceStatus, ...] = ()
    exits: tuple[ExitRecord, ...] = ()
    argv: tuple[str, ...] = ()
    cwd: str = ""
    env: tuple[str, ...] = ()
    log: str = ""
    server_name: str | None = None
    server_version: str | None = None
    next_start: float | None = None
    stderr_tail: str = ""
    notes: tuple[str, ...] = ()
    timeline: tuple[Event, ...] = ()


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of an operator's command. `state`: the server's now; `reason` says why where `ok` is false."""

    ok: bool
    state: str
    reason: str = ""


class ReloadReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a reload changed, or with `dry_run` would change; the names are those of servers.

    `daemon`: settings that count only after the daemon's own restart. `problems`: what went wrong while it was carried
    out; `warnings`: what the registry gives to think of.
    """

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    restarted: tuple[str, ...] = ()
    changed_live: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    daemon: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    dry_run: bool = False


class Gap(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="gap"):
    """`missed` events before the next one are not to be had any more: too long ago, or their reader was too slow."""

    missed: int


class EventFeed(Protocol):
    """Events in their order: first those that are remembered, then each as it comes. A slow reader gets a `Gap`."""

    def take(self) -> list[Event | Gap]:
        """All that is there now, without waiting; iteration goes on behind it."""
        ...

    def __aiter__(self) -> AsyncIterator[Event | Gap]: ...

    async def __anext__(self) -> Event | Gap:
        """The next one; waits for it. Ends (StopAsyncIteration) after `close`, or when the daemon goes down."""
        ...

    def close(self) -> None:
        """The reader is gone; may be called twice."""
        ...


class SessionStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One client's conversation. `id`: only its first eight characters, since the whole would be a key to it.

    `since` is wall time, `idle` seconds since its last message.
    """

    id: str
    principal: str
    view: str
    transport: str
    since: float
    client_name: str = ""
    client_version: str = ""
    protocol: str | None = None
    idle: float = 0.0
    in_flight: int = 0


class ToolStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A tool: `name` is the server's own, `public_name` the one in the aggregate; `input_schema` is raw JSON."""

    server: str
    name: str
    public_name: str
    description: str = ""
    input_schema: msgspec.Raw = msgspec.Raw(b"{}")


class DaemonStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The daemon itself. `urls`: base URLs of the front door, as "http://127.0.0.1:6270"; `token_file` is None
    without tokens. `warnings`: what an operator should know ("not contained: bubblewrap cannot run here")."""

    version: str
    pid: int
    started_at: float
    uptime: float
    registry: str
    state_dir: str
    runtime_dir: str
    urls: tuple[str, ...] = ()
    auth: Literal["token", "none", "jwt"] = "token"
    token_file: str | None = None
    warnings: tuple[str, ...] = ()


class Upgrade(msgspec.Struct, frozen=True, kw_only=True):
    """Another version of a server's package, installed; `before` and `after` as they are written in the registry."""

    server: str
    before: str
    after: str
    sha256: str = ""


class IsolationStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What the kernel says of a server's process, beside the `profile` under which it was started.

    `missing`: what that promises and the process does not have. `known` is false where it could not be looked at.
    """

    server: str
    instance: str
    pid: int
    profile: str
    known: bool = True
    uid: int | None = None
    own_namespaces: tuple[str, ...] = ()
    shared_namespaces: tuple[str, ...] = ()
    capabilities: int = 0
    no_new_privileges: bool = False
    seccomp: str = ""
    writable: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


class TokenStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A named token of the front door; the token itself is kept nowhere. Times are wall time; `tools` are SERVER/TOOL.

    What it may use is None where nothing was named; all three are None for one that may use everything.
    """

    name: str
    created: float
    expires: float | None = None
    expired: bool = False
    servers: tuple[str, ...] | None = None
    views: tuple[str, ...] | None = None
    tools: tuple[str, ...] | None = None


class TokenRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A token that is wanted; `lifetime` in seconds, None: until it is revoked. `replace`: also if there is one."""

    name: str
    lifetime: float | None = None
    servers: tuple[str, ...] | None = None
    views: tuple[str, ...] | None = None
    tools: tuple[str, ...] | None = None
    replace: bool = False


class AuditLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One call that is over, as a line of the audit log. `at` is when it began (RFC 3339, UTC), `ms` how long it took.

    `server` is empty where the client may use none of that name; `name` is the server's own name of a tool or prompt,
    or the URI of a resource. `outcome`: ok, tool-error, error (the server's), refused, unavailable, overloaded,
    timeout, cancelled, client-left, no-input; `code` is that of an error of mcpd's. A line with `lost` says only that
    so many are missing.
    """

    at: str
    principal: str = ""
    session: str = ""
    transport: str = ""
    view: str = ""
    server: str = ""
    method: str = ""
    name: str = ""
    ms: float = -1.0
    outcome: str = ""
    code: int = 0
    arguments: msgspec.Raw = msgspec.Raw()
    arguments_sha256: str = ""
    arguments_bytes: int = 0
    lost: int = 0


class PinStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A server's pins. `policy`: warn, hold, allow. `seen`: whether this daemon knows what the server offers now."""

    server: str
    policy: str
    pinned: bool
    seen: bool
    tools: int = 0
    sha256: str = ""
    changed: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    instructions_changed: bool = False


class PinDifference(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is not as it was pinned, as canonical JSON; `tool` is empty for the instructions, `before` is None
    for what is new, `after` for what is gone."""

    tool: str
    before: str | None = None
    after: str | None = None


class PinDesk(Protocol):
    """Shows and approves pins; called on the event loop. An unknown server raises NotFound."""

    def pins(self) -> list[PinStatus]: ...

    def differences(self, server: str) -> list[PinDifference]: ...

    def approve(self, server: str) -> PinStatus:
        """Pin what the server offers now. Raises ClientFault if that is not known."""
        ...


class TokenDesk(Protocol):
    """Makes and revokes tokens; called on the event loop."""

    def list(self) -> list[TokenStatus]: ...

    def create(self, asked: TokenRequest) -> str:
        """The token, which is shown this once. Raises ClientFault for a name or a grant that cannot be."""
        ...

    def revoke(self, name: str) -> None:
        """Raises NotFound."""
        ...


class FleetView(Protocol):
    """Implemented by the fleet; called on the event loop. An unknown name of a server raises `errors.NotFound`.

    Commands for one server are carried out one after the other; a caller that is cancelled leaves the command going.
    """

    def servers(self) -> list[ServerStatus]:
        """All servers of the registry, in its order."""
        ...

    def server(self, name: str) -> ServerDetail: ...

    async def start(self, name: str) -> Outcome:
        """Returns when it is READY, or when it is known why it is not. Starting what runs is a success."""
        ...

    async def stop(self, name: str) -> Outcome:
        """Returns when nothing of it runs any more. Stopping what is stopped is a success."""
        ...

    async def restart(self, name: str) -> Outcome:
        """Stop, then start."""
        ...

    async def roll(self, name: str) -> Outcome:
        """Replace its instances one after the other, each old one serving until there is a new one that is READY. If
        that cannot be had the old ones go on, and `ok` is false. Where nothing of it serves: as `restart`."""
        ...

    async def reset_failed(self, name: str) -> Outcome:
        """Forget failures and the delay, and try again now where it is wanted."""
        ...

    async def reload(self, dry_run: bool) -> ReloadReport:
        """Read the registry again. Raises ConfigError if it cannot be used: then nothing is changed."""
        ...

    async def upgrade(self, name: str, version: str | None) -> Upgrade:
        """Install a version of a server's package beside the one that it has (None: the newest); change nothing else.

        Raises ClientFault (it has none), SpawnError.
        """
        ...

    async def prune(self, name: str | None) -> list[str]:
        """Remove installed packages that no server uses; with `name` just other versions of that server's.

        Returns which they were.
        """
        ...

    def isolation(self) -> list[IsolationStatus]:
        """Of each process that runs."""
        ...

    def events(self, after: int) -> EventFeed:
        """Events with `seq` greater than `after`; a negative `after` means the last `-after` of them."""
        ...

    def sessions(self) -> list[SessionStatus]: ...

    async def tools(self, name: str | None) -> list[ToolStatus]:
        """The tools of one server, or of all; a server that is down has those that are remembered."""
        ...

    async def call(self, name: str, tool: str, arguments: bytes, timeout: float) -> bytes:
        """Call a tool by its server's own name for it; `arguments` is a JSON object, returned is the raw result.

        Raises ClientFault (no such tool, bad arguments), ServerFault, CallTimeout, Overloaded.
        """
        ...

    def log_path(self, name: str) -> Path:
        """Where the server's stderr goes; the file need not be there yet. Rotated ones have `.1`, `.2` ... behind."""
        ...

    def daemon(self) -> DaemonStatus: ...

    def request_shutdown(self) -> None:
        """Begin the ordered shutdown; returns at once."""
        ...
