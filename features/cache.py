"""Features of videos, cached on disk by content.

cache = FeatureCache(cache_dir, size_limit=20 * 10**9)
video = cache.get(encoder, "video.mp4")  # decodes the first time
video.features[video.times > 2.5]
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import joblib
import numpy as np

from errors import MediaError
from features.array_store import ArrayFolder, ArrayStore, Item, make_room
from features.checkpoints import file_hash
from features.encoder import Encoder
from features.extraction import Progress, VideoFeatures, extract, file_facts, open_video, stream

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
    """Features on disk, found again by the video's content, the encoder's fingerprint and the stride.

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
        self, encoder: Encoder, path: str | Path, stride: int = 1, progress: Progress | None = None
    ) -> VideoFeatures:
        """The video's features, extracted if they aren't cached. Arguments and errors are those of `extract`."""
        content = self._content(path)

        def compute() -> Item:
            return self._extract(encoder, path, content, stride, progress)

        with _lock_of(self._items, content, encoder.fingerprint, stride):
            return VideoFeatures(**self._lookup(content, encoder.fingerprint, stride, compute).contents)

    def peek(self, encoder: Encoder, path: str | Path, stride: int = 1) -> VideoFeatures | None:
        """The video's features if they are cached; never decodes, never waits for an extraction."""
        try:
            item = self._lookup(self._content(path), encoder.fingerprint, stride, _refuse)
        except _NotCached:
            return None
        return VideoFeatures(**item.contents)

    def _content(self, path: str | Path) -> str:
        path = Path(path).resolve()
        if not path.is_file():
            raise MediaError(f"{path.name} does not exist.")
        status = path.stat()
        return self._content_hash(str(path), status.st_size, status.st_mtime_ns)

    def _extract(
        self, encoder: Encoder, path: str | Path, content: str, stride: int, progress: Progress | None
    ) -> Item:
        """Extracts into a new folder, which the store then moves among its items."""
        reader = open_video(path)
        rows = {
            "times": np.zeros((), np.float64),
            "features": np.zeros(encoder.feature_dim, np.float32),
            "probs": np.zeros(encoder.num_classes, np.float32),
        }
        expected_rows = int(reader.duration * reader.average_rate)
        with _room_lock:
            self._make_room(expected_rows * sum(row.nbytes for row in rows.values()))
            folder = ArrayFolder(self._unfinished, rows, expected_rows)
        with folder:
            stream(encoder, reader, stride, progress, lambda chunk: folder.append(chunk._asdict()))
            if self._content(path) != content:
                raise MediaError(f"{Path(path).name} was replaced while it was read: try again.")
            item = folder.finish(file_facts(reader, content))
            with _room_lock:
                self._make_room(0)  # where there were more frames than the file declares
        return item

    def _make_room(self, size: int) -> None:
        self._known_files.reduce_size(items_limit=MAX_KNOWN_FILES)
        make_room(self._items, self._unfinished, size, self._size_limit)


class _NotCached(Exception):
    """Features were wanted only if cached, and aren't."""


def _refuse() -> Item:
    raise _NotCached


def _lock_of(*key: Any) -> threading.Lock:
    """The lock of these features, the same for all caches on one folder, as long as somebody holds it."""
    with _room_lock:
        return _key_locks.setdefault(key, threading.Lock())


# joblib drops everything cached when the source of a cached function changes: leave these two as they are.
def _features(content: str, fingerprint: str, stride: int, compute: Callable[[], Item]) -> Item:
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
    """Features of a video's frames: [num_frames, feature_dim] float32, memory-mapped. Errors as of `extract`."""
    return _cached(yolo_model, video_path, cache_params).features


def cached_yolo_predict(yolo_model: Encoder, video_path: str | Path, cache_params: CacheParams) -> np.ndarray:
    """Class probabilities of a video's frames: [num_frames, num_classes] float32, memory-mapped.

    From the same decoding and forward pass as the features. Errors as of `extract`.
    """
    return _cached(yolo_model, video_path, cache_params).probs


def _cached(encoder: Encoder, path: str | Path, params: CacheParams) -> VideoFeatures:
    return _cache(params.cache_dir, params.size_limit).get(encoder, path, params.stride)


@lru_cache(maxsize=8)
def _cache(cache_dir: Path, size_limit: int) -> FeatureCache:
    return FeatureCache(cache_dir, size_limit)
