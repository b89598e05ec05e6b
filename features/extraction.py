"""From a video file to what an encoder makes of its frames: a pipeline of decoding, preparing and encoding."""

import ctypes
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import numpy as np
import torch

from features.checkpoints import file_hash
from features.encoder import Encoder
from video.preprocessing import View
from video.reader import Frame, VideoReader, decode

BATCH_SIZE = 16  # frames; a larger batch isn't faster on a CPU core
MAX_BATCH_PIXELS = 16 * 1920 * 1088  # of decoded pictures in a batch: bounds memory for larger videos
QUEUED_BATCHES = 1  # waiting for each worker, so that none waits for the decoder
WORKERS_PER_DECODER_THREAD = 3  # about what encoding costs, measured in decoding
FEATURE_DTYPE = np.float16  # of features as they are kept: half of the disk, at no loss of F1

# glibc's malloc.h; the threshold is the largest that it takes on 64 bits.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, MAX_MMAP_THRESHOLD = -1, -3, 1 << 25

Progress = Callable[[float], None]

_default_threads_lock = threading.Lock()


@dataclass(frozen=True)
class VideoFeatures:
    """What an encoder makes of one video, of one view of its pictures.

    Attributes:
        times: [num_frames] float64, seconds on the video's timeline.
        duration: the video's length in seconds.
        frame_rate: the file's average frames per second.
        broken_frames: frames that could not be decoded.
        truncated: whether the file is cut off.
        content: hash of the file's bytes.
        features: [num_frames, feature_dim] `FEATURE_DTYPE`, of `View.WHOLE`; else None.
        probs: [num_frames, num_classes] float32, of `View.CROP`; else None. num_classes is 0 where the encoder is no
            classifier.
    """

    times: np.ndarray
    duration: float
    frame_rate: float
    broken_frames: int
    truncated: bool
    content: str
    features: np.ndarray | None = None
    probs: np.ndarray | None = None


class Chunk(NamedTuple):
    """Consecutive frames and what the encoder gave for them, or for every n-th of them.

    Attributes:
        times: [num_frames] seconds.
        arrays: for each view that was asked for, its array of `VideoFeatures` by name: [num_frames, numbers].
    """

    times: np.ndarray
    arrays: dict[View, dict[str, np.ndarray]]


def extract(
    encoder: Encoder,
    path: str | Path,
    view: View = View.WHOLE,
    stride: int = 1,
    progress: Progress | None = None,
) -> VideoFeatures:
    """Decodes a video and runs the encoder on its frames.

    One thread decodes, and as many as there are cores prepare and encode a batch each; the batches in flight are
    limited, so that memory doesn't depend on the video's length but for the result.

    Args:
        encoder: the model.
        path: a video file.
        view: what the encoder is shown: the whole pictures, which give features, or its own crop of them, which gives
            class probabilities.
        stride: run the encoder on every n-th frame, and interpolate linearly in time between them.
        progress: called now and then with the fraction done, in [0, 1].

    Raises:
        MediaError: the file doesn't exist.
        UnreadableVideo: no frame can be decoded.
    """
    reader = open_video(path)
    chunks: list[Chunk] = []
    stream(encoder, reader, {view}, stride, progress, chunks.append)
    times = np.concatenate([chunk.times for chunk in chunks])
    arrays = {name: np.concatenate([chunk.arrays[view][name] for chunk in chunks]) for name in chunks[0].arrays[view]}
    return VideoFeatures(times, **file_facts(reader, file_hash(path)), **arrays)


def rows(encoder: Encoder, view: View) -> dict[str, np.ndarray]:
    """A row of each array that a view gives, by name."""
    if view is View.CROP:
        return {"probs": np.zeros(encoder.num_classes, np.float32)}
    return {"features": np.zeros(encoder.feature_dim, FEATURE_DTYPE)}


def stream(
    encoder: Encoder,
    reader: VideoReader,
    views: Collection[View],
    stride: int,
    progress: Progress | None,
    write: Callable[[Chunk], None],
) -> None:
    """Passes the video's chunks to `write`, in order; all views are of the same decoding."""
    with closing(_encoded(encoder, reader, views, stride)) as encoded:
        for chunk in _interpolated(encoded, stride):
            write(chunk)
            if progress is not None and reader.duration > 0:
                progress(float(np.clip(chunk.times[-1] / reader.duration, 0, 1)))


def file_facts(reader: VideoReader, content: str) -> dict[str, Any]:
    """What `VideoFeatures` says about the file, complete when it was read to its end."""
    return {
        "duration": reader.duration,
        "frame_rate": reader.average_rate,
        "broken_frames": reader.broken_frames,
        "truncated": reader.truncated,
        "content": content,
    }


def open_video(path: str | Path) -> VideoReader:
    return decode(path, threads=max(1, joblib.cpu_count() // WORKERS_PER_DECODER_THREAD))


def _encoded(encoder: Encoder, reader: VideoReader, views: Collection[View], stride: int) -> Iterator[Chunk]:
    """Decodes in this thread and encodes in others; gives each batch's every n-th frame, in order."""
    pending: deque[tuple[list[float], Future]] = deque()
    num_workers = joblib.cpu_count()
    with _worker_threads(num_workers) as pool:
        for times, frames in _batches(reader, stride):
            pending.append((times, pool.submit(_encode, encoder, frames, views)))
            if len(pending) > num_workers * (1 + QUEUED_BATCHES):
                yield _finished(*pending.popleft())
        while pending:
            yield _finished(*pending.popleft())


def _encode(encoder: Encoder, frames: Sequence[Frame], views: Collection[View]) -> dict[View, dict[str, np.ndarray]]:
    arrays = {}
    for view in views:
        batch = encoder.preprocess(frames, view)
        if view is View.CROP:
            arrays[view] = {"probs": encoder.probabilities(batch)}
        else:
            arrays[view] = {"features": encoder.features(batch).astype(FEATURE_DTYPE)}
    return arrays


def _finished(times: list[float], encoding: Future) -> Chunk:
    return Chunk(np.array(times), encoding.result())


@contextmanager
def _worker_threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that each compute on one core.

    Several batches on one core each are faster than one batch on all: nothing waits for the slowest part of a layer,
    which takes long where other processes use a core too. And the same batch gives the same numbers, bit for bit.
    """
    _keep_freed_memory()
    with _default_threads_lock:  # else, a second extraction that starts just now may see what the first one sets
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
    """Lets glibc keep what the process has freed.

    By default it gives each large block back to the kernel, which fills the next layer's with zeros again: 5 to 8 % of
    an extraction in bfloat16.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # other C libraries have none
        libc.mallopt(M_MMAP_THRESHOLD, MAX_MMAP_THRESHOLD)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


@lru_cache(maxsize=1)
def _default_threads() -> int:
    return torch.get_num_threads()


def _batches(reader: VideoReader, stride: int) -> Iterator[tuple[list[float], list[Frame]]]:
    """The times of consecutive frames, and every n-th of these frames; all of one size, as the encoder wants them."""
    times: list[float] = []
    frames: list[Frame] = []
    for index, frame in enumerate(reader):
        if index % stride == 0:
            if frames and (len(frames) == _batch_size(frame) or _geometry(frame) != _geometry(frames[0])):
                yield times, frames
                times, frames = [], []
            frames.append(frame)
        times.append(frame.time)
    if frames:
        yield times, frames


def _geometry(frame: Frame) -> tuple[int, int, int]:
    return frame.picture.width, frame.picture.height, frame.rotation


def _batch_size(frame: Frame) -> int:
    return max(1, min(BATCH_SIZE, MAX_BATCH_PIXELS // (frame.picture.width * frame.picture.height)))


def _interpolated(chunks: Iterator[Chunk], stride: int) -> Iterator[Chunk]:
    """Fills in the frames between every n-th.

    Linear in time: a threshold is then crossed in the middle between two known frames, where holding the earlier one
    would move every boundary late by half a stride. Interpolated probabilities still sum to 1. Frames after the last
    known one repeat it.
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

    filled = {
        view: {name: fill(known, end.arrays[view][name]) for name, known in arrays.items()}
        for view, arrays in chunk.arrays.items()
    }
    return Chunk(chunk.times, filled)
