"""The life of one instance: each event leads to a new phase and to effects that somebody else carries out.

A phase is a state and the data that only this state has. Whether a state may follow another is decided by the table
in `states.py`; which of several, and what has to be done, is decided here.
"""

from __future__ import annotations

from msgspec.structs import replace

from mcpd.config.registry import RestartPolicy
from mcpd.lifecycle.backoff import Backoff, BackoffPolicy, GiveUp
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
from mcpd.lifecycle.events import (
    Condemned,
    Disable,
    Event,
    Exited,
    Gone,
    Initialized,
    Outlived,
    Readied,
    Reset,
    Rest,
    Restart,
    Result,
    Spawned,
    SpawnFailed,
    Start,
    Stop,
    TimerFired,
    Unready,
    WrongEra,
)
from mcpd.lifecycle.phases import (
    Abandoned,
    Disabled,
    Ended,
    Exit,
    Failed,
    Idle,
    Initializing,
    NotReady,
    Phase,
    Ready,
    Starting,
    Stopped,
    Stopping,
    Waiting,
)
from mcpd.lifecycle.states import (
    LIVE,
    Goal,
    State,
    check,
    expect,
)

RETRY_KILL = 30.0
"""How often an abandoned process is tried again, in seconds."""


_GOALS: dict[type[Event], Goal] = {
    Start: Goal.START,
    Restart: Goal.START,
    Stop: Goal.STOP,
    Disable: Goal.DISABLE,
    Rest: Goal.REST,
}


def restarts(policy: RestartPolicy, result: Result) -> bool:
    """Whether an instance that ended so by itself is started again (systemd.service(5), table 1, and our words).

    An unexpected exit has a clean code and counts as a failure, so `on-success` and `on-failure` both restart it.
    """
    if result in (Result.EXEC, Result.SANDBOX, Result.START_LIMIT_HIT):
        return False  # the next try would end the same
    match policy:
        case RestartPolicy.NO:
            return False
        case RestartPolicy.ALWAYS:
            return True
        case RestartPolicy.ON_SUCCESS:
            return result in (Result.SUCCESS, Result.UNEXPECTED_EXIT)
        case RestartPolicy.ON_FAILURE:
            return result is not Result.SUCCESS
        case RestartPolicy.ON_ABNORMAL:
            return result not in (Result.SUCCESS, Result.UNEXPECTED_EXIT, Result.EXIT_CODE)
        case RestartPolicy.ON_WATCHDOG:
            return result is Result.WATCHDOG


class Lifecycle:
    """The machine. `generation` counts the starts; `restarts` those among them that nobody asked for."""

    def __init__(self, restart: RestartPolicy, backoff: BackoffPolicy, at: float) -> None:
        self.phase: Phase = Stopped(at)
        self.generation = 0
        self.restarts = 0
        self.last_exit: Exit | None = None
        self._restart = restart
        self._backoff = Backoff(backoff)

    @property
    def state(self) -> State:
        return self.phase.state

    def adopt(self, restart: RestartPolicy, backoff: BackoffPolicy) -> None:
        """Decide by these rules from now on; what is under way goes on."""
        self._restart = restart
        self._backoff.policy = backoff

    def handle(self, event: Event, luck: float) -> list[Effect]:
        """What has to be done because of `event`, in this order; `luck` is a random number of [0, 1).

        Raises IllegalTransition, and changes nothing then.
        """
        before = self.phase
        expect(before.state, event)
        phase, effects, why = self._next(event, luck)
        check(before.state, event, phase.state)
        if isinstance(before, Ready) and not isinstance(phase, Ready):
            self._backoff.was_ready(event.at - before.since)
        if isinstance(phase, Waiting | Failed | Abandoned):
            self.last_exit = phase.exit
        self.phase = phase
        if phase.state is before.state:
            return effects
        if isinstance(phase, Starting):
            self.generation += 1
            effects.append(Launch(self.generation))
        effects.append(Changed(before.state, phase.state, why))
        return effects

    def _next(self, event: Event, luck: float) -> tuple[Phase, list[Effect], str]:
        phase = self.phase
        match event:
            case Start() | Restart() | Stop() | Disable() | Rest():
                return self._wanted(event)
            case Reset():
                return self._reset(event)
            case Spawned():
                return Initializing(event.at), [Handshake()], ""
            case SpawnFailed():
                return self._over(event.at, Goal.POLICY, Exit(event.result, event.message), luck)
            case Initialized():
                return Ready(event.at), [Admit()], ""
            case Unready() if isinstance(phase, NotReady):
                return replace(phase, why=event.why), [], ""
            case Unready():
                return NotReady(event.at, event.why), [Suspend(event.why)], event.why
            case Readied():
                return Ready(event.at), [Resume()], ""
            case Condemned() if phase.state in LIVE:
                cause = Exit(event.result, event.message)
                return Stopping(event.at, Goal.POLICY, cause), [Detach(str(cause)), End(drain=False)], str(cause)
            case WrongEra() if isinstance(phase, Initializing):
                return Stopping(event.at, Goal.START), [Detach(event.why), End(drain=False)], event.why
            case Exited() if not isinstance(phase, Abandoned):
                return self._exited(event)
            case Outlived():
                return self._outlived(event)
            case Gone():
                return self._gone(event, luck)
            case TimerFired():
                return self._timer_fired(event)
        return phase, [], ""  # the pairs of the table that change nothing

    def _wanted(self, event: Start | Restart | Stop | Disable | Rest) -> tuple[Phase, list[Effect], str]:
        """Somebody says what is to become of it."""
        phase = self.phase
        if isinstance(event, Restart) or (isinstance(event, Start) and event.asked):
            self._backoff.reset()
        if isinstance(phase, Stopping | Ended | Abandoned):
            if isinstance(event, Start) and not event.asked and phase.goal is Goal.POLICY:
                return phase, [], ""  # it crashed while it was wanted, and still is: the policy decides
            return replace(phase, goal=_GOALS[type(event)]), [], ""
        if phase.state in LIVE:
            if isinstance(event, Start):
                return phase, [], ""
            return Stopping(event.at, _GOALS[type(event)]), [End(drain=True)], _why(event)
        effects: list[Effect] = []
        if isinstance(phase, Waiting):
            effects.append(CancelTimer())
        if isinstance(phase, Starting) and not isinstance(event, Start | Restart):
            effects.append(CancelLaunch())
        return _at_rest(phase, _GOALS[type(event)], event.at), effects, _why(event)

    def _reset(self, event: Reset) -> tuple[Phase, list[Effect], str]:
        self._backoff.reset()
        match self.phase:
            case Failed():
                return Stopped(event.at), [], "failures forgotten"
            case Waiting():
                return Starting(event.at), [CancelTimer()], "failures forgotten"
            case phase:
                return phase, [], ""

    def _exited(self, event: Exited) -> tuple[Phase, list[Effect], str]:
        """Its process has ended, by itself or because it was told to."""
        phase = self.phase
        if isinstance(phase, Stopping):
            if phase.cause is not None:
                exit = replace(phase.cause, text=f"{phase.cause.text}; {event.status}")
            else:
                exit = Exit(Result.SUCCESS, event.status)  # it was told to end; how it did is its own affair
            return Ended(event.at, phase.goal, exit), [Detach(str(exit))], str(exit)
        result = Result.UNEXPECTED_EXIT if event.result is Result.SUCCESS else event.result
        exit = Exit(result, event.status)
        return Ended(event.at, Goal.POLICY, exit), [Detach(str(exit)), End(drain=False)], str(exit)

    def _outlived(self, event: Outlived) -> tuple[Phase, list[Effect], str]:
        phase = self.phase
        retry = SetTimer(event.at + RETRY_KILL)
        if isinstance(phase, Abandoned):
            return phase, [retry], ""
        assert isinstance(phase, Stopping | Ended)
        exit = Exit(Result.TIMEOUT, event.message)
        return Abandoned(event.at, phase.goal, exit), [Detach(str(exit)), retry], str(exit)

    def _gone(self, event: Gone, luck: float) -> tuple[Phase, list[Effect], str]:
        phase = self.phase
        assert isinstance(phase, Ended | Abandoned)
        exit = phase.exit
        if event.forced and exit.result is Result.SUCCESS:
            exit = Exit(Result.TIMEOUT, f"it had to be killed; {exit.text}")
        over, effects, why = self._over(event.at, phase.goal, exit, luck)
        return over, [CancelTimer(), *effects] if isinstance(phase, Abandoned) else effects, why

    def _over(self, at: float, goal: Goal, exit: Exit, luck: float) -> tuple[Phase, list[Effect], str]:
        """Nothing of it runs any more."""
        self.last_exit = exit
        record = Record(exit, self.generation)
        if goal is not Goal.POLICY:
            return _at_rest(self.phase, goal, at), [record], "starting again" if goal is Goal.START else str(exit)
        if not restarts(self._restart, exit.result):
            return Failed(at, exit), [record], str(exit)
        match self._backoff.failed(at, luck):
            case GiveUp():
                limit = f"{self._backoff.policy.burst} starts within {self._backoff.policy.interval:g} s"
                hit = Exit(Result.START_LIMIT_HIT, f"{limit}; the last ended by {exit}")
                return Failed(at, hit), [record], str(hit)
            case wait:
                until = at + wait.delay
                loud = "start limit hit, " if wait.limited else ""
                why = f"{exit}; {loud}next start in {wait.delay:.1f} s"
                return Waiting(at, until, exit, wait.limited), [record, SetTimer(until)], why

    def _timer_fired(self, event: TimerFired) -> tuple[Phase, list[Effect], str]:
        if isinstance(self.phase, Abandoned):
            return self.phase, [End(drain=False)], ""
        self.restarts += 1
        self._backoff.started(event.at)
        return Starting(event.at), [], f"restart {self.restarts}"


def _at_rest(phase: Phase, goal: Goal, at: float) -> Phase:
    """The phase without a process that `goal` means; the same one if it is there already."""
    target: Phase
    match goal:
        case Goal.START:
            target = Starting(at)
        case Goal.DISABLE:
            target = Disabled(at)
        case Goal.REST:
            target = Idle(at)
        case Goal.STOP | Goal.POLICY:
            target = Stopped(at)
    return phase if phase.state is target.state else target


def _why(event: Start | Restart | Stop | Disable | Rest) -> str:
    match event:
        case Restart(why=why) | Stop(why=why) | Rest(why=why) | Disable(why=why):
            return why
        case Start(asked=asked, why=why):
            return "started by the operator" if asked else why
