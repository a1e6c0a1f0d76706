"""The structs of the seam are the JSON of the socket: its names are a promise."""

from __future__ import annotations

import inspect

import msgspec
import pytest

from mcpd.control import view
from mcpd.control.view import Event, Gap, ServerStatus, ToolStatus

STRUCTS = [kind for _, kind in inspect.getmembers(view, inspect.isclass) if issubclass(kind, msgspec.Struct)]


def test_an_event_has_the_names_that_are_documented() -> None:
    event = Event(seq=7, at=1.5, server="time", instance="time@2", generation=3, old="READY", new="EXITED", reason="x")

    assert msgspec.json.decode(msgspec.json.encode(event)) == {
        "kind": "event",
        "seq": 7,
        "at": 1.5,
        "server": "time",
        "instance": "time@2",
        "generation": 3,
        "from": "READY",
        "to": "EXITED",
        "reason": "x",
    }


@pytest.mark.parametrize("one", [Event(seq=1, at=2.0), Gap(missed=3)])
def test_events_and_gaps_are_told_apart(one: Event | Gap) -> None:
    decoder: msgspec.json.Decoder[Event | Gap] = msgspec.json.Decoder(Event | Gap)

    assert decoder.decode(msgspec.json.encode(one)) == one


def test_a_tools_schema_passes_as_it_is() -> None:
    tool = ToolStatus(
        server="a", name="b", public_name="a__b", input_schema=msgspec.Raw(b'{"x":  12345678901234567890}')
    )

    assert b'"input_schema":{"x":  12345678901234567890}' in msgspec.json.encode(tool)


@pytest.mark.parametrize("kind", STRUCTS)
def test_an_older_tool_understands_a_newer_daemon(kind: type[msgspec.Struct]) -> None:
    """A field that it does not know is no error."""
    assert kind.__struct_config__.forbid_unknown_fields is False
    assert kind.__struct_config__.frozen


def test_a_newer_tool_understands_an_older_daemon() -> None:
    assert msgspec.json.decode(b'{"name":"a","state":"READY","since":1}', type=ServerStatus).restarts == 0
