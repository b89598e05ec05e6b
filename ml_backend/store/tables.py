"""The tables of the database, with the meaning of each column. A change here needs a migration (migrations/)."""

from __future__ import annotations

from datetime import datetime, timezone
from enum import Enum
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

# SQLite generates keys only for a column of the type INTEGER, which has 64 bits there.
BIG_INTEGER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def now() -> datetime:
    """The current time in UTC by this machine's clock, without a time zone, as the database stores it."""
    return datetime.now(timezone.utc).replace(tzinfo=None)


class _Name(str, Enum):
    """An enumeration whose members are stored as text, and equal that text."""

    __str__ = str.__str__


class JobKind(_Name):
    """What a job does."""

    TRAIN = "train"  # bring a project's model up to its data
    RESET = "reset"  # the same, and forget the present model
    RECONCILE = "reconcile"  # make the stored annotations those of Label Studio
    EXTRACT = "extract"  # extract the features of a task's video
    EXTRACT_MANY = "extract_many"  # add a job for each of many new tasks
    DELIVER = "deliver"  # store a prediction in Label Studio
    DELIVER_MANY = "deliver_many"  # add a job for each of many predictions
    REFRESH = "refresh"  # store the present version's predictions of the next tasks
    REVIEW = "review"  # compare annotations with models trained without their videos


class JobStatus(_Name):
    """The state of a job. The first two are live, the others ended."""

    QUEUED = "queued"
    STARTED = "started"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"


LIVE = (JobStatus.QUEUED, JobStatus.STARTED)


class QueueName(_Name):
    """The queues. Each has slots of its own in a worker, so that no training waits for a long extraction."""

    TRAIN = "train"
    EXTRACT = "extract"
    REFRESH = "refresh"


class TrainingStatus(_Name):
    """How a training ended."""

    RUNNING = "running"
    PUBLISHED = "published"
    REJECTED = "rejected"  # its model was worse than the present one
    FAILED = "failed"
    INTERRUPTED = "interrupted"  # its worker stopped or died; the job is done again


class AnnotationState(_Name):
    """Whether an annotation is an example. Others are kept, so that late events don't restore them."""

    PRESENT = "present"
    SKIPPED = "skipped"
    DELETED = "deleted"


def storable(text: str) -> str:
    """Text that both databases can store: NUL and halves of surrogate pairs are written as escapes."""
    return text.encode(errors="backslashreplace").decode().replace("\0", "\\0")


class Text(sa.types.TypeDecorator):
    """A column of text that may quote user input."""

    impl = sa.String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: sa.Dialect) -> str | None:
        """Makes the text storable."""
        return None if value is None else storable(value)


class LongText(Text):
    """A column of such text of any length."""

    impl = sa.Text
    cache_ok = True


def _words(names: type[_Name]) -> sa.Enum:
    return sa.Enum(names, native_enum=False, length=32, values_callable=lambda members: [m.value for m in members])


def _where(status: str) -> dict[str, sa.TextClause]:
    """The options of a partial index on the jobs of one status, for both databases."""
    condition = sa.text(f"status = '{status}'")
    return {"sqlite_where": condition, "postgresql_where": condition}


class Base(DeclarativeBase):
    """The base class of the tables."""

    type_annotation_map = {  # noqa: RUF012 (SQLAlchemy's interface)
        int: BIG_INTEGER,
        str: Text,
        dict[str, Any]: sa.JSON,
        list[Any]: sa.JSON,
        **{names: _words(names) for names in (JobKind, JobStatus, QueueName, TrainingStatus, AnnotationState)},
    }


class Project(Base):
    """A Label Studio project that this backend is connected to.

    The id of the first project with a number is that number in Label Studio; the id of a project with the same number
    in another Label Studio is number-created.
    """

    __tablename__ = "projects"
    id: Mapped[str] = mapped_column(primary_key=True)
    created: Mapped[int | None]  # when Label Studio created it, in seconds of Unix time; None while unknown
    title: Mapped[str | None]  # in Label Studio; None while unknown
    label_config: Mapped[str] = mapped_column(LongText, default="")
    hostname: Mapped[str | None]
    access_token: Mapped[str | None]
    revision: Mapped[int] = mapped_column(default=0)  # raised by each change of the annotations or the config
    trained_revision: Mapped[int] = mapped_column(default=0)
    wanted_revision: Mapped[int] = mapped_column(default=0)  # a training is wanted where the model is behind this one
    last_event: Mapped[str | None]  # the latest webhook's action and annotation, for fit()
    last_annotation_id: Mapped[int | None]
    retry_at: Mapped[datetime | None]  # when to try unreachable videos again
    retries: Mapped[int] = mapped_column(default=0)  # how often they were tried again
    reconciled_at: Mapped[datetime | None]  # when the latest comparison with Label Studio began
    created_at: Mapped[datetime] = mapped_column(default=now)  # when it was added here

    @property
    def number(self) -> str:
        """The project's id in Label Studio."""
        return self.id.removesuffix(f"-{self.created}")

    @property
    def name(self) -> str:
        """What pages call the project: its title, or its number where that isn't known."""
        return self.title or f"Project {self.id}"


class Task(Base):
    """A task, annotated or not."""

    __tablename__ = "tasks"
    project_id: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[int] = mapped_column(primary_key=True)
    data: Mapped[dict[str, Any]]
    deleted_at_revision: Mapped[int | None]  # the project's revision then; a late event doesn't restore the task
    rank: Mapped[int | None]  # its place among the tasks whose annotation would teach most; 0 is the first


class Annotation(Base):
    """One annotator's present result on a task."""

    __tablename__ = "annotations"
    project_id: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[int] = mapped_column(primary_key=True)
    task_id: Mapped[int]
    result: Mapped[list[Any]]
    updated_at: Mapped[str] = mapped_column(default="")  # Label Studio's
    ground_truth: Mapped[bool] = mapped_column(default=False)
    state: Mapped[AnnotationState] = mapped_column(default=AnnotationState.PRESENT)
    revision: Mapped[int] = mapped_column(default=0)  # the project's revision when this row last changed
    lead_time: Mapped[float | None]  # seconds that the annotator took, as Label Studio's page measured them
    origins: Mapped[dict[str, Any] | None]  # numbers of regions by where they come from (`annotations.origins`)
    __table_args__ = (sa.Index("ix_annotations_task", "project_id", "task_id", "state"),)


class Training(Base):
    """One training: its data, how it ended, and its model's scores."""

    __tablename__ = "trainings"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    project_id: Mapped[str]
    job_id: Mapped[str | None]  # the job that does or did it
    revision: Mapped[int]
    started_at: Mapped[datetime] = mapped_column(default=now)
    seconds: Mapped[float | None]
    annotated_tasks: Mapped[int] = mapped_column(default=0)
    status: Mapped[TrainingStatus] = mapped_column(default=TrainingStatus.RUNNING)
    model_version: Mapped[str | None]
    metrics: Mapped[dict[str, Any] | None]
    error: Mapped[str | None] = mapped_column(LongText)
    __table_args__ = (sa.Index("ix_trainings_project_id_status", "project_id", "status"),)


class ModelVersion(Base):
    """A published version of a model. Its file stays, so that it can become the present version again."""

    __tablename__ = "model_versions"
    project_id: Mapped[str] = mapped_column(primary_key=True)
    from_name: Mapped[str] = mapped_column(primary_key=True)  # the control tag
    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    file: Mapped[str]  # the file's name, a hash of its content
    metrics: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(default=now)


class PresentVersion(Base):
    """The version of a control tag's model that predicts. Publishing and rolling back change only this row."""

    __tablename__ = "present_versions"
    project_id: Mapped[str] = mapped_column(primary_key=True)
    from_name: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[int]


class Job(Base):
    """A unit of work. This table is the queue: workers look at it."""

    __tablename__ = "jobs"
    id: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[JobKind]
    queue: Mapped[QueueName]
    key: Mapped[str]  # at most one waiting job has this key: it would do the same work
    resource: Mapped[str]  # at most one running job has this resource
    project_id: Mapped[str]
    arguments: Mapped[dict[str, Any]]
    priority: Mapped[int] = mapped_column(default=0)
    status: Mapped[JobStatus] = mapped_column(default=JobStatus.QUEUED)
    progress: Mapped[float] = mapped_column(default=0.0)
    lease_owner: Mapped[str | None]  # the process that does the job
    lease_expires_at: Mapped[datetime | None]  # by the database's clock; renewed while the job runs
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    attempts: Mapped[int] = mapped_column(default=0)  # how often its owner died
    retries: Mapped[int] = mapped_column(default=0)  # how often it failed with a transient error
    due_at: Mapped[datetime | None]  # the earliest time to start
    created_at: Mapped[datetime] = mapped_column(default=now)
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    result: Mapped[dict[str, Any] | None]
    error: Mapped[str | None] = mapped_column(LongText)
    superseded_by: Mapped[str | None]  # the waiting job that does the work of this interrupted one
    __table_args__ = (
        sa.Index("uq_jobs_queued_key", "key", unique=True, **_where("queued")),
        sa.Index("uq_jobs_started_resource", "resource", unique=True, **_where("started")),
        sa.Index("ix_jobs_waiting", "queue", sa.text("priority DESC"), "created_at", **_where("queued")),
        sa.Index("ix_jobs_kind_status", "kind", "status"),
        sa.Index("ix_jobs_project_id_created_at", "project_id", "created_at"),
        sa.Index("ix_jobs_ended_at", "ended_at"),
    )

    @property
    def subject(self) -> str:
        """Kind, project and task of the job, for the log."""
        return f"{self.kind}, project {self.project_id}" + (
            f", task {self.task_id}" if self.task_id is not None else ""
        )

    @property
    def task_id(self) -> int | None:
        """The task of the job, None where it has none."""
        return self.arguments.get("task", {}).get("id")


class Worker(Base):
    """A worker process, and when it last reported, for `/health`."""

    __tablename__ = "workers"
    id: Mapped[str] = mapped_column(primary_key=True)
    seen_at: Mapped[datetime] = mapped_column(default=now)


class Value(Base):
    """A model's key and value in a project (`LabelStudioMLBase.set`)."""

    __tablename__ = "model_values"
    project_id: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str] = mapped_column(LongText)


class Note(Base):
    """A note for the user on a task's media or annotations, such as a frame rate other than the config's."""

    __tablename__ = "notes"
    project_id: Mapped[str] = mapped_column(primary_key=True)
    task_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    text: Mapped[str] = mapped_column(Text(300), primary_key=True)


class Prediction(Base):
    """The score and version of a task's latest prediction. Label Studio has the regions."""

    __tablename__ = "predictions"
    project_id: Mapped[str] = mapped_column(primary_key=True)
    task_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    score: Mapped[float | None]
    model_version: Mapped[str | None]
    predicted_at: Mapped[datetime] = mapped_column(default=now)
    answered_at: Mapped[datetime | None]  # when Label Studio got it as an answer; by the database's clock
    stored_at: Mapped[datetime | None]  # when the worker stored it in Label Studio; by the database's clock
    job_id: Mapped[str | None]  # the job that is storing it there; the others wait while that job runs


class Confirmation(Base):
    """A label's interval in a task that somebody looked at and found right, so that it isn't doubted again."""

    __tablename__ = "confirmations"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    project_id: Mapped[str]
    task_id: Mapped[int]
    control: Mapped[str]  # the control tag
    label: Mapped[str]
    start: Mapped[float]  # seconds
    stop: Mapped[float]
    drawn: Mapped[list[Any]]  # where the label was annotated then, seconds; of all annotations where these disagreed
    confirmed_at: Mapped[datetime] = mapped_column(default=now)
    __table_args__ = (sa.Index("ix_confirmations_project_id_task_id", "project_id", "task_id"),)
