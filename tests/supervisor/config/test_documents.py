"""Files that cannot be used are told with the reason; the others are read all the same."""

import pytest

from mcpd.config.documents import LARGEST_FILE, read_all
from mcpd.config.report import Report
from support.registries import write


def read(path):
    report = Report()
    return read_all(path, report), report


@pytest.mark.parametrize(
    ("content", "line", "said"),
    [
        (b"a = 1\nb = \n", 2, "not valid TOML: invalid value; look at column 5"),
        (b"a = 1\na = 2\n", 2, "a key stands twice in one table"),
        (b"[servers.x]\n\n[servers.x]\n", 3, "the table [servers.x] stands twice in this file"),
        (b"[x]\n[x]\n", 2, "the table [x] stands twice in this file"),
        (b"a = 1\nb = '\xff'\n", 2, "is not UTF-8"),
        (b"a = " + b"[" * 5000, None, "nested too deeply"),
        (b"#" * (LARGEST_FILE + 1), None, "is over 4 MiB"),
    ],
)
def test_file_that_is_no_toml_is_a_problem_at_its_line(tmp_path, content, line, said):
    path = tmp_path / "r.toml"
    path.write_bytes(content)

    documents, report = read(path)

    assert documents == []
    (problem,) = report.problems
    assert (problem.file, problem.line) == (path, line)
    assert said in str(problem)


def test_fragments_are_read_also_if_one_is_broken(tmp_path):
    main = write(tmp_path, "a = 1\n")
    write(tmp_path, "b = ", "servers.d/1.toml")
    write(tmp_path, "c = 1", "servers.d/2.toml")

    documents, report = read(main)

    assert [document.data for document in documents] == [{"a": 1}, {"c": 1}]
    assert [problem.file.name for problem in report.problems] == ["1.toml"]


def test_place_of_a_key_has_file_line_and_dotted_key(tmp_path):
    (document,) = read(write(tmp_path, "\n[servers.time]\n"))[0]

    place = document.place(("servers", "time", "command"))

    assert (place.file, place.line, place.key) == (tmp_path / "mcpd.toml", 2, "servers.time.command")
    assert document.directory == tmp_path


def test_byte_order_mark_is_skipped(tmp_path):
    path = tmp_path / "r.toml"
    path.write_bytes(b"\xef\xbb\xbfa = 1\n")

    assert read(path)[0][0].data == {"a": 1}


def test_servers_d_that_is_a_file_is_none(tmp_path):
    path = write(tmp_path, "")
    write(tmp_path, "", "servers.d")

    assert len(read(path)[0]) == 1


def test_servers_d_that_cannot_be_listed_is_a_problem(tmp_path):
    path = write(tmp_path, "")
    (tmp_path / "servers.d").symlink_to("servers.d")

    assert "cannot be listed: Too many levels" in read(path)[1].problems[0].message


def test_directory_in_servers_d_is_a_problem(tmp_path):
    path = write(tmp_path, "")
    (tmp_path / "servers.d" / "x.toml").mkdir(parents=True)

    assert "cannot be read: Is a directory" in read(path)[1].problems[0].message


def test_file_that_everybody_can_write_is_a_warning(tmp_path):
    path = write(tmp_path, "")
    path.chmod(0o666)

    (warning,) = read(path)[1].warnings

    assert "chmod o-w" in warning.remedy
