"""Programs, scripts and directories: found, or told why not."""

import os
import tempfile
from pathlib import Path

import pytest

from mcpd.config.programs import (
    directory_objection,
    resolve,
    script_objection,
    search_path,
    why_not_executable,
)
from mcpd.config.registry import SecretRef, ServerSpec

NOBODY = 65534
SPEC = ServerSpec(name="x", command=("sh",))


@pytest.fixture
def tool(tmp_path):
    path = tmp_path / "tool"
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_program_is_looked_up_in_the_servers_own_path_else_in_the_daemons(tool):
    own = ServerSpec(name="x", env={"PATH": str(tool.parent)})
    secret = ServerSpec(name="x", env={"PATH": SecretRef(secret="p")})

    assert search_path(own, "/bin") == str(tool.parent)
    assert search_path(SPEC, "/bin") == "/bin"
    assert search_path(secret, "/bin") == "/bin"
    assert resolve("tool", str(tool.parent)) == str(tool)
    assert resolve("tool", "/nowhere") is None


def test_path_needs_no_lookup_and_links_are_kept(tool):
    link = tool.parent / "link"
    link.symlink_to(tool)

    assert resolve(str(link), "/nowhere") == str(link)


def test_reason_is_told_for_each_way_to_be_no_program(tool):
    tool.chmod(0o644)

    assert "is not executable" in why_not_executable(str(tool), "command", SPEC)[0]
    assert "is a directory" in why_not_executable(str(tool.parent), "command", SPEC)[0]
    assert "does not exist" in why_not_executable(str(tool) + "x", "command", SPEC)[0]
    assert "is not on mcpd's PATH" in why_not_executable("nothing", "command", SPEC)[0]
    assert 'command = ["uvx", "x"]' in why_not_executable("uvx x", "command", SPEC)[1]


def test_script_and_directory_that_are_fine(tool):
    assert script_objection(tool) is None
    assert directory_objection(tool.parent) is None


@pytest.fixture
def closed():
    """A directory of a user without privileges, whose rights this process has while the test runs."""
    with tempfile.TemporaryDirectory() as name:
        if os.geteuid() != 0:
            yield Path(name)
            return
        os.chown(name, NOBODY, NOBODY)
        os.seteuid(NOBODY)
        try:
            yield Path(name)
        finally:
            os.seteuid(0)


def test_what_may_not_be_used_is_told(closed):
    inner = closed / "inner"
    inner.mkdir()
    script = inner / "x.py"
    script.touch(0o200)
    assert "cannot be read" in script_objection(script)[0]

    inner.chmod(0o600)
    assert "cannot be entered" in directory_objection(inner)[0]
    assert "cannot be reached" in script_objection(script)[0]
    assert "cannot be reached" in directory_objection(script)[0]
    assert "cannot be reached" in why_not_executable(str(script), "command", SPEC)[0]

    inner.chmod(0o700)
