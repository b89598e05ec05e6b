"""How fast the dashboard's pages are with much in the store, and what an open one costs the server.

    python -m benchmarks.dashboard       # needs chromium and chromedriver

A real project with a trained model and three drawn videos, and rows for the rest: 50 projects, 5,000 tasks, 2,000 jobs,
of which 500 wait. The server is gunicorn as `make run` starts it, without a worker, so that what is measured is the
pages' own work. Headless Chromium opens each page several times; then it is left open.
"""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa

from ml_backend.store import Store
from ml_backend.store.tables import (
    LIVE,
    Annotation,
    Job,
    JobKind,
    JobStatus,
    Prediction,
    Project,
    QueueName,
    Task,
    Training,
    TrainingStatus,
    now,
)
from tests.live.browser import Browser
from tests.servers import Backend, annotation, free_port, wait_until
from tests.test_serve import CONFIG, REGIONS, picture
from tests.videos import write_video

PROJECTS, TASKS, JOBS, WAITING = 50, 5000, 2000, 500
TRAININGS = 40  # of each project
OPENINGS = 5  # of each page
IDLE_SECONDS = 60.0
LABELS = ("Ball touch", "Ball in frame")
DRIVER_SECONDS = 60
# What the browser knows of a page that is loaded, in ms. With a page's own files, its state, and its video's parts.
TIMINGS = """
    const requests = [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")];
    return {
        paint: performance.getEntriesByName("first-contentful-paint")[0]?.startTime,
        requests: requests.map((one) => [new URL(one.name).pathname, one.responseEnd - one.requestStart]),
    };
"""


def learn(backend: Backend) -> None:
    """Trains project 1's model on three videos."""
    backend.start().wait_for_worker()
    backend.setup(CONFIG)
    for number in range(1, 4):
        path = write_video(backend.videos / f"{number}.mp4", picture, 250 + number)
        task = {"id": number, "data": {"video": str(path)}}
        answer = backend.annotate(CONFIG, task, annotation(number, *REGIONS)).json()
        backend.wait_for_job(answer["job"])
        assert backend.predict(CONFIG, task).is_success
    backend.stop()


def fill(store: Store) -> None:
    """Writes the other rows."""
    per_project = TASKS // PROJECTS
    random = np.random.default_rng(0)
    rows: dict[type[Any], list[dict[str, Any]]] = {table: [] for table in (Project, Task, Annotation, Prediction)}
    rows |= {Training: [], Job: []}
    for project in map(str, range(1, PROJECTS + 1)):
        if project != "1":
            rows[Project].append({"id": project, "label_config": CONFIG})
        for number in range(int(project) * 1000, int(project) * 1000 + per_project - 3 * (project == "1")):
            task = {"project_id": project, "data": {"video": f"/data/upload/{project}/{number:x}-clip.mp4"}}
            prediction = {"score": float(random.random()), "model_version": "yolov8n-cls-v40"}
            rows[Prediction].append(task | prediction | {"task_id": number})
            if number % 2:
                rows[Task].append(task | {"id": number})
                drawn = {"id": number, "task_id": number, "result": REGIONS}
                rows[Annotation].append({"project_id": project, **drawn})
        for number in range(TRAININGS):
            scores = {label: {"f1": float(random.random()), "support": 100} for label in LABELS}
            learnt = {label: {"context": 0.4, "threshold": 0.5, "shortest": 0.2} for label in LABELS}
            counted = {"frames": {"per_label": scores}, "segments": {"per_label": scores}}
            metrics = {"tl": {"prequential": counted, "score": counted, "learnt": learnt, "tasks": number}}
            training = {"project_id": project, "revision": number, "annotated_tasks": number, "metrics": metrics}
            training |= {"status": TrainingStatus.PUBLISHED, "seconds": 2.0, "model_version": f"yolov8n-cls-v{number}"}
            rows[Training].append(training)
    job = {"kind": JobKind.EXTRACT, "queue": QueueName.EXTRACT}
    for number in range(JOBS):
        project = number % PROJECTS + 1
        ended = now() - timedelta(minutes=JOBS - number)
        status = JobStatus.QUEUED if number < WAITING else JobStatus.FAILED if number % 10 == 0 else JobStatus.FINISHED
        named = {"id": f"{number:032x}", "key": f"{number}", "resource": f"{number}", "project_id": str(project)}
        said = {"ended_at": None, "error": None} if status in LIVE else {"ended_at": ended, "error": "It is empty."}
        arguments = {"task": {"id": project * 1000 + number % per_project, "data": {}}}
        rows[Job].append(job | named | said | {"status": status, "arguments": arguments})
    with store.engine.begin() as connection:
        for table, made in rows.items():
            connection.execute(sa.insert(table), made)


@contextmanager
def open_browser(folder: Path) -> Iterator[Browser]:
    """Headless Chromium with a cache of its own."""
    port = free_port()
    driver = subprocess.Popen(["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: _listens(port), DRIVER_SECONDS, "chromedriver")
        with Browser(url, folder / "chromium") as browser:
            yield browser
    finally:
        driver.terminate()
        driver.wait(10)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def open_pages(browser: Browser, url: str) -> None:
    """Prints each page's first paint and its longest request, first and median of the openings."""
    print(f"{'page':24} {'paint first':>12} {'median':>8} {'longest request':>16}")
    for path in ("/", "/queue", "/projects/1", "/projects/25", "/projects/25?offset=50", "/projects/1/tasks/1"):
        paints, longest = [], ("", 0.0)
        for _ in range(OPENINGS):
            browser.open(url + path)
            time.sleep(1.5)  # the first question for the state, and the video's beginning
            seen = browser.run(TIMINGS)
            paints.append(seen["paint"])
            longest = max(longest, *map(tuple, seen["requests"]), key=lambda one: one[1])
        print(f"{path:24} {paints[0]:9.0f} ms {np.median(paints):5.0f} ms {longest[1]:6.0f} ms ({longest[0]})")


def processor_seconds(backend: Backend) -> float:
    """What the server's processes have used."""
    found = subprocess.run(["pgrep", "--session", str(backend.process.pid)], capture_output=True, text=True, check=True)
    ticks = 0
    for pid in found.stdout.split():
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def share_of_a_core(backend: Backend) -> float:
    """What the server uses, in percent of a core."""
    before, started = processor_seconds(backend), time.monotonic()
    time.sleep(IDLE_SECONDS)
    return 100 * (processor_seconds(backend) - before) / (time.monotonic() - started)


def leave_open(browser: Browser, backend: Backend, store: Store) -> None:
    """Prints what open pages cost, with jobs waiting and with none."""
    browser.open("about:blank")
    nothing = share_of_a_core(backend)
    for state in ("500 jobs wait", "no job waits"):
        for path in ("/", "/projects/25"):
            browser.open(backend.url + path)
            time.sleep(3)
            print(f"{path} open, {state}: {share_of_a_core(backend):.2f} % of a core; no page open: {nothing:.2f} %")
        with store.engine.begin() as connection:
            ended = {"status": JobStatus.CANCELLED, "ended_at": now()}
            connection.execute(sa.update(Job).where(Job.status.in_(LIVE)).values(**ended))


def main() -> None:
    print(f"Load average before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory(prefix="dashboard-") as name:
        folder = Path(name)
        learn(Backend(folder))
        store = Store(f"sqlite:///{folder / 'data' / 'state.db'}")
        fill(store)
        backend = Backend(folder, RUN_WORKER="false").start()
        try:
            with open_browser(folder) as browser:
                # What a web process does in its first seconds, importing PyTorch, holds up whatever it is asked.
                wait_until(lambda: backend.health()["encoder"] != "loading", DRIVER_SECONDS, "the encoder")
                open_pages(browser, backend.url)
                leave_open(browser, backend, store)
        finally:
            backend.stop()
            store.close()
    print(f"Load average after: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
