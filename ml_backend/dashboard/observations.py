"""Collect what was annotated and predicted in a project's videos, for the summary's page, command and report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, NamedTuple

from errors import BackendError, InvalidRequest, NotReady
from ml_backend.base import LabelStudioMLBase
from ml_backend.store import Store
from study.budget import Observed
from study.expected import expected_time, memory_of
from video.task_data import VARIABLE, task_value
from video.timeline import Timeline


class Kind(str, Enum):
    """Where observations come from."""

    __str__ = str.__str__

    ANNOTATIONS = "annotations"
    PREDICTIONS = "predictions"
    BOTH = "both"


class Collected(NamedTuple):
    """The observations of a project.

    Attributes:
        observed: of each control tag with a timeline, in order of tasks.
        left_out: id of each task that is left out -> why.
        fields: the names of values in the tasks' data, to group videos by.
        more: how many tasks lie beyond `limit` or `seconds`.
    """

    observed: list[Observed]
    left_out: dict[int, str]
    fields: list[str]
    more: int


def collect(
    model: LabelStudioMLBase,
    store: Store,
    kind: Kind,
    by: str = "",
    limit: int | None = None,
    seconds: float | None = None,
    before: Callable[[dict[str, Any], int, int], None] | None = None,
) -> Collected:
    """Collects a project's observations: the annotations of its annotated tasks, and the present model's predictions of
    all tasks that are known here.

    Args:
        model: the project's.
        store: the state.
        kind: what to collect.
        by: the field of the tasks' data that names a video's subject, such as `animal` or `animal.id`.
        limit: the largest number of tasks.
        seconds: of video to predict for each control tag, about; then no further task is predicted.
        before: called before a task is predicted, with its place and the number of tasks, to extract its features.

    Raises:
        InvalidRequest: no task has such a field, or nothing is annotated or known.
        NotReady: predictions are asked for, and there is no model yet.
    """
    annotated = {task["id"]: task for task in store.annotated_tasks(model.project_id)}
    others = [] if kind is Kind.ANNOTATIONS else store.unannotated_tasks(model.project_id, limit)
    tasks = sorted([*annotated.values(), *others], key=lambda task: task["id"])
    if not tasks:
        raise InvalidRequest(
            f"Project {model.project_id} has no annotation to summarise yet."
            if kind is Kind.ANNOTATIONS
            else f"No task of project {model.project_id} is known here yet: annotate one, or retrieve predictions."
        )
    fields = list(dict.fromkeys(name for task in tasks for name in task["data"]))
    if by and all(_value(task["data"], by) is None for task in tasks):
        raise InvalidRequest(f"No task of project {model.project_id} has {by!r} in its data. It has {_names(fields)}.")
    if kind is not Kind.ANNOTATIONS:
        model.check_ready()
    chosen = tasks[:limit]
    observed: list[Observed] = []
    left_out: dict[int, str] = {}
    predicted = 0.0
    with model.context.media.holding_connection():
        for number, task in enumerate(chosen, start=1):
            if seconds is not None and predicted > seconds:
                chosen = chosen[: number - 1]
                break
            subject = _subject(task, by)
            try:
                found = []
                if kind is not Kind.PREDICTIONS and task["id"] in annotated:
                    found += annotations(model, annotated[task["id"]], subject)
                if kind is not Kind.ANNOTATIONS:
                    if before:
                        before(task, number, len(chosen))
                    new = predictions(model, task, subject)
                    predicted += max((one.spans[0][1] for one in new), default=0.0)
                    found += new
                observed += found
            except BackendError as error:
                left_out[task["id"]] = str(error)
    known = tasks if kind is Kind.ANNOTATIONS else store.task_ids(model.project_id)
    return Collected(observed, left_out, fields, len(known) - len(chosen))


def _subject(task: dict[str, Any], by: str) -> str:
    value = _value(task["data"], by) if by else None
    return "" if value is None else str(value)


def _value(data: dict[str, Any], by: str) -> Any:
    """The value of a field of any name, or of one in a value, such as `animal.id`; None where there is none."""
    value = data.get(by)
    return task_value(f"${by}", data) if value is None and VARIABLE.fullmatch(f"${by}") else value


def _names(fields: Sequence[str]) -> str:
    return ", ".join(map(repr, fields)) or "nothing"


def annotations(model: LabelStudioMLBase, task: dict[str, Any], subject: str) -> list[Observed]:
    """The observations of a task's annotations, for each control tag."""
    found = []
    for recording in model.recordings(task):
        for annotation in task["annotations"]:
            regions = annotation["result"]
            observation = recording.observed(regions, f"annotation {annotation['id']}", task["id"])
            found.append(
                Observed(
                    observation,
                    "annotations",
                    recording.name,
                    recording.labels,
                    recording.reviewed(regions),
                    subject,
                    weight=1 / len(task["annotations"]),
                    reviewed=recording.reviewed_label is not None,
                )
            )
    return found


def predictions(model: LabelStudioMLBase, task: dict[str, Any], subject: str) -> list[Observed]:
    """The observations of a task's prediction, for each control tag.

    Raises:
        NotReady: a control tag has no model yet.
    """
    found = []
    for track in model.tracks(task):
        timeline = track.prediction
        if timeline is None:
            raise NotReady(track.reason or "")
        spans = ((0.0, timeline.clock.duration),)
        expected = expected_times(timeline)
        observation = timeline.observation
        found.append(Observed(observation, "predictions", track.name, timeline.labels, spans, subject, 1.0, expected))
    return found


def expected_times(timeline: Timeline) -> dict[str, Any]:
    """Label -> the expected total time by a prediction's probabilities; empty where it has none."""
    if timeline.probabilities is None:
        return {}
    rate, marks = timeline.clock.frame_rate, timeline.marks()
    return {
        label: expected_time(timeline.probabilities[:, column], rate, memory_of(marks[:, column], rate))
        for column, label in enumerate(timeline.labels)
    }
