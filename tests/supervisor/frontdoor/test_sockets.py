"""Listening sockets: TCP, unix, inherited."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from mcpd.errors import ConfigError
from mcpd.frontdoor.peers import peer_of
from mcpd.frontdoor.sockets import UnixSocket, bind_tcp, check_passed, inherited, url_of


def test_the_port_is_known_and_answers_before_anything_is_served() -> None:
    (listening,) = bind_tcp("127.0.0.1", 0)
    with listening:
        port = listening.getsockname()[1]
        assert url_of(listening) == f"http://127.0.0.1:{port}"
        assert url_of(listening, tls=True) == f"https://127.0.0.1:{port}"
        socket.create_connection(("127.0.0.1", port), timeout=5).close()


def test_every_address_of_a_name_gets_the_same_port() -> None:
    bound = bind_tcp("localhost", 0)
    try:
        assert len({listening.getsockname()[1] for listening in bound}) == 1
    finally:
        for listening in bound:
            listening.close()


def test_urls_of_other_addresses() -> None:
    (wildcard,) = bind_tcp("0.0.0.0", 0)
    with wildcard:
        assert url_of(wildcard).startswith("http://127.0.0.1:")
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    (six,) = bind_tcp("::1", 0)
    with six:
        assert url_of(six).startswith("http://[::1]:")


def test_a_port_that_is_taken_is_told_with_a_remedy() -> None:
    (listening,) = bind_tcp("127.0.0.1", 0)
    with listening:
        port = listening.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port} of 127.0.0.1 is taken") as caught:
            bind_tcp("127.0.0.1", port)
        assert "ss -ltnp" in caught.value.problems[0].remedy


@pytest.mark.parametrize("host", ["no.such.host.invalid", "192.0.2.1"])
def test_an_address_that_is_not_ours_is_told(host: str) -> None:
    with pytest.raises(ConfigError, match=r"frontdoor\.host"):
        bind_tcp(host, 0)


def test_a_unix_socket_is_private_and_removed_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    before = os.umask(0)
    os.umask(before)
    listening = UnixSocket(path)
    mode = path.stat().st_mode
    client = socket.socket(socket.AF_UNIX)
    client.connect(os.fspath(path))
    accepted, _ = listening.socket.accept()
    with client, accepted:
        assert peer_of(accepted) == (os.getpid(), os.getuid(), os.getgid())
    listening.close()

    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600
    assert os.umask(before) == before
    assert not path.exists()


def test_a_leftover_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(os.fspath(path))
    listening = UnixSocket(path)
    listening.close()
    assert not path.exists()


def test_a_socket_that_is_served_is_left_alone(tmp_path: Path) -> None:
    first = UnixSocket(tmp_path / "a.sock")
    with pytest.raises(ConfigError, match="served by another process"):
        UnixSocket(first.path)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(os.fspath(first.path))
    first.close()


def test_the_file_of_a_successor_is_not_removed(tmp_path: Path) -> None:
    first = UnixSocket(tmp_path / "a.sock")
    os.unlink(first.path)
    second = UnixSocket(first.path)
    first.close()

    assert second.path.exists()
    second.close()
    second.close()


@pytest.mark.parametrize("kind", ["file", "directory", "symlink"])
def test_anything_else_at_the_path_is_left_alone(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.sock"
    if kind == "file":
        path.write_text("precious")
    elif kind == "directory":
        path.mkdir()
    else:
        path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="is not a socket"):
        UnixSocket(path)
    assert os.path.lexists(path)


def test_a_path_that_is_too_long_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="longer than 107 bytes"):
        UnixSocket(tmp_path / ("x" * 110))


def test_a_directory_that_is_missing_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be made"):
        UnixSocket(tmp_path / "none" / "a.sock")


def test_a_path_below_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be looked at"):
        UnixSocket(tmp_path / "file" / "a.sock")


def test_sockets_of_a_service_manager_are_taken() -> None:
    """As systemd does it: the descriptors begin at 3, and the variables name the process."""
    (tcp,) = bind_tcp("127.0.0.1", 0)
    program = (
        "import os, sys; from mcpd.frontdoor.sockets import inherited\n"
        "os.dup2(int(sys.argv[1]), 3); os.environ.update(LISTEN_PID=str(os.getpid()))\n"
        "found = inherited(os.environ)\n"
        "print([(n, s.getsockname()[1], s.get_inheritable()) for n, s in found])\n"
        "print(sorted(k for k in os.environ if k.startswith('LISTEN')))\n"
        "[s.close() for n, s in found]\n"
    )
    with tcp:
        port = tcp.getsockname()[1]
        found = subprocess.run(
            [sys.executable, "-c", program, str(tcp.fileno())],
            env={"LISTEN_FDS": "1", "LISTEN_FDNAMES": "http", "PATH": os.environ["PATH"]},
            pass_fds=[tcp.fileno()],
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
    assert found.stdout.splitlines() == [str([("http", port, False)]), "[]"]


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"LISTEN_FDS": "1"},
        {"LISTEN_FDS": "1", "LISTEN_PID": "1"},
        {"LISTEN_FDS": "x", "LISTEN_PID": str(os.getpid())},
    ],
)
def test_sockets_for_others_are_not_taken(environ: dict[str, str]) -> None:
    assert inherited(environ) == []
    assert environ == {}


@pytest.mark.parametrize(
    ("host", "encrypted", "asking", "key"),
    [
        ("127.0.0.1", False, False, None),
        ("0.0.0.0", True, True, None),
        ("0.0.0.0", False, True, "frontdoor.tls_cert"),
        ("0.0.0.0", True, False, "frontdoor.auth"),
    ],
)
def test_a_socket_that_was_passed_is_as_safe_as_one_of_ours(
    host: str, encrypted: bool, asking: bool, key: str | None
) -> None:
    with socket.socket() as passed:
        passed.bind((host, 0))
        if key is None:
            check_passed([passed], encrypted=encrypted, asking=asking)
        else:
            with pytest.raises(ConfigError, match=rf"{key}: the service manager passed a socket on 0\.0\.0\.0"):
                check_passed([passed], encrypted=encrypted, asking=asking)
