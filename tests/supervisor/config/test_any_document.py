"""Whatever valid TOML stands in a registry: it becomes a registry, or problems at places that exist."""

import tempfile
from pathlib import Path

import pytest
import tomlkit
from hypothesis import given, settings
from hypothesis import strategies as st

from mcpd.config.load import load
from mcpd.config.registry import LimitsSpec, ProbeSpec, SandboxSpec, ServerSpec, ToolRules
from mcpd.config.settings import DaemonSettings, FrontdoorSettings
from mcpd.config.tables import NAMED, SINGLE
from mcpd.errors import ConfigError

MODELS = (ServerSpec, ProbeSpec, ToolRules, SandboxSpec, LimitsSpec, DaemonSettings, FrontdoorSettings)
KEYS = sorted({key for model in MODELS for key in model.model_fields} | {"secret", "servers", "compact", "x", "", "é"})
SCALARS = st.one_of(
    st.sampled_from(["", "*", "a", "b", "5s", "1MiB", "sh", "../x", "a.py:b", "::1", "~/x", "file:///x", "\n", "\x7f"]),
    st.booleans(),
    st.integers(-2, 70000),
    st.floats(),
    st.dates(),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=8,
)
TABLE = st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=6)
NAMED_TABLES = st.dictionaries(st.sampled_from(["a", "b", "c", "Bad", "", "strict"]), TABLE | VALUES, max_size=3)
DOCUMENTS = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(SINGLE, TABLE | VALUES) | dict.fromkeys(NAMED, NAMED_TABLES | VALUES) | {"x": VALUES},
)


@pytest.mark.timeout(120)
@settings(deadline=None)
@given(DOCUMENTS, DOCUMENTS)
def test_document_is_a_registry_or_problems(main, fragment):
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "mcpd.toml")
        (path.parent / "servers.d").mkdir()
        texts = {path: tomlkit.dumps(main), path.parent / "servers.d" / "x.toml": tomlkit.dumps(fragment)}
        for file, text in texts.items():
            file.write_text(text)
        try:
            registry = load(path, {"HOME": name, "PATH": "/usr/bin:/bin"})
        except ConfigError as error:
            check(error, texts)
            return
        assert set(registry.servers) == {*main.get("servers", {}), *fragment.get("servers", {})}


def check(error, texts):
    assert error.problems
    for problem in error.problems:
        assert problem.line is None or 1 <= problem.line <= len(texts[problem.file].splitlines())
        assert problem.message
        assert problem.remedy
