"""Where the daemon is looked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from mcpd.cli.failures import Failed
from mcpd.cli.options import Operator


def test_a_socket_that_is_named_is_the_only_place() -> None:
    assert Operator(Path("/r.toml"), Path("/c.sock")).client.places == (Path("/c.sock"),)


def test_the_registry_says_where(tmp_path: Path) -> None:
    registry = tmp_path / "r.toml"
    registry.write_text('[daemon]\nruntime_dir = "run"\n')

    assert Operator(registry).client.places == (tmp_path / "run" / "control.sock",)


def test_else_it_is_looked_for_in_the_usual_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MCPD_CONFIG", "MCPD_DAEMON__RUNTIME_DIR", "RUNTIME_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")

    places = Operator().client.places

    assert places[0] == Path("/run/user/7/mcpd/control.sock")
    assert {place.name for place in places} == {"control.sock"}


def test_a_registry_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(Failed, match=r"none\.toml") as caught:
        _ = Operator(tmp_path / "none.toml").client

    assert caught.value.code == 78
