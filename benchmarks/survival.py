"""Kills processes at random moments under a stream of annotations, and checks that nothing is lost.

    python -m benchmarks.survival --rounds 50 --database sqlite
    python -m benchmarks.survival --rounds 50 --database postgresql

Each round kills (SIGKILL) the worker, the web server, both, or, on PostgreSQL, the server process behind one of their
connections, which makes PostgreSQL close all connections and recover. What must hold at the end: every annotation that
was acknowledged is stored; every project's model has learnt exactly the stored annotations; each model file can be
read; no job waits or runs; no training is left running. The model waits instead of computing (stub_backend.py).
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import signal
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import httpx
import psycopg

from benchmarks.stub_backend import FROM_NAME
from ml_backend.store.tables import LIVE, JobStatus, TrainingStatus
from tests.postgres import running_postgres
from tests.servers import wait_until
from tests.stub import StubBackend

PROJECTS = ("1", "2", "3")
# How long after a restart the next process is killed, at most.
ROUND_SECONDS = 2.0
SUBMIT_SECONDS = 0.05
SETTLE_SECONDS = 180


class Stream:
    """Submits annotations until it is stopped; each again until it is acknowledged, as an annotator would.

    Attributes:
        acknowledged: project -> ids of the annotations that were answered 2xx.
        refused: the other answers, by status, and lost connections.
    """

    def __init__(self, backend: StubBackend) -> None:
        self._backend = backend
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.acknowledged: dict[str, set[int]] = {project: set() for project in PROJECTS}
        self.refused: Counter[str] = Counter()

    def start(self) -> Stream:
        self._thread.start()
        return self

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        for number in itertools.count(1):
            project = PROJECTS[number % len(PROJECTS)]
            while not self._submit(number, project):
                time.sleep(0.2)
            if self._stopped.wait(SUBMIT_SECONDS):
                return

    def _submit(self, number: int, project: str) -> bool:
        try:
            answer = self._backend.annotate(number, int(project))
        except httpx.HTTPError as error:
            self.refused[type(error).__name__] += 1
            return False
        if answer.is_success:
            self.acknowledged[project].add(number)
        else:
            self.refused[str(answer.status_code)] += 1
        return answer.is_success


def kill_connection(database_url: str) -> None:
    """Kills the server process behind one of the backend's connections."""
    with psycopg.connect(database_url) as connection:
        own = connection.execute("SELECT pg_backend_pid()").fetchone()[0]
        rows = connection.execute(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> %s", [own]
        ).fetchall()
    if rows:
        os.kill(random.choice(rows)[0], signal.SIGKILL)


def survive(database_url: str, folder: Path, rounds: int, seed: int = 0) -> dict[str, object]:
    """Runs the rounds and checks.

    Returns:
        What was done and what was found, JSON.

    Raises:
        AssertionError: something was lost or is stuck.
    """
    random.seed(seed)
    backend = StubBackend(folder, database_url, STUB_FIT_SECONDS="0.3")
    try:
        web, worker = backend.start_web(), backend.start_worker()
        backend.wait_for_web()
        backend.wait_for_worker()
        stream = Stream(backend).start()
        victims = ["worker", "web", "both"] + ["connection"] * database_url.startswith("postgresql")
        kills: Counter[str] = Counter()
        for number in range(rounds):
            time.sleep(random.uniform(0, ROUND_SECONDS))
            victim = victims[number % len(victims)]
            kills[victim] += 1
            if victim == "connection":
                kill_connection(database_url)
            if victim in ("web", "both"):
                backend.kill(web)
                web = backend.start_web()
            if victim in ("worker", "both"):
                backend.kill(worker)
                worker = backend.start_worker()
            backend.wait_for_web()
            owner = f":{worker.pid}:"
            wait_until(lambda o=owner: any(o in w for w in live_workers(backend)), 120, "the worker")
        stream.stop()
        started = time.monotonic()
        wait_until(lambda: settled(backend), SETTLE_SECONDS, f"the work to end, see {backend.log}")
        settling = time.monotonic() - started
        return check(backend, stream) | {"kills": dict(kills), "seconds to settle": round(settling, 1)}
    finally:
        backend.stop()


def live_workers(backend: StubBackend) -> list[str]:
    """The workers that are alive; none while the database recovers."""
    try:
        return backend.store.live_workers()
    except Exception:
        return []


def settled(backend: StubBackend) -> bool:
    """Whether nothing is to be done any more."""
    return not backend.store.projects_behind() and not any(backend.store.count_jobs(status) for status in LIVE)


def check(backend: StubBackend, stream: Stream) -> dict[str, object]:
    """Compares what was acknowledged, stored and learnt."""
    store = backend.store
    for project, acknowledged in stream.acknowledged.items():
        stored = {a["id"]: a["result"] for task in store.annotated_tasks(project) for a in task["annotations"]}
        lost = acknowledged - stored.keys()
        assert not lost, f"project {project}: {len(lost)} acknowledged annotations aren't stored"
        present = store.present_version(project, FROM_NAME)
        learnt = backend.read_model(present.file)
        assert learnt == {str(id_): result for id_, result in stored.items()}, f"project {project}: the model is behind"
        for version in store.versions(project):
            backend.read_model(version.file)
    statuses = Counter(t.status.value for project in PROJECTS for t in store.trainings(project))
    assert TrainingStatus.RUNNING not in statuses, statuses
    ended = {status.value: store.count_jobs(status) for status in JobStatus if store.count_jobs(status)}
    return {
        "annotations acknowledged": sum(map(len, stream.acknowledged.values())),
        "refused and sent again": dict(stream.refused),
        "trainings": dict(statuses),
        "jobs": ended,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--database", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if arguments.database == "sqlite":
            found = survive(f"sqlite:///{folder / 'state.db'}", folder, arguments.rounds, arguments.seed)
        else:
            with running_postgres() as server:
                found = survive(server.new_database(), folder, arguments.rounds, arguments.seed)
    for name, value in found.items():
        print(f"{name}: {value}")


if __name__ == "__main__":
    main()
