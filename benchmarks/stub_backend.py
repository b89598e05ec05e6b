"""A backend whose model waits instead of computing: for what jobs, leases and databases do, without a network.

    gunicorn benchmarks.stub_backend:app      the web, with RUN_WORKER=false
    python -m benchmarks.stub_backend         a worker

A model is a JSON file with the annotations that it learnt. STUB_FIT_SECONDS and STUB_PREPARE_SECONDS say how long a
training and an extraction take, STUB_PREDICT_AHEAD how many tasks' predictions are stored ahead.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

from flask import Flask

from errors import NotReady
from ml_backend import LabelStudioMLBase, init_app
from ml_backend.jobs.worker import WorkerProcess
from ml_backend.settings import get_settings

STEP_SECONDS = 0.02
FROM_NAME = "c"
CONFIG = '<View><Text name="text" value="$text"/><Choices name="c" toName="text"><Choice value="A"/></Choices></View>'


class StubModel(LabelStudioMLBase):
    """Learns annotations by heart, slowly."""

    @staticmethod
    def _wait(seconds: float, progress: Any) -> None:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            time.sleep(min(left, STEP_SECONDS))
            if progress:
                progress(1 - left / seconds)

    def _extracted(self, task: dict[str, Any]) -> Path:
        return self.settings.cache_dir / f"{self.project_id}-{task['id']}"

    def is_extracted(self, task: dict[str, Any]) -> bool:
        return not task["data"].get("slow") or self._extracted(task).exists()

    def extract(self, task: dict[str, Any], progress: Any = None) -> None:
        if self.is_extracted(task):
            return
        self._wait(float(os.environ.get("STUB_PREPARE_SECONDS", "1")), progress)
        self.settings.cache_dir.mkdir(parents=True, exist_ok=True)
        self._extracted(task).touch()

    def present(self) -> dict[str, Any] | None:
        """The present model: annotation id, as text -> result."""
        present = self.services.store.present_version(self.project_id, FROM_NAME)
        return json.loads((self.settings.model_root / present.file).read_text()) if present else None

    @property
    def model_version(self) -> str:
        present = self.services.store.present_version(self.project_id, FROM_NAME)
        return f"stub-v{present.version}" if present else "untrained"

    @property
    def predict_ahead(self) -> int:
        return int(os.environ.get("STUB_PREDICT_AHEAD", "0"))

    def check_ready(self) -> None:
        if self.model_version == "untrained":
            raise NotReady("Not trained yet.")

    def fit(self, event: str, data: dict[str, Any], tasks: Any = (), progress: Any = None, **kwargs: Any) -> dict:
        for task in tasks:
            self.extract(task, progress)
        self._wait(float(os.environ.get("STUB_FIT_SECONDS", "0.2")), progress)
        learnt = json.dumps({a["id"]: a["result"] for task in tasks for a in task["annotations"]})
        file = hashlib.sha256(learnt.encode()).hexdigest()[:16] + ".json"
        self.settings.model_root.mkdir(parents=True, exist_ok=True)
        part = self.settings.model_root / f"{file}.{os.getpid()}.part"
        part.write_text(learnt)
        part.rename(self.settings.model_root / file)
        version = self.next_version()
        self.services.store.publish_version(self.project_id, FROM_NAME, version, file, {})
        return {FROM_NAME: {"tasks": len(tasks), "version": version}}

    def predict(self, tasks: list[dict[str, Any]], context: Any = None, **kwargs: Any) -> list[dict[str, Any]]:
        return [{"result": [], "score": 1.0, "model_version": self.model_version} for _ in tasks]


def make_app() -> Flask:
    """The application of this process's environment."""
    return init_app(StubModel, settings=get_settings())


if __name__ == "__main__":
    import logging

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s [%(process)d] %(name)s: %(message)s")
    WorkerProcess(make_app().extensions["runner"]).run()
