"""Half a day's work in minutes: do memory, handles, threads, database, cache and latency stay as they are?

    python -m benchmarks.soak [--database sqlite postgresql] [--seconds 240] [--plot FILE]

Data: 20 projects of 20 tasks, real web and worker processes around a model that waits instead of computing
(stub_backend.py): 2,000 annotations, of each task one and then its edits, 500 predictions, 100 changes of a config,
spread evenly over the time in a seeded order.
Rule: once a second the anonymous memory, open files and threads of all processes together, and the sizes of database
and cache. The second quarter of the time, when everything was made once, is compared with the last: medians.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import sqlalchemy as sa

from benchmarks.stub_backend import CONFIG
from tests.postgres import running_postgres
from tests.stub import StubBackend

PROJECTS, TASKS = 20, 20
ANNOTATIONS, PREDICTIONS, CONFIGS = 2000, 500, 100
SAMPLE_SECONDS = 1.0
SENDERS = 3  # annotators at once
QUANTITIES = ("memory MB", "open files", "threads", "database MB", "cache files", "jobs waiting")


class Soak:
    """The work, and what is sampled meanwhile.

    Args:
        backend: running.
        seconds: in which the work is spread.
    """

    def __init__(self, backend: StubBackend, seconds: float) -> None:
        self._backend, self._seconds = backend, seconds
        self.samples: list[tuple[float, ...]] = []  # seconds, and as QUANTITIES
        self.latencies: list[tuple[float, str, float]] = []  # seconds, route, milliseconds
        self.refused: list[str] = []
        self._configs = [CONFIG] * PROJECTS
        self._edits = [[0] * TASKS for _ in range(PROJECTS)]
        self._lock = threading.Lock()
        self._done = threading.Event()

    def run(self) -> None:
        """Does the work, and waits until the worker has caught up."""
        work: list[Callable[[random.Random], None]] = [self._annotate] * ANNOTATIONS
        work += [self._predict] * PREDICTIONS + [self._change_config] * CONFIGS
        order = random.Random(0)
        order.shuffle(work)
        self._started = time.monotonic()
        sampler = threading.Thread(target=self._sample)
        sampler.start()
        senders = [threading.Thread(target=self._send, args=(work, number)) for number in range(SENDERS)]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()
        deadline = time.monotonic() + self._seconds
        while self._waiting() and time.monotonic() < deadline:
            time.sleep(SAMPLE_SECONDS)
        self._done.set()
        sampler.join()

    def _send(self, work: list[Callable[[random.Random], None]], number: int) -> None:
        chance = random.Random(number)
        for index in range(number, len(work), SENDERS):
            wait = self._started + index * self._seconds / len(work) - time.monotonic()
            time.sleep(max(0.0, wait))
            work[index](chance)

    def _post(self, route: str, body: dict[str, Any], fine: tuple[int, ...]) -> None:
        started = time.monotonic()
        try:
            answer = self._backend.http.post(route, json=body)
        except httpx.HTTPError as error:
            self.refused.append(f"{route}: {error}")
            return
        now = time.monotonic()
        self.latencies.append((now - self._started, route, 1000 * (now - started)))
        if answer.status_code not in fine:
            self.refused.append(f"{route}: {answer.status_code} {answer.text[:200]}")

    def _annotate(self, chance: random.Random) -> None:
        project, task = chance.randrange(PROJECTS), chance.randrange(TASKS)
        with self._lock:
            self._edits[project][task] += 1
            edit = self._edits[project][task]
        body = {
            "action": "ANNOTATION_CREATED" if edit == 1 else "ANNOTATION_UPDATED",
            "project": {"id": project + 1, "label_config": self._configs[project]},
            "task": {"id": task + 1, "data": {"text": "a", "slow": task % 2}},
            "annotation": {"id": task + 1, "result": [{"value": edit}], "updated_at": f"2026-11-22T{edit:06d}"},
        }
        self._post("/webhook", body, (200, 201))

    def _predict(self, chance: random.Random) -> None:
        project = chance.randrange(PROJECTS)
        tasks = [
            {"id": number + 1, "data": {"text": "a", "slow": number % 2}} for number in chance.sample(range(TASKS), 3)
        ]
        body = {"tasks": tasks, "project": f"{project + 1}.1795355528", "label_config": self._configs[project]}
        self._post("/predict", body, (200, 503))  # 503: not trained yet

    def _change_config(self, chance: random.Random) -> None:
        project = chance.randrange(PROJECTS)
        self._configs[project] = CONFIG.replace('"A"', f'"A{chance.randrange(10**6)}"')
        body = {"project": f"{project + 1}.1795355528", "schema": self._configs[project]}
        self._post("/setup", body, (200,))

    # -- sampling

    def _sample(self) -> None:
        while not self._done.wait(SAMPLE_SECONDS):
            seconds = time.monotonic() - self._started
            memory = files = threads = 0
            for process in self._processes():
                with suppress(OSError, StopIteration, ProcessLookupError):
                    status = dict(
                        line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines()
                    )
                    memory += int(status["RssAnon"].split()[0])
                    threads += int(status["Threads"])
                    files += len(os.listdir(f"/proc/{process}/fd"))
            cached = sum(len(names) for _, _, names in os.walk(self._backend.folder / "cache"))
            self.samples.append((seconds, memory / 1024, files, threads, self._database(), cached, self._waiting()))

    def _processes(self) -> list[int]:
        """The backend's processes and their children."""
        parents: dict[int, int] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                with suppress(OSError, IndexError):
                    parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        found = {process.pid for process in self._backend.processes}
        while more := {pid for pid, parent in parents.items() if parent in found} - found:
            found |= more
        return sorted(found)

    def _database(self) -> float:
        store = self._backend.store
        if store.is_sqlite:
            return sum(file.stat().st_size for file in self._backend.folder.glob("state.db*")) / 2**20
        with store.engine.connect() as connection:
            return connection.scalar(sa.text("SELECT pg_database_size(current_database())")) / 2**20

    def _waiting(self) -> int:
        return self._backend.store.count_jobs("queued") + self._backend.store.count_jobs("started")

    # -- what came out

    def table(self) -> str:
        """Each quantity in the second and in the last quarter of the work."""
        samples = np.array(self.samples)
        lines = ["| | second quarter | last quarter | ratio |", "| --- | --- | --- | --- |"]
        for column, name in enumerate(QUANTITIES, start=1):
            lines.append(_row(name, samples[:, 0], samples[:, column], self._seconds, 50))
        for route in ("/webhook", "/predict", "/setup"):
            taken = np.array([(at, took) for at, asked, took in self.latencies if asked == route])
            for percentile in (50, 99):
                lines.append(_row(f"{route} ms, p{percentile}", taken[:, 0], taken[:, 1], self._seconds, percentile))
        return "\n".join(lines)


def _row(name: str, at: np.ndarray, values: np.ndarray, seconds: float, percentile: int) -> str:
    early, late = ((first * seconds <= at) & (at < (first + 0.25) * seconds) for first in (0.25, 0.75))
    before, after = (float(np.percentile(values[part], percentile)) for part in (early, late))
    return f"| {name} | {before:.1f} | {after:.1f} | {after / before if before else 1:.2f} |"


def plot(soaks: dict[str, Soak], path: Path) -> None:
    """Every quantity over time, a line for each database."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 4, figsize=(12, 5), constrained_layout=True)
    for database, soak in soaks.items():
        samples = np.array(soak.samples)
        for axis, column, name in zip(axes.flat, range(1, 7), QUANTITIES, strict=False):
            axis.plot(samples[:, 0], samples[:, column], label=database, linewidth=1)
            axis.set(title=name, ylim=(0, None))
        for axis, route in zip(axes.flat[6:], ("/webhook", "/predict"), strict=True):
            taken = np.array([(at, took) for at, asked, took in soak.latencies if asked == route])
            axis.plot(taken[:, 0], taken[:, 1], ".", markersize=1.5, label=database)
            axis.set(title=f"{route} ms", yscale="log")
    axes.flat[0].legend()
    for axis in axes[1]:
        axis.set_xlabel("seconds")
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", nargs="+", choices=["sqlite", "postgresql"], default=["sqlite", "postgresql"])
    parser.add_argument("--seconds", type=float, default=240)
    parser.add_argument("--plot", type=Path, default=Path(__file__).parent / "results" / "soak.png")
    arguments = parser.parse_args()
    soaks: dict[str, Soak] = {}
    for database in arguments.database:
        with (
            tempfile.TemporaryDirectory() as name,
            running_postgres() if database == "postgresql" else nullcontext() as server,
        ):
            folder = Path(name)
            url = server.new_database() if server else f"sqlite:///{folder / 'state.db'}"
            backend = StubBackend(folder, url, STUB_FIT_SECONDS="0.05", STUB_PREPARE_SECONDS="0.05")
            try:
                backend.start_web()
                backend.start_worker()
                backend.wait_for_web()
                backend.wait_for_worker()
                soaks[database] = soak = Soak(backend, arguments.seconds)
                soak.run()
                print(f"{database}: {len(soak.latencies)} requests, {len(soak.refused)} refused {soak.refused[:3]}")
                print(soak.table(), flush=True)
            finally:
                backend.stop()
    plot(soaks, arguments.plot)


if __name__ == "__main__":
    main()
