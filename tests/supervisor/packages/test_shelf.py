"""What stands on the shelf: whole installations with their records, and nothing that leads out of them."""

from __future__ import annotations

import os
import shutil
import stat
import sys
from pathlib import Path

import pytest

from mcpd.config.registry import Package
from mcpd.errors import SpawnError
from mcpd.packages.shelf import Place, Program, Record, complaint, fingerprint, records, remove_tree, seal, stamp

NPM = Package.parse("npm:@x/y@1.2.3")
PYPI = Package.parse("pypi:Some_Thing.else==1.0")


def record_of(package: Package, scripts: bool = False) -> Record:
    return Record(
        package=str(package), scripts=scripts, sha256="0", files=1, size=1, programs={"y": Program("y.js", "node")},
        installer="npm", installed_at=0.0,
    )  # fmt: skip


def installed(place: Place) -> Path:
    place.shelf.mkdir(parents=True, exist_ok=True)
    made = place.begin() / "made"
    made.mkdir()
    (made / "y.js").write_text("1")
    place.finish(made, record_of(place.package, place.scripts))
    return place.directory


def test_each_version_has_a_place_of_its_own(tmp_path: Path) -> None:
    assert Place(tmp_path, NPM).directory == tmp_path / "npm/@x/y/1.2.3"
    assert Place(tmp_path, NPM, scripts=True).directory == tmp_path / "npm/@x/y/1.2.3~scripts"
    assert Place(tmp_path, PYPI).directory == tmp_path / "pypi/some-thing-else/1.0"


def test_record_makes_an_installation(tmp_path: Path) -> None:
    place = Place(tmp_path, NPM)
    assert place.record() is None

    directory = installed(place)

    assert place.record() == record_of(NPM)
    assert (directory / "y.js").read_text() == "1"
    assert Place(tmp_path, NPM, scripts=True).record() is None
    place.record_file.write_text("{")
    assert place.record() is None


def test_what_was_left_half_done_is_removed_before_the_next_try(tmp_path: Path) -> None:
    place = Place(tmp_path, NPM)
    place.shelf.mkdir(parents=True)
    left = place.begin()
    (left / "half").write_text("x")
    os.chmod(left, 0o500)
    place.directory.mkdir()  # renamed, but killed before its record was written
    (place.directory / "half").write_text("x")

    again = place.begin()

    assert [one.name for one in place.shelf.iterdir()] == [again.name]


def test_removed_installation_leaves_nothing(tmp_path: Path) -> None:
    place, other = Place(tmp_path, NPM), Place(tmp_path, NPM, scripts=True)
    installed(place)
    installed(other)
    for left in place.shelf.glob("*.partial"):
        remove_tree(left)

    place.remove()

    assert place.record() is None
    assert not place.directory.exists()
    assert other.record() is not None


def test_all_that_is_installed_is_found(tmp_path: Path) -> None:
    for package in (NPM, PYPI, Package.parse("npm:plain@1.0.0")):
        installed(Place(tmp_path, package))
    (tmp_path / "npm/plain/2.0.0.json").write_text("nonsense")

    assert {record.package for _, record in records(tmp_path)} == {str(NPM), str(PYPI), "npm:plain@1.0.0"}
    assert list(records(tmp_path / "nowhere")) == []


# -- What is sealed --------------------------------------------------------------------------------------------------


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """An installation as an installer with a strict umask leaves it."""
    made = tmp_path / "made"
    (made / "bin").mkdir(parents=True, mode=0o700)
    (made / "bin" / "run").write_text("#!/bin/sh\n")
    (made / "bin" / "run").chmod(0o700)
    (made / "data").write_text("1")
    (made / "data").chmod(0o600)
    return made


def test_sealed_installation_is_everybodys_to_read_and_nobodys_to_write(tmp_path: Path, made: Path) -> None:
    (made / "bin" / "run").chmod(0o4755)
    (made / "also").symlink_to("bin/run")

    seal(made, tmp_path / "final", sys.executable)

    modes = {one.name: stat.S_IMODE(one.stat().st_mode) for one in (made / "bin", made / "bin/run", made / "data")}
    assert modes == {"bin": 0o555, "run": 0o555, "data": 0o444}
    remove_tree(made)
    assert not made.exists()


@pytest.mark.parametrize("target", ["/etc/passwd", "../../outside", "../bin/../../outside"])
def test_link_that_leads_out_is_refused(tmp_path: Path, made: Path, target: str) -> None:
    (tmp_path / "outside").mkdir()
    (made / "bin" / "way").symlink_to(target)

    with pytest.raises(SpawnError, match="leads out of it: bin/way"):
        seal(made, tmp_path / "final", sys.executable)


def test_links_of_a_virtual_environment_may_stay(tmp_path: Path, made: Path) -> None:
    final = tmp_path / "final"
    (made / "venv" / "bin").mkdir(parents=True)
    (made / "venv" / "bin" / "python").symlink_to(os.path.realpath(sys.executable))
    (made / "venv" / "bin" / "python3").symlink_to("python")
    (made / "absolute").symlink_to(final / "bin" / "run")

    seal(made, final, sys.executable)

    (made / "bin").chmod(0o755)
    (made / "bin" / "python").symlink_to(os.path.realpath(sys.executable))
    with pytest.raises(SpawnError, match="leads out of it: bin/python"):
        seal(made, final, sys.executable)


@pytest.mark.parametrize("line", ["/root", "/tmp/../home", "../.."])
def test_path_file_that_leads_out_is_refused(tmp_path: Path, made: Path, line: str) -> None:
    (made / "x.pth").write_text(f"# fine\nimport os\nbin\n{line}\n")

    with pytest.raises(SpawnError, match=r"adds a directory outside of it to the path: x\.pth"):
        seal(made, tmp_path / "final", sys.executable)


def test_what_is_no_file_is_refused(tmp_path: Path, made: Path) -> None:
    os.mkfifo(made / "pipe")

    with pytest.raises(SpawnError, match="neither file, directory nor link: pipe"):
        seal(made, tmp_path / "final", sys.executable)


def test_fingerprint_changes_with_every_change(made: Path) -> None:
    seen = {fingerprint(made)[0]}
    assert fingerprint(made) == (next(iter(seen)), 2, 11)

    for change in (
        lambda: (made / "data").write_text("2"),
        lambda: (made / "data").chmod(0o700),
        lambda: (made / "data").rename(made / "other"),
        lambda: (made / "link").symlink_to("other"),
        lambda: ((made / "link").unlink(), (made / "link").symlink_to("bin")),
    ):
        change()
        digest = fingerprint(made)[0]
        assert digest not in seen
        seen.add(digest)


@pytest.fixture
def whole(tmp_path: Path) -> tuple[Place, Record]:
    """An installation with a record that is true."""
    place = Place(tmp_path, NPM)
    directory = installed(place)
    (directory / "lib").mkdir()
    (directory / "lib" / "z.js").write_text("2")
    (directory / "link").symlink_to("y.js")
    sha256, files, size = fingerprint(directory)
    record = Record(
        package=str(NPM), sha256=sha256, files=files, size=size, programs={}, installer="npm", installed_at=0.0,
        stamp=stamp(directory),
    )  # fmt: skip
    place.write(record)
    return place, record


def test_what_is_as_it_was_installed_is_no_cause_for_complaint(whole: tuple[Place, Record]) -> None:
    place, record = whole

    assert complaint(place, record) == ""
    assert complaint(place, record, quick=False) == ""


def test_other_times_alone_are_no_cause_for_complaint(whole: tuple[Place, Record]) -> None:
    """Somebody brought back a copy."""
    place, record = whole
    shutil.copytree(place.directory, place.directory.with_name("copy"), symlinks=True)
    remove_tree(place.directory)
    place.directory.with_name("copy").rename(place.directory)

    assert stamp(place.directory) != record.stamp
    assert complaint(place, record) == ""


@pytest.mark.parametrize("what", ["content", "mode", "more", "less", "link", "renamed", "itself"])
def test_every_change_is_told(whole: tuple[Place, Record], what: str) -> None:
    place, record = whole
    file = place.directory / "y.js"
    before = file.stat()
    match what:
        case "content":  # of the same size, with the old time
            file.write_text("X")
            os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        case "mode":
            file.chmod(0o755)
        case "more":
            (place.directory / "lib" / "sitecustomize.py").write_text("")
        case "less":
            file.unlink()
        case "link":
            (place.directory / "link").unlink()
            (place.directory / "link").symlink_to("/etc/passwd")
        case "renamed":
            file.rename(place.directory / "x.js")
        case "itself":
            place.directory.rename(place.directory.with_name("elsewhere"))
            place.directory.symlink_to("elsewhere")

    assert complaint(place, record)
    assert complaint(place, record, quick=False)
