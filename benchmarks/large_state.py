"""How long `/webhook` and `/metrics` take with much in the store.

    python -m benchmarks.large_state --database sqlite
    python -m benchmarks.large_state --database postgresql

100,000 annotations in one project and 50,000 ended jobs are written; then 300 annotations are submitted and the metrics
asked for 100 times, one request after the other, against one web process and no worker.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import sqlalchemy as sa

from benchmarks.stub_backend import CONFIG
from ml_backend.store.tables import Annotation, Job, JobKind, JobStatus, QueueName, Task
from tests.postgres import running_postgres
from tests.stub import StubBackend

ANNOTATIONS = 100_000
ENDED_JOBS = 50_000
ROWS_PER_STATEMENT = 5000
REGIONS = [{"value": {"ranges": [{"start": n, "end": n + 9}], "timelinelabels": ["A"]}} for n in range(1, 100, 20)]


def fill(backend: StubBackend) -> None:
    """Writes the rows."""
    store = backend.store
    store.update_project("1", CONFIG)
    tasks = [{"project_id": "1", "id": n, "data": {"text": "a"}} for n in range(ANNOTATIONS)]
    annotations = [
        {"project_id": "1", "id": n, "task_id": n, "result": REGIONS, "updated_at": "2026-11-22T09:00:00Z"}
        for n in range(ANNOTATIONS)
    ]
    job = {"kind": JobKind.EXTRACT, "queue": QueueName.EXTRACT, "project_id": "1", "status": JobStatus.FINISHED}
    job |= {"arguments": {"task": {"id": 1, "data": {"text": "a"}}}}
    jobs = [job | {"id": str(n), "key": f"extract:1:{n}", "resource": f"task:1:{n}"} for n in range(ENDED_JOBS)]
    with store.engine.begin() as connection:
        for table, rows in ((Task, tasks), (Annotation, annotations), (Job, jobs)):
            for begin in range(0, len(rows), ROWS_PER_STATEMENT):
                connection.execute(sa.insert(table), rows[begin : begin + ROWS_PER_STATEMENT])
        if not store.is_sqlite:
            connection.execute(sa.text("ANALYZE"))


def times(ask: Callable[[int], httpx.Response], count: int) -> np.ndarray:
    """Milliseconds of each request."""
    milliseconds = []
    for number in range(count):
        started = time.perf_counter()
        answer = ask(number)
        milliseconds.append((time.perf_counter() - started) * 1000)
        assert answer.is_success, answer.text
    return np.array(milliseconds)


def measure(database_url: str, folder: Path) -> None:
    """Prints the percentiles."""
    backend = StubBackend(folder, database_url)
    try:
        fill(backend)
        backend.start_web()
        backend.wait_for_web()
        routes = {
            "/webhook": times(lambda number: backend.annotate(ANNOTATIONS // 2 + number), 300),
            "/metrics": times(lambda _: backend.http.get("/metrics"), 100),
        }
        for route, milliseconds in routes.items():
            shown = ", ".join(f"p{p} {np.percentile(milliseconds, p):.0f} ms" for p in (50, 99))
            print(f"{route}: {shown}, longest {milliseconds.max():.0f} ms")
    finally:
        backend.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", choices=["sqlite", "postgresql"], default="sqlite")
    database = parser.parse_args().database
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if database == "sqlite":
            measure(f"sqlite:///{folder / 'state.db'}", folder)
            return
        with running_postgres() as server:
            measure(server.new_database(), folder)


if __name__ == "__main__":
    main()
