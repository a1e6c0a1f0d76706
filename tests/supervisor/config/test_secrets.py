"""Secrets are read from private plain files, and from nothing else."""

import os
import sys
from pathlib import Path

import pytest

from mcpd.config.registry import SecretFile, SecretRef, ServerSpec
from mcpd.config.secrets import (
    LARGEST_SECRET,
    Unusable,
    as_text,
    command_for,
    objections,
    objections_to_sources,
    read,
    wanted,
)
from mcpd.config.settings import DaemonSettings

SPEC = ServerSpec(name="x", command=("sh",), env={"PLAIN": "text", "KEY": SecretRef(secret="key")})
FILE = ServerSpec(name="x", command=("sh",), env={"KEY_FILE": SecretFile(secret_file="key")})


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "secrets").mkdir(mode=0o700)
    return tmp_path / "secrets"


def put(folder, content, mode=0o600, name="key"):
    path = folder / name
    path.write_bytes(content)
    path.chmod(mode)
    return path


def settings(folder, **more):
    return DaemonSettings(state_dir=Path("/s"), runtime_dir=Path("/r"), secrets_dir=folder, **more)


def refusal(folder, spec=SPEC):
    ((variable, message, remedy),) = objections(spec, settings(folder))
    assert variable in ("KEY", "KEY_FILE")
    assert remedy
    with pytest.raises(Unusable) as caught:
        as_text(read("key", folder), "key")
    assert (str(caught.value), caught.value.remedy) == (message, remedy)
    return message


def value(folder):
    assert list(objections(SPEC, settings(folder))) == []
    return as_text(read("key", folder), "key")


@pytest.mark.parametrize(
    ("content", "text"),
    [(b"s3cret", "s3cret"), (b"s3cret\n", "s3cret"), (b"s\n\n", "s\n"), (b"s\r\n", "s"), (b"s\r", "s\r")],
)
def test_secret_is_the_file_without_one_line_break_at_its_end(folder, content, text):
    put(folder, content)

    assert value(folder) == text


@pytest.mark.parametrize("mode", [0o400, 0o600, 0o700])
def test_mode_that_only_the_owner_profits_from_is_fine(folder, mode):
    put(folder, b"x", mode)

    assert value(folder) == "x"


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

    assert value(folder) == "x"


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


@pytest.mark.parametrize(
    ("content", "what"), [(b"\xff\xfe", "not UTF-8"), (b"a\0b", "NUL"), (b"x" * (LARGEST_SECRET + 1), "over 64 KiB")]
)
def test_content_that_no_variable_can_hold_is_refused(folder, content, what):
    put(folder, content)

    assert what in refusal(folder)


def test_a_file_may_hold_what_no_variable_can(folder):
    put(folder, b"\xff\0\n")

    assert list(objections(FILE, settings(folder))) == []
    assert read("key", folder) == b"\xff\0\n"


@pytest.mark.parametrize("content", [b"", b"\n", b" \n"])
def test_an_empty_secret_is_a_mistake(folder, content):
    put(folder, content)

    assert "is empty" in refusal(folder)
    assert len(list(objections(FILE, settings(folder)))) == 1


def test_value_of_a_secret_is_in_no_message(folder):
    put(folder, b"hunter2\0", 0o600)

    assert "hunter2" not in refusal(folder)


def test_every_unusable_secret_is_told(folder):
    spec = ServerSpec(name="x", command=("sh",), env={"A": SecretRef(secret="a"), "B": SecretFile(secret_file="b")})

    assert [variable for variable, _, _ in objections(spec, settings(folder))] == ["A", "B"]
    assert {variable: one.name for variable, one in wanted(spec).items()} == {"A": "a", "B": "b"}


def test_with_somebody_to_ask_nothing_is_missing_yet_and_nobody_is_asked(folder):
    asked = folder / "asked"
    for more in ({"secret_command": ("touch", str(asked))}, {"secret_keyring": "mcpd"}):
        assert list(objections(SPEC, settings(folder, **more))) == []
    assert not asked.exists()


def test_a_secret_that_others_can_read_is_not_asked_for_elsewhere(folder):
    put(folder, b"mine", mode=0o644)

    assert len(list(objections(SPEC, settings(folder, secret_command=("echo",))))) == 1


@pytest.mark.parametrize(
    ("more", "command"),
    [
        ({}, ()),
        ({"secret_command": ("pass", "show")}, ("pass", "show", "key")),
        ({"secret_command": ("op", "read", "op://mcpd/{name}/password")}, ("op", "read", "op://mcpd/key/password")),
        ({"secret_keyring": "mcpd"}, (sys.executable, "-P", "-m", "keyring", "get", "mcpd", "key")),
    ],
)
def test_a_command_is_told_the_name(folder, more, command):
    assert command_for("key", settings(folder, **more)) == command


@pytest.mark.parametrize(
    ("more", "found"),
    [
        ({}, []),
        ({"secret_command": ("sh", "-c", "x")}, []),
        ({"secret_command": ("/bin/sh",)}, []),
        ({"secret_keyring": "mcpd"}, []),
        ({"secret_command": ("no-such-program",)}, [("secret_command", "there is no program", True)]),
        ({"secret_command": ("/no/such/program",)}, [("secret_command", "there is no program", True)]),
        ({"secret_command": ("pass show",)}, [("secret_command", "there is no program 'pass show'", True)]),
        ({"secret_command": ("./mine",)}, [("secret_command", "relative", False)]),
        ({"secret_command": ("sh",), "secret_keyring": "x"}, [("secret_keyring", "always be asked", False)]),
        ({"secret_keyring": "-x"}, [("secret_keyring", "cannot begin", False)]),
    ],
)
def test_sources_that_cannot_work_are_told(folder, more, found):
    told = list(objections_to_sources(settings(folder, **more), os.environ["PATH"]))
    assert all(remedy for _, _, remedy, _ in told)
    for (key, message, _, missing), (wanted_key, part, is_missing) in zip(told, found, strict=True):
        assert (key, missing) == (wanted_key, is_missing)
        assert part in message


def test_without_the_package_the_way_out_is_told(folder, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    ((_, _, remedy, _),) = objections_to_sources(settings(folder, secret_keyring="mcpd"), "")
    assert remedy == "install mcpd-supervisor[keyring]"
