"""Programs, scripts and directories: found, or told why not."""

import os

import pytest

from mcpd.config.programs import (
    directory_objection,
    resolve,
    script_objection,
    search_path,
    why_not_executable,
)
from mcpd.config.registry import SecretRef, ServerSpec

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


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_used_is_told(tool):
    tool.chmod(0)
    assert "cannot be read" in script_objection(tool)[0]

    tool.parent.chmod(0o600)
    try:
        assert "cannot be entered" in directory_objection(tool.parent)[0]
    finally:
        tool.parent.chmod(0o700)
