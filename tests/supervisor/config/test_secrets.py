"""Secrets are read from private plain files, and from nothing else."""

import os
import sys
from pathlib import Path

import keyring
import pytest
from keyring.backend import KeyringBackend
from keyring.errors import KeyringLocked

from mcpd.config.registry import Registry, SecretFile, SecretRef, ServerSpec
from mcpd.config.secrets import LARGEST_SECRET, objections, resolve
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


def registry(folder, **more):
    settings = DaemonSettings(state_dir=Path("/s"), runtime_dir=Path("/r"), secrets_dir=folder, **more)
    return Registry(path=Path("/r.toml"), daemon=settings, servers={"x": SPEC})


def refusal(folder):
    with pytest.raises(ConfigError) as caught:
        resolve(SPEC, registry(folder))
    (problem,) = caught.value.problems
    assert problem.key == "servers.x.env.KEY"
    assert problem.remedy
    assert [(variable, message) for variable, message, _ in objections(SPEC, registry(folder).daemon)] == [
        ("KEY", problem.message)
    ]
    return problem.message


@pytest.mark.parametrize(
    ("content", "value"),
    [(b"s3cret", "s3cret"), (b"s3cret\n", "s3cret"), (b"s\n\n", "s\n"), (b"s\r\n", "s"), (b"s\r", "s\r"), (b"", "")],
)
def test_secret_is_the_file_without_one_line_break_at_its_end(folder, content, value):
    put(folder, content)

    assert resolve(SPEC, registry(folder)).env == {"PLAIN": "text", "KEY": value}
    assert list(objections(SPEC, registry(folder).daemon)) == []


@pytest.mark.parametrize("mode", [0o400, 0o600, 0o700])
def test_mode_that_only_the_owner_profits_from_is_fine(folder, mode):
    put(folder, b"x", mode)

    assert resolve(SPEC, registry(folder)).env["KEY"] == "x"


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

    assert resolve(SPEC, registry(folder)).env["KEY"] == "x"


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
        resolve(spec, registry(folder))

    assert [problem.key for problem in caught.value.problems] == ["servers.x.env.A", "servers.x.env.B"]


def test_a_file_is_for_the_server_to_read(folder):
    put(folder, b"s3cret\n")
    spec = ServerSpec(name="x", command=("sh",), env={"KEY_FILE": SecretFile(secret_file="key")})
    found = resolve(spec, registry(folder))

    assert (found.env, found.files, found.secrets) == ({}, {"KEY_FILE": ("key", "s3cret")}, ("s3cret",))
    assert "s3cret" not in repr(found)


def test_repr_tells_nothing(folder):
    put(folder, b"s3cret")

    assert "s3cret" not in repr(resolve(SPEC, registry(folder)))


@pytest.mark.parametrize(
    "command",
    [("sh", "-c", 'printf "%s-of-%s" s3cret "$0"'), ("sh", "-c", 'printf "s3cret-of-{name}"')],
)
def test_what_is_not_in_the_directory_is_asked_of_the_command(folder, command):
    found = resolve(SPEC, registry(folder, secret_command=command))

    assert found.env["KEY"] == "s3cret-of-key"


def test_the_directory_comes_first(folder):
    put(folder, b"mine")

    assert resolve(SPEC, registry(folder, secret_command=("echo", "other"))).env["KEY"] == "mine"


def test_a_secret_that_others_can_read_is_not_asked_for_elsewhere(folder):
    put(folder, b"mine", mode=0o644)
    with pytest.raises(ConfigError, match="others have access"):
        resolve(SPEC, registry(folder, secret_command=("echo", "other")))


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("sh", "-c", "echo no such thing >&2; exit 3"), r"failed \(3\): no such thing"),
        (("true",), "printed nothing"),
        (("/no/such/program",), "cannot be run: No such file"),
        (("sh", "-c", r"printf '\377'"), "not UTF-8"),
        (("head", "-c", "70000", "/dev/zero", "-n"), "failed|over 64 KiB"),
    ],
)
def test_a_command_that_does_not_help_is_told(folder, command, message):
    with pytest.raises(ConfigError, match=message):
        resolve(SPEC, registry(folder, secret_command=command))


def test_a_command_that_does_not_end_is_ended(folder, monkeypatch):
    monkeypatch.setattr("mcpd.config.secrets.COMMAND_TIMEOUT", 0.1)
    with pytest.raises(ConfigError, match="did not end within"):
        resolve(SPEC, registry(folder, secret_command=("sh", "-c", "exec sleep 60")))


def test_with_a_command_nothing_is_missing_yet(folder):
    assert list(objections(SPEC, registry(folder, secret_command=("false",)).daemon)) == []
    assert len(list(objections(SPEC, registry(folder).daemon))) == 1


class Ring(KeyringBackend):
    priority = 1

    def get_password(self, service, username):
        if username == "locked":
            raise KeyringLocked
        return {("mcpd", "key"): "from the ring"}.get((service, username))

    def set_password(self, service, username, password):
        raise NotImplementedError

    def delete_password(self, service, username):
        raise NotImplementedError


@pytest.fixture
def ring():
    before = keyring.get_keyring()
    keyring.set_keyring(Ring())
    yield
    keyring.set_keyring(before)


@pytest.mark.usefixtures("ring")
def test_the_keyring_is_asked_last(folder):
    assert resolve(SPEC, registry(folder, secret_keyring="mcpd")).env["KEY"] == "from the ring"
    both = registry(folder, secret_keyring="mcpd", secret_command=("echo", "from the command"))
    assert resolve(SPEC, both).env["KEY"] == "from the command key"


@pytest.mark.usefixtures("ring")
@pytest.mark.parametrize(("name", "message"), [("other", "has no 'other'"), ("locked", "KeyringLocked")])
def test_a_keyring_that_does_not_help_is_told(folder, name, message):
    spec = ServerSpec(name="x", command=("sh",), env={"KEY": SecretRef(secret=name)})
    with pytest.raises(ConfigError, match=message):
        resolve(spec, registry(folder, secret_keyring="mcpd"))


def test_without_the_package_the_way_out_is_told(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "keyring", None)
    with pytest.raises(ConfigError, match=r"install mcpd-supervisor\[keyring\]"):
        resolve(SPEC, registry(folder, secret_keyring="mcpd"))
