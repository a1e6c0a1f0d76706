"""Tables over tables, and paths relative to the file that they stand in."""

from pathlib import Path

import pytest

from mcpd.config.layers import Layer, anchor, anchored, depth, lay
from mcpd.config.report import Place, dotted

HOME = Path("/home/me")


def layer(data, name="own", **keys):
    return Layer(data, lambda path: Place(Path(name), 1, dotted(path)), **keys)


@pytest.mark.parametrize(
    ("over", "under", "merged"),
    [
        ({"a": 1}, {"a": 2, "b": 3}, {"a": 1, "b": 3}),
        ({"env": {"A": "1"}}, {"env": {"A": "0", "B": "2"}}, {"env": {"A": "1", "B": "2"}}),
        ({"env": {"A": {"secret": "x"}}}, {"env": {"A": {"other": "y"}}}, {"env": {"A": {"secret": "x"}}}),
        ({"args": ["a"]}, {"args": ["b", "c"]}, {"args": ["a"]}),
        (
            {"tools": {"rename": {"a": "x"}}},
            {"tools": {"rename": {"b": "y"}}},
            {"tools": {"rename": {"a": "x", "b": "y"}}},
        ),
        ({"liveness": {"period": 1}}, {"liveness": {"timeout": 2}}, {"liveness": {"period": 1, "timeout": 2}}),
        ({"liveness": 5}, {"liveness": {"timeout": 2}}, {"liveness": 5}),
        ({"script": "x"}, {"command": ["y"], "args": []}, {"script": "x", "args": []}),
        ({}, {"command": ["y"]}, {"command": ["y"]}),
    ],
)
def test_tables_are_merged_key_by_key_and_the_rest_is_replaced(over, under, merged):
    before = repr((over, under))

    assert lay(layer(over), layer(under)).merged == merged
    assert repr((over, under)) == before


def test_key_is_placed_where_it_was_written():
    table = lay(layer({"env": {"A": "1"}, "args": ["x"]}), layer({"env": {"B": "1"}, "cwd": "/"}, "defaults"))

    assert table.place(("env", "A")).file == Path("own")
    assert table.place(("env", "B")).file == Path("defaults")
    assert table.place(("args", 0)).file == Path("own")
    assert table.place(("args", 1)).file == Path("own")
    assert table.place(("cwd",)).file == Path("defaults")
    assert table.place(("absent",)).file == Path("own")


def test_what_the_environment_does_not_say_is_placed_in_the_table():
    table = lay(layer({"port": 1}, "environment", is_table=False), layer({}, "file"))

    assert table.place(("port",)).file == Path("environment")
    assert table.place(("host",)).file == Path("file")


def test_depth_counts_the_steps_that_exist():
    assert depth({"a": {"b": [1]}}, ("a", "b", 0)) == 3
    assert depth({"a": {"b": [1]}}, ("a", "b", 1)) == 2
    assert depth({"a": 5}, ("a", "b")) == 1
    assert depth({"a": [1]}, ("a", "x")) == 1


@pytest.mark.parametrize(
    ("written", "path"),
    [
        ("x.py", "/etc/mcpd/x.py"),
        ("../x.py", "/etc/x.py"),
        ("./a//b/", "/etc/mcpd/a/b"),
        ("/abs/x", "/abs/x"),
        ("~", "/home/me"),
        ("~/x", "/home/me/x"),
        ("~other/x", "/etc/mcpd/~other/x"),
        ("file:///x", "file:///x"),
    ],
)
def test_path_is_relative_to_its_file(written, path):
    assert anchored(written, Path("/etc/mcpd"), HOME).rstrip("/") == path


def test_parent_of_a_linked_directory_is_the_one_that_the_kernel_finds(tmp_path):
    (tmp_path / "real" / "inner").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real" / "inner")

    assert anchored("link/../x", tmp_path, HOME) == str(tmp_path / "link/../x")


def test_only_paths_are_anchored():
    base = Path("/b")
    data = {
        "script": "a.py:mcp",
        "python": "python3",
        "cwd": "c",
        "command": ["./run", "./arg"],
        "args": ["./x"],
        "roots": ["r s", "file:///y", 5],
        "sandbox": {"read": ["d"], "write": "wrong", "home": "state"},
        "name": "n",
    }

    assert anchor(data, base, HOME) == {
        "script": "/b/a.py:mcp",
        "python": "python3",
        "cwd": "/b/c",
        "command": ["/b/run", "./arg"],
        "args": ["./x"],
        "roots": ["file:///b/r%20s", "file:///y", 5],
        "sandbox": {"read": ["/b/d"], "write": "wrong", "home": "state"},
        "name": "n",
    }


def test_values_of_wrong_types_are_left_for_the_validation():
    data = {"script": 5, "cwd": "", "command": "sh", "roots": "x", "sandbox": [], "python": None}

    assert anchor(data, Path("/b"), HOME) == data
    assert anchor({"command": []}, Path("/b"), HOME) == {"command": []}
