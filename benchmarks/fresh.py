"""Fresh predictions in a real Label Studio: how soon the next tasks have them, how often, and what that costs.

    LABEL_STUDIO_BIN=.label-studio/bin/label-studio python -m benchmarks.fresh --tasks 200

Label Studio and the backend are started on free ports. A project's tasks show a few drawn videos by turns. Annotations
are submitted as Label Studio's page does it, and after each it is looked up in Label Studio's database when its next
fifty tasks carry the new version. Then annotators open tasks of the stream meanwhile, and the worker is killed
(SIGKILL) while it stores. What must hold: no task has two predictions of a version; the requests to Label Studio stay
below the bound. They are counted in Label Studio's own log.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import sqlite3
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from ml_backend.jobs.refresh import MAX_REQUESTS_PER_SECOND
from tests.live.conftest import running_backend, running_label_studio
from tests.live.label_studio import LabelStudio
from tests.live.test_label_studio import CONFIG, draw
from tests.live.timelines import Truth, regions
from tests.servers import Backend, wait_until

NEXT = 50
PATIENCE_SECONDS = 600


class Observed:
    """A project in Label Studio whose predictions are looked up in its database, which its API doesn't notice.

    Args:
        label_studio: Label Studio.
        project: the project's number.
    """

    def __init__(self, label_studio: LabelStudio, project: int) -> None:
        self.label_studio = label_studio
        self.project = project

    def _rows(self, query: str, *values: Any) -> list[Any]:
        with closing(sqlite3.connect(f"file:{self.label_studio.database}?mode=ro", uri=True, timeout=60)) as database:
            return database.execute(query, values).fetchall()

    def next_tasks(self, count: int) -> list[int]:
        """The tasks that sequential sampling brings next."""
        query = "SELECT id FROM task WHERE project_id = ? AND NOT is_labeled ORDER BY id LIMIT ?"
        return [task for (task,) in self._rows(query, self.project, count)]

    def predictions(self) -> Counter[tuple[int, str]]:
        """(task, version) -> the number of its predictions."""
        query = "SELECT task_id, model_version FROM prediction WHERE project_id = ?"
        return Counter(self._rows(query, self.project))

    def twice(self) -> list[tuple[int, str]]:
        """What is stored more than once."""
        return [found for found, count in self.predictions().items() if count > 1]

    def model_version(self) -> str:
        """The project's setting."""
        return self._rows("SELECT model_version FROM project WHERE id = ?", self.project)[0][0]


class Log:
    """The requests in Label Studio's log that a program with the key made, not the page's."""

    LINE = re.compile(r'^\[([\d-]+ [\d:]+),\d+\].*"(GET|POST|PATCH|DELETE) (/api/[^ ]*)')
    # The annotators' own.
    PAGES = re.compile(r"/api/(tasks/\d+|dm/)")

    def __init__(self, path: Path) -> None:
        self._path = path
        self._begin = path.stat().st_size

    def requests(self) -> list[tuple[str, str, str]]:
        """(second, method, path) of each since the log was opened."""
        with self._path.open() as file:
            file.seek(self._begin)
            lines = dict.fromkeys(file)  # each is written twice
        found = [match.groups() for line in lines if (match := self.LINE.match(line))]
        return [request for request in found if not self.PAGES.match(request[2])]  # type: ignore[misc]


def state(backend: Backend, query: str) -> list[Any]:
    """Rows of the backend's database."""
    with closing(sqlite3.connect(f"file:{backend.folder}/data/state.db?mode=ro", uri=True, timeout=60)) as database:
        return database.execute(query).fetchall()


def refreshes(backend: Backend, project: int) -> list[dict[str, Any]]:
    """The results of a project's refreshes that stored something, oldest first."""
    done = f"kind = 'refresh' AND status = 'finished' AND project_id = '{project}'"
    rows = state(backend, f"SELECT result FROM jobs WHERE {done} ORDER BY ended_at")
    return [result for (text,) in rows if (result := json.loads(text or "null")) and result.get("stored")]


class Scene:
    """A project with tasks, and what is done in it.

    Args:
        label_studio, backend: running.
        folder: for the videos.
        tasks: the number of tasks.
        videos: the number of different videos.
        next: the number of next tasks that are waited for.
        config: the labeling config.
    """

    def __init__(
        self,
        label_studio: LabelStudio,
        backend: Backend,
        folder: Path,
        tasks: int,
        videos: int,
        next: int = NEXT,
        config: str = CONFIG,
    ) -> None:
        self.next = next
        self.label_studio, self.backend = label_studio, backend
        self.project = label_studio.create_project("Fresh predictions", config)
        label_studio.connect(self.project, backend.url)
        self.observed = Observed(label_studio, self.project)
        self.truths: list[Truth] = [{"Ball": [(1 + n, 30 + n)], "Box": [(55 + n, 80 + n)]} for n in range(videos)]
        paths = [draw(backend.videos, f"{folder.name}-{'x' * n}", truth) for n, truth in enumerate(self.truths)]
        data = [{"data": {"video": str(paths[number % videos])}} for number in range(tasks)]
        label_studio.post(f"/api/projects/{self.project}/import", data)
        first = self.observed.next_tasks(1)[0]
        self.truth = {first + number: self.truths[number % videos] for number in range(tasks)}

    def wait_until_idle(self) -> None:
        """Waits until the backend has nothing to do."""
        live = "SELECT 1 FROM jobs WHERE status IN ('queued', 'started')"
        wait_until(lambda: not state(self.backend, live), PATIENCE_SECONDS, "an empty queue")

    def version(self) -> str | None:
        """The version that was published last."""
        published = f"status = 'published' AND project_id = '{self.project}'"
        query = f"SELECT model_version FROM trainings WHERE {published} ORDER BY id DESC LIMIT 1"
        return next((version for (version,) in state(self.backend, query)), None)

    def submit_next(self) -> None:
        """Submits the next task's annotation."""
        (task,) = self.observed.next_tasks(1)
        self.label_studio.submit(task, regions(self.truth[task]))

    def submit_and_time(self, meanwhile: Callable[[], None] = lambda: None) -> dict[str, Any]:
        """Submits an annotation, and waits until the next tasks have the new version."""
        old, log = self.version(), Log(self.label_studio.log)
        begun = time.monotonic()
        self.submit_next()
        nexts = self.observed.next_tasks(self.next)
        wait_until(lambda: self.version() not in (old, None), PATIENCE_SECONDS, "a new version")
        version, trained = self.version(), time.monotonic() - begun
        meanwhile()

        def have_it() -> int:
            predictions = self.observed.predictions()
            return sum(predictions[task, version] for task in nexts if predictions[task, version])

        first = None
        while (count := have_it()) < len(nexts):
            first = first or (count and time.monotonic() - begun)
            assert time.monotonic() - begun < PATIENCE_SECONDS, f"{count} of {len(nexts)} tasks have {version}"
            time.sleep(0.05)
        took = time.monotonic() - begun
        self.wait_until_idle()
        requests = log.requests()
        stored = sum(one["stored"] for one in refreshes(self.backend, self.project) if one["model_version"] == version)
        return {
            "version": version,
            "training": round(trained, 1),
            "the first": round(first or took, 1),
            f"the next {len(nexts)}": round(took, 1),
            "stored": stored,
            "requests": len(requests),
            "requests a prediction": round(len(requests) / max(1, stored), 2),
            "most requests in a second": max(Counter(second for second, *_ in requests).values(), default=0),
            "twice": len(self.observed.twice()),
            "the project's version": self.observed.model_version() == version,
        }

    def kill_the_worker(self, after: int) -> None:
        """Kills the worker (SIGKILL) once so many predictions of the newest version are stored."""
        version = self.version()

        def stored() -> bool:
            return sum(1 for _, made in self.observed.predictions().elements() if made == version) >= after

        wait_until(stored, PATIENCE_SECONDS, f"{after} stored predictions")
        os.kill(self.backend.worker_pid(), signal.SIGKILL)

    def annotators(self) -> Iterator[None]:
        """Opens the next task of the stream again and again, until the generator goes on."""
        stopped = threading.Event()

        def open_tasks() -> None:
            while not stopped.is_set():
                for task in self.observed.next_tasks(NEXT):
                    self.label_studio.get(f"/api/tasks/{task}/", project=self.project)
                    self.label_studio.post("/api/dm/actions", {}, id="next_task", project=self.project)
                    if stopped.wait(0.5):
                        return

        thread = threading.Thread(target=open_tasks, daemon=True)
        thread.start()
        yield
        stopped.set()
        thread.join()


def main(tasks: int, videos: int, rounds: int) -> None:
    """Runs it and prints a line for each submission."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with running_label_studio(folder) as label_studio, running_backend(label_studio, folder / "backend") as backend:
            scene = Scene(label_studio, backend, folder, tasks, videos)
            for _ in range(2):  # until there is something to predict
                scene.submit_next()
            scene.wait_until_idle()
            print(f"at most {MAX_REQUESTS_PER_SECOND} requests a second; load {os.getloadavg()[0]:.0f}", flush=True)
            for number in range(rounds):
                print("quiet", json.dumps(scene.submit_and_time()), flush=True)
                opening = scene.annotators()

                def annotate(opening: Iterator[None] = opening) -> None:
                    next(opening)

                print("annotators open tasks", json.dumps(scene.submit_and_time(annotate)), flush=True)
                next(opening, None)
                after = 5 + 15 * number

                def kill(after: int = after) -> None:
                    scene.kill_the_worker(after)

                print(f"killed after {after}", json.dumps(scene.submit_and_time(kill)), flush=True)
            print(f"load {os.getloadavg()[0]:.0f}; twice: {scene.observed.twice()}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--videos", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    main(options.tasks, options.videos, options.rounds)
