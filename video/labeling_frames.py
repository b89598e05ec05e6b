"""Map Label Studio's frames to moments, and to the file's pictures that are shown then.

Label Studio counts frames 1, 2, 3 … by `frameRate` in the labeling config, not by the file's own rate. So a labeling
frame is a moment, not a picture: frame f stands for (f - 1/2) / frameRate seconds, the middle of the time that it
covers. The picture on the screen at that moment follows from the presentation times of the file's frames.

    shown = labeling_frames(times, duration, frame_rate=25)  # shown[f - 1]: index of the picture at frame f
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from errors import InvalidConfig, InvalidTask
from video.task_data import task_value

DEFAULT_FRAME_RATE = 24.0  # of Label Studio's front end where config and task name no usable rate
MAX_LABELING_FRAMES = 10_000_000  # 111 hours at 25 frames a second; an array of them takes 80 MB
# Beyond this number, 11 hours at 25 frames a second, a picture may be shown for so many labeling frames on average. A
# file of twelve pictures may say that it lasts days, and each training would read all of its labeling frames.
MANY_LABELING_FRAMES, MAX_FRAMES_OF_A_PICTURE = 1_000_000, 100
MAX_FRAME_RATE = 1000.0  # labeling frames per second, more than any video has; bounds the arrays
MAX_OWN_RATE, USUAL_RATE = 240.0, 25.0
RATE_TOLERANCE = 0.0005  # relative; half the difference of 29.97 and 30, and larger than rounding errors


def frame_rate(value: str | None, task_data: dict[str, Any]) -> float:
    """Returns a task's labeling frame rate, by the rules of Label Studio's front end.

    Args:
        value: the attribute `frameRate` (or `framerate`) of the video tag: a number, `$name` or `$name.name` for a
            value of the task's data, or None.
        task_data: the task's `data`.

    Returns:
        Frames per second: the number; its reciprocal where it is below 1 (seconds per frame); 24 where there is none.

    Raises:
        InvalidTask: the rate is more than `MAX_FRAME_RATE`.
    """
    rate = _rate(task_value(value, task_data) if value and value.startswith("$") else value)
    if rate is None:
        return DEFAULT_FRAME_RATE
    if rate > MAX_FRAME_RATE:
        raise InvalidTask(
            f'The task\'s data makes frameRate="{value}" {rate:g} frames per second; at most {MAX_FRAME_RATE:g} are '
            "possible. Set it to the video's frame rate, for example 25."
        )
    return rate


def own_rate(average: float) -> float:
    """The labeling frame rate at which each frame of a video is a labeling frame.

    Args:
        average: the video's average frame rate, 0 where it isn't known.

    Returns:
        The rate, rounded to thousandths; 25 where Label Studio would take it for seconds per frame (below 1), and where
        no camera takes as many (above 240): such files are damaged.
    """
    return round(average, 3) if 1 <= average <= MAX_OWN_RATE else USUAL_RATE


def check_frame_rate(tag: str, value: str | None) -> None:
    """Checks the attribute `frameRate`, unless it refers to the task's data.

    Args:
        tag: the beginning of the video tag for the message, such as `<Video name="video"`.
        value: the attribute, or None.

    Raises:
        InvalidConfig: the value is no number above 0, or means more than `MAX_FRAME_RATE` frames per second. Label
            Studio's front end would silently use 24 for most of these.
    """
    if value is None or not value.strip() or value.startswith("$"):
        return
    rate = _rate(value)
    if rate is None or rate > MAX_FRAME_RATE:
        raise InvalidConfig(
            f'{tag} frameRate="{value}">: it must be the frames per second, a number above 0 and at most '
            f"{MAX_FRAME_RATE:g} (below 1 it is seconds per frame), or $name of such a value in the task's data. "
            "Set it to the video's frame rate, for example 25."
        )


def _rate(value: Any) -> float | None:
    """Frames per second, None where the value names none."""
    try:
        rate = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    if not math.isfinite(rate) or rate <= 0:
        return None
    return 1 / rate if rate < 1 else rate


def labeling_frames(times: Sequence[float] | np.ndarray, duration: float, frame_rate: float) -> np.ndarray:
    """Finds the video frame on the screen at each labeling frame's moment.

    Where the file has the labeling rate, the result is 0, 1, 2 …, also with timestamps rounded to milliseconds.

    Args:
        times: [num_frames] seconds, not decreasing, at least one.
        duration: the video's length in seconds.
        frame_rate: labeling frames per second.

    Returns:
        [num_labeling_frames] int64: entry f - 1 is the index into `times` of the picture shown at
        (f - 1/2) / frame_rate. The labeling frames are those whose moment the video reaches, at least one.

    Raises:
        InvalidTask: the video has more than `MAX_LABELING_FRAMES`, or more than MANY_LABELING_FRAMES of few pictures.
    """
    count = max(1, math.floor(duration * frame_rate + 0.5))
    most = min(max(len(times) * MAX_FRAMES_OF_A_PICTURE, MANY_LABELING_FRAMES), MAX_LABELING_FRAMES)
    if count > most:
        raise InvalidTask(
            f"The video lasts {duration / 3600:.1f} h, which is {count} labeling frames at {frame_rate:g} a second; at "
            f'most {most} are possible for its {len(times)} pictures. Set frameRate lower, such as "1", or cut the '
            "video."
        )
    moments = (np.arange(count) + 0.5) / frame_rate
    return np.maximum(np.searchsorted(times, moments, side="right") - 1, 0)


def rate_mismatch(file_rate: float, labeling_rate: float) -> str | None:
    """A note where a file's average rate differs from the labeling rate (frames per second), else None.

    It is None also where the file's rate is unknown (0).
    """
    if not file_rate or abs(file_rate - labeling_rate) <= RATE_TOLERANCE * labeling_rate:
        return None
    return f"file {file_rate:.4g} fps, config {labeling_rate:.4g}: mapped by time"
