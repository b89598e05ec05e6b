"""Leases, tombstones and published versions; ids of 64 bits."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

# The queue of each kind of job that was there before.
QUEUES = {"train": "train", "prepare": "extract", "prepare_many": "extract", "deliver": "extract"}
BIG_INTEGERS = {
    "projects": ("revision", "trained_revision"),
    "tasks": ("id",),
    "annotations": ("id", "task_id"),
    "trainings": ("id", "revision", "annotated_tasks"),
    "jobs": ("priority", "attempts"),
    "notes": ("task_id",),
}


def upgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":  # SQLite's integers have 64 bits
        for table, columns in BIG_INTEGERS.items():
            for column in columns:
                op.alter_column(table, column, type_=sa.BigInteger)
    _projects()
    _annotations()
    _trainings()
    _model_versions()
    _jobs()


def _projects() -> None:
    projects = sa.table("projects", sa.column("id"), sa.column("last_event", sa.JSON))
    events = op.get_bind().execute(sa.select(projects.c.id, projects.c.last_event)).all()
    op.drop_column("projects", "last_event")
    op.add_column("projects", sa.Column("last_event", sa.String))
    op.add_column("projects", sa.Column("last_annotation_id", sa.BigInteger))
    op.add_column("projects", sa.Column("retries", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("projects", sa.Column("reconciled_at", sa.DateTime))
    # A project that waited for annotations that couldn't be fetched trains on those that are stored.
    op.drop_column("projects", "from_scratch")
    projects = sa.table("projects", sa.column("id"), sa.column("last_event"), sa.column("last_annotation_id"))
    for project_id, event in events:
        if event:
            annotation = event["data"].get("annotation") or {}
            values = {"last_event": event["event"], "last_annotation_id": annotation.get("id")}
            op.execute(projects.update().where(projects.c.id == project_id).values(values))


def _annotations() -> None:
    op.add_column("tasks", sa.Column("deleted_at_revision", sa.BigInteger))
    op.add_column("annotations", sa.Column("state", sa.String(32), nullable=False, server_default="present"))
    op.add_column("annotations", sa.Column("revision", sa.BigInteger, nullable=False, server_default="0"))
    op.drop_index("ix_annotations_task_id", "annotations")
    op.create_index("ix_annotations_task", "annotations", ["project_id", "task_id", "state"])


def _trainings() -> None:
    op.add_column("trainings", sa.Column("job_id", sa.String))
    # No process of the former release goes on.
    op.execute("UPDATE trainings SET status = 'interrupted' WHERE status = 'running'")
    op.drop_index("ix_trainings_project_id", "trainings")
    op.create_index("ix_trainings_project_id_status", "trainings", ["project_id", "status"])


def _model_versions() -> None:
    op.create_table(
        "model_versions",
        sa.Column("project_id", sa.String, primary_key=True),
        sa.Column("from_name", sa.String, primary_key=True),
        sa.Column("version", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("file", sa.String, nullable=False),
        sa.Column("metrics", sa.JSON, nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False),
    )
    op.create_table(
        "present_versions",
        sa.Column("project_id", sa.String, primary_key=True),
        sa.Column("from_name", sa.String, primary_key=True),
        sa.Column("version", sa.BigInteger, nullable=False),
    )


def _jobs() -> None:
    op.drop_column("jobs", "worker")
    op.add_column("jobs", sa.Column("queue", sa.String(32), nullable=False, server_default="extract"))
    op.add_column("jobs", sa.Column("resource", sa.String, nullable=False, server_default=""))
    op.add_column("jobs", sa.Column("lease_owner", sa.String))
    op.add_column("jobs", sa.Column("lease_expires_at", sa.DateTime))
    op.add_column("jobs", sa.Column("cancel_requested", sa.Boolean, nullable=False, server_default=sa.false()))
    op.add_column("jobs", sa.Column("retries", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("jobs", sa.Column("due_at", sa.DateTime))
    op.add_column("jobs", sa.Column("superseded_by", sa.String))
    jobs = sa.table("jobs", *map(sa.column, ("id", "kind", "key", "status", "queue", "resource", "attempts")))
    for kind, queue in QUEUES.items():
        op.execute(jobs.update().where(jobs.c.kind == kind).values(queue=queue))
    seen: set[str] = set()
    live = sa.select(jobs.c.id, jobs.c.kind, jobs.c.key).where(jobs.c.status.in_(("queued", "started")))
    for job_id, kind, key in op.get_bind().execute(live).all():
        row = jobs.c.id == job_id
        if key in seen:  # one that was running while the next waited
            op.execute(jobs.delete().where(row))
            continue
        seen.add(key)
        name = "project" if kind == "train" else "task"
        resource = f"{name}:{key.partition(':')[2]}"
        op.execute(jobs.update().where(row).values(status="queued", resource=resource, attempts=0))
    op.drop_index("ix_jobs_key", "jobs")
    op.drop_index("ix_jobs_status", "jobs")
    queued, started = sa.text("status = 'queued'"), sa.text("status = 'started'")
    where = {"sqlite_where": queued, "postgresql_where": queued}
    op.create_index("uq_jobs_queued_key", "jobs", ["key"], unique=True, **where)
    op.create_index("ix_jobs_waiting", "jobs", ["queue", sa.text("priority DESC"), "created_at"], **where)
    op.create_index(
        "uq_jobs_started_resource", "jobs", ["resource"], unique=True, sqlite_where=started, postgresql_where=started
    )
    op.create_index("ix_jobs_kind_status", "jobs", ["kind", "status"])
    op.create_index("ix_jobs_project_id_created_at", "jobs", ["project_id", "created_at"])
    op.create_index("ix_jobs_ended_at", "jobs", ["ended_at"])
