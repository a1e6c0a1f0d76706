"""The official client runs on asyncio here, as its users run it."""

import pytest


@pytest.fixture
def anyio_backend() -> str:
    """Name the event loop for tests marked `anyio`."""
    return "asyncio"
