"""Secrets between where they are kept and the process that gets them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from mcpd.config.registry import Registry, SecretFile, SecretRef, ServerSpec
from mcpd.config.settings import DaemonSettings
from mcpd.errors import SpawnError
from mcpd.fleet.vault import Vault

pytestmark = pytest.mark.anyio

KEEPS = ServerSpec(name="keeps", command=("x",), env={"KEY": SecretRef(secret="key")})
PLAIN = ServerSpec(name="plain", command=("x",), env={"KEY": "text"})


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    (tmp_path / "secrets").mkdir(mode=0o700)
    put(tmp_path, "first")
    settings = DaemonSettings(state_dir=tmp_path, runtime_dir=tmp_path / "run", secrets_dir=tmp_path / "secrets")
    return Registry(path=tmp_path / "r.toml", daemon=settings, servers={"keeps": KEEPS, "plain": PLAIN})


@pytest.fixture
def vault(registry: Registry) -> Vault:
    return Vault(registry.daemon.runtime_dir)


def put(place: Path, value: str) -> None:
    path = place / "secrets" / "key"
    path.touch(0o600)
    path.write_text(value)


async def test_what_was_fetched_is_taken_once(vault: Vault, registry: Registry, tmp_path: Path) -> None:
    await vault.fetch(KEEPS, registry)
    put(tmp_path, "second")
    assert vault.take(KEEPS, registry).env["KEY"] == "first"
    assert vault.take(KEEPS, registry).env["KEY"] == "second"
    assert vault._fetched == {}


async def test_instances_that_start_side_by_side_get_their_own(vault: Vault, registry: Registry) -> None:
    await vault.fetch(KEEPS, registry)
    await vault.fetch(KEEPS, registry)
    vault.take(KEEPS, registry)
    assert len(vault._fetched["keeps"]) == 1


async def test_what_an_older_entry_wanted_is_not_given_to_a_newer_one(vault: Vault, registry: Registry) -> None:
    await vault.fetch(KEEPS, registry)
    newer = KEEPS.model_copy(update={"env": {"KEY": "plain text"}})
    assert vault.take(newer, registry).env == {"KEY": "plain text"}
    assert vault._fetched == {}


async def test_a_secret_that_is_not_there_is_told(vault: Vault, registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "secrets" / "key").unlink()
    with pytest.raises(SpawnError, match="there is no secret 'key'"):
        await vault.fetch(KEEPS, registry)


async def test_only_those_that_run_with_other_values_have_rotated(
    vault: Vault, registry: Registry, tmp_path: Path
) -> None:
    names = tuple(registry.servers)
    put(tmp_path, "second")
    assert await vault.rotated(registry, names) == ([], [])
    vault.take(KEEPS, registry)
    vault.take(PLAIN, registry)
    assert await vault.rotated(registry, names) == ([], [])
    put(tmp_path, "third")
    assert await vault.rotated(registry, names) == (["keeps"], [])
    (tmp_path / "secrets" / "key").unlink()
    changed, [problem] = await vault.rotated(registry, names)
    assert changed == []
    assert "goes on with what it was started with" in problem


async def test_no_value_is_kept_of_what_is_in_use(vault: Vault, registry: Registry) -> None:
    vault.take(KEEPS, registry)
    assert b"first" not in b"".join(vault._in_use.values())


async def test_files_are_private_and_go(vault: Vault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    path = Path(vault.place("keeps", "key", "s3cret"))
    other = Path(vault.place("other", "key", "s3cret"))
    assert path.read_text() == "s3cret"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    vault.clear("keeps")
    vault.clear("keeps")
    assert (path.exists(), other.exists()) == (False, True)
    vault.close()
    assert not other.exists()


async def test_what_a_killed_daemon_left_goes(registry: Registry) -> None:
    left = registry.daemon.runtime_dir / "secret-files" / "x" / "key"
    left.parent.mkdir(parents=True)
    left.touch()
    Vault(registry.daemon.runtime_dir)
    assert not left.exists()


async def test_the_name_in_a_registry_is_that_of_the_secret() -> None:
    assert ServerSpec.model_validate({"name": "x", "env": {"K": {"secret_file": "key"}}}).env == {
        "K": SecretFile(secret_file="key")
    }
