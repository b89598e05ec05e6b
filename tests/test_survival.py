"""A short version of benchmarks/survival.py: every kind of process is killed once under a stream of annotations."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.survival import store_predictions, survive

pytestmark = pytest.mark.slow


def test_killed_processes_lose_nothing(database_url: str, tmp_path: Path) -> None:
    found = survive(database_url, tmp_path / "survival", rounds=4)
    assert found["annotations acknowledged"] > 10
    assert found["trainings"]["published"] >= 3


def test_killed_workers_store_each_prediction_once(database_url: str, tmp_path: Path) -> None:
    found = store_predictions(database_url, tmp_path / "survival", rounds=3)
    assert found["predictions"] >= 40
