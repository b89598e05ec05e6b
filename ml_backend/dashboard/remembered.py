"""Find out in the background what takes too long for a page, such as whether Label Studio answers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

FIND_AGAIN_SECONDS = 60.0

Value = TypeVar("Value")


class Remembered(Generic[Value]):
    """Remembers a value, and finds it out again when a page asks for it after a minute.

    Args:
        find: finds the value out, in a thread of its own.
        first: the value before it is found out.
    """

    def __init__(self, find: Callable[[], Value], first: Value) -> None:
        self._find = find
        self._value = first
        self._asked_at = float("-inf")
        self._lock = threading.Lock()

    def __call__(self) -> Value:
        """What is known now."""
        with self._lock:
            if time.monotonic() - self._asked_at > FIND_AGAIN_SECONDS:
                self._asked_at = time.monotonic()
                threading.Thread(target=self._remember, name="remembered", daemon=True).start()
        return self._value

    def _remember(self) -> None:
        self._value = self._find()
