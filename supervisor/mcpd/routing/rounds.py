"""Handshake-era clients in front of per-request servers: `input_required` becomes questions to the client.

Its answers go back in a retry (2026-07-28, multi round-trip requests). Rounds are bounded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mcpd.routing.backchannel import cancellation, missing_capability
from mcpd.routing.calls import Calls
from mcpd.routing.correlation import Ask, Call, Upstream
from mcpd.routing.effects import Deliver, Effect, Timer
from mcpd.routing.ledger import outcome_of
from mcpd.routing.state import MAX_ASKS, State
from mcpd.wire import meta, methods
from mcpd.wire.jsonrpc import Bytes, Message, WireError, dump, members, pack, request, text, value_of
from mcpd.wire.jsonrpc import result as result_of

MAX_ROUNDS = 16
STATE_ONLY_DELAY = 0.1  # seconds before a retry of a call whose server wants no input, only more time
MARK = b'"input_required"'


class RoundTrips:
    """Leads such calls from round to round. `asks`: the questions that clients have not answered."""

    def __init__(self, state: State, calls: Calls) -> None:
        self._state = state
        self._calls = calls
        self.asks: dict[int, Ask] = {}

    def answered(self, upstream: Upstream, call: Call, message: Message, at: float) -> Sequence[Effect]:
        """A per-request child's result for a handshake-era client: the end, or another round."""
        value = bytes(message.result)
        if MARK in value:
            try:
                found = members(value)
                if text(found.get("resultType", b'""')) == "input_required":
                    return self._begin(upstream, call, found, at)
            except WireError as problem:
                return self._calls.fail(call, methods.INTERNAL_ERROR, f"the server's answer: {problem.message}")
        self._state.done(call, outcome_of(call.method, value))
        plain = meta.plain(value) if meta.RESULT_TYPE in value else value
        if call.on_result is not None:
            plain = call.on_result(plain)
        return (Deliver(call.sink, result_of(call.id, plain, message.extra), True),)

    def _begin(self, upstream: Upstream, call: Call, found: Mapping[str, Bytes], at: float) -> Sequence[Effect]:
        rounds = call.rounds
        assert rounds is not None
        rounds.count += 1
        if rounds.count > MAX_ROUNDS:
            return self._calls.fail(call, methods.INTERNAL_ERROR, f"the server asked for input {MAX_ROUNDS} times")
        call.upstream = None
        rounds.state = bytes(found["requestState"]) if "requestState" in found else None
        rounds.answers = {}
        wanted = members(found["inputRequests"]) if "inputRequests" in found else {}
        if not wanted:
            return (Timer(STATE_ONLY_DELAY, call),)
        if len(wanted) > MAX_ASKS:
            return self._calls.fail(call, methods.INTERNAL_ERROR, f"the server asked for {len(wanted)} inputs")
        effects: list[Effect] = []
        for key, raw in wanted.items():
            question = members(raw)
            method, params = text(question.get("method", b"null")), bytes(question.get("params", b"{}"))
            if method == methods.ELICITATION:
                params = _with_elicitation_id(params, self._state.next_id())
            if method == methods.ROOTS_LIST and upstream.party is None:
                roots = [{"uri": uri} for uri in rounds.server.roots]
                rounds.answers[key] = dump({"roots": roots})
                continue
            missing = missing_capability(call.session, method, params)
            if missing is not None:
                self._drop_open(call)
                why = f"the server asks for {missing[0]}, which this client does not support"
                return self._calls.fail(call, methods.INVALID_REQUEST, why)
            ask = Ask(upstream, b"", call.session, call, self._state.next_id(), at + self._state.input_timeout, key)
            rounds.open[key] = ask
            self.asks[ask.number] = ask
            call.session.asks[ask.number] = ask
            effects.append(Deliver(call.sink, request(b"%d" % ask.number, method, params)))
        return effects if rounds.open else self.retry(call, at)

    def client_answered(self, ask: Ask, message: Message, at: float) -> Sequence[Effect]:
        """One answer of the client; the last one of a round leads to the retry."""
        call = ask.call
        assert call is not None
        rounds = call.rounds
        assert rounds is not None
        assert ask.key is not None
        self._drop(ask)
        if call.over:
            return ()
        if not len(message.result):
            self._drop_open(call)
            found = value_of(message.error)
            why = found.get("message", "") if isinstance(found, dict) else ""
            return self._calls.fail(call, methods.INTERNAL_ERROR, f"the client refused what the server asked: {why}")
        rounds.answers[ask.key] = bytes(message.result)
        return () if rounds.open else self.retry(call, at)

    def retry(self, call: Call, at: float) -> Sequence[Effect]:
        """Ask the server again, with the answers that it wanted."""
        rounds = call.rounds
        if rounds is None or call.over:
            return ()
        upstream = rounds.server.pick(call.session)
        if upstream is None:
            why = f"server {rounds.server.name!r} went away while the client was asked"
            return self._calls.fail(call, methods.SERVER_UNAVAILABLE, why)
        params: dict[str, Bytes] = dict(members(rounds.params)) if rounds.params else {}
        if rounds.answers:
            params["inputResponses"] = pack(rounds.answers)
        if rounds.state is not None:
            params["requestState"] = rounds.state
        return self._calls.send(call, upstream, rounds.method, pack(params), rounds.extra, at)

    def give_up(self, call: Call) -> list[Effect]:
        """Nobody waits for this call any more: the client need not answer its questions."""
        told: list[Effect] = [Deliver(call.sink, cancellation(ask.number, "the call is over")) for ask in _open(call)]
        self._drop_open(call)
        return told

    def expire(self, at: float) -> list[Effect]:
        """Fail the calls whose clients do not answer."""
        effects: list[Effect] = []
        for ask in tuple(self.asks.values()):
            if ask.deadline <= at and ask.number in self.asks:
                call = ask.call
                assert call is not None
                effects += self.give_up(call)
                if not call.over:
                    effects += self._calls.fail(call, methods.REQUEST_TIMEOUT, "the client did not answer in time")
        return effects

    def _drop(self, ask: Ask) -> None:
        self.asks.pop(ask.number, None)
        ask.session.asks.pop(ask.number, None)
        assert ask.call is not None
        assert ask.call.rounds is not None
        assert ask.key is not None
        ask.call.rounds.open.pop(ask.key, None)

    def _drop_open(self, call: Call) -> None:
        for ask in _open(call):
            self._drop(ask)


def _with_elicitation_id(params: bytes, number: int) -> bytes:
    """Params of an elicitation by URL with the id that handshake-era clients expect (2025-11-25, elicitation; the
    per-request era has none)."""
    if b"url" not in params:
        return params
    found = members(params)
    if value_of(found.get("mode", b"null")) != "url" or "elicitationId" in found:
        return params
    return pack({**found, "elicitationId": dump(f"mcpd-{number}")})


def _open(call: Call) -> list[Ask]:
    return list(call.rounds.open.values()) if call.rounds is not None else []
