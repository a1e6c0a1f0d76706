"""Replaces instances that serve by new ones, one after the other, so that no call notices.

The new one is started beside the old one; once it is READY it has the new calls, and the old one is drained and
stopped. If the new one does not become READY, the old one goes on.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Coroutine, Sequence
from typing import Final, Protocol

import msgspec
import structlog

from mcpd.fleet.instance import Instance, Surroundings
from mcpd.fleet.place import Place, Role
from mcpd.lifecycle.events import Restart, Start, Stop
from mcpd.lifecycle.states import HELD, State

_UP: Final = frozenset({State.READY, State.NOT_READY})
_HOPELESS: Final = frozenset({State.FAILED, State.STOPPED, State.DISABLED, State.IDLE, State.ABANDONED})
_FAILING: Final = _HOPELESS | {State.BACKOFF}

_log = structlog.get_logger("mcpd.fleet")


class Host(Surroundings, Protocol):
    """The fleet, which owns every instance, as a replacement needs it."""

    instances: dict[str, Instance]

    def is_running(self) -> bool: ...
    def tell(self, server: str, text: str) -> None: ...
    def start_task(self, work: Coroutine[object, object, None], name: str) -> asyncio.Task[None]: ...


class _Order(msgspec.Struct, frozen=True):
    """What `Rolling.begin` was asked for; `told` is its result."""

    server: str
    olds: tuple[Instance, ...]
    why: str
    patient: bool
    told: asyncio.Future[str]


class Rolling:
    """At most one replacement a server is under way; another takes the place of an earlier one."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._numbers = itertools.count(1)

    def begin(self, server: str, olds: Sequence[Instance], why: str, *, patient: bool) -> asyncio.Future[str]:
        """Replace these instances of a server; comes to an empty text, or to why old ones go on.

        `patient`: a new one that fails is tried again as long as its restart policy says, the old one serves meanwhile,
        and the result tells of the first failure.
        """
        self.cancel(server)
        told: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        order = _Order(server, tuple(olds), why, patient, told)
        self._tasks[server] = self._host.start_task(self._guarded(order), f"replace:{server}")
        return told

    def cancel(self, server: str) -> None:
        """Something else is wanted of it now. What was replaced stays so; what is half begun is stopped."""
        task = self._tasks.pop(server, None)
        if task is not None:
            task.cancel()

    async def _guarded(self, order: _Order) -> None:
        result = "something else was asked of it meanwhile"
        try:
            result = await self._replace_all(order)
        except Exception as bug:  # noqa: BLE001 - whatever it is, it must not end the group that all tasks share
            _log.exception("instance.bug", server=order.server, task="replace")
            result = f"internal error: {bug!r}"
        finally:
            if self._tasks.get(order.server) is asyncio.current_task():
                del self._tasks[order.server]
            if not order.told.done():
                order.told.set_result(result)

    async def _replace_all(self, order: _Order) -> str:
        for old in order.olds:
            if not self._host.is_running():
                return "the daemon is stopping"
            if old.heading not in _UP:
                old.post(Restart(old.now(), order.why))
                await old.settled()
            elif problem := await self._replace(old, order):
                return problem
        return ""

    async def _replace(self, old: Instance, order: _Order) -> str:
        new = self._successor(old)
        try:
            new.post(Start(new.now(), why=order.why))
            await new.until(lambda: new.state in _UP | _FAILING)
            if new.state in _FAILING:
                problem = f"{new.machine.last_exit or 'it was stopped'}; generation {old.machine.generation} goes on"
                self._host.tell(order.server, f"{new.name} could not be replaced: {problem}")
                if not order.patient:
                    return problem
                order.told.set_result(problem)
                await new.until(lambda: new.state in _UP | _HOPELESS)
            if new.state in _HOPELESS:
                return "no new one could be started"
            self._swap(old, new)
            await old.until(lambda: old.state not in HELD - {State.ABANDONED})
            return ""
        finally:
            if new.place.role is Role.SUCCESSOR:
                self._drop(new)

    def _successor(self, old: Instance) -> Instance:
        key = f"{old.name}~{next(self._numbers)}"
        new = Instance(key, old.spec, self._host, place=Place(Role.SUCCESSOR), name=old.name)
        namesakes = [one for one in self._host.instances.values() if one.name == old.name]
        new.machine.generation = max(one.machine.generation for one in namesakes)
        new.machine.restarts = old.machine.restarts
        self._host.instances[key] = new
        return new

    def _swap(self, old: Instance, new: Instance) -> None:
        """The new one is the server's now, and the old one takes no more calls."""
        old.place.role, new.place.role = Role.RETIRED, Role.SHARED
        new.exits.extendleft(reversed(old.exits))
        old.exits.clear()
        old.post(Stop(old.now(), f"replaced by generation {new.machine.generation}"))

    def _drop(self, new: Instance) -> None:
        new.place.role = Role.RETIRED
        if new.state not in _HOPELESS:
            new.post(Stop(new.now(), "its predecessor goes on"))
