"""Real servers for the tests: started on free ports, with folders of their own, ended with the test."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).resolve().parents[1]
# Importing PyTorch and Ultralytics takes seconds, and several times as long on a busy machine.
START_SECONDS = 120
STOP_SECONDS = 60
# A bound is for what never happens: however short it is meant, a busy machine gets this long.
LEAST_PATIENCE_SECONDS = 60
# A proxy that refuses: the default encoder can't be fetched, and the bundled one is used, on every machine alike.
NO_INTERNET = "http://127.0.0.1:9"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until(condition: Callable[[], object], seconds: float, what: str) -> None:
    seconds = max(seconds, LEAST_PATIENCE_SECONDS)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.1)


def clean_environment(**changes: str) -> dict[str, str]:
    """This process's environment without what would configure a server by accident."""
    foreign = re.compile(
        r"LABEL_STUDIO_|LOCAL_FILES_|MEDIA_|ML_|DATABASE_URL|DJANGO_|HOST$|PORT$|BASIC_AUTH_|DATA_DIR|CACHE_|MODEL_|PRECISION|"
        r"ALLOW_CUSTOM|PREDICT_TIMEOUT|TRAIN_IN_REQUEST|WORKERS|THREADS|RUN_WORKER|LOG_LEVEL"
    )
    return {name: value for name, value in os.environ.items() if not foreign.match(name)} | changes


def processes(session: int, pattern: str = "") -> set[int]:
    """The processes of a session that run, and whose command line has the pattern."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            # After the name, which may hold anything: the state, the parent, the group and the session.
            state, _, _, its_session = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if int(its_session) == session and state != "Z" and re.search(pattern, command):
                found.add(int(folder.name))
    return found


def mount(*arguments: str) -> None:
    """Mounts a file system, or skips the test where that can't be done."""
    if shutil.which("mount") is None:
        pytest.skip("no file system can be mounted here: no program `mount`")
    result = subprocess.run(["mount", *arguments], capture_output=True, text=True)
    if result.returncode:
        pytest.skip(f"no file system can be mounted here: {result.stderr.strip()}")


class Backend:
    """The backend as `make run` starts it, with state, cache and models in a folder.

    Args:
        folder: its folders are made here; the videos it may read lie in `folder / "videos"`.
        environment: more environment variables.
    """

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        self.videos = folder / "videos"
        self.videos.mkdir(parents=True, exist_ok=True)
        self.log = folder / "backend.log"
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.environment = clean_environment(
            HOST="127.0.0.1",
            PORT=str(port),
            DATA_DIR=str(folder / "data"),
            CACHE_DIR=str(folder / "cache"),
            MODEL_ROOT=str(folder / "models"),
            LOCAL_FILES_DOCUMENT_ROOT=str(self.videos),
            MEDIA_ALLOWED_HOSTS="127.0.0.1",  # the tests' own servers
            HTTPS_PROXY=NO_INTERNET,
        )
        self.environment |= environment
        self.http = httpx.Client(base_url=self.url, timeout=100)
        self.process: subprocess.Popen | None = None

    def start(self) -> Backend:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gunicorn", "_wsgi:app"],
                env=self.environment,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_until(self.answers, START_SECONDS, f"the backend to start, see {self.log}")
        return self

    def answers(self) -> bool:
        assert self.process.poll() is None, f"the backend ended:\n{self.log.read_text()[-3000:]}"
        try:
            return self.http.get("/health").is_success
        except httpx.HTTPError:
            return False

    def wait_for_worker(self) -> None:
        wait_until(lambda: self.health()["worker_alive"], START_SECONDS, "the worker")

    def wait_for_encoder(self, config: str, project: int = 1) -> None:
        """Waits until web process and worker have loaded the encoder, which a config of simple mode needs."""
        no_video = {"id": 0, "data": {}}
        wait_until(lambda: "Precision:" in self.log.read_text(), START_SECONDS, "the worker's encoder")
        wait_until(
            lambda: self.predict(config, no_video, project=project).status_code == 404, START_SECONDS, "the encoder"
        )

    def stop(self, sig: signal.Signals = signal.SIGTERM) -> None:
        """Ends the server with a signal to its first process, which ends the others; SIGKILL goes to all at once."""
        if self.process is None:
            return
        if sig == signal.SIGKILL:
            os.killpg(self.process.pid, sig)
        else:
            self.process.send_signal(sig)
        try:
            self.process.wait(STOP_SECONDS)
        finally:
            if self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
            self.process = None

    def worker_pid(self) -> int:
        """The process id of the jobs' worker."""
        return min(processes(self.process.pid, "--worker"))

    def health(self) -> dict[str, Any]:
        return self.http.get("/health").json()

    def post(self, path: str, body: Any) -> httpx.Response:
        return self.http.post(path, json=body)

    def setup(self, config: str, project: int = 1) -> httpx.Response:
        return self.post(
            "/setup", {"project": f"{project}.1795355528", "schema": config, "hostname": "", "access_token": ""}
        )

    def predict(self, config: str, *tasks: dict[str, Any], project: int = 1) -> httpx.Response:
        body = {"tasks": list(tasks), "project": f"{project}.1795355528", "label_config": config}
        return self.post("/predict", body | {"params": {"login": None, "password": None, "context": None}})

    def annotate(
        self,
        config: str,
        task: dict[str, Any],
        annotation: dict[str, Any],
        action: str = "ANNOTATION_CREATED",
        project: int = 1,
    ) -> httpx.Response:
        body = {"action": action, "annotation": annotation, "task": task}
        return self.post("/webhook", body | {"project": {"id": project, "label_config": config}})

    def wait_for_job(self, job: str, seconds: float = 240) -> dict[str, Any]:
        """Waits until a job has ended, and returns its status."""

        def ended() -> bool:
            status = self.post("/job_status", {"job": job}).json()
            return status["job_status"] in ("finished", "failed")

        wait_until(ended, seconds, f"job {job}, see {self.log}")
        return self.post("/job_status", {"job": job}).json()


def region(start: int, end: int, *labels: str, from_name: str = "tl") -> dict[str, Any]:
    """A region as Label Studio sends it."""
    value = {"ranges": [{"start": start, "end": end}], "timelinelabels": list(labels)}
    return {
        "id": f"{labels}{start}",
        "from_name": from_name,
        "to_name": "video",
        "type": "timelinelabels",
        "value": value,
    }


def annotation(
    annotation_id: int, *regions: dict[str, Any], updated_at: str = "2026-11-22T13:52:09Z"
) -> dict[str, Any]:
    """An annotation as Label Studio sends it."""
    return {"id": annotation_id, "result": list(regions), "was_cancelled": False, "updated_at": updated_at}
