"""The machine: scripts of events in and effects out, the grid of restart policies, and what holds for any sequence."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mcpd.config.registry import RestartPolicy
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
from mcpd.lifecycle.machine import RETRY_KILL, Lifecycle, restarts
from mcpd.lifecycle.phases import Exit, Waiting
from mcpd.lifecycle.states import HELD, LIVE, IllegalTransition, State

LUCK = 1.0 - 2**-53  # the largest that random() gives: next to no jitter
POLICY = BackoffPolicy(delay=1.0, max_delay=64.0, steps=6, stable_after=30.0, burst=5, interval=600.0)


def machine(restart: RestartPolicy = RestartPolicy.ON_FAILURE, backoff: BackoffPolicy = POLICY) -> Lifecycle:
    return Lifecycle(restart, backoff, 0.0)


def feed(one: Lifecycle, *events: Event) -> list[Effect]:
    """The effects of the last event, changes of state left out."""
    effects: list[Effect] = []
    for event in events:
        effects = one.handle(event, LUCK)
    return [effect for effect in effects if not isinstance(effect, Changed)]


def ready(one: Lifecycle, at: float = 0.0) -> Lifecycle:
    feed(one, Start(at), Spawned(at), Initialized(at))
    return one


def crash(at: float, result: Result = Result.EXIT_CODE) -> tuple[Event, ...]:
    return Exited(at, result, "exit code 3"), Gone(at)


def test_the_way_up() -> None:
    one = machine()

    assert feed(one, Start(1.0)) == [Launch(1)]
    assert feed(one, Spawned(1.1)) == [Handshake()]
    assert feed(one, Initialized(1.2)) == [Admit()]
    assert (one.state, one.generation, one.restarts) == (State.READY, 1, 0)


def test_a_change_of_state_is_told_last_with_its_reason() -> None:
    one = ready(machine())

    effects = one.handle(Stop(5.0, "maintenance"), LUCK)

    assert effects == [End(drain=True), Changed(State.READY, State.STOPPING, "maintenance")]


def test_an_operators_stop_drains_and_ends_in_stopped() -> None:
    one = ready(machine())

    assert feed(one, Stop(5.0)) == [End(drain=True)]
    assert feed(one, Exited(6.0, Result.SIGNAL, "killed by SIGTERM")) == [Detach("success: killed by SIGTERM")]
    assert feed(one, Gone(6.0)) == [Record(Exit(Result.SUCCESS, "killed by SIGTERM"), 1)]
    assert one.state is State.STOPPED


def test_a_stop_that_needed_sigkill_is_a_timeout() -> None:
    one = ready(machine())

    feed(one, Stop(5.0), Exited(15.0, Result.SIGNAL, "killed by SIGKILL"), Gone(15.0, forced=True))

    assert one.last_exit == Exit(Result.TIMEOUT, "it had to be killed; killed by SIGKILL")


def test_a_crash_detaches_at_once_sweeps_the_tree_and_waits() -> None:
    one = ready(machine())

    assert feed(one, Exited(1.0, Result.EXIT_CODE, "exit code 3")) == [
        Detach("exit-code: exit code 3"),
        End(drain=False),
    ]
    effects = feed(one, Gone(1.1))
    assert effects[0] == Record(Exit(Result.EXIT_CODE, "exit code 3"), 1)
    assert isinstance(effects[1], SetTimer)
    assert one.state is State.BACKOFF
    assert feed(one, TimerFired(2.1)) == [Launch(2)]
    assert one.restarts == 1


def test_exit_zero_while_wanted_is_an_unexpected_exit() -> None:
    one = ready(machine())

    feed(one, *crash(1.0, Result.SUCCESS))

    assert one.last_exit == Exit(Result.UNEXPECTED_EXIT, "exit code 3")
    assert one.state is State.BACKOFF


def test_a_condemned_one_is_ended_without_drain_and_its_cause_is_the_reason() -> None:
    one = ready(machine())

    cause = "watchdog: no sign of life for 15 s"
    assert feed(one, Condemned(1.0, Result.WATCHDOG, "no sign of life for 15 s")) == [Detach(cause), End(drain=False)]
    feed(one, Exited(2.0, Result.SIGNAL, "killed by SIGTERM"), Gone(2.0))

    assert one.last_exit == Exit(Result.WATCHDOG, "no sign of life for 15 s; killed by SIGTERM")
    assert one.state is State.BACKOFF


def test_one_that_refuses_an_era_is_started_again_at_once_and_has_not_failed() -> None:
    one = machine(RestartPolicy.NO)
    feed(one, Start(0.0), Spawned(0.1))

    assert feed(one, WrongEra(0.2, "refused")) == [Detach("refused"), End(drain=False)]
    effects = feed(one, Exited(0.3, Result.EXIT_CODE, "exit code 1"), Gone(0.3))

    assert one.state is State.STARTING
    assert effects[-1] == Launch(2)
    assert (one.restarts, one.last_exit) == (0, Exit(Result.SUCCESS, "exit code 1"))


def test_a_stop_counts_also_while_the_other_era_is_to_be_tried() -> None:
    one = machine()
    feed(one, Start(0.0), Spawned(0.1), WrongEra(0.2, "refused"), Stop(0.3))

    feed(one, Exited(0.4, Result.SUCCESS, "exit code 0"), Gone(0.4))

    assert one.state is State.STOPPED


def test_an_operators_stop_of_a_condemned_one_keeps_the_cause_but_ends_in_stopped() -> None:
    one = ready(machine())

    feed(one, Condemned(1.0, Result.WATCHDOG, "wedged"), Stop(1.5), Exited(2.0, Result.SIGNAL, "killed"), Gone(2.0))

    assert (one.state, one.last_exit) == (State.STOPPED, Exit(Result.WATCHDOG, "wedged; killed"))


@pytest.mark.parametrize("result", [Result.EXEC, Result.SANDBOX])
def test_what_cannot_be_executed_fails_at_once(result: Result) -> None:
    one = machine(RestartPolicy.ALWAYS)

    effects = feed(one, Start(0.0), SpawnFailed(0.0, result, "no such file"))

    assert effects == [Record(Exit(result, "no such file"), 1)]
    assert one.state is State.FAILED


def test_a_want_of_resources_is_tried_again() -> None:
    one = machine()

    feed(one, Start(0.0), SpawnFailed(0.0, Result.RESOURCES, "too many open files"))

    assert one.state is State.BACKOFF


def test_a_wrapper_that_could_not_execute_its_command_is_not_retried_either() -> None:
    one = machine()

    feed(one, Start(0.0), Spawned(0.0), Exited(0.1, Result.EXEC, "no such file"), Gone(0.1))

    assert one.state is State.FAILED


def test_an_operators_restart_starts_again_when_all_is_gone() -> None:
    one = ready(machine())

    assert feed(one, Restart(5.0)) == [End(drain=True)]
    feed(one, Exited(6.0, Result.SUCCESS, "exit code 0"))
    assert feed(one, Gone(6.0)) == [Record(Exit(Result.SUCCESS, "exit code 0"), 1), Launch(2)]
    assert one.restarts == 0


@pytest.mark.parametrize("state", [State.STOPPED, State.FAILED, State.BACKOFF, State.DISABLED, State.IDLE])
def test_an_operators_start_or_restart_works_from_every_rest(state: State) -> None:
    for event in (Start(99.0, asked=True), Restart(99.0)):
        assert Launch in map(type, feed(at_rest(state), event))


def test_a_start_while_backing_off_cancels_the_timer() -> None:
    one = at_rest(State.BACKOFF)

    assert feed(one, Start(9.0, asked=True)) == [CancelTimer(), Launch(2)]


def test_a_stop_before_the_turn_came_cancels_the_launch() -> None:
    one = machine()

    assert feed(one, Start(0.0), Stop(0.1)) == [CancelLaunch()]
    assert one.state is State.STOPPED


def test_an_operators_start_forgets_the_failures() -> None:
    one = machine()
    feed(one, Start(0.0), Spawned(0.0))
    for second in range(1, 5):
        feed(one, *crash(float(second)), TimerFired(second + 0.5), Spawned(second + 0.5))

    feed(one, *crash(5.0), Start(5.5, asked=True), Spawned(5.5), *crash(6.0))

    assert waiting(one).until - waiting(one).since == pytest.approx(1.0)


def test_a_registrys_start_while_it_dies_leaves_the_policy_in_charge() -> None:
    one = ready(machine())

    feed(one, Exited(1.0, Result.EXIT_CODE, "exit code 3"), Start(1.0), Gone(1.0))

    assert one.state is State.BACKOFF


def test_an_operators_start_while_it_stops_starts_it_again() -> None:
    one = ready(machine())

    effects = feed(one, Stop(1.0), Start(1.5, asked=True), Exited(2.0, Result.SUCCESS, ""), Gone(2.0))

    assert effects[-1] == Launch(2)


def test_the_last_word_counts_while_it_stops() -> None:
    one = ready(machine())

    feed(one, Restart(1.0), Stop(1.1), Restart(1.2), Disable(1.3), Exited(2.0, Result.SUCCESS, ""), Gone(2.0))

    assert one.state is State.DISABLED


def test_not_ready_and_back() -> None:
    one = ready(machine())

    assert feed(one, Unready(1.0, "noise")) == [Suspend("noise")]
    assert feed(one, Unready(2.0, "probes")) == []
    assert feed(one, Readied(3.0)) == [Resume()]
    assert one.state is State.READY


def test_stable_means_ready_without_a_break() -> None:
    one = ready(machine())
    for at in (1.0, 2.0):
        feed(one, *crash(at), TimerFired(at), Spawned(at), Initialized(at))
    feed(one, Unready(20.0, "slow"), Readied(21.0), *crash(50.0))

    assert waiting(one).until - waiting(one).since == pytest.approx(2.0)


def test_a_crash_after_a_stable_run_is_retried_at_once_and_then_with_the_first_delay() -> None:
    one = ready(machine())

    feed(one, *crash(31.0))
    assert waiting(one).until == 31.0
    feed(one, TimerFired(31.0), Spawned(31.0), *crash(31.5))

    assert waiting(one).until - waiting(one).since == pytest.approx(1.0)


def test_a_run_that_ends_just_before_it_is_stable_for_ever_is_still_limited() -> None:
    one = ready(machine())
    at = 0.0
    waits = []
    for _ in range(8):
        at += 29.9
        feed(one, *crash(at))
        waits.append((waiting(one).until - at, waiting(one).limited))
        at = waiting(one).until
        feed(one, TimerFired(at), Spawned(at), Initialized(at))

    assert [round(delay) for delay, _ in waits] == [0, 1, 2, 4, 8, 64, 64, 64]
    assert [limited for _, limited in waits] == [False] * 5 + [True] * 3


def test_with_action_fail_the_start_limit_ends_in_failed() -> None:
    one = machine(backoff=BackoffPolicy(delay=1.0, burst=2, interval=600.0, action="fail"))
    feed(one, Start(0.0), Spawned(0.0))
    for second in (1.0, 2.0):
        feed(one, *crash(second), TimerFired(second + 0.5), Spawned(second + 0.5))

    feed(one, *crash(3.0))

    assert one.state is State.FAILED
    assert one.last_exit == Exit(
        Result.START_LIMIT_HIT, "2 starts within 600 s; the last ended by exit-code: exit code 3"
    )
    assert feed(one, Start(4.0, asked=True)) == [Launch(4)]


def test_what_outlives_sigkill_is_abandoned_tried_again_and_let_go_when_it_is_gone() -> None:
    one = ready(machine())

    effects = feed(one, Stop(1.0), Outlived(16.0, "pid 7 is in state D"))
    assert effects == [Detach("timeout: pid 7 is in state D"), SetTimer(16.0 + RETRY_KILL)]
    assert feed(one, TimerFired(46.0)) == [End(drain=False)]
    assert feed(one, Outlived(50.0, "still")) == [SetTimer(50.0 + RETRY_KILL)]
    feed(one, Exited(60.0, Result.SIGNAL, "killed by SIGKILL"))
    assert feed(one, Gone(60.0)) == [CancelTimer(), Record(Exit(Result.TIMEOUT, "pid 7 is in state D"), 1)]
    assert one.state is State.STOPPED


def test_an_abandoned_one_is_not_started_beside_itself() -> None:
    one = ready(machine())
    feed(one, Stop(1.0), Outlived(16.0, "pid 7"))

    assert feed(one, Start(17.0, asked=True)) == []
    assert feed(one, Gone(60.0))[-1] == Launch(2)


def test_reset_wakes_what_failed_or_waits_and_touches_nothing_else() -> None:
    assert feed(at_rest(State.BACKOFF), Reset(9.0)) == [CancelTimer(), Launch(2)]
    assert feed(ready(machine()), Reset(9.0)) == []
    failed = at_rest(State.FAILED)
    feed(failed, Reset(9.0))
    assert failed.state is State.STOPPED


def test_rest_makes_a_lazy_one_idle() -> None:
    one = ready(machine())

    feed(one, Rest(1.0), Exited(1.1, Result.SUCCESS, "exit code 0"), Gone(1.1))

    assert one.state is State.IDLE


def test_new_rules_count_from_the_next_decision_on() -> None:
    one = ready(machine())
    one.adopt(RestartPolicy.NO, POLICY)

    feed(one, *crash(1.0))

    assert one.state is State.FAILED


def test_an_event_that_cannot_come_changes_nothing() -> None:
    one = machine()

    with pytest.raises(IllegalTransition):
        one.handle(Gone(1.0), LUCK)

    assert one.state is State.STOPPED
    assert one.last_exit is None


_ABNORMAL = "signal core-dump timeout watchdog oom-kill resources protocol"
GRID = {  # which results are followed by a start, for each policy (systemd.service(5), table 1, and our words)
    RestartPolicy.NO: "",
    RestartPolicy.ALWAYS: f"success exit-code unexpected-exit {_ABNORMAL}",
    RestartPolicy.ON_SUCCESS: "success unexpected-exit",
    RestartPolicy.ON_FAILURE: f"exit-code unexpected-exit {_ABNORMAL}",
    RestartPolicy.ON_ABNORMAL: _ABNORMAL,
    RestartPolicy.ON_WATCHDOG: "watchdog",
}


@pytest.mark.parametrize("policy", RestartPolicy)
@pytest.mark.parametrize("result", Result)
def test_restart_policy_and_exit_reason(policy: RestartPolicy, result: Result) -> None:
    assert restarts(policy, result) == (result in GRID[policy].split())


@pytest.mark.parametrize("policy", RestartPolicy)
@pytest.mark.parametrize("result", sorted(set(Result) - {Result.START_LIMIT_HIT}))
def test_the_machine_follows_the_grid(policy: RestartPolicy, result: Result) -> None:
    """However the reason came about: by its own exit, or condemned for it."""
    one = ready(machine(policy))
    if result in (Result.TIMEOUT, Result.WATCHDOG, Result.PROTOCOL):
        feed(one, Condemned(1.0, result, "why"), Exited(1.0, Result.SIGNAL, ""), Gone(1.0))
    else:
        feed(one, Exited(1.0, result, ""), Gone(1.0))
        result = Result.UNEXPECTED_EXIT if result is Result.SUCCESS else result

    assert one.state is (State.BACKOFF if result in GRID[policy].split() else State.FAILED)


def at_rest(state: State) -> Lifecycle:
    match state:
        case State.BACKOFF:
            one = ready(machine())
            feed(one, *crash(1.0))
        case State.FAILED:
            one = ready(machine(RestartPolicy.NO))
            feed(one, *crash(1.0))
        case State.DISABLED:
            one = machine()
            feed(one, Disable(1.0))
        case State.IDLE:
            one = machine()
            feed(one, Rest(1.0))
        case _:
            one = machine()
    assert one.state is state
    return one


def waiting(one: Lifecycle) -> Waiting:
    assert isinstance(one.phase, Waiting)
    return one.phase


@dataclass
class World:
    """What a shell that carries out effects would have: at most one of each."""

    launching: bool = False
    process: bool = False
    ending: bool = False
    timer: float | None = None
    attached: bool = False
    suspended: bool = False


class AnySequence(RuleBasedStateMachine):
    """Everything that can happen to an instance, in any order that the world allows."""

    @initialize(
        policy=st.sampled_from(RestartPolicy), action=st.sampled_from(["backoff", "fail"]), burst=st.integers(1, 3)
    )
    def begin(self, policy: RestartPolicy, action: str, burst: int) -> None:
        self.at = 0.0
        self.world = World()
        self.last_word: type[Event] | None = None
        rules = BackoffPolicy(delay=1.0, max_delay=8.0, steps=3, stable_after=5.0, burst=burst, action=action)  # type: ignore[arg-type]
        self.one = Lifecycle(policy, rules, 0.0)

    def do(self, event: Event, luck: float = 0.5) -> None:
        old = self.one.state
        for effect in self.one.handle(event, luck):
            self.carry_out(effect, old)

    def carry_out(self, effect: Effect, old: State) -> None:
        world = self.world
        match effect:
            case Launch():
                assert world == World()  # never two incarnations, never a timer beside a start
                world.launching = True
            case CancelLaunch():
                assert world.launching
                world.launching = False
            case Handshake():
                assert world.process
            case Admit():
                assert world.process
                assert not world.attached
                world.attached = True
            case Suspend():
                assert world.attached
                world.suspended = True
            case Resume():
                assert world.suspended
                world.suspended = False
            case Detach():
                world.attached = world.suspended = False
            case End():
                assert not world.ending
                world.ending = True
            case SetTimer(at):
                assert at >= self.at
                world.timer = at
            case CancelTimer():
                assert old in (State.BACKOFF, State.ABANDONED)
                world.timer = None
            case Changed(before, after, _):
                assert (before, after) == (old, self.one.state)
            case Record():
                assert not world.process

    def later(self, seconds: float) -> float:
        self.at += seconds
        return self.at

    # what people and the registry say

    @rule(kind=st.sampled_from([Start, Restart, Stop, Disable, Rest, Reset]), asked=st.booleans())
    def somebody_asks(self, kind: type[Event], asked: bool) -> None:
        if kind is not Reset and (kind is not Start or asked):
            self.last_word = kind
        self.do(Start(self.at, asked) if kind is Start else kind(self.at))

    # what the shell reports

    @precondition(lambda self: self.world.launching)
    @rule(result=st.sampled_from([None, Result.EXEC, Result.RESOURCES]))
    def launch_ends(self, result: Result | None) -> None:
        self.world.launching = False
        if result is None:
            self.world.process = True
            self.do(Spawned(self.later(0.1)))
        else:
            self.do(SpawnFailed(self.later(0.1), result, "refused"))

    @precondition(lambda self: self.one.state is State.INITIALIZING)
    @rule()
    def handshake_done(self) -> None:
        self.do(Initialized(self.later(0.5)))

    @precondition(lambda self: self.one.state in (State.READY, State.NOT_READY))
    @rule(ready=st.booleans(), seconds=st.floats(0, 10))
    def readiness(self, ready: bool, seconds: float) -> None:
        if not ready:
            self.do(Unready(self.later(seconds), "probes"))
        elif self.one.state is State.NOT_READY:
            self.do(Readied(self.later(seconds)))

    @precondition(lambda self: self.one.state in LIVE | {State.STOPPING, State.EXITED, State.ABANDONED})
    @rule(result=st.sampled_from([Result.TIMEOUT, Result.WATCHDOG, Result.PROTOCOL]), seconds=st.floats(0, 10))
    def condemn(self, result: Result, seconds: float) -> None:
        self.do(Condemned(self.later(seconds), result, "bad"))

    @precondition(lambda self: self.world.process)
    @rule(
        result=st.sampled_from([Result.SUCCESS, Result.EXIT_CODE, Result.SIGNAL, Result.EXEC]), seconds=st.floats(0, 10)
    )
    def exits(self, result: Result, seconds: float) -> None:
        self.world.process = False
        self.do(Exited(self.later(seconds), result, "ended"))

    @precondition(lambda self: self.world.ending)
    @rule(forced=st.booleans(), luck=st.floats(0, 1, exclude_max=True))
    def ladder_ends(self, forced: bool, luck: float) -> None:
        self.world.ending = False
        if self.world.process:
            self.do(Outlived(self.later(1.0), "it is in state D"))
        else:
            self.do(Gone(self.later(0.1), forced), luck)

    @precondition(lambda self: self.world.timer is not None)
    @rule()
    def timer_fires(self) -> None:
        assert self.world.timer is not None
        self.at, self.world.timer = max(self.at, self.world.timer), None
        self.do(TimerFired(self.at))

    # what always holds

    @invariant()
    def states_and_world_agree(self) -> None:
        state, world = self.one.state, self.world
        assert world.launching == (state is State.STARTING)
        assert not world.process or state in HELD
        assert world.attached == (
            state in (State.READY, State.NOT_READY) or (world.attached and state is State.STOPPING)
        )
        assert (world.timer is not None) <= (state in (State.BACKOFF, State.ABANDONED))
        assert world.ending or state not in (State.STOPPING, State.EXITED)
        assert self.one.restarts <= self.one.generation

    def teardown(self) -> None:
        """Whatever happened: a stop ends in STOPPED, with nothing running."""
        if not hasattr(self, "one"):
            return
        self.do(Stop(self.at))
        for _ in range(4):
            if self.world.process:
                self.exits(Result.SIGNAL, 0.0)
            if self.world.ending:
                self.ladder_ends(False, 0.5)
            if self.world.timer is not None:
                self.timer_fires()
        assert (self.one.state, self.world) == (State.STOPPED, World())


TestAnySequence = AnySequence.TestCase
TestAnySequence.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
