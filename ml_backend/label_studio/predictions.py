"""Predictions in Label Studio: list the next tasks with theirs, and store new ones."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from ml_backend.label_studio.client import (
    HAS_NONE,
    TASKS_PER_PAGE,
    Connection,
    api,
    as_task,
    asked,
    listed,
)

# An annotation that was begun from a prediction can't be submitted once that is deleted. A task that was opened is
# locked for this long.
OPEN = timedelta(hours=1)


class Stored(NamedTuple):
    """A prediction that Label Studio has.

    Attributes:
        id: its id there.
        model_version: the version that made it.
        updated_at: when it last changed.
    """

    id: int
    model_version: str
    updated_at: datetime


def upcoming_tasks(connection: Connection, project_id: int, limit: int) -> Iterator[tuple[dict[str, Any], set[str]]]:
    """The first tasks without an annotation, in the order of their ids, in which Label Studio's default brings them.

    Yields:
        Each task, `{"id", "data"}`, and the versions of its predictions.

    Raises:
        LabelStudioError: Label Studio can't be reached, or refuses.
    """
    subject, size = f"Tasks of project {project_id}", min(limit, TASKS_PER_PAGE)
    include = ("id", "data", "predictions")
    tasks = listed(connection, project_id, subject, include, [HAS_NONE], page_size=size)
    for _, task in zip(range(limit), tasks, strict=False):
        versions = {str(prediction.model_version) for prediction in task.predictions or ()}
        yield as_task(task), versions


def stored_predictions(connection: Connection, task_id: int) -> list[Stored]:
    """The predictions that Label Studio has for a task, the one first that wasn't changed for longest.

    Raises:
        LabelStudioError: Label Studio can't be reached, or refuses.
    """
    with asked(f"Predictions of task {task_id}"):
        found = api(connection).predictions.list(task=task_id)
        # Of this task alone: they may be changed and deleted.
        stored = [Stored(one.id, str(one.model_version), one.updated_at) for one in found if one.task == task_id]
        return sorted(stored, key=lambda one: (one.updated_at, one.id))


def put_prediction(
    connection: Connection,
    task_id: int,
    prediction: dict[str, Any],
    own: tuple[str, ...],
    keep: int,
    cluster: int | None = None,
) -> bool:
    """Stores a prediction unless the task has one of its version.

    Where the task has `keep` predictions of this backend already, the oldest is changed into the new one. It isn't
    deleted: Label Studio refuses an annotation that was begun from a deleted prediction. Further ones are deleted,
    unless somebody may have opened them lately.

    Args:
        connection: Label Studio, with a key.
        task_id: the task.
        prediction: `result`, `score` and `model_version`.
        own: how the versions of this backend's predictions begin.
        keep: the number of versions that stay, at least 1.
        cluster: Label Studio's number for tasks that are alike.

    Returns:
        Whether it was stored.

    Raises:
        LabelStudioError: Label Studio can't be reached, or refuses.
    """
    stored = stored_predictions(connection, task_id)
    mine = [one for one in stored if one.model_version.startswith(own)]
    missing = all(one.model_version != prediction["model_version"] for one in stored)
    times = [one.updated_at for one in stored]  # by Label Studio's clock, which may differ from this machine's
    with asked(f"Prediction for task {task_id}"):
        if missing and len(mine) < keep:
            create_prediction(connection, task_id, **prediction, cluster=cluster)
        elif missing:
            times.append(api(connection).predictions.update(mine.pop(0).id, **prediction, cluster=cluster).updated_at)
            keep -= 1
        for one in mine[: max(0, len(mine) - keep)]:
            if one.updated_at < max(times) - OPEN and one.model_version != prediction["model_version"]:
                api(connection).predictions.delete(one.id)
    return missing


def create_prediction(
    connection: Connection,
    task_id: int,
    result: list[dict[str, Any]],
    score: float | None,
    model_version: str,
    cluster: int | None = None,
) -> int:
    """Stores a prediction in Label Studio, as if it had asked for it.

    Returns:
        its id there.

    Raises:
        LabelStudioError: Label Studio can't be reached, or refuses.
    """
    with asked(f"Prediction for task {task_id}"):
        stored = api(connection).predictions.create(
            task=task_id,
            result=result,
            score=score,
            model_version=model_version,
            cluster=cluster,
            # Not repeated: after a lost answer that would store it twice.
            request_options={"max_retries": 0},
        )
        return stored.id


class Settings(NamedTuple):
    """What a project's settings say of predictions.

    Attributes:
        model_version: the version that annotators are shown, or a connection's title: then its live model.
        sampling: the order of the stream of tasks.
        titles: the titles of the project's connections.
    """

    model_version: str | None
    sampling: str
    titles: set[str]


def settings(connection: Connection, project_id: int) -> Settings:
    """A project's settings.

    Raises:
        LabelStudioError: Label Studio can't be reached, or refuses.
    """
    with asked(f"Project {project_id}"):
        project = api(connection).projects.get(id=project_id)
        titles = {one.title for one in api(connection).ml.list(project=project_id)}
        return Settings(project.model_version, str(project.sampling), titles)


def change_settings(connection: Connection, project_id: int, **values: str) -> None:
    """Changes a project's settings; a `model_version` must be that of a stored prediction.

    Raises:
        LabelStudioError: Label Studio can't be reached, or refuses.
    """
    with asked(f"Project {project_id}"):
        api(connection).projects.update(id=project_id, **values)
