"""What only the order of the pictures tells: coming nearer and going away, opening and closing.

Sizes and openings go from knot to knot, each drawn anew from the same range, with stops between. Such a path is as
likely forwards as backwards, so that no single picture says anything about the label.
"""

import cv2
import numpy as np

from benchmarks.videos import things
from benchmarks.videos.drawing import lit, marked, stamp, wander
from benchmarks.videos.footage import NUM_FRAMES, Size, footage, still

SIZE: Size = (320, 240)
NEAREST, FURTHEST = np.log(170), np.log(36)  # logarithms of the thing's width in pixels
LEAST_CHANGE = 0.3  # of the whole range, between two knots
NEAR_LOOKS = (things.car, things.crate, things.ball, things.cup, things.pot, things.deer, things.cat, things.barrel)
FINE = 384  # pixels of a patch whose parts move by fractions of a video's pixel


def approach(rng: np.random.Generator, project: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A thing approaches, retreats or stops at any distance, drifting sideways; another may pass at its own."""
    frames = footage(rng, SIZE).clip(0, 255).astype(np.uint8)
    share, parts = _knots(rng, ("approaches", "retreats"), (22, 48), {"stops": (0.6, 14, 32)})
    sizes = np.exp(FURTHEST + share * (NEAREST - FURTHEST))
    centres = wander(rng, np.array([110, 90]), np.array([210, 150]), pace=1.0)
    tilt = 5 * np.sin(np.arange(NUM_FRAMES) / rng.uniform(8, 20))
    look = NEAR_LOOKS[rng.integers(len(NEAR_LOOKS))](rng)
    passing = _passing(rng) if rng.random() < 0.6 else {}
    for number, frame in enumerate(frames):
        if number in passing:
            stamp(frame, *passing[number])
        stamp(frame, look, centres[number], sizes[number], tilt[number])
    lit(frames, rng)
    return frames, marked(parts, ("approaches", "retreats"))


def docking(rng: np.random.Generator, project: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """As approach, with one thing in all videos of a project, before a picture that stands still, and nothing else."""
    frames = np.repeat(still(rng, SIZE)[None], NUM_FRAMES, axis=0)
    share, parts = _knots(rng, ("approaches", "retreats"), (22, 48), {"stops": (0.6, 14, 32)})
    sizes = np.exp(FURTHEST + share * (NEAREST - FURTHEST))
    centres = wander(rng, np.array([110, 90]), np.array([210, 150]), pace=1.0)
    look = NEAR_LOOKS[project.integers(len(NEAR_LOOKS))](project)
    for number, frame in enumerate(frames):
        stamp(frame, look, centres[number], sizes[number])
    lit(frames, rng)
    return frames, marked(parts, ("approaches", "retreats"))


def gate(rng: np.random.Generator, project: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A door, a lid or a pair of jaws opens, closes, pumps (opens and closes again and again) or stays as it is."""
    frames = footage(rng, SIZE).clip(0, 255).astype(np.uint8)
    share, parts = _knots(rng, ("opens", "closes"), (14, 36), {"stays": (0.5, 12, 30), "pumps": (0.4, 28, 60)})
    for kind, start, end in parts:
        if kind == "pumps":
            beat = 2 * np.pi / rng.uniform(8, 14)
            share[start:end] += rng.uniform(0.12, 0.25) * np.sin(beat * np.arange(end - start))
    share = share.clip(0, 1)
    draw = (_door, _lid, _jaws)[rng.integers(3)]
    colours = things.colour(rng), things.colour(rng)
    width = rng.uniform(100, 170)
    centres = wander(rng, np.array([130, 100]), np.array([190, 140]), pace=0.5)
    for number, frame in enumerate(frames):
        stamp(frame, draw(share[number], *colours), centres[number], width)
    lit(frames, rng)
    return frames, marked(parts, ("opens", "closes", "pumps"))


def _knots(
    rng: np.random.Generator,
    names: tuple[str, str],
    duration: tuple[int, int],
    pauses: dict[str, tuple[float, int, int]],
) -> tuple[np.ndarray, list[tuple[str, int, int]]]:
    """A path [num_frames] in [0, 1] from knot to knot, and its phases.

    Args:
        names: of rising and of falling phases.
        duration: the least and the most frames of these.
        pauses: what may come between two of them: kind -> (probability, least, most frames).
    """
    number, level = -int(rng.integers(0, 30)), rng.random()
    times, levels, parts = [number], [level], []
    while number < NUM_FRAMES:
        following = rng.random()
        while abs(following - level) < LEAST_CHANGE:
            level, following = (rng.random(), rng.random()) if len(levels) == 1 else (level, rng.random())
        levels[-1] = level
        length = int(rng.integers(*duration, endpoint=True))
        parts.append((names[int(following < level)], number, number + length))
        number, level = number + length, following
        times.append(number)
        levels.append(level)
        kinds = [None, *pauses]
        chance = [1 - sum(probability for probability, *_ in pauses.values()), *(p for p, *_ in pauses.values())]
        kind = kinds[rng.choice(len(kinds), p=chance)]
        if kind is not None:
            length = int(rng.integers(*pauses[kind][1:], endpoint=True))
            parts.append((kind, number, number + length))
            number += length
            times.append(number)
            levels.append(level)
    inside = [(kind, max(start, 0), min(end, NUM_FRAMES)) for kind, start, end in parts]
    # Frame f shows the level at its end, so that the first frame of a phase differs from the one before.
    path = np.interp(np.arange(NUM_FRAMES) + 1, times, levels)
    return path, [part for part in inside if part[2] > part[1]]


def _passing(rng: np.random.Generator) -> dict[int, tuple[np.ndarray, np.ndarray, float]]:
    """Something that passes by, always as large: frame -> (patch, centre, size)."""
    look, size = things.disc(rng) if rng.random() < 0.5 else things.bicycle(rng), rng.uniform(40, 90)
    start, length = int(rng.integers(0, 80)), int(rng.integers(40, 80))
    x = np.linspace(-size, SIZE[0] + size, length)[:: 1 if rng.random() < 0.5 else -1]
    y = rng.uniform(50, 190)
    return {start + step: (look, np.array([x[step], y]), size) for step in range(length)}


def _fine_patch() -> np.ndarray:
    return np.zeros((FINE, FINE, 4), np.uint8)


def _door(opening: float, leaf: tuple[int, ...], frame: tuple[int, ...]) -> np.ndarray:
    image = _fine_patch()
    cv2.rectangle(image, (40, 60), (344, 340), frame, -1)
    cv2.rectangle(image, (62, 82), (322, 340), (25, 25, 30, 255), -1)
    edge = int(130 * (1 - opening))
    cv2.rectangle(image, (62, 82), (62 + edge, 340), leaf, -1)
    cv2.rectangle(image, (322 - edge, 82), (322, 340), leaf, -1)
    return image


def _lid(opening: float, body: tuple[int, ...], lid: tuple[int, ...]) -> np.ndarray:
    image = _fine_patch()
    cv2.rectangle(image, (90, 210), (320, 350), body, -1)
    angle = np.radians(4 + 110 * opening)
    tip = (int(320 - 235 * np.cos(angle)), int(205 - 190 * np.sin(angle)))
    cv2.line(image, (320, 205), tip, lid, 22)
    return image


def _jaws(opening: float, upper: tuple[int, ...], lower: tuple[int, ...]) -> np.ndarray:
    image = _fine_patch()
    for sign, paint in ((-1, upper), (1, lower)):
        angle = sign * np.radians(4 + 42 * opening)
        tip = np.array([80 + 260 * np.cos(angle), 192 + 260 * np.sin(angle)])
        side = np.array([80 + 120 * np.cos(angle * 1.4), 192 + 120 * np.sin(angle * 1.4) + sign * 30])
        cv2.fillPoly(image, [np.array([[80, 192], tip, side], int)], paint)
    cv2.circle(image, (80, 192), 26, (60, 60, 60, 255), -1)
    return image
