"""Which programs an installation has, and which of them is the server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mcpd.config.registry import Package
from mcpd.errors import SpawnError
from mcpd.packages.programs import choose, find
from mcpd.packages.shelf import Program

NPM = Package.parse("npm:@x/y@1.2.3")
PYPI = Package.parse("pypi:Some-Thing==1.0")
NODE, BINARY = Program("a.js", "node"), Program("b", "")


def npm(root: Path, manifest: object, **files: str) -> Path:
    home = root / "node_modules/@x/y"
    home.mkdir(parents=True)
    (home / "package.json").write_text(manifest if isinstance(manifest, str) else json.dumps(manifest))
    for name, text in files.items():
        (home / name).write_text(text)
    return root


def test_programs_of_npm(tmp_path: Path) -> None:
    files = {"a": "#!/usr/bin/env node\n", "b": "#!/bin/sh\n", "c": "console.log(1)\n", "d": "\x7fELF"}
    bin = {name: f"./{name}" for name in (*files, "gone")} | {"out": "../../../outside", "odd": 1}
    (tmp_path / "outside").write_text("x")

    version, found = find(NPM, npm(tmp_path / "made", {"version": "1.2.3", "bin": bin}, **files))

    assert version == "1.2.3"
    home = "node_modules/@x/y"
    assert found == {
        "a": Program(f"{home}/a", "node"), "b": Program(f"{home}/b", ""),
        "c": Program(f"{home}/c", "node"), "d": Program(f"{home}/d", ""),
    }  # fmt: skip


def test_single_program_of_npm_has_the_packages_name(tmp_path: Path) -> None:
    _, found = find(NPM, npm(tmp_path, {"bin": "index.js"}, **{"index.js": ""}))
    assert found == {"y": Program("node_modules/@x/y/index.js", "node")}


def test_library_of_npm_has_none(tmp_path: Path) -> None:
    assert find(NPM, npm(tmp_path, {"version": "1"})) == ("1", {})


def test_manifest_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(SpawnError, match=r"package\.json cannot be read"):
        find(NPM, npm(tmp_path, "{"))


def test_programs_of_pypi(tmp_path: Path) -> None:
    site = tmp_path / "venv/lib/python3.11/site-packages"
    for name, points in (("some_thing", "some-thing = a:b\nother = a:c\ngone = a:d"), ("dependency", "theirs = a:b")):
        info = site / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[console_scripts]\n{points}\n[gui_scripts]\nwindow = a:b\n")
    (tmp_path / "venv/bin").mkdir()
    for name in ("some-thing", "other", "theirs", "window"):
        (tmp_path / "venv/bin" / name).write_text("#!/x\n")

    version, found = find(PYPI, tmp_path)

    assert version == "1.0"
    assert found == {name: Program(f"venv/bin/{name}", "python") for name in ("some-thing", "other")}
    with pytest.raises(SpawnError, match="it is not there"):
        find(Package.parse("pypi:absent==1"), tmp_path)


@pytest.mark.parametrize(
    ("package", "programs", "wanted", "chosen"),
    [
        (NPM, {"z": NODE}, None, NODE),
        (NPM, {"z": BINARY, "y": NODE}, None, NODE),
        (NPM, {"z": BINARY, "a": NODE}, "z", BINARY),
        (NPM, {"z": NODE, "a": NODE}, None, NODE),
        (PYPI, {"some_thing": NODE, "other": BINARY}, None, NODE),
    ],
)
def test_choice(package: Package, programs: dict[str, Program], wanted: str | None, chosen: Program) -> None:
    assert choose(package, programs, wanted, "s") is chosen


@pytest.mark.parametrize(
    ("programs", "wanted", "told"),
    [
        ({}, None, "servers.s.package: npm:@x/y@1.2.3 brings no program"),
        ({"a": NODE, "b": BINARY}, None, "choose one with bin = NAME: a, b"),
        ({"a": NODE, "b": BINARY}, "c", "servers.s.bin: npm:@x/y@1.2.3 has no program 'c'; it has a, b"),
    ],
)
def test_choice_that_cannot_be_made_names_all(programs: dict[str, Program], wanted: str | None, told: str) -> None:
    with pytest.raises(SpawnError, match=told) as refused:
        choose(NPM, programs, wanted, "s")
    assert refused.value.result == "exec"
