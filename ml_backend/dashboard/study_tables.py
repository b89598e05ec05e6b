"""A study's tables as pages and reports show them."""

from __future__ import annotations

from typing import NamedTuple

from study.tables import Cell, Table
from video.task_data import file_name

# A page with more rows is slow, and nobody reads them all; the CSV has all.
MAX_ROWS = 200
# The words for the tables' columns. Others are left out.
HEADINGS = {
    "subject": "Subject",
    "from": "From",
    "video": "Video",
    "task": "Task",
    "source": "Source",
    "label": "Label",
    "videos": "Videos",
    "observed_seconds": "Observed s",
    "count": "Bouts",
    "total_seconds": "Total s",
    "mean_seconds": "Mean s",
    "sd_seconds": "SD s",
    "share": "Share",
    "latency_seconds": "Latency s",
    "per_minute": "A minute",
    "expected_seconds": "Expected s",
    "expected_sd_seconds": "± s",
}


class Shown(NamedTuple):
    """A table in words.

    Attributes:
        headings: of the columns that have a value, and of `from` where rows differ in it.
        rows: texts, at most `MAX_ROWS`.
        left_out: how many rows there are beyond these.
    """

    headings: list[str]
    rows: list[list[str]]
    left_out: int


def shown(table: Table) -> Shown:
    """Makes the texts of a table."""
    kept = [
        (index, name)
        for index, name in enumerate(table.columns)
        if name in HEADINGS and (name != "from" or len({row[index] for row in table.rows}) > 1)
        if any(row[index] not in (None, "") for row in table.rows)
    ]
    rows = [[_text(name, row[index]) for index, name in kept] for row in table.rows[:MAX_ROWS]]
    return Shown([HEADINGS[name] for _, name in kept], rows, max(len(table.rows) - MAX_ROWS, 0))


def _text(name: str, cell: Cell) -> str:
    if cell is None:
        return ""
    if name == "video":
        return file_name(str(cell))
    return f"{cell:.2f}" if isinstance(cell, float) else str(cell)
