"""Commands for several servers at once, with all that happens meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mcpd.cli.acting import act
from mcpd.control.client import ControlClient, NoDaemon, Refused
from mcpd.control.view import Event
from support.memory_fleet import MemoryServer, ServedFleet, served_fleet


@pytest.fixture
def served(tmp_path: Path) -> Iterator[ServedFleet]:
    servers = [MemoryServer(f"s{n}") for n in range(20)]
    with served_fleet(tmp_path, *servers, MemoryServer("broken", ["no such module"] * 9)) as fleet:
        yield fleet


@pytest.fixture
def client(served: ServedFleet) -> ControlClient:
    return ControlClient(served.socket_path)


def test_every_event_of_the_servers_is_seen_once_and_in_order(client: ControlClient) -> None:
    client.start("s7")
    seen: list[Event] = []
    names = [f"s{n}" for n in range(7)]

    outcomes = act(client, client.start, names, seen.append)

    assert list(outcomes) == names
    assert all(outcome.ok for outcome in outcomes.values())
    for name in names:
        assert [event.new for event in seen if event.server == name] == ["STARTING", "INITIALIZING", "READY"]
    assert [event.seq for event in seen] == sorted({event.seq for event in seen})
    assert {event.server for event in seen} == set(names)


def test_one_that_fails_hinders_no_other(client: ControlClient) -> None:
    seen: list[Event] = []

    outcomes = act(client, client.start, ["broken", "s0"], seen.append)

    assert (outcomes["broken"].ok, outcomes["broken"].reason) == (False, "no such module")
    assert outcomes["s0"].ok
    assert [event.new for event in seen if event.server == "broken"][-1] == "BACKOFF"


def test_nothing_to_do_is_done(client: ControlClient) -> None:
    assert act(client, client.start, [], lambda event: None) == {}


def test_a_command_that_is_refused_is_raised(client: ControlClient) -> None:
    with pytest.raises(Refused, match="there is no server 'none'"):
        act(client, client.start, ["none", "s0"], lambda event: None)


def test_a_daemon_that_goes_away_is_said(served: ServedFleet, client: ControlClient) -> None:
    def shut_down_first(name: str) -> object:
        client.shutdown()
        served.thread.join(10)
        return client.start(name)

    with pytest.raises(NoDaemon):
        act(client, shut_down_first, ["s0"], lambda event: None)  # type: ignore[arg-type]


def test_a_gap_in_the_events_does_not_confuse_it(served: ServedFleet, client: ControlClient) -> None:
    seen: list[Event] = []

    def flood(name: str) -> object:
        served.do("flood", name, 1000)
        return client.start(name)

    assert act(client, flood, ["s0"], seen.append)["s0"].ok  # type: ignore[arg-type]

    assert len(seen) < 1000
    assert [event.seq for event in seen] == sorted({event.seq for event in seen})
    assert seen[-1].new == "READY"
