"""A command for servers, and what happens to them while it is carried out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from mcpd.control.client import ControlClient, EventStream, NoDaemon
from mcpd.control.view import Event, Gap, Outcome
from mcpd.errors import McpdError

Command = Callable[[str], Outcome]


@dataclass
class _Work:
    """Commands under way, each in a thread of its own; the last to end hangs up the events."""

    outcomes: dict[str, Outcome] = field(default_factory=dict)
    errors: list[McpdError] = field(default_factory=list)
    left: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self, command: Command, name: str, events: EventStream) -> None:
        try:
            outcome = command(name)
            with self.lock:
                self.outcomes[name] = outcome
        except McpdError as error:
            with self.lock:
                self.errors.append(error)
        finally:
            with self.lock:
                self.left -= 1
                is_last = self.left == 0
            if is_last:
                events.hang_up()


def act(
    client: ControlClient, command: Command, names: Sequence[str], on_event: Callable[[Event], None]
) -> dict[str, Outcome]:
    """Run `command` for all `names` at once; `on_event` sees their changes of state as they come, and all of them.

    Returns when each is done. Raises what the first command raised that could not be carried out at all. An exception
    here (Ctrl-C) leaves the commands to the daemon, which goes on with them.
    """
    last = _newest(client)
    work = _Work(left=len(names))
    if not names:
        return {}
    with client.events(after=last, follow=True) as events:
        for name in names:
            threading.Thread(target=work.run, args=(command, name, events), name=f"act:{name}", daemon=True).start()
        last = _tell(events, names, last, on_event)
    if work.errors:
        raise work.errors[0]
    if work.left:
        raise NoDaemon("the daemon went away before it was done; see its log")
    with client.events(after=last) as rest:  # what came in the moment of hanging up
        _tell(rest, names, last, on_event)
    return {name: work.outcomes[name] for name in names}


def _newest(client: ControlClient) -> int:
    with client.events(after=-1) as events:
        return max((event.seq for event in events if isinstance(event, Event)), default=0)


def _tell(events: EventStream, names: Sequence[str], last: int, on_event: Callable[[Event], None]) -> int:
    """Returns the number of the last event."""
    for event in events:
        if isinstance(event, Gap):
            last += event.missed
            continue
        last = event.seq
        if event.server in names:
            on_event(event)
    return last
