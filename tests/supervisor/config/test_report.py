"""How problems are worded, ordered and placed."""

from pathlib import Path
from typing import Annotated

import pytest
from pydantic import Field, TypeAdapter, ValidationError

from mcpd.config.report import Place, Report, complaint, dotted


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ((), ""),
        (("servers", "time", "args", 0), "servers.time.args[0]"),
        (("servers", "a b", 'say "x"'), 'servers."a b"."say \\"x\\""'),
        (("a", "b\\c", ""), 'a."b\\\\c".""'),
    ],
)
def test_keys_are_written_as_toml_has_them(path, text):
    assert dotted(path) == text


def test_problems_are_told_once_in_the_order_of_files_and_lines():
    report = Report()
    for file, line in (("/b", 1), ("/a", 10), ("/a", 9), ("/a", 10)):
        report.problem(Place(Path(file), line, "k"), "m", "r")
    report.problem(Place(None, None, "MCPD_X"), "m", "r")
    report.warning(Place(Path("/a"), 1, "k"), "m", "r")

    assert [(str(problem.file), problem.line) for problem in report.problems] == [
        ("None", None),
        ("/a", 9),
        ("/a", 10),
        ("/b", 1),
    ]
    assert len(report.warnings) == 1


def test_place_is_file_and_line_or_a_variable():
    assert str(Place(Path("/a"), 3, "k")) == "/a:3"
    assert str(Place(None, None, "MCPD_X")) == "MCPD_X"


def test_error_that_has_no_words_of_its_own_is_told_in_those_of_pydantic():
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(Annotated[int, Field(multiple_of=3)]).validate_python(4)

    message, remedy = complaint(caught.value.errors()[0], lambda path: (), lambda key: None)

    assert message == "input should be a multiple of 3, found an integer (4)"
    assert remedy
