"""Features of videos, cached on disk by content.

cache = FeatureCache(cache_dir, size_limit=20 * 10**9)
video = cache.get(encoder, "video.mp4")  # decodes the first time
video.features[video.times > 2.5]
"""

import threading
import time
from collections.abc import Callable, Collection
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import joblib
import numpy as np

from errors import MediaError
from features.array_store import ArrayFolder, ArrayStore, Item, discard, make_room
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

MAX_KNOWN_FILES = 10_000  # paths whose content's hash is remembered

_room_lock = threading.Lock()
_key_locks: WeakValueDictionary[tuple, threading.Lock] = WeakValueDictionary()


class FeatureCache:
    """Features on disk, found again by the video's content, the encoder's fingerprint, the view and the stride.

    A renamed video is found, a replaced one is not. Arrays are memory-mapped. Threads and processes may share a folder:
    within a process, two requests for the same features extract once; between processes the later result replaces the
    earlier. An extraction that is killed leaves nothing that is taken for features; a damaged item is extracted again.

    Args:
        cache_dir: the folder; made when missing.
        size_limit: bytes. Before an extraction writes, the items that weren't read for longest are dropped; only one
            that is larger by itself exceeds the limit. Arrays in use stay valid when their item is dropped.
    """

    def __init__(self, cache_dir: str | Path, size_limit: int) -> None:
        root = Path(cache_dir).resolve()
        self._size_limit = size_limit
        self._items = root / "features"
        self._unfinished = root / "unfinished"
        memory = joblib.Memory(self._items, backend=ArrayStore.register(), verbose=0)
        self._lookup = memory.cache(_features, ignore=["compute"])
        self._known_files = joblib.Memory(root / "contents", verbose=0)
        self._content_hash = self._known_files.cache(_content_hash)

    def get(
        self,
        encoder: Encoder,
        path: str | Path,
        view: View = View.WHOLE,
        stride: int = 1,
        progress: Progress | None = None,
    ) -> VideoFeatures:
        """The video's features, extracted if they aren't cached. Arguments and errors are those of `extract`."""
        return self.get_views(encoder, path, {view}, stride, progress)[view]

    def get_views(
        self,
        encoder: Encoder,
        path: str | Path,
        views: Collection[View],
        stride: int = 1,
        progress: Progress | None = None,
    ) -> dict[View, VideoFeatures]:
        """As `get`, for several views: those that aren't cached are extracted in one decoding."""
        content = self._content(path)
        with ExitStack() as locks:
            for view in sorted(views):  # always in the same order, so that no two wait for each other
                locks.enter_context(_lock_of(self._items, content, encoder.fingerprint, view, stride))
            found = {view: self._find(encoder, content, view, stride, _refuse) for view in views}
            missing = [view for view in views if found[view] is None]
            LOOKUPS.labels("hit").inc(len(views) - len(missing))
            LOOKUPS.labels("miss").inc(len(missing))
            items = self._extract(encoder, path, content, missing, stride, progress) if missing else {}
            for view, item in items.items():
                found[view] = self._find(encoder, content, view, stride, lambda item=item: item)
                discard(item.folder, self._unfinished)  # where another process was faster
        return found

    def peek(
        self, encoder: Encoder, path: str | Path, view: View = View.WHOLE, stride: int = 1
    ) -> VideoFeatures | None:
        """The video's features if they are cached; never decodes, never waits for an extraction.

        None also for a file that was never asked for by `get`: finding its content's features would mean reading it.
        """
        identity = self._identity(path)
        if not self._content_hash.check_call_in_cache(*identity):
            return None
        return self._find(encoder, self._content_hash(*identity), view, stride, _refuse)

    def drop(self, encoder: Encoder, path: str | Path, view: View = View.WHOLE, stride: int = 1) -> None:
        """Removes the video's features, where they are cached. Arrays in use stay valid."""
        with suppress(_NotCached):
            self._lookup.call_and_shelve(self._content(path), encoder.fingerprint, view.value, stride, _refuse).clear()

    def _find(
        self, encoder: Encoder, content: str, view: View, stride: int, compute: Callable[[], Item]
    ) -> VideoFeatures | None:
        try:
            item = self._lookup(content, encoder.fingerprint, view.value, stride, compute)
        except _NotCached:
            return None
        return VideoFeatures(**item.contents)

    def _content(self, path: str | Path) -> str:
        return self._content_hash(*self._identity(path))

    @staticmethod
    def _identity(path: str | Path) -> tuple[str, int, int]:
        """Path, size and modification time: a file of which none changed has the same content."""
        path = Path(path).resolve()
        if not path.is_file():
            raise MediaError(f"{path.name} does not exist.")
        status = path.stat()
        return str(path), status.st_size, status.st_mtime_ns

    def _extract(
        self,
        encoder: Encoder,
        path: str | Path,
        content: str,
        views: Collection[View],
        stride: int,
        progress: Progress | None,
    ) -> dict[View, Item]:
        """Extracts into a new folder for each view, which the store then moves among its items."""
        reader = open_video(path)
        view_rows = {view: rows(encoder, view) for view in views}
        expected_rows = int(reader.duration * reader.average_rate)
        row_size = sum(row.nbytes for arrays in view_rows.values() for row in arrays.values())
        with ExitStack() as unfinished:
            with _room_lock:
                self._make_room(expected_rows * row_size)
                folders = {
                    view: unfinished.enter_context(ArrayFolder(self._unfinished, arrays, expected_rows))
                    for view, arrays in view_rows.items()
                }

            def write(chunk: Chunk) -> None:
                for view, folder in folders.items():
                    folder.append(chunk.arrays(view))
                FRAMES.inc(len(chunk.times))

            started = time.monotonic()
            stream(encoder, reader, views, stride, progress, write)
            EXTRACTION_SECONDS.inc(time.monotonic() - started)
            if self._content(path) != content:
                raise MediaError(f"{Path(path).name} was replaced while it was read: try again.")
            items = {view: folder.finish(file_facts(reader, content)) for view, folder in folders.items()}
            with _room_lock:
                self._make_room(0)  # where there were more frames than the file declares
        return items

    def _make_room(self, size: int) -> None:
        self._known_files.reduce_size(items_limit=MAX_KNOWN_FILES)
        EVICTIONS.inc(make_room(self._items, self._unfinished, size, self._size_limit))


class _NotCached(Exception):
    """Features were wanted only if cached, and aren't."""


def _refuse() -> Item:
    raise _NotCached


def _lock_of(*key: Any) -> threading.Lock:
    """The lock of these features, the same for all caches on one folder, as long as somebody holds it."""
    with _room_lock:
        return _key_locks.setdefault(key, threading.Lock())


# joblib drops everything cached when the source of a cached function changes: leave these two as they are.
def _features(content: str, fingerprint: str, view: str, stride: int, compute: Callable[[], Item]) -> Item:
    return compute()


def _content_hash(path: str, size: int, mtime_ns: int) -> str:
    return file_hash(path)


@dataclass(frozen=True)
class CacheParams:
    """Which features `cached_feature_extraction` takes from where.

    Attributes:
        cache_dir: the cache's folder.
        size_limit: bytes that the cache may take.
        stride: compute the features of every n-th frame and interpolate those between.
    """

    cache_dir: Path
    size_limit: int
    stride: int = 1


def cached_feature_extraction(yolo_model: Encoder, video_path: str | Path, cache_params: CacheParams) -> np.ndarray:
    """Features of a video's whole pictures: [num_frames, feature_dim] float16, memory-mapped.

    Errors as of `extract`.
    """
    return _cached(yolo_model, video_path, View.WHOLE, cache_params).features


def cached_yolo_predict(yolo_model: Encoder, video_path: str | Path, cache_params: CacheParams) -> np.ndarray:
    """Class probabilities of a video's frames: [num_frames, num_classes] float32, memory-mapped.

    Of the crop that Ultralytics makes of each. Errors as of `extract`.
    """
    return _cached(yolo_model, video_path, View.CROP, cache_params).probs


def _cached(encoder: Encoder, path: str | Path, view: View, params: CacheParams) -> VideoFeatures:
    return _cache(params.cache_dir, params.size_limit).get(encoder, path, view, params.stride)


@lru_cache(maxsize=8)
def _cache(cache_dir: Path, size_limit: int) -> FeatureCache:
    return FeatureCache(cache_dir, size_limit)
