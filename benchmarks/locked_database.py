"""Holds the database's locks under a stream of annotations, and checks that nothing is lost.

    python -m benchmarks.locked_database --seconds 60 --database sqlite
    python -m benchmarks.locked_database --seconds 60 --database postgresql

Another program takes the write lock of the SQLite file, or locks every table of the PostgreSQL database, so that it can
be read and not written. What must hold: `/health` answers meanwhile, an annotation is refused with a sentence (503),
and afterwards everything goes on by itself, by the same checks as benchmarks/survival.py.
"""

from __future__ import annotations

import argparse
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psycopg

from benchmarks.survival import SETTLE_SECONDS, Stream, check, settled
from ml_backend.store.database import POSTGRES
from tests.postgres import running_postgres
from tests.servers import wait_until
from tests.stub import StubBackend

LOOK_SECONDS = 0.5
# Before and after: enough for some trainings.
RUN_SECONDS = 3.0
NEVER_SENT_AGAIN = 1_000_000  # id of an annotation


@contextmanager
def locked(database_url: str) -> Iterator[None]:
    """Another program that keeps all others from writing."""
    if not database_url.startswith(POSTGRES):
        other = sqlite3.connect(database_url.removeprefix("sqlite:///"), isolation_level=None, timeout=30)
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")
        other.close()
        return
    with psycopg.connect(database_url) as other:
        rows = other.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        other.execute(f"LOCK TABLE {', '.join(name for (name,) in rows)} IN EXCLUSIVE MODE")
        yield
        other.rollback()


def outlast(database_url: str, folder: Path, seconds: float) -> dict[str, object]:
    """Locks the database for so long, and checks.

    Returns:
        What was done and what was found, JSON.

    Raises:
        AssertionError: something was lost or is stuck, or wasn't said.
    """
    backend = StubBackend(folder, database_url, STUB_FIT_SECONDS="0.3")
    try:
        backend.start_web()
        backend.start_worker()
        backend.wait_for_web()
        backend.wait_for_worker()
        stream = Stream(backend).start()
        time.sleep(RUN_SECONDS)
        health = []
        with locked(database_url), ThreadPoolExecutor() as pool:
            refusal = pool.submit(backend.annotate, NEVER_SENT_AGAIN)
            acknowledged = sum(map(len, stream.acknowledged.values()))
            end = time.monotonic() + seconds
            while (started := time.monotonic()) < end:
                assert backend.http.get("/health").is_success
                health.append(time.monotonic() - started)
                time.sleep(LOOK_SECONDS)
        time.sleep(RUN_SECONDS)
        stream.stop()
        started = time.monotonic()
        wait_until(lambda: settled(backend), SETTLE_SECONDS, f"the work to end, see {backend.log}")
        settling = time.monotonic() - started
        found = check(backend, stream)
        answer = refusal.result()
        assert set(stream.refused) == {str(answer.status_code)} == {"503"}, stream.refused
        assert "nothing was stored" in answer.json()["error"]
        assert found["annotations acknowledged"] > acknowledged > 0
        return found | {
            "error": answer.json()["error"],
            "longest /health": f"{max(health):.2f} s",
            "seconds to settle": round(settling, 1),
        }
    finally:
        backend.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--database", choices=["sqlite", "postgresql"], default="sqlite")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if arguments.database == "sqlite":
            found = outlast(f"sqlite:///{folder / 'state.db'}", folder, arguments.seconds)
        else:
            with running_postgres() as server:
                found = outlast(server.new_database(), folder, arguments.seconds)
    for name, value in found.items():
        print(f"{name}: {value}")


if __name__ == "__main__":
    main()
