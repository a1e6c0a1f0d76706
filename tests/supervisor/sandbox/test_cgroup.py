"""Which control groups are taken for delegated, and what is written to them; in directories that look like some."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mcpd.config.registry import LimitsSpec
from mcpd.sandbox import cgroup
from mcpd.sandbox.cgroup import CgroupHome, claim
from mcpd.sandbox.limits import limits, missing_for_cgroup

ALL = frozenset({"memory", "pids", "cpu"})


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A /proc/self of a process in the group /a of a hierarchy at tmp_path/mount."""
    group = tmp_path / "mount" / "a"
    group.mkdir(parents=True)
    (group / "cgroup.procs").write_text(f"{os.getpid()}\n")
    (group / "cgroup.controllers").write_text("cpuset cpu memory pids\n")
    (group / "cgroup.subtree_control").write_text("")
    found = tmp_path / "proc"
    found.mkdir()
    (found / "mountinfo").write_text(f"30 20 0:26 / {tmp_path}/mount rw - cgroup2 cgroup2 rw\n")
    (found / "cgroup").write_text("1:name=systemd:/x\n0::/a\n")
    return found


def test_delegated_group_is_claimed(proc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup, "_is_marked", lambda path, name: True)
    home, reason = claim(proc)

    group = tmp_path / "mount" / "a"
    assert reason == ""
    assert home == CgroupHome(group, ALL)
    assert (group / "daemon" / "cgroup.procs").read_text() == str(os.getpid())
    assert (group / "cgroup.subtree_control").read_text() == "+memory +pids +cpu"


@pytest.mark.parametrize(
    ("file", "text", "reason"),
    [
        ("mount/a/cgroup.procs", "1\n2\n", "other processes"),
        ("mount/a/cgroup.controllers", "hugetlb\n", "no controllers memory and pids"),
        ("proc/cgroup", "3:memory:/a\n", "no control group hierarchy"),
        ("proc/mountinfo", "30 20 0:26 / /x rw - tmpfs tmpfs rw\n", "no control group hierarchy"),
        ("proc/cgroup", "0::/elsewhere\n", "not delegated"),
    ],
)
def test_what_was_not_delegated_is_left_alone(
    proc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, text: str, reason: str
) -> None:
    monkeypatch.setattr(cgroup, "_is_marked", lambda path, name: True)
    (tmp_path / file).write_text(text)
    home, why = claim(proc)

    assert home is None
    assert reason in why
    assert not (tmp_path / "mount" / "a" / "daemon").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="others are kept out by modes")
def test_root_takes_only_what_is_marked(proc: Path) -> None:
    home, why = claim(proc)

    assert home is None
    assert "not marked as delegated" in why


def test_limits_are_written(tmp_path: Path) -> None:
    kept = limits(LimitsSpec(memory="64MiB", pids=7, cpu=0.5), controllers=ALL, counts_processes=True)
    group = CgroupHome(tmp_path, ALL).create("one", kept)

    written = {path.name: path.read_text() for path in group.path.iterdir()}
    assert written.pop("memory.swap.max", "0") == "0"
    assert written == {
        "memory.max": str(64 * 2**20),
        "memory.oom.group": "1",
        "pids.max": "7",
        "cpu.max": "50000 100000",
    }


def test_what_is_in_force_is_told() -> None:
    spec = LimitsSpec()
    with_group = limits(spec, controllers=ALL, counts_processes=True)
    without = limits(spec, controllers=frozenset(), counts_processes=True)
    watched = limits(spec, controllers=frozenset(), counts_processes=False)

    assert with_group.in_force["memory"] == "512MiB by cgroup"
    assert with_group.cgroup
    assert with_group.in_force["cpu"] == "1 by cgroup"
    assert without.in_force["memory"] == "512MiB by watchdog"
    assert without.in_force["pids"] == "64 by rlimit"
    assert without.in_force["cpu"].startswith("not limited")
    assert watched.in_force["pids"] == "64 by watchdog"
    assert watched.processes is None
    assert missing_for_cgroup(ALL) == ""
    assert "cpu, memory, pids" in missing_for_cgroup(frozenset())
