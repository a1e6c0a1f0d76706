"""The framework's tests run on asyncio, as the framework does."""

import pytest


@pytest.fixture
def anyio_backend() -> str:
    """Name the event loop for tests marked `anyio`."""
    return "asyncio"
