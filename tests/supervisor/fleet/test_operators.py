"""Sessions, warnings, and what a reload tells."""

from __future__ import annotations

from pathlib import Path

import pytest

from mcpd.config.diff import diff, with_rotated
from mcpd.errors import Problem
from mcpd.fleet import operators
from mcpd.sandbox.policy import SandboxFacts
from mcpd.store.store import Store
from mcpd.wire.address import View
from support.fleets import Push, registry, sailing, spec

pytestmark = pytest.mark.anyio


async def test_sessions_show_who_is_there_but_not_the_key_to_it(tmp_path: Path) -> None:
    async with sailing(registry(tmp_path, spec("time"))) as ship:
        session = ship.relay.open_session(View("server", "time"), "default", "http+sse", Push())
        session.client_info = {"name": "cursor", "version": 7}
        session.protocol_version = "2024-11-05"
        (shown,) = ship.fleet.sessions()

        assert (shown.principal, shown.view, shown.transport) == ("default", "server:time", "http+sse")
        assert (shown.client_name, shown.client_version, shown.protocol) == ("cursor", "", "2024-11-05")
        assert (len(shown.id), session.id.startswith(shown.id)) == (8, True)
        assert abs(shown.since - ship.clock.wall()) < 60
        assert shown.in_flight == 0


def test_warnings_are_what_the_machine_the_store_and_the_registry_have_to_say(tmp_path: Path) -> None:
    problem = Problem(tmp_path / "mcpd.toml", 3, "servers.time", "odd", "look at it")
    wanted = registry(tmp_path).model_copy(update={"warnings": (problem,)})
    (tmp_path / "mcpd.db").write_bytes(b"this is no database" * 100)
    store = Store.open(tmp_path / "mcpd.db")
    try:
        found = operators.warnings(wanted, SandboxFacts(None, "", "bubblewrap is not installed"), store)
    finally:
        store.close()

    assert found[0] == "not contained: bubblewrap is not installed"
    assert "cannot be used" in found[1]
    assert found[2] == str(problem)


def test_without_anything_odd_there_are_no_warnings(tmp_path: Path) -> None:
    assert operators.warnings(registry(tmp_path), SandboxFacts("/usr/bin/bwrap", "0.8", "", weakness=""), None) == ()


def test_a_sandbox_that_does_not_hold_is_a_warning(tmp_path: Path) -> None:
    facts = SandboxFacts("/usr/bin/bwrap", "0.8", "", weakness="bubblewrap is too old")

    (found,) = operators.warnings(registry(tmp_path), facts, None)

    assert found == "servers that are to be contained do not start: bubblewrap is too old"


def test_the_summary_names_what_changed(tmp_path: Path) -> None:
    old, new = registry(tmp_path, spec("a"), spec("b")), registry(tmp_path, spec("b", args=("-v",)), spec("c"))
    report = operators.report(diff(old, new), new, {})

    assert operators.summary(report) == "registry reloaded: added c; removed a; restarting b"
    assert operators.summary(operators.report(diff(new, new), new, {})) == "registry reloaded: no server changed"


def test_the_summary_says_which_secrets_changed(tmp_path: Path) -> None:
    known = registry(tmp_path, spec("a"), spec("b"))
    rotated = {"b": ("github", "gitlab")}
    report = operators.report(with_rotated(diff(known, known), rotated), known, rotated)

    assert (report.restarted, report.unchanged, report.rotated) == (("b",), ("a",), rotated)
    assert operators.summary(report).endswith("restarting b; the secrets 'github', 'gitlab' of b changed")
    assert operators.why_replaced("b", {"b": ("github",)}) == "the secret 'github' changed"
    assert operators.why_replaced("a", rotated) == "its entry in the registry changed"
