"""Secrets are read from private plain files, and from nothing else."""

import os
from pathlib import Path

import pytest

from mcpd.config.registry import Registry, SecretRef, ServerSpec
from mcpd.config.secrets import LARGEST_SECRET, objections, resolve_env
from mcpd.config.settings import DaemonSettings
from mcpd.errors import ConfigError

SPEC = ServerSpec(name="x", command=("sh",), env={"PLAIN": "text", "KEY": SecretRef(secret="key")})


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "secrets").mkdir(mode=0o700)
    return tmp_path / "secrets"


def put(folder, content, mode=0o600, name="key"):
    path = folder / name
    path.write_bytes(content)
    path.chmod(mode)
    return path


def registry(folder):
    settings = DaemonSettings(state_dir=Path("/s"), runtime_dir=Path("/r"), secrets_dir=folder)
    return Registry(path=Path("/r.toml"), daemon=settings, servers={"x": SPEC})


def refusal(folder):
    with pytest.raises(ConfigError) as caught:
        resolve_env(SPEC, registry(folder))
    (problem,) = caught.value.problems
    assert problem.key == "servers.x.env.KEY"
    assert problem.remedy
    assert [(variable, message) for variable, message, _ in objections(SPEC, folder)] == [("KEY", problem.message)]
    return problem.message


@pytest.mark.parametrize(
    ("content", "value"),
    [(b"s3cret", "s3cret"), (b"s3cret\n", "s3cret"), (b"s\n\n", "s\n"), (b"s\r\n", "s"), (b"s\r", "s\r"), (b"", "")],
)
def test_secret_is_the_file_without_one_line_break_at_its_end(folder, content, value):
    put(folder, content)

    assert resolve_env(SPEC, registry(folder)) == {"PLAIN": "text", "KEY": value}
    assert list(objections(SPEC, folder)) == []


@pytest.mark.parametrize("mode", [0o400, 0o600, 0o700])
def test_mode_that_only_the_owner_profits_from_is_fine(folder, mode):
    put(folder, b"x", mode)

    assert resolve_env(SPEC, registry(folder))["KEY"] == "x"


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o620, 0o602, 0o601, 0o666])
def test_secret_that_others_can_reach_is_refused(folder, mode):
    put(folder, b"x", mode)

    assert f"mode {mode:04o}" in refusal(folder)


@pytest.mark.parametrize("mode", [0o755, 0o701, 0o720, 0o777])
def test_directory_that_others_can_reach_is_refused(folder, mode):
    put(folder, b"x")
    folder.chmod(mode)

    assert f"mode {mode:04o}" in refusal(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_secret_of_another_user_is_refused(folder):
    os.chown(put(folder, b"x"), 12345, 12345)

    assert "belongs to user 12345" in refusal(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of root")
def test_credential_of_systemd_shows_group_bits_of_root_and_is_fine(folder):
    os.chown(put(folder, b"x", 0o440), 0, 0)
    folder.chmod(0o550)

    assert resolve_env(SPEC, registry(folder))["KEY"] == "x"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of root")
def test_group_bits_of_another_group_are_refused(folder):
    os.chown(put(folder, b"x", 0o440), 0, 12345)

    assert "mode 0440" in refusal(folder)


def test_absent_directory_and_absent_secret_are_told_apart(folder):
    assert "there is no secret 'key'" in refusal(folder)
    assert "does not exist" in refusal(folder / "nowhere")


def test_directory_that_is_a_file_is_refused(folder):
    assert "cannot be opened" in refusal(put(folder, b""))


def test_symbolic_link_is_refused(folder):
    put(folder, b"x", name="real")
    (folder / "key").symlink_to("real")

    assert "cannot be opened" in refusal(folder)


def test_fifo_is_refused_and_holds_nobody(folder):
    os.mkfifo(folder / "key", 0o600)

    assert "is not a plain file" in refusal(folder)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"a\0b", b"x" * (LARGEST_SECRET + 1)])
def test_content_that_no_variable_can_hold_is_refused(folder, content):
    put(folder, content)

    assert str(folder / "key") in refusal(folder)


def test_value_of_a_secret_is_in_no_message(folder):
    put(folder, b"hunter2\0", 0o600)

    assert "hunter2" not in refusal(folder)


def test_every_unusable_secret_is_told(folder):
    spec = ServerSpec(name="x", command=("sh",), env={"A": SecretRef(secret="a"), "B": SecretRef(secret="b")})

    with pytest.raises(ConfigError) as caught:
        resolve_env(spec, registry(folder))

    assert [problem.key for problem in caught.value.problems] == ["servers.x.env.A", "servers.x.env.B"]
