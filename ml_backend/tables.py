"""The tables of the backend's state, and what each column means."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


def now() -> datetime:
    """The current time in UTC, without zone as the database keeps it."""
    return datetime.now(timezone.utc).replace(tzinfo=None)


class Base(DeclarativeBase):
    """The tables."""

    type_annotation_map = {dict[str, Any]: sa.JSON, list[Any]: sa.JSON}  # noqa: RUF012 (SQLAlchemy's interface)


class Project(Base):
    """A Label Studio project that this backend is connected to."""

    __tablename__ = "projects"
    id: Mapped[str] = mapped_column(primary_key=True)
    label_config: Mapped[str] = mapped_column(sa.Text, default="")
    hostname: Mapped[str | None]
    access_token: Mapped[str | None]
    revision: Mapped[int] = mapped_column(default=0)
    trained_revision: Mapped[int] = mapped_column(default=0)
    from_scratch: Mapped[bool] = mapped_column(default=False)  # the next training starts a new model
    last_event: Mapped[dict[str, Any] | None]  # {"event", "data"} of the latest webhook, for fit()
    retry_at: Mapped[datetime | None]  # a training that failed for a passing reason is tried again from then on
    created_at: Mapped[datetime] = mapped_column(default=now)


class Task(Base):
    """A task with at least one annotation."""

    __tablename__ = "tasks"
    project_id: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[int] = mapped_column(primary_key=True)
    data: Mapped[dict[str, Any]]


class Annotation(Base):
    """One annotator's present result on a task."""

    __tablename__ = "annotations"
    project_id: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[int] = mapped_column(primary_key=True)
    task_id: Mapped[int] = mapped_column(index=True)
    result: Mapped[list[Any]]
    updated_at: Mapped[str] = mapped_column(default="")


class Training(Base):
    """One training: what it used, how it ended, how good its model is."""

    __tablename__ = "trainings"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    project_id: Mapped[str] = mapped_column(index=True)
    revision: Mapped[int]
    started_at: Mapped[datetime] = mapped_column(default=now)
    seconds: Mapped[float | None]
    annotated_tasks: Mapped[int] = mapped_column(default=0)
    status: Mapped[str] = mapped_column(default="running")  # running, published, rejected, failed
    model_version: Mapped[str | None]
    metrics: Mapped[dict[str, Any] | None]
    error: Mapped[str | None] = mapped_column(sa.Text)


class Job(Base):
    """A unit of the worker's work. The queue's message holds its id alone; everything else stands here."""

    __tablename__ = "jobs"
    id: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]  # train or prepare
    key: Mapped[str] = mapped_column(index=True)  # jobs with one key do the same work
    project_id: Mapped[str]
    arguments: Mapped[dict[str, Any]]
    priority: Mapped[int] = mapped_column(default=0)
    status: Mapped[str] = mapped_column(default="queued", index=True)  # queued, started, finished, failed
    progress: Mapped[float] = mapped_column(default=0.0)
    worker: Mapped[str | None]
    attempts: Mapped[int] = mapped_column(default=0)  # how often a worker has begun it
    created_at: Mapped[datetime] = mapped_column(default=now)
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    result: Mapped[dict[str, Any] | None]
    error: Mapped[str | None] = mapped_column(sa.Text)


class Worker(Base):
    """A worker process and when it was last heard of."""

    __tablename__ = "workers"
    id: Mapped[str] = mapped_column(primary_key=True)
    seen_at: Mapped[datetime] = mapped_column(default=now)


class Value(Base):
    """A model's own key and value in a project (`LabelStudioMLBase.set`)."""

    __tablename__ = "model_values"
    project_id: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str] = mapped_column(sa.Text)


class Note(Base):
    """Something that a user should know about a task's media, such as a frame rate other than the config's."""

    __tablename__ = "notes"
    project_id: Mapped[str] = mapped_column(primary_key=True)
    task_id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str] = mapped_column(sa.String(300), primary_key=True)
