"""Asks a READY process for signs of life, and tells what that shows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from mcpd.clock import Clock
from mcpd.config.registry import ProbeSpec
from mcpd.errors import CallTimeout, Overloaded, ServerFault
from mcpd.fleet.calls import ErrorAnswer, OwnCalls
from mcpd.wire import methods

Ended = Callable[[float, bool], None]
"""Told when the probe was sent, and whether it was answered."""


async def probe_for_ever(spec: ProbeSpec, calls: OwnCalls, clock: Clock, ended: Ended) -> None:
    """One probe each `spec.period`; ends by cancellation, or when the process is gone."""
    await asyncio.sleep(spec.initial_delay)
    wait = spec.period
    while True:
        await asyncio.sleep(wait)
        asked_at = clock.monotonic()
        try:
            answered = await _probe(calls, spec.timeout)
        except ServerFault:  # it is gone: the news of that travels by another way
            return
        ended(asked_at, answered)
        wait = max(0.0, spec.period - (clock.monotonic() - asked_at))


async def _probe(calls: OwnCalls, timeout: float) -> bool:
    """A ping, or what takes its place without a handshake. Any answer counts, an error too (2025-11-25,
    basic/utilities/ping)."""
    try:
        await calls.request(methods.PING if calls.client is None else methods.DISCOVER, timeout=timeout)
    except ErrorAnswer:
        return True
    except (CallTimeout, Overloaded):
        return False
    return True
