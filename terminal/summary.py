"""`summary`: the table of a study."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table as Printed

from errors import InvalidRequest
from ml_backend.dashboard.observations import Kind, collect
from study.tables import TABLES, Cell, Table
from terminal.common import (
    Backend,
    JsonOption,
    ProjectOption,
    can_be_written,
    complain,
    console,
    end,
    errors,
    print_json,
    read_video,
    say_left_out,
)
from words import counted

WIDEST = 1000
# The printed columns; the file has all.
NAMES = {
    "subject": "subject",
    "task": "task",
    "source": "source",
    "from": "from",
    "label": "label",
    "next_label": "next",
    "videos": "videos",
    "count": "count",
    "total_seconds": "total s",
    "mean_seconds": "mean s",
    "sd_seconds": "SD s",
    "share": "share",
    "latency_seconds": "latency s",
    "per_minute": "a minute",
    "expected_seconds": "expected s",
    "expected_sd_seconds": "± s",
}
Which = Enum("Which", {name: name for name in TABLES}, type=str)


def summary(
    project: ProjectOption,
    by: Annotated[str, typer.Option("--by", help="The field of the tasks' data that names a video's subject.")] = "",
    kind: Annotated[Kind, typer.Option("--from", help="What to count.")] = Kind.ANNOTATIONS,
    which: Annotated[
        Which, typer.Option("--table", help="Time budgets of each video or subject, or transitions between labels.")
    ] = Which.videos,
    csv: Annotated[
        Path | None, typer.Option("--csv", callback=can_be_written, help="Write the table into this file.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Count how often, how long and how soon each label occurs, for each video or subject.

    The prediction of an annotated video is what was drawn on it.
    """
    backend = Backend()
    model = backend.model(project)
    say_left_out(model)

    def extract(task: dict[str, Any], number: int, total: int) -> None:
        read_video(model, task, f"{number}/{total} task {task['id']}")

    found = collect(model, backend.store, kind, by, before=extract)
    for task, reason in found.left_out.items():
        complain(f"Task {task}", reason)
    if not found.observed:
        raise InvalidRequest(f"No task of project {project} can be summarised.")
    unknown = len({one.observation.task for one in found.observed if one.seconds is None})
    if unknown:
        errors.out(
            f"The length of {counted(unknown, 'video')} isn't known, so share and rate leave them out. "
            f"`cli.py extract --project {project}` reads them."
        )
    table = TABLES[which.value](found.observed)
    if csv:
        with csv.open("w", newline="", encoding="utf-8") as file:
            table.write(file)
    if as_json:
        print_json(table.records())
    elif csv:
        console.out(f"{len(table.rows)} rows: {csv}")
    else:
        _print(table, kind is Kind.BOTH)
    end(len(found.observed), list(found.left_out))


def _print(table: Table, both: bool) -> None:
    """Prints the columns that tell rows apart or have a value, without cutting any."""
    left_out = () if both else ("source", "from")
    shown = [
        index
        for index, name in enumerate(table.columns)
        if name in NAMES and name not in left_out and any(row[index] not in (None, "") for row in table.rows)
    ]
    printed = Printed(box=box.SIMPLE)
    for index in shown:
        numeric = not any(isinstance(row[index], str) for row in table.rows)
        printed.add_column(NAMES[table.columns[index]], justify="right" if numeric else "left", no_wrap=True)
    for row in table.rows:
        printed.add_row(*(_text(row[index]) for index in shown))
    needed = Measurement.get(console, console.options.update(max_width=WIDEST), printed).maximum
    Console(width=max(needed, console.width), markup=False, emoji=False).print(printed)


def _text(cell: Cell) -> str:
    if cell is None:
        return ""
    return f"{cell:.2f}" if isinstance(cell, float) else str(cell)
