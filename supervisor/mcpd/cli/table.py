"""Tables of text that leave out what a narrow terminal has no room for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from mcpd.cli.text import clean

if TYPE_CHECKING:
    from rich.text import Text

GAP: Final = "  "
NARROWEST: Final = 16

Row = TypeVar("Row")


@dataclass(frozen=True)
class Column(Generic[Row]):
    """`rank`: 0 is never left out, else the highest goes first. `elastic`: may be cut short before others go."""

    title: str
    cell: Callable[[Row], str]
    rank: int = 0
    right: bool = False
    elastic: bool = False
    style: Callable[[Row], str] = lambda row: ""


def table(columns: Sequence[Column[Row]], rows: Sequence[Row], width: int | None) -> Text:
    """The table, at most `width` cells wide where that can be (None: no limit), ending in a line break."""
    from rich.text import Text

    cells = {column.title: [clean(column.cell(row)) for row in rows] for column in columns}
    widths = _fit(columns, cells, width)
    kept = [column for column in columns if column.title in widths]
    result = Text(no_wrap=True)
    for number, row in enumerate([None, *rows]):
        line = Text()
        for column in kept:
            text = column.title if row is None else _cut(cells[column.title][number - 1], widths[column.title])
            style = "bold" if row is None else column.style(row)
            last = column is kept[-1]
            line.append(_pad(text, widths[column.title], column.right, last), style)
            line.append("" if last else GAP)
        line.rstrip()
        result.append(line).append("\n")
    return result


def _fit(columns: Sequence[Column[Row]], cells: dict[str, list[str]], width: int | None) -> dict[str, int]:
    """The width of each column that is shown."""
    from rich.cells import cell_len

    widths = {
        column.title: max([cell_len(column.title), *(cell_len(cell) for cell in cells[column.title])])
        for column in columns
    }
    if width is None:
        return widths
    by_rank = sorted((column for column in columns if column.rank), key=lambda column: column.rank)
    elastic = [column.title for column in columns if column.elastic]
    while (excess := sum(widths.values()) + len(GAP) * (len(widths) - 1) - width) > 0:
        stretched = next((title for title in elastic if widths.get(title, 0) > NARROWEST), None)
        if stretched is not None:
            widths[stretched] = max(NARROWEST, widths[stretched] - excess)
        elif by_rank:
            del widths[by_rank.pop().title]
        else:
            break
    return widths


def _cut(text: str, width: int) -> str:
    from rich.cells import cell_len, set_cell_size

    return text if cell_len(text) <= width else set_cell_size(text, width - 1) + "…"


def _pad(text: str, width: int, right: bool, last: bool) -> str:
    from rich.cells import cell_len

    space = " " * (width - cell_len(text))
    return space + text if right else text if last else text + space
