"""Videos with sound: where the sound alone tells what happens, and where it tells nothing.

A sound track is float32 samples in [-1, 1] at `SOUND_RATE`, as long as the video.
"""

import numpy as np

from benchmarks.videos import staying
from benchmarks.videos.drawing import SOUND_RATE, marked, phases
from benchmarks.videos.footage import FPS, NUM_FRAMES, footage

NUM_SAMPLES = NUM_FRAMES * SOUND_RATE // FPS
SIZE = (320, 240)
SOUNDS = ("Whistle", "Knocks", "Bark")
PHASES = {"": (20, 50), "Whistle": (10, 30), "Knocks": (15, 40), "Bark": (8, 20), "Hum": (15, 40)}  # frames
Video = tuple[np.ndarray, np.ndarray, np.ndarray]  # frames, labels, sound


def heard(rng: np.random.Generator, project: np.random.Generator) -> Video:
    """Pictures of anything; whistles, knocks and barks, before noise that differs from video to video, and a hum that
    is no label."""
    pitches = project.uniform(0.8, 1.25, len(SOUNDS))  # of the project: one whistle, one door, one dog
    parts = phases(rng, PHASES)
    frames = footage(rng, SIZE).clip(0, 255).astype(np.uint8)
    return frames, marked(parts, SOUNDS), _track(rng, parts, dict(zip(SOUNDS, pitches, strict=True)))


def misheard(rng: np.random.Generator, project: np.random.Generator) -> Video:
    """The states of `staying.states`, and the same sounds at moments of their own: they tell nothing."""
    frames, labels = staying.states(rng, project)
    return frames, labels, _track(rng, phases(rng, PHASES), {})


def _track(rng: np.random.Generator, parts: list[tuple[str, int, int]], pitches: dict[str, float]) -> np.ndarray:
    track = rng.normal(size=NUM_SAMPLES) * 10 ** rng.uniform(-3, -1.7)  # the room's own noise
    loudness = 10 ** rng.uniform(-1, -0.3)  # of the recording
    makers = {"Whistle": _whistle, "Knocks": _knocks, "Bark": _bark, "Hum": _hum}
    for kind, start, end in parts:
        if kind:
            first, last = (frame * SOUND_RATE // FPS for frame in (start, end))
            time = np.arange(last - first) / SOUND_RATE
            track[first:last] += loudness * makers[kind](rng, time, pitches.get(kind, 1.0))
    return track.clip(-1, 1).astype(np.float32)


def _whistle(rng: np.random.Generator, time: np.ndarray, pitch: float) -> np.ndarray:
    warble = 60 * np.sin(2 * np.pi * rng.uniform(15, 30) * time)
    return np.sin(2 * np.pi * np.cumsum(2600 * pitch + warble) / SOUND_RATE) * rng.uniform(0.3, 1)


def _knocks(rng: np.random.Generator, time: np.ndarray, pitch: float) -> np.ndarray:
    since = (time + rng.uniform(0, 0.3)) % rng.uniform(0.2, 0.35)
    return np.exp(-since * 45) * np.sin(2 * np.pi * 180 * pitch * since) * rng.uniform(0.6, 1)


def _bark(rng: np.random.Generator, time: np.ndarray, pitch: float) -> np.ndarray:
    since = (time + rng.uniform(0, 0.3)) % rng.uniform(0.3, 0.45)
    tone = sum(np.sin(2 * np.pi * 420 * pitch * number * since) / number for number in range(1, 8))
    return np.exp(-((since - 0.07) ** 2) / 0.003) * tone * rng.uniform(0.4, 0.8)


def _hum(rng: np.random.Generator, time: np.ndarray, pitch: float) -> np.ndarray:
    return sum(np.sin(2 * np.pi * rng.uniform(90, 140) * number * time) / number for number in range(1, 5)) * 0.4
