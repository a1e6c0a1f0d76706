"""The one coarse timer."""

from __future__ import annotations

import asyncio

import pytest

from mcpd.frontdoor.ticker import Ticker
from support.door import HandClock

pytestmark = pytest.mark.anyio


async def test_callbacks_are_called_until_it_is_stopped() -> None:
    ticker = Ticker(HandClock(), period=0.001)
    thrice = asyncio.Event()
    calls: list[float] = []

    def count() -> None:
        calls.append(ticker.now)
        if len(calls) == 3:
            ticker.stop()
            thrice.set()

    ticker.callbacks.append(count)
    ticker.start()
    async with asyncio.timeout(5):
        await thrice.wait()

    assert calls == sorted(calls)
    assert len(calls) == 3


async def test_now_is_the_time_of_the_last_beat() -> None:
    clock = HandClock()
    ticker = Ticker(clock)
    before = ticker.now
    clock.ahead = 100.0

    assert ticker.now == before
    ticker.beat()
    assert ticker.now >= before + 100.0
    ticker.stop()
