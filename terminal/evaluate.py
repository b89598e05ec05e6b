"""`evaluate`: show how good a project's model is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table

from errors import InvalidRequest, NotReady
from learning.evaluation import score_cases
from ml_backend.dashboard.colours import colours
from ml_backend.dashboard.observations import Kind, collect
from ml_backend.store.tables import Training
from terminal.common import Backend, JsonOption, ProjectOption, console, make_folder, print_json, progress
from terminal.report import write_report


def evaluate(
    project: ProjectOption,
    leave_one_out: Annotated[
        bool,
        typer.Option("--leave-one-out", help="Predict each annotated video with a model of the others."),
    ] = False,
    hold_out: Annotated[
        str | None,
        typer.Option("--hold-out", help="Ids of tasks, such as 3,7: predict these with a model of the others."),
    ] = None,
    report: Annotated[
        Path | None, typer.Option("--report", file_okay=False, help="Write a page with plots into this folder.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show how good a project's model was on each new video before it learnt from that video.

    --leave-one-out and --hold-out train other models for that. The project's model stays as it is.
    """
    if leave_one_out and hold_out:
        raise typer.BadParameter("Give --leave-one-out or --hold-out, not both.")
    backend = Backend()
    model = backend.model(project)
    if report:
        make_folder(report)
    trainings = backend.store.trainings(project)
    if not (trainings or leave_one_out or hold_out or report):
        raise NotReady(f"Project {project} was never trained, so nothing was tested. Annotate a video and submit it.")
    answer: dict[str, Any] = {"trainings": [_training_entry(training) for training in trainings]}
    if not as_json:
        _print_history(trainings)
    if leave_one_out or hold_out or report:
        tasks = backend.store.annotated_tasks(project)
        folds = _folds(tasks, hold_out)
        evaluations = []
        for control in model.control_models:
            with progress(f"{control.from_name}: held-out videos") as share:
                evaluation = control.mode.held_out(tasks, folds, share)
            if evaluation is not None:
                evaluations.append(evaluation)
        scores = answer["held_out"] = {one.name: score_cases(one.cases, one.labels) for one in evaluations}
        if not as_json:
            for name, score in scores.items():
                _print_score(f"{name}: {score['videos']} videos, each predicted by a model of the others", score)
        if report:
            has_timeline = any(control.has_timeline for control in model.control_models)
            observed = collect(model, backend.store, Kind.ANNOTATIONS).observed if has_timeline else []
            path = write_report(report, project, model.model_version, evaluations, observed, colours(model))
            answer["report"] = str(path)
            if not as_json:
                console.out(f"Report: {path}")
    if as_json:
        print_json(answer)


def _folds(tasks: list[dict[str, Any]], hold_out: str | None) -> list[set[int]]:
    """The sets of task ids that are held out together: each task alone, or the given ones."""
    if hold_out is None:
        return [{task["id"]} for task in tasks]
    try:
        held_out = {int(number) for number in hold_out.split(",")}
    except ValueError as error:
        raise typer.BadParameter("--hold-out takes ids of tasks, such as 3,7.") from error
    missing = held_out - {task["id"] for task in tasks}
    if missing:
        raise InvalidRequest(f"No annotated task {', '.join(map(str, sorted(missing)))} is known here.")
    return [held_out]


def _training_entry(training: Training) -> dict[str, Any]:
    return {
        "started_at": training.started_at.isoformat(timespec="seconds") + "Z",
        "seconds": training.seconds,
        "annotated_tasks": training.annotated_tasks,
        "status": str(training.status),
        "model_version": training.model_version,
        "error": training.error,
        "metrics": training.metrics,
    }


def _print_history(trainings: list[Training]) -> None:
    """Prints a row for each training and control tag, with the score of the test before it."""
    table = Table(
        title="Trainings, each with the previous model's F1 on the videos that were new to it", box=box.SIMPLE
    )
    for column in ("model", "started", "videos", "s", "new", "frames", "segments", "result"):
        table.add_column(column, no_wrap=column != "result", min_width=len(column))
    for training in trainings:
        metrics_by_control: dict[str, Any] = training.metrics or {"": {}}
        for name, metrics in metrics_by_control.items():
            prequential = metrics.get("prequential") or {}
            scores = [f"{prequential[kind]['macro_f1']:.3f}" if prequential else "" for kind in ("frames", "segments")]
            table.add_row(
                f"{name} v{metrics['version']}" if metrics.get("version") else name,
                f"{training.started_at:%m-%d %H:%M}",
                str(training.annotated_tasks),
                "" if training.seconds is None else f"{training.seconds:.1f}",
                str(prequential.get("videos", "")),
                *scores,
                ": ".join(filter(None, [training.status, training.error or metrics.get("reason")])),
            )
    console.print(table)


def _print_score(title: str, score: dict[str, Any]) -> None:
    table = Table(title=title, box=box.SIMPLE)
    for column in ("label", "precision", "recall", "F1", "F1 of segments"):
        table.add_column(column)
    segments = score["segments"]["per_label"]
    for label, row in score["frames"]["per_label"].items():
        figures = [row["precision"], row["recall"], row["f1"], segments[label]["f1"]]
        table.add_row(label, *(f"{figure:.3f}" for figure in figures))
    table.add_row("mean", "", "", f"{score['frames']['macro_f1']:.3f}", f"{score['segments']['macro_f1']:.3f}")
    console.print(table)
