"""Every test of a process runs on both event loops, contained or not where it asks for it."""

from __future__ import annotations

import pytest


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": request.param}


@pytest.fixture(params=[True, False], ids=["contained", "bare"])
def contained(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)
