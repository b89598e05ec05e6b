"""`predict` and `extract`: work on a local video, or on a project's tasks in Label Studio."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from errors import BackendError, InvalidRequest
from ml_backend.jobs.deliveries import Deliveries, predict_task
from ml_backend.label_studio import client as label_studio
from ml_backend.label_studio.client import Connection
from ml_backend.label_studio.predictions import stored_predictions
from terminal.common import (
    Backend,
    JsonOption,
    ProjectOption,
    complain,
    console,
    end,
    known_number,
    local_task,
    print_json,
    progress,
)

if TYPE_CHECKING:
    from model import YOLO

UrlOption = Annotated[
    str | None, typer.Option("--ls-url", help="Label Studio's address; by default LABEL_STUDIO_URL's.")
]
KeyOption = Annotated[
    str | None,
    typer.Option(
        "--ls-api-key",
        envvar="LABEL_STUDIO_API_KEY",
        show_envvar=True,
        show_default=False,
        help="A personal access token.",
    ),
]
TasksOption = Annotated[
    str | None,
    typer.Option("--tasks", help="Ids, such as 3,7,12, or a JSON file with a list of ids; by default all tasks."),
]


def predict(
    project: ProjectOption,
    video: Annotated[
        str | None,
        typer.Argument(help="A local video, whose prediction is printed."),
    ] = None,
    url: UrlOption = None,
    key: KeyOption = None,
    tasks: TasksOption = None,
    as_json: JsonOption = False,
) -> None:
    """Predict a project's tasks, and store the predictions in Label Studio. There is no time limit.

    A task that already has a prediction of the present model version is left alone.
    """
    if video is not None:
        _predict_file(project, video)
        return
    backend = Backend()
    connection = _connection(backend, project, url, key)
    model = _project_model(backend, project, connection)
    model.check_ready()
    deliveries, outcomes = Deliveries(backend.runner.jobs), []
    for task in _chosen_tasks(backend, connection, project, tasks):
        outcomes.append(_deliver(deliveries, model, connection, task))
        if not as_json:
            _show(outcomes[-1])
    if as_json:
        print_json(outcomes)
    failures = [outcome for outcome in outcomes if "error" in outcome]
    end(len(outcomes) - len(failures), failures)


def _predict_file(project: str, video: str) -> None:
    path = Path(video)
    if not path.is_file():
        raise InvalidRequest(f"There is no file {video}.")
    model = Backend(any_path=True).model(project)
    model.check_ready()
    task = local_task(model, path)
    with progress(path.name) as report:
        model.extract(task, report)
    print_json(predict_task(model, task))


def _deliver(deliveries: Deliveries, model: YOLO, connection: Connection, task: dict[str, Any]) -> dict[str, Any]:
    outcome: dict[str, Any] = {"task": task["id"], "model_version": model.model_version}
    try:
        versions = {one.model_version for one in stored_predictions(connection, task["id"])}
        if model.model_version in versions:
            return outcome | {"already": True}
        with progress(f"Task {task['id']}") as report:
            model.extract(task, report)
        prediction = predict_task(model, task)
        deliveries.put(model.project_id, connection, task, prediction)
    except BackendError as error:
        return outcome | {"error": str(error)}
    return outcome | {"regions": len(prediction["result"]), "score": prediction["score"]}


def _show(outcome: dict[str, Any]) -> None:
    if "error" in outcome:
        complain(f"Task {outcome['task']}", outcome["error"])
    elif "already" in outcome:
        console.print(f"Task {outcome['task']} has a prediction of {outcome['model_version']} already")
    else:
        regions = f"{outcome['regions']} region{'s' * (outcome['regions'] != 1)}"
        console.print(f"Task {outcome['task']}: {regions}, score {outcome['score']:.2f}, stored")


def extract(
    project: ProjectOption,
    url: UrlOption = None,
    key: KeyOption = None,
    tasks: TasksOption = None,
    as_json: JsonOption = False,
) -> None:
    """Extract the features of a project's videos ahead of need, so that predictions take milliseconds."""
    backend = Backend()
    connection = _connection(backend, project, url, key)
    model = _project_model(backend, project, connection)
    outcomes: list[dict[str, Any]] = []
    for task in _chosen_tasks(backend, connection, project, tasks):
        outcome: dict[str, Any] = {"task": task["id"]}
        try:
            outcome["already"] = model.is_extracted(task)
            with progress(f"Task {task['id']}") as report:
                model.extract(task, report)
        except BackendError as error:
            outcome["error"] = str(error)
        outcomes.append(outcome)
        if as_json:
            continue
        if "error" in outcome:
            complain(f"Task {task['id']}", outcome["error"])
        else:
            state = "was read already" if outcome["already"] else "read"
            console.print(f"Task {task['id']}: {state}", soft_wrap=True, highlight=False)
    if as_json:
        print_json(outcomes)
    failures = [outcome for outcome in outcomes if "error" in outcome]
    end(len(outcomes) - len(failures), failures)


def _connection(backend: Backend, project: str, url: str | None, key: str | None) -> Connection:
    """The address and key of the options, else of the environment, else of `/setup`."""
    settings, stored = backend.settings, backend.store.project(project)
    return label_studio.choose_connection(
        environment=Connection(url or settings.label_studio_url, key or settings.secret("label_studio_api_key")),
        setup=Connection(*((stored.hostname, stored.access_token) if stored else (None, None))),
    )


def _project_model(backend: Backend, project: str, connection: Connection) -> YOLO:
    """The project's model, with the labeling config that is stored here, else with Label Studio's."""
    if backend.store.project(project) is not None:
        return backend.model(project)
    return backend.registry.get(project, label_studio.label_config(connection, known_number(backend.store, project)))


def _chosen_tasks(backend: Backend, connection: Connection, project: str, tasks: str | None) -> list[dict[str, Any]]:
    wanted = _task_ids(tasks) if tasks else None
    found = [
        task
        for task in label_studio.tasks(connection, known_number(backend.store, project))
        if wanted is None or task["id"] in wanted
    ]
    missing = sorted(set(wanted or ()) - {task["id"] for task in found})
    if missing:
        raise InvalidRequest(f"Project {project} has no task {', '.join(map(str, missing))}.")
    return found


def _task_ids(tasks: str) -> list[int]:
    """The ids in `3,7,12`, or in a JSON file: a list of ids, or of tasks with an id."""
    try:
        if Path(tasks).is_file():
            entries = json.loads(Path(tasks).read_text(encoding="utf-8"))
            return [int(entry["id"] if isinstance(entry, dict) else entry) for entry in entries]
        return [int(number) for number in tasks.split(",")]
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidRequest(
            f"--tasks takes ids, such as 3,7,12, or a JSON file with a list of ids, not {tasks!r}."
        ) from error
