"""One process of an instance, from its start to its end: what it says becomes events of the instance's life.

It owns the child, mcpd's own requests to it, its health and its place in the relay. Whether it is to live is not
decided here: it reports, and is told.
"""

from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import Callable, Coroutine
from dataclasses import replace
from enum import Enum, auto
from typing import ParamSpec

import structlog

from mcpd.clock import Clock
from mcpd.config.registry import ServerSpec
from mcpd.errors import CallTimeout, Overloaded, ServerFault
from mcpd.fleet import probes
from mcpd.fleet.calls import ErrorAnswer, OwnCalls
from mcpd.fleet.era import EraChoice
from mcpd.fleet.handshake import Lobby, discover, fetch_lists, shake_hands
from mcpd.fleet.link import InstanceLink
from mcpd.fleet.place import Place, Role
from mcpd.fleet.relay import Relay
from mcpd.fleet.tasks import Tasks
from mcpd.fleet.vitals import Vitals
from mcpd.lifecycle.events import Condemned, Event, Exited, Initialized, Result, WrongEra
from mcpd.process.child import Child
from mcpd.process.exits import ExitStatus
from mcpd.process.mask import Mask
from mcpd.process.stderr import StderrLog
from mcpd.routing.info import ListKind, ServerInfo
from mcpd.wire import jsonrpc, methods
from mcpd.wire.eras import Era
from mcpd.wire.jsonrpc import Message
from mcpd.wire.lines import MAX_LINE

BROKEN_GRACE = 0.1
"""A process that ends closes its stdin a moment before its end is known; only one that lives on "closed its stdin"."""
REFETCH_DELAY = 0.05
"""List changes come in bursts; they are collected for this long."""
REFETCH_DELAY_MAX = 5.0
REFETCH_QUIET = 10.0
"""Some servers say that their lists changed whenever these are asked for: each fetch soon after another waits twice as
long."""
REFETCH_TIMEOUT = 30.0
SLOWEST_DRAIN_LOOK = 0.05

P = ParamSpec("P")

_ID = re.compile(rb'"id"\s*:\s*([0-9]{1,18})\s*[,}]')
_log = structlog.get_logger("mcpd.fleet")
_KINDS: dict[str, tuple[ListKind, ...]] = {
    "tools": ("tools",),
    "prompts": ("prompts",),
    "resources": ("resources", "templates"),
}


class _Stage(Enum):
    LOBBY = auto()  # only mcpd speaks with it
    SERVING = auto()
    LEAVING = auto()  # in the relay still, for the calls that it has; its health does not matter any more
    GONE = auto()


class Incarnation:
    """A `process.child.ChildEvents`; `child` is set by whoever started it, before the loop goes on."""

    child: Child

    def __init__(
        self,
        key: str,
        spec: ServerSpec,
        place: Place,
        generation: int,
        *,
        relay: Relay,
        clock: Clock,
        log: StderrLog,
        mask: Mask,
        isolation: str,
        era: EraChoice,
        post: Callable[[Event], None],
        tasks: Tasks,
    ) -> None:
        self.key = key
        self.spec = spec
        self._place = place
        self.generation = generation
        self.isolation = isolation
        self.era = era.asked
        self._era = era
        self.info: ServerInfo | None = None
        self.started_at = clock.wall()
        self._relay = relay
        self._clock = clock
        self.mask = mask
        """Of its secrets: what it says is shown nowhere but through this, clients' answers aside."""
        self._log = log
        self._post = post
        self._start = tasks
        self._tasks: set[asyncio.Task[None]] = set()
        self._timers: set[asyncio.TimerHandle] = set()
        self.vitals = Vitals(
            key,
            spec,
            relay=relay,
            clock=clock,
            cpu=lambda: self.child.usage().cpu_seconds,
            post=post,
            later=self._later,
        )
        self._calls = OwnCalls(self._offer)
        self._lobby = Lobby(
            self._calls, spec.roots, noise=self.noise_frame, stale=self.list_changed, said=self.server_said
        )
        self._receive: Callable[[bytes], None] = self._lobby.receive
        self.patient = True
        """Whether its stop may take the time that its entry gives it."""
        self._stage = _Stage.LOBBY
        self._stale: set[str] = set()
        self._refetching = False
        self._refetch_delay = REFETCH_DELAY
        self._refetched_at = float("-inf")

    @property
    def is_spare(self) -> bool:
        """Whether it waits to be claimed."""
        return self._place.role is Role.SPARE

    # -- Told by the process -----------------------------------------------------------------------------------------

    def frame(self, frame: bytes) -> None:
        self.vitals.last_byte = self._clock.monotonic()
        self._receive(frame)

    def noise(self, kind: str, sample: bytes) -> None:
        self.vitals.last_byte = self._clock.monotonic()
        self._log.noise(b"[%b line] %b" % (kind.encode(), self.mask.beginning(sample)))
        if kind == "overlong":
            self._answer_for(sample)
        self.vitals.noise(overlong=kind == "overlong")

    def noise_frame(self, frame: bytes) -> None:
        """A line that is no message, or one that nobody asked for."""
        self._log.noise(self.mask.apply(frame))
        self.vitals.noise()

    def stdout_closed(self) -> None:
        self._condemn(Result.PROTOCOL, "it closed its stdout and lives on")

    def stdin_broken(self) -> None:
        self._relay.drain(self.key)  # most often it has just died: new calls wait for the next process
        self._later(BROKEN_GRACE, functools.partial(self._condemn, Result.PROTOCOL, "it closed its stdin and lives on"))

    def exited(self, status: ExitStatus) -> None:
        self._post(Exited(self._clock.monotonic(), Result(status.result), str(status)))

    # -- Told by the instance ----------------------------------------------------------------------------------------

    def begin(self, version: str) -> None:
        """The process runs: speak with it. Initialized or Condemned is posted in the end. A spare is told nothing
        before somebody claims it: then this is called again."""
        if self._place.role is not Role.SPARE:
            self._run("handshake", self._initialize, version)

    def admit(self) -> None:
        """The handshake is done: it may have calls."""
        assert self.info is not None
        if self._place.role is Role.LEARNER:
            return
        link = InstanceLink(
            key=self.key,
            server=self.spec.name,
            generation=self.generation,
            offer=self.child.offer,
            own_answer=self._own_answer,
            noise=self.noise_frame,
            info=self.info,
            party=self._place.party,
        )
        self._stage = _Stage.SERVING
        self._receive = self._relay.attach(link)
        self._watch()
        self.vitals.begin()
        if self._stale:
            self._refetch_soon()

    def suspend(self) -> None:
        """No new calls for now."""
        self.vitals.suspended = True
        self._relay.drain(self.key)

    def resume(self) -> None:
        self.vitals.suspended = False
        self._relay.resume(self.key)

    def adopt(self, spec: ServerSpec) -> None:
        """Its entry changed in ways that the process does not see."""
        self.spec = spec
        if self.vitals.adopt(spec):
            self._cancel("liveness", "readiness")
            self._watch()

    def leave(self) -> None:
        """It is about to be stopped: no new calls, and nobody asks how it is."""
        self._stop_tasks()
        self.vitals.end()
        if self._stage is _Stage.SERVING:
            self._stage = _Stage.LEAVING
            self._relay.drain(self.key)

    async def drained(self) -> None:
        """Return when no client waits for an answer, when it has exited, or after `drain_timeout`.

        A call that its client has cancelled need never be answered (2025-11-25 cancellation, "behavior requirements").
        """
        deadline = self._clock.monotonic() + self.spec.drain_timeout
        pause = 0.001
        while (
            self._stage is _Stage.LEAVING
            and self.patient
            and self.child.status is None
            and self._relay.oldest_call(self.key) is not None
            and self._clock.monotonic() < deadline
        ):
            await asyncio.sleep(pause)
            pause = min(pause * 2, SLOWEST_DRAIN_LOOK)

    def detach(self, why: str) -> None:
        """It answers nothing any more; may be called twice."""
        was_in_relay = self._stage in (_Stage.SERVING, _Stage.LEAVING)
        self._stage = _Stage.GONE
        self._receive = self._ignore
        self._stop_tasks()
        self.vitals.end()
        self._calls.close(why)
        if was_in_relay:
            self._relay.detach(self.key, why)

    # -- Told by the relay -------------------------------------------------------------------------------------------

    def list_changed(self, kind: str) -> None:
        """One of its lists is not what it was (`kind`: tools, prompts, resources)."""
        if self._place.role is Role.OWN:
            return  # what it offers its session is no news for others
        self._stale.add(kind)
        if self._stage is _Stage.SERVING:
            self._refetch_soon()

    def server_said(self, frame: bytes) -> None:
        """A log message that belongs to no session."""
        self._log.write(b"[message] " + self.mask.apply(frame) + b"\n")

    # -- In here -----------------------------------------------------------------------------------------------------

    def _offer(self, frame: bytes) -> bool:
        return self.child.offer(frame)

    def _own_answer(self, message: Message) -> None:
        self._calls.answer(message)  # one that comes too late is nobody's

    def _ignore(self, frame: bytes) -> None:
        """What it says while it is ended interests nobody."""

    async def _initialize(self, version: str) -> None:
        timeout = self.spec.start_timeout
        try:
            async with asyncio.timeout(timeout):
                self.info = await self._introduce(version)
        except TimeoutError:
            self._condemn(Result.TIMEOUT, f"not initialised within start_timeout ({timeout:g} s)")
        except ErrorAnswer as refused:
            if self._era.is_refused(self.era, refused):
                why = f"it is asked again in the {self._era.asked} era: {refused}"
                self._post(WrongEra(self._clock.monotonic(), self.mask.text(why)))
            else:
                self._condemn(Result.PROTOCOL, self._era.blame(refused))
        except (ServerFault, Overloaded) as problem:
            self._condemn(Result.PROTOCOL, str(problem))
        else:
            self._era.agreed(self.era)
            self._post(Initialized(self._clock.monotonic()))

    async def _introduce(self, version: str) -> ServerInfo:
        calls, note, place = self._calls, self._note, self._place
        if self.era is Era.PER_REQUEST:
            return await discover(calls, version, note, known=place.lists)
        with_roots = bool(self.spec.roots)
        return await shake_hands(calls, version, with_roots, note, claims=place.capabilities, known=place.lists)

    def _note(self, text: str) -> None:
        self._log.note(self.mask.text(text))

    def _condemn(self, result: Result, message: str) -> None:
        self._post(Condemned(self._clock.monotonic(), result, self.mask.text(message)))

    def _answer_for(self, sample: bytes) -> None:
        """A line that was too long was discarded; if it was an answer, its call must not wait for another."""
        awaited = self._relay.awaited(self.key)
        found = _ID.search(sample)
        number = int(found[1]) if found is not None else awaited[0] if len(awaited) == 1 else 0
        if number in awaited and sample[:1] == b"{" and b'"method"' not in sample:
            text = f"server {self.spec.name!r} answered with a line of over {MAX_LINE >> 20} MiB, which was discarded"
            self._receive(jsonrpc.error(b"%d" % number, methods.SERVER_UNAVAILABLE, text))

    def _watch(self) -> None:
        for what, spec, ended in self.vitals.probes():
            self._run(what, probes.probe_for_ever, spec, self._calls, self._clock, ended)

    # lists

    def _refetch_soon(self) -> None:
        if not self._refetching:
            self._refetching = True
            self._run("lists", self._refetch)

    async def _refetch(self) -> None:
        assert self.info is not None
        try:
            while self._stale:
                await asyncio.sleep(self._next_refetch_delay())
                kinds = [kind for stale in sorted(self._stale) for kind in _KINDS[stale]]
                self._stale.clear()
                lists = await fetch_lists(self._calls, kinds, self.info.lists, self._note, REFETCH_TIMEOUT)
                self.info = replace(self.info, lists=lists)
                self._relay.catalogue(self.key, lists)
        except (ServerFault, CallTimeout, Overloaded) as problem:
            self._note(f"its changed lists could not be fetched, the old ones stay: {problem}")
            _log.warning("instance.lists_stale", instance=self.key, problem=self.mask.text(str(problem)))
        finally:
            self._refetching = False

    def _next_refetch_delay(self) -> float:
        at = self._clock.monotonic()
        soon = at - self._refetched_at < REFETCH_QUIET
        self._refetch_delay = min(self._refetch_delay * 2, REFETCH_DELAY_MAX) if soon else REFETCH_DELAY
        self._refetched_at = at
        return self._refetch_delay

    # tasks

    def _run(
        self, what: str, work: Callable[P, Coroutine[object, object, None]], *args: P.args, **named: P.kwargs
    ) -> None:
        task = self._start(self._guarded(functools.partial(work, *args, **named)), f"{what}:{self.key}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guarded(self, work: Callable[[], Coroutine[object, object, None]]) -> None:
        """An error of mcpd's own costs this process, not its neighbours."""
        try:
            await work()
        except Exception as bug:  # noqa: BLE001 - whatever it is, it must not end the group that all tasks share
            _log.exception("instance.bug", instance=self.key)
            self._condemn(Result.RESOURCES, f"internal error: {bug!r}")

    def _stop_tasks(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        for task in tuple(self._tasks):
            task.cancel()

    def _cancel(self, *whats: str) -> None:
        names = {f"{what}:{self.key}" for what in whats}
        for task in tuple(self._tasks):
            if task.get_name() in names:
                task.cancel()

    def _later(self, delay: float, act: Callable[[], None]) -> asyncio.TimerHandle:
        timer = asyncio.get_running_loop().call_later(delay, act)
        self._timers.add(timer)
        return timer
