"""The folder of everything that can be had again: features and downloads, within one limit of bytes.

Below every layer but `errors.py`: `features/` keeps extracted features here, `ml_backend/` what it downloads.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from errors import CacheUnwritable

UNWRITABLE = (errno.EACCES, errno.EDQUOT, errno.ENOSPC, errno.EPERM, errno.EROFS)
STALE_AFTER = 3600.0  # seconds without a write after which whoever was writing must have been killed
MEASURE_AGAIN = 60.0  # seconds for which a measured size holds, but for what this process adds, far below the limit
FAR_BELOW = 0.25  # of the limit
ENTRY_OVERHEAD = 4096  # bytes of an entry beside its content, at most
# What is just being read or written isn't dropped: whoever asked for it has not opened it yet.
IN_USE_SECONDS = 5.0


class CacheFolder:
    """The folder, shared by threads and processes.

    Entries are folders of features, each with a file `FACTS` that is touched when they are read, and single files of
    media, whose time of access is set: their modification time says that they are the same.

    Args:
        root: the folder; made when missing, for its owner alone.
        limit: bytes. What wasn't used for longest is dropped before more is written.
    """

    FACTS = "facts.json"

    def __init__(self, root: str | Path, limit: int) -> None:
        self.root = Path(root).resolve()
        self.limit = limit
        self.features = self.root / "features"
        self.media = self.root / "media"
        self.unfinished = self.root / "unfinished"
        self._measured_at = -MEASURE_AGAIN
        self._size = 0

    def make(self) -> None:
        """Make the folder and its rooms, readable by their owner alone."""
        for folder in (self.root, self.features, self.media, self.unfinished):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Raises CacheUnwritable where what is done inside can't be written."""
        try:
            yield
        except OSError as error:
            if error.errno not in UNWRITABLE:
                raise
            raise CacheUnwritable(
                f"The cache {self.root} can't be written ({os.strerror(error.errno)}). Free space there, or make the "
                "folder writable; videos that are in it already are served."
            ) from error

    def make_room(self, size: int) -> int:
        """Drop the entries that weren't used for longest until `size` more bytes are within the limit.

        Unfinished work counts and stays, except that of processes that were killed.

        Returns:
            The number of entries that were dropped.
        """
        self.make()
        self._remove_stale()
        now = time.monotonic()
        if now - self._measured_at < MEASURE_AGAIN and self._size + size < FAR_BELOW * self.limit:
            self._size += size
            return 0
        entries = sorted((last_use, path, size) for path, last_use, size in self._entries())
        # Unfinished work first: what is just being moved counts twice at worst, but never not at all.
        self._size = usage(self.unfinished) + sum(size for _, _, size in entries) + size + ENTRY_OVERHEAD
        self._measured_at = now
        dropped = 0
        for last_use, path, entry_size in entries:
            if self._size <= self.limit:
                break
            if path.is_file() and time.time() - last_use < IN_USE_SECONDS:
                continue
            self.discard(path)
            self._size -= entry_size
            dropped += 1
        return dropped

    def free_disk(self) -> int:
        """Bytes that the file system has left."""
        self.make()
        return shutil.disk_usage(self.root).free

    def discard(self, path: Path) -> None:
        """Remove an entry, if it is there, so that others find it whole or not at all."""
        doomed = self.unfinished / uuid4().hex
        with suppress(FileNotFoundError):
            path.rename(doomed)
            if doomed.is_dir():
                shutil.rmtree(doomed, ignore_errors=True)
            else:
                doomed.unlink(missing_ok=True)

    def _entries(self) -> Iterator[tuple[Path, float, int]]:
        """Each entry with the time of its last use and its bytes."""
        for parent, _, names in os.walk(self.features):
            if self.FACTS in names:
                folder = Path(parent)
                yield folder, _mtime(folder / self.FACTS), sum(_size(folder / name) for name in names)
        for path in _files(self.media):
            yield path, _last_use(path), _size(path)

    def _remove_stale(self) -> None:
        for path in self.unfinished.iterdir():
            if time.time() - max(map(_mtime, [path, *_files(path)])) > STALE_AFTER:
                self.discard(path)


def usage(folder: Path) -> int:
    """Bytes of all files in a folder, taken or reserved."""
    return sum(map(_size, _files(folder)))


def _files(folder: Path) -> Iterator[Path]:
    """All files in a folder, whatever others remove meanwhile."""
    for parent, _, names in os.walk(folder):
        yield from (Path(parent, name) for name in names)


def _mtime(path: Path) -> float:
    """0 for a file that another process has just removed."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _last_use(path: Path) -> float:
    """The later of modification and access; 0 for a file that another process has just removed."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return 0.0
    return max(status.st_mtime, status.st_atime)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
