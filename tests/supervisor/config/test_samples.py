"""The sample registry runs as it is, and what it proposes in comments is right too."""

import re
from pathlib import Path

import pytest

from mcpd.config.load import load
from mcpd.errors import ConfigError

SAMPLE = Path(__file__).parents[3] / "etc" / "mcpd.toml"
PROPOSED = re.compile(r"^# (?=\[[a-z.]+\]|[a-z_]+ = )", re.MULTILINE)


@pytest.fixture
def environ(tmp_path):
    return {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}


def test_sample_has_three_servers_and_no_warning(environ):
    registry = load(SAMPLE, environ)

    assert tuple(registry.servers) == ("time", "files", "notes")
    assert registry.warnings == ()


def test_what_the_sample_proposes_needs_only_the_programs(tmp_path, environ):
    path = tmp_path / "mcpd.toml"
    path.write_text(PROPOSED.sub("", SAMPLE.read_text()))

    with pytest.raises(ConfigError) as caught:
        load(path, environ | {"PATH": "/nowhere"})

    problems = caught.value.problems
    keys = {problem.key.rpartition(".")[2] for problem in problems}
    assert keys == {"script", "command", "cwd", "read[0]", "write[0]"}
    assert {problem.key.split(".")[1] for problem in problems} == {
        *("time", "files", "notes", "filesystem", "git", "github")  # the other packages bring their programs
    }
