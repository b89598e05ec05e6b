"""One SQL database for all of the backend's processes: SQLite in a file, or PostgreSQL.

`Database` opens it, brings its schema up to date, and gives transactions; the tables are in `tables.py`.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
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

from errors import DatabaseUnavailable, InvalidRequest
from ml_backend import strict_json
from ml_backend.tables import now

logger = logging.getLogger(__name__)

MIGRATIONS = Path(__file__).with_name("migrations")
FIRST_VERSION = "0001"  # of the schema that had no version yet
# SQLite lets one connection write at a time, and another program may hold PostgreSQL's tables; who waits for a lock
# fails after so long.
LOCK_SECONDS = 20
# Any number that no other program on the same PostgreSQL database locks with.
ADVISORY_LOCK = 0x71AE11AE
POSTGRES = "postgresql"


def parse_url(database_url: str) -> sa.URL:
    """The URL of a supported database, with the driver that is used for it.

    Raises:
        ValueError: it is of another kind.
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
            # While another process makes the file, this fails at once in spite of the timeout.
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.05)
    connection.execute("PRAGMA synchronous=FULL")  # what was answered 201 survives a power cut


def _configure_postgres(connection: psycopg.Connection, _record: Any) -> None:
    connection.execute(f"SET lock_timeout = '{LOCK_SECONDS}s'")
    connection.commit()


class Database:
    """A database with the schema of this release. Threads share one object, processes the database.

    Args:
        database_url: `sqlite:///FILE` or `postgresql://USER@HOST/NAME`. The schema is made or brought up to date.

    Raises:
        ValueError: another kind of database.
        DatabaseUnavailable: it can't be opened or written.
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
        """A transaction that writes; committed at the end.

        Raises:
            DatabaseUnavailable: it is locked, full, read-only or gone; nothing was written.
        """
        with _explained(), self._sessions.begin() as session:
            if self.is_sqlite:
                # Take the write lock first: a read that later turns into a write fails at once where another writer
                # came between.
                session.execute(sa.text("BEGIN IMMEDIATE"))
            yield session

    @contextmanager
    def _reading(self) -> Iterator[Session]:
        """A session that only reads.

        Raises:
            DatabaseUnavailable: it is gone.
        """
        with _explained(), self._sessions() as session:
            yield session

    def _now(self, session: Session) -> datetime:
        """The time in UTC by the clock that all processes share: the server's, or this machine's where the database is
        a file on it."""
        if self.is_sqlite:
            return now()
        return session.scalar(sa.select(sa.func.timezone("UTC", sa.func.clock_timestamp())))

    # -- the schema

    @contextmanager
    def locked(self) -> Iterator[sa.Connection]:
        """A transaction that only one process at a time is in: all start together, and one makes the tables."""
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
        latest = ScriptDirectory.from_config(config).get_current_head()
        with self.engine.connect() as connection:
            if _version(connection) == latest:
                return
        with self.locked() as connection:
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
    """Turns errors of the database, and values that no database takes, into a sentence."""
    try:
        yield
    except (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.TimeoutError) as error:
        reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        raise DatabaseUnavailable(
            f"The backend's database can't be used now ({reason}): nothing was stored. Is its disk full, its folder "
            "read-only, or does another program hold it? Send the request again when that is mended."
        ) from error
    except (sa.exc.DataError, OverflowError, UnicodeEncodeError) as error:
        raise InvalidRequest(
            "A number or a text of this request can't be stored: a number beyond 64 bits, NUL, or half a character."
        ) from error
