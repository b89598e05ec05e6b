"""Long videos and many videos: memory, time before the first product of matrices, progress.

    python -m benchmarks.large_projects --hours 2 8       each: predicted, trained on, shown, exported
    python -m benchmarks.large_projects --videos 5000     a training's beginning; --learn: the whole of it

Data: random features, written by the cache's own writer, with an event that shows in some; 25 frames a
second. A project of many videos has 100 frames in each and one annotation; a long one three short videos beside it.
Rule: each step runs in a process of its own with at most 256 open files. Memory is its peak less what it held
before, without pages of files (`RssAnon`), which the kernel may drop at any moment. "First product" is when the readout
is asked for, after all tasks were looked up and read. "Longest silence" is the longest time without progress, after
which a training can be cancelled.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa

from ml_backend.settings import Settings
from ml_backend.store import Store
from ml_backend.store.tables import Annotation, Task
from progress import Progress

RATE = 25
OPEN_FILES = 256
ROWS_PER_STATEMENT = 500
BLOCK = 10_000  # rows that are written at once
SHORT = 100  # frames of each of many videos, and of those beside a long one
CONFIG = (
    '<View><TimelineLabels name="tl" toName="video" model_trainable="true"><Label value="Red"/><Label value="Blue"/>'
    f'</TimelineLabels><Video name="video" value="$video" frameRate="{RATE}"/></View>'
)


def settings_of(folder: Path) -> Settings:
    """A backend's settings in a folder."""
    (folder / "videos").mkdir(exist_ok=True)
    return Settings(
        data_dir=folder / "data",
        cache_dir=folder / "cache",
        model_root=folder / "models",
        local_files_document_root=folder / "videos",
        cache_size_limit=10**12,
    )


def make_project(folder: Path, frames: list[int]) -> None:
    """Annotated tasks of so many frames each, with features in the cache."""
    from features.array_store import ArrayFolder
    from features.extraction import rows
    from ml_backend.context import Services
    from model import YOLO

    settings = settings_of(folder)
    store = Store(settings.database)
    store.update_project("1", CONFIG)
    (control,) = YOLO.bind(Services(settings, store))("1", CONFIG).control_models
    examples = rows(control.encoder, control.videos.view)
    random = np.random.default_rng(0)
    tasks, annotations = [], []
    for number, count in enumerate(frames, start=1):
        path = settings.local_files_document_root / f"{number}.mp4"
        path.write_text(f"stands for video {number} of {count} frames")
        start, end = count // 4, count // 2
        made = ArrayFolder(control.videos.cache.folder.unfinished, examples)
        with made:
            for first in range(0, count, BLOCK):
                made.append(_block(examples, range(first, min(first + BLOCK, count)), start, end, random))
            facts = {"duration": count / RATE, "frame_rate": RATE, "broken_frames": 0, "truncated": False}
            content = control.videos.cache._hashes.of(path)
            item = made.finish(facts | {"content": content})
        control.videos.cache._find(control.encoder, content, control.videos.view, 1, lambda item=item: item)
        region = {"id": "r", "type": "timelinelabels", "from_name": "tl", "to_name": "video"}
        region["value"] = {
            "ranges": [{"start": start + 1, "end": end}],
            "timelinelabels": [("Red", "Blue")[number % 2]],
        }
        tasks.append({"project_id": "1", "id": number, "data": {"video": str(path)}})
        annotations.append({"project_id": "1", "id": number, "task_id": number, "result": [region], "updated_at": ""})
    with store.engine.begin() as connection:
        for table, values in ((Task, tasks), (Annotation, annotations)):
            for begin in range(0, len(values), ROWS_PER_STATEMENT):
                connection.execute(sa.insert(table), values[begin : begin + ROWS_PER_STATEMENT])
    store.request_training("1")
    store.close()


def _block(
    examples: dict[str, np.ndarray], frames: range, start: int, end: int, random: np.random.Generator
) -> dict[str, np.ndarray]:
    """Rows of every array; the event raises some values."""
    index = np.arange(frames.start, frames.stop)
    event = (index >= start) & (index < end)
    block = {}
    for name, row in examples.items():
        shape = (len(index), *row.shape)
        if name == "times":
            block[name] = index / RATE
        elif np.issubdtype(row.dtype, np.integer):
            block[name] = random.integers(-100, 100, shape).astype(row.dtype)
        else:
            values = random.random(shape, np.float32)
            if values.ndim == 2:
                values[event, : row.shape[0] // 10] += 0.5
            block[name] = values.astype(row.dtype)
    return block


# -- the steps, each in a process of its own


class Watch:
    """Peak of the process's own memory, of its open files, and how its progress went, while it lasts."""

    def __enter__(self) -> Watch:
        self._before = self._held()
        self.peak = self.open_files = 0
        self._done = threading.Event()
        self.started = self._last = time.monotonic()
        self.silence = 0.0
        self.shares: set[float] = set()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def _look(self) -> None:
        while not self._done.wait(0.02):
            self.peak = max(self.peak, self._held() - self._before)
            self.open_files = max(self.open_files, len(os.listdir("/proc/self/fd")))

    @staticmethod
    def _held() -> int:
        return next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith("RssAnon"))

    def progress(self, share: float) -> None:
        now = time.monotonic()
        self.silence, self._last = max(self.silence, now - self._last), now
        self.shares.add(round(share, 2))

    def __exit__(self, *_: object) -> None:
        self.progress(1.0)
        self._done.set()
        self._thread.join()

    def figures(self) -> dict[str, Any]:
        return {
            "seconds": round(time.monotonic() - self.started, 1),
            "MB": self.peak >> 20,
            "open files": self.open_files,
            "longest silence": round(self.silence, 1),
            "steps of progress": len(self.shares),
        }


class _Enough(Exception):
    """The first product of matrices was reached."""


def train(folder: Path, whole: bool = True) -> dict[str, Any]:
    """The project's training as a worker's job does it: looked up, read, learnt."""
    from control_models.trainer import Trainer
    from ml_backend.context import Services
    from ml_backend.jobs.handlers import Handlers
    from ml_backend.jobs.queue import Jobs
    from ml_backend.registry import ModelRegistry
    from model import YOLO

    settings = settings_of(folder)
    store = Store(settings.database)
    registry = ModelRegistry(YOLO, Services(settings, store))
    jobs = Jobs(store, registry)
    store.take_over_jobs(["benchmark"])  # of a step that was broken off
    job = store.claim_job("benchmark", jobs.add_training("1").id)
    model = registry.get("1")
    _ = model.control_models[0].encoder.feature_dim  # loading the network isn't what is measured
    reached: list[float] = []
    candidate = Trainer.candidate

    def timed(self: Trainer, *arguments: Any) -> Any:
        reached.append(round(time.monotonic() - watch.started, 1))
        if not whole:
            raise _Enough
        return candidate(self, *arguments)

    Trainer.candidate = timed
    with Watch() as watch:
        Handlers(jobs).queue_of(job)
        with suppress(_Enough):
            model.fit("START_TRAINING", {}, tasks=store.annotated_tasks("1"), progress=Progress(watch.progress))
    return {"first product": reached[0]} | watch.figures()


def predict(folder: Path) -> dict[str, Any]:
    """The longest video's prediction."""
    from ml_backend.context import Services
    from model import YOLO

    settings = settings_of(folder)
    store = Store(settings.database)
    model = YOLO.bind(Services(settings, store))("1", CONFIG)
    task = store.annotated_tasks("1")[-1]
    model.check_ready()
    with Watch() as watch:
        model.predict([task])
    return watch.figures()


def dashboard(folder: Path) -> dict[str, Any]:
    """The longest video's page, and the project's."""
    from ml_backend import init_app
    from model import YOLO

    app = init_app(YOLO, settings=settings_of(folder))
    client = app.test_client()
    task = app.extensions["jobs"].store.annotated_tasks("1")[-1]["id"]
    with Watch() as watch:
        for path in ("/projects/1", f"/projects/1/tasks/{task}"):
            answer = client.get(path, headers={"Accept": "text/html"}, base_url="http://localhost")
            assert answer.status_code == 200, answer.text[:500]
    return watch.figures() | {"page kB": len(answer.data) >> 10}


def export(folder: Path) -> dict[str, Any]:
    """All annotated and predicted events of the project, as a table."""
    from ml_backend.context import Services
    from model import YOLO
    from terminal.exchange import What, _timelines
    from terminal.formats.registry import FORMATS

    settings = settings_of(folder)
    store = Store(settings.database)
    model = YOLO.bind(Services(settings, store))("1", CONFIG)
    with Watch() as watch:
        timelines = [one for task in store.annotated_tasks("1") for one in _timelines(model, task, What.both)]
        FORMATS["events"].write(timelines, io.StringIO())
    return watch.figures()


STEPS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "begin": lambda folder: train(folder, whole=False),
    "train": train,
    "predict": predict,
    "dashboard": dashboard,
    "export": export,
}


def measured(step: str, folder: Path) -> dict[str, Any]:
    """What one step takes in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.large_projects", "--step", step, "--folder", str(folder)]
    environment = os.environ | {"HTTPS_PROXY": "http://127.0.0.1:9"}  # nothing is fetched
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, nargs="*", default=[])
    parser.add_argument("--videos", type=int, nargs="*", default=[])
    parser.add_argument("--learn", action="store_true", help="train to the end, also on many videos")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES))
        print(json.dumps(STEPS[arguments.step](arguments.folder)))
        return
    os.environ["HTTPS_PROXY"] = "http://127.0.0.1:9"
    projects = {
        f"{hours:g} h": ([SHORT * 5] * 3 + [round(hours * 3600 * RATE)], list(STEPS)[1:]) for hours in arguments.hours
    }
    many = ["train"] if arguments.learn else ["begin"]
    projects |= {f"{count} videos": ([SHORT] * count, many) for count in arguments.videos}
    for name, (frames, steps) in projects.items():
        with tempfile.TemporaryDirectory() as made:
            make_project(Path(made), frames)
            for step in steps:
                print(f"{name}, {step}: {measured(step, Path(made))}", flush=True)


if __name__ == "__main__":
    main()
