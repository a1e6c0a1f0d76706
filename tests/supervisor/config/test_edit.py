"""Edits of registries: exactly the asked-for change, every other line as it was, and never half a file."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
import tomli
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mcpd.config import edit, rewrite
from mcpd.config.rewrite import Edit
from mcpd.errors import ConfigError, NotFound
from support.registries import write

ENVIRON = {"PATH": os.environ["PATH"], "HOME": "/nowhere", "XDG_RUNTIME_DIR": "/run"}
SAMPLE = """\
# Ours.

# --- clocks ---

# tells the time
[servers.time]   # a clock
command = ["cat"]   # of sorts
env = { TZ = "UTC" }
# env = { TZ = "CET" }

[servers.time.limits]
pids = 7   # few

# --- others ---

# keeps notes
[servers.notes]
command = [
    "cat",   # the first
    # nothing else
]
enabled = false   # for now
# the view
[views.desk]
servers = ["notes"]

[frontdoor]
port = 0
"""


def lines(text: str) -> list[str]:
    return text.splitlines()


def added(change: Edit) -> list[str]:
    return [line[1:] for line in lines(change.diff())[2:] if line.startswith("+")]


def taken(change: Edit) -> list[str]:
    return [line[1:] for line in lines(change.diff())[2:] if line.startswith("-")]


def test_remove_takes_the_entry_its_tables_and_the_comments_that_touch_it(tmp_path: Path) -> None:
    path = write(tmp_path, SAMPLE)

    change = edit.remove(path, "time")

    assert added(change) == []
    assert sorted(taken(change)) == sorted(lines(SAMPLE)[4:13])
    assert change.after.startswith("# Ours.\n\n# --- clocks ---\n\n# --- others ---\n\n# keeps notes\n")


def test_comment_that_touches_the_next_table_is_that_tables(tmp_path: Path) -> None:
    change = edit.remove(write(tmp_path, SAMPLE.replace('servers = ["notes"]', 'servers = ["time"]')), "notes")

    assert "# keeps notes" not in change.after
    assert "# --- others ---\n\n# the view\n[views.desk]\n" in change.after


def test_comment_at_the_top_of_the_file_is_the_files(tmp_path: Path) -> None:
    path = write(tmp_path, '# Do not delete this file.\n[servers.a]\ncommand = ["cat"]\n')

    assert edit.remove(path, "a").after == "# Do not delete this file.\n"


def test_last_entry_leaves_no_empty_lines_at_the_end(tmp_path: Path) -> None:
    path = write(tmp_path, '[servers.a]\ncommand = ["cat"]\n\n[servers.b]\ncommand = ["cat"]\n\n\n')

    assert edit.remove(path, "b").after == '[servers.a]\ncommand = ["cat"]\n'


def test_several_are_removed_in_one_edit(tmp_path: Path) -> None:
    path = write(tmp_path, SAMPLE)

    change = edit.remove(path, "notes", upon=edit.remove(path, "time"))

    assert change.before == SAMPLE
    assert "servers" not in tomli.loads(change.after)


@pytest.mark.parametrize(
    ("name", "enabled", "gone", "new"),
    [
        ("time", False, [], ["enabled = false"]),
        ("time", True, [], []),
        ("notes", True, ["enabled = false   # for now"], ["enabled = true   # for now"]),
        ("notes", False, [], []),
    ],
)
def test_enable_changes_one_line_or_none(
    tmp_path: Path, name: str, enabled: bool, gone: list[str], new: list[str]
) -> None:
    change = edit.enable(write(tmp_path, SAMPLE), name, enabled)

    assert (taken(change), added(change)) == (gone, new)
    assert bool(change) == bool(new)


def test_new_line_stands_right_under_the_header(tmp_path: Path) -> None:
    change = edit.enable(write(tmp_path, SAMPLE), "time", False)

    assert '[servers.time]   # a clock\nenabled = false\ncommand = ["cat"]   # of sorts\n' in change.after


def test_what_is_inherited_counts(tmp_path: Path) -> None:
    path = write(tmp_path, '[defaults]\nenabled = false\n[servers.a]\ncommand = ["cat"]\n')

    assert not edit.enable(path, "a", False)
    assert edit.enable(path, "a", True).after.endswith('[servers.a]\nenabled = true\ncommand = ["cat"]\n')


@pytest.mark.parametrize(
    "text",
    [
        '[servers]\na.command = ["cat"]   # one\na.enabled = true\nb = { command = ["cat"] }   # two\n',
        'servers.a.command = ["cat"]   # one\nservers.a.enabled = true\nservers.b = { command = ["cat"] }   # two\n',
        'servers = { a = { command = ["cat"], enabled = true }, b = { command = ["cat"] } }   # two\n',
        '[servers."a"]\ncommand = ["cat"]\n"enabled" = true\n[servers]\n[servers.b]   # two\ncommand = ["cat"]\n',
        '[servers.a]\ncommand = ["cat"]\nenabled = true\n[views.x]\nservers = "*"\n'
        '[servers.b.env]   # two\nA = "enabled = true"\n'
        '[defaults]\ncommand = ["cat"]\n',
    ],
    ids=["dotted", "from-the-top", "inline", "quoted", "spread"],
)
def test_unusual_forms_are_edited_too(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, text)
    before = tomli.loads(text)["servers"]

    assert tomli.loads(edit.remove(path, "a").after)["servers"] == {"b": before["b"]}
    assert "# two" in edit.remove(path, "a").after
    off = tomli.loads(edit.enable(path, "a", False).after)["servers"]
    assert off == {**before, "a": {**before["a"], "enabled": False}}
    off = tomli.loads(edit.enable(path, "b", False).after)["servers"]
    assert off == {**before, "b": {**before["b"], "enabled": False}}


def test_add_puts_the_entry_behind_the_last_server(tmp_path: Path) -> None:
    change = edit.add(write(tmp_path, SAMPLE), {"new": {"command": ["cat", "-"], "limits": {"pids": 3}}}, comment="why")

    assert taken(change) == []
    assert [line for line in added(change) if line] == [
        "# why",
        "[servers.new]",
        'command = ["cat", "-"]',
        "limits = { pids = 3 }",
    ]
    assert "enabled = false   # for now\n\n# why\n[servers.new]\n" in change.after
    assert "limits = { pids = 3 }\n\n# the view\n[views.desk]\n" in change.after


def test_long_values_get_lines_of_their_own(tmp_path: Path) -> None:
    table = {
        "command": ["cat", *(f"argument number {at}" for at in range(9))],
        "env": {f"VARIABLE_{at}": 'a "quoted" \\ value\n' for at in range(5)} | {"odd key": {"secret": "x"}},
    }

    change = edit.add(write(tmp_path, SAMPLE), {"new": table})

    assert tomli.loads(change.after)["servers"]["new"] == table
    assert max(map(len, added(change))) < 120
    assert "[servers.new.env]" in added(change)


def test_add_makes_the_registry_if_there_is_none(tmp_path: Path) -> None:
    path = tmp_path / "mcpd" / "mcpd.toml"
    change = edit.add(path, {"a": {"command": ["cat"]}})
    assert edit.objections(path, change, ENVIRON) == ()
    assert not path.parent.exists()

    assert rewrite.write(change) is None

    assert path.read_text() == change.after
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_servers_of_servers_d_are_edited_where_they_stand(tmp_path: Path) -> None:
    path = write(tmp_path, SAMPLE)
    other = write(tmp_path, '[servers.b]\ncommand = ["cat"]\n', "servers.d/b.toml")

    assert edit.remove(path, "b") == Edit(other, other.read_text(), "")
    assert edit.enable(path, "b", False).file == other
    new = edit.add(path, {"c": {"command": ["cat"]}}, file=Path("c.toml"))
    assert (new.file, new.before) == (tmp_path / "servers.d" / "c.toml", None)
    assert edit.objections(path, new, ENVIRON) == ()
    assert edit.add(path, {"c": {"command": ["cat"]}}, file=other).file == other


@pytest.mark.parametrize("file", ["x.txt", ".x.toml", "/elsewhere/x.toml", "../x.toml"])
def test_add_refuses_files_that_would_not_be_read(tmp_path: Path, file: str) -> None:
    with pytest.raises(ConfigError, match=r"no file of servers\.d"):
        edit.add(write(tmp_path, SAMPLE), {"c": {"command": ["cat"]}}, file=Path(file))


def test_add_refuses_names_that_are_taken_or_cannot_be(tmp_path: Path) -> None:
    path = write(tmp_path, SAMPLE)

    with pytest.raises(ConfigError, match=r"mcpd\.toml:17: servers\.notes: there is such a server already"):
        edit.add(path, {"notes": {"command": ["cat"]}})
    with pytest.raises(ConfigError, match="cannot be used"):
        edit.add(path, {"A b": {"command": ["cat"]}})


def test_names_that_are_not_there(tmp_path: Path) -> None:
    path = write(tmp_path, SAMPLE)

    with pytest.raises(NotFound, match="no server 'x'"):
        edit.remove(path, "x")
    with pytest.raises(NotFound, match="no server 'x'"):
        edit.enable(path, "x", True)


def test_file_that_does_not_parse_is_told_and_left(tmp_path: Path) -> None:
    path = write(tmp_path, "[servers.a\n")

    with pytest.raises(ConfigError, match=r"mcpd\.toml:1: not valid TOML"):
        edit.remove(path, "a")


def test_windows_line_breaks_and_a_byte_order_mark_stay(tmp_path: Path) -> None:
    path = tmp_path / "mcpd.toml"
    text = "\ufeff[servers.a]\r\ncommand = ['cat']\r\n\r\n[servers.b]\r\ncommand = ['cat']\r\n"
    path.write_bytes(text.encode())

    assert edit.enable(path, "a", False).after == text.replace("a]\r\n", "a]\r\nenabled = false\r\n")
    assert edit.remove(path, "b").after == "\ufeff[servers.a]\r\ncommand = ['cat']\r\n"
    grown = edit.add(path, {"c": {"command": ["cat"]}}).after
    assert grown == text + '\r\n[servers.c]\r\ncommand = ["cat"]\r\n'


ENTRY = st.fixed_dictionaries({"lead": st.sampled_from(["", "# lead\n", "\n# far\n\n"]), "table": st.booleans()})


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(ENTRY, min_size=1, max_size=5), st.data())
def test_whatever_is_removed_the_rest_says_the_same(
    tmp_path: Path, entries: list[dict[str, object]], data: st.DataObject
) -> None:
    text = "".join(
        f'{one["lead"]}[servers.s{at}]\ncommand = ["cat"] # c\n'
        + (f"[servers.s{at}.env]\nA = '#'\n" if one["table"] else "")
        for at, one in enumerate(entries)
    )
    path = write(tmp_path, text)
    name = f"s{data.draw(st.integers(0, len(entries) - 1))}"

    change = edit.remove(path, name)

    assert added(change) == []
    expected = tomli.loads(text)["servers"]
    del expected[name]
    assert tomli.loads(change.after).get("servers", {}) == expected
    assert change.after.count("# far") == text.count("# far")


def test_objections_are_those_that_the_edit_brings(tmp_path: Path) -> None:
    path = write(tmp_path, SAMPLE.replace('"cat"]   # of sorts', '"no-such-program"]'))

    assert edit.objections(path, edit.enable(path, "notes", True), ENVIRON) == ()
    assert edit.objections(path, edit.remove(path, "time"), ENVIRON) == ()
    (problem,) = edit.objections(path, edit.remove(path, "notes"), ENVIRON)
    assert (problem.file, problem.key) == (None, "views.desk.servers[0]")
    (problem,) = edit.objections(path, edit.add(path, {"n": {"command": ["no-such-other"]}}), ENVIRON)
    assert problem.key == "servers.n.command"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('[servers.a]\npackage = "npm:x@1"   # pinned\n', '[servers.a]\npackage = "npm:x@2"   # pinned\n'),
        ("[servers]\na.package = 'npm:x@1'\n", '[servers]\na.package = "npm:x@2"\n'),
        ('[servers]\na = { package = "npm:x@1" }\n', '[servers]\na = { package = "npm:x@2" }\n'),
    ],
)
def test_package_is_replaced_where_it_stands(tmp_path: Path, before: str, after: str) -> None:
    change = edit.repackage(write(tmp_path, before), "a", "npm:x@2")

    assert change.after == after


def test_package_that_stands_elsewhere_is_not_invented(tmp_path: Path) -> None:
    path = write(tmp_path, '[defaults]\npackage = "npm:x@1"\n[servers.a]\nenabled = true\n')

    with pytest.raises(ConfigError, match="is not written in the server's own table"):
        edit.repackage(path, "a", "npm:x@2")
    with pytest.raises(NotFound):
        edit.repackage(path, "b", "npm:x@2")
