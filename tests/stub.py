"""Real web and worker processes around a model that waits instead of computing (benchmarks/stub_backend.py)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx

from benchmarks.stub_backend import CONFIG
from ml_backend.store import Store
from tests.servers import ROOT, START_SECONDS, clean_environment, free_port, wait_until


class StubBackend:
    """Processes that share a database, each started and ended by itself.

    Args:
        folder: models, features and logs.
        database_url: the state.
        environment: more environment variables.
    """

    def __init__(self, folder: Path, database_url: str, **environment: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.log = folder / "stub.log"
        self.port = free_port()
        self.environment = clean_environment(
            HOST="127.0.0.1",
            PORT=str(self.port),
            DATABASE_URL=database_url,
            CACHE_DIR=str(folder / "cache"),
            MODEL_ROOT=str(folder / "models"),
            DATA_DIR=str(folder),
            RUN_WORKER="false",
        )
        self.environment |= environment
        self.store = Store(database_url)
        self.processes: list[subprocess.Popen] = []
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=100)

    def _start(self, *arguments: str) -> subprocess.Popen:
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", *arguments]
            process = subprocess.Popen(
                command, env=self.environment, cwd=ROOT, stdout=log, stderr=log, start_new_session=True
            )
        self.processes.append(process)
        return process

    def start_web(self) -> subprocess.Popen:
        return self._start("gunicorn", "benchmarks.stub_backend:make_app()")

    def start_worker(self) -> subprocess.Popen:
        return self._start("benchmarks.stub_backend")

    def wait_for_web(self) -> None:
        def answers() -> bool:
            try:
                return self.http.get("/health").is_success
            except httpx.HTTPError:
                return False

        wait_until(answers, START_SECONDS, f"the web process, see {self.log}")

    def wait_for_worker(self) -> None:
        wait_until(self.store.live_workers, START_SECONDS, f"the worker, see {self.log}")

    def annotate(self, number: int, project: int = 1, task: dict[str, Any] | None = None) -> httpx.Response:
        """Submits an annotation of its own task."""
        body = {
            "action": "ANNOTATION_CREATED",
            "project": {"id": project, "label_config": CONFIG},
            "task": task or {"id": number, "data": {"text": "a"}},
            "annotation": {"id": number, "result": [{"value": number}], "updated_at": "2026-11-22T10:00:00Z"},
        }
        return self.http.post("/webhook", json=body)

    def read_model(self, file: str) -> dict[str, Any]:
        """What a model file has learnt: annotation id, as text -> result."""
        return json.loads((self.folder / "models" / file).read_text())

    @staticmethod
    def kill(process: subprocess.Popen) -> None:
        """Kills a process with all that it started."""
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def stop(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                self.kill(process)
        self.http.close()
        self.store.close()
