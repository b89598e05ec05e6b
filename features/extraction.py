"""Extract features of a video's frames: a pipeline of decoding, preprocessing and encoding."""

import ctypes
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import numpy as np
import torch
from av.video.reformatter import VideoReformatter

from features.cells import CELL_DTYPE, SCALE_DTYPE, quantised
from features.checkpoints import file_hash
from features.encoder import Encoder
from features.motion import MOTION_DTYPE, MOTION_SIZE, History, Moment, describe
from features.sound import SOUND_DTYPE, SOUND_SIZE, Sound
from progress import UNTOLD, Progress
from video.preprocessing import View, small_grey
from video.reader import Frame, VideoReader, decode

MAX_BATCH_PIXELS = 16 * 1920 * 1088  # of decoded pictures in a batch; bounds memory for larger videos
MAX_PIXELS_ON_THE_WAY = 12 * MAX_BATCH_PIXELS  # in batches that wait or are encoded: 600 MB of decoded pictures
QUEUED_BATCHES = 1  # that wait for each worker thread, so that none waits for the decoder
MAX_BATCH_SPAN = 256  # decoded frames of a batch with a stride; bounds the number of their grey pictures
# By the device that encodes: a core in so many decodes, since encoding costs about three times as much on a CPU.
CORES_PER_DECODER_THREAD = {"cpu": 3, "cuda": 2}
GPU_WORKERS = 4  # at most; more of them wait for Python's lock
FEATURE_DTYPE = np.float16  # of cached features: half the disk of float32, and more digits than bfloat16

# Constants of glibc's malloc.h; the threshold is the largest that it accepts on 64 bits.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, MAX_MMAP_THRESHOLD = -1, -3, 1 << 25


_default_threads_lock = threading.Lock()


@dataclass(frozen=True)
class VideoFeatures:
    """The features of one video, for one view of its pictures.

    Attributes:
        times: [num_frames] float64, seconds on the video's timeline.
        duration: the video's length in seconds.
        frame_rate: the file's average frames per second.
        broken_frames: frames that could not be decoded.
        truncated: whether the file is cut off.
        content: hash of the file's bytes.
        features: [num_frames, feature_dim] `FEATURE_DTYPE`, of `View.WHOLE`; else None.
        motion: [num_frames, MOTION_SIZE] `MOTION_DTYPE`, of `View.WHOLE`; else None.
        cells: [num_frames, cell_dim] `CELL_DTYPE`, of `View.WHOLE`, as multiples of `cell_scale`; else None. cell_dim
            is 0 where the encoder gives no feature map.
        cell_scale: [num_frames] `SCALE_DTYPE`, of `View.WHOLE`; else None.
        sound: [num_frames, SOUND_SIZE] `SOUND_DTYPE`, of `View.WHOLE`; else None. It is 0 without sound.
        probs: [num_frames, num_classes] float32, of `View.CROP`; else None. num_classes is 0 where the encoder isn't a
            classifier.
    """

    times: np.ndarray
    duration: float
    frame_rate: float
    broken_frames: int
    truncated: bool
    content: str
    features: np.ndarray | None = None
    motion: np.ndarray | None = None
    cells: np.ndarray | None = None
    cell_scale: np.ndarray | None = None
    sound: np.ndarray | None = None
    probs: np.ndarray | None = None


class Chunk(NamedTuple):
    """The features of consecutive frames.

    Attributes:
        times: [num_frames] seconds.
        encoded: the encoder's output for all or every n-th of these frames, by name, [num_encoded, dim]: "probs" for
            `View.CROP`, "features" and "cells" for `View.WHOLE`.
        motion: [num_frames, MOTION_SIZE], None without `View.WHOLE`.
        sound: [num_frames, SOUND_SIZE], None without `View.WHOLE`.
    """

    times: np.ndarray
    encoded: dict[str, np.ndarray]
    motion: np.ndarray | None
    sound: np.ndarray | None

    def arrays(self, view: View) -> dict[str, np.ndarray]:
        """The arrays of a view's `VideoFeatures`, by name."""
        if view is View.CROP:
            return {"times": self.times, "probs": self.encoded["probs"]}
        cells, cell_scale = quantised(self.encoded["cells"])
        return {
            "times": self.times,
            "features": self.encoded["features"],
            "motion": self.motion,
            "cells": cells,
            "cell_scale": cell_scale,
            "sound": self.sound,
        }


class Batch(NamedTuple):
    """Consecutive frames on their way to the encoder.

    Attributes:
        times: seconds of all frames.
        moments: of all frames; empty without `View.WHOLE`.
        frames: every n-th of the frames, from the first on.
        sound: of all frames; None without `View.WHOLE`.
    """

    times: list[float]
    moments: list[Moment]
    frames: list[Frame]
    sound: np.ndarray | None = None


def extract(
    encoder: Encoder,
    path: str | Path,
    view: View = View.WHOLE,
    stride: int = 1,
    progress: Progress = UNTOLD,
) -> VideoFeatures:
    """Decodes a video and runs the encoder on its frames.

    One thread decodes; as many threads as cores preprocess and encode a batch each, a few with a GPU. The number of
    batches on their way is limited, so that only the result's memory grows with the video's length.

    Args:
        encoder: the model.
        path: a video file.
        view: whole pictures for features, or the encoder's own crop for class probabilities.
        stride: the encoder runs on every n-th frame, and its output is interpolated linearly in time between them.
            Motion is computed of all frames.
        progress: called regularly with the share done, in [0, 1].

    Raises:
        MediaError: the file doesn't exist.
        UnreadableVideo: no frame can be decoded.
    """
    reader = open_video(path, encoder.device.type)
    chunks: list[Chunk] = []
    stream(encoder, reader, {view}, stride, progress, chunks.append)
    parts = [chunk.arrays(view) for chunk in chunks]
    arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return VideoFeatures(**arrays, **file_facts(reader, file_hash(path)))


def rows(encoder: Encoder, view: View) -> dict[str, np.ndarray]:
    """An example of a row of each of a view's arrays, by name."""
    times = np.zeros((), np.float64)
    if view is View.CROP:
        return {"times": times, "probs": np.zeros(encoder.num_classes, np.float32)}
    return {
        "times": times,
        "features": np.zeros(encoder.feature_dim, FEATURE_DTYPE),
        "motion": np.zeros(MOTION_SIZE, MOTION_DTYPE),
        "cells": np.zeros(encoder.cell_dim, CELL_DTYPE),
        "cell_scale": np.zeros((), SCALE_DTYPE),
        "sound": np.zeros(SOUND_SIZE, SOUND_DTYPE),
    }


def stream(
    encoder: Encoder,
    reader: VideoReader,
    views: Collection[View],
    stride: int,
    progress: Progress,
    write: Callable[[Chunk], None],
) -> None:
    """Passes the video's chunks to `write`, in order. All views come from one decoding."""
    with closing(_encoded(encoder, reader, views, stride)) as encoded:
        for chunk in _interpolated(encoded, stride):
            write(chunk)
            if reader.duration > 0:
                progress(float(np.clip(chunk.times[-1] / reader.duration, 0, 1)))


def file_facts(reader: VideoReader, content: str) -> dict[str, Any]:
    """The attributes of `VideoFeatures` that describe the file; complete once it was read to its end."""
    return {
        "duration": reader.duration,
        "frame_rate": reader.average_rate,
        "broken_frames": reader.broken_frames,
        "truncated": reader.truncated,
        "content": content,
    }


def open_video(path: str | Path, device: str = "cpu") -> VideoReader:
    """Opens a video with as many decoder threads as suit the device that encodes, "cpu" or "cuda"."""
    return decode(path, threads=max(1, joblib.cpu_count() // CORES_PER_DECODER_THREAD[device]))


def _encoded(encoder: Encoder, reader: VideoReader, views: Collection[View], stride: int) -> Iterator[Chunk]:
    """Decodes in this thread and encodes every n-th frame in others. Yields the batches in order."""
    pending: deque[tuple[Future[Chunk], int]] = deque()
    num_workers, pixels = joblib.cpu_count(), 0
    if encoder.device.type == "cuda":
        num_workers = min(num_workers, GPU_WORKERS)
    with _worker_threads(num_workers) as pool:
        for batch in _batches(encoder, reader, stride, with_motion=View.WHOLE in views):
            pending.append((pool.submit(_encode, encoder, batch, views), _pixels(batch)))
            pixels += pending[-1][1]
            while len(pending) > num_workers * (1 + QUEUED_BATCHES) or pixels > MAX_PIXELS_ON_THE_WAY:
                future, done = pending.popleft()
                yield future.result()
                pixels -= done
        while pending:
            yield pending.popleft()[0].result()


def _pixels(batch: Batch) -> int:
    return sum(frame.picture.width * frame.picture.height for frame in batch.frames)


def _encode(encoder: Encoder, batch: Batch, views: Collection[View]) -> Chunk:
    encoded = {}
    for view in views:
        pictures = encoder.preprocess(batch.frames, view)
        if view is View.CROP:
            encoded["probs"] = encoder.probabilities(pictures)
        else:
            features, encoded["cells"] = encoder.features_and_cells(pictures)
            encoded["features"] = features.astype(FEATURE_DTYPE)
    return Chunk(np.array(batch.times), encoded, describe(batch.moments) if batch.moments else None, batch.sound)


@contextmanager
def _worker_threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """Opens a pool of threads that each compute on one core.

    Several batches on one core each are faster than one batch on all cores: nothing waits for the slowest part of a
    layer, which takes long where other processes use a core too. And a batch gives the same result, bit for bit.
    """
    _keep_freed_memory()
    with _default_threads_lock:  # otherwise a second extraction could read what the first one has set
        default_threads = _default_threads()
    pool = ThreadPoolExecutor(count, "encoder", initializer=_compute_on_one_core)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(default_threads)  # the workers' setting is also that of threads started later


def _compute_on_one_core() -> None:
    torch.get_num_threads()  # a thread's first call takes the process's setting, which would undo an earlier own one
    torch.set_num_threads(1)


@lru_cache(maxsize=1)
def _keep_freed_memory() -> None:
    """Makes glibc keep freed memory.

    By default it returns each large block to the kernel, which fills the next layer's block with zeros: that takes 5 to
    8 % of an extraction in bfloat16.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # other C libraries don't have it
        libc.mallopt(M_MMAP_THRESHOLD, MAX_MMAP_THRESHOLD)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


@lru_cache(maxsize=1)
def _default_threads() -> int:
    return torch.get_num_threads()


def _batches(encoder: Encoder, reader: VideoReader, stride: int, with_motion: bool) -> Iterator[Batch]:
    """Yields the reader's frames in batches of one size and rotation."""
    history, reformatter = History(), VideoReformatter()
    sound = Sound(reader.path, reader.average_rate) if with_motion and reader.has_sound else None

    def whole(batch: Batch) -> Batch:
        if not with_motion:
            return batch
        silence = np.zeros((len(batch.times), SOUND_SIZE), SOUND_DTYPE)
        return batch._replace(sound=silence if sound is None else sound.at(batch.times))

    with closing(sound) if sound is not None else nullcontext():
        batch = Batch([], [], [])
        for index, frame in enumerate(reader):
            if index % stride == 0:
                full = batch.frames and _is_full(batch, frame, encoder)
                if full or (batch.frames and _geometry(frame) != _geometry(batch.frames[0])):
                    yield whole(batch)
                    batch = Batch([], [], [])
                batch.frames.append(frame)
            batch.times.append(frame.time)
            if with_motion:
                batch.moments.append(history.add(frame.time, small_grey(reformatter, frame, encoder.region)))
        if batch.frames:
            yield whole(batch)


def _is_full(batch: Batch, frame: Frame, encoder: Encoder) -> bool:
    pixels = frame.picture.width * frame.picture.height
    size = max(1, min(encoder.batch_size, MAX_BATCH_PIXELS // pixels))
    return len(batch.frames) >= size or len(batch.times) >= MAX_BATCH_SPAN


def _geometry(frame: Frame) -> tuple[int, int, int]:
    return frame.picture.width, frame.picture.height, frame.rotation


def _interpolated(chunks: Iterator[Chunk], stride: int) -> Iterator[Chunk]:
    """Interpolates between every n-th frame, linearly in time.

    So a threshold is crossed in the middle between two known frames; to hold the earlier one would move every boundary
    late by half a stride. Interpolated probabilities still sum to 1. Frames after the last known one repeat it.
    """
    if stride == 1:
        yield from chunks
        return
    previous = None
    for chunk in chunks:
        if previous is not None:
            yield _fill(previous, stride, chunk)
        previous = chunk
    if previous is not None:
        yield _fill(previous, stride, None)


def _fill(chunk: Chunk, stride: int, following: Chunk | None) -> Chunk:
    end = following if following is not None else chunk
    known_times = np.append(chunk.times[::stride], end.times[0] if following is not None else np.inf)
    left = np.arange(len(chunk.times)) // stride
    gap = np.maximum(known_times[left + 1] - known_times[left], np.finfo(float).tiny)
    weight = ((chunk.times - known_times[left]) / gap).astype(np.float32)[:, None]

    last = slice(0, 1) if following is not None else slice(-1, None)

    def fill(known: np.ndarray, next_rows: np.ndarray) -> np.ndarray:
        rows = np.concatenate([known, next_rows[last]])
        return (rows[left] * (1 - weight) + rows[left + 1] * weight).astype(known.dtype)

    return chunk._replace(encoded={name: fill(known, end.encoded[name]) for name, known in chunk.encoded.items()})
