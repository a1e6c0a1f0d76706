"""From what is wanted and what is there to what has to be done."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpd.config.registry import ServerSpec
from mcpd.lifecycle.reconcile import (
    Action,
    Adopt,
    Create,
    Lower,
    Lull,
    Observed,
    Orders,
    Raise,
    Remove,
    Renew,
    Wish,
    instance_keys,
    is_second_era,
    reconcile,
)
from mcpd.lifecycle.states import State


def spec(name: str = "time", **keys: object) -> ServerSpec:
    return ServerSpec.model_validate({"name": name, "command": ("/bin/true",), **keys})


def seen(state: State, of: ServerSpec | None = None) -> dict[str, Observed]:
    entry = of or spec()
    return {key: Observed(entry.name, state, entry) for key in instance_keys(entry)}


def test_a_new_server_is_made_and_raised() -> None:
    assert reconcile({"time": spec()}, {}, {}) == [Create("time", spec()), Raise("time")]


def test_a_pool_has_an_instance_for_each_number() -> None:
    pool = spec(instances=3)

    created = [action.key for action in reconcile({"time": pool}, {}, {}) if isinstance(action, Create)]

    assert created == ["time", "time@2", "time@3"]


def test_a_server_of_both_eras_has_an_instance_more() -> None:
    assert instance_keys(spec(era="both", instances=2)) == ("time", "time@2", "time@per-request")
    assert [key for key in instance_keys(spec(era="both")) if is_second_era(key)] == ["time@per-request"]


def test_a_smaller_pool_loses_the_highest_numbers() -> None:
    observed = {key: Observed("time", State.READY, spec(instances=3)) for key in instance_keys(spec(instances=3))}

    actions = reconcile({"time": spec()}, {}, observed)

    assert [action.key for action in actions if isinstance(action, Remove)] == ["time@2", "time@3"]


def test_what_is_in_no_registry_any_more_is_removed_first() -> None:
    assert reconcile({"new": spec("new")}, {}, seen(State.READY))[0] == Remove("time")


@pytest.mark.parametrize("state", sorted(set(State) - {State.STOPPED, State.DISABLED, State.IDLE}))
def test_what_is_up_or_has_its_own_plans_is_left_alone(state: State) -> None:
    assert reconcile({"time": spec()}, {}, seen(state)) == []


def test_an_idle_server_stays_idle_while_it_is_known() -> None:
    lazy = spec(activation="lazy")
    idle = seen(State.IDLE, lazy)

    assert reconcile({"time": lazy}, {}, idle, known={"time"}) == []
    assert reconcile({"time": lazy}, {}, idle) == [Raise("time")]
    assert reconcile({"time": spec()}, {}, seen(State.IDLE))[-1] == Raise("time")


def test_a_known_lazy_server_is_not_started_and_an_unknown_one_is_learnt_from_its_first_instance() -> None:
    lazy = spec(activation="lazy", instances=2)
    stopped = seen(State.STOPPED, lazy)

    assert reconcile({"time": lazy}, {}, stopped, known={"time"}) == [Lull("time"), Lull("time@2")]
    assert reconcile({"time": lazy}, {}, stopped) == [Raise("time"), Lull("time@2")]
    assert reconcile({"time": lazy}, {}, stopped, Orders(start={"time"}), {"time"})[0] == Raise("time", asked=True)


def test_a_server_of_sessions_own_instances_has_one_of_its_own() -> None:
    assert instance_keys(spec(sharing="session", instances=3, era="both")) == ("time",)


def test_an_operators_stop_outlives_reconcile() -> None:
    assert reconcile({"time": spec()}, {"time": Wish.DOWN}, seen(State.STOPPED)) == []
    assert reconcile({"time": spec()}, {"time": Wish.DOWN}, seen(State.READY)) == [Lower("time", disabled=False)]


def test_a_disabled_server_is_lowered_whatever_the_operator_wished() -> None:
    off = spec(enabled=False)

    assert reconcile({"time": off}, {"time": Wish.UP}, seen(State.READY, off)) == [Lower("time", disabled=True)]
    assert reconcile({"time": off}, {"time": Wish.UP}, seen(State.DISABLED, off)) == []


def test_an_enabled_server_that_was_disabled_is_raised() -> None:
    observed = {"time": Observed("time", State.DISABLED, spec(enabled=False))}

    assert reconcile({"time": spec()}, {}, observed) == [Adopt("time", spec(), restart=False), Raise("time")]


def test_a_changed_entry_restarts_only_where_it_must() -> None:
    changed = spec(args=("-v",))

    assert reconcile({"time": changed}, {}, seen(State.READY), Orders(replace={"time"})) == [
        Adopt("time", changed, restart=True)
    ]
    assert reconcile({"time": changed}, {}, seen(State.READY)) == [Adopt("time", changed, restart=False)]


def test_a_failed_server_is_raised_by_a_changed_entry_only() -> None:
    changed = spec(args=("-v",))

    assert reconcile({"time": changed}, {}, seen(State.FAILED), Orders(replace={"time"}))[-1] == Raise("time")
    assert reconcile({"time": spec()}, {}, seen(State.FAILED)) == []


def test_an_operators_start_and_restart_go_to_servers_in_any_state_but_not_to_those_that_are_to_be_down() -> None:
    assert reconcile({"time": spec()}, {}, seen(State.FAILED), Orders(start={"time"})) == [Raise("time", asked=True)]
    assert reconcile({"time": spec()}, {}, seen(State.READY), Orders(restart={"time"})) == [Renew("time")]
    off = spec(enabled=False)
    assert reconcile({"time": off}, {}, seen(State.DISABLED, off), Orders(start={"time"}, restart={"time"})) == []


NAMES = st.sampled_from(["a", "b", "c"])
SPECS = st.builds(
    spec, NAMES, enabled=st.booleans(), instances=st.integers(1, 3), activation=st.sampled_from(["eager", "lazy"])
)
RESTING = st.sampled_from([State.STOPPED, State.DISABLED, State.IDLE, State.FAILED, State.READY, State.BACKOFF])


def carried_out(observed: dict[str, Observed], actions: list[Action]) -> dict[str, Observed]:
    """What is observed once all actions had their effect."""
    after = dict(observed)
    for action in actions:
        match action:
            case Create(key, entry):
                after[key] = Observed(entry.name, State.STOPPED, entry)
            case Remove(key):
                del after[key]
            case Adopt(key, entry, _):
                after[key] = Observed(entry.name, after[key].state, entry)
            case Raise(key) | Renew(key):
                after[key] = Observed(after[key].server, State.READY, after[key].spec)
            case Lull(key):
                after[key] = Observed(after[key].server, State.IDLE, after[key].spec)
            case Lower(key, disabled):
                state = State.DISABLED if disabled else State.STOPPED
                after[key] = Observed(after[key].server, state, after[key].spec)
    return after


@given(
    wanted=st.lists(SPECS, max_size=3, unique_by=lambda one: one.name),
    observed=st.lists(st.tuples(SPECS, RESTING), max_size=3, unique_by=lambda one: one[0].name),
    wishes=st.dictionaries(NAMES, st.sampled_from(Wish)),
    restart=st.sets(NAMES),
    known=st.sets(NAMES),
)
def test_once_carried_out_nothing_is_left_to_do(
    wanted: list[ServerSpec],
    observed: list[tuple[ServerSpec, State]],
    wishes: dict[str, Wish],
    restart: set[str],
    known: set[str],
) -> None:
    registry = {entry.name: entry for entry in wanted}
    before = {key: Observed(entry.name, state, entry) for entry, state in observed for key in instance_keys(entry)}

    actions = reconcile(registry, wishes, before, Orders(replace=restart), known)

    assert reconcile(registry, wishes, carried_out(before, actions), known=known) == []
