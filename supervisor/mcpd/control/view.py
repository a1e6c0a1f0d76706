"""What operators see of the fleet and say to it: the values that cross the seam, and the JSON of the control socket.

Fields are only ever added, each with a default.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec


class ServerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One line of `mcpctl list`.

    `state` is one of the states of docs/lifecycle.md, in capitals. `since`: wall time (seconds since 1970) at which it
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
    """How an instance ended: `reason` as a `lifecycle.events.Result`, `status` for people ("exit status 3")."""

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

    `next_start`: seconds until the next try, in BACKOFF. `argv` is the server's own, without the sandbox's. `limits`:
    what bounds its process, and by what means ("memory": "512MiB by cgroup"); empty while none runs.
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
    limits: dict[str, str] = {}


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of an operator's command. `state`: the server's now; `reason` says why where `ok` is false."""

    ok: bool
    state: str
    reason: str = ""


class ReloadReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a reload changed, or with `dry_run` would change; the names are those of servers.

    `rotated`: servers that are restarted because secrets (these are their names) have other values now. `daemon`:
    settings that count only after the daemon's own restart. `problems`: what went wrong while it was carried out;
    `warnings`: what the registry gives to think of.
    """

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    restarted: tuple[str, ...] = ()
    changed_live: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    rotated: Mapping[str, tuple[str, ...]] = {}
    daemon: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    dry_run: bool = False


class Gap(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="gap"):
    """`missed` events before the next one are not to be had any more: too long ago, or their reader was too slow."""

    missed: int


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
    without tokens. `warnings`: what an operator should know ("not contained: bubblewrap cannot run here").

    `cgroups`: the control group below which servers get theirs; None: none, and `cgroups_reason` says why.
    """

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
    cgroups: str | None = None
    cgroups_reason: str = ""


class Upgrade(msgspec.Struct, frozen=True, kw_only=True):
    """Another version of a server's package, installed; `before` and `after` as they are written in the registry.

    `renewed`: it is the same version, installed anew because its files had been changed.
    """

    server: str
    before: str
    after: str
    sha256: str = ""
    renewed: bool = False


class IsolationStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What the kernel says of a server's process, beside the `profile` under which it was started.

    `missing`: what that promises and the process does not have. `known` is false where it could not be looked at.
    `limits` as in `ServerDetail`; `kernel_limits`: those of setrlimit(2) that the kernel has for it, None: without one.
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
    limits: dict[str, str] = {}
    kernel_limits: dict[str, int | None] = {}


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
    arguments_hmac: str = ""
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
    """One thing that is not as it was pinned, as canonical JSON. `kind`: tool, prompt, template or instructions, which
    have no `name`; `before` is None for what is new, `after` for what is gone."""

    kind: str
    name: str
    before: str | None = None
    after: str | None = None
