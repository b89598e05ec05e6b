"""Huey's queues beside the state: their messages wake workers and say nothing else."""

from __future__ import annotations

import logging

from huey import Huey, PostgresHuey, SqliteHuey

from ml_backend.database import POSTGRES, Database
from ml_backend.tables import QueueName

logger = logging.getLogger(__name__)

Queues = dict[QueueName, Huey]


def open_queues(database: Database) -> Queues:
    """The queues of a database: on PostgreSQL in tables of its own there, for SQLite in a file beside it, since its
    consumers poll with exclusive transactions."""
    url = database.engine.url
    if database.is_sqlite:
        # fsync as SQLite does by default: without, a power cut could leave a file that no worker can read.
        return {name: SqliteHuey(name.value, filename=f"{url.database}.queue", results=False) for name in QueueName}
    dsn = url.set(drivername=POSTGRES).render_as_string(hide_password=False)
    with database.locked():  # all processes start together, and CREATE TABLE IF NOT EXISTS isn't safe then
        return {name: PostgresHuey(name.value, dsn=dsn, results=False) for name in QueueName}
