"""How the backend runs as a program: its processes, what it logs, how it starts and stops."""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx
import pytest

from tests.servers import Backend


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    backend = Backend(tmp_path_factory.mktemp("backend"), WORKERS="2").start()
    yield backend
    backend.stop()


def test_every_process_shows_the_requests_of_all(backend: Backend) -> None:
    counts = []
    for _ in range(20):
        httpx.post(f"{backend.url}/job_status", json={"job": "unknown"})  # a new connection: any process takes it
    for _ in range(10):
        text = httpx.get(f"{backend.url}/metrics").text
        (count,) = re.findall(r'backend_request_seconds_count\{route="/job_status",status="410"\} (\S+)', text)
        counts.append(float(count))
    assert counts == [20.0] * 10
