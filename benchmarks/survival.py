"""Kills processes at random moments under a stream of annotations, and checks that nothing is lost.

    python -m benchmarks.survival --rounds 50 --database sqlite
    python -m benchmarks.survival --rounds 50 --database postgresql
    python -m benchmarks.survival --rounds 20 --database sqlite --predictions

Each round kills (SIGKILL) the worker, the web server, both, or, on PostgreSQL, the server process behind one of their
connections, which makes PostgreSQL close all connections and recover. What must hold at the end: every annotation that
was acknowledged is stored; every project's model has learnt exactly the stored annotations; each model file can be
read; no job waits or runs; no training is left running. The model waits instead of computing (stub_backend.py).

With --predictions, two workers store predictions in a stand-in for Label Studio, which also asks for them, while models
are published and one worker after the other is killed. At the end each task must have one of the present version.
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
from abc import ABC, abstractmethod
from collections import Counter
from pathlib import Path
from typing import TypeVar

import httpx
import psycopg

from benchmarks.stub_backend import FROM_NAME
from ml_backend.store.tables import LIVE, JobStatus, TrainingStatus
from tests.postgres import running_postgres
from tests.servers import wait_until
from tests.stand_in import StandIn
from tests.stub import StubBackend

PROJECTS = ("1", "2", "3")
# How long after a restart the next process is killed, at most.
ROUND_SECONDS = 2.0
SUBMIT_SECONDS = 0.05
SETTLE_SECONDS = 180
# In a stand-in for Label Studio; how long it takes to store a prediction, at most.
TASKS, STORING_SECONDS = 40, 0.1

Started = TypeVar("Started", bound="Background")


class Background(ABC):
    """Does something in a thread of its own until it is stopped."""

    def __init__(self) -> None:
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @abstractmethod
    def _run(self) -> None: ...

    def start(self: Started) -> Started:
        self._thread.start()
        return self

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()


class Stream(Background):
    """Submits annotations until it is stopped; each again until it is acknowledged, as an annotator would.

    Attributes:
        acknowledged: project -> ids of the annotations that were answered 2xx.
        refused: the other answers, by status, and lost connections.
    """

    def __init__(self, backend: StubBackend) -> None:
        self._backend = backend
        super().__init__()
        self.acknowledged: dict[str, set[int]] = {project: set() for project in PROJECTS}
        self.refused: Counter[str] = Counter()

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


class Annotator(Background):
    """Opens tasks in Label Studio until it is stopped. Label Studio asks for a prediction where it has none of the
    present version, and stores the answer."""

    def __init__(self, backend: StubBackend, label_studio: StandIn, seed: int) -> None:
        self._backend, self._label_studio = backend, label_studio
        self._random = random.Random(seed)
        super().__init__()
        self.answers: Counter[str] = Counter()

    def _run(self) -> None:
        while not self._stopped.wait(SUBMIT_SECONDS):
            number = self._random.choice(list(self._label_studio.tasks))
            task = {"id": number, "data": self._label_studio.tasks[number]}
            with self._label_studio.lock:
                known = self._label_studio.versions().get(number, [])
            if present_version(self._backend) in known:
                self.answers["not asked"] += 1
                continue
            asked = {"tasks": [task], "project": "1", "params": {"login": None, "password": None, "context": None}}
            try:
                answer = self._backend.http.post("/predict", json=asked)
            except httpx.HTTPError as error:
                self.answers[type(error).__name__] += 1
                continue
            self.answers[str(answer.status_code)] += 1
            if answer.is_success:
                with self._label_studio.lock:
                    self._label_studio.save(answer.json()["results"][0] | {"task": number})


def present_version(backend: StubBackend) -> str:
    """The version that the backend's model has now."""
    present = backend.store.present_version("1", FROM_NAME)
    return f"stub-v{present.version}" if present else "untrained"


def store_predictions(database_url: str, folder: Path, rounds: int, seed: int = 0) -> dict[str, object]:
    """Runs the rounds with predictions and checks. Returns and raises as `survive`."""
    random.seed(seed)
    label_studio = StandIn(TASKS)
    label_studio.after_saving = lambda count: time.sleep(random.uniform(0, STORING_SECONDS))
    for number in range(1, TASKS, 2):
        label_studio.tasks[number]["slow"] = "yes"
    address = {"LABEL_STUDIO_URL": label_studio.url, "LABEL_STUDIO_API_KEY": "0" * 40}
    waits = {"STUB_PREPARE_SECONDS": "0.3", "STUB_FIT_SECONDS": "0.3", "PREDICT_TIMEOUT": "0.1"}
    backend = StubBackend(folder, database_url, STUB_PREDICT_AHEAD=str(TASKS), **address, **waits)
    try:
        backend.start_web()
        workers = [backend.start_worker() for _ in range(2)]
        backend.wait_for_web()
        annotator = None
        for number in range(rounds):
            backend.annotate(TASKS + 1 + number)
            wait_until(lambda: present_version(backend) != "untrained", SETTLE_SECONDS, f"a model, see {backend.log}")
            annotator = annotator or Annotator(backend, label_studio, seed).start()
            time.sleep(random.uniform(0, ROUND_SECONDS))
            backend.kill(workers.pop(0))
            workers.append(backend.start_worker())
        annotator.stop()
        started = time.monotonic()
        wait_until(lambda: settled(backend), SETTLE_SECONDS, f"the work to end, see {backend.log}")
        versions, present = label_studio.versions(), present_version(backend)
        wrong = {
            task: versions.get(task, []) for task in label_studio.tasks if versions.get(task, []).count(present) != 1
        }
        assert not wrong, f"tasks without one prediction of {present}: {wrong}"
        stored = [version for found in versions.values() for version in found]
        return {
            "kills": rounds,
            "predictions": len(stored),
            "of an earlier version": len(stored) - stored.count(present),
            "answers": dict(annotator.answers),
            "seconds to settle": round(time.monotonic() - started, 1),
        }
    finally:
        backend.stop()
        label_studio.http.shutdown()


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
    parser.add_argument("--predictions", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    run = store_predictions if arguments.predictions else survive
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if arguments.database == "sqlite":
            found = run(f"sqlite:///{folder / 'state.db'}", folder, arguments.rounds, arguments.seed)
        else:
            with running_postgres() as server:
                found = run(server.new_database(), folder, arguments.rounds, arguments.seed)
    for name, value in found.items():
        print(f"{name}: {value}")


if __name__ == "__main__":
    main()
