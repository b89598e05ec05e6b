"""Decode video frames with their times, and map Label Studio's frames to video frames.

Label Studio numbers frames 1, 2, 3 … by `frameRate` in the labeling config, whatever the file's own rate is. A labeling frame is
therefore a moment, not a picture: frame f stands for (f - 1/2) / frameRate seconds, the middle of the time that it covers. Which
picture is on the screen at that moment follows from the presentation times of the file's frames.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from av.stream import Disposition

from errors import MediaError, UnreadableVideo

DEFAULT_FRAME_RATE = 24.0  # what Label Studio's front end takes where the config or the task names no usable rate


class Frame(NamedTuple):
    """One decoded picture and when it is shown."""

    time: float  # seconds since the container's start
    picture: av.VideoFrame  # as decoded: no conversion of pixels, no rotation
    rotation: int  # degrees clockwise that make the picture upright: 0, 90, 180 or 270


class VideoReader(Iterator[Frame]):
    """Iterator over a video's frames in presentation order; memory does not grow with the video's length.

    Attributes:
        average_rate: frames per second that the file declares (0.0 where it declares none).
        duration: seconds. Declared by the container until the iteration ends; then no shorter than the frames read, and no longer
            than them where the file is cut off.
        broken_frames: frames skipped so far because they could not be decoded.
        truncated: whether the file ends before its declared end; known when the iteration has ended.
    """

    def __init__(self, path: str | Path, threads: int = 0) -> None:
        self.average_rate = 0.0
        self.duration = 0.0
        self.broken_frames = 0
        self.truncated = False
        self._path = Path(path)
        self._container = self._open()
        self._stream = self._video_stream()
        self._stream.thread_type = "AUTO"
        self._stream.codec_context.thread_count = threads
        self._start = max(self._container.start_time or 0, 0) / av.time_base
        self.average_rate = float(self._stream.average_rate or self._stream.guessed_rate or 0)
        self.duration = (self._container.duration or 0) / av.time_base
        self._frames = self._decode()

    def __next__(self) -> Frame:
        return next(self._frames)

    def _open(self) -> av.container.InputContainer:
        if not self._path.is_file():
            raise MediaError(f"{self._path.name} does not exist.")
        try:
            return av.open(str(self._path.resolve()))
        except av.FFmpegError as error:
            raise UnreadableVideo(f"{self._path.name} is not a readable video file: {error}.") from error

    def _video_stream(self) -> av.VideoStream:
        for stream in self._container.streams.video:
            if not stream.disposition & Disposition.attached_pic and stream.codec_context is not None:
                return stream
        raise UnreadableVideo(f"{self._path.name} has no video stream.")

    def _decode(self) -> Iterator[Frame]:
        interval = 1 / (self.average_rate or DEFAULT_FRAME_RATE)
        time = -interval
        with self._container:
            for packet in self._container.demux(self._stream):
                try:
                    pictures = packet.decode()
                except av.FFmpegError:
                    self.broken_frames += 1
                    continue
                for picture in pictures:
                    if picture.pts is None:
                        time += interval
                    else:
                        time = float(picture.pts * self._stream.time_base) - self._start
                    yield Frame(time, picture, -picture.rotation % 360)
        if time < 0:
            raise UnreadableVideo(f"No frame of {self._path.name} can be decoded.")
        self.duration = max(self.duration, time + interval)


def decode(path: str | Path, threads: int = 0) -> VideoReader:
    """Open a video and iterate over its frames.

    Args:
        path: a video file.
        threads: decoder threads; 0 leaves the number to FFmpeg (one per core).

    Raises:
        MediaError: the file doesn't exist.
        UnreadableVideo: no frame can be decoded, with the reason; raised on opening or by the first `next`.
    """
    return VideoReader(path, threads)


def frame_rate(value: str | None, task_data: dict[str, Any]) -> float:
    """The labeling frame rate, by the rules of Label Studio's front end.

    Args:
        value: the attribute `frameRate` of the control's video object: a number, `$name` for a value of the task's data, or None.
        task_data: the task's `data`.

    Returns:
        Frames per second: the number; 24 where it is missing or unreadable; its reciprocal below 1 (seconds per frame).
    """
    if isinstance(value, str) and value.startswith("$"):
        value = task_data.get(value[1:])
    try:
        rate = float(value)
    except (TypeError, ValueError):
        return DEFAULT_FRAME_RATE
    if not math.isfinite(rate) or rate <= 0:
        return DEFAULT_FRAME_RATE
    return rate if rate >= 1 else 1 / rate


def labeling_frames(times: np.ndarray, duration: float, frame_rate: float) -> np.ndarray:
    """For every labeling frame, the video frame on the screen at its moment.

    Args:
        times: [num_frames] seconds since the container's start, ascending.
        duration: the video's length in seconds.
        frame_rate: labeling frames per second.

    Returns:
        [num_labeling_frames] int64; entry f - 1 is the index into `times` of the picture shown at (f - 1/2) / frame_rate.
    """
    count = max(1, round(duration * frame_rate))
    moments = (np.arange(count) + 0.5) / frame_rate
    return np.clip(np.searchsorted(times, moments, side="right") - 1, 0, len(times) - 1)
