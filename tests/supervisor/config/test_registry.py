"""The models by themselves: what a value made by hand may be."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from mcpd.config.registry import (
    LimitsSpec,
    Package,
    Registry,
    Script,
    SecretRef,
    ServerSpec,
    ToolRules,
)
from mcpd.config.settings import DaemonSettings


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("a.py", Script(file=Path("a.py"))),
        ("/x/a.py:mcp", Script(file=Path("/x/a.py"), object="mcp")),
        ("a.py:pkg.mcp", Script(file=Path("a.py"), object="pkg.mcp")),
        ("a:b/c.py", Script(file=Path("a:b/c.py"))),
        ("a.py:", Script(file=Path("a.py:"))),
        (Script(file=Path("a.py")), Script(file=Path("a.py"))),
        (None, None),
    ],
)
def test_script_is_a_file_and_perhaps_an_object(text, script):
    assert ServerSpec(name="x", script=text).script == script


@pytest.mark.parametrize(
    ("text", "package"),
    [
        (
            "npm:@modelcontextprotocol/server-memory@2026.8.31",
            Package(registry="npm", name="@modelcontextprotocol/server-memory", version="2026.8.31"),
        ),
        ("npm:foo@1.0.0-rc.1", Package(registry="npm", name="foo", version="1.0.0-rc.1")),
        ("pypi:mcp-server-time==2026.10.19", Package(registry="pypi", name="mcp-server-time", version="2026.10.19")),
        (Package(registry="npm", name="a", version="1"), Package(registry="npm", name="a", version="1")),
        (None, None),
    ],
)
def test_package_is_pinned(text, package):
    assert ServerSpec(name="x", package=text).package == package


@pytest.mark.parametrize(
    "text",
    ["npm:foo", "npm:foo@^1.0", "npm:foo@latest x", "npm:-rf@1 2", "pypi:foo", "pypi:foo>=1", "foo@1", "npm:../x@1", 5],
)
def test_package_without_a_pin_is_refused(text):
    with pytest.raises(ValidationError):
        ServerSpec(name="x", package=text)


@pytest.mark.parametrize(
    "keys",
    [
        {"name": "No"},
        {"command": ()},
        {"command": ("a\0b",)},
        {"script": ["x"]},
        {"script": ""},
        {"env": {"A": 1}},
        {"env": {"": "x"}},
        {"env": {"A": {"secret": "x", "y": 1}}},
        {"env": {"A": "x\0y"}},
        {"instances": 0},
        {"restart": "often"},
        {"limits": {"cpu": "1"}},
        {"colour": "blue"},
    ],
)
def test_what_cannot_be_meant_is_refused(keys):
    with pytest.raises(ValidationError):
        ServerSpec(**({"name": "x"} | keys))


def test_environment_takes_text_and_references():
    spec = ServerSpec(name="x", env={"A": "1", "B": {"secret": "b"}, "C": SecretRef(secret="c")})

    assert spec.env == {"A": "1", "B": SecretRef(secret="b"), "C": SecretRef(secret="c")}


def test_values_cannot_be_changed():
    with pytest.raises(ValidationError):
        ServerSpec(name="x").enabled = False


def test_limits_take_sizes():
    assert LimitsSpec(memory="1GiB", cpu=2).memory == 2**30


def test_two_tools_cannot_have_one_name():
    with pytest.raises(ValidationError, match="renamed to 'x'"):
        ToolRules(rename={"a": "x", "b": "x"})


def test_registry_of_few_words():
    daemon = DaemonSettings(state_dir="/s", runtime_dir="/r", secrets_dir="/k", max_concurrent_starts=3)

    registry = Registry(path=Path("/r.toml"), daemon=daemon)

    assert registry.daemon.max_concurrent_starts == 3
    assert registry.frontdoor.port == 6270
