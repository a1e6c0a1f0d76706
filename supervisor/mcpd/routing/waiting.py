"""Calls that wait: for an instance, for a server that another session holds, for lists that are not known yet."""

from __future__ import annotations

from mcpd.errors import Overloaded
from mcpd.routing.calls import Calls
from mcpd.routing.correlation import Phase, Server
from mcpd.routing.effects import Deliver, Effect
from mcpd.routing.requests import Requests
from mcpd.routing.state import State
from mcpd.wire import methods
from mcpd.wire.jsonrpc import error


class WaitingRoom:
    """Tries again what waits, fails what has waited too long."""

    def __init__(self, state: State, calls: Calls, requests: Requests) -> None:
        self._state = state
        self._calls = calls
        self._requests = requests

    def release(self, server: Server, at: float) -> list[Effect]:
        """Try again what waits for a server; what still cannot go waits on, with the deadline that it had."""
        waiting, server.waiting = server.waiting, []
        effects: list[Effect] = []
        for call in waiting:
            message = call.message
            if call.over or message is None:
                continue
            deadline = call.deadline
            try:
                effects += self._requests.handle(call, message, at)
            except Overloaded as problem:
                data = {"retryAfter": problem.retry_after}
                effects.append(Deliver(call.sink, error(call.id, methods.SERVER_UNAVAILABLE, str(problem), data), True))
            if call.upstream is None:
                call.deadline = deadline
        return effects

    def release_lists(self, at: float) -> list[Effect]:
        """Answer the list requests whose servers are all known by now, or that have waited long enough."""
        waiting, self._requests.awaiting_lists = self._requests.awaiting_lists, []
        effects: list[Effect] = []
        for call in waiting:
            message = call.message
            if call.over or message is None:
                continue
            call.patient = call.deadline > at
            effects += self._requests.handle(call, message, at)
        return effects

    def fail(self, server: Server, reason: str) -> list[Effect]:
        waiting, server.waiting = server.waiting, []
        effects: list[Effect] = []
        for call in waiting:
            if not call.over:
                why = f"server {server.name!r} is not running: {reason}"
                effects += self._calls.fail(call, methods.SERVER_UNAVAILABLE, why)
        return effects

    def expire(self, server: Server, at: float) -> list[Effect]:
        waiting, server.waiting = server.waiting, []
        effects: list[Effect] = []
        for call in waiting:
            if call.over:
                continue
            if call.deadline > at:
                server.waiting.append(call)
                continue
            self._state.counters.timeouts += 1
            why = f"server {server.name!r} could not take the call in time: {_obstacle(server)}"
            effects += self._calls.fail(call, methods.SERVER_UNAVAILABLE, why)
        return effects


def _obstacle(server: Server) -> str:
    """Why a server could take no call."""
    if server.phase is not Phase.UP:
        return "it is still starting"
    if all(upstream.draining for upstream in server.upstreams):
        return f"it is not ready; `mcpctl status {server.name}` says why"
    return "it is serving another client that it may have to ask something"
