"""Signs of life: answers, bytes, calls in flight; readiness thresholds; noise."""

from __future__ import annotations

from mcpd.config.registry import ProbeSpec
from mcpd.lifecycle.health import NOISE_LIMIT, NOISE_WINDOW, Evidence, Life, Liveness, NoiseMeter, Readiness

SPEC = ProbeSpec(period=10.0, timeout=5.0, failure_threshold=3)
CALL_TIMEOUT = 300.0


def silent(at: float, *, last_byte: float = 0.0, oldest_call: float | None = None) -> Evidence:
    return Evidence(at, at - 5.0, False, last_byte, oldest_call)


def test_an_answer_is_life_and_forgets_earlier_silence() -> None:
    liveness = Liveness(SPEC, CALL_TIMEOUT)

    assert [liveness.judge(silent(10.0)), liveness.judge(silent(20.0))] == [Life.SUSPECT, Life.SUSPECT]
    assert liveness.judge(Evidence(30.0, 29.0, True, 0.0, None)) is Life.ALIVE
    assert liveness.judge(silent(40.0)) is Life.SUSPECT


def test_idle_silence_is_death_at_the_threshold() -> None:
    liveness = Liveness(SPEC, CALL_TIMEOUT)

    assert [liveness.judge(silent(at)) for at in (10.0, 20.0, 30.0)] == [Life.SUSPECT, Life.SUSPECT, Life.DEAD]


def test_any_byte_since_the_question_is_life() -> None:
    liveness = Liveness(SPEC, CALL_TIMEOUT)

    assert liveness.judge(silent(10.0, last_byte=6.0)) is Life.ALIVE
    assert liveness.failures == 0


def test_a_call_in_flight_excuses_silence_for_as_long_as_it_may_take() -> None:
    liveness = Liveness(SPEC, CALL_TIMEOUT)

    said = [liveness.judge(silent(at, oldest_call=100.0)) for at in (110.0, 250.0, 399.0, 400.0)]

    assert said == [Life.BUSY, Life.BUSY, Life.BUSY, Life.WEDGED]


def test_a_byte_during_a_call_prolongs_the_excuse() -> None:
    liveness = Liveness(SPEC, CALL_TIMEOUT)

    assert liveness.judge(silent(399.0, oldest_call=100.0)) is Life.BUSY
    assert liveness.judge(silent(450.0, last_byte=440.0, oldest_call=100.0)) is Life.BUSY
    assert liveness.judge(silent(741.0, last_byte=440.0, oldest_call=100.0)) is Life.WEDGED


def test_calls_that_come_and_time_out_do_not_hide_a_wedged_server() -> None:
    """Steady traffic: whenever one looks, the oldest call is young, since older ones were given up."""
    liveness = Liveness(SPEC, CALL_TIMEOUT)

    said = [liveness.judge(silent(at, oldest_call=max(100.0, at - 280.0))) for at in range(110, 411, 50)]

    assert said == [Life.BUSY] * 6 + [Life.WEDGED]


def test_a_new_call_after_idleness_begins_a_new_excuse() -> None:
    liveness = Liveness(SPEC, CALL_TIMEOUT)
    liveness.judge(silent(390.0, oldest_call=100.0))
    liveness.judge(Evidence(395.0, 394.0, True, 395.0, None))

    assert liveness.judge(silent(500.0, last_byte=395.0, oldest_call=450.0)) is Life.BUSY
    assert liveness.judge(silent(749.0, last_byte=395.0, oldest_call=450.0)) is Life.BUSY


def test_readiness_drops_at_its_threshold_and_comes_back_at_the_other() -> None:
    readiness = Readiness(ProbeSpec(failure_threshold=2, success_threshold=3))

    said = [readiness.judge(answered) for answered in (False, True, False, False, True, True, True)]

    assert said == [True, True, True, False, False, False, True]


def test_a_banner_is_not_too_much_noise() -> None:
    meter = NoiseMeter()
    for _ in range(NOISE_LIMIT):
        meter.heard(1.0)

    assert not meter.too_much(1.0)
    assert meter.total == NOISE_LIMIT


def test_a_stream_of_noise_is_too_much_until_it_has_been_quiet_for_a_minute() -> None:
    meter = NoiseMeter()
    for _ in range(NOISE_LIMIT + 1):
        meter.heard(1.0)

    assert meter.too_much(2.0)
    assert not meter.too_much(1.0 + NOISE_WINDOW)


def test_overlong_lines_are_hopeless_when_they_repeat() -> None:
    meter = NoiseMeter()
    meter.heard(1.0, overlong=True)
    meter.heard(2.0, overlong=True)
    assert not meter.hopeless(3.0)

    meter.heard(3.0, overlong=True)

    assert meter.hopeless(3.0)
    assert not meter.hopeless(1.0 + NOISE_WINDOW)
