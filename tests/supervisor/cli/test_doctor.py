"""What the doctor says of machines, this one and others, and of servers."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from mcpd.cli.doctor import (
    Check,
    Diagnosis,
    Wanted,
    cgroup_check,
    kernel_checks,
    sandbox_checks,
    server_checks,
    shown,
    wanted_by,
)
from mcpd.config.load import load
from mcpd.control.view import IsolationStatus, ServerStatus
from mcpd.sandbox.policy import SandboxFacts
from support.terminal import environment, program, run

GOOD = SandboxFacts(
    "/usr/bin/bwrap", "0.8.0", "", weakness="", architecture="x86_64", forbids_user_namespaces=True,
    setpriv="/usr/bin/setpriv", counts_processes=True,
)  # fmt: skip


def levels(checks: object) -> dict[str, str]:
    return {one.name: one.level for one in checks}  # type: ignore[attr-defined]


def wanted(tmp_path: Path, text: str) -> Wanted:
    path = tmp_path / "mcpd.toml"
    path.write_text(text)
    return wanted_by(load(path, {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}))


def test_wishes_are_those_of_the_registry(tmp_path: Path) -> None:
    assert wanted(tmp_path, "") == Wanted(contained=False)
    assert wanted(tmp_path, '[servers.a]\ncommand = ["sh"]') == Wanted()
    assert wanted(tmp_path, '[servers.a]\ncommand = ["sh"]\nsandbox.profile = "unsandboxed"') == Wanted(contained=False)
    assert wanted(tmp_path, '[servers.a]\ncommand = ["sh"]\nlimits.enforce = "cgroup"').cgroup == ("a",)
    package = '[servers.a]\npackage = "npm:x@1"\nsandbox.profile = "unsandboxed"\n'
    assert wanted(tmp_path, package) == Wanted(npm=True)  # it is installed in a sandbox
    assert wanted(tmp_path, f"{package}enabled = false") == Wanted(contained=False)


@pytest.mark.parametrize(
    ("facts", "name", "told"),
    [
        (SandboxFacts(None, "", "bubblewrap is not installed"), "bubblewrap", "bubblewrap is not installed"),
        (SandboxFacts("/b", "0.1", "", weakness="it does not hold"), "bubblewrap", "it does not hold"),
    ],
)
def test_missing_sandbox_fails_only_where_it_is_asked_for(facts: SandboxFacts, name: str, told: str) -> None:
    (asked,) = sandbox_checks(Wanted(), facts)
    (not_asked,) = sandbox_checks(Wanted(contained=False), facts)

    assert (asked.name, asked.level, not_asked.level) == (name, "fail", "warn")
    assert told in asked.text
    assert "install" in asked.remedy


def test_sandbox_that_holds_is_told() -> None:
    assert levels(sandbox_checks(Wanted(), GOOD)) == {"bubblewrap": "ok", "seccomp": "ok", "process limit": "ok"}


def system(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_kernels_settings_are_read(tmp_path: Path) -> None:
    off = system(tmp_path / "off", sys__user__max_user_namespaces="0\n")
    restricted = system(tmp_path / "ubuntu", sys__kernel__apparmor_restrict_unprivileged_userns="1\n")

    assert levels(kernel_checks(Wanted(), True, tmp_path)) == {"user namespaces": "ok", "apparmor": "ok"}
    assert levels(kernel_checks(Wanted(), False, off))["user namespaces"] == "fail"
    assert levels(kernel_checks(Wanted(), True, off))["user namespaces"] == "warn"
    first = next(iter(kernel_checks(Wanted(), False, off)))
    assert "user.max_user_namespaces = 0" in first.text
    assert levels(kernel_checks(Wanted(), False, restricted))["apparmor"] == "fail"
    assert levels(kernel_checks(Wanted(), True, restricted))["apparmor"] == "warn"


def group(root: Path, controllers: str, subtree: str = "", own: str = "/mcpd") -> Path:
    mount = root / "cgroup"
    (mount / "mcpd" / "daemon").mkdir(parents=True)
    (mount / "mcpd" / "cgroup.controllers").write_text(controllers)
    (mount / "mcpd" / "cgroup.subtree_control").write_text(subtree)
    return system(
        root / "proc", mountinfo=f"1 2 0:1 / {mount} rw - cgroup2 cgroup2 rw\n", cgroup=f"1:name=x:/y\n0::{own}\n"
    )


def test_control_group_is_read(tmp_path: Path) -> None:
    hard = Wanted(cgroup=("a",))
    all_three = "cpu memory pids"
    in_use = group(tmp_path / "used", all_three, all_three, "/mcpd/daemon")
    poor = group(tmp_path / "poor", "hugetlb")

    assert cgroup_check(hard, in_use).level == "ok"
    assert cgroup_check(Wanted(), poor).level == "warn"
    assert cgroup_check(hard, poor).level == "fail"
    assert "a asked for one" in cgroup_check(hard, poor).text
    assert cgroup_check(hard, tmp_path / "nowhere").level == "fail"
    assert cgroup_check(Wanted(), group(tmp_path / "free", all_three)).level == "warn"


def process(**more: object) -> IsolationStatus:
    return IsolationStatus(server="a", instance="a", pid=7, profile="strict", uid=1000, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("one", "level", "told"),
    [
        (process(own_namespaces=("mnt", "pid"), seccomp="filter"), "ok", "uid 1000, namespaces mnt pid of its own"),
        (process(missing=("has no system-call filter",)), "fail", "has no system-call filter"),
        (process(known=False), "warn", "cannot be looked at"),
        (IsolationStatus(server="a", instance="a", pid=7, profile="unsandboxed"), "warn", "as its entry says"),
    ],
)
def test_process_is_judged_by_what_it_has(one: IsolationStatus, level: str, told: str) -> None:
    (check,) = server_checks([ServerStatus(name="a", state="READY", since=0.0)], [one])

    assert check.level == level
    assert told in check.text


@pytest.mark.parametrize(("state", "level"), [("FAILED", "warn"), ("STOPPED", "ok"), ("IDLE", "ok")])
def test_server_that_does_not_run_has_nothing_to_read(state: str, level: str) -> None:
    (check,) = server_checks([ServerStatus(name="a", state=state, since=0.0)], [])
    assert (check.name, check.level) == ("a", level)


def test_remedies_stand_below_what_they_are_for() -> None:
    found = Diagnosis([Check("x", "ok", "fine", "no"), Check("longer", "fail", "bad", "mend it")], [], [], False)

    assert [line for line, _ in shown(found)] == [
        "this machine", "  ok    x       fine", "  fail  longer  bad", "                mend it",
        "servers", "        no daemon is running",
    ]  # fmt: skip
    assert found.failed


def test_it_needs_no_daemon(tmp_path: Path) -> None:
    path = tmp_path / "mcpd.toml"
    path.write_text('[servers.a]\ncommand = ["sh"]\n')
    env = environment(tmp_path, XDG_RUNTIME_DIR=str(tmp_path))

    done = run(program("mcpctl"), "--config", str(path), "doctor", "--json", env=env)
    seen = json.loads(done.stdout)

    assert done.returncode == 0, done.stdout + done.stderr
    assert (seen["daemon"], seen["servers"], seen["processes"]) == (False, [], [])
    assert {one["name"]: one["level"] for one in seen["machine"]}["bubblewrap"] == "ok"
    path.write_text("nonsense = 1\n")
    broken = run(program("mcpctl"), "--config", str(path), "doctor", env=env)
    assert broken.returncode == 1
    assert "`mcpd check` tells them all" in broken.stdout
