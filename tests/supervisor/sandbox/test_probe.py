"""What is found out about machines: this one, and ones where bubblewrap is broken in some way."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mcpd.sandbox import probe as probing
from mcpd.sandbox.probe import find_launcher, probe


def tool(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_bubblewrap_works_here() -> None:
    facts = probe()

    assert facts.bwrap is not None, f"install bubblewrap to run the tests: {facts.reason}"
    assert facts.bwrap.startswith("/")
    assert facts.version[0].isdigit()
    assert facts.reason == ""


def test_missing_tool_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(probing, "DEFAULT_PATH", str(tmp_path))

    facts = probe()
    assert facts.bwrap is None
    assert "install the package bubblewrap" in facts.reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("exit 3", "--version failed: exit code 3"),
        ('[ "$1" = --version ] && exec echo bubblewrap 0.1; echo "setting up uid map: Permission denied" >&2; exit 1',
         "Permission denied (user namespaces look forbidden"),
        ('[ "$1" = --version ] && exec echo bubblewrap 0.1; exit 0', "cannot make a pid namespace here"),
        ('[ "$1" = --version ] && exec echo bubblewrap 0.1; while [ "$1" != -- ]; do shift; done; shift; exec "$@"',
         "cannot make a pid namespace here: AssertionError"),
    ],
)  # fmt: skip
def test_tool_that_does_not_do_its_work_is_not_used(tmp_path: Path, text: str, reason: str) -> None:
    facts = probe(tool(tmp_path / "bwrap", text))

    assert facts.bwrap is None
    assert reason in facts.reason


def test_tool_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "PROBE_TIMEOUT", 0.2)

    facts = probe(tool(tmp_path / "bwrap", "exec sleep 60"))
    assert facts.bwrap is None
    assert "no end after 0.2 s" in facts.reason


def test_tool_that_cannot_be_executed_is_not_used(tmp_path: Path) -> None:
    assert "No such file" in probe(str(tmp_path / "bwrap")).reason


def test_launcher_is_found_and_runs_a_file_by_its_path(tmp_path: Path) -> None:
    (tmp_path / "hello.py").write_text("import sys; sys.stderr.write('hello ' + sys.argv[1])")
    launcher = find_launcher()
    assert launcher is not None

    done = subprocess.run(
        [sys.executable, launcher, tmp_path / "hello.py", "you"],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "hello you")


def test_no_launcher_where_the_package_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)

    assert find_launcher() is None
