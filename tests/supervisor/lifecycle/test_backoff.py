"""Delays between starts: growth, jitter, the free first retry, the stable reset and the start limit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpd.lifecycle.backoff import Backoff, BackoffPolicy, GiveUp, RestartAlarm, Wait

DEFAULT = BackoffPolicy(burst=10_000)
NO_JITTER = 1.0  # not a number that `random()` gives, but the edge of what it may


def delays(backoff: Backoff, count: int, luck: float = NO_JITTER) -> list[float]:
    found = []
    for _ in range(count):
        outcome = backoff.failed(0.0, luck)
        assert isinstance(outcome, Wait)
        found.append(round(outcome.delay, 2))
    return found


def test_delays_grow_from_the_first_to_the_longest_in_seven_steps_and_stay_there() -> None:
    assert delays(Backoff(DEFAULT), 10) == [0.5, 0.99, 1.96, 3.89, 7.71, 15.28, 30.28, 60.0, 60.0, 60.0]


@given(n=st.integers(0, 100), luck=st.floats(0, 1, exclude_max=True))
def test_jitter_takes_at_most_half(n: int, luck: float) -> None:
    backoff = Backoff(DEFAULT)
    backoff.failures = n

    outcome = backoff.failed(0.0, luck)

    assert isinstance(outcome, Wait)
    assert DEFAULT.nominal(n) / 2 <= outcome.delay <= DEFAULT.nominal(n)


def test_the_longest_delay_is_never_shorter_than_the_first() -> None:
    assert delays(Backoff(BackoffPolicy(delay=5.0, max_delay=1.0, burst=100)), 3) == [5.0, 5.0, 5.0]


def test_first_failure_after_a_stable_run_costs_no_delay_but_only_once() -> None:
    backoff = Backoff(DEFAULT)
    delays(backoff, 4)
    backoff.was_ready(DEFAULT.stable_after)

    assert delays(backoff, 3) == [0.0, 0.5, 0.99]


def test_the_first_failure_of_a_server_that_worked_costs_no_delay_but_only_once() -> None:
    backoff = Backoff(DEFAULT)
    first = delays(backoff, 1)
    backoff.was_ready(0.1)
    after = delays(backoff, 1)
    backoff.was_ready(0.1)

    assert (first, after, delays(backoff, 1)) == ([0.5], [0.0], [0.99])

    backoff.reset()
    backoff.was_ready(0.1)
    assert delays(backoff, 2) == [0.0, 0.5]


def test_a_run_that_was_not_quite_stable_resets_nothing() -> None:
    backoff = Backoff(DEFAULT)
    backoff.was_ready(0.1)
    _, *first = delays(backoff, 3)
    backoff.was_ready(DEFAULT.stable_after - 0.001)

    assert delays(backoff, 1)[0] > first[-1]


def test_two_stable_runs_give_one_free_retry_not_two() -> None:
    backoff = Backoff(DEFAULT)
    backoff.was_ready(100.0)
    backoff.was_ready(100.0)

    assert delays(backoff, 2) == [0.0, 0.5]


def test_at_the_start_limit_the_longest_delay_is_taken_and_it_is_said() -> None:
    policy = BackoffPolicy(burst=2, interval=100.0)
    backoff = Backoff(policy)
    backoff.started(1.0)
    backoff.started(2.0)

    assert backoff.failed(3.0, NO_JITTER) == Wait(60.0, limited=True)


def test_at_the_start_limit_with_action_fail_it_is_given_up() -> None:
    backoff = Backoff(BackoffPolicy(burst=2, interval=100.0, action="fail"))
    backoff.started(1.0)
    backoff.started(2.0)

    assert isinstance(backoff.failed(3.0, 0.0), GiveUp)


def test_the_start_limit_also_holds_for_the_free_retry() -> None:
    backoff = Backoff(BackoffPolicy(burst=1, interval=100.0, stable_after=0.0))
    backoff.started(1.0)
    backoff.was_ready(5.0)

    assert backoff.failed(6.0, NO_JITTER) == Wait(60.0, limited=True)


def test_starts_older_than_the_interval_do_not_count() -> None:
    backoff = Backoff(BackoffPolicy(burst=2, interval=10.0))
    backoff.started(1.0)
    backoff.started(2.0)

    assert backoff.failed(11.5, NO_JITTER) == Wait(0.5)


def test_many_starts_take_no_more_memory_than_the_burst() -> None:
    backoff = Backoff(BackoffPolicy(burst=3))
    for second in range(1000):
        backoff.started(float(second))

    assert len(backoff._starts) == 3


@pytest.mark.parametrize("action", ["backoff", "fail"])
def test_a_reset_forgets_delays_and_the_limit(action: str) -> None:
    backoff = Backoff(BackoffPolicy(burst=1, action=action))  # type: ignore[arg-type]
    delays(backoff, 5)
    backoff.started(0.0)
    backoff.reset()

    assert delays(backoff, 1) == [0.5]


def test_many_restarts_of_all_servers_together_are_told_once_an_interval() -> None:
    alarm = RestartAlarm(burst=3, interval=10.0)

    told = [alarm.restarted(at) for at in (1.0, 2.0, 3.0, 3.1, 3.2, 3.3)]

    assert told == [False, False, True, False, False, True]
    assert alarm.text == "3 restarts of servers within 10 s: look for what they have in common"


def test_restarts_far_apart_are_nobodys_alarm() -> None:
    alarm = RestartAlarm(burst=3, interval=10.0)

    assert not any(alarm.restarted(at) for at in (0.0, 6.0, 12.0, 18.0, 24.0))
