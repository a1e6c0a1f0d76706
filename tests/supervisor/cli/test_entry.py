"""The console scripts, as they are started."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mcpd import __version__
from support.daemon import BIN

LOADED = """
import sys; sys.argv = {argv}
from mcpd.cli import entry
try:
    entry.{program}()
finally:
    print(*sys.modules)
"""


def loaded(program: str, *argv: str) -> set[str]:
    """The modules that a program has loaded when it ends."""
    code = LOADED.format(argv=[program, *argv], program=program)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("program", ["mcpd", "mcpctl"])
def test_both_programs_explain_themselves(program: str) -> None:
    done = subprocess.run([BIN / program, "--help"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert "Usage" in done.stdout


def test_mcpd_tells_its_version() -> None:
    done = subprocess.run([BIN / "mcpd", "version"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert __version__ in done.stdout


@pytest.mark.parametrize("program", ["mcpd", "mcpctl"])
def test_a_command_that_is_none_is_a_usage_error(program: str) -> None:
    done = subprocess.run([BIN / program, "dance"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "dance" in done.stderr


def test_connect_loads_nothing_of_the_other_commands() -> None:
    others = loaded("mcpctl", "--help")
    assert "typer" in others
    mine = loaded("mcpctl", "connect", "--help")
    assert "mcpd.cli.connect" in mine
    assert not {"typer", "mcpd.cli.mcpctl", "mcpd.daemon", "asyncio", "pydantic"} & mine
