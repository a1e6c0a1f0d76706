"""Secrets as files of servers that see the host's files."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from mcpd.config.registry import Registry, SandboxSpec, ServerSpec
from mcpd.config.settings import DaemonSettings
from mcpd.errors import SpawnError
from mcpd.sandbox.policy import SandboxFacts
from mcpd.sandbox.secret_files import SecretFiles
from mcpd.sandbox.warden import Warden

FILES = {"KEY_FILE": ("key", b"s3cret\n")}
NO_BWRAP = SandboxFacts(None, "", "bubblewrap is not installed")
SPEC = ServerSpec(name="one", command=("/bin/sh",), sandbox=SandboxSpec(profile="unsandboxed"))


def warden(place: Path, facts: SandboxFacts) -> tuple[Warden, Registry]:
    settings = DaemonSettings.model_validate({"state_dir": place, "runtime_dir": place / "run", "secrets_dir": place})
    registry = Registry(path=place / "r.toml", daemon=settings, servers={"one": SPEC})
    return Warden(facts, registry, {"PATH": "/usr/bin:/bin", "HOME": str(place)}, cookie="c"), registry


def test_files_are_for_us_alone_and_go(tmp_path: Path) -> None:
    files = SecretFiles(tmp_path)
    for value in (b"first", b"second\xff"):
        files.write("one", "key", value)
    files.write("other", "key", b"x")
    path = tmp_path / "secret-files" / "one" / "key"
    assert path.read_bytes() == b"second\xff"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert os.listdir(path.parent) == ["key"]
    files.remove("one")
    files.remove("one")
    assert os.listdir(tmp_path / "secret-files") == ["other"]
    SecretFiles(tmp_path)  # of the next daemon
    assert not (tmp_path / "secret-files").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="otherwise the file can be read")
def test_without_bubblewrap_root_cannot_hide_a_file_and_says_so(tmp_path: Path) -> None:
    one, registry = warden(tmp_path, NO_BWRAP)
    with pytest.raises(SpawnError, match="only with bubblewrap: bubblewrap is not installed"):
        one.plan(SPEC, {}, registry, FILES)
    assert list((tmp_path / "run").rglob("key")) == []


def test_without_bubblewrap_the_file_lies_in_the_runtime_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    one, registry = warden(tmp_path, NO_BWRAP)
    planned = one.plan(SPEC, {}, registry, FILES)
    path = Path(planned.env["KEY_FILE"])
    assert path.read_bytes() == b"s3cret\n"
    assert path.is_relative_to(tmp_path / "run")
    one.ended("one")
    assert not path.exists()


@pytest.mark.parametrize("euid", [0, 1000])
def test_no_plan_shows_a_value(tmp_path: Path, euid: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: euid)
    facts = replace(NO_BWRAP, bwrap="/usr/bin/bwrap", setpriv="/usr/bin/setpriv", weakness="")
    one, registry = warden(tmp_path, replace(facts, architecture="x86_64"))
    for profile in ("unsandboxed", "strict"):
        spec = SPEC.model_copy(update={"sandbox": SandboxSpec(profile=profile)})
        planned = one.plan(spec, {"KEY": "an0ther"}, registry, FILES)
        assert b"s3cret\n" in planned.data
        assert planned.env["KEY"] == "an0ther"
        assert Path(planned.env["KEY_FILE"]).name == "key"
        shown = " ".join((repr(planned), *planned.argv, *planned.wrapper))
        assert "s3cret" not in shown
        assert "an0ther" not in shown
    assert list(tmp_path.rglob("key")) == [], "nothing is written"
