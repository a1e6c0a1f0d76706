"""Packages and isolation as operators see them, with a real fleet; what needs a registry of packages is end to end."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from mcpd.config.registry import ServerSpec
from mcpd.errors import ClientFault, NotFound, SpawnError
from mcpd.lifecycle.states import State
from support.fleets import QUICK, command, registry, sailing, spec, within
from support.waiting import until

NOWHERE = "http://127.0.0.1:9/"

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]


@pytest.fixture
def unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    """No registry of npm answers."""
    monkeypatch.setenv("npm_config_registry", NOWHERE)


def packaged(**keys: object) -> ServerSpec:
    return ServerSpec.model_validate({"name": "which", "package": "npm:which@5.0.0", **QUICK, **keys})


@pytest.mark.usefixtures("unreachable")
async def test_registry_that_is_down_is_tried_again_by_the_restart_rules(tmp_path: Path) -> None:
    one = packaged(restart_delay=60.0, restart_max_delay=60.0, stable_after=0.0)
    async with sailing(registry(tmp_path, one, spec("time"))) as ship:
        await ship.ready("time")
        await ship.until("which", State.BACKOFF, timeout=30.0)

        failure = ship.fleet.server("which").exits[-1]
        assert failure.reason == "resources"
        assert "127.0.0.1:9" in failure.status
        assert "is the network up" in failure.status
        assert "installing npm:which@5.0.0 with npm" in [one.reason for one in ship.events()]
        assert ship.fleet.server("which").argv == ("npm:which@5.0.0",)


@pytest.mark.usefixtures("unreachable")
async def test_installation_is_stopped_with_its_server(tmp_path: Path) -> None:
    async with sailing(registry(tmp_path, packaged())) as ship:
        await until(lambda: [one for one in ship.events() if one.reason.startswith("installing")])

        outcome = await command(ship.fleet.stop("which"))

        assert (outcome.ok, outcome.state) == (True, "STOPPED")
    shelf = tmp_path / "state" / "packages" / "npm" / "which"
    assert [one.name for one in shelf.iterdir() if not one.name.endswith(".lock")] == []


async def test_only_packages_are_upgraded(tmp_path: Path) -> None:
    async with sailing(registry(tmp_path, spec("time"), packaged(enabled=False))) as ship:
        with pytest.raises(ClientFault, match=r"servers\.time has no package"):
            await within(ship.fleet.upgrade("time", "1.0.0"))
        with pytest.raises(ClientFault, match="'no version' is no version"):
            await within(ship.fleet.upgrade("which", "no version"))
        with pytest.raises(NotFound):
            await within(ship.fleet.upgrade("absent", None))
        assert await within(ship.fleet.prune(None)) == []


@pytest.mark.usefixtures("unreachable")
async def test_upgrade_that_fails_says_why(tmp_path: Path) -> None:
    async with sailing(registry(tmp_path, packaged(enabled=False))) as ship:
        with pytest.raises(SpawnError, match="is the network up"):
            async with asyncio.timeout(30):
                await ship.fleet.upgrade("which", "4.0.0")


async def test_isolation_is_that_of_the_process(tmp_path: Path) -> None:
    async with sailing(registry(tmp_path, spec("time"), spec("off", enabled=False))) as ship:
        await ship.ready("time")

        (seen,) = ship.fleet.isolation()

        assert (seen.server, seen.pid, seen.profile) == ("time", ship.pid("time"), "strict")
        assert {"mnt", "pid", "net", "ipc", "uts"} <= set(seen.own_namespaces)
        assert seen.missing == ()
        assert set(seen.limits) == {"memory", "pids", "cpu", "nofile", "fsize"}
        assert (seen.kernel_limits["nofile"], seen.kernel_limits["fsize"]) == (256, 256 * 2**20)
