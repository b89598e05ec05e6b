"""The table of jobs is the queue: what Huey kept beside it, messages that only woke workers, goes."""

from pathlib import Path

from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    url = op.get_bind().engine.url
    if url.get_backend_name() == "sqlite":
        for suffix in ("", "-wal", "-shm"):
            Path(f"{url.database}.queue{suffix}").unlink(missing_ok=True)
    else:
        for table in ("kv", "schedule", "task", "counter"):
            op.execute(f"DROP TABLE IF EXISTS huey_{table}")
