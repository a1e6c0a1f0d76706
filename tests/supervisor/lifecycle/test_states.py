"""The table itself: complete where it must be, closed, and the picture in the documentation drawn from it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mcpd.lifecycle import events
from mcpd.lifecycle.states import HELD, LIVE, SETTLED, TRANSITIONS, IllegalTransition, State, check, expect

ROOT = Path(__file__).parents[3]
ASKED = (events.Start, events.Restart, events.Stop, events.Disable, events.Rest, events.Reset)


@pytest.mark.parametrize("state", State)
def test_whatever_somebody_asks_for_is_possible_in_every_state(state: State) -> None:
    assert all((state, asked) in TRANSITIONS for asked in ASKED)


@pytest.mark.parametrize("state", State)
def test_every_state_can_be_reached_from_stopped_and_left_for_it(state: State) -> None:
    assert state in reachable(State.STOPPED)
    assert State.STOPPED in reachable(state)


def test_an_exit_can_come_exactly_where_a_process_may_be() -> None:
    possible = {state for state, event in TRANSITIONS if event is events.Exited}

    assert possible == HELD - {State.EXITED}  # of EXITED the process has been reaped


def test_no_state_in_which_something_may_run_leads_straight_to_one_in_which_nothing_does() -> None:
    """But for EXITED and ABANDONED, which wait for the whole tree to be gone."""
    for (state, _), targets in TRANSITIONS.items():
        if state in LIVE | {State.STOPPING}:
            assert targets <= HELD


def test_only_ready_ones_pass_as_ready_and_what_is_under_way_is_not_settled() -> None:
    assert set(State) - SETTLED == {State.STARTING, State.INITIALIZING, State.STOPPING, State.EXITED}


def test_an_unlisted_pair_raises_and_names_both() -> None:
    with pytest.raises(IllegalTransition, match="Initialized cannot lead from STOPPED"):
        expect(State.STOPPED, events.Initialized(0.0))


def test_an_unlisted_target_raises() -> None:
    with pytest.raises(IllegalTransition, match="Start cannot lead from STOPPED to READY"):
        check(State.STOPPED, events.Start(0.0), State.READY)


def test_the_diagram_in_the_documentation_is_the_table() -> None:
    script = ROOT / "scripts" / "draw_lifecycle.py"

    done = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True, timeout=60)

    assert (done.returncode, done.stderr) == (0, "")


def reachable(start: State) -> set[State]:
    found = {start}
    edge = [start]
    while edge:
        state = edge.pop()
        following = {target for (source, _), targets in TRANSITIONS.items() if source is state for target in targets}
        edge += following - found
        found |= following
    return found
