"""Find the annotations to look at again: those that the last review doubts, and annotators' disagreements."""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

from errors import InvalidRequest, MediaError
from ml_backend.base import LabelStudioMLBase
from ml_backend.dashboard.observations import annotations
from ml_backend.dashboard.timelines import clock_time
from ml_backend.jobs.review import last_review
from ml_backend.store import Store
from study.agreement import Agreement, Disagreement, agreements, disagreements
from study.budget import Observed
from study.review import Doubt, drawn_within, is_confirmed

# Weaker doubts are seldom the annotator's error (benchmarks/study.md).
MIN_EVIDENCE = 1.0
# Two annotators who share less of the time that one of them marked disagree.
MIN_SHARED = 0.8


class Finding(NamedTuple):
    """A place in a task to look at.

    Attributes:
        key: names it, for a confirmation.
        task: the task's id.
        annotation: the annotation's id, None where it is about several.
        seconds: where it begins.
        text: what is doubted.
        places: control tag, label, start, stop and what was drawn, as confirmations keep them.
    """

    key: str
    task: int
    annotation: int | None
    seconds: float
    text: str
    places: list[tuple[str, str, float, float, list[Any]]]


class Findings(NamedTuple):
    """What is to be looked at.

    Attributes:
        at: when the last review ended, in UTC; None without one.
        videos: how many it compared.
        left_out: how many annotated videos it left out.
        is_old: whether annotations changed since.
        doubts: the strongest first.
        agreements: of each label that several people annotated in the same videos.
        disagreements: the largest first.
        confirmed: the number of confirmed places.
    """

    at: str | None
    videos: int
    left_out: int
    is_old: bool
    doubts: list[Finding]
    agreements: list[Agreement]
    disagreements: list[Finding]
    confirmed: int


def findings(model: LabelStudioMLBase, store: Store) -> Findings:
    """The places of a project that were neither confirmed nor changed since the last review."""
    project = store.project(model.project_id)
    confirmed = store.confirmations(model.project_id)
    tasks = {task["id"]: task for task in store.annotated_tasks(model.project_id)}
    result = last_review(store, model.project_id) or {"at": None, "videos": 0, "left_out": 0, "doubts": []}
    known = _Drawn(model, tasks)
    doubts = [
        _doubt(doubt)
        for doubt in result["doubts"]
        if doubt.evidence >= MIN_EVIDENCE and known.has(doubt) and not is_confirmed(doubt, confirmed)
    ]
    several = [one for task in tasks.values() if len(task["annotations"]) > 1 for one in known.of_task(task["id"])]
    settled = [(one.task_id, one.control, one.label, one.drawn) for one in confirmed]
    return Findings(
        result["at"],
        result["videos"],
        result["left_out"],
        project is not None and result.get("revision") != project.revision,
        doubts,
        agreements(several),
        [
            _disagreement(one)
            for one in disagreements(several)
            if one.shared < MIN_SHARED and (one.task, one.control, one.label, one.drawn) not in settled
        ],
        len(confirmed),
    )


def confirm(model: LabelStudioMLBase, store: Store, keys: list[str]) -> list[Finding]:
    """Confirms places of `findings` by their keys, so that they aren't shown again. Returns them.

    Raises:
        InvalidRequest: there is no such place.
    """
    now = findings(model, store)
    places = {finding.key: finding for finding in (*now.doubts, *now.disagreements)}
    missing = [key for key in keys if key not in places]
    if missing:
        raise InvalidRequest(
            f"There is nothing to confirm under {', '.join(map(repr, missing))}: it was confirmed, or its annotation "
            "changed."
        )
    for key in keys:
        for place in places[key].places:
            store.confirm(model.project_id, places[key].task, *place)
    return [places[key] for key in keys]


class _Drawn:
    """The present annotations of tasks, each read when it is first asked for."""

    def __init__(self, model: LabelStudioMLBase, tasks: dict[int, dict[str, Any]]) -> None:
        self._model = model
        self._tasks = tasks
        self._read: dict[int, list[Observed]] = {}

    def of_task(self, task_id: int) -> list[Observed]:
        if task_id not in self._read:
            try:
                self._read[task_id] = annotations(self._model, self._tasks[task_id], "")
            except (KeyError, MediaError):
                self._read[task_id] = []
        return self._read[task_id]

    def has(self, doubt: Doubt) -> bool:
        """Whether the annotation is in the doubt's interval as it was when the doubt was found."""
        for one in self.of_task(doubt.task):
            if (one.control, one.observation.source) == (doubt.control, f"annotation {doubt.annotation}"):
                return all(
                    part.label in one.labels
                    and part.drawn == drawn_within(one.drawn(part.label), part.start, part.stop)
                    for part in doubt.parts
                )
        return False


def _doubt(doubt: Doubt) -> Finding:
    words = [
        f"{'' if part.drawn else 'not '}annotated as {part.label}, to which a model of other videos gives "
        f"{100 * part.probability:.0f} %"
        for part in doubt.parts
    ]
    text = f"{clock_time(doubt.start)} to {clock_time(doubt.stop)}: {'; '.join(words)}"
    places = [(doubt.control, part.label, part.start, part.stop, part.drawn) for part in doubt.parts]
    return Finding(doubt.key, doubt.task, doubt.annotation, doubt.start, text, places)


def _disagreement(one: Disagreement) -> Finding:
    text = f"{one.label}: of the time that either of two annotators marked, both marked {100 * one.shared:.0f} %"
    place = (one.control, one.label, 0.0, 0.0, one.drawn)
    key = hashlib.blake2b(repr((one.task, *place)).encode(), digest_size=4).hexdigest()
    first = min((bout[0] for bouts in one.drawn for bout in bouts), default=0.0)
    return Finding(key, one.task, None, first, text, [place])
