"""Summaries for pages and commands. The number of queries doesn't grow with the number of projects."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa

from ml_backend.store.projects import Projects
from ml_backend.store.tables import (
    LIVE,
    Annotation,
    AnnotationState,
    Job,
    JobStatus,
    Prediction,
    PresentVersion,
    Task,
    Training,
    TrainingStatus,
    now,
)

# Rows of one INSERT; older builds of SQLite take 999 parameters.
BATCH = 100


class TaskRow(NamedTuple):
    """An annotated or predicted task.

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


class Summaries(Projects):
    """The rows of predictions, and summaries of other tables."""

    def save_predictions(
        self, project_id: str, predictions: list[tuple[dict[str, Any], float | None, str | None]]
    ) -> None:
        """Stores the score and version of tasks' latest predictions, each (task, score, version). Tasks without an id
        are left out."""
        rows = [
            {
                "project_id": project_id,
                "task_id": task["id"],
                "data": task["data"],
                "score": score,
                "model_version": version,
                "predicted_at": now(),
            }
            for task, score, version in predictions
            if task.get("id") is not None
        ]
        if not rows:
            return
        with self._transaction() as session:
            for start in range(0, len(rows), BATCH):
                insert = self._insert(Prediction).values(rows[start : start + BATCH])
                changed = {name: insert.excluded[name] for name in ("data", "score", "model_version", "predicted_at")}
                keys = [Prediction.project_id, Prediction.task_id]
                session.execute(insert.on_conflict_do_update(index_elements=keys, set_=changed))

    def known_tasks(self, project_id: str, limit: int, offset: int = 0) -> tuple[list[TaskRow], int]:
        """A page of the project's annotated and predicted tasks, and the number of all. Tasks whose annotation would
        teach most come first: those without annotations, and among them the lowest score."""
        present = sa.and_(Annotation.project_id == project_id, Annotation.state == AnnotationState.PRESENT)
        counts = (
            sa.select(Annotation.task_id, sa.func.count().label("annotations"))
            .where(present)
            .group_by(Annotation.task_id)
        ).subquery()
        ids = sa.union(
            sa.select(Prediction.task_id).where(Prediction.project_id == project_id), sa.select(counts.c.task_id)
        ).subquery()
        predicted = sa.and_(Prediction.project_id == project_id, Prediction.task_id == ids.c.task_id)
        stored = sa.and_(Task.project_id == project_id, Task.id == ids.c.task_id)
        annotations = sa.func.coalesce(counts.c.annotations, 0)
        query = (
            sa.select(
                ids.c.task_id, Prediction.data, Task.data, annotations, Prediction.score, Prediction.model_version
            )
            .outerjoin(Prediction, predicted)
            .outerjoin(Task, stored)
            .outerjoin(counts, counts.c.task_id == ids.c.task_id)
        )
        unknown_last = sa.func.coalesce(Prediction.score, 2.0)
        query = query.order_by(annotations > 0, unknown_last, ids.c.task_id).limit(limit).offset(offset)
        with self._reading() as session:
            total = session.scalar(sa.select(sa.func.count()).select_from(ids)) or 0
            rows = [
                TaskRow(task_id, predicted_data or data or {}, *rest)
                for task_id, predicted_data, data, *rest in session.execute(query)
            ]
            return rows, total

    def known_task(self, project_id: str, task_id: int) -> dict[str, Any] | None:
        """An annotated or predicted task, `{"id", "data"}`, or None."""
        with self._reading() as session:
            row = session.get(Prediction, (project_id, task_id)) or session.get(Task, (project_id, task_id))
            return {"id": task_id, "data": row.data} if row and row.data else None

    def annotations_of(self, project_id: str, task_id: int) -> list[Annotation]:
        """The present annotations of a task."""
        query = sa.select(Annotation).where(
            Annotation.project_id == project_id,
            Annotation.task_id == task_id,
            Annotation.state == AnnotationState.PRESENT,
        )
        with self._reading() as session:
            return list(session.scalars(query.order_by(Annotation.id)))

    def latest_trainings(self) -> dict[str, list[Training]]:
        """Each project's latest training and latest published one, the newer first."""
        published = sa.case((Training.status == TrainingStatus.PUBLISHED, Training.id))
        ids = sa.select(sa.func.max(Training.id), sa.func.max(published)).group_by(Training.project_id)
        with self._reading() as session:
            wanted = {number for row in session.execute(ids) for number in row if number is not None}
            found: dict[str, list[Training]] = defaultdict(list)
            for start in range(0, len(wanted), BATCH):
                part = Training.id.in_(sorted(wanted)[start : start + BATCH])
                for training in session.scalars(sa.select(Training).where(part)):
                    found[training.project_id].append(training)
        return {key: sorted(trainings, key=lambda one: -one.id) for key, trainings in found.items()}

    def present_versions(self) -> dict[str, dict[str, int]]:
        """Project -> control tag -> the present version."""
        with self._reading() as session:
            found: dict[str, dict[str, int]] = defaultdict(dict)
            for row in session.scalars(sa.select(PresentVersion)):
                found[row.project_id][row.from_name] = row.version
        return dict(found)

    def next_jobs(self, project_id: str | None, limit: int) -> list[Job]:
        """The running jobs, then the waiting ones in the order in which they will start."""
        query = sa.select(Job).where(Job.status.in_(LIVE))
        if project_id is not None:
            query = query.where(Job.project_id == project_id)
        order = (Job.status == JobStatus.QUEUED, Job.priority.desc(), Job.created_at)
        with self._reading() as session:
            return list(session.scalars(query.order_by(*order).limit(limit)))

    def ended_jobs(self, project_id: str | None, limit: int) -> list[Job]:
        """The jobs that failed, were cancelled or finished, the latest first."""
        query = sa.select(Job).where(Job.ended_at.is_not(None))
        if project_id is not None:
            query = query.where(Job.project_id == project_id)
        with self._reading() as session:
            return list(session.scalars(query.order_by(Job.ended_at.desc()).limit(limit)))

    def oldest_queued_job(self) -> datetime | None:
        """When the oldest waiting job was added, None where none waits."""
        with self._reading() as session:
            return session.scalar(sa.select(sa.func.min(Job.created_at)).where(Job.status == JobStatus.QUEUED))

    def last_failed_job(self, project_id: str | None = None) -> Job | None:
        """The job that failed last, or None."""
        query = sa.select(Job).where(Job.status == JobStatus.FAILED)
        if project_id is not None:
            query = query.where(Job.project_id == project_id)
        with self._reading() as session:
            return session.scalar(query.order_by(Job.ended_at.desc()).limit(1))
