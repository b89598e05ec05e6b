"""From a video file to the features of its frames: extraction, and a cache of its results keyed by content."""

import hashlib
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import joblib
import numpy as np

from utils.encoder import Encoder
from utils.video import VideoReader, decode

BATCH_SIZE = 32


@dataclass(frozen=True)
class VideoFeatures:
    """What an encoder makes of one video.

    Attributes:
        features: [num_frames, feature_dim] float32.
        probs: [num_frames, num_classes] float32 class probabilities; num_classes is 0 where the encoder is no classifier.
        times: [num_frames] float64, seconds since the container's start.
        duration: the video's length in seconds.
        frame_rate: frames per second that the file declares.
        broken_frames: frames that could not be decoded.
        truncated: whether the file is cut off.
        content: hash of the file's bytes ("" where nothing was cached).
    """

    features: np.ndarray
    probs: np.ndarray
    times: np.ndarray
    duration: float
    frame_rate: float
    broken_frames: int
    truncated: bool
    content: str = ""


@dataclass(frozen=True)
class CacheParams:
    """Where features are cached, and of which frames.

    Attributes:
        cache_dir: the cache's folder.
        size_limit: bytes that the cache may take.
        stride: features of every n-th frame are computed, the others interpolated.
    """

    cache_dir: Path
    size_limit: int
    stride: int = 1


def extract(
    encoder: Encoder, path: str | Path, stride: int = 1, progress: Callable[[float], None] | None = None
) -> VideoFeatures:
    """Decode a video and run the encoder on its frames.

    Args:
        encoder: the model.
        path: a video file.
        stride: run the encoder on every n-th frame and interpolate linearly in time between them.
        progress: called now and then with the fraction done, in [0, 1].

    Raises:
        MediaError: the file doesn't exist.
        UnreadableVideo: no frame can be decoded.
    """
    reader = decode(path)
    times: list[float] = []
    outputs = []
    for batch in _batches(encoder, reader, times, stride):
        outputs.append(encoder.forward(batch))
        if progress is not None:
            progress(min(1.0, times[-1] / reader.duration) if reader.duration else 0.0)
    features, probs = (np.concatenate(parts) for parts in zip(*outputs, strict=True))
    moments = np.array(times)
    return VideoFeatures(
        _fill(features, moments, stride),
        _fill(probs, moments, stride),
        moments,
        reader.duration,
        reader.average_rate,
        reader.broken_frames,
        reader.truncated,
    )


def _batches(encoder: Encoder, reader: VideoReader, times: list[float], stride: int) -> Iterator[Any]:
    def wanted() -> Iterator[Any]:
        for index, frame in enumerate(reader):
            times.append(frame.time)
            if index % stride == 0:
                yield frame

    frames = wanted()
    while batch := list(islice(frames, BATCH_SIZE)):
        yield encoder.preprocess(batch)


def _fill(computed: np.ndarray, times: np.ndarray, stride: int) -> np.ndarray:
    """Values of all frames from those of every n-th, linear in time; the last one is held to the end.

    Between two known frames a threshold is then crossed at their middle on average, where holding the earlier one would move
    every boundary late by half a stride. Interpolated probabilities stay a distribution.
    """
    if stride == 1:
        return computed
    known = times[::stride]
    right = np.clip(np.searchsorted(known, times, side="right"), 1, max(1, len(known) - 1)) if len(known) > 1 else None
    if right is None:
        return np.repeat(computed, len(times), axis=0)
    weight = np.clip((times - known[right - 1]) / (known[right] - known[right - 1]), 0, 1).astype(np.float32)[:, None]
    return computed[right - 1] * (1 - weight) + computed[right] * weight


class FeatureCache:
    """Features on disk, found again by the video's content and the encoder's fingerprint.

    A renamed video is found, a replaced one is not. Arrays are memory-mapped. Several threads and processes may share a folder:
    within a process, two requests for the same features extract once; between processes the later result replaces the earlier.

    Args:
        cache_dir: the folder; made when missing.
        size_limit: bytes; entries not used for longest are dropped. The entry just written stays even if it alone is larger.
    """

    def __init__(self, cache_dir: str | Path, size_limit: int) -> None:
        self.size_limit = size_limit
        self._memory = joblib.Memory(str(cache_dir), mmap_mode="r", verbose=0)
        self._features = self._memory.cache(_compute_features, ignore=["compute"])
        self._contents = self._memory.cache(_hash_content)
        self._locks: dict[tuple, threading.Lock] = defaultdict(threading.Lock)
        self._lock = threading.Lock()

    def get(
        self, encoder: Encoder, path: str | Path, stride: int = 1, progress: Callable[[float], None] | None = None
    ) -> VideoFeatures:
        """The video's features, extracted if they aren't cached. Raises what `extract` raises."""
        return self._lookup(encoder, path, stride, lambda: vars(extract(encoder, path, stride, progress)))

    def peek(self, encoder: Encoder, path: str | Path, stride: int = 1) -> VideoFeatures | None:
        """The video's features if they are cached; decodes nothing."""

        def refuse() -> dict[str, Any]:
            raise _NotCached

        try:
            return self._lookup(encoder, path, stride, refuse)
        except _NotCached:
            return None

    def _lookup(
        self, encoder: Encoder, path: str | Path, stride: int, compute: Callable[[], dict[str, Any]]
    ) -> VideoFeatures:
        path = Path(path).resolve()
        status = path.stat()
        content = self._contents(str(path), status.st_size, status.st_mtime_ns)
        key = (content, encoder.fingerprint, stride)
        with self._lock:
            lock = self._locks[key]
        with lock:
            found = self._features(content, encoder.fingerprint, stride, compute)
        return VideoFeatures(**{**found, "content": content})


class _NotCached(Exception):
    """Features were asked for only if cached, and aren't."""


def _compute_features(
    content: str, fingerprint: str, stride: int, compute: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """Cached by joblib, which drops all entries when this source changes: leave it alone."""
    return compute()


def _hash_content(path: str, size: int, mtime_ns: int) -> str:
    """Cached by joblib, which drops all entries when this source changes: leave it alone."""
    return _hash_file(path)


def _hash_file(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def cached_feature_extraction(yolo_model: Encoder, video_path: str | Path, cache_params: CacheParams) -> np.ndarray:
    """Features of a video's frames: [num_frames, feature_dim] float32, memory-mapped."""
    return _cache(cache_params).get(yolo_model, video_path, cache_params.stride).features


def cached_yolo_predict(yolo_model: Encoder, video_path: str | Path, cache_params: CacheParams) -> np.ndarray:
    """Class probabilities of a video's frames: [num_frames, num_classes] float32, memory-mapped."""
    return _cache(cache_params).get(yolo_model, video_path, cache_params.stride).probs


def _cache(params: CacheParams) -> FeatureCache:
    return FeatureCache(params.cache_dir, params.size_limit)
