"""How much faster more workers are on one PostgreSQL.

    python -m benchmarks.scaling --stub      the queue itself: an extraction waits for a second instead of computing
    python -m benchmarks.scaling             with the bundled network, on drawn videos

40 videos are queued ahead of need, so that each worker process does one at a time; 1, 2 and 4 worker processes do them.
The time is from the first to the last job's end, all workers being up.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.stub_backend import CONFIG as STUB_CONFIG
from ml_backend import LabelStudioMLBase
from ml_backend.context import Services
from ml_backend.jobs.queue import Jobs
from ml_backend.registry import ModelRegistry
from ml_backend.settings import Settings
from ml_backend.store import Store
from ml_backend.store.jobs import PRIORITY_AHEAD
from ml_backend.store.tables import JobStatus
from tests.postgres import running_postgres
from tests.servers import NO_INTERNET, ROOT, clean_environment, wait_until
from tests.videos import write_video

VIDEOS = 40
WORKERS = (1, 2, 4)
FRAMES = 100
CONFIG = """<View>
<TimelineLabels name="tl" toName="video" model_trainable="true"><Label value="A"/></TimelineLabels>
<Video name="video" value="$video" frameRate="25"/></View>"""


def picture(number: int, frame: int) -> np.ndarray:
    """A moving scene, another for each video."""
    noise = np.random.default_rng(number).integers(0, 255, (15, 20, 3), dtype=np.uint8)
    return np.roll(noise.repeat(16, 0).repeat(16, 1), frame, axis=1)


def measure(database_url: str, folder: Path, workers: int, stub: bool) -> float:
    """Seconds that so many workers take for all videos."""
    environment = clean_environment(
        DATABASE_URL=database_url,
        CACHE_DIR=str(folder / f"cache{workers}"),
        MODEL_ROOT=str(folder / "models"),
        DATA_DIR=str(folder),
        LOCAL_FILES_DOCUMENT_ROOT=str(folder),
        HTTPS_PROXY=NO_INTERNET,
        STUB_PREPARE_SECONDS="1",
    )
    store = Store(database_url)
    store.update_project("1", STUB_CONFIG if stub else CONFIG)
    registry = ModelRegistry(LabelStudioMLBase, Services(Settings(data_dir=folder), store))
    jobs = Jobs(store, registry)
    program = ["-m", "benchmarks.stub_backend"] if stub else ["_wsgi.py", "--worker"]
    with (folder / f"workers{workers}.log").open("wb") as log:
        processes = [
            subprocess.Popen([sys.executable, *program], env=environment, cwd=ROOT, stdout=log, stderr=log)
            for _ in range(workers)
        ]
    try:
        wait_until(lambda: len(store.live_workers()) == workers, 300, "the workers")
        for number in range(VIDEOS):
            data: dict[str, Any] = {"slow": True} if stub else {"video": str(folder / f"{number}.mp4")}
            jobs.add_extraction("1", {"id": number, "data": data}, PRIORITY_AHEAD)
        wait_until(lambda: not store.jobs(JobStatus.QUEUED, JobStatus.STARTED), 1800, "the jobs")
        done = store.jobs(JobStatus.FINISHED)
        assert len(done) == VIDEOS, [job.error for job in store.jobs(JobStatus.FAILED)]
        return (max(job.ended_at for job in done) - min(job.started_at for job in done)).total_seconds()
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()
        store.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stub", action="store_true", help="wait instead of computing")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, running_postgres() as server:
        folder = Path(name)
        if not arguments.stub:
            for number in range(VIDEOS):
                write_video(folder / f"{number}.mp4", lambda frame, n=number: picture(n, frame), FRAMES)
        first = None
        for workers in WORKERS:
            seconds = measure(server.new_database(), folder, workers, arguments.stub)
            first = first or seconds
            print(
                f"{workers} workers: {seconds:.1f} s for {VIDEOS} videos, {first / seconds:.2f} times one", flush=True
            )


if __name__ == "__main__":
    main()
