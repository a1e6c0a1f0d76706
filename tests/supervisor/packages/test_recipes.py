"""The installers' commands: what runs, what must not, and what the answers mean."""

from __future__ import annotations

import json

import pytest

from mcpd.config.registry import Package
from mcpd.packages.recipes import Tools, install, newest, parse_newest

NPM, PYPI = Package.parse("npm:@x/y@1.2.3"), Package.parse("pypi:x==1.0")
TOOLS = {tool: Tools(tool, f"/bin/{tool}", "/bin/python") for tool in ("npm", "uv", "pip")}  # type: ignore[arg-type]


def lines(package: Package, tool: str, scripts: bool) -> list[tuple[str, bool]]:
    steps = install(package, TOOLS[tool], "/p", "/h", scripts=scripts)
    return [(" ".join(step.argv), step.runs_package) for step in steps]


def test_npm_runs_scripts_only_if_it_may_and_then_in_a_step_of_their_own() -> None:
    (only,) = lines(NPM, "npm", False)
    first, second = lines(NPM, "npm", True)

    assert only == first
    assert "install --prefix /p" in first[0]
    assert " --ignore-scripts" in first[0]
    assert first[0].endswith("@x/y@1.2.3")
    assert not first[1]
    assert second[0].startswith("/bin/npm rebuild --prefix /p")
    assert second[1]


@pytest.mark.parametrize(("tool", "forbids"), [("uv", "--no-build"), ("pip", "--only-binary :all:")])
def test_python_packages_are_built_only_if_they_may(tool: str, forbids: str) -> None:
    make, put = lines(PYPI, tool, False)

    assert "venv" in make[0]
    assert forbids in put[0]
    assert put[0].endswith("x==1.0")
    assert forbids not in lines(PYPI, tool, True)[1][0]


@pytest.mark.parametrize("tool", ["npm", "uv", "pip"])
def test_asking_names_no_version(tool: str) -> None:
    package = NPM if tool == "npm" else PYPI
    words = [word for step in newest(package, TOOLS[tool], "/h") for word in step.argv]
    assert package.name in words
    assert not any(package.version in word for word in words)


@pytest.mark.parametrize(
    ("tool", "output", "version"),
    [
        ("npm", '"1.2.3"', "1.2.3"),
        ("npm", "", None),
        ("npm", "[1]", None),
        ("uv", "# comment\nSome_thing==2.0rc1\n", "2.0rc1"),
        ("uv", "x==1.0 ; python_version > '3'", "1.0"),
        ("uv", "", None),
        ("pip", json.dumps({"install": [{"metadata": {"version": "3"}}]}), "3"),
        ("pip", json.dumps({"install": []}), None),
    ],
)
def test_answers(tool: str, output: str, version: str | None) -> None:
    assert parse_newest(tool, output) == version  # type: ignore[arg-type]
