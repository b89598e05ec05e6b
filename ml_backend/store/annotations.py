"""Annotations and their tasks, also which ones were deleted or skipped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ml_backend.store.projects import Projects
from ml_backend.store.tables import Annotation, AnnotationState, Confirmation, Note, Prediction, Project, Task

# The number of tasks that one transaction compares with Label Studio's. A webhook waits 50 ms for it at most.
TASKS_PER_BATCH = 100
# SQLite's limit on the parameters of a statement is 32,766.
IDS_PER_STATEMENT = 1000

# How Label Studio's page marks regions that are a prediction's, and those that were and have been changed.
ORIGINS_OF_PREDICTIONS = ("prediction", "prediction-changed")

LONGEST_LEAD_TIME = 1e9  # seconds; a larger number, or infinity, isn't what Label Studio's page measured

Pair = tuple[dict[str, Any], dict[str, Any]]
Item = TypeVar("Item")


def _batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def _updated_at(annotation: dict[str, Any]) -> str:
    """When Label Studio changed the annotation. Its ISO 8601 times, all of one zone, sort as text."""
    return str(annotation.get("updated_at") or "")


def _state(annotation: dict[str, Any]) -> AnnotationState:
    return AnnotationState.SKIPPED if annotation.get("was_cancelled") else AnnotationState.PRESENT


def _result(annotation: dict[str, Any]) -> list[Any]:
    """The regions; an empty list where Label Studio has null."""
    return annotation["result"] or []


def _is_ground_truth(annotation: dict[str, Any]) -> bool:
    return bool(annotation.get("ground_truth"))


def _lead_time(annotation: dict[str, Any]) -> float | None:
    seconds = annotation.get("lead_time")
    usable = isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0 < seconds < LONGEST_LEAD_TIME
    return float(seconds) if usable else None


def origins(annotation: dict[str, Any]) -> dict[str, Any] | None:
    """Counts an annotation's regions by where they come from, as Label Studio's page marks them (`origin`).

    Returns:
        from_prediction, whether the annotator began with a prediction; kept, changed and drawn, label -> the number of
        regions that are the prediction's, that were the prediction's, and that aren't; removed, the same of the
        prediction's regions that are gone, empty where a newer prediction has taken the place of the one that the
        annotator saw. None where the regions have no mark: they were imported.
    """
    regions = _regions(annotation)
    if regions and not any(one.get("origin") for one in regions):
        return None
    kept, changed = ([one for one in regions if one.get("origin") == mark] for mark in ORIGINS_OF_PREDICTIONS)
    prediction = annotation.get("prediction")
    predicted = _regions(prediction) if isinstance(prediction, dict) else []
    shown, left = ({str(one.get("id")) for one in some} for some in (predicted, kept + changed))
    removed = [one for one in predicted if str(one.get("id")) not in left] if left <= shown else []
    return {
        "from_prediction": annotation.get("parent_prediction") is not None or bool(kept or changed),
        "kept": _labels(kept),
        "changed": _labels(changed),
        "drawn": _labels([one for one in regions if one.get("origin") not in ORIGINS_OF_PREDICTIONS]),
        "removed": _labels(removed),
    }


def _regions(one: dict[str, Any]) -> list[dict[str, Any]]:
    """The regions of an annotation or prediction that have a value; relations have none."""
    result = one.get("result")
    given = result if isinstance(result, list) else []
    return [region for region in given if isinstance(region, dict) and isinstance(region.get("value"), dict)]


def _labels(regions: list[dict[str, Any]]) -> dict[str, int]:
    """Label -> the number of regions that have it."""
    found = [region["value"].get(str(region.get("type"))) for region in regions]
    return dict(Counter(str(label) for labels in found if isinstance(labels, list) for label in labels))


class Annotations(Projects):
    """The annotations and their tasks."""

    def save_annotations(
        self, project_id: str, label_config: str | None, pairs: list[Pair], event: str, train_every: int = 1
    ) -> bool:
        """Stores created or updated annotations, in one transaction.

        A late event changes nothing: one that a newer event about the same annotation has overtaken, or one about a
        deleted annotation or task.

        Args:
            project_id: the project.
            label_config: its labeling config, or None to keep the stored one.
            pairs: (task, annotation); a skipped annotation (`was_cancelled`) is no example.
            event: the webhook's action.
            train_every: the number of changes after which a training is wanted; 0 for never.

        Returns:
            Whether the data changed, so that the model is behind it.
        """
        with self._transaction() as session:
            project = self._locked_project(session, project_id)
            config_changed = self._set_label_config(session, project, label_config)
            behind = config_changed and project.revision > project.trained_revision
            changes = [
                self._save_annotation(session, project, task, annotation, since=None) for task, annotation in pairs
            ]
            if any(changes):
                self._raise_revision(session, project_id, sum(changes), train_every)
            if any(changes) or behind:
                project.last_event = event
                project.last_annotation_id = pairs[0][1]["id"] if pairs else None
            return any(changes) or behind

    @staticmethod
    def _save_annotation(
        session: Session, project: Project, task: dict[str, Any], annotation: dict[str, Any], since: int | None
    ) -> bool:
        """Stores one annotation. Returns whether the model's examples changed.

        Args:
            session: a transaction that holds the project's lock.
            project: the project's row.
            task: with id and data.
            annotation: with id, result, updated_at, was_cancelled, ground_truth.
            since: the project's revision when fetching from Label Studio began; a fetched annotation that was deleted
                here before is stored again. None for an event.
        """

        def is_gone(deleted_at: int) -> bool:
            return since is None or deleted_at > since

        stored = session.get(Annotation, (project.id, annotation["id"]))
        stored_task = session.get(Task, (project.id, task["id"]))
        if stored is not None:
            if stored.state == AnnotationState.DELETED and is_gone(stored.revision):
                return False
            if stored.state != AnnotationState.DELETED and _updated_at(annotation) < stored.updated_at:
                return False
        if stored_task is not None and stored_task.deleted_at_revision is not None:
            if is_gone(stored_task.deleted_at_revision):
                return False
            stored_task.deleted_at_revision = None
        if stored_task is None:
            session.add(Task(project_id=project.id, id=task["id"], data=task["data"]))
        same_task = stored_task is not None and stored_task.data == task["data"]
        if stored_task is not None and not same_task:
            stored_task.data = task["data"]
        state = _state(annotation)
        was = AnnotationState.DELETED if stored is None else stored.state
        if stored is None:
            stored = Annotation(project_id=project.id, id=annotation["id"], result=[], ground_truth=False)
            session.add(stored)
        ground_truth = _is_ground_truth(annotation)
        same_result = stored.result == _result(annotation) and stored.ground_truth == ground_truth
        same = was == state and same_result and same_task
        stored.task_id, stored.state, stored.updated_at = task["id"], state, _updated_at(annotation)
        stored.lead_time, stored.origins = _lead_time(annotation), origins(annotation)
        if not same:
            stored.result, stored.ground_truth = _result(annotation), ground_truth
            stored.revision = project.revision + 1
            # Its notes may be out of date; the next training writes them anew.
            session.execute(sa.delete(Note).where(Note.project_id == project.id, Note.task_id == task["id"]))
        if state == AnnotationState.SKIPPED:
            return was == AnnotationState.PRESENT
        return not same

    def delete_annotations(self, project_id: str, annotation_ids: list[int], train_every: int = 1) -> bool:
        """Deletes annotations, and remembers that they were deleted. Returns whether one of them was an example.
        `train_every` is that of `save_annotations`."""
        with self._transaction() as session:
            project = self._locked_project(session, project_id)
            deleted = self._delete_annotations(session, project, Annotation.id, annotation_ids)
            for ids in _batches(annotation_ids, IDS_PER_STATEMENT):
                # Unknown ones too: their creation may arrive after their deletion.
                rows = [
                    {"project_id": project_id, "id": id_, "task_id": 0, "result": [], "updated_at": ""}
                    | {"state": AnnotationState.DELETED, "revision": project.revision + 1}
                    for id_ in ids
                ]
                session.execute(self._insert(Annotation).values(rows).on_conflict_do_nothing())
            if deleted:
                self._raise_revision(session, project_id, train_every=train_every)
            return deleted

    @staticmethod
    def _delete_annotations(
        session: Session, project: Project, column: sa.ColumnElement[int], ids: list[int], since: int | None = None
    ) -> bool:
        """Marks annotations as deleted. Returns whether one of them was an example."""
        present = False
        for batch in _batches(ids, IDS_PER_STATEMENT):
            known = [Annotation.project_id == project.id, column.in_(batch)]
            known.append(Annotation.state != AnnotationState.DELETED)
            if since is not None:
                known.append(Annotation.revision <= since)
            states = session.scalars(sa.select(Annotation.state).where(*known).distinct()).all()
            present |= AnnotationState.PRESENT in states
            tasks = sa.select(Annotation.task_id).where(*known)  # what is said of them may be of these annotations
            session.execute(sa.delete(Note).where(Note.project_id == project.id, Note.task_id.in_(tasks)))
            values = {"state": AnnotationState.DELETED, "result": [], "revision": project.revision + 1}
            session.execute(sa.update(Annotation).where(*known).values(values))
        return present

    def delete_tasks(self, project_id: str, task_ids: list[int], train_every: int = 1) -> bool:
        """Deletes tasks with their annotations, and remembers that they were deleted. Returns whether one of the
        annotations was an example. `train_every` is that of `save_annotations`."""
        with self._transaction() as session:
            project = self._locked_project(session, project_id)
            deleted = self._delete_annotations(session, project, Annotation.task_id, task_ids)
            for ids in _batches(task_ids, IDS_PER_STATEMENT):
                gone = {"data": {}, "deleted_at_revision": project.revision + 1}
                rows = [{"project_id": project_id, "id": id_} | gone for id_ in ids]
                insert = self._insert(Task).values(rows)
                session.execute(insert.on_conflict_do_update(index_elements=[Task.project_id, Task.id], set_=gone))
                for table in (Prediction, Note, Confirmation):
                    session.execute(sa.delete(table).where(table.project_id == project_id, table.task_id.in_(ids)))
            if deleted:
                self._raise_revision(session, project_id, train_every=train_every)
            return deleted

    def replace_annotations(self, project_id: str, tasks: Iterable[dict[str, Any]], train_every: int = 1) -> bool:
        """Makes the stored annotations those of `tasks` (each with `id`, `data`, `annotations`), but keeps what events
        changed while `tasks` are iterated over, and what is newer than there. `train_every` is that of
        `save_annotations`.

        Returns:
            Whether the data changed.
        """
        known = self.project(project_id)
        since = known.revision if known else 0
        changed = False
        fetched: set[int] = set()
        for batch in _batches(tasks, TASKS_PER_BATCH):
            pairs = [(task, annotation) for task in batch for annotation in task["annotations"]]
            fetched.update(annotation["id"] for _, annotation in pairs)
            pairs = self._differing(project_id, pairs)
            if not pairs:
                continue
            with self._transaction() as session:
                project = self._locked_project(session, project_id)
                changes = [self._save_annotation(session, project, *pair, since=since) for pair in pairs]
                if any(changes):
                    self._raise_revision(session, project_id, sum(changes), train_every)
                    changed = True
        with self._reading() as session:
            stored = session.scalars(
                sa.select(Annotation.id).where(
                    Annotation.project_id == project_id,
                    Annotation.state != AnnotationState.DELETED,
                    Annotation.revision <= since,
                )
            ).all()
        for ids in _batches([id_ for id_ in stored if id_ not in fetched], IDS_PER_STATEMENT):
            with self._transaction() as session:
                project = self._locked_project(session, project_id)
                if self._delete_annotations(session, project, Annotation.id, ids, since):
                    self._raise_revision(session, project_id, train_every=train_every)
                    changed = True
        return changed

    def _differing(self, project_id: str, pairs: list[Pair]) -> list[Pair]:
        """The pairs that differ from what is stored, found without a lock."""
        ids = [annotation["id"] for _, annotation in pairs]
        with self._reading() as session:
            stored: dict[int, Any] = {}
            for batch in _batches(ids, IDS_PER_STATEMENT):
                rows = session.execute(
                    sa.select(Annotation, Task.data)
                    .join(Task, sa.and_(Task.project_id == Annotation.project_id, Task.id == Annotation.task_id))
                    .where(Annotation.project_id == project_id, Annotation.id.in_(batch))
                )
                for row, data in rows:
                    effort = (row.lead_time, row.origins)
                    stored[row.id] = (row.state, row.updated_at, row.result, row.ground_truth, *effort, data)
        return [
            (task, annotation)
            for task, annotation in pairs
            if stored.get(annotation["id"])
            != (
                _state(annotation),
                _updated_at(annotation),
                _result(annotation),
                _is_ground_truth(annotation),
                _lead_time(annotation),
                origins(annotation),
                task["data"],
            )
        ]

    # -- reading

    def task_data(self, project_id: str, task_id: int) -> dict[str, Any] | None:
        """The data of a stored task, or None."""
        with self._reading() as session:
            task = session.get(Task, (project_id, task_id))
            return None if task is None or task.deleted_at_revision is not None else task.data

    def event(self, project_id: str) -> tuple[str, dict[str, Any]]:
        """The latest event for `fit()`: the webhook's action, and a body that is made from what is stored."""
        with self._reading() as session:
            project = session.get(Project, project_id)
            if project is None or not project.last_event:
                return "", {}
            body: dict[str, Any] = {"action": project.last_event}
            body["project"] = {"id": project_id, "label_config": project.label_config}
            annotation = session.get(Annotation, (project_id, project.last_annotation_id or 0))
            if annotation is not None and annotation.state == AnnotationState.PRESENT:
                task = session.get_one(Task, (project_id, annotation.task_id))
                body["task"] = {"id": task.id, "data": task.data}
                body["annotation"] = {"id": annotation.id, "task": task.id, "result": annotation.result}
            return project.last_event, body

    def annotated_tasks(self, project_id: str, task_id: int | None = None) -> list[dict[str, Any]]:
        """The project's annotated tasks, or one of them: `{"id", "data", "annotations": [{"id", "result", "updated_at"}
        …]}`, in order of ids. Where some annotations of a task are its ground truth, the task has only these."""
        of_task = [] if task_id is None else [Task.id == task_id]
        with self._reading() as session:
            rows = session.execute(
                sa.select(
                    Task.id, Task.data, Annotation.id, Annotation.result, Annotation.updated_at, Annotation.ground_truth
                )
                .join(Annotation, sa.and_(Annotation.project_id == Task.project_id, Annotation.task_id == Task.id))
                .where(Task.project_id == project_id, Annotation.state == AnnotationState.PRESENT, *of_task)
                .order_by(Task.id, Annotation.id)
            ).all()
        settled = {task_id for task_id, *_, ground_truth in rows if ground_truth}
        tasks: dict[int, dict[str, Any]] = {}
        for task_id, data, annotation_id, result, updated_at, ground_truth in rows:
            if ground_truth or task_id not in settled:
                entry = tasks.setdefault(task_id, {"id": task_id, "data": data, "annotations": []})
                entry["annotations"].append({"id": annotation_id, "result": result or [], "updated_at": updated_at})
        return list(tasks.values())

    def efforts(self, project_id: str) -> list[tuple[float | None, dict[str, Any] | None]]:
        """What each of the project's annotations took: lead time in seconds, and `origins`; in order of ids."""
        of_project = sa.and_(Annotation.project_id == project_id, Annotation.state == AnnotationState.PRESENT)
        query = sa.select(Annotation.lead_time, Annotation.origins).where(of_project).order_by(Annotation.id)
        with self._reading() as session:
            return [(lead_time, counts) for lead_time, counts in session.execute(query)]

    def count_annotated_tasks(self, project_id: str | None = None) -> dict[str, int]:
        """The number of annotated tasks by project, of all projects or of one."""
        query = sa.select(Annotation.project_id, sa.func.count(Annotation.task_id.distinct()))
        query = query.where(Annotation.state == AnnotationState.PRESENT).group_by(Annotation.project_id)
        if project_id is not None:
            query = query.where(Annotation.project_id == project_id)
        with self._reading() as session:
            rows = session.execute(query)
            return dict(rows.all())
