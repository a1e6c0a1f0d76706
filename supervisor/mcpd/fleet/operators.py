"""Smaller answers to operators: reload reports, sessions, what they should know."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import msgspec

from mcpd.clock import Clock
from mcpd.config.diff import LIVE_SETTINGS, Changes
from mcpd.config.registry import Registry
from mcpd.control.view import ReloadReport, SessionStatus
from mcpd.fleet.instance import Instance
from mcpd.fleet.relay import Relay
from mcpd.lifecycle.phases import Failed, Waiting
from mcpd.sandbox.policy import SandboxFacts
from mcpd.store.store import Store

RELOAD_PATIENCE = 5.0
"""How long a reload waits to tell what became of the servers that it touched."""
ID_SHOWN = 8


# -- Reload ----------------------------------------------------------------------------------------------------------


def in_effect(old: Registry, new: Registry) -> Registry:
    """`new` without the settings that count only after the daemon's own restart; until then each reload names them."""
    live = {key.removeprefix("frontdoor.") for key in LIVE_SETTINGS}
    frontdoor = old.frontdoor.model_copy(update={key: getattr(new.frontdoor, key) for key in live})
    return new.model_copy(update={"daemon": old.daemon, "sandbox": old.sandbox, "frontdoor": frontdoor})


def why_replaced(server: str, rotated: Mapping[str, Sequence[str]]) -> str:
    """What its instances are told. `rotated`: servers with names of secrets that have other values now."""
    names = rotated.get(server)
    return f"{_named(names)} changed" if names else "its entry in the registry changed"


def _named(secrets: Sequence[str]) -> str:
    return f"the secret{'s' if len(secrets) > 1 else ''} {', '.join(map(repr, secrets))}"


def report(
    changes: Changes,
    new: Registry,
    rotated: Mapping[str, tuple[str, ...]],
    problems: Sequence[str] = (),
    *,
    dry_run: bool = False,
) -> ReloadReport:
    """What a reload does; the registry's warnings are in it."""
    return ReloadReport(
        added=changes.added,
        removed=changes.removed,
        restarted=tuple(changes.restart),
        changed_live=tuple(changes.live),
        unchanged=changes.unchanged,
        rotated=rotated,
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
    parts += [f"{_named(names)} of {server} changed" for server, names in done.rotated.items()]
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


# -- What they should know -------------------------------------------------------------------------------------------


def warnings(registry: Registry, sandbox: SandboxFacts, store: Store | None) -> tuple[str, ...]:
    found = [f"not contained: {sandbox.reason}"] if sandbox.bwrap is None else []
    if sandbox.bwrap is not None and sandbox.weakness:
        found.append(f"servers that are to be contained do not start: {sandbox.weakness}")
    if store is not None:
        found += [text for text in (store.recovered, store.problem) if text]
    return (*found, *map(str, registry.warnings))
