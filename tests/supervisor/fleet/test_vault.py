"""Secrets between where they are kept and the process that gets them."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from mcpd.config.registry import Registry, SecretFile, SecretRef, ServerSpec
from mcpd.config.settings import DaemonSettings
from mcpd.fleet import vault as vault_module
from mcpd.fleet.vault import Handover, NoSecrets, Vault

pytestmark = pytest.mark.anyio

KEEPS = ServerSpec(name="keeps", command=("x",), env={"PLAIN": "text", "KEY": SecretRef(secret="key")})
FILED = ServerSpec(name="filed", command=("x",), env={"KEY_FILE": SecretFile(secret_file="key")})
PLAIN = ServerSpec(name="plain", command=("x",), env={"KEY": "text"})
BACKEND = """
from keyring.backend import KeyringBackend
from keyring.errors import KeyringLocked


class Ring(KeyringBackend):
    priority = 1

    def get_password(self, service, username):
        if username == "locked":
            raise KeyringLocked("unlock it")
        return {("mcpd", "key"): "from the ring"}.get((service, username))

    def set_password(self, service, username, password):
        raise NotImplementedError
"""


@pytest.fixture
def vault() -> Vault:
    return Vault(os.environ)


def settings(place: Path, **more: object) -> DaemonSettings:
    (place / "secrets").mkdir(mode=0o700, exist_ok=True)
    return DaemonSettings.model_validate(
        {"state_dir": place, "runtime_dir": place / "run", "secrets_dir": place / "secrets", **more}
    )


def put(place: Path, value: str) -> None:
    (place / "secrets").mkdir(mode=0o700, exist_ok=True)
    path = place / "secrets" / "key"
    path.touch(0o600)
    path.write_text(value)


async def from_command(vault: Vault, place: Path, *command: str) -> str:
    return (await vault.fetch(KEEPS, settings(place, secret_command=command))).env["KEY"]


async def refusal(vault: Vault, place: Path, **more: object) -> NoSecrets:
    with pytest.raises(NoSecrets) as caught:
        await vault.fetch(KEEPS, settings(place, **more))
    assert "'key'" in str(caught.value)
    assert "servers.keeps.env.KEY" in str(caught.value)
    return caught.value


async def test_a_variable_has_the_value_without_its_line_break(vault: Vault, tmp_path: Path) -> None:
    put(tmp_path, "s3cret\n")
    given = await vault.fetch(KEEPS, settings(tmp_path))
    assert given.env == {"PLAIN": "text", "KEY": "s3cret"}
    assert given.mask.apply(b"is s3cret") == b"is [secret]"


async def test_a_file_has_the_secret_as_it_is(vault: Vault, tmp_path: Path) -> None:
    put(tmp_path, "s3cret\n")
    given = await vault.fetch(FILED, settings(tmp_path))
    assert (given.env, given.files) == ({}, {"KEY_FILE": ("key", b"s3cret\n")})
    assert given.mask.apply(b"is s3cret") == b"is [secret]"


async def test_nothing_that_is_kept_or_printed_tells_a_value(vault: Vault, tmp_path: Path) -> None:
    put(tmp_path, "s3cret")
    for spec in (KEEPS, FILED):
        given = await vault.fetch(spec, settings(tmp_path))
        assert "s3cret" not in repr(given)
        assert all(b"s3cret" not in mark for mark in given.marks.values())
    assert "s3cret" not in repr(vars(vault))


async def test_a_secret_that_is_not_there_is_told_and_stays_so(vault: Vault, tmp_path: Path) -> None:
    refused = await refusal(vault, tmp_path)
    assert "there is no secret 'key'" in str(refused)
    assert refused.result == "exec"


@pytest.mark.parametrize("script", ['printf "%s-of-%s" s3cret "$0"', 'echo "s3cret-of-{name}"'])
async def test_what_is_not_in_the_directory_is_asked_of_the_command(vault: Vault, tmp_path: Path, script: str) -> None:
    assert await from_command(vault, tmp_path, "sh", "-c", script) == "s3cret-of-key"


async def test_the_directory_comes_first(vault: Vault, tmp_path: Path) -> None:
    put(tmp_path, "mine")
    assert await from_command(vault, tmp_path, "echo", "other") == "mine"


async def test_a_command_has_a_clean_environment(tmp_path: Path) -> None:
    environ = {**os.environ, "HOME": "/home/of/mcpd", "MCPD_FRONTDOOR__PORT": "1", "API_KEY": "of somebody else"}
    said = await from_command(Vault(environ), tmp_path, "sh", "-c", "exec env")
    assert "HOME=/home/of/mcpd" in said.splitlines()
    assert "API_KEY" not in said
    assert "MCPD" not in said


async def test_a_shell_is_only_what_the_operator_writes(vault: Vault, tmp_path: Path) -> None:
    assert await from_command(vault, tmp_path, "echo", "$HOME;", "`id`") == "$HOME; `id` key"


@pytest.mark.parametrize(
    ("command", "message", "result"),
    [
        (("sh", "-c", "echo why; echo no such thing >&2; exit 3"), "exit code 3: no such thing", "resources"),
        (("sh", "-c", "kill -9 $$"), "killed by signal 9", "resources"),
        (("true",), "printed nothing", "resources"),
        (("/no/such/program",), "cannot be asked", "resources"),
        (("sh", "-c", r"printf '\377'"), "not UTF-8", "exec"),
        (("sh", "-c", "exec head -c 70000 /dev/zero"), "over 64 KiB", "exec"),
    ],
)
async def test_a_command_that_does_not_help_is_told(
    vault: Vault, tmp_path: Path, command: tuple[str, ...], message: str, result: str
) -> None:
    refused = await refusal(vault, tmp_path, secret_command=command)
    assert message in str(refused)
    assert refused.result == result


async def test_what_was_printed_before_a_failure_is_shown_nowhere(vault: Vault, tmp_path: Path) -> None:
    script = "echo s3cret-value; echo 'cannot print s3cret-value' >&2; exit 1"
    refused = await refusal(vault, tmp_path, secret_command=("sh", "-c", script))
    assert "exit code 1: cannot print [secret]" in str(refused)
    assert "s3cret" not in str(refused)


async def test_a_command_that_does_not_end_is_ended(
    vault: Vault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vault_module, "PATIENCE", 0.3)
    refused = await refusal(vault, tmp_path, secret_command=("sh", "-c", "exec sleep 60"))
    assert "within 0.3 s" in str(refused)
    assert refused.result == "resources"


async def test_no_more_than_a_few_commands_run_at_a_time(vault: Vault, tmp_path: Path) -> None:
    script = 'echo x >> "$PLACE/running"; wc -l < "$PLACE/running"; sed -i 1d "$PLACE/running"'
    command = ("env", f"PLACE={tmp_path}", "flock", str(tmp_path / "lock"), "sh", "-c", script)
    spec = KEEPS.model_copy(update={"env": {f"K{number}": SecretRef(secret=f"k{number}") for number in range(20)}})
    given = await vault.fetch(spec, settings(tmp_path, secret_command=command))
    assert max(int(value) for value in given.env.values()) <= vault_module.AT_A_TIME


@pytest.fixture
def ring(tmp_path: Path) -> Vault:
    """A vault whose commands find a keyring of our own."""
    pytest.importorskip("keyring")
    (tmp_path / "python_keyring").mkdir()
    (tmp_path / "ring_of_ours.py").write_text(BACKEND)
    (tmp_path / "python_keyring" / "keyringrc.cfg").write_text(
        f"[backend]\ndefault-keyring=ring_of_ours.Ring\nkeyring-path={tmp_path}\n"
    )
    return Vault({**os.environ, "XDG_CONFIG_HOME": str(tmp_path)})


async def test_the_keyring_is_asked_in_a_process_of_its_own(ring: Vault, tmp_path: Path) -> None:
    given = await ring.fetch(KEEPS, settings(tmp_path, secret_keyring="mcpd"))
    assert given.env["KEY"] == "from the ring"
    assert "ring_of_ours" not in sys.modules


@pytest.mark.parametrize(("name", "message"), [("other", "exit code 1"), ("locked", "unlock it")])
async def test_a_keyring_that_does_not_help_is_told(ring: Vault, tmp_path: Path, name: str, message: str) -> None:
    spec = ServerSpec(name="x", command=("sh",), env={"KEY": SecretRef(secret=name)})
    with pytest.raises(NoSecrets, match=f"the keyring did not give the secret '{name}'.*{message}"):
        await ring.fetch(spec, settings(tmp_path, secret_keyring="mcpd"))


async def test_only_those_that_run_with_other_values_have_rotated(vault: Vault, tmp_path: Path) -> None:
    put(tmp_path, "first")
    servers = {one.name: one for one in (KEEPS, FILED, PLAIN)}
    registry = Registry(path=tmp_path / "r.toml", daemon=settings(tmp_path), servers=servers)
    old: Handover = await vault.fetch(KEEPS, registry.daemon)
    given = {"keeps": [old.marks], "filed": [], "plain": [{}]}
    assert await vault.rotated(registry, given) == ({}, [])
    put(tmp_path, "second")
    assert await vault.rotated(registry, given) == ({"keeps": ("key",)}, [])
    new = await vault.fetch(KEEPS, registry.daemon)
    assert await vault.rotated(registry, {"keeps": [new.marks]}) == ({}, [])
    assert await vault.rotated(registry, {"keeps": [new.marks, old.marks]}) == ({"keeps": ("key",)}, [])
    assert await vault.rotated(registry, {"keeps": [{}]}) == ({"keeps": ("key",)}, []), "it could not start without"
    (tmp_path / "secrets" / "key").unlink()
    changed, [problem] = await vault.rotated(registry, given)
    assert changed == {}
    assert "goes on with what it was started with" in problem
    assert await vault.rotated(registry, {"keeps": [{}]}) == ({}, []), "nothing has changed for one that is down"


async def test_each_secret_is_asked_for_once_a_reload(vault: Vault, tmp_path: Path) -> None:
    command = ("sh", "-c", f'echo "$0" >> {tmp_path}/asked; echo value')
    names = [f"s{number}" for number in range(5)]
    servers = {name: KEEPS.model_copy(update={"name": name}) for name in names}
    registry = Registry(path=tmp_path / "r.toml", daemon=settings(tmp_path, secret_command=command), servers=servers)
    changed, problems = await vault.rotated(registry, {name: [{}] for name in names})
    assert (list(changed), problems) == (names, [])
    assert (tmp_path / "asked").read_text() == "key\n"


async def test_a_reload_waits_only_so_long(vault: Vault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vault_module, "AT_A_TIME", 1)
    monkeypatch.setattr(vault_module, "PATIENCE", 0.2)
    spec = KEEPS.model_copy(update={"env": {f"K{number}": SecretRef(secret=f"k{number}") for number in range(20)}})
    registry = Registry(
        path=tmp_path / "r.toml",
        daemon=settings(tmp_path, secret_command=("sh", "-c", "exec sleep 60")),
        servers={"keeps": spec},
    )
    async with asyncio.timeout(10):
        changed, [problem] = await Vault(os.environ).rotated(registry, {"keeps": [{"k0": b""}]})
    assert changed == {}
    assert "not fetched within 0.4 s" in problem


async def test_the_name_in_a_registry_is_that_of_the_secret() -> None:
    assert ServerSpec.model_validate({"name": "x", "env": {"K": {"secret_file": "key"}}}).env == {
        "K": SecretFile(secret_file="key")
    }
