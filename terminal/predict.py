"""`predict` and `extract`: work on a local video, or on a project's tasks in Label Studio."""

from __future__ import annotations

import json
from collections.abc import Callable
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
    read_video,
)
from words import counted

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
    put = Deliveries(backend.runner.jobs).put

    def store(task: dict[str, Any], outcome: dict[str, Any]) -> str:
        version = outcome["model_version"] = model.model_version
        if version in {one.model_version for one in stored_predictions(connection, task["id"])}:
            outcome["already"] = True
            return f" has a prediction of {version} already"
        read_video(model, task, f"Task {task['id']}")
        prediction = predict_task(model, task)
        put(model.project_id, connection, task, prediction)
        regions = outcome["regions"] = len(prediction["result"])
        outcome["score"] = prediction["score"]
        return f": {counted(regions, 'region')}, score {prediction['score']:.2f}, stored"

    _for_each(_chosen_tasks(backend, connection, project, tasks), store, as_json)


def _predict_file(project: str, video: str) -> None:
    path = Path(video)
    if not path.is_file():
        raise InvalidRequest(f"There is no file {video}.")
    model = Backend(any_path=True).model(project)
    model.check_ready()
    task = local_task(model, path)
    read_video(model, task, path.name)
    print_json(predict_task(model, task))


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

    def read(task: dict[str, Any], outcome: dict[str, Any]) -> str:
        outcome["already"] = model.is_extracted(task)
        read_video(model, task, f"Task {task['id']}")
        return ": was read already" if outcome["already"] else ": read"

    _for_each(_chosen_tasks(backend, connection, project, tasks), read, as_json)


def _for_each(
    tasks: list[dict[str, Any]], work: Callable[[dict[str, Any], dict[str, Any]], str], as_json: bool
) -> None:
    """Works on tasks, also after one has failed, says what came of each, and ends the command.

    Args:
        tasks: the tasks.
        work: does a task's work, adds to its outcome, and returns the words that follow "Task 3".
        as_json: whether the outcomes are printed as JSON in the end, and nothing meanwhile.
    """
    outcomes: list[dict[str, Any]] = []
    for task in tasks:
        outcomes.append({"task": task["id"]})
        try:
            words = work(task, outcomes[-1])
        except BackendError as error:
            outcomes[-1]["error"] = str(error)
            if not as_json:
                complain(f"Task {task['id']}", error)
            continue
        if not as_json:
            console.out(f"Task {task['id']}{words}")
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
