"""Measure the size of a folder in the background: a walk through a large one takes too long for a page."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

MEASURE_AGAIN_SECONDS = 60.0


class FolderSize:
    """Measures the size of a folder.

    Args:
        folder: the folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._size: int | None = None
        self._measured_at = float("-inf")

    def __call__(self) -> int | None:
        """The bytes at the last measurement, None before the first one has ended."""
        if time.monotonic() - self._measured_at > MEASURE_AGAIN_SECONDS:
            self._measured_at = time.monotonic()
            threading.Thread(target=self._measure, name="cache-size", daemon=True).start()
        return self._size

    def _measure(self) -> None:
        size = 0
        for folder, _, names in os.walk(self._folder):
            for name in names:
                try:
                    size += (Path(folder) / name).stat().st_size
                except FileNotFoundError:  # dropped meanwhile
                    continue
        self._size = size
