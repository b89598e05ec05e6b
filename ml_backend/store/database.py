"""The SQL database that all of the backend's processes share: a SQLite file, or PostgreSQL.

`Database` opens it, migrates its schema, and gives transactions. The tables are in `tables.py`.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.orm import Session, sessionmaker

from errors import BackendError, DatabaseUnavailable, InvalidRequest
from ml_backend import strict_json
from ml_backend.store.tables import now

logger = logging.getLogger(__name__)

MIGRATIONS = Path(__file__).with_name("migrations")
FIRST_VERSION = "0001"  # of a schema that has tables but no version
# A wait for a lock fails after this time: SQLite lets one connection write at a time, and another program may hold
# PostgreSQL's tables.
LOCK_SECONDS = 20
# An arbitrary number that no other program on the same PostgreSQL database uses for a lock.
ADVISORY_LOCK = 0x71AE11AE
POSTGRES = "postgresql"


def parse_url(database_url: str) -> sa.URL:
    """The URL of a supported database, with the driver that is used for it.

    Raises:
        ValueError: the database is of another kind.
    """
    url = sa.make_url(database_url)
    kind = url.get_backend_name()
    if kind == "sqlite":
        return url
    if kind in (POSTGRES, "postgres"):
        return url.set(drivername=f"{POSTGRES}+psycopg")
    raise ValueError(f"DATABASE_URL={kind}:… isn't supported: use sqlite:///FILE or postgresql://USER@HOST/NAME.")


def _configure_sqlite(connection: sqlite3.Connection, _record: Any) -> None:
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")  # readers and the writer don't wait for each other
            break
        except sqlite3.OperationalError as error:
            # While another process creates the file, this fails at once in spite of the timeout.
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.05)
    connection.execute("PRAGMA synchronous=FULL")  # what was answered 201 survives a power cut


def _configure_postgres(connection: psycopg.Connection, _record: Any) -> None:
    connection.execute(f"SET lock_timeout = '{LOCK_SECONDS}s'")
    connection.commit()


class Database:
    """A database with the schema of this release. Threads share one object; processes share the database.

    Args:
        database_url: `sqlite:///FILE` or `postgresql://USER@HOST/NAME`. The schema is created or migrated.

    Raises:
        ValueError: the database is of another kind.
        DatabaseUnavailable: the database can't be opened or written.
        BackendError: a later release migrated it.
    """

    def __init__(self, database_url: str) -> None:
        url = parse_url(database_url)
        self.is_sqlite = url.get_backend_name() == "sqlite"
        options = {"connect_args": {"timeout": LOCK_SECONDS}} if self.is_sqlite else {"pool_pre_ping": True}
        self.engine = sa.create_engine(url, json_serializer=strict_json.dumps, **options)
        sa.event.listen(self.engine, "connect", _configure_sqlite if self.is_sqlite else _configure_postgres)
        self._sessions = sessionmaker(self.engine, expire_on_commit=False)
        with _explained():
            self._migrate()

    def close(self) -> None:
        """Closes the connections."""
        self.engine.dispose()

    @contextmanager
    def _transaction(self) -> Iterator[Session]:
        """Opens a transaction that writes, and commits it at the end.

        Raises:
            DatabaseUnavailable: the database is locked, full, read-only or unreachable; nothing was written.
        """
        with self._explained(), self._sessions.begin() as session:
            if self.is_sqlite:
                # The write lock is taken first: a transaction that reads and then writes fails at once where another
                # one wrote in between.
                session.execute(sa.text("BEGIN IMMEDIATE"))
            yield session

    @contextmanager
    def _reading(self) -> Iterator[Session]:
        """Opens a session that only reads.

        Raises:
            DatabaseUnavailable: the database is unreachable.
        """
        with self._explained(), self._sessions() as session:
            yield session

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """As the function of this name, and says where a later release has changed the schema since the start."""
        # SQLite's error for a missing column is that of a database that can't be used.
        errors = (sa.exc.IntegrityError, sa.exc.ProgrammingError, *[DatabaseUnavailable] * self.is_sqlite)
        try:
            with _explained():
                yield
        except errors as error:
            with suppress(sa.exc.SQLAlchemyError), self.engine.connect() as connection:
                version = _version(connection)
                if version != self._schema:
                    raise DatabaseUnavailable(
                        f"A later release has changed the backend's database: its schema is {version}, and this "
                        f"process's {self._schema}. Nothing was stored. End the processes of the earlier release."
                    ) from error
            raise

    def _now(self) -> datetime | sa.ColumnElement[datetime]:
        """The time in UTC by the clock that all processes share: PostgreSQL's, as an expression, or this machine's with
        SQLite."""
        return now() if self.is_sqlite else sa.func.timezone("UTC", sa.func.clock_timestamp(), type_=sa.DateTime)

    # -- the schema

    @contextmanager
    def _locked(self) -> Iterator[sa.Connection]:
        """Opens a transaction that one process has at a time, so that only one of several starting ones migrates."""
        with self.engine.connect() as connection:
            if self.is_sqlite:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            else:
                connection.exec_driver_sql("SET LOCAL lock_timeout = 0")  # a migration may take long
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(ADVISORY_LOCK)))
            yield connection
            connection.commit()

    def _migrate(self) -> None:
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        versions = ScriptDirectory.from_config(config)
        latest = self._schema = versions.get_current_head()
        with self.engine.connect() as connection:
            version = _version(connection)
        if version == latest:
            return
        if version is not None and version not in {one.revision for one in versions.walk_revisions()}:
            raise BackendError(
                f"The backend's database is of a later release: its schema is {version}, and this release's {latest}. "
                "Start the later release, or restore the copy of the database that was made before the upgrade."
            )
        with self._locked() as connection:
            version = _version(connection)
            if version == latest:  # another process was first
                return
            config.attributes["connection"] = connection
            if version is None and sa.inspect(connection).has_table("projects"):
                command.stamp(config, version := FIRST_VERSION)
            command.upgrade(config, "head")
        logger.info("The database's schema was brought from version %s to %s", version or "none", latest)


def _version(connection: sa.Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


@contextmanager
def _explained() -> Iterator[None]:
    """Turns the database's errors into DatabaseUnavailable, and values that it can't store into InvalidRequest."""
    try:
        yield
    except (sa.exc.DataError, OverflowError, UnicodeEncodeError) as error:
        raise InvalidRequest(
            "The request has a number beyond 64 bits, NUL, or half a character, which can't be stored."
        ) from error
    except (sa.exc.IntegrityError, sa.exc.ProgrammingError, sa.exc.InternalError, sa.exc.NotSupportedError):
        raise  # of this program, not of the database
    except (sa.exc.DatabaseError, sa.exc.InterfaceError, sa.exc.TimeoutError) as error:
        reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        raise DatabaseUnavailable(
            f"The backend's database can't be used now ({reason}), and nothing was stored. Check whether its disk is "
            "full, its folder is read-only, or another program holds it; then send the request again."
        ) from error
