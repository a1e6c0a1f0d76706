"""Commands that download what they run: which package each means, and that they are refused without network."""

from __future__ import annotations

import pytest

from mcpd.config.registry import ProfileSpec, SandboxSpec, ServerSpec
from mcpd.config.runners import download, findings, runner


@pytest.mark.parametrize(
    ("line", "written"),
    [
        ("npx -y @x/y@1.2.3 /some/path", 'package = "npm:@x/y@1.2.3", args = ["/some/path"]'),
        ("/usr/bin/npx --yes y@v1.2.3-beta.1", 'package = "npm:y@1.2.3-beta.1"'),
        ("npx y", 'package = "npm:y@VERSION"'),
        ("npx y@latest", 'package = "npm:y@VERSION"'),
        ("npx y@^1.2.0", 'package = "npm:y@VERSION"'),
        ("npx -p @x/y@1.2.3 other -v", 'package = "npm:@x/y@1.2.3", bin = "other", args = ["-v"]'),
        ("npx --package=@x/y@1.2.3 y", 'package = "npm:@x/y@1.2.3"'),
        ("npm exec -- y@2026.8.31 -v", 'package = "npm:y@2026.8.31", args = ["-v"]'),
        ("bunx y@1.0.0", 'package = "npm:y@1.0.0"'),
        ("uvx mcp-server-time==2026.10.19 -v", 'package = "pypi:mcp-server-time==2026.10.19", args = ["-v"]'),
        ("uvx mcp-server-time@2026.10.19", 'package = "pypi:mcp-server-time==2026.10.19"'),
        ("uvx --python 3.12 mcp-server-time", 'package = "pypi:mcp-server-time==VERSION"'),
        ("uv tool run --from x==1.0 y", 'package = "pypi:x==1.0", bin = "y"'),
        ("pipx run --spec x==1.0 x", 'package = "pypi:x==1.0"'),
    ],
)
def test_command_is_understood(line: str, written: str) -> None:
    found = download(line.split())

    assert found is not None
    assert found.lines == written


@pytest.mark.parametrize(
    "line", ["npx", "npx -c x", "npx ./here", "uvx --with a b", "uvx --from git+https://host/x y", "uvx x[extra]"]
)
def test_what_one_package_cannot_stand_for_is_not_guessed(line: str) -> None:
    assert runner(line.split()) is not None
    assert download(line.split()) is None


@pytest.mark.parametrize("line", ["node index.js", "npm start", "npx --offline y", "npx --no-install y", "uv run x.py"])
def test_other_commands_are_left_alone(line: str) -> None:
    assert runner(line.split()) is None
    assert download(line.split()) is None
    assert list(findings(ServerSpec(name="a", command=tuple(line.split())), {})) == []


def told(line: str, **keys: object) -> str:
    spec = ServerSpec(name="a", command=tuple(line.split()), **keys)  # type: ignore[arg-type]
    return " | ".join(f"{one.message}; {one.remedy} {one.fatal}" for one in findings(spec, PROFILES))


PROFILES = {"mine": ProfileSpec(name="mine"), "open": ProfileSpec(name="open", extends="network", allow=("a.b:1",))}


def test_without_network_the_line_to_write_is_offered() -> None:
    assert told("npx -y @x/y@1.0.0", args=("/p",)) == (
        "'npx' downloads what it runs, and the profile 'strict' has no network; "
        'write package = "npm:@x/y@1.0.0", args = ["/p"] instead of command True'
    )
    assert "`npm view y version` tells the newest VERSION" in told("npx y")
    assert "`pip index versions y` tells the newest VERSION" in told("uvx y")
    assert "install it yourself" in told("npx -c y")
    assert "profile 'mine'" in told("npx y", sandbox=SandboxSpec(profile="mine"))
    assert told("npx y", enabled=False).endswith("False")


@pytest.mark.parametrize("profile", ["unsandboxed", "open", "unheard-of"])
def test_where_it_can_download_it_may(profile: str) -> None:
    assert told("npx y", sandbox=SandboxSpec(profile=profile)) == ""
