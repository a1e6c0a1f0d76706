"""What the kernel says of whoever connected: real sockets, and real processes of other users."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mcpd.frontdoor.peers import Peer, Peers, Stranger, groups_of, peer_of
from mcpd.frontdoor.sockets import UnixSocket
from support.processes import let_others_in

root_only = pytest.mark.skipif(os.getuid() != 0, reason="only root can make processes of other users")


@contextmanager
def connection(path: Path) -> Iterator[socket.socket]:
    """Our end of one that this process made to itself."""
    listening = UnixSocket(path)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(os.fspath(path))
        accepted, _ = listening.socket.accept()
        with accepted:
            yield accepted
    listening.close()


def test_this_process_is_known_and_its_groups_are(tmp_path: Path) -> None:
    with connection(tmp_path / "s") as accepted:
        assert peer_of(accepted) == Peer(os.getpid(), os.getuid(), os.getgid())
        assert groups_of(accepted) == frozenset(os.getgroups())


def test_the_daemon_s_user_and_root_are_let_in_unless_others_are_named(tmp_path: Path) -> None:
    with connection(tmp_path / "s") as accepted:
        assert Peers().admit(accepted).uid == os.getuid()
        assert Peers([], os.getgid()).admit(accepted).uid == os.getuid()
        with pytest.raises(Stranger, match=f"not for user {os.getuid()}") as stranger:
            Peers([os.getuid() + 1], key="daemon.client_group").admit(accepted)
        assert stranger.value.remedy == "name a group of yours as daemon.client_group in the registry"
        with pytest.raises(Stranger, match="and group 4711's"):
            Peers([os.getuid() + 1], 4711).admit(accepted)


def test_where_the_kernel_tells_no_groups_there_are_none() -> None:
    with socket.socket() as other:
        assert groups_of(other) == frozenset()


CALLER = """
import os, socket, sys
client = socket.socket(socket.AF_UNIX)
os.setgroups(range(1000, 1000 + int(sys.argv[2])))
os.setgid(61900)
os.setuid(61900)
client.connect(sys.argv[1])
client.recv(1)
"""


@root_only
@pytest.mark.parametrize(("groups", "member"), [(0, False), (1, True), (200, True), (256, True), (257, False)])
def test_members_by_a_supplementary_group_are_found_among_256(groups: int, member: bool) -> None:
    path = Path(f"/tmp/mcpd-peers-{os.getpid()}")
    listening = UnixSocket(path, 1000)
    path.chmod(0o666)
    listening.socket.setblocking(True)
    listening.socket.settimeout(30)
    try:
        with subprocess.Popen([sys.executable, "-c", CALLER, path, str(groups)]):
            accepted, _ = listening.socket.accept()
            with accepted:
                assert peer_of(accepted)[1:] == (61900, 61900)
                if member:
                    assert Peers(gid=1000).admit(accepted).uid == 61900
                else:
                    with pytest.raises(Stranger):
                        Peers(gid=1000).admit(accepted)
    finally:
        listening.close()


@root_only
def test_a_group_that_is_not_one_s_own_is_told(tmp_path: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path; from mcpd.frontdoor.sockets import UnixSocket\n"
        "from mcpd.errors import ConfigError\n"
        "os.setgroups([61901]); os.setgid(61900); os.setuid(61900)\n"
        "mine = UnixSocket(Path(sys.argv[1], 'a'), 61901); about = mine.path.stat()\n"
        "print(about.st_gid, oct(about.st_mode & 0o777)); mine.close()\n"
        "try: UnixSocket(Path(sys.argv[1], 'b'), 61902)\n"
        "except ConfigError as problem: print(problem, os.listdir(sys.argv[1]))\n"
    )
    let_others_in(tmp_path)
    done = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert first == "61901 0o660"
    assert "cannot be given to group 61902" in second
    assert second.endswith("[]")


def test_a_socket_for_a_group_of_one_s_own(tmp_path: Path) -> None:
    made = UnixSocket(tmp_path / "s", os.getgid())
    about = made.path.stat()
    assert (about.st_gid, about.st_mode & 0o777) == (os.getgid(), 0o660)
    made.close()
