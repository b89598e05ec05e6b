"""Confirmations: intervals that somebody looked at and found right."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from ml_backend.store.projects import Projects
from ml_backend.store.tables import Confirmation


class Confirmations(Projects):
    """The rows of confirmed intervals."""

    def confirm(
        self, project_id: str, task_id: int, control: str, label: str, start: float, stop: float, drawn: list[Any]
    ) -> None:
        """Adds an interval that was found right, in place of an earlier one of the same label and moments."""
        same = (
            Confirmation.project_id == project_id,
            Confirmation.task_id == task_id,
            Confirmation.control == control,
            Confirmation.label == label,
            Confirmation.start == start,
            Confirmation.stop == stop,
        )
        with self._transaction() as session:
            self._locked_project(session, project_id)
            session.execute(sa.delete(Confirmation).where(*same))
            session.add(
                Confirmation(
                    project_id=project_id,
                    task_id=task_id,
                    control=control,
                    label=label,
                    start=start,
                    stop=stop,
                    drawn=drawn,
                )
            )

    def confirmations(self, project_id: str) -> list[Confirmation]:
        """The intervals of a project that were found right, in the order in which they were."""
        query = sa.select(Confirmation).where(Confirmation.project_id == project_id).order_by(Confirmation.id)
        with self._reading() as session:
            return list(session.scalars(query))
