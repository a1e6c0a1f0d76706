"""docs/registry.md names every key, with the default that it has and whether it works yet."""

import re
from pathlib import Path

import pytest
import tomli

from mcpd.config.diff import LIVE_KEYS, LIVE_SETTINGS
from mcpd.config.registry import (
    LimitsSpec,
    ProbeSpec,
    ProfileSpec,
    Registry,
    SandboxSettings,
    SandboxSpec,
    ServerSpec,
    ToolRules,
    ViewSpec,
)
from mcpd.config.settings import DaemonSettings, FrontdoorSettings, JwtSettings

TEXT = (Path(__file__).parents[3] / "docs" / "registry.md").read_text()
ROW = re.compile(r"^\| `(?P<key>[a-z_]+)` \| (?P<default>.*?) \| (?P<meaning>.*) \|$", re.MULTILINE)
SECTIONS = {
    ("servers", "*"): (
        ServerSpec,
        ("### What is run", "### How it is used", "### Start and stop", "### Restarts", "### Pins"),
    ),
    ("servers", "*", "liveness"): (ProbeSpec, ("### Probes",)),
    ("servers", "*", "tools"): (ToolRules, ("### Tools",)),
    ("servers", "*", "sandbox"): (SandboxSpec, ("`[servers.NAME.sandbox]`:\n",)),
    ("servers", "*", "limits"): (LimitsSpec, ("`[servers.NAME.limits]`:\n",)),
    ("views", "*"): (ViewSpec, ("## Views",)),
    ("daemon",): (DaemonSettings, ("`[daemon]`:\n",)),
    ("frontdoor",): (FrontdoorSettings, ("`[frontdoor]`:\n",)),
    ("frontdoor", "jwt"): (JwtSettings, ("`[frontdoor.jwt]`:",)),
    ("sandbox",): (SandboxSettings, ("`[sandbox]`:\n",)),
    ("profiles", "*"): (ProfileSpec, ("`[profiles.NAME]`:",)),
}
ELSEWHERE = {
    ("servers", "*"): {"name", "liveness", "readiness", "tools", "sandbox", "limits"},
    ("views", "*"): {"name"},
    ("frontdoor",): {"jwt"},
    ("profiles", "*"): set(ProfileSpec.model_fields) - {"extends"},
}


def rows(at):
    """The rows of a table of the document: from its heading to the next heading or table's name."""
    found = {}
    for heading in SECTIONS[at][1]:
        assert TEXT.count(f"\n{heading}") == 1
        section = TEXT.split(f"\n{heading}")[1]
        section = re.split(r"^(?:#+ |`\[[^`]*`:)", section, maxsplit=1, flags=re.MULTILINE)[0]
        found |= {row["key"]: row for row in ROW.finditer(section)}
    return found


@pytest.mark.parametrize("at", SECTIONS, ids=".".join)
def test_every_key_is_documented_and_no_other(at):
    model = SECTIONS[at][0]

    assert set(rows(at)) == set(model.model_fields) - ELSEWHERE.get(at, set())


@pytest.mark.parametrize("at", SECTIONS, ids=".".join)
def test_defaults_are_those_of_the_models(at):
    model = SECTIONS[at][0]
    base = {
        DaemonSettings: {"state_dir": "/", "runtime_dir": "/", "secrets_dir": "/"},
        ViewSpec: {"name": "x", "servers": []},
    }.get(model, {"name": "x"} if "name" in model.model_fields else {})
    usual = model.model_validate(base)

    for key, row in rows(at).items():
        value = re.fullmatch(r"`(.*)`", row["default"])
        if value is not None and not value[1].startswith(("$", "frontdoor.")):
            written = tomli.loads(f"x = {value[1]}")["x"]
            assert getattr(model.model_validate({**base, key: written}), key) == getattr(usual, key), key


def test_keys_that_take_effect_at_once_are_named():
    section = TEXT.split("\n## Changing it")[1].split("\n## ")[0]
    named = set(re.findall(r"`([a-z_]+)`", section))
    restarts = set(rows(("servers", "*"))) & {key for key in LIVE_KEYS if key.startswith(("restart_", "start_limit"))}

    assert (named | restarts | {"stable_after"}) >= LIVE_KEYS
    assert {setting.split(".")[1] for setting in LIVE_SETTINGS} <= named


def test_contents_name_sections_that_exist():
    anchors = {
        re.sub(r"[^a-z -]", "", line.lower()).strip().replace(" ", "-") for line in re.findall(r"^#+ (.*)", TEXT, re.M)
    }

    assert set(re.findall(r"\(#([a-z-]+)\)", TEXT)) <= anchors


def test_document_covers_the_whole_registry():
    assert {"daemon", "frontdoor", "sandbox", "profiles", "views", "servers"} == set(Registry.model_fields) - {
        "path",
        "warnings",
        "missing",
    }
