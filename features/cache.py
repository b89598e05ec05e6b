"""Features of videos, cached on disk by content.

cache = FeatureCache(cache_dir, size_limit=20 * 10**9)
video = cache.get(encoder, "video.mp4")  # decodes the first time
video.features[video.times > 2.5]
"""

import errno
import fcntl
import hashlib
import os
import re
import stat
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4
from weakref import WeakValueDictionary

import joblib
import numpy as np

from errors import MediaError, UnreadableVideo
from features.array_store import ArrayFolder, ArrayStore, DescriptorsExhausted, Item
from features.cache_folder import CacheFolder
from features.checkpoints import file_hash
from features.counters import EVICTIONS, EXTRACTION_SECONDS, FRAMES, LOOKUPS
from features.encoder import Encoder
from features.extraction import Chunk, Progress, VideoFeatures, extract, file_facts, open_video, rows, stream
from video.preprocessing import View

__all__ = [
    "CacheParams",
    "FeatureCache",
    "VideoFeatures",
    "cached_feature_extraction",
    "cached_yolo_predict",
    "extract",
]

MAX_KNOWN_FILES = 10_000  # files whose content's hash is stored
MAX_DEATHS = 3  # of processes that read a video, after which it is given up
RESERVED_ROWS = 10_000  # rows of a long video that space is reserved for at once, some 50 MB

_room_lock = threading.Lock()
_key_locks: WeakValueDictionary[tuple, threading.Lock] = WeakValueDictionary()


class FeatureCache:
    """Caches features on disk, by the video's content, the encoder's fingerprint, the view and the stride.

    A renamed video is found; a replaced one isn't. Arrays are memory-mapped. Threads and processes may share a folder:
    in one process, two requests for the same features extract once; between processes, the later result replaces the
    earlier one. A killed extraction leaves nothing that is taken for features. A damaged item is extracted again.

    Args:
        cache_dir: the folder; created where missing.
        size_limit: bytes. Before an extraction writes, the least recently read items are dropped. Only an item that is
            larger by itself exceeds the limit. Arrays in use stay valid when their item is dropped.
    """

    def __init__(self, cache_dir: str | Path, size_limit: int) -> None:
        self.folder = CacheFolder(cache_dir, size_limit)
        self.folder.make()
        memory = joblib.Memory(self.folder.features, backend=ArrayStore.register(), verbose=0)
        self._lookup = memory.cache(_features, ignore=["compute"])
        self._attempts = Attempts(self.folder.root / "attempts")
        self._hashes = FileHashes(self.folder.root / "hashes", self.folder.media)

    def get(
        self,
        encoder: Encoder,
        path: str | Path,
        view: View = View.WHOLE,
        stride: int = 1,
        progress: Progress | None = None,
    ) -> VideoFeatures:
        """Returns the video's features, extracted where they aren't cached. Arguments and errors as of `extract`."""
        return self.get_views(encoder, path, {view}, stride, progress)[view]

    def get_views(
        self,
        encoder: Encoder,
        path: str | Path,
        views: Collection[View],
        stride: int = 1,
        progress: Progress | None = None,
    ) -> dict[View, VideoFeatures]:
        """Returns the features of several views, as `get`; the missing ones are extracted in one decoding."""
        content = self._hashes.of(path)
        with ExitStack() as locks:
            for view in sorted(views):  # always in the same order, against deadlocks
                locks.enter_context(_lock_of(self.folder.root, content, encoder.fingerprint, view, stride))
            found = {view: self._find(encoder, content, view, stride, _refuse) for view in views}
            missing = [view for view in views if found[view] is None]
            LOOKUPS.labels("hit").inc(len(views) - len(missing))
            LOOKUPS.labels("miss").inc(len(missing))
            items: dict[View, Item] = {}
            if missing:
                with self.folder.writing(), self._attempts.of(content, Path(path).name):
                    items = self._extract(encoder, path, content, missing, stride, progress)
            for view, item in items.items():
                found[view] = self._find(encoder, content, view, stride, lambda item=item: item)
                self.folder.discard(item.folder)  # it still exists where another process was faster
        return found

    def peek(
        self, encoder: Encoder, path: str | Path, view: View = View.WHOLE, stride: int = 1
    ) -> VideoFeatures | None:
        """Returns the video's features, None where they aren't cached. It never decodes or waits for an extraction.

        It is None also for a file that `get` was never called with: to find its features, the file would have to be
        read.
        """
        content = self._hashes.known(path)
        return self._find(encoder, content, view, stride, _refuse) if content else None

    def has(self, encoder: Encoder, path: str | Path, view: View = View.WHOLE, stride: int = 1) -> bool:
        """Whether the cache has features of the video, intact or not, without opening them."""
        content = self._hashes.known(path)
        if content is None:
            return False
        return self._lookup.check_call_in_cache(content, encoder.fingerprint, view.value, stride, _refuse)

    def drop(self, encoder: Encoder, path: str | Path, view: View = View.WHOLE, stride: int = 1) -> None:
        """Removes the video's features, and forgets failed attempts to read it. Arrays in use stay valid."""
        content = self._hashes.known(path)
        if content is None:
            return
        self._hashes.forget(path)
        self._attempts.forget(content)
        with suppress(_NotCached):
            self._lookup.call_and_shelve(content, encoder.fingerprint, view.value, stride, _refuse).clear()

    def _find(
        self, encoder: Encoder, content: str, view: View, stride: int, compute: Callable[[], Item]
    ) -> VideoFeatures | None:
        try:
            item = self._lookup(content, encoder.fingerprint, view.value, stride, compute)
        except _NotCached:
            return None
        except DescriptorsExhausted as error:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE)) from error
        return VideoFeatures(**item.contents)

    def _extract(
        self,
        encoder: Encoder,
        path: str | Path,
        content: str,
        views: Collection[View],
        stride: int,
        progress: Progress | None,
    ) -> dict[View, Item]:
        """Extracts each view into a new folder, which the store will move among its items."""
        reader = open_video(path)
        view_rows = {view: rows(encoder, view) for view in views}
        expected_rows = int(reader.duration * reader.average_rate)
        with ExitStack() as unfinished:
            folders = {
                view: unfinished.enter_context(ArrayFolder(self.folder.unfinished, arrays))
                for view, arrays in view_rows.items()
            }

            def write(chunk: Chunk) -> None:
                self._reserve(folders.values(), len(chunk.times), expected_rows)
                for view, folder in folders.items():
                    folder.append(chunk.arrays(view))
                FRAMES.inc(len(chunk.times))

            started = time.monotonic()
            stream(encoder, reader, views, stride, progress, write)
            EXTRACTION_SECONDS.inc(time.monotonic() - started)
            if self._hashes.of(path) != content:
                raise MediaError(f"{Path(path).name} was replaced while it was read. Try again.")
            return {view: folder.finish(file_facts(reader, content)) for view, folder in folders.items()}

    def _reserve(self, folders: Collection[ArrayFolder], num_rows: int, expected_rows: int) -> None:
        """Reserves space before rows are written: as much again as was decoded, never all that a file declares."""
        growing = [folder for folder in folders if folder.num_rows + num_rows > folder.reserved_rows]
        if growing:
            with _room_lock:
                reserved = growing[0].reserved_rows
                step = max(num_rows, min(reserved, RESERVED_ROWS, expected_rows - reserved))
                EVICTIONS.inc(self.folder.make_room(step * sum(folder.row_size for folder in growing)))
                for folder in growing:
                    folder.reserve(step)


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
                f"{name} is given up: the worker died {deaths} times while it read it, perhaps for lack of memory. "
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


class FileHashes:
    """Stores the hashes of files' contents, each by path, size and modification time in a small text file.

    A dropped download keeps its hash, so that its features are found without the file.

    Args:
        folder: for the text files; created where missing.
        downloads: the folder of downloads.
    """

    HASH = re.compile(r"[0-9a-f]{32,128}")

    def __init__(self, folder: Path, downloads: Path) -> None:
        self._folder, self._downloads = folder, downloads
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def of(self, path: str | Path) -> str:
        """Returns a file's hash. It reads the file where that is new or has changed.

        Raises:
            MediaError: the file doesn't exist.
        """
        known = self.known(path)
        if known is None:
            known = file_hash(path)
            with suppress(OSError):  # in a full or read-only cache the hash isn't stored
                for remembered in self._places(Path(path).resolve()):
                    temporary = remembered.with_name(uuid4().hex)
                    temporary.write_text(known)
                    temporary.replace(remembered)
                self._forget_oldest()
        return known

    def known(self, path: str | Path) -> str | None:
        """A file's stored hash, or None, without reading the file. Raises MediaError as `of`, except for downloads."""
        return self._read(self._places(Path(path).resolve())[0])

    def forget(self, path: str | Path) -> None:
        """Forgets a file's hash."""
        for place in self._places(Path(path).resolve()):
            place.unlink(missing_ok=True)

    def _places(self, path: Path) -> list[Path]:
        """The paths of a file's stored hash: for its present state, and for a download also for when it is dropped."""
        is_download = path.is_relative_to(self._downloads)
        try:
            status = path.stat()
        except OSError:
            status = None
        if status is None or not stat.S_ISREG(status.st_mode):
            if not is_download:
                raise MediaError(f"{path.name} does not exist.")
            return [self._place(str(path))]
        here = self._place(f"{path} {status.st_size} {status.st_mtime_ns}")
        return [here, self._place(str(path))] if is_download else [here]

    def _place(self, identity: str) -> Path:
        return self._folder / hashlib.blake2b(os.fsencode(identity), digest_size=16).hexdigest()

    def _read(self, remembered: Path) -> str | None:
        try:
            text = remembered.read_text()
        except FileNotFoundError:
            return None
        return text if self.HASH.fullmatch(text) else None

    def _forget_oldest(self) -> None:
        names = os.listdir(self._folder)
        if len(names) > 1.1 * MAX_KNOWN_FILES:
            paths = sorted((self._folder / name for name in names), key=lambda path: path.stat().st_mtime)
            for path in paths[: len(names) - MAX_KNOWN_FILES]:
                path.unlink(missing_ok=True)


class _NotCached(Exception):
    """The features aren't cached, and weren't to be extracted."""


def _refuse() -> Item:
    raise _NotCached


def _lock_of(*key: Any) -> threading.Lock:
    """The lock of these features, shared by all caches on one folder."""
    with _room_lock:
        return _key_locks.setdefault(key, threading.Lock())


# joblib drops the whole cache when the source of this function changes, so it must stay as it is.
def _features(content: str, fingerprint: str, view: str, stride: int, compute: Callable[[], Item]) -> Item:
    return compute()


@dataclass(frozen=True)
class CacheParams:
    """The cache and the stride of `cached_feature_extraction`.

    Attributes:
        cache_dir: the cache's folder.
        size_limit: bytes that the cache may take.
        stride: the features of every n-th frame are computed, those between are interpolated.
    """

    cache_dir: Path
    size_limit: int
    stride: int = 1


def cached_feature_extraction(yolo_model: Encoder, video_path: str | Path, cache_params: CacheParams) -> np.ndarray:
    """Returns the features of a video's whole pictures, [num_frames, feature_dim] float16, memory-mapped.

    The errors are those of `extract`.
    """
    return _cached(yolo_model, video_path, View.WHOLE, cache_params).features


def cached_yolo_predict(yolo_model: Encoder, video_path: str | Path, cache_params: CacheParams) -> np.ndarray:
    """Returns the class probabilities of a video's frames, [num_frames, num_classes] float32, memory-mapped.

    They are of the crop that Ultralytics makes of each frame. The errors are those of `extract`.
    """
    return _cached(yolo_model, video_path, View.CROP, cache_params).probs


def _cached(encoder: Encoder, path: str | Path, view: View, params: CacheParams) -> VideoFeatures:
    return _cache(params.cache_dir, params.size_limit).get(encoder, path, view, params.stride)


@lru_cache(maxsize=8)
def _cache(cache_dir: Path, size_limit: int) -> FeatureCache:
    return FeatureCache(cache_dir, size_limit)
