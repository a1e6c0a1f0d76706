"""Of the daemon's surroundings installers are told whence packages come, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mcpd.packages.settings import look_up
from mcpd.sandbox.bubblewrap import HOME


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"HOME": str(tmp_path), "PATH": "/bin", "TOKEN": "secret"}


def below(root: Path, paths: tuple[str, ...]) -> set[str]:
    """Those of the test; the machine's own configuration may name others."""
    return {os.path.relpath(path, root) for path in paths if path.startswith(f"{root}/")}


def test_variables_that_say_whence_are_passed_on(environ: dict[str, str]) -> None:
    whence = {
        "npm_config_registry": "r", "NPM_CONFIG_STRICT_SSL": "false", "npm_config_@x:registry": "r",
        "npm_config_//host/:_authToken": "t", "PIP_INDEX_URL": "i", "PIP_CERT": "/none", "UV_DEFAULT_INDEX": "i",
        "UV_INDEX_MINE_PASSWORD": "p", "https_proxy": "p", "NO_PROXY": "n", "SSL_CERT_FILE": "/none",
    }  # fmt: skip
    whither = {
        "npm_config_prefix": "/", "npm_config_ignore_scripts": "false", "npm_config_cache": "/", "PIP_TARGET": "/",
        "PIP_USER": "1", "UV_CACHE_DIR": "/", "UV_PYTHON": "x", "npm_lifecycle_event": "x", "UV": "x",
    }  # fmt: skip

    found = look_up({**environ, **whence, **whither})

    assert whence.items() <= found.variables.items()
    assert not (whither.keys() | environ.keys()) & found.variables.keys()
    assert found.variables["PIP_RETRIES"] == "1"
    assert look_up({**environ, "PIP_RETRIES": "9"}).variables["PIP_RETRIES"] == "9"


def test_files_that_variables_name_are_shown(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("x")
    (tmp_path / "wheels").mkdir()
    named = {
        "SSL_CERT_FILE": str(tmp_path / "ca.pem"),
        "PIP_FIND_LINKS": f"https://x/y file://{tmp_path}/wheels",
        "NODE_EXTRA_CA_CERTS": "/not/there",
        "PIP_PROXY": str(tmp_path),
    }

    assert below(tmp_path, look_up({**environ, **named}).paths) == {"ca.pem", "wheels"}


def test_the_users_own_configuration_is_laid_in(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / ".npmrc").write_text("registry=mine")
    (tmp_path / ".pip").mkdir()
    (tmp_path / ".pip" / "pip.conf").write_text("[global]\ntimeout = 3\n")
    (tmp_path / "other.toml").write_text("offline = false")

    found = look_up({**environ, "UV_CONFIG_FILE": str(tmp_path / "other.toml")})

    assert found.files[f"{HOME}/.npmrc"] == b"registry=mine"
    assert found.files[f"{HOME}/pip.conf"].startswith(b"[global]")
    assert found.files[f"{HOME}/uv.toml"] == b"offline = false"
    assert found.variables["PIP_CONFIG_FILE"] == f"{HOME}/pip.conf"
    assert found.variables["UV_CONFIG_FILE"] == f"{HOME}/uv.toml"


@pytest.mark.parametrize(
    ("variables", "pip_conf", "only_pip"),
    [
        ({}, "", False),
        ({}, "[global]\ncert = /x\n", False),
        ({}, "[global]\nindex-url = x\n", True),
        ({"PIP_INDEX_URL": "x"}, "", True),
        ({"PIP_INDEX_URL": "x", "UV_DEFAULT_INDEX": "y"}, "", False),
        ({"UV_INDEX": "y"}, "", False),
    ],
)
def test_uv_is_not_used_where_only_pip_knows_the_index(
    environ: dict[str, str], tmp_path: Path, variables: dict[str, str], pip_conf: str, only_pip: bool
) -> None:
    (tmp_path / "pip.conf").write_text(pip_conf)
    found = look_up({**environ, "PIP_CONFIG_FILE": str(tmp_path / "pip.conf"), **variables})
    assert found.pip_has_index is only_pip


def test_files_that_configurations_name_are_shown_and_named_as_they_are_outside(
    environ: dict[str, str], tmp_path: Path
) -> None:
    for name in ("ca.pem", "ours.pem", "client.pem", "global.pem"):
        (tmp_path / name).write_text("x")
    (tmp_path / "wheels").mkdir()
    (tmp_path / ".npmrc").write_text(
        f'cafile = "~/ca.pem"\n//host/:_authToken=${{MINE}}\n//host/:certfile={tmp_path}/client.pem\n'
        "cert=-----BEGIN\\nX\nother=${NOT_SET}\n"
    )
    (tmp_path / "pip.conf").write_text(
        f"[global]\ncert = {tmp_path}/ours.pem\nfind-links = https://x/y file://{tmp_path}/wheels\n"
    )
    (tmp_path / "global").write_text(f"cafile={tmp_path}/global.pem\n")

    found = look_up(
        {
            **environ,
            "MINE": "key",
            "PIP_CONFIG_FILE": str(tmp_path / "pip.conf"),
            "npm_config_globalconfig": str(tmp_path / "global"),
        }
    )

    npmrc = found.files[f"{HOME}/.npmrc"].decode()
    assert f'cafile = "{tmp_path}/ca.pem"\n//host/:_authToken=key\n' in npmrc
    assert "cert=-----BEGIN\\nX\nother=${NOT_SET}\n" in npmrc
    assert found.files[f"{HOME}/pip.conf"] == (tmp_path / "pip.conf").read_bytes()
    assert found.variables["npm_config_globalconfig"] == f"{HOME}/global-npmrc"
    assert below(tmp_path, found.paths) == {"ca.pem", "client.pem", "ours.pem", "global.pem", "wheels"}
