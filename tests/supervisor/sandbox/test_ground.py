"""What is found that a command needs, in directories made for it."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from mcpd.sandbox.ground import Ground, Survey, closed_ancestors, for_user, may


def survey(*command: str, cwd: Path = Path("/"), path: str = "/usr/bin:/bin", private: tuple[Path, ...] = ()) -> Ground:
    found = Survey(path, str(cwd), lambda real: any(str(one) == real for one in private))
    found.program(command[0], command[1:])
    return found.ground


def program(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_program_of_the_system_needs_nothing() -> None:
    assert survey("/bin/sh", "-c", "true") == Ground()
    assert survey("no-such-program") == Ground()


def test_virtual_environment_its_interpreter_and_editable_installs(tmp_path: Path) -> None:
    base = program(tmp_path / "versions" / "3.99" / "bin" / "python3.99")
    alias = tmp_path / "current"
    alias.symlink_to("versions/3.99")
    venv = tmp_path / "project" / ".venv"
    site = venv / "lib" / "python3.99" / "site-packages"
    site.mkdir(parents=True)
    (venv / "bin").mkdir()
    (venv / "pyvenv.cfg").write_text(f"home = {alias}/bin\nversion = 3.99\n")
    (venv / "bin" / "python").symlink_to(alias / "bin" / "python3.99")
    (tmp_path / "editable").mkdir()
    (site / "x.pth").write_text(f"import sys\n# no\n{tmp_path / 'editable'}\n/nowhere\n")
    entry = program(venv / "bin" / "server", f"#!{venv}/bin/python\n")

    found = survey(str(entry))
    assert set(found.paths) == {str(venv), str(base.parents[1]), str(tmp_path / "editable")}
    assert dict(found.links) == {str(alias): "versions/3.99"}
    assert found.covers(str(site))
    assert not found.covers(str(tmp_path))


@pytest.mark.parametrize("options", [(), ("-u",), ("-X", "dev", "-W", "error")])
def test_script_of_an_interpreter_with_its_directory(tmp_path: Path, options: tuple[str, ...]) -> None:
    (tmp_path / "server").mkdir()
    script = tmp_path / "server" / "main.py"
    script.write_text("")
    python = program(tmp_path / "py" / "bin" / "python3")

    assert set(survey(str(python), *options, "server/main.py", "server/other.py", cwd=tmp_path).paths) == {
        str(script.parent),
        str(tmp_path / "py"),
    }
    assert str(tmp_path) in survey(str(python), "-m", "server", cwd=tmp_path).paths
    assert set(survey(str(python), "-c", "pass", str(script)).paths) == {str(tmp_path / "py")}


def test_private_directory_gives_only_the_script_and_its_neighbours(tmp_path: Path) -> None:
    for name in ("main.py", "helper.py", "diary.txt"):
        (tmp_path / name).write_text("")

    found = survey("/bin/sh", str(tmp_path / "main.py"), private=(tmp_path,))
    assert set(found.paths) == {str(tmp_path / "main.py"), str(tmp_path / "helper.py")}


def test_node_package_with_the_node_modules_that_it_is_in(tmp_path: Path) -> None:
    modules = tmp_path / "app" / "node_modules"
    script = program(modules / "@x" / "server" / "dist" / "index.js", "#!/usr/bin/env node\n")
    (modules / ".bin").mkdir()
    (modules / ".bin" / "server").symlink_to("../@x/server/dist/index.js")
    node = program(tmp_path / "nvm" / "v20" / "bin" / "node")
    path = f"{node.parent}:/usr/bin"

    for command in (
        (str(modules / ".bin" / "server"),),
        ("node", "--no-warnings", str(script)),
        ("node", str(script)[:-3]),
    ):
        assert set(survey(*command, path=path).paths) == {str(modules), str(tmp_path / "nvm" / "v20")}


def test_node_project_with_the_modules_above_it(tmp_path: Path) -> None:
    package = tmp_path / "space" / "packages" / "server"
    script = program(package / "src" / "index.js")
    (package / "package.json").write_text("{}")
    (tmp_path / "space" / "node_modules").mkdir()
    node = program(tmp_path / "n" / "bin" / "node")

    assert set(survey(str(node), str(script)).paths) == {
        str(package),
        str(tmp_path / "space" / "node_modules"),
        str(tmp_path / "n"),
    }


def test_links_that_lead_to_a_program_are_kept_unless_they_are_seen_anyway(tmp_path: Path) -> None:
    real = program(tmp_path / "tools" / "v1" / "bin" / "server", "\x7fELF")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "server").symlink_to(tmp_path / "tools" / "v1" / "bin" / "server")
    (tmp_path / "loop").symlink_to("loop")

    found = survey(str(tmp_path / "bin" / "server"))
    assert found.paths == (str(real.parents[1]),)
    assert found.links == ((str(tmp_path / "bin" / "server"), str(real)),)
    assert survey(str(tmp_path / "loop")) == Ground()


def test_scripts_that_name_each_other_come_to_an_end(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    program(one, f"#!{two}\n")
    program(two, f"#!{one}\n")

    assert survey(str(one)).paths == (str(tmp_path),)


def test_own_interpreter_is_found() -> None:
    assert survey(sys.executable).covers(os.path.realpath(sys.base_prefix))


def test_closed_directory_is_taken_apart_for_another_user(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    (closed / "a").write_text("")
    (closed / ".hidden").write_text("")
    stranger = os.getuid() + 1000

    assert list(for_user((str(closed),), stranger, stranger)) == [f"{closed}/a"]
    assert list(for_user((str(closed),), os.getuid(), os.getgid())) == [str(closed)]
    (top,) = closed_ancestors((f"{closed}/a",), stranger, stranger)
    assert str(closed) == top or str(closed).startswith(f"{top}/")
    assert closed_ancestors(("/x", "//x"), stranger, stranger) == ()


@pytest.mark.parametrize(
    ("mode", "who", "bits", "allowed"),
    [(0o700, "owner", 7, True), (0o077, "owner", 4, False), (0o070, "group", 7, True), (0o007, "other", 7, True),
     (0o004, "other", 5, False)],
)  # fmt: skip
def test_modes(mode: int, who: str, bits: int, allowed: bool) -> None:
    found = os.stat_result((stat.S_IFREG | mode, 0, 0, 1, 10, 20, 0, 0, 0, 0))
    uid, gid = {"owner": (10, 99), "group": (99, 20), "other": (99, 99)}[who]

    assert may(found, uid, gid, bits) is allowed


@pytest.mark.parametrize("wrapper", [("env", "-i", "A=b"), ("timeout", "60"), ("sh", "SCRIPT"), ("SCRIPT",)])
def test_program_that_a_wrapper_runs(tmp_path: Path, wrapper: tuple[str, ...]) -> None:
    script = program(tmp_path / "wrapper" / "run.sh", '#!/bin/sh\nexec "$@"\n')
    (tmp_path / "server").mkdir()
    (tmp_path / "server" / "main.py").write_text("")
    python = program(tmp_path / "py" / "bin" / "python3")
    words = [str(script) if word == "SCRIPT" else word for word in wrapper]

    found = survey(*words, str(python), "-u", str(tmp_path / "server" / "main.py"))

    expected = {str(tmp_path / "py"), str(tmp_path / "server")}
    assert set(found.paths) == expected | ({str(tmp_path / "wrapper")} if "SCRIPT" in wrapper else set())


def test_files_further_on_are_not_taken_for_programs(tmp_path: Path) -> None:
    tool, data = program(tmp_path / "a" / "tool.rb"), program(tmp_path / "b" / "data")

    assert survey("sh", str(tool), "--with", str(data)).paths == (str(tmp_path / "a"),)
