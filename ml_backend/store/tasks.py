"""The tasks of projects, annotated or not, with their latest predictions."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from enum import Enum
from itertools import islice
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ml_backend.store.projects import Projects
from ml_backend.store.tables import Annotation, AnnotationState, Job, JobStatus, Prediction, Project, Task, now

# Rows of one INSERT; older builds of SQLite take 999 parameters.
BATCH = 100

# Whether a task is an example.
ANNOTATED = sa.exists().where(
    Annotation.project_id == Task.project_id,
    Annotation.task_id == Task.id,
    Annotation.state == AnnotationState.PRESENT,
)

RUNNING = sa.select(Job.id).where(Job.status == JobStatus.STARTED)

# A task, and its prediction's score and version.
Given = tuple[dict[str, Any], float | None, str | None]


class Claim(Enum):
    """Whether a job may store a prediction in Label Studio."""

    CLAIMED = "it may"
    HELD = "another job is storing one of the same task"
    ANSWERED = "Label Studio got this one as an answer, and may be storing it"


class TaskRow(NamedTuple):
    """A task and its latest prediction.

    Attributes:
        id: Label Studio's id.
        data: the task's data.
        annotations: the number of its annotations.
        score: the score of its latest prediction, None where it has none.
        model_version: the version that made the prediction.
    """

    id: int
    data: dict[str, Any]
    annotations: int
    score: float | None
    model_version: str | None


class Tasks(Projects):
    """The rows of tasks and predictions."""

    def save_tasks(self, project_id: str, tasks: Iterable[dict[str, Any]], train_every: int | None = 1) -> None:
        """Stores tasks, `{"id", "data"}`, in one statement for each hundred that is new or changed. Deleted tasks, and
        those of a project that isn't stored, are left out.

        Other data of an annotated task, such as another video, are a change that the model has to learn. `train_every`
        is that of `save_annotations`; without it, tasks that are stored keep their data, as for a job, whose data may
        be old.
        """
        tasks = iter(tasks)
        while batch := list(islice(tasks, BATCH)):
            rows = {task["id"]: task["data"] for task in batch}
            changed = self._changed_tasks(project_id, rows)
            if not changed:
                continue  # without a write there is no wait for a lock
            with self._transaction() as session:
                self._save_tasks(session, project_id, changed, train_every)

    def _changed_tasks(self, project_id: str, rows: dict[int, dict[str, Any]]) -> dict[int, dict[str, Any]]:
        """Those of the tasks, id -> data, that aren't stored so."""
        query = sa.select(Task.id, Task.data, Task.deleted_at_revision)
        with self._reading() as session:
            stored = session.execute(query.where(Task.project_id == project_id, Task.id.in_(list(rows))))
            same = {task_id for task_id, data, deleted in stored if deleted is not None or data == rows[task_id]}
        return {task_id: data for task_id, data in rows.items() if task_id not in same}

    def _save_tasks(
        self, session: Session, project_id: str, rows: dict[int, dict[str, Any]], train_every: int | None
    ) -> bool:
        """Stores up to BATCH tasks, id -> data, unless they were deleted. Returns whether the project is stored.

        The project's lock keeps a webhook from adding the same task meanwhile.
        """
        if session.get(Project, project_id, with_for_update=True) is None:
            return False
        values = [{"project_id": project_id, "id": task_id, "data": data} for task_id, data in rows.items()]
        insert = self._insert(Task).values(values)
        if train_every is None:
            session.execute(insert.on_conflict_do_nothing())
            return True
        learnt = sa.select(Task.id, Task.data).where(self._of(project_id), Task.id.in_(list(rows)), ANNOTATED)
        changes = sum(data != rows[task_id] for task_id, data in session.execute(learnt))
        if changes:
            self._raise_revision(session, project_id, changes, train_every)
        keys = [Task.project_id, Task.id]
        there = Task.deleted_at_revision.is_(None)
        session.execute(
            insert.on_conflict_do_update(index_elements=keys, set_={"data": insert.excluded.data}, where=there)
        )
        return True

    def save_predictions(self, project_id: str, predictions: list[Given], train_every: int | None = 1) -> None:
        """Stores the score and version of tasks' latest predictions, with their tasks as `save_tasks` does; without
        `train_every`, only tasks that are new. Tasks without an id are left out."""
        self._save_predictions(project_id, predictions, {}, train_every)

    def answer_predictions(
        self, project_id: str, predictions: list[Given], within: timedelta, train_every: int = 1
    ) -> set[int]:
        """As `save_predictions`, for predictions that Label Studio gets as an answer and stores itself.

        Returns:
            The tasks whose prediction of this version the worker is storing or has stored within the time: Label Studio
            didn't have it yet when it asked.
        """
        saved = self._save_predictions(project_id, predictions, {"answered_at": self._now()}, train_every)
        recent = sa.or_(Prediction.stored_at >= self._now() - within, Prediction.job_id.in_(RUNNING))
        found: set[int] = set()
        with self._reading() as session:
            for start in range(0, len(saved), BATCH):
                these = sa.and_(
                    Prediction.project_id == project_id, Prediction.task_id.in_(saved[start : start + BATCH])
                )
                found.update(session.scalars(sa.select(Prediction.task_id).where(these, recent)))
        return found

    def claim_prediction(self, project_id: str, given: Given, within: timedelta, job_id: str) -> Claim:
        """As `save_predictions` without `train_every`, for what a job is about to store in Label Studio.

        Args:
            project_id: the project.
            given: the prediction.
            within: the time within which Label Studio stores what it got as an answer.
            job_id: the running job. No other one may store a prediction of this task until it ends or calls
                `release_prediction`.
        """
        task, _, version = given
        this = sa.and_(Prediction.project_id == project_id, Prediction.task_id == task.get("id"))
        held = sa.and_(this, Prediction.job_id != job_id, Prediction.job_id.in_(RUNNING))
        answered = sa.and_(this, Prediction.model_version == version, Prediction.answered_at >= self._now() - within)
        with self._transaction() as session:
            if not self._save_tasks(session, project_id, {task["id"]: task["data"]}, train_every=None):
                return Claim.ANSWERED  # the project was deleted
            for reason, claim in ((held, Claim.HELD), (answered, Claim.ANSWERED)):
                if session.scalar(sa.select(Prediction.task_id).where(reason)) is not None:
                    return claim
            session.execute(self._upsert(project_id, [given], {"stored_at": self._now(), "job_id": job_id}))
        return Claim.CLAIMED

    def release_prediction(self, project_id: str, task_id: int, job_id: str) -> None:
        """Records that a job has stored a task's prediction in Label Studio, or failed to."""
        this = sa.and_(Prediction.project_id == project_id, Prediction.task_id == task_id, Prediction.job_id == job_id)
        with self._transaction() as session:
            session.execute(sa.update(Prediction).where(this).values(stored_at=self._now(), job_id=None))

    def _save_predictions(
        self, project_id: str, predictions: list[Given], moments: dict[str, Any], train_every: int | None = 1
    ) -> list[int]:
        """Stores predictions with moments. Returns the ids of the stored tasks."""
        given = {one[0]["id"]: one for one in predictions if one[0].get("id") is not None}
        ids, saved = list(given), []
        for start in range(0, len(ids), BATCH):
            batch = ids[start : start + BATCH]
            with self._transaction() as session:
                tasks = {task_id: given[task_id][0]["data"] for task_id in batch}
                if self._save_tasks(session, project_id, tasks, train_every):
                    session.execute(self._upsert(project_id, [given[task_id] for task_id in batch], moments))
                    saved += batch
        return saved

    def _upsert(self, project_id: str, given: list[Given], moments: dict[str, Any]) -> sa.Insert:
        """A statement that stores predictions with moments. Moments of an earlier version are forgotten."""
        rows = [
            {"project_id": project_id, "task_id": task["id"], "score": score, "model_version": version}
            | {"predicted_at": now(), **moments}
            for task, score, version in given
        ]
        insert = self._insert(Prediction).values(rows)
        changed = {name: insert.excluded[name] for name in ("score", "model_version", "predicted_at", *moments)}
        same = Prediction.model_version == insert.excluded.model_version
        for name in {"answered_at", "stored_at"} - set(moments):
            changed[name] = sa.case((same, getattr(Prediction, name)))
        return insert.on_conflict_do_update(index_elements=[Prediction.project_id, Prediction.task_id], set_=changed)

    def save_ranks(self, project_id: str, task_ids: list[int]) -> None:
        """Stores how much tasks would teach, most first, in place of the earlier order."""
        with self._transaction() as session:
            if session.get(Project, project_id, with_for_update=True) is None:
                return
            ranked = sa.and_(Task.project_id == project_id, Task.rank.is_not(None))
            session.execute(sa.update(Task).where(ranked).values(rank=None))
            for start in range(0, len(task_ids), BATCH):
                batch = task_ids[start : start + BATCH]
                places = {task_id: start + place for place, task_id in enumerate(batch)}
                rank = sa.case(places, value=Task.id)
                these = sa.and_(Task.project_id == project_id, Task.id.in_(batch))
                session.execute(sa.update(Task).where(these).values(rank=rank))

    # -- reading

    def known_tasks(self, project_id: str, limit: int, offset: int = 0) -> tuple[list[TaskRow], int]:
        """A page of the project's tasks, and the number of all. Tasks whose annotation would teach most come first:
        those without annotations, and among them by their rank, or else by the lowest score."""
        present = sa.and_(Annotation.project_id == project_id, Annotation.state == AnnotationState.PRESENT)
        counts = (
            sa.select(Annotation.task_id, sa.func.count().label("annotations"))
            .where(present)
            .group_by(Annotation.task_id)
        ).subquery()
        predicted = sa.and_(Prediction.project_id == Task.project_id, Prediction.task_id == Task.id)
        annotations = sa.func.coalesce(counts.c.annotations, 0)
        order = (annotations > 0, Task.rank.is_(None), Task.rank, Prediction.score.is_(None), Prediction.score, Task.id)
        page = (
            sa.select(Task.id, annotations, Prediction.score, Prediction.model_version)
            .outerjoin(Prediction, predicted)
            .outerjoin(counts, counts.c.task_id == Task.id)
            .where(self._of(project_id))
            .order_by(*order)
            .limit(limit)
            .offset(offset)
        )
        with self._reading() as session:
            total = session.scalar(sa.select(sa.func.count()).select_from(Task).where(self._of(project_id))) or 0
            rows = session.execute(page).all()
            # The data isn't sorted with the rest: it may be large.
            these = sa.and_(Task.project_id == project_id, Task.id.in_([task_id for task_id, *_ in rows]))
            data = dict(session.execute(sa.select(Task.id, Task.data).where(these)).all())
        return [TaskRow(task_id, data.get(task_id, {}), *rest) for task_id, *rest in rows], total

    @staticmethod
    def _of(project_id: str) -> sa.ColumnElement[bool]:
        """The project's tasks that aren't deleted."""
        return sa.and_(Task.project_id == project_id, Task.deleted_at_revision.is_(None))

    def known_task(self, project_id: str, task_id: int) -> dict[str, Any] | None:
        """A task, `{"id", "data"}`, or None."""
        with self._reading() as session:
            row = session.get(Task, (project_id, task_id))
            return {"id": task_id, "data": row.data} if row and row.deleted_at_revision is None else None

    def is_deleted(self, project_id: str, task_id: int) -> bool:
        """Whether a task was deleted in Label Studio."""
        with self._reading() as session:
            row = session.get(Task, (project_id, task_id))
            return row is not None and row.deleted_at_revision is not None

    def task_ids(self, project_id: str) -> set[int]:
        """The ids of the project's tasks."""
        with self._reading() as session:
            return set(session.scalars(sa.select(Task.id).where(self._of(project_id))))

    def unannotated_tasks(self, project_id: str, limit: int | None = None) -> list[dict[str, Any]]:
        """The first tasks without an annotation, or all of them, `{"id", "data"}`, in the order of their ids."""
        query = sa.select(Task.id, Task.data).where(self._of(project_id), ~ANNOTATED).order_by(Task.id).limit(limit)
        with self._reading() as session:
            return [{"id": task_id, "data": data} for task_id, data in session.execute(query)]
