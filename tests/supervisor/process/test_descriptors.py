"""What is kept of descriptors for clients and operators."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator

import pytest

from mcpd.errors import SpawnError
from mcpd.process import descriptors


@pytest.fixture(autouse=True)
def limit() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_start_is_refused_when_few_are_left() -> None:
    descriptors.check_left()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + descriptors.RESERVED - 2, hard))

    with pytest.raises(SpawnError, match="descriptors are left, and 32 are kept") as refused:
        descriptors.check_left()

    assert refused.value.result == "resources"


def test_the_limit_is_raised_as_far_as_may_be() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))

    descriptors.raise_limit()

    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
