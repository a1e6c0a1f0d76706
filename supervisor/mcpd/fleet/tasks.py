"""Who starts tasks, as those see it that need one."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Protocol


class Tasks(Protocol):
    """Starts a named task that somebody else owns."""

    def __call__(self, work: Coroutine[object, object, None], name: str) -> asyncio.Task[None]: ...
