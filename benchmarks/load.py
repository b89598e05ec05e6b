"""How fast the routes that must answer at once do so while the worker is busy: 20 clients for 60 s, two web processes.

    python -m benchmarks.load            # writes benchmarks/results/load.json

The backend is started as users start it, with videos to extract and a training that begins again with every annotation.
Each client asks `/health`, `/setup` and `/webhook` in turn, as fast as they are answered, at most five times a second.
Label Studio's limits are 1 s, 3 s and 1 s.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import threading
import time
from pathlib import Path

import httpx
import numpy as np

from tests.servers import Backend, annotation
from tests.test_serve import CONFIG, REGIONS, picture
from tests.videos import write_video

CLIENTS = 20
SECONDS = 60.0
PAUSE = 0.2  # between two requests of a client
VIDEOS = 12
LIMITS_MS = {"/health": 200, "/setup": 500, "/webhook": 500}


def busy(backend: Backend) -> None:
    """Gives the worker extractions for longer than the measurement, and a first training."""
    for number in range(VIDEOS):
        write_video(backend.videos / f"{number}.mp4", picture, 4000 + number)
    backend.setup(CONFIG)
    tasks = [{"id": n, "data": {"video": str(backend.videos / f"{n}.mp4")}} for n in range(1, VIDEOS)]
    backend.post("/webhook", {"action": "TASKS_CREATED", "project": {"id": 1, "label_config": CONFIG}, "tasks": tasks})
    backend.annotate(CONFIG, {"id": 100, "data": {"video": str(backend.videos / "0.mp4")}}, annotation(1, *REGIONS))


class Client(threading.Thread):
    """One of the clients; keeps its latencies in seconds by route, and what went wrong."""

    def __init__(self, url: str, number: int, end: float) -> None:
        super().__init__(name=f"client {number}")
        self.latencies: dict[str, list[float]] = {route: [] for route in LIMITS_MS}
        self.errors: list[str] = []
        self._http = httpx.Client(base_url=url, timeout=30)
        self._number = number
        self._end = end

    def run(self) -> None:
        """Asks until the end."""
        turn = 0
        while time.monotonic() < self._end:
            route = list(LIMITS_MS)[turn % len(LIMITS_MS)]
            started = time.monotonic()
            try:
                answer = self._ask(route, turn)
                if not answer.is_success:
                    self.errors.append(f"{route}: {answer.status_code} {answer.text[:200]}")
            except httpx.HTTPError as error:
                self.errors.append(f"{route}: {error!r}")
            self.latencies[route].append(time.monotonic() - started)
            turn += 1
            time.sleep(PAUSE)

    def _ask(self, route: str, turn: int) -> httpx.Response:
        if route == "/health":
            return self._http.get(route)
        if route == "/setup":
            return self._http.post(route, json={"project": "1.1", "schema": CONFIG, "hostname": "", "access_token": ""})
        made = annotation(1000 + self._number, *REGIONS[turn % 2 :])
        made["updated_at"] = f"2026-11-22T{turn // 3600:02}:{turn // 60 % 60:02}:{turn % 60:02}Z"
        task = {"id": 1000 + self._number, "data": {"video": "0.mp4"}}
        project = {"id": 1, "label_config": CONFIG}
        body = {"action": "ANNOTATION_UPDATED", "annotation": made, "task": task, "project": project}
        return self._http.post(route, json=body)


def measure() -> dict[str, object]:
    """Runs the backend and the clients. Returns p50, p99 and maximum in ms by route, and the errors."""
    load_before = round(os.getloadavg()[0], 1)
    with tempfile.TemporaryDirectory(prefix="load-") as folder:
        backend = Backend(Path(folder), WORKERS="2").start()
        try:
            backend.wait_for_worker()
            busy(backend)
            end = time.monotonic() + SECONDS
            clients = [Client(backend.url, number, end) for number in range(CLIENTS)]
            for client in clients:
                client.start()
            for client in clients:
                client.join()
            still_busy = backend.http.get("/metrics").text.count('status="started"') > 0
        finally:
            backend.stop()
    routes = {}
    for route, limit in LIMITS_MS.items():
        latencies = 1000 * np.array([seconds for client in clients for seconds in client.latencies[route]])
        p50, p99 = np.percentile(latencies, [50, 99])
        figures = {"requests": len(latencies), "p50_ms": p50, "p99_ms": p99, "max_ms": latencies.max()}
        routes[route] = {name: round(float(value), 1) for name, value in figures.items()} | {"limit_ms": limit}
    return {
        "cores": os.cpu_count(),
        "load_average_before": load_before,
        "worker_busy_to_the_end": still_busy,
        "routes": routes,
        "errors": [error for client in clients for error in client.errors],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "load.json")
    arguments = parser.parse_args()
    result = measure()
    arguments.output.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
