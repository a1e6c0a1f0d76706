"""One instance of a server: carries out what its machine asks for, and feeds it what happens.

The machine (`lifecycle.machine`) decides; here are the process, the timers and the tasks. Two processes of one
instance never run at the same time.
"""

from __future__ import annotations

import asyncio
import functools
import random
from collections import deque
from collections.abc import Callable, Coroutine
from typing import ParamSpec, Protocol, assert_never

import msgspec
import structlog

from mcpd.clock import Clock
from mcpd.config.registry import RestartPolicy, ServerSpec
from mcpd.errors import SpawnError
from mcpd.fleet.era import EraChoice, EraMemory
from mcpd.fleet.incarnation import Incarnation
from mcpd.fleet.place import Place, Role
from mcpd.fleet.relay import Relay
from mcpd.fleet.supplies import Supplies
from mcpd.fleet.vault import Handover, Marks, NoSecrets
from mcpd.lifecycle.backoff import BackoffPolicy
from mcpd.lifecycle.effects import (
    Admit,
    CancelLaunch,
    CancelTimer,
    Changed,
    Detach,
    Effect,
    End,
    Handshake,
    Launch,
    Record,
    Resume,
    SetTimer,
    Suspend,
)
from mcpd.lifecycle.events import Condemned, Event, Gone, Outlived, Result, Spawned, SpawnFailed, TimerFired
from mcpd.lifecycle.machine import Lifecycle
from mcpd.lifecycle.phases import Abandoned, Ended, Exit, Stopping
from mcpd.lifecycle.states import LIVE, SETTLED, Goal, IllegalTransition, State
from mcpd.process import descriptors
from mcpd.process.child import Child
from mcpd.process.launch import spawn
from mcpd.process.stop import Rung, StopLadder
from mcpd.routing.info import Lists

EXITS_KEPT = 20
SLOT_HELD = 5.0
"""A start slot is for the costly part of a start; a server that hangs in its handshake must not keep it."""
HURRY = StopLadder(stdin=0.0, term=0.5, kill=5.0)

P = ParamSpec("P")

_log = structlog.get_logger("mcpd.fleet")
_HEADING = {Goal.STOP: State.STOPPED, Goal.START: State.STARTING, Goal.DISABLE: State.DISABLED, Goal.REST: State.IDLE}


class Surroundings(Protocol):
    """What an instance needs of the fleet."""

    relay: Relay
    clock: Clock
    slots: asyncio.Semaphore
    version: str
    eras: EraMemory
    supplies: Supplies

    def start_task(self, work: Coroutine[object, object, None], name: str) -> asyncio.Task[None]: ...

    async def turn_of(self, instance: Instance) -> None:
        """Return when the servers that it comes after are up, or will not be soon."""

    def changed(self, instance: Instance, change: Changed) -> None:
        """Its state is another now."""


class PastExit(msgspec.Struct, frozen=True):
    """An incarnation that is over; `at` is wall time."""

    at: float
    instance: str
    exit: Exit
    generation: int
    stderr_tail: bytes


class Instance:
    """`post` is the only way in: an event is handled at once, with all effects, on the loop's thread.

    `key` is its own among all instances, also in the relay; `name` is what people call it: of one that is to replace
    another, that of the other.
    """

    def __init__(
        self, key: str, spec: ServerSpec, around: Surroundings, *, place: Place | None = None, name: str | None = None
    ) -> None:
        self.key = key
        self.name = name or key
        self.spec = spec
        self.place = place or Place(Role.LEARNER if spec.sharing == "session" else Role.SHARED)
        self.machine = Lifecycle(spec.restart, backoff_policy(spec), around.clock.monotonic())
        self.since = around.clock.wall()
        self.incarnation: Incarnation | None = None
        self.given: Marks | None = None
        """Of the secrets that its latest process was started with; empty if they could not be had the last time."""
        self._era = EraChoice(self.name, spec, around.eras)
        self.exits: deque[PastExit] = deque(maxlen=EXITS_KEPT)
        self._around = around
        self._inbox: deque[Event] = deque()
        self._launch_task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: set[asyncio.Future[None]] = set()
        self._closed = False

    @property
    def state(self) -> State:
        return self.machine.state

    @property
    def heading(self) -> State:
        """The state, or the one it is going to if somebody has decided that already."""
        match self.machine.phase:
            case Stopping(goal=goal) | Ended(goal=goal) | Abandoned(goal=goal) if goal is not Goal.POLICY:
                return _HEADING[goal]
            case phase:
                return phase.state

    def now(self) -> float:
        return self._around.clock.monotonic()

    def post(self, event: Event) -> None:
        """Handle an event; one that comes up while another is handled waits for its end."""
        self._inbox.append(event)
        if len(self._inbox) > 1:
            return
        while self._inbox:
            self._handle(self._inbox[0])
            self._inbox.popleft()

    def _handle(self, event: Event) -> None:
        if self._closed:
            return
        try:
            effects = self.machine.handle(event, random.random())  # noqa: S311 - spreads starts, keeps no secret
        except IllegalTransition as bug:
            _log.error("instance.bug", instance=self.key, problem=str(bug))
            return
        for effect in effects:
            try:
                self._carry_out(effect)
            except Exception as bug:  # noqa: BLE001 - callers are callbacks of the loop; the other effects still count
                _log.exception("instance.bug", instance=self.key, effect=type(effect).__name__)
                if self.state in LIVE:
                    self._inbox.append(Condemned(self.now(), Result.RESOURCES, f"internal error: {bug!r}"))

    def adopt(self, spec: ServerSpec) -> None:
        """Its entry is another; what the running process was given stays until it is started again."""
        self.spec = spec
        if self.place.role in (Role.SHARED, Role.LEARNER):
            self.place.role = Role.LEARNER if spec.sharing == "session" else Role.SHARED
        self._era.adopt(spec)
        self._adopt_rules()
        if self.incarnation is not None:
            self.incarnation.adopt(spec)

    def claim(self, party: str, capabilities: bytes, lists: Lists) -> None:
        """It was a spare, and now serves this party alone: once, since what it knew is gone with its process."""
        self.place.give(party, capabilities, lists)
        self._adopt_rules()
        if self.incarnation is not None and self.state is State.INITIALIZING:
            self.incarnation.begin(self._around.version)

    def _adopt_rules(self) -> None:
        restart = RestartPolicy.NO if self.place.role is Role.OWN else self.spec.restart
        self.machine.adopt(restart, backoff_policy(self.spec))

    def masked(self, text: str) -> str:
        """`text` without the secrets of its process."""
        return self.incarnation.mask.text(text) if self.incarnation is not None else text

    async def until(self, fact: Callable[[], bool]) -> None:
        """Return when `fact()` is true; it is looked at after each change of state."""
        while not fact():
            waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.add(waiting)
            try:
                await waiting
            finally:
                self._waiting.discard(waiting)

    async def settled(self) -> State:
        """Wait until what is under way has come to something; every state on the way is bounded in time."""
        await self.until(lambda: self.state in SETTLED)
        return self.state

    def hurry(self) -> None:
        """There is no time left for a drain or a patient stop, neither for one under way nor for one to come."""
        if self.incarnation is not None:
            self.incarnation.patient = False
            if self.state not in LIVE:
                self._start("hurry", self._hurried, self.incarnation)

    def close(self) -> Child | None:
        """The daemon is being torn down: nothing is handled any more. Returns what may still run."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self.incarnation is None:
            return None
        self.incarnation.detach("the daemon is stopping")
        return self.incarnation.child

    # -- Effects -----------------------------------------------------------------------------------------------------

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case Launch(generation):
                self._launch_task = self._start("start", self._launch, generation)
            case CancelLaunch():
                assert self._launch_task is not None
                self._launch_task.cancel()
            case Handshake():
                self._running().begin(self._around.version)
            case Admit():
                self._running().admit()
            case Suspend():
                self._running().suspend()
            case Resume():
                self._running().resume()
            case Detach(why):
                self._running().detach(why)
            case End(drain):
                incarnation = self._running()
                if drain:
                    incarnation.leave()
                self._start("stop", self._end, incarnation, drain)
            case Record(exit, generation):
                self._record(exit, generation)
            case SetTimer(at):
                self._timer = asyncio.get_running_loop().call_later(max(0.0, at - self.now()), self._timer_fired)
            case CancelTimer():
                if self._timer is not None:
                    self._timer.cancel()
            case Changed():
                self._tell(effect)
            case _ as missed:
                assert_never(missed)

    def _running(self) -> Incarnation:
        assert self.incarnation is not None
        return self.incarnation

    def _timer_fired(self) -> None:
        self._timer = None
        self.post(TimerFired(self.now()))

    def _tell(self, change: Changed) -> None:
        self.since = self._around.clock.wall()
        self._around.changed(self, change)
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)

    def _record(self, exit: Exit, generation: int) -> None:
        tail = b""
        if self.incarnation is not None:
            tail = self.incarnation.child.stderr_tail
            self.incarnation = None
        self.exits.append(PastExit(self._around.clock.wall(), self.name, exit, generation, tail))
        self._around.supplies.log_of(self.spec.name).note(f"{self.name} ended: {exit}")

    # -- Tasks -------------------------------------------------------------------------------------------------------

    async def _launch(self, generation: int) -> None:
        await self._around.turn_of(self)
        try:
            given = await self._prepare()
        except SpawnError as refused:
            if isinstance(refused, NoSecrets):
                self.given = {}
            self.post(SpawnFailed(self.now(), Result(refused.result), str(refused)))
            return
        async with self._around.slots:
            event = self._spawn(generation, given)
            self.post(event)
            try:
                async with asyncio.timeout(SLOT_HELD):
                    await self.until(lambda: self.state is not State.INITIALIZING or self.place.role is Role.SPARE)
            except TimeoutError:
                return

    async def _prepare(self) -> Handover:
        """Installing takes as long as it takes, so no start slot is held; the entry may be another afterwards."""
        while True:
            prepared = self.spec
            given = await self._around.supplies.prepare(prepared)
            if prepared is self.spec:
                return given

    def _spawn(self, generation: int, given: Handover) -> Spawned | SpawnFailed:
        """Start the process, or say why not. Nothing is awaited in here, so no process can be without its state.

        A change of `env` while it waited for its turn would have begun the launch anew.
        """
        around = self._around
        try:
            descriptors.check_left()
            plan = around.supplies.plan(self.spec, given)
            incarnation = Incarnation(
                self.key,
                self.spec,
                self.place,
                generation,
                relay=around.relay,
                clock=around.clock,
                log=around.supplies.log_of(self.spec.name),
                mask=given.mask,
                isolation=plan.isolation,
                era=self._era,
                post=self.post,
                tasks=around.start_task,
            )
            incarnation.child = spawn(plan, incarnation, around.supplies.log_of(self.spec.name), mask=given.mask)
        except SpawnError as refused:
            return SpawnFailed(self.now(), Result(refused.result), str(refused))
        self.incarnation, self.given = incarnation, given.marks
        return Spawned(self.now())

    async def _end(self, incarnation: Incarnation, drain: bool) -> None:
        if drain:
            await incarnation.drained()
        ladder = StopLadder.of(incarnation.spec.stop_timeout) if incarnation.patient else HURRY
        outcome = await incarnation.child.stop(ladder)
        if outcome.rung is Rung.ABANDONED:
            text = f"{outcome.left} of its processes outlived SIGKILL (process {incarnation.child.pid})"
            self.post(Outlived(self.now(), text))
        else:
            self.post(Gone(self.now(), forced=outcome.rung is Rung.KILLED))

    async def _hurried(self, incarnation: Incarnation) -> None:
        """Make a stop under way faster; what it comes to is told to whoever began it."""
        await incarnation.child.stop(HURRY)

    def _start(
        self, what: str, work: Callable[P, Coroutine[object, object, None]], *args: P.args, **named: P.kwargs
    ) -> asyncio.Task[None]:
        return self._around.start_task(
            self._guarded(what, functools.partial(work, *args, **named)), f"{what}:{self.key}"
        )

    async def _guarded(self, what: str, work: Callable[[], Coroutine[object, object, None]]) -> None:
        """An error of mcpd's own costs this instance, not its neighbours."""
        try:
            await work()
        except Exception as bug:  # noqa: BLE001 - whatever it is, it must not end the group that all tasks share
            _log.exception("instance.bug", instance=self.key, task=what)
            if self.state is State.STARTING:
                self.post(SpawnFailed(self.now(), Result.RESOURCES, f"internal error: {bug!r}"))
            elif self.state in (State.STOPPING, State.EXITED, State.ABANDONED):
                self.post(Outlived(self.now(), f"internal error while it was stopped: {bug!r}"))


def backoff_policy(spec: ServerSpec) -> BackoffPolicy:
    """A server's rules for starting it again."""
    return BackoffPolicy(
        delay=spec.restart_delay,
        max_delay=spec.restart_max_delay,
        steps=spec.restart_steps,
        stable_after=spec.stable_after,
        burst=spec.start_limit_burst,
        interval=spec.start_limit_interval,
        action=spec.start_limit_action,
    )
