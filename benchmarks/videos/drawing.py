"""Put things into pictures, lay out time, and write what was drawn as a video file."""

from collections.abc import Iterable
from pathlib import Path

import av
import cv2
import numpy as np

from benchmarks.videos.footage import FPS, NUM_FRAMES

SOUND_RATE = 16_000  # samples a second


def paste(frame: np.ndarray, image: np.ndarray, left: int, top: int, opacity: float) -> float:
    """Blend a patch into a float frame in place; returns how much of it lies inside, in [0, 1]."""
    size, (height, width) = image.shape[0], frame.shape[:2]
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + size, width), min(top + size, height)
    if x0 >= x1 or y0 >= y1:
        return 0.0
    part = image[y0 - top : y1 - top, x0 - left : x1 - left]
    alpha = part[..., 3:] / np.float32(255) * opacity
    frame[y0:y1, x0:x1] += (part[..., :3] - frame[y0:y1, x0:x1]) * alpha
    return (x1 - x0) * (y1 - y0) / size**2


def stamp(frame: np.ndarray, image: np.ndarray, centre: np.ndarray, size: float, degrees: float = 0.0) -> None:
    """Blend a patch into a uint8 frame in place: `size` pixels wide, turned, placed to fractions of a pixel."""
    height, width = frame.shape[:2]
    reach = int(size * 0.75) + 2
    x0, y0 = (max(int(value) - reach, 0) for value in centre)
    x1, y1 = min(int(centre[0]) + reach, width), min(int(centre[1]) + reach, height)
    if x0 >= x1 or y0 >= y1:
        return
    middle = image.shape[0] / 2
    matrix = cv2.getRotationMatrix2D((middle, middle), degrees, size / image.shape[0])
    matrix[:, 2] += np.array([centre[0] - x0, centre[1] - y0]) - middle
    placed = cv2.warpAffine(image, matrix, (x1 - x0, y1 - y0), flags=cv2.INTER_LINEAR)
    alpha = placed[..., 3:].astype(np.float32) / 255
    under = frame[y0:y1, x0:x1]
    under[:] = under + (placed[..., :3] - under.astype(np.float32)) * alpha


def lit(frames: np.ndarray, rng: np.random.Generator, strength: float = 0.2) -> None:
    """A slow change of light and a camera's noise, new in every frame, on uint8 frames in place."""
    light = 1 + rng.uniform(0, strength) * np.sin(np.arange(len(frames)) / rng.uniform(8, 40) + rng.uniform(0, 6))
    height, width = frames.shape[1:3]
    margin = 32
    noise = rng.normal(size=(height + margin, width + margin, 1)) * rng.uniform(0, 5)
    noise = np.broadcast_to(noise, (*noise.shape[:2], 3)).astype(np.int16)
    for frame, factor, (y, x) in zip(frames, light, rng.integers(0, margin, (len(frames), 2)), strict=True):
        bright = cv2.convertScaleAbs(frame, alpha=float(factor))
        frame[:] = cv2.add(bright, noise[y : y + height, x : x + width], dtype=cv2.CV_8U)


def phases(rng: np.random.Generator, durations: dict[str, tuple[int, int]]) -> list[tuple[str, int, int]]:
    """Fill the video with phases of the kinds given, no kind twice in a row: (kind, first frame, frame after it).

    Args:
        durations: kind -> the least and the most frames of a phase. The first phase may have begun before the video.
    """
    start, kind, result = -int(rng.integers(0, 15)), "", []
    while start < NUM_FRAMES:
        kind = str(rng.choice([other for other in durations if other != kind]))
        end = start + int(rng.integers(*durations[kind], endpoint=True))
        result.append((kind, max(start, 0), min(end, NUM_FRAMES)))
        start = end
    return [phase for phase in result if phase[2] > phase[1]]


def marked(parts: Iterable[tuple[str, int, int]], labels: Iterable[str]) -> np.ndarray:
    """Phases as labels [num_frames, num_labels] in {0, 1}; kinds that are no label leave no mark."""
    names = list(labels)
    truth = np.zeros((NUM_FRAMES, len(names)), np.uint8)
    for kind, start, end in parts:
        if kind in names:
            truth[start:end, names.index(kind)] = 1
    return truth


def wander(rng: np.random.Generator, low: np.ndarray, high: np.ndarray, pace: float) -> np.ndarray:
    """A smooth path [num_frames, 2] within the box from `low` to `high`, about `pace` pixels a frame."""
    low, high = np.asarray(low, float), np.asarray(high, float)
    stops = max(3, int(NUM_FRAMES * pace / np.linalg.norm(high - low) * 2) + 2)
    knots = rng.uniform(low, high, (stops, 2))
    times = np.linspace(0, stops - 1, NUM_FRAMES)
    left = np.minimum(times.astype(int), stops - 2)
    share = (times - left)[:, None]
    share = share * share * (3 - 2 * share)  # comes to rest at each knot
    return knots[left] * (1 - share) + knots[left + 1] * share


def write_video(frames: np.ndarray, path: Path, sound: np.ndarray | None = None) -> None:
    """Write frames [num_frames, height, width, 3] as H.264; float ones are rounded down.

    Args:
        sound: samples in [-1, 1] at `SOUND_RATE`, written as AAC.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"preset": "ultrafast", "crf": "23"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        audio = None if sound is None else container.add_stream("aac", rate=SOUND_RATE, layout="mono")
        for picture in frames.clip(0, 255).astype(np.uint8, copy=False):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
        container.mux(stream.encode())
        if audio is not None:
            frame = av.AudioFrame.from_ndarray(sound[None].astype(np.float32), format="fltp", layout="mono")
            frame.sample_rate = SOUND_RATE
            container.mux(audio.encode(frame))
            container.mux(audio.encode())
