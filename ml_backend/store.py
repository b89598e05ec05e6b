"""The backend's state: projects, their annotations, trainings and jobs, in one SQL database.

A project has a *data revision* that every change of its annotations or labeling config raises, and the revision that
its model was last trained at. A model is behind its data where the two differ; nothing else triggers a training, so a
lost message loses nothing.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session, sessionmaker

from ml_backend import strict_json
from ml_backend.tables import Annotation, Base, Job, Note, Project, Task, Training, Value, Worker, now

logger = logging.getLogger(__name__)

# SQLite lets one connection write at a time; a writer waits this long for its turn before it fails.
SQLITE_BUSY_SECONDS = 20
# A worker that has not been heard of for this long is dead, and its jobs are taken over.
WORKER_SILENT_SECONDS = 30
# Ended jobs are kept this long for /job_status.
JOB_RETENTION = timedelta(days=14)


def _configure_sqlite(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")  # readers and the writer don't wait for each other
    cursor.execute("PRAGMA synchronous=FULL")  # what was answered 201 survives a power cut
    cursor.close()


class Store:
    """The state behind one `DATABASE_URL`. Safe to share between threads; processes share the database.

    Args:
        database_url: an SQLAlchemy URL. Missing tables are made.
    """

    def __init__(self, database_url: str) -> None:
        sqlite = database_url.startswith("sqlite")
        options = {"connect_args": {"timeout": SQLITE_BUSY_SECONDS}} if sqlite else {}
        self.engine = sa.create_engine(
            database_url, pool_pre_ping=not sqlite, json_serializer=strict_json.dumps, **options
        )
        if sqlite:
            sa.event.listen(self.engine, "connect", _configure_sqlite)
        self._sessions = sessionmaker(self.engine, expire_on_commit=False)
        self._create_tables()

    def _create_tables(self) -> None:
        try:
            Base.metadata.create_all(self.engine)
        except (sa.exc.OperationalError, sa.exc.ProgrammingError):
            # Web and worker start together: the other one made a table between our look and our CREATE.
            Base.metadata.create_all(self.engine)

    def close(self) -> None:
        """Closes the database's connections."""
        self.engine.dispose()

    @contextmanager
    def _transaction(self) -> Iterator[Session]:
        with self._sessions.begin() as session:
            if self.engine.dialect.name == "sqlite":
                # Take the write lock first: a read that later turns into a write fails at once where another writer
                # came between.
                session.execute(sa.text("BEGIN IMMEDIATE"))
            yield session

    # -- projects

    def project(self, project_id: str) -> Project | None:
        """The stored project, or None."""
        with self._sessions() as session:
            return session.get(Project, project_id)

    def projects(self) -> list[Project]:
        """All stored projects."""
        with self._sessions() as session:
            return list(session.scalars(sa.select(Project).order_by(Project.id)))

    @staticmethod
    def _get_or_add_project(session: Session, project_id: str) -> Project:
        project = session.get(Project, project_id)
        if project is None:
            project = Project(id=project_id, label_config="", revision=0, trained_revision=0, from_scratch=False)
            session.add(project)
        return project

    def update_project(
        self,
        project_id: str,
        label_config: str | None = None,
        hostname: str | None = None,
        access_token: str | None = None,
    ) -> bool:
        """Stores what `/setup` or a webhook says of a project. True where the labeling config changed.

        A token stays with the address that it came with: with another address, a request without a token leaves none.
        """
        with self._transaction() as session:
            project = self._get_or_add_project(session, project_id)
            if hostname and hostname.rstrip("/") != (project.hostname or "").rstrip("/"):
                project.hostname, project.access_token = hostname, None
            project.access_token = access_token or project.access_token
            return self._set_label_config(session, project, label_config)

    @staticmethod
    def _set_label_config(session: Session, project: Project, label_config: str | None) -> bool:
        if label_config is None or label_config == project.label_config:
            return False
        project.label_config = label_config
        annotated = session.scalar(sa.select(sa.func.count()).where(Annotation.project_id == project.id))
        project.revision += bool(annotated)
        return True

    def delete_project(self, project_id: str) -> None:
        """Forgets a project with everything that belongs to it."""
        with self._transaction() as session:
            session.execute(sa.delete(Project).where(Project.id == project_id))
            for table in (Task, Annotation, Training, Job, Value, Note):
                session.execute(sa.delete(table).where(table.project_id == project_id))

    def note_event(self, project_id: str, event: str, data: dict[str, Any], from_scratch: bool = False) -> None:
        """Keeps the latest event for `fit()`; `from_scratch` also makes the model count as behind its data."""
        with self._transaction() as session:
            project = self._get_or_add_project(session, project_id)
            project.last_event = {"event": event, "data": data}
            if from_scratch:
                project.from_scratch = True
                project.revision += 1

    def request_training(self, project_id: str) -> None:
        """Makes the project's model count as behind its data."""
        with self._transaction() as session:
            self._get_or_add_project(session, project_id).revision += 1

    def give_up_training(self, project_id: str) -> None:
        """Makes the project's model count as up to date, where training it kills the worker; the next change tries
        again."""
        with self._transaction() as session:
            project = self._get_or_add_project(session, project_id)
            project.trained_revision = project.revision

    def retry_training(self, project_id: str, delay: timedelta) -> None:
        """Leaves the project's model behind its data, to be trained again after a while, or at the next change."""
        with self._transaction() as session:
            self._get_or_add_project(session, project_id).retry_at = now() + delay

    def projects_behind(self, due: bool = False) -> list[str]:
        """Ids of the projects whose model is behind their data; with `due`, without those that wait for another try."""
        behind = sa.select(Project.id).where(Project.revision > Project.trained_revision)
        if due:
            behind = behind.where(sa.or_(Project.retry_at.is_(None), Project.retry_at <= now()))
        with self._sessions() as session:
            return list(session.scalars(behind))

    # -- annotations

    def save_annotations(
        self,
        project_id: str,
        label_config: str | None,
        pairs: list[tuple[dict[str, Any], dict[str, Any]]],
        event: str,
        data: dict[str, Any],
    ) -> bool:
        """Stores created or updated annotations with the event that brought them, in one transaction.

        Args:
            project_id: the project.
            label_config: its labeling config, or None to leave the stored one.
            pairs: task and annotation; a skipped annotation (`was_cancelled`) is removed.
            event: the webhook's action.
            data: its body.

        Returns:
            Whether the data changed, so that the model is behind it.
        """
        with self._transaction() as session:
            project = self._get_or_add_project(session, project_id)
            revision = project.revision
            self._set_label_config(session, project, label_config)
            changes = [self._save_annotation(session, project_id, task, annotation) for task, annotation in pairs]
            project.revision += any(changes)
            if project.revision > revision:
                project.last_event = {"event": event, "data": data}
            return project.revision > revision

    @staticmethod
    def _save_annotation(
        session: Session,
        project_id: str,
        task: dict[str, Any],
        annotation: dict[str, Any],
        authoritative: bool = False,
    ) -> bool:
        stored = session.get(Annotation, (project_id, annotation["id"]))
        updated_at = str(annotation.get("updated_at") or "")
        # Webhooks may overtake each other. Label Studio's ISO 8601 times, all of one zone, sort as text.
        if stored is not None and updated_at < stored.updated_at and not authoritative:
            return False
        if annotation.get("was_cancelled"):
            if stored is not None:
                session.delete(stored)
            return stored is not None
        stored_task = session.get(Task, (project_id, task["id"]))
        task_changed = stored_task is None or stored_task.data != task["data"]
        if stored is not None and stored.result == annotation["result"] and not task_changed:
            stored.updated_at = updated_at
            return False
        session.merge(Task(project_id=project_id, id=task["id"], data=task["data"]))
        session.merge(
            Annotation(
                project_id=project_id,
                id=annotation["id"],
                task_id=task["id"],
                result=annotation["result"],
                updated_at=updated_at,
            )
        )
        return True

    def delete_annotations(self, project_id: str, annotation_ids: list[int]) -> bool:
        """Forgets annotations. True where there was any of them."""
        return self._delete(project_id, sa.delete(Annotation).where(Annotation.id.in_(annotation_ids)))

    def delete_tasks(self, project_id: str, task_ids: list[int]) -> bool:
        """Forgets tasks with their annotations. True where one had annotations."""
        with self._transaction() as session:
            session.execute(sa.delete(Task).where(Task.project_id == project_id, Task.id.in_(task_ids)))
        return self._delete(project_id, sa.delete(Annotation).where(Annotation.task_id.in_(task_ids)))

    def _delete(self, project_id: str, statement: sa.Delete) -> bool:
        with self._transaction() as session:
            deleted = session.execute(statement.where(Annotation.project_id == project_id)).rowcount > 0
            if deleted:
                self._get_or_add_project(session, project_id).revision += 1
            return deleted

    def replace_annotations(self, project_id: str, tasks: list[dict[str, Any]]) -> bool:
        """Makes the stored annotations those of `tasks` (each with `id`, `data`, `annotations`). True where the data
        changed."""
        with self._transaction() as session:
            changed = False
            present: set[int] = set()
            for task in tasks:
                for annotation in task["annotations"]:
                    changed |= self._save_annotation(session, project_id, task, annotation, authoritative=True)
                    present.add(annotation["id"])
            stored = session.scalars(sa.select(Annotation).where(Annotation.project_id == project_id)).all()
            for annotation in stored:
                if annotation.id not in present:
                    session.delete(annotation)
                    changed = True
            if changed:
                self._get_or_add_project(session, project_id).revision += 1
            return changed

    def task_data(self, project_id: str, task_id: int) -> dict[str, Any] | None:
        """The data of a stored task, or None."""
        with self._sessions() as session:
            task = session.get(Task, (project_id, task_id))
            return task.data if task else None

    def annotated_tasks(self, project_id: str) -> list[dict[str, Any]]:
        """The project's tasks that have annotations: `{"id", "data", "annotations": [{"id", "result"} …]}`, in order of
        ids."""
        with self._sessions() as session:
            rows = session.execute(
                sa.select(Task, Annotation)
                .join(Annotation, sa.and_(Annotation.project_id == Task.project_id, Annotation.task_id == Task.id))
                .where(Task.project_id == project_id)
                .order_by(Task.id, Annotation.id)
            )
            tasks: dict[int, dict[str, Any]] = {}
            for task, annotation in rows:
                entry = tasks.setdefault(task.id, {"id": task.id, "data": task.data, "annotations": []})
                entry["annotations"].append({"id": annotation.id, "result": annotation.result})
            return list(tasks.values())

    # -- trainings

    def start_training(self, project_id: str, revision: int, annotated_tasks: int) -> int:
        """Records that a training began and returns its id."""
        with self._transaction() as session:
            training = Training(project_id=project_id, revision=revision, annotated_tasks=annotated_tasks)
            session.add(training)
            session.flush()
            return training.id

    def end_training(
        self,
        training_id: int,
        status: str,
        seconds: float,
        model_version: str | None = None,
        metrics: dict[str, Any] | None = None,
        error: str | None = None,
        up_to_date: bool = True,
    ) -> None:
        """Records how a training ended; with `up_to_date`, that the project's model is at its revision."""
        with self._transaction() as session:
            training = session.get_one(Training, training_id)
            training.status, training.seconds = status, seconds
            training.model_version, training.metrics, training.error = model_version, metrics, error
            project = session.get(Project, training.project_id)
            if project is None or not up_to_date:
                return
            project.retry_at = None
            project.trained_revision = max(project.trained_revision, training.revision)
            if project.revision == training.revision:
                project.from_scratch = False

    def trainings(self, project_id: str) -> list[Training]:
        """The project's trainings, oldest first."""
        with self._sessions() as session:
            query = sa.select(Training).where(Training.project_id == project_id).order_by(Training.id)
            return list(session.scalars(query))

    # -- jobs

    def add_job(
        self, kind: str, key: str, project_id: str, arguments: dict[str, Any], priority: int
    ) -> tuple[Job, bool]:
        """Adds a job, or finds the queued one that does the same work. Returns it and whether it is new."""
        with self._transaction() as session:
            same = sa.select(Job).where(Job.key == key, Job.status == "queued").limit(1)
            found = session.scalar(same)
            if found is not None:
                return found, False
            job = Job(
                id=uuid.uuid4().hex,
                kind=kind,
                key=key,
                project_id=project_id,
                arguments=arguments,
                priority=priority,
                status="queued",
                progress=0.0,
                attempts=0,
                created_at=now(),
            )
            session.add(job)
            return job, True

    def job(self, job_id: str) -> Job | None:
        """The job of that id, or None."""
        with self._sessions() as session:
            return session.get(Job, job_id)

    def live_job(self, key: str) -> Job | None:
        """A queued or started job with this key, or None."""
        with self._sessions() as session:
            return session.scalar(sa.select(Job).where(Job.key == key, Job.status.in_(("queued", "started"))).limit(1))

    def jobs(self, *statuses: str) -> list[Job]:
        """The jobs in the given states, oldest first."""
        with self._sessions() as session:
            return list(session.scalars(sa.select(Job).where(Job.status.in_(statuses)).order_by(Job.created_at)))

    def count_jobs(self, status: str) -> int:
        """The number of jobs in a state."""
        with self._sessions() as session:
            return session.scalar(sa.select(sa.func.count()).select_from(Job).where(Job.status == status)) or 0

    def claim_job(self, job_id: str, worker: str) -> Job | None:
        """Takes a queued job for a worker; None where it isn't queued any more, or another job with its key is
        running."""
        with self._transaction() as session:
            job = session.get(Job, job_id)
            if job is None or job.status != "queued":
                return None
            running = sa.select(Job.id).where(Job.key == job.key, Job.status == "started").limit(1)
            if session.scalar(running) is not None:
                return None
            job.status, job.worker, job.started_at = "started", worker, now()
            job.attempts += 1
            return job

    def set_progress(self, job_id: str, progress: float) -> None:
        """Records how far a job is, in [0, 1]."""
        with self._transaction() as session:
            session.execute(sa.update(Job).where(Job.id == job_id).values(progress=progress))

    def end_job(self, job_id: str, result: dict[str, Any] | None = None, error: str | None = None) -> None:
        """Records a job's result, or the error that ended it, and forgets jobs that ended long ago."""
        with self._transaction() as session:
            values = {"status": "failed" if error else "finished", "ended_at": now(), "result": result, "error": error}
            if not error:
                values["progress"] = 1.0
            session.execute(sa.update(Job).where(Job.id == job_id).values(**values))
            session.execute(sa.delete(Job).where(Job.ended_at < now() - JOB_RETENTION))

    # -- workers

    def worker_alive(self, worker: str) -> None:
        """Records that a worker is alive."""
        with self._transaction() as session:
            session.merge(Worker(id=worker, seen_at=now()))

    def worker_gone(self, worker: str) -> None:
        """Forgets a worker that stops."""
        with self._transaction() as session:
            session.execute(sa.delete(Worker).where(Worker.id == worker))

    def live_workers(self) -> list[str]:
        """Ids of the workers heard of lately."""
        with self._sessions() as session:
            since = now() - timedelta(seconds=WORKER_SILENT_SECONDS)
            return list(session.scalars(sa.select(Worker.id).where(Worker.seen_at >= since)))

    def requeue_abandoned_jobs(self) -> list[str]:
        """Puts the jobs of dead workers back into the state queued, and returns their ids."""
        alive = set(self.live_workers())
        with self._transaction() as session:
            session.execute(sa.delete(Worker).where(Worker.seen_at < now() - timedelta(seconds=WORKER_SILENT_SECONDS)))
            abandoned = [
                job for job in session.scalars(sa.select(Job).where(Job.status == "started")) if job.worker not in alive
            ]
            for job in abandoned:
                job.status, job.worker, job.started_at, job.progress = "queued", None, None, 0.0
            return [job.id for job in abandoned]

    # -- notes on media

    def add_note(self, project_id: str, task_id: int | None, text: str) -> None:
        """Keeps a note on a task's media, and logs it the first time."""
        key = (project_id, task_id or 0, text[:300])
        with self._transaction() as session:
            if session.get(Note, key) is not None:
                return
            session.add(Note(project_id=key[0], task_id=key[1], text=key[2]))
        logger.warning("Project %s, task %s: %s", project_id, task_id, text)

    def notes(self, project_id: str | None = None) -> list[Note]:
        """The notes on a project's media, or on those of all projects."""
        with self._sessions() as session:
            query = sa.select(Note).order_by(Note.project_id, Note.task_id)
            return list(session.scalars(query if project_id is None else query.where(Note.project_id == project_id)))

    # -- a model's own values

    def get_value(self, project_id: str, key: str) -> str | None:
        """A model's value, or None."""
        with self._sessions() as session:
            value = session.get(Value, (project_id, key))
            return value.value if value else None

    def set_value(self, project_id: str, key: str, value: str) -> None:
        """Stores a model's value."""
        with self._transaction() as session:
            session.merge(Value(project_id=project_id, key=key, value=value))

    def increment_value(self, project_id: str, key: str) -> int:
        """Raises a counter by one and returns it; 1 at first."""
        with self._transaction() as session:
            value = session.get(Value, (project_id, key))
            count = int(value.value) + 1 if value else 1
            session.merge(Value(project_id=project_id, key=key, value=str(count)))
            return count
