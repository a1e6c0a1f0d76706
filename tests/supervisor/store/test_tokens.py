"""The default token: made once, kept private, compared by digest."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mcpd.errors import ConfigError
from mcpd.store.tokens import TokenVerifier, path_of, read, read_or_create


def test_a_token_is_made_once_and_is_private(tmp_path: Path) -> None:
    token = read_or_create(tmp_path)

    assert len(token) == 43
    assert read_or_create(tmp_path) == read(tmp_path) == token
    assert stat.S_IMODE(path_of(tmp_path).stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["token"]


def test_two_that_make_one_at_once_agree(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        tokens = set(pool.map(lambda _: read_or_create(tmp_path), range(16)))

    assert len(tokens) == 1
    assert os.listdir(tmp_path) == ["token"]


def test_a_token_of_the_operator_s_own_is_taken(tmp_path: Path) -> None:
    path_of(tmp_path).write_text("an-own-token-of-the-operator\n")
    path_of(tmp_path).chmod(0o600)

    assert read_or_create(tmp_path) == b"an-own-token-of-the-operator"


def test_without_a_token_there_is_none_to_read(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read(tmp_path)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_token_that_others_may_have_read_is_refused(tmp_path: Path, mode: int) -> None:
    read_or_create(tmp_path)
    path_of(tmp_path).chmod(mode)
    with pytest.raises(ConfigError, match=f"{mode:04o}.*delete it"):
        read_or_create(tmp_path)


@pytest.mark.parametrize("content", ["", "short", "two words that are long enough", "umläute-are-no-token-characters"])
def test_a_file_without_a_token_is_refused(tmp_path: Path, content: str) -> None:
    path_of(tmp_path).write_text(content)
    path_of(tmp_path).chmod(0o600)
    with pytest.raises(ConfigError, match="does not hold a bearer token"):
        read_or_create(tmp_path)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("a-token-that-somebody-planted")
    path_of(tmp_path).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="cannot be opened"):
        read_or_create(tmp_path)


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_what_is_no_file_is_refused(tmp_path: Path, make) -> None:  # type: ignore[no-untyped-def]
    make(path_of(tmp_path))
    path_of(tmp_path).chmod(0o600)
    with pytest.raises(ConfigError, match="token"):
        read_or_create(tmp_path)


def test_a_directory_that_is_missing_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be written"):
        read_or_create(tmp_path / "none")


def test_tokens_are_told_apart() -> None:
    verifier = TokenVerifier({"ada": b"one", "bob": b"two"})

    assert verifier.verify(b"one") == "ada"
    assert verifier.verify(b"two") == "bob"
    assert verifier.verify(b"three") is None
    assert verifier.verify(b"") is None


def test_no_token_is_kept_in_memory() -> None:
    verifier = TokenVerifier({"ada": b"a-secret"})
    assert "a-secret" not in str([verifier._known, verifier._fixed])
