"""Directories as root, others, and their links leave them; in a mount namespace where a test may make all of them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from mcpd.control.trust import is_reachable, is_trusted, was_given

GROUND = """
import os, subprocess, sys
from pathlib import Path
from mcpd.control.trust import is_trusted, was_given

for point in ("/run", "/srv"):
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0755", "none", point], check=True)

def directory(path, uid=0, mode=0o755):
    Path(path).mkdir()
    os.chmod(path, mode)
    os.chown(path, uid, uid)

def link(path, target, uid=0):
    os.symlink(target, path)
    os.lchown(path, uid, uid)

directory("/run/mcpd", 7, 0o711)
directory("/run/loose", 7, 0o777)
directory("/run/open", 0, 0o1777)
directory("/run/open/mcpd", 7)
directory("/run/seven", 7)
directory("/run/seven/mcpd", 7)
directory("/run/group", 0, 0o775)
directory("/run/group/mcpd", 7)
directory("/srv/eight", 8)
link("/run/good", "mcpd")
link("/run/better", "/run/./../run/mcpd")
link("/run/open/planted", "/run/mcpd", 7)
link("/run/open/home", "/srv/eight", 8)
link("/run/through", "/run/open/home")
link("/run/circle", "circle")
for path, uid in (
    ("/run/mcpd", 7), ("/run/mcpd/", 7), ("/run//./mcpd", 7), ("/run/good", 7), ("/run/better", 7), ("/srv/eight", 8),
):
    assert was_given(path, uid), path
for path, uid in (
    ("/run/mcpd", 8), ("/run/loose", 7), ("/run/open/mcpd", 7), ("/run/seven/mcpd", 7), ("/run/group/mcpd", 7),
    ("/run/open/planted", 7), ("/run/open/home", 8), ("/run/through", 8), ("/run/circle", 7), ("/run/none", 7),
    ("/run/seven/mcpd/..", 7),
):
    assert not was_given(path, uid), path
os.chdir("/run")
assert is_trusted("mcpd/mcp.sock", 7) and not is_trusted("open/mcpd/mcp.sock", 7)
assert is_trusted("open/mcpd/mcp.sock", 0)
os.setuid(9)
assert is_trusted("mcpd/mcp.sock", 7) and is_trusted("open/mcpd/mcp.sock", 9)
print("as it should be")
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give directories away, and mount")
def test_a_directory_is_given_by_root_where_root_alone_made_the_way_to_it() -> None:
    done = subprocess.run(
        ["unshare", "-m", sys.executable, "-c", GROUND], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.stdout == "as it should be\n", done.stderr


def test_one_s_own_daemon_and_root_s_are_trusted_anywhere(tmp_path: Path) -> None:
    path = os.fspath(tmp_path / "mcp.sock")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        assert is_trusted(path, os.getuid())
        assert is_trusted(path, 0)
        assert not is_trusted(path, os.getuid() + 4711)
        assert not was_given(os.fspath(tmp_path), os.getuid() + 4711)


def test_who_may_pass(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    tmp_path.chmod(0o711)
    for path in (inner, inner.parent):
        path.chmod(0o711)
    above = all(parent.stat().st_mode & 1 for parent in tmp_path.parents)
    assert is_reachable(os.fspath(inner)) == above
    inner.parent.chmod(0o710)
    assert not is_reachable(os.fspath(inner))
