"""Per-request clients in front of handshake-era servers: a child's question parks the call until the client comes back.

The client is answered `input_required` with a handle (2026-07-28, multi round-trip requests): random, good for one
retry by the same principal with the same method and parameters at the same view, and only for a while.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence

from mcpd.routing.correlation import Ask, Call
from mcpd.routing.effects import Deliver, Effect, Timer, WriteLine
from mcpd.routing.ledger import outcome_of
from mcpd.routing.rewriting import newer_code, progress_token
from mcpd.routing.state import CANCEL_GRACE, State
from mcpd.wire import meta, methods
from mcpd.wire.address import View
from mcpd.wire.jsonrpc import Bytes, Message, dump, error, failure, members, notification, pack, result, text, value_of

WINDOW = 0.03  # seconds in which further questions of the same call are collected
MAX_PARKED = 4096
MAX_PARKED_A_PRINCIPAL = 256
HANDLE_MARK = "mcpd:"


class ParkingLot:
    """The parked calls, by their handles. `new_handle` gives 128 random bits as text."""

    def __init__(self, state: State, new_handle: Callable[[], str]) -> None:
        self._state = state
        self._new_handle = new_handle
        self._parked: dict[str, Call] = {}

    def __len__(self) -> int:
        return len(self._parked)

    def ask(self, ask: Ask, call: Call, message: Message, params: bytes) -> Sequence[Effect]:
        """A child's question for a per-request client; the first opens the window in which more are collected."""
        parking = call.parking
        assert parking is not None
        ask.request = pack({"method": dump(message.method), "params": params or b"{}"})
        parking.questions[str(ask.number)] = ask
        if parking.collecting:
            return ()
        parking.collecting = True
        return (Timer(WINDOW, call),)

    def window_over(self, call: Call, at: float) -> Sequence[Effect]:
        """Answer `input_required` with what was collected."""
        parking = call.parking
        if parking is None:
            return ()
        parking.collecting = False
        if call.over or parking.handle is not None or not parking.questions:
            return ()
        upstream = call.upstream
        assert upstream is not None
        principal = call.session.principal
        mine = sum(1 for one in self._parked.values() if one.session.principal == principal)
        if len(self._parked) >= MAX_PARKED or mine >= MAX_PARKED_A_PRINCIPAL:
            return self.refuse_all(call, "too many calls wait for input already")
        handle = HANDLE_MARK + self._new_handle()
        parking.handle = handle
        parking.until = at + self._state.input_timeout
        for ask in parking.questions.values():
            ask.deadline = parking.until
        self._parked[handle] = call
        self._state.drop(call)
        upstream.deactivate()
        value = pack(
            {
                "resultType": b'"input_required"',
                "inputRequests": pack({key: ask.request for key, ask in parking.questions.items()}),
                "requestState": dump(handle),
                "_meta": pack({meta.SERVER_INFO: upstream.info.server_info}),
            }
        )
        return (Deliver(call.sink, result(call.id, value), True),)

    def resume(self, retry: Call, handle: str, message: Message, at: float) -> Sequence[Effect] | None:
        """The client is back with (some) answers; None if the handle is not good for this request."""
        call = self._parked.get(handle)
        if call is None or not _may_resume(call, retry, message):
            return None
        del self._parked[handle]
        parking, upstream = call.parking, call.upstream
        assert parking is not None
        assert upstream is not None
        parking.handle = None
        retry.session.calls[retry.id] = call
        call.session, call.id, call.sink = retry.session, retry.id, retry.sink
        call.token = progress_token(message.given)  # each request has one of its own
        if parking.outcome is not None:
            return self.settle(call, parking.outcome)
        upstream.activate(call)
        call.deadline = min(at + upstream.server.call_timeout, call.hard_deadline)
        given = members(message.params).get("inputResponses")
        answers = members(given) if given is not None and bytes(given) != b"null" else {}
        effects: list[Effect] = []
        for key in answers.keys() & parking.questions.keys():
            ask = parking.questions.pop(key)
            upstream.asks.pop(ask.child_id, None)
            effects.append(WriteLine(upstream.key, result(ask.child_id, answers[key])))
        if parking.questions:
            effects += self.window_over(call, at)
        return effects

    def settle(self, call: Call, outcome: Message) -> Sequence[Effect]:
        """The child's answer to a call that had been parked."""
        call.over = True
        ended = outcome_of(call.method, bytes(outcome.result)) if len(outcome.result) else "error"
        self._state.done(call, ended)
        upstream = call.upstream
        assert upstream is not None
        if len(outcome.result):
            value = bytes(outcome.result)
            if call.on_result is not None:
                value = call.on_result(value)
            value = meta.complete(value, call.method, upstream.info.server_info)
            return (Deliver(call.sink, result(call.id, value, outcome.extra), True),)
        return (Deliver(call.sink, failure(call.id, newer_code(outcome.error), outcome.extra), True),)

    def forget_question(self, ask: Ask) -> None:
        """The child took a question back, or has been refused it."""
        if ask.call is not None and ask.call.parking is not None:
            ask.call.parking.questions.pop(str(ask.number), None)

    def abandon(self, principal: str, view: View, at: float) -> None:
        """A client will not come back: what it was asked expires now."""
        for call in self._parked.values():
            if (call.session.principal, call.session.view) == (principal, view) and call.parking is not None:
                call.parking.until = at
                for ask in call.parking.questions.values():
                    ask.deadline = at

    def expire(self, at: float) -> list[Effect]:
        """Give up the calls whose clients did not come back; their questions have expired by themselves."""
        effects: list[Effect] = []
        for handle, call in tuple(self._parked.items()):
            assert call.parking is not None
            if call.parking.until > at:
                continue
            del self._parked[handle]
            self._state.done(call, "no-input")
            call.over = True
            call.parking.handle = None
            upstream = call.upstream
            assert upstream is not None
            number = next((number for number, one in upstream.calls.items() if one is call), 0)
            if number:
                upstream.activate(call)  # until the child has noticed
                call.ghost_until = call.hard_deadline
                call.deadline = at + CANCEL_GRACE
                params = dump({"requestId": number, "reason": "the client did not come back with its input"})
                effects.append(WriteLine(upstream.key, notification(methods.CANCELLED, params)))
        return effects

    def refuse_all(self, call: Call, why: str) -> list[Effect]:
        """Nobody will be asked: the child gets an error for each of its open questions of this call."""
        parking, upstream = call.parking, call.upstream
        assert parking is not None
        assert upstream is not None
        effects: list[Effect] = []
        for ask in parking.questions.values():
            upstream.asks.pop(ask.child_id, None)
            effects.append(WriteLine(upstream.key, error(ask.child_id, methods.SERVER_UNAVAILABLE, why)))
        parking.questions.clear()
        return effects


def handle_of(message: Message) -> str | None:
    """The `requestState` of a retry, where it is one that we gave."""
    given = message.given
    state = text(given["requestState"]) if "requestState" in given else ""
    return state if state.startswith(HANDLE_MARK) else None


def digest_of(params: Bytes) -> bytes:
    """What a request asks for, whatever the order and spelling of its members: its metadata and input aside."""
    found = members(params) if len(params) else {}
    asked = {
        key: value_of(value) for key, value in found.items() if key not in ("_meta", "inputResponses", "requestState")
    }
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).digest()


def _may_resume(call: Call, retry: Call, message: Message) -> bool:
    return (
        call.session.principal == retry.session.principal
        and call.session.view == retry.session.view
        and call.method == message.method
        and call.message is not None
        and digest_of(call.message.params) == digest_of(message.params)
    )
