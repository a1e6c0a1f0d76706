"""The command line of `mcpd start`: what is plain is read without typer, everything else by it."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

from mcpd.cli import start
from mcpd.cli.failures import BAD_CONFIG
from mcpd.cli.start import Options, options_of


@pytest.mark.parametrize(
    ("line", "environ", "options"),
    [
        ("", {}, Options()),
        ("--config a.toml", {}, Options(config=Path("a.toml"))),
        ("--config=a.toml -q", {"MCPD_CONFIG": "b.toml"}, Options(config=Path("a.toml"), quiet=True)),
        ("--quiet", {"MCPD_CONFIG": "b.toml"}, Options(config=Path("b.toml"), quiet=True)),
        ("", {"MCPD_CONFIG": ""}, Options()),
        ("-d --unsandboxed --log-file l", {}, Options(detach=True, unsandboxed=True, log_file=Path("l"))),
        ("--help", {}, None),
        ("-dq", {}, None),
        ("--config", {}, None),
        ("--config=", {}, None),
        ("--quiet=yes", {}, None),
        ("--conf a.toml", {}, None),
        ("a.toml", {}, None),
    ],
)
def test_what_is_plain_is_understood_and_nothing_is_guessed(
    line: str, environ: dict[str, str], options: Options | None
) -> None:
    assert options_of(line.split(), environ) == options


def test_a_registry_that_is_not_there_is_told_as_by_every_command(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert start.main(Options(config=tmp_path / "none.toml")) == BAD_CONFIG

    assert "none.toml cannot be used" in capfd.readouterr().err
    assert gc.isenabled()
