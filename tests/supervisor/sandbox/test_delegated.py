"""Control groups for real: children in groups of a kernel of the test's own, which delegates all that mcpd can use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support import delegated
from support.own_kernel import run_delegated

pytestmark = [pytest.mark.long, pytest.mark.timeout(700)]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return run_delegated(tmp_path_factory.mktemp("kernel"), Path(delegated.__file__))


@pytest.fixture(params=["root", "ordinary"])
def seen(request: pytest.FixtureRequest, both: dict[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(both[request.param])
    return found


def test_a_delegated_group_is_claimed_and_servers_are_contained_in_it(seen: dict[str, Any]) -> None:
    assert (seen["claimed"], seen["weakness"], seen["controllers"]) == (True, "", ["cpu", "memory", "pids"])


@pytest.mark.parametrize("attack", ["hog", "memfd"])
def test_memory_is_the_kernels_limit_and_the_figure_is_told(seen: dict[str, Any], attack: str) -> None:
    assert seen[attack]["result"] == "oom-kill"
    assert seen[attack]["text"].endswith("MiB used, limit 96 MiB")
    assert seen[attack]["in force"] == {
        "memory": "96MiB by cgroup",
        "pids": "20 by cgroup",
        "cpu": "0.2 by cgroup",
        "nofile": "256 by rlimit",
        "fsize": "256MiB by rlimit",
    }


def test_processes_are_the_kernels_limit(seen: dict[str, Any]) -> None:
    count, problem = seen["pids"]["forks"]

    assert (seen["pids"]["max"], problem) == ("20", "EAGAIN")
    assert count < 20
    assert seen["pids"]["events"]["max"] >= 1


def test_processor_time_is_the_kernels_limit(seen: dict[str, Any]) -> None:
    assert 0.1 < seen["cpu"]["share"] < 0.3
    assert seen["cpu"]["throttled"] >= 10


def test_a_tree_that_ignores_everything_is_ended_by_its_group(seen: dict[str, Any]) -> None:
    assert (seen["kill"]["done"], seen["kill"]["signal"]) == (True, 9)
    assert seen["kill"]["before"] >= 4


def test_nothing_is_left(seen: dict[str, Any]) -> None:
    assert seen["groups left"] == []
    assert seen["processes left"] == 0
