"""Whether one process lives, is ready, and keeps to the protocol: what its probes, its bytes and its calls show.

`lifecycle.health` judges; what follows from it is posted as an event of the instance's life.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

from mcpd.clock import Clock
from mcpd.config.registry import ProbeSpec, ServerSpec
from mcpd.fleet.probes import Ended
from mcpd.fleet.relay import Relay
from mcpd.lifecycle.events import Condemned, Event, Readied, Result, Unready
from mcpd.lifecycle.health import NOISE_WINDOW, Evidence, Life, Liveness, NoiseMeter, Readiness


class Vitals:
    """The signs of life of one process. `last_byte`: when it was last heard, set by whoever hears it. `suspended`: it
    gets no new calls for now, because of what was posted."""

    def __init__(
        self,
        key: str,
        spec: ServerSpec,
        *,
        relay: Relay,
        clock: Clock,
        cpu: Callable[[], float],
        post: Callable[[Event], None],
        later: Callable[[float, Callable[[], None]], asyncio.TimerHandle],
    ) -> None:
        """`cpu`: the seconds of processor time that its tree has used."""
        self.last_byte = clock.monotonic()
        self.suspended = False
        self.meter = NoiseMeter()
        self.life = Life.ALIVE
        self.missed = 0
        self.answered_at: float | None = None
        self.cpu_share: float | None = None
        """Of a processor, between the last two pings that it missed; what it does while it says nothing."""
        self._key = key
        self._spec = spec
        self._relay = relay
        self._clock = clock
        self._used = cpu
        self._post = post
        self._later = later
        self._cpu: tuple[float, float] | None = None
        self._serving = False
        self._noise_timer: asyncio.TimerHandle | None = None
        self._liveness = Liveness(spec.liveness, spec.call_timeout)
        self._readiness = Readiness(spec.readiness)

    @property
    def silent(self) -> float:
        """Seconds since its last byte."""
        return self._clock.monotonic() - self.last_byte

    def begin(self) -> None:
        """It serves from now on: whether it is ready matters."""
        self._serving = True
        self.last_byte = self._clock.monotonic()
        self._heed_noise(self.last_byte)

    def end(self) -> None:
        """It is going to be ended: how it is does not matter any more."""
        self._serving = False

    def adopt(self, spec: ServerSpec) -> bool:
        """Its entry changed. True if it is to be probed in another way from now on."""
        before, self._spec = self._spec, spec
        if (before.liveness, before.readiness, before.call_timeout) == (
            spec.liveness,
            spec.readiness,
            spec.call_timeout,
        ):
            return False
        was_ready = self._readiness.ready
        self._liveness = Liveness(spec.liveness, spec.call_timeout)
        self._readiness = Readiness(spec.readiness)
        self._readiness.ready = was_ready  # or nobody would be told when it is again
        return self._serving

    def noise(self, *, overlong: bool = False) -> None:
        """It said something that is no message, or that nobody asked for."""
        at = self._clock.monotonic()
        self.meter.heard(at, overlong=overlong)
        self._heed_noise(at)

    def probes(self) -> Iterator[tuple[str, ProbeSpec, Ended]]:
        """The probes to be made: what each is for, how, and who is told of its end."""
        spec = self._spec
        both = spec.liveness == spec.readiness
        yield "liveness", spec.liveness, self._probed if both else self._probed_for_life
        if not both:
            yield "readiness", spec.readiness, self._probed_for_readiness

    def _probed(self, asked_at: float, answered: bool) -> None:
        self._probed_for_life(asked_at, answered)
        self._probed_for_readiness(asked_at, answered)

    def _probed_for_life(self, asked_at: float, answered: bool) -> None:
        at = self._clock.monotonic()
        oldest = self._relay.oldest_call(self._key)
        if oldest is None and self._relay.in_flight(self._key):
            oldest = asked_at  # it may still be at work on a call that its client has given up
        self._weigh(at, answered)
        self.life = self._liveness.judge(Evidence(at, asked_at, answered, self.last_byte, oldest))
        if self.life is Life.DEAD:
            silence = at - self.last_byte
            text = f"{self._liveness.failures} pings in a row without a sign of life (silent for {silence:.1f} s"
            self._condemn(Result.WATCHDOG, f"{text}{self._cpu_text()})")
        elif self.life is Life.WEDGED:
            calls = self._relay.in_flight(self._key)
            text = f"wedged: silent for {at - self.last_byte:.1f} s with {calls} calls in flight{self._cpu_text()}"
            self._condemn(Result.WATCHDOG, f"{text}; call_timeout is over")

    def _weigh(self, at: float, answered: bool) -> None:
        """Note what a ping's end shows of it; what it does is measured only while it does not answer."""
        if answered:
            self.missed, self.answered_at = 0, at
            self._cpu = self.cpu_share = None
            return
        self.missed += 1
        used = self._used()
        if self._cpu is not None and at > self._cpu[0]:
            self.cpu_share = max(0.0, used - self._cpu[1]) / (at - self._cpu[0])
        self._cpu = (at, used)

    def _cpu_text(self) -> str:
        return f", {self.cpu_share:.0%} of a processor" if self.cpu_share is not None else ""

    def _probed_for_readiness(self, asked_at: float, answered: bool) -> None:
        was = self._readiness.ready
        if self._readiness.judge(answered) != was:
            self._tell_readiness(self._clock.monotonic())

    def _heed_noise(self, at: float) -> None:
        if self.meter.hopeless(at):
            self._condemn(Result.PROTOCOL, "overlong lines on stdout, again and again")
        elif self._serving and self.meter.too_much(at):
            self._tell_readiness(at)

    def _tell_readiness(self, at: float) -> None:
        if not self._serving:
            return
        if self.meter.too_much(at):
            if self._noise_timer is None:
                self._post(Unready(at, "protocol: too much on stdout that is no message"))
                self._noise_timer = self._later(NOISE_WINDOW, self._noise_is_old)
        elif not self._readiness.ready:
            self._post(Unready(at, f"{self._spec.readiness.failure_threshold} readiness probes in a row failed"))
        elif self.suspended:
            self._post(Readied(at))

    def _noise_is_old(self) -> None:
        self._noise_timer = None
        self._tell_readiness(self._clock.monotonic())

    def _condemn(self, result: Result, message: str) -> None:
        self._post(Condemned(self._clock.monotonic(), result, message))
