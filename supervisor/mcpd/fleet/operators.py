"""Smaller answers to operators: reload reports, sessions, tools, a call by hand, what they should know."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
from msgspec import Raw

from mcpd.clock import Clock
from mcpd.config.diff import LIVE_SETTINGS, Changes
from mcpd.config.registry import Registry, ServerSpec
from mcpd.control.view import ReloadReport, SessionStatus, ToolStatus
from mcpd.errors import ClientFault
from mcpd.fleet.instance import Instance
from mcpd.fleet.relay import Relay
from mcpd.lifecycle.phases import Failed, Waiting
from mcpd.routing.correlation import allowed, shown_name
from mcpd.routing.names import public_name
from mcpd.sandbox.policy import SandboxFacts
from mcpd.store.store import Store
from mcpd.wire import jsonrpc, methods
from mcpd.wire.jsonrpc import WireError

RELOAD_PATIENCE = 5.0
"""How long a reload waits to tell what became of the servers that it touched."""
ID_SHOWN = 8


def launcher_path() -> str | None:
    """The program that starts script files; found without importing it, since it belongs to the workers."""
    found = importlib.util.find_spec("mcpworker")
    for folder in (found.submodule_search_locations or ()) if found is not None else ():
        candidate = Path(folder) / "launcher" / "__main__.py"
        if candidate.is_file():
            return str(candidate)
    return None


# -- Reload ----------------------------------------------------------------------------------------------------------


def in_effect(old: Registry, new: Registry) -> Registry:
    """`new` without the settings that count only after the daemon's own restart; until then each reload names them."""
    live = {key.removeprefix("frontdoor.") for key in LIVE_SETTINGS}
    frontdoor = old.frontdoor.model_copy(update={key: getattr(new.frontdoor, key) for key in live})
    return new.model_copy(update={"daemon": old.daemon, "sandbox": old.sandbox, "frontdoor": frontdoor})


def report(changes: Changes, new: Registry, problems: Sequence[str] = (), *, dry_run: bool = False) -> ReloadReport:
    """What a reload does; the registry's warnings are in it."""
    return ReloadReport(
        added=changes.added,
        removed=changes.removed,
        restarted=tuple(changes.restart),
        changed_live=tuple(changes.live),
        unchanged=changes.unchanged,
        daemon=changes.daemon,
        problems=tuple(problems),
        warnings=tuple(map(str, new.warnings)),
        dry_run=dry_run,
    )


def summary(done: ReloadReport) -> str:
    parts = [
        f"{what} {', '.join(names)}"
        for what, names in (
            ("added", done.added),
            ("removed", done.removed),
            ("restarting", done.restarted),
            ("changed", done.changed_live),
        )
        if names
    ]
    return f"registry reloaded: {'; '.join(parts) or 'no server changed'}"


async def with_failures(
    done: ReloadReport, instances: Sequence[Instance], replacing: Mapping[str, asyncio.Future[str]]
) -> ReloadReport:
    """`done`, with what went wrong with the servers that were touched, as far as that is known soon. `replacing` are
    those whose old instances serve until there are new ones."""
    names = {*done.added, *done.restarted, *done.changed_live}
    touched = [one for one in instances if one.spec.name in names]
    try:
        async with asyncio.timeout(RELOAD_PATIENCE):
            for one in touched:
                await one.settled()
            for problem in replacing.values():
                await asyncio.shield(problem)
    except TimeoutError:
        pass  # a slow start is no failure; events will tell
    failures = [
        f"servers.{one.spec.name}: {phase.exit}"
        for one in touched
        if isinstance(phase := one.machine.phase, Failed | Waiting)
    ]
    failures += [
        f"servers.{server}: {problem.result()}"
        for server, problem in replacing.items()
        if problem.done() and problem.result()
    ]
    return msgspec.structs.replace(done, problems=(*done.problems, *failures))


# -- Sessions and tools ----------------------------------------------------------------------------------------------


def sessions(relay: Relay, clock: Clock) -> list[SessionStatus]:
    """The open sessions, oldest first."""
    now, wall = clock.monotonic(), clock.wall()
    found = []
    for one in relay.sessions:
        name, version = one.client_info.get("name"), one.client_info.get("version")
        found.append(
            SessionStatus(
                id=one.id[:ID_SHOWN],
                principal=one.principal,
                view=str(one.view),
                transport=one.transport,
                since=wall - (now - one.opened_at),
                client_name=name if isinstance(name, str) else "",
                client_version=version if isinstance(version, str) else "",
                protocol=one.protocol_version,
                idle=max(0.0, now - one.used_at),
                in_flight=len(one.calls),
            )
        )
    return found


@dataclass(frozen=True, slots=True)
class _Tool:
    name: str
    description: str
    schema: Raw


def _tools_of(relay: Relay, server: str) -> Iterator[_Tool]:
    for entry in relay.tools(server):
        try:
            found = jsonrpc.members(entry)
            name = jsonrpc.text(found["name"])
            description = jsonrpc.value_of(found.get("description", Raw(b'""')))
        except (WireError, KeyError):
            continue  # it is in no catalogue either, and that was told
        yield _Tool(
            name, description if isinstance(description, str) else "", Raw(bytes(found.get("inputSchema", b"{}")))
        )


def tools(registry: Registry, relay: Relay, server: str) -> list[ToolStatus]:
    """The tools of one server that clients may use."""
    rules = registry.servers[server].tools
    return [
        ToolStatus(
            server=server,
            name=tool.name,
            public_name=public_name(server, shown_name(rules, tool.name), registry.frontdoor.separator),
            description=tool.description,
            input_schema=tool.schema,
        )
        for tool in _tools_of(relay, server)
        if allowed(rules, tool.name)
    ]


async def call(relay: Relay, spec: ServerSpec, tool: str, arguments: bytes, timeout: float) -> bytes:
    """Call a tool; see `FleetView.call`."""
    try:
        given = jsonrpc.pack(jsonrpc.members(arguments))
    except WireError as problem:
        raise ClientFault(f"the arguments are no JSON object: {problem}") from None
    if not allowed(spec.tools, tool):
        raise ClientFault(f"servers.{spec.name}.tools does not allow {tool!r}")
    known = [one.name for one in _tools_of(relay, spec.name)]
    if known and tool not in known:
        raise ClientFault(f"server {spec.name!r} has no tool {tool!r}; it has {', '.join(known)}")
    name = jsonrpc.dump(shown_name(spec.tools, tool))
    return await relay.call(spec.name, methods.TOOLS_CALL, b'{"name":%b,"arguments":%b}' % (name, given), timeout)


# -- What they should know -------------------------------------------------------------------------------------------


def warnings(registry: Registry, sandbox: SandboxFacts, store: Store | None) -> tuple[str, ...]:
    found = [f"not contained: {sandbox.reason}"] if sandbox.bwrap is None else []
    if store is not None:
        found += [text for text in (store.recovered, store.problem) if text]
    return (*found, *map(str, registry.warnings))
