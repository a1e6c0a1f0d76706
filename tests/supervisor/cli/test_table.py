"""Tables, wide and narrow."""

from __future__ import annotations

from rich.cells import cell_len

from mcpd.cli.table import Column, table

ROWS = [("time", 3, "ok"), ("漢字", 12, "a long text that can be cut short")]
COLUMNS = (
    Column[tuple[str, int, str]]("NAME", lambda row: row[0]),
    Column[tuple[str, int, str]]("COUNT", lambda row: str(row[1]), rank=2, right=True),
    Column[tuple[str, int, str]]("TEXT", lambda row: row[2], rank=1, elastic=True),
)


def lines(width: int | None) -> list[str]:
    return table(COLUMNS, ROWS, width).plain.split("\n")


def test_without_a_limit_all_is_shown_and_nothing_trails() -> None:
    assert lines(None) == [
        "NAME  COUNT  TEXT",
        "time      3  ok",
        "漢字     12  a long text that can be cut short",
        "",
    ]


def test_what_is_elastic_is_cut_first() -> None:
    assert lines(40) == [
        "NAME  COUNT  TEXT",
        "time      3  ok",
        "漢字     12  a long text that can be cu…",
        "",
    ]


def test_then_columns_go_the_highest_rank_first() -> None:
    assert lines(25) == ["NAME  TEXT", "time  ok", "漢字  a long text tha…", ""]
    assert lines(10) == ["NAME", "time", "漢字", ""]


def test_no_line_is_wider_than_the_terminal_while_columns_can_go() -> None:
    for width in range(4, 60):
        assert max(map(cell_len, lines(width))) <= width


def test_cells_cannot_break_out_of_their_line() -> None:
    rows = [("a\nb\x1b[2J", 1, "")]

    assert table(COLUMNS, rows, None).plain == "NAME     COUNT  TEXT\na b [2J      1\n"
