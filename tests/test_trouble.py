"""Full disks, a read-only folder and a locked database, as a file system of the test's own makes them: what happens is
said, nothing acknowledged is lost, and work goes on by itself afterwards."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.locked_database import outlast
from benchmarks.stub_backend import FROM_NAME
from ml_backend.store import jobs as job_rows
from ml_backend.store.tables import TrainingStatus
from tests.servers import mount, wait_until
from tests.stub import StubBackend

pytestmark = pytest.mark.slow

FILE_SYSTEM_BYTES = 4 << 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for little."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount("-t", "tmpfs", "-o", f"size={FILE_SYSTEM_BYTES}", "tmpfs", str(folder))
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], StubBackend]]:
    """Starts the web and a worker on a database."""
    backends = []

    def start(database_url: str) -> StubBackend:
        backend = StubBackend(tmp_path / "stub", database_url, STUB_FIT_SECONDS="0.1")
        backends.append(backend)
        backend.start_web()
        backend.start_worker()
        backend.wait_for_web()
        backend.wait_for_worker()
        return backend

    yield start
    for backend in backends:
        backend.stop()


def learnt(backend: StubBackend) -> set[int]:
    present = backend.store.present_version("1", FROM_NAME)
    return set(map(int, backend.read_model(present.file))) if present else set()


def fill(folder: Path) -> Path:
    """Leaves no room in a file system."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 10, 1):
            try:
                while file.write(b"x" * size) == size:
                    pass
            except OSError:
                pass
    return filler


def test_a_full_disk_is_said_and_nothing_acknowledged_is_lost(
    small_disk: Path, start: Callable[[str], StubBackend]
) -> None:
    backend = start(f"sqlite:///{small_disk / 'state.db'}")
    acknowledged = {1}
    assert backend.annotate(1).status_code == 201
    wait_until(lambda: learnt(backend) == {1}, 60, f"a training, see {backend.log}")
    filler = fill(small_disk)
    refused: dict[str, Any] = {}
    for number in range(2, 200):  # what SQLite has room for in its files is stored
        answer = backend.annotate(number)
        if answer.status_code == 503:
            refused = {"number": number, "error": answer.json()["error"], "wait": answer.headers["Retry-After"]}
            break
        assert answer.status_code == 201, answer.text
        acknowledged.add(number)
    assert "full" in refused["error"]
    assert "nothing was stored" in refused["error"]
    time.sleep(2)
    filler.unlink()
    wait_until(lambda: learnt(backend) == acknowledged, 120, f"what was acknowledged, see {backend.log}")
    assert backend.annotate(refused["number"]).status_code == 201
    wait_until(lambda: refused["number"] in learnt(backend), 60, f"the next training, see {backend.log}")


def test_a_read_only_models_folder_is_said_and_training_goes_on_when_it_is_writable(
    tmp_path: Path, start: Callable[[str], StubBackend]
) -> None:
    models = tmp_path / "stub" / "models"
    models.mkdir(parents=True)
    mount("-t", "tmpfs", "-o", "ro", "tmpfs", str(models))
    try:
        backend = start(f"sqlite:///{tmp_path / 'state.db'}")
        assert backend.annotate(1).status_code == 201
        wait_until(lambda: backend.store.latest_training("1") is not None, 60, "a training")
        wait_until(lambda: backend.store.latest_training("1").status == TrainingStatus.FAILED, 60, "its failure")
        assert "Read-only file system" in backend.store.latest_training("1").error
        # The training's row is written before its job's.
        wait_until(lambda: backend.store.live_training("1").error, 60, "the job's error")
        assert "Read-only file system" in backend.store.live_training("1").error
        mount("-o", "remount,rw", str(models))
        wait_until(lambda: learnt(backend) == {1}, 60, f"the next try, see {backend.log}")
    finally:
        subprocess.run(["umount", "--lazy", str(models)], check=True)


def test_a_database_locked_longer_than_a_lease(tmp_path: Path) -> None:
    """A short version of benchmarks/locked_database.py."""
    found = outlast(f"sqlite:///{tmp_path / 'state.db'}", tmp_path / "stub", job_rows.LEASE.total_seconds() + 5)
    assert "database is locked" in found["error"]  # what was lost or is stuck has raised
