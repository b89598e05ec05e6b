"""`status`: show projects, queue, workers and the last error."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ml_backend.dashboard import overview
from ml_backend.settings import get_settings
from ml_backend.store import Store
from terminal.common import JsonOption, console, known_project, print_json
from words import counted

WATCH_SECONDS = 1.0


def status(
    project: Annotated[str | None, typer.Option("--project", help="Show only this project.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Update the output each second, until Ctrl-C.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show projects, queue, workers and the last error."""
    store = Store(get_settings().database)
    if project is not None:
        known_project(store, project)
    if as_json:
        print_json(overview.state(store, project))
        return
    if not watch:
        console.print(_render(overview.state(store, project)))
        return
    with (
        suppress(KeyboardInterrupt),
        Live(_render(overview.state(store, project)), console=console, auto_refresh=False) as live,
    ):
        while True:
            time.sleep(WATCH_SECONDS)
            live.update(_render(overview.state(store, project)), refresh=True)


def _render(state: dict[str, Any]) -> Group:
    parts: list[Any] = [_projects(state["projects"]) if state["projects"] else Text("No project is connected yet.\n")]
    queue = state["queue"]
    workers = counted(state["workers"], "worker") if state["workers"] else "no worker runs"
    parts.append(Text(f"Queue: {queue['queued']} waiting, {queue['started']} running; {workers}"))
    if state["jobs"]:
        parts.append(_jobs(state["jobs"]))
    if state["last_error"]:
        error = state["last_error"]
        parts.append(Text(f"Last error ({error['when']}, {error['what']}): {error['error']}", style="red"))
    return Group(*parts)


def _projects(projects: list[dict[str, Any]]) -> Table:
    table = Table(box=box.SIMPLE)
    for column in ("project", "model", "annotated videos", "F1 before learning", "state"):
        table.add_column(column, overflow="fold")
    for one in projects:
        table.add_row(
            one["id"], one["model_version"] or "", str(one["annotated_tasks"]), _score(one["f1"]), one["state"]
        )
    return table


def _score(f1: dict[str, float]) -> str:
    return ", ".join(f"{label} {score:.2f}" for label, score in f1.items())


def _jobs(jobs: list[dict[str, Any]]) -> Table:
    table = Table(box=box.SIMPLE)
    for column in ("job", "project", "task", "state", "", "left"):
        table.add_column(column)
    for job in jobs:
        bar = ProgressBar(total=1.0, completed=job["progress"], width=20) if job["status"] == "started" else ""
        table.add_row(job["kind"], job["project"], str(job["task"] or ""), job["status"], bar, job["time_left"])
    return table
