"""Projects: labeling config, address of Label Studio, and whether the model is behind its data."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from xml.etree import ElementTree

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from ml_backend.store.database import Database
from ml_backend.store.tables import (
    Annotation,
    AnnotationState,
    Confirmation,
    Job,
    ModelVersion,
    Note,
    Prediction,
    PresentVersion,
    Project,
    Task,
    Training,
    Value,
    storable,
)

# Attributes of a labeling config that say how it looks and works for annotators, and change no model.
LOOKS = ("background", "hotkey")

OF_A_PROJECT = (Task, Annotation, Training, ModelVersion, PresentVersion, Job, Value, Note, Prediction, Confirmation)


def _learnt(label_config: str, unlearnt: Sequence[str]) -> str:
    """A labeling config in one form, without comments, indentation and attributes that change no model; as it is where
    it isn't XML."""
    try:
        return ElementTree.canonicalize(label_config, strip_text=True, exclude_attrs=[*LOOKS, *unlearnt])
    except (ElementTree.ParseError, ValueError, LookupError):
        return label_config


class Projects(Database):
    """The projects' rows.

    Attributes:
        unlearnt: the attributes of control tags that change no model (`LabelStudioMLBase.unlearnt`).
    """

    unlearnt: Sequence[str] = ()

    def project(self, project_id: str) -> Project | None:
        """The stored project, or None."""
        with self._reading() as session:
            return session.get(Project, project_id)

    def projects(self) -> list[Project]:
        """All stored projects."""
        with self._reading() as session:
            return list(session.scalars(sa.select(Project).order_by(Project.id)))

    def identify(self, number: str, created: int | None) -> str:
        """Returns the id that a project of a Label Studio has here.

        Two projects may have the same number, where a Label Studio was made anew or two of them use one backend. The
        time when Label Studio created them tells them apart.

        Args:
            number: the project's id in Label Studio.
            created: when Label Studio created it, in seconds of Unix time. None where the request doesn't say so: then
                the only project of that number is meant, or the first one.
        """
        if created is None:
            same = self.numbered(number)
            return same[0].id if len(same) == 1 else number
        known = self.project(number)
        return number if known is None or known.created in (None, created) else f"{number}-{created}"

    def adopt(self, project_id: str, created: int | None, title: str | None = None) -> None:
        """Stores what Label Studio says of a known project: its title, and when it was created, where that isn't stored
        yet (an earlier release, or a request without the time, added the project)."""
        known = self.project(project_id)
        if known is None:
            return
        values: dict[str, Any] = {}
        if created is not None and known.created is None:
            values["created"] = sa.func.coalesce(Project.created, created)
        if title and storable(title) != known.title:
            values["title"] = title
        if values:
            with self._transaction() as session:
                session.execute(sa.update(Project).where(Project.id == project_id).values(values))

    def numbered(self, number: str) -> list[Project]:
        """The projects that have this number in their Label Studios."""
        with self._reading() as session:
            query = sa.select(Project).where(sa.or_(Project.id == number, Project.id.startswith(f"{number}-")))
            return [project for project in session.scalars(query.order_by(Project.id)) if project.number == number]

    def _insert(self, table: type[Any]) -> sqlite.Insert | postgresql.Insert:
        """An INSERT with `on_conflict_…` methods, in the database's dialect."""
        return (sqlite if self.is_sqlite else postgresql).insert(table)

    def _locked_project(self, session: Session, project_id: str) -> Project:
        """Returns the project's row, locked, and adds it where it is new. So transactions that change a project's data
        follow each other."""
        insert = self._insert(Project).values(id=project_id).on_conflict_do_nothing()
        if session.scalar(insert.returning(Project.id)) is not None:
            self._delete_rows(session, project_id)  # rows that a job of a deleted project wrote late
        return session.get_one(Project, project_id, with_for_update=True)

    @staticmethod
    def _raise_revision(session: Session, project_id: str, by: int = 1, train_every: int = 1) -> int:
        """Raises the project's data revision and returns it.

        Args:
            session: a transaction that holds the project's lock.
            project_id: the project.
            by: the number of changes.
            train_every: the number of changes since the last training from which on one is wanted; 0 for never.
        """
        revision = Project.revision + by
        values: dict[str, Any] = {"revision": revision}
        if train_every:
            # What a training that is wanted already, or runs, will have learnt doesn't count again.
            due = sa.and_(
                revision - Project.trained_revision >= train_every, revision - Project.wanted_revision >= train_every
            )
            values["wanted_revision"] = sa.case((due, revision), else_=Project.wanted_revision)
        raised = sa.update(Project).where(Project.id == project_id).values(values)
        return session.scalar(raised.returning(Project.revision))

    def update_project(
        self,
        project_id: str,
        label_config: str | None = None,
        hostname: str | None = None,
        access_token: str | None = None,
        created: int | None = None,
    ) -> bool:
        """Stores what `/setup` or a webhook says of a project. Returns whether the labeling config changed.

        A token belongs to the address that it came with: a request with another address and no token removes the token.
        """
        known = self.project(project_id)
        if (
            known is not None
            and label_config in (None, known.label_config)
            and hostname in (None, "", known.hostname)
            and access_token in (None, "", known.access_token)
            and created in (None, known.created)
        ):
            return False  # without a write there is no wait for a lock
        with self._transaction() as session:
            project = self._locked_project(session, project_id)
            before = (project.hostname, project.access_token)
            if hostname and hostname.rstrip("/") != (project.hostname or "").rstrip("/"):
                project.hostname, project.access_token = hostname, None
            project.access_token = access_token or project.access_token
            project.created = project.created or created
            if (project.hostname, project.access_token) != before:
                project.reconciled_at = None  # a comparison that wasn't possible may be possible now
            return self._set_label_config(session, project, label_config)

    def _set_label_config(self, session: Session, project: Project, label_config: str | None) -> bool:
        if label_config is None or label_config == project.label_config:
            return False
        learnt = [_learnt(config, self.unlearnt) for config in (label_config, project.label_config or "")]
        project.label_config = label_config
        if learnt[0] == learnt[1]:
            return True
        present = sa.and_(Annotation.project_id == project.id, Annotation.state == AnnotationState.PRESENT)
        if session.scalar(sa.select(sa.exists().where(present))):
            self._raise_revision(session, project.id)
        return True

    def delete_project(self, project_id: str) -> None:
        """Deletes a project with everything that belongs to it."""
        with self._transaction() as session:
            session.execute(sa.delete(Project).where(Project.id == project_id))
            self._delete_rows(session, project_id)

    @staticmethod
    def _delete_rows(session: Session, project_id: str) -> None:
        for table in OF_A_PROJECT:
            session.execute(sa.delete(table).where(table.project_id == project_id))

    def note_event(self, project_id: str, event: str) -> None:
        """Stores the latest event, for `fit()`."""
        with self._transaction() as session:
            project = self._locked_project(session, project_id)
            project.last_event, project.last_annotation_id = event, None

    # -- behind the data

    def request_training(self, project_id: str) -> None:
        """Marks the project's model as behind its data."""
        with self._transaction() as session:
            self._locked_project(session, project_id)
            self._raise_revision(session, project_id)

    def give_up_training(self, project_id: str, revision: int | None = None) -> None:
        """Marks the project's model as up to date at a revision, by default the present one, because a training can't
        succeed. The next change starts another one."""
        reached = Project.revision if revision is None else revision
        behind = sa.and_(Project.id == project_id, Project.trained_revision < reached)
        with self._transaction() as session:
            session.execute(sa.update(Project).where(behind).values(trained_revision=reached))

    def projects_behind(self) -> list[str]:
        """The ids of the projects whose model is so far behind its data that a training is wanted."""
        with self._reading() as session:
            behind = Project.wanted_revision > Project.trained_revision
            return list(session.scalars(sa.select(Project.id).where(behind)))

    def retry_videos(self, project_id: str, delay: timedelta | None) -> None:
        """Plans when the project's unreachable videos are tried again; None where all were reached."""
        with self._transaction() as session:
            values = {"retry_at": None, "retries": 0}
            if delay is not None:
                values = {"retry_at": self._now() + delay, "retries": Project.retries + 1}
            session.execute(sa.update(Project).where(Project.id == project_id).values(values))

    def projects_to_retry(self) -> list[str]:
        """The ids of the projects whose unreachable videos are to be tried again now."""
        with self._reading() as session:
            return list(session.scalars(sa.select(Project.id).where(Project.retry_at <= self._now())))

    # -- compared with Label Studio

    def begin_reconciliation(self, project_id: str) -> None:
        """Records that a comparison of the project with Label Studio begins."""
        with self._transaction() as session:
            values = {"reconciled_at": self._now()}
            session.execute(sa.update(Project).where(Project.id == project_id).values(values))

    def projects_to_reconcile(self, interval: timedelta) -> list[str]:
        """The ids of the projects whose last comparison with Label Studio is that long ago."""
        with self._reading() as session:
            before = self._now() - interval
            due = sa.or_(Project.reconciled_at.is_(None), Project.reconciled_at <= before)
            return list(session.scalars(sa.select(Project.id).where(due)))
