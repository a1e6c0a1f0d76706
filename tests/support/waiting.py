"""Wait for a fact that nothing announces."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

DEADLINE: Final = 10.0  # seconds
_LOOK_EVERY: Final = 0.001


async def until(fact: Callable[[], Any], deadline: float = DEADLINE) -> Any:
    """What `fact()` gives, as soon as that is true. Raises TimeoutError after `deadline` seconds."""
    async with asyncio.timeout(deadline):
        while not (found := fact()):
            await asyncio.sleep(_LOOK_EVERY)
    return found
