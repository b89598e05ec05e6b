"""Features of videos, cached on disk by content.

cache = FeatureCache(cache_dir, size_limit=20 * 10**9)
video = cache.get(encoder, "video.mp4")  # decodes the first time
video.features[video.times > 2.5]
"""

import errno
import threading
import time
from collections.abc import Callable, Collection
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import joblib
import numpy as np

from errors import MediaError
from features.array_store import ArrayFolder, ArrayStore, Item
from features.attempts import Attempts
from features.cache_folder import CacheFolder
from features.counters import EVICTIONS, EXTRACTION_SECONDS, FRAMES, LOOKUPS
from features.encoder import Encoder
from features.extraction import Chunk, VideoFeatures, extract, file_facts, open_video, rows, stream
from features.file_hashes import FileHashes
from progress import UNTOLD, Progress
from video.preprocessing import View

__all__ = [
    "CacheParams",
    "FeatureCache",
    "VideoFeatures",
    "cached_feature_extraction",
    "cached_yolo_predict",
    "extract",
]

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
        progress: Progress = UNTOLD,
    ) -> VideoFeatures:
        """Returns the video's features, extracted where they aren't cached. Arguments and errors as of `extract`."""
        return self.get_views(encoder, path, {view}, stride, progress)[view]

    def get_views(
        self,
        encoder: Encoder,
        path: str | Path,
        views: Collection[View],
        stride: int = 1,
        progress: Progress = UNTOLD,
    ) -> dict[View, VideoFeatures]:
        """Returns the features of several views, as `get`; the missing ones are extracted in one decoding."""
        content = self._hashes.of(path)
        with ExitStack() as locks:
            for view in sorted(views):  # always in the same order, against deadlocks
                locks.enter_context(_lock_of(self.folder.root, content, encoder.fingerprint, view, stride))
            found = {view: self._find(encoder, content, view, stride) for view in views}
            missing = [view for view in views if found[view] is None]
            LOOKUPS.labels("hit").inc(len(views) - len(missing))
            LOOKUPS.labels("miss").inc(len(missing))
            items: dict[View, Item] = {}
            if missing:
                with self.folder.writing(), self._attempts.of(content, Path(path).name):
                    items = self._extract(encoder, path, content, missing, stride, progress)
            for view, item in items.items():
                self._lookup.call(content, encoder.fingerprint, view.value, stride, lambda item=item: item)
                found[view] = VideoFeatures(**item.contents)
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
        return self._find(encoder, content, view, stride) if content else None

    def has(self, encoder: Encoder, path: str | Path, view: View = View.WHOLE, stride: int = 1) -> bool:
        """Whether the cache has features of the video, intact or not, without opening them."""
        content = self._hashes.known(path)
        if content is None:
            return False
        return self._lookup.check_call_in_cache(content, encoder.fingerprint, view.value, stride, _nothing)

    def drop(self, encoder: Encoder, path: str | Path, view: View = View.WHOLE, stride: int = 1) -> None:
        """Removes the video's features. Arrays in use stay valid."""
        content = self._hashes.known(path)
        if content is not None:
            self._lookup.call_and_shelve(content, encoder.fingerprint, view.value, stride, _nothing).clear()

    def forget(self, path: str | Path) -> None:
        """Forgets what is known of a file: its content, which is looked at again, and failed attempts to read it."""
        content = self._hashes.known(path)
        if content is not None:
            self._hashes.forget(path)
            self._attempts.forget(content)

    def _find(self, encoder: Encoder, content: str, view: View, stride: int) -> VideoFeatures | None:
        """The features, None where they aren't cached or are damaged."""
        # A reference computes nothing when it is read, unlike a call.
        reference = self._lookup.call_and_shelve(content, encoder.fingerprint, view.value, stride, _nothing)
        try:
            return VideoFeatures(**reference.get().contents)
        except (OSError, KeyError, TypeError) as error:
            if getattr(error, "errno", None) in (errno.EMFILE, errno.ENFILE):  # says nothing about the item
                raise
            return None

    def _extract(
        self,
        encoder: Encoder,
        path: str | Path,
        content: str,
        views: Collection[View],
        stride: int,
        progress: Progress,
    ) -> dict[View, Item]:
        """Extracts each view into a new folder, which the store will move among its items."""
        reader = open_video(path, encoder.device.type)
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


def _nothing() -> None:
    """Where nothing was extracted: the store keeps no item then."""


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
