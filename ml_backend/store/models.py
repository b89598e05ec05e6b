"""Published models: each version's file and metrics, and which version is the present one."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from errors import InvalidRequest
from ml_backend.store.projects import Projects
from ml_backend.store.tables import ModelVersion, PresentVersion, Project, Value

TRAININGS = "trainings"  # the key of a project's counter of trainings; a version is the number of its training


class Models(Projects):
    """The rows of published versions. The model itself handles their files."""

    def publish_version(
        self, project_id: str, from_name: str, version: int, file: str, metrics: dict[str, Any]
    ) -> bool:
        """Adds a version and makes it the present one.

        Args:
            project_id: the project.
            from_name: the control tag.
            version: its number; later trainings have larger ones.
            file: the name of its file, a hash of the content. The file exists already, and never changes.
            metrics: JSON.

        Returns:
            False where a later version is the present one already: this version's training was believed dead, and was
            done again.

        Raises:
            InvalidRequest: the project was deleted while the version was made, also where another project with the same
                id was connected since: its trainings have other numbers.
        """
        with self._transaction() as session:
            if session.get(Project, project_id, with_for_update=True) is None or not self._gave_out(
                session, project_id, version
            ):
                raise InvalidRequest(f"Project {project_id} was deleted while its model was trained.")
            row = ModelVersion(project_id=project_id, from_name=from_name, version=version, file=file, metrics=metrics)
            session.merge(row)
            insert = self._insert(PresentVersion).values(project_id=project_id, from_name=from_name, version=version)
            statement = insert.on_conflict_do_update(
                index_elements=[PresentVersion.project_id, PresentVersion.from_name],
                set_={"version": version},
                where=PresentVersion.version < version,
            )
            return session.scalar(statement.returning(PresentVersion.version)) is not None

    @staticmethod
    def _gave_out(session: Session, project_id: str, version: int) -> bool:
        """Whether one of the project's trainings has this number."""
        counter = session.get(Value, (project_id, TRAININGS))
        return counter is not None and version <= int(counter.value)

    def present_version(self, project_id: str, from_name: str) -> ModelVersion | None:
        """The version that predicts, or None."""
        with self._reading() as session:
            same = sa.and_(
                PresentVersion.project_id == ModelVersion.project_id,
                PresentVersion.from_name == ModelVersion.from_name,
                PresentVersion.version == ModelVersion.version,
            )
            query = sa.select(ModelVersion).join(PresentVersion, same)
            return session.scalar(
                query.where(ModelVersion.project_id == project_id, ModelVersion.from_name == from_name)
            )

    def versions(self, project_id: str, from_name: str | None = None) -> list[ModelVersion]:
        """The published versions of a control tag, or of all control tags of the project, newest first."""
        with self._reading() as session:
            query = sa.select(ModelVersion).where(ModelVersion.project_id == project_id)
            if from_name is not None:
                query = query.where(ModelVersion.from_name == from_name)
            return list(session.scalars(query.order_by(ModelVersion.version.desc(), ModelVersion.from_name)))

    def make_present(self, project_id: str, from_name: str, version: int) -> None:
        """Makes a published version the present one again. The model checks whether it can predict.

        Raises:
            InvalidRequest: there is no such version.
        """
        with self._transaction() as session:
            if session.get(ModelVersion, (project_id, from_name, version)) is None:
                raise InvalidRequest(f'"{from_name}" of project {project_id} has no version {version} any more.')
            session.merge(PresentVersion(project_id=project_id, from_name=from_name, version=version))

    def forget_present_version(self, project_id: str, from_name: str) -> None:
        """Leaves the control tag without a present version. The published versions stay."""
        with self._transaction() as session:
            session.execute(
                sa.delete(PresentVersion).where(
                    PresentVersion.project_id == project_id, PresentVersion.from_name == from_name
                )
            )

    def delete_version(self, project_id: str, from_name: str, version: int) -> None:
        """Deletes the row of a version whose file is removed."""
        with self._transaction() as session:
            session.execute(
                sa.delete(ModelVersion).where(
                    ModelVersion.project_id == project_id,
                    ModelVersion.from_name == from_name,
                    ModelVersion.version == version,
                )
            )
