"""Trainings: the data of each, how it ended, and its model's scores."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ml_backend.store.projects import Projects
from ml_backend.store.tables import Project, Training, TrainingStatus


class Trainings(Projects):
    """The trainings' rows."""

    def start_training(self, project_id: str, revision: int, annotated_tasks: int, job_id: str | None = None) -> int:
        """Records that a training began. Returns its id."""
        with self._transaction() as session:
            training = Training(
                project_id=project_id, revision=revision, annotated_tasks=annotated_tasks, job_id=job_id
            )
            session.add(training)
            session.flush()
            return training.id

    def end_training(
        self,
        training_id: int,
        status: TrainingStatus,
        seconds: float,
        model_version: str | None = None,
        metrics: dict[str, Any] | None = None,
        error: str | None = None,
        up_to_date: bool = True,
    ) -> None:
        """Records how a training ended and, with `up_to_date`, that the project's model is at its revision."""
        with self._transaction() as session:
            training = session.get(Training, training_id)
            if training is None or training.status != TrainingStatus.RUNNING:
                return  # the project was deleted, or its lease ran out: another worker does it again
            training.status, training.seconds = status, seconds
            training.model_version, training.metrics, training.error = model_version, metrics, error
            if up_to_date:
                behind = sa.and_(Project.id == training.project_id, Project.trained_revision < training.revision)
                session.execute(sa.update(Project).where(behind).values(trained_revision=training.revision))

    @staticmethod
    def _interrupt_trainings(session: Session, job_id: str) -> None:
        """Records that a job's training didn't come to its end."""
        running = sa.and_(Training.job_id == job_id, Training.status == TrainingStatus.RUNNING)
        session.execute(sa.update(Training).where(running).values(status=TrainingStatus.INTERRUPTED))

    def trainings(self, project_id: str) -> list[Training]:
        """The project's trainings, oldest first."""
        with self._reading() as session:
            query = sa.select(Training).where(Training.project_id == project_id).order_by(Training.id)
            return list(session.scalars(query))

    def published_versions(self, project_id: str | None = None) -> list[str]:
        """The model versions of a project's published trainings, or of all projects', each once; the newest first."""
        query = sa.select(Training.model_version).where(Training.status == TrainingStatus.PUBLISHED)
        if project_id is not None:
            query = query.where(Training.project_id == project_id)
        with self._reading() as session:
            found = session.scalars(query.order_by(Training.id.desc()))
            return list(dict.fromkeys(version for version in found if version))

    def latest_training(self, project_id: str) -> Training | None:
        """The project's latest training, or None."""
        with self._reading() as session:
            query = sa.select(Training).where(Training.project_id == project_id).order_by(Training.id.desc()).limit(1)
            return session.scalar(query)

    def count_trainings(self) -> dict[tuple[str, TrainingStatus], int]:
        """The number of trainings by project and status."""
        with self._reading() as session:
            columns = (Training.project_id, Training.status)
            rows = session.execute(sa.select(*columns, sa.func.count()).group_by(*columns))
            return {(project_id, status): count for project_id, status, count in rows}
