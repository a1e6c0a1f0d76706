"""What operators are shown of instances: values for `control.view`, built when they are asked for."""

from __future__ import annotations

from collections.abc import Sequence

from mcpd.clock import Clock
from mcpd.config.registry import ServerSpec
from mcpd.control.view import Event, ExitRecord, InstanceStatus, ServerDetail, ServerStatus
from mcpd.errors import SpawnError
from mcpd.fleet.incarnation import Incarnation
from mcpd.fleet.instance import Instance, PastExit
from mcpd.fleet.place import Role
from mcpd.fleet.relay import Relay
from mcpd.lifecycle.events import Result
from mcpd.lifecycle.health import Life
from mcpd.lifecycle.phases import Abandoned, Failed, Initializing, NotReady, Waiting
from mcpd.lifecycle.states import State
from mcpd.process.usage import Usage
from mcpd.sandbox.policy import command
from mcpd.wire import jsonrpc
from mcpd.wire.jsonrpc import WireError

SLOW_START = 5.0

TIMELINE = 12
_HEALTH = {
    Life.ALIVE: "alive",
    Life.BUSY: "busy",
    Life.SUSPECT: "silent",
    Life.DEAD: "wedged",
    Life.WEDGED: "wedged",
}
_BEST_FIRST = (
    State.READY,
    State.NOT_READY,
    State.INITIALIZING,
    State.STARTING,
    State.STOPPING,
    State.EXITED,
    State.BACKOFF,
    State.ABANDONED,
    State.FAILED,
    State.IDLE,
    State.STOPPED,
    State.DISABLED,
)
"""A pool is shown in the best state that any of its instances is in."""


def server_status(
    spec: ServerSpec,
    instances: Sequence[Instance],
    relay: Relay,
    clock: Clock,
    isolation: str,
    *,
    usable: bool = False,
    saved: int | None = None,
) -> ServerStatus:
    """One line of the list. `instances` are those of one server, at least one. `usable`: sessions get instances of it
    for themselves, so it is READY although none may run."""
    named = [one for one in instances if one.place.role not in (Role.SPARE, Role.OWN)] or instances
    shown = min(named, key=lambda one: _BEST_FIRST.index(one.state))
    running = [one.incarnation for one in instances if one.incarnation is not None]
    usage = [one.child.usage() for one in running]
    info = next((one.info for one in running if one.info is not None), None)
    return ServerStatus(
        name=spec.name,
        state=State.READY.value if usable else shown.state.value,
        since=shown.since,
        restarts=sum(one.machine.restarts for one in instances),
        pid=_pid(running[0]) if running else None,
        rss=sum(one.rss for one in usage) if usage else None,
        cpu=sum(one.cpu_seconds for one in usage) if usage else None,
        uptime=max(clock.wall() - one.started_at for one in running) if running else None,
        isolation=running[0].isolation if running else isolation,
        tools=len(relay.tools(spec.name)),
        calls=sum(relay.in_flight(one.key) for one in instances),
        calls_total=relay.calls_total(spec.name),
        era=info.era.value if info is not None else None,
        protocol=info.protocol_version if info is not None else None,
        generation=max(one.machine.generation for one in instances),
        last_error=last_error(shown),
        enabled=spec.enabled,
        activation=spec.activation,
        sharing=spec.sharing,
        saved=saved,
    )


def server_detail(
    status: ServerStatus,
    spec: ServerSpec,
    instances: Sequence[Instance],
    relay: Relay,
    clock: Clock,
    log: str,
    timeline: Sequence[Event] = (),
) -> ServerDetail:
    """All that is known of one server; secrets are not."""
    exits = sorted((_exit_record(past) for one in instances for past in one.exits), key=lambda record: record.at)
    running = [one.incarnation for one in instances if one.incarnation is not None]
    name, version = _server_info(running)
    return ServerDetail(
        status=status,
        instances=tuple(_instance_status(one, relay, clock) for one in instances),
        exits=tuple(exits),
        argv=_argv(spec),
        cwd=str(spec.cwd),
        env=tuple(spec.env),
        log=log,
        server_name=name,
        server_version=version,
        next_start=min((wait for one in instances if (wait := _next_start(one)) is not None), default=None),
        stderr_tail=_text(running[0].child.stderr_tail) if running else exits[-1].stderr_tail if exits else "",
        notes=tuple(note for one in instances for note in _notes(one, relay)),
        timeline=tuple(timeline),
        limits=dict(running[0].child.limits.in_force) if running else {},
    )


def last_error(instance: Instance) -> str | None:
    """Why it is not what it should be, or how it last ended if that was not in order."""
    match instance.machine.phase:
        case NotReady(why=why):
            return why
        case Waiting(exit=exit) | Failed(exit=exit) | Abandoned(exit=exit):
            return str(exit)
    last = instance.machine.last_exit
    return str(last) if last is not None and last.result is not Result.SUCCESS else None


def _instance_status(instance: Instance, relay: Relay, clock: Clock) -> InstanceStatus:
    incarnation = instance.incarnation
    usage = incarnation.child.usage() if incarnation is not None else Usage()
    oldest = relay.oldest_call(instance.key)
    return InstanceStatus(
        key=instance.name,
        generation=instance.machine.generation,
        state=instance.state.value,
        since=instance.since,
        pid=_pid(incarnation) if incarnation is not None else None,
        supervised_pid=incarnation.child.pid if incarnation is not None else None,
        processes=usage.processes if incarnation is not None else None,
        rss=usage.rss if incarnation is not None else None,
        cpu=usage.cpu_seconds if incarnation is not None else None,
        uptime=clock.wall() - incarnation.started_at if incarnation is not None else None,
        calls=relay.in_flight(instance.key),
        oldest_call=clock.monotonic() - oldest if oldest is not None else None,
        health=health(instance) if incarnation is not None else "",
        silent=incarnation.vitals.silent if incarnation is not None else None,
        answered=_age(clock, incarnation.vitals.answered_at) if incarnation is not None else None,
        missed=incarnation.vitals.missed if incarnation is not None else 0,
        cpu_share=incarnation.vitals.cpu_share if incarnation is not None else None,
    )


def health(instance: Instance) -> str:
    """What the signs of life of a process say, in a word; see `InstanceStatus`."""
    phase, incarnation = instance.machine.phase, instance.incarnation
    if incarnation is None:
        return ""
    if isinstance(phase, Initializing):
        if incarnation.is_spare:
            return "spare"
        return "slow start" if instance.now() - phase.since > SLOW_START else "starting"
    return _HEALTH[incarnation.vitals.life]


def _evidence(instance: Instance, relay: Relay) -> str | None:
    """Why its health is what it is, where that is worth telling."""
    incarnation = instance.incarnation
    if incarnation is None or incarnation.vitals.life not in (Life.BUSY, Life.SUSPECT):
        return None
    calls = relay.in_flight(instance.key)
    found = [f"{incarnation.vitals.missed} pings without an answer", f"no byte for {incarnation.vitals.silent:.0f} s"]
    if incarnation.vitals.cpu_share is not None:
        found.append(f"{incarnation.vitals.cpu_share:.0%} of a processor")
    if calls:
        found.append(f"{calls} calls in flight, which may take {instance.spec.call_timeout:g} s")
    return f"{instance.name}: {health(instance)}: {', '.join(found)}"


def _age(clock: Clock, at: float | None) -> float | None:
    return clock.monotonic() - at if at is not None else None


def _exit_record(past: PastExit) -> ExitRecord:
    return ExitRecord(
        at=past.at,
        reason=past.exit.result.value,
        status=past.exit.text,
        instance=past.instance,
        generation=past.generation,
        stderr_tail=_text(past.stderr_tail),
    )


def _next_start(instance: Instance) -> float | None:
    phase = instance.machine.phase
    return max(0.0, phase.until - instance.now()) if isinstance(phase, Waiting) else None


def _notes(instance: Instance, relay: Relay) -> list[str]:
    notes = []
    incarnation = instance.incarnation
    if incarnation is not None and incarnation.vitals.meter.total:
        notes.append(
            f"{instance.name}: {incarnation.vitals.meter.total} lines on stdout were no messages; they are in its log"
        )
    if (evidence := _evidence(instance, relay)) is not None:
        notes.append(evidence)
    phase = instance.machine.phase
    if isinstance(phase, Waiting) and phase.limited:
        notes.append(f"{instance.name}: the start limit is hit; it is tried at the longest delay")
    if isinstance(phase, Initializing) and (waited := instance.now() - phase.since) > SLOW_START:
        limit = instance.spec.start_timeout
        notes.append(f"{instance.name}: slow start: initialising for {waited:.0f} s (start_timeout {limit:g} s)")
    if instance.state is State.STARTING and instance.spec.after:
        notes.append(f"{instance.name}: may be waiting for {', '.join(instance.spec.after)}")
    return notes


def _argv(spec: ServerSpec) -> tuple[str, ...]:
    if spec.package is not None:
        return (str(spec.package), *spec.args)
    try:
        return command(spec, None)
    except SpawnError:
        return (str(spec.python), f"{spec.script.file}:{spec.script.object}", *spec.args) if spec.script else ()


def _server_info(running: Sequence[Incarnation]) -> tuple[str | None, str | None]:
    """Name and version that the server gave itself at `initialize`."""
    info = next((one.info for one in running if one.info is not None), None)
    if info is None:
        return None, None
    try:
        found = jsonrpc.value_of(info.server_info)
    except WireError:
        return None, None
    if not isinstance(found, dict):
        return None, None
    name, version = found.get("name"), found.get("version")
    return name if isinstance(name, str) else None, version if isinstance(version, str) else None


def _pid(incarnation: Incarnation) -> int | None:
    return incarnation.child.server_pid or incarnation.child.pid


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")
