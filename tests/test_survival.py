"""A short version of benchmarks/survival.py: every kind of process is killed once under a stream of annotations."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.survival import survive

pytestmark = pytest.mark.slow


def test_killed_processes_lose_nothing(database_url: str, tmp_path: Path) -> None:
    found = survive(database_url, tmp_path / "survival", rounds=4)
    assert found["annotations acknowledged"] > 10
    assert found["trainings"]["published"] >= 3
