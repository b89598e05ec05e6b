"""The backend's work from a terminal: `python cli.py --help`. It uses the server's environment variables and state."""

from __future__ import annotations

import json
import logging
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from errors import BackendError
from ml_backend.base import Services
from ml_backend.jobs import Jobs
from ml_backend.queues import open_queues
from ml_backend.registry import ModelRegistry
from ml_backend.settings import get_settings
from ml_backend.store import Store
from ml_backend.tables import JobKind, Training
from model import YOLO

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__, pretty_exceptions_enable=False)
console = Console()

ProjectOption = Annotated[str, typer.Option("--project", help="Label Studio's id of the project.")]


class Backend:
    """The state and the models that the server uses, opened for one command."""

    def __init__(self) -> None:
        settings = get_settings()
        self.store = Store(settings.database)
        self.registry = ModelRegistry(YOLO, Services(settings, self.store))
        self.jobs = Jobs(self.store, self.registry, open_queues(self.store))

    def model(self, project: str) -> YOLO:
        return self.registry.get(project)


@app.command()
def predict(
    video: Annotated[str, typer.Argument(help="A path under LOCAL_FILES_DOCUMENT_ROOT, or a URL.")],
    project: ProjectOption,
) -> None:
    """Predict a video's timeline with a project's model; prints Label Studio's JSON."""
    model = Backend().model(project)
    task = {"id": None, "data": {control.object.value_name: video for control in model.control_models}}
    model.check_ready()
    with Progress(console=Console(stderr=True)) as bar:
        bar_id = bar.add_task("Extracting features", total=1.0)
        model.prepare(task, lambda share: bar.update(bar_id, completed=share))
        bar.update(bar_id, completed=1.0)
    answer = model.predict([task])
    typer.echo(json.dumps(answer.predictions[0] | {"model_version": answer.model_version}, indent=1))


@app.command()
def train(
    project: ProjectOption,
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="Fetch all annotations from Label Studio and start a new model.")
    ] = False,
) -> None:
    """Train a project's model on its stored annotations, in this process."""
    backend = Backend()
    backend.model(project)  # raises where the project isn't known
    backend.store.note_event(project, "START_TRAINING")
    if from_scratch:
        backend.jobs.run_now(JobKind.RECONCILE, project)
    else:
        backend.store.request_training(project)
    metrics_by_control = backend.jobs.run_now(JobKind.RESET if from_scratch else JobKind.TRAIN, project)
    for name, metrics in metrics_by_control.items():
        state = f"published as v{metrics['version']}" if metrics.get("version") else metrics.get("reason", "reset")
        console.print(f"{name}: {metrics['tasks']} videos, {state}")


@app.command()
def evaluate(
    project: ProjectOption,
    leave_one_out: Annotated[
        bool,
        typer.Option("--leave-one-out", help="Also predict each annotated video by a model trained on the others."),
    ] = False,
) -> None:
    """Show how good a project's model was on each new video before it learnt from it."""
    backend = Backend()
    _print_history(backend.store.trainings(project))
    if not leave_one_out:
        return
    tasks = backend.store.annotated_tasks(project)
    for control in backend.model(project).control_models:
        with Progress(console=Console(stderr=True)) as bar:
            bar_id = bar.add_task(f"{control.from_name}: leave one out", total=1.0)
            score = control.leave_one_out(
                tasks, lambda share, bar=bar, bar_id=bar_id: bar.update(bar_id, completed=share)
            )
        if score is not None:
            _print_score(
                f"{control.from_name}: each of {score['videos']} videos predicted by a model of the others", score
            )


def _print_history(trainings: list[Training]) -> None:
    """Prints a row for each training and control tag, with the score of the test that came before it."""
    table = Table(
        title="Trainings, and the F1 that the model before had on the videos that were new to it", box=box.SIMPLE
    )
    for column in ("model", "started", "videos", "s", "new", "frames", "segments", "result"):
        table.add_column(column, no_wrap=column != "result", min_width=len(column))
    for training in trainings:
        metrics_by_control: dict[str, Any] = training.metrics or {"": {}}
        for name, metrics in metrics_by_control.items():
            honest = metrics.get("honest") or {}
            scores = [f"{honest[kind]['macro_f1']:.3f}" if honest else "" for kind in ("frames", "segments")]
            table.add_row(
                f"{name} v{metrics['version']}" if metrics.get("version") else name,
                f"{training.started_at:%m-%d %H:%M}",
                str(training.annotated_tasks),
                "" if training.seconds is None else f"{training.seconds:.1f}",
                str(honest.get("videos", "")),
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


def main() -> None:
    """Runs a command; an error that the user can mend is a sentence, not a traceback."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        app()
    except BackendError as error:
        Console(stderr=True).print(f"[red]Error:[/red] {error}")
        raise SystemExit(1) from error


if __name__ == "__main__":
    main()
