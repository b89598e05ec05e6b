"""`Attempts`: count the processes that died while they read a video."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar
from uuid import uuid4

from errors import UnreadableVideo

MAX_DEATHS = 3  # of processes that read a video, after which it is given up


class Attempts:
    """Counts how often a process died while it read a video, by the video's content.

    A process that reads a video holds the lock of a mark file meanwhile, and removes the file in the end. A mark file
    whose lock nobody holds was left by a process that died.

    Args:
        folder: for the mark files; created where missing.
    """

    _begun: ClassVar[set[Path]] = set()  # marks of this process

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    @contextmanager
    def of(self, content: str, name: str) -> Iterator[None]:
        """Marks an attempt to read a video while it lasts.

        Raises:
            UnreadableVideo: too many processes died while they read it.
        """
        deaths = len(self._dead(content))
        if deaths >= MAX_DEATHS:
            raise UnreadableVideo(
                f"{name} is given up: the worker died {deaths} times while reading it, perhaps for lack of memory. "
                "Make the video smaller. To try again, clear its cache on its task's page."
            )
        new = self._folder / uuid4().hex
        with new.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            mark = new.rename(self._folder / f"{content}.{new.name}")
            self._begun.add(mark)
            try:
                yield
            finally:
                self._take_back(mark)

    def forget(self, content: str) -> None:
        """Forgets a video's failed attempts."""
        for mark in self._dead(content):
            mark.unlink(missing_ok=True)

    @classmethod
    def take_back_all(cls) -> None:
        """Removes this process's marks, because it ends by itself."""
        for mark in list(cls._begun):
            cls._take_back(mark)

    @classmethod
    def _take_back(cls, mark: Path) -> None:
        cls._begun.discard(mark)
        mark.unlink(missing_ok=True)

    def _dead(self, content: str) -> list[Path]:
        return [mark for mark in self._folder.glob(f"{content}.*") if not self._is_held(mark)]

    @staticmethod
    def _is_held(mark: Path) -> bool:
        try:
            with mark.open() as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, FileNotFoundError):
            return True
        return False
