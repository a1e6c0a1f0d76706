"""What the daemon's process does first; everything after that is shown by the tests in `e2e`."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mcpd import boot
from mcpd.config.load import load
from mcpd.runtime import AlreadyRunning, RuntimeDir


def modules_after(code: str) -> set[str]:
    """The modules that a fresh interpreter has imported at the end of `code`."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules)"], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_a_second_daemon_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    path = tmp_path / "mcpd.toml"
    path.write_text('[daemon]\nstate_dir = "state"\nruntime_dir = "run"\n')
    registry = load(path, os.environ)
    with RuntimeDir(registry.daemon.runtime_dir), pytest.raises(AlreadyRunning, match="already running"):
        boot.run(registry)

    assert not (registry.daemon.state_dir / "mcpd.db").exists()


def test_the_daemon_is_imported_while_the_sandbox_is_tried_out_and_not_before() -> None:
    assert not {"mcpd.daemon", "mcpd.fleet", "mcpd.frontdoor", "structlog"} & modules_after("import mcpd.boot")


def test_the_daemon_does_without_rich() -> None:
    found = modules_after("from mcpd import boot, logs\nimport mcpd.daemon\nlogs.configure('info', 'console')")

    assert "structlog" in found
    assert "rich" not in found


def test_rich_can_be_imported_after_the_log_is_set_up() -> None:
    assert "rich.console" in modules_after("from mcpd import logs\nimport rich.console")


def test_what_only_operators_and_command_lines_need_is_not_there_when_the_daemon_is_up() -> None:
    found = modules_after(
        "import mcpd.daemon\nfrom mcpd.frontdoor import lean\nlean.import_uvicorn()\nimport mcpd.doors"
    )

    assert {"uvicorn.server", "mcpd.frontdoor.protocol"} <= found
    assert not {"typer", "click", "starlette", "watchfiles", "multiprocessing", "tomlkit", "mcpd.control.api"} & found


def test_uvicorn_is_whole_for_whoever_asks_for_its_command_line_later() -> None:
    code = "from mcpd.frontdoor import lean\nlean.import_uvicorn()\nlean.import_uvicorn()\nimport uvicorn\n"
    code += "assert uvicorn.Server.__module__ == 'uvicorn.server'\n"
    code += "try:\n    uvicorn.run('no such module:app', log_level='critical')\nexcept SystemExit:\n    pass"

    assert {"uvicorn.main", "click"} <= modules_after(code)


def test_garbage_is_collected_again_if_it_comes_to_nothing(tmp_path: Path) -> None:
    path = tmp_path / "mcpd.toml"
    path.write_text('[daemon]\nstate_dir = "state"\nruntime_dir = "run"\n')
    registry = load(path, os.environ)
    with RuntimeDir(registry.daemon.runtime_dir), pytest.raises(AlreadyRunning):
        boot.run(registry)

    assert gc.isenabled()
