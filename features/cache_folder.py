"""The cache's folder, for data that can be made again: features and downloads, within one size limit.

It is below every layer but `errors.py`: `features/` keeps extracted features here, and `ml_backend/` its downloads.
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
STALE_AFTER = 3600.0  # seconds without a write after which unfinished work is taken for a killed process's
MEASURE_AGAIN = 60.0  # seconds between two measurements of the size, while it is far below the limit
FAR_BELOW = 0.25  # of the limit
ENTRY_OVERHEAD = 4096  # bytes that an entry takes at most besides its content
# A file that was used so recently isn't dropped: whoever asked for it may not have opened it yet.
IN_USE_SECONDS = 5.0


class CacheFolder:
    """The folder, which threads and processes share.

    An entry is a folder of features with a file `FACTS`, which is touched on each reading, or a file of media, whose
    access time is set on each reading; its modification time identifies the file's content.

    Args:
        root: the folder; created where missing, for its owner only.
        limit: bytes. The least recently used entries are dropped before more is written.
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
        """Creates the folder and its subfolders, readable by their owner only."""
        for folder in (self.root, self.features, self.media, self.unfinished):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Turns an error of writing inside the block into CacheUnwritable."""
        try:
            yield
        except OSError as error:
            if error.errno not in UNWRITABLE:
                raise
            raise CacheUnwritable(
                f"The cache {self.root} can't be written ({os.strerror(error.errno)}). Free space there, or make the "
                "folder writable. Videos that are in it already are served."
            ) from error

    def make_room(self, size: int) -> int:
        """Drops the least recently used entries until `size` more bytes are within the limit.

        Unfinished work counts and stays, except that of killed processes.

        Returns:
            The number of dropped entries.
        """
        self.make()
        self._remove_stale()
        now = time.monotonic()
        if now - self._measured_at < MEASURE_AGAIN and self._size + size < FAR_BELOW * self.limit:
            self._size += size
            return 0
        entries = sorted((last_use, path, size) for path, last_use, size in self._entries())
        # Unfinished work is measured first: an entry that is being moved may count twice, but never not at all.
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
        """The free bytes of the file system."""
        self.make()
        return shutil.disk_usage(self.root).free

    def discard(self, path: Path) -> None:
        """Removes an entry, if it exists, so that others find it whole or not at all."""
        doomed = self.unfinished / uuid4().hex
        with suppress(FileNotFoundError):
            path.rename(doomed)
            if doomed.is_dir():
                shutil.rmtree(doomed, ignore_errors=True)
            else:
                doomed.unlink(missing_ok=True)

    def _entries(self) -> Iterator[tuple[Path, float, int]]:
        """Yields each entry with the time of its last use and its bytes."""
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
    """The bytes of all files in a folder, written or reserved."""
    return sum(map(_size, _files(folder)))


def _files(folder: Path) -> Iterator[Path]:
    """Yields all files in a folder, also while others remove some."""
    for parent, _, names in os.walk(folder):
        yield from (Path(parent, name) for name in names)


def _mtime(path: Path) -> float:
    """The modification time; 0 for a file that another process has just removed."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _last_use(path: Path) -> float:
    """The later of modification and access time; 0 for a file that another process has just removed."""
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
