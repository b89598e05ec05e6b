"""Summaries for pages and commands. The number of queries doesn't grow with the number of projects."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime

import sqlalchemy as sa

from ml_backend.store.projects import Projects
from ml_backend.store.tables import (
    LIVE,
    Annotation,
    AnnotationState,
    Job,
    JobStatus,
    PresentVersion,
    Training,
    TrainingStatus,
)

# Rows of one INSERT; older builds of SQLite take 999 parameters.
BATCH = 100


class Summaries(Projects):
    """Summaries of several tables."""

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
