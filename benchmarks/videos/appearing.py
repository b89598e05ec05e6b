"""Things that enter and leave, come and go, and effects that change the picture, over footage of all kinds.

A labeling task has two common labels, a brief one of 5-10 frames, a rare one that only some videos have (or, in
"edges" and "porch", common ones alone), and distractors: things that resemble a label's and are none.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from benchmarks.videos import effects, things
from benchmarks.videos.drawing import paste
from benchmarks.videos.footage import ANNOTATED, NUM_FRAMES, UNSEEN, Size, footage

PROBABILITY = {"common": 0.9, "brief": 0.9, "rare": 0.3}  # that a video has an event of the label
MIN_RARE = 3  # videos with the rare label in each part, or its F1 would rest on too little
OUTER_SHARE = 0.8  # of the "peek" events lie in the outer quarters of the picture


@dataclass(frozen=True)
class Event:
    """What a label means: one thing drawn or one effect.

    Attributes:
        how: "cross" (enters at one side and leaves), "come" (fades in, stays, fades out), "peek" (enters at one side,
            stays near it and leaves there) or "effect" (on the picture).
        look: draws it.
        frequency: a key of PROBABILITY; a "brief" one lasts 5-10 frames, any other 25-70.
    """

    how: str
    look: things.Look | effects.Effect
    frequency: str = "common"


class Task(NamedTuple):
    """Labels, what resembles them and is none, and the pictures' size."""

    labels: dict[str, Event]
    distractors: tuple[Event, ...]
    size: Size = (320, 240)


STREET = Task(
    {
        "Car": Event("cross", things.car),
        "Ball": Event("cross", things.ball),
        "Flare": Event("effect", effects.flare, "brief"),
        "Sign": Event("come", things.sign, "rare"),
    },
    (Event("cross", things.crate), Event("cross", things.disc)),
)
KITCHEN = Task(
    {
        "Hand": Event("cross", things.hand),
        "Cup": Event("come", things.cup),
        "Spill": Event("effect", effects.splash, "brief"),
        "Steam": Event("effect", effects.haze, "rare"),
    },
    (Event("cross", things.spoon), Event("come", things.plate), Event("come", things.pot)),
)
BROADCAST = Task(
    {
        "Caption": Event("come", things.banner),
        "Replay": Event("effect", effects.replay),
        "Goal": Event("effect", effects.celebration, "brief"),
        "Advert": Event("come", things.logo, "rare"),
    },
    (Event("come", things.ticker), Event("cross", things.disc)),
)
WILDLIFE = Task(
    {
        "Bird": Event("cross", things.bird),
        "Deer": Event("cross", things.deer),
        "Lightning": Event("effect", effects.lightning, "brief"),
        "Dusk": Event("effect", effects.dusk, "rare"),
    },
    (Event("cross", things.leaf), Event("come", things.bush)),
)
WORKSHOP = Task(
    {
        "Robot": Event("come", things.robot),
        "Smoke": Event("effect", effects.haze),
        "Sparks": Event("effect", effects.sparks, "brief"),
        "Alarm": Event("effect", effects.alarm, "rare"),
    },
    (Event("cross", things.barrel), Event("come", things.gauge)),
)
EDGES = Task(
    {
        "Cat": Event("peek", things.cat),
        "Bicycle": Event("peek", things.bicycle),
        "Umbrella": Event("peek", things.umbrella),
    },
    (Event("peek", things.pot), Event("peek", things.crate), Event("peek", things.disc), Event("cross", things.leaf)),
    size=(480, 270),
)
PORCH = Task(
    {"Cat": Event("peek", things.cat), "Barrow": Event("cross", things.barrel)},
    (Event("peek", things.crate), Event("cross", things.leaf)),
)


def draw(task: Task, occurs: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """One video: frames [num_frames, height, width, 3] float32 and labels [num_frames, num_labels] in {0, 1}.

    Args:
        occurs: [num_labels] bool, which labels the video has.
    """
    width, height = task.size
    frames = footage(rng, task.size)
    light = 1 + rng.uniform(0, 0.2) * np.sin(np.arange(NUM_FRAMES) / rng.uniform(8, 40) + rng.uniform(0, 6))
    frames *= light.astype(np.float32)[:, None, None, None]
    labels = np.zeros((NUM_FRAMES, len(task.labels)), np.uint8)
    for distractor in task.distractors:
        if rng.random() < 0.6:
            draw_event(frames, distractor, rng)
    for column, event in enumerate(task.labels.values()):
        if occurs[column]:
            for _ in range(rng.integers(1, 3)):
                labels[:, column] |= draw_event(frames, event, rng)
    frames += rng.normal(size=(height, width, 1)).astype(np.float32) * rng.uniform(0, 6)
    return frames, labels


def occurrences(task: Task, rng: np.random.Generator) -> np.ndarray:
    """Which of the 32 videos have an event of which label: [num_videos, num_labels] bool, the first 20 to annotate."""
    chance = np.array([PROBABILITY[event.frequency] for event in task.labels.values()])
    rare = np.array([event.frequency == "rare" for event in task.labels.values()])
    while True:
        occurs = rng.random((ANNOTATED + UNSEEN, len(chance))) < chance
        fewest = min(part[:, rare].sum(axis=0).min(initial=MIN_RARE) for part in np.split(occurs, [ANNOTATED]))
        if fewest >= MIN_RARE and occurs.any(axis=1).all():
            return occurs


def draw_event(frames: np.ndarray, event: Event, rng: np.random.Generator) -> np.ndarray:
    """Draw one event into the frames in place; returns [num_frames] bool: where at least half of it is to be seen."""
    duration = int(rng.integers(5, 11) if event.frequency == "brief" else rng.integers(25, 71))
    start = int(rng.integers(0, NUM_FRAMES - duration))
    place: dict[str, Callable[..., np.ndarray]] = {"effect": _apply, "peek": _peek, "cross": _move, "come": _move}
    shown = np.zeros(NUM_FRAMES, bool)
    shown[start : start + duration] = place[event.how](frames[start : start + duration], event, rng)
    return shown


def _apply(frames: np.ndarray, event: Event, rng: np.random.Generator) -> np.ndarray:
    seed, ramp = int(rng.integers(2**32)), 1 if event.frequency == "brief" else 4
    amount, shown = rng.uniform(0.75, 1.0), np.zeros(len(frames), bool)
    for number, frame in enumerate(frames):
        strength = amount * min(1, (number + 1) / ramp, (len(frames) - number) / ramp)
        # The same numbers every frame, so that a thing keeps its place; haze and sparks change every fourth.
        changing = seed + (number // 4 if event.look in (effects.haze, effects.sparks) else 0)
        frames[number] = event.look(frame, strength, np.random.default_rng(changing))
        shown[number] = strength >= amount / 2
    return shown


def _move(frames: np.ndarray, event: Event, rng: np.random.Generator) -> np.ndarray:
    rng.integers(2**32)  # an effect's seed is drawn here, and the videos are to stay what they were
    (height, width), duration = frames.shape[1:3], len(frames)
    size = int(rng.integers(72, 124))
    image = cv2.resize(event.look(rng), (size, size), interpolation=cv2.INTER_AREA)
    leftwards, wave = rng.random() < 0.5, rng.uniform(0, 25)
    top, left = rng.integers(10, height - size - 10), rng.integers(30, width - size - 30)
    shown = np.zeros(duration, bool)
    for number, frame in enumerate(frames):
        opacity = 1.0
        if event.how == "cross":
            position = number / (duration - 1)
            left = (1 - position if leftwards else position) * (width + size) - size
        else:
            opacity = min(1, (number + 1) / 4, (duration - number) / 4)
        y = top + wave * np.sin(number / 6) * (event.how == "cross")
        inside = paste(frame, image, int(left), int(y), opacity)
        shown[number] = inside * opacity >= 0.5
    return shown


def _peek(frames: np.ndarray, event: Event, rng: np.random.Generator) -> np.ndarray:
    (height, width), duration = frames.shape[1:3], len(frames)
    size = int(rng.integers(60, 96))
    image = cv2.resize(event.look(rng), (size, size), interpolation=cv2.INTER_AREA)
    furthest = width / 4 if rng.random() < OUTER_SHARE else width / 2
    reach = rng.uniform(0.8 * size, max(size, furthest))  # how far it comes in
    top, sway, from_right = rng.integers(5, height - size - 5), rng.uniform(2, 8), rng.random() < 0.5
    pace = int(rng.integers(5, 10))  # frames to come in, and to leave
    shown = np.zeros(duration, bool)
    for number, frame in enumerate(frames):
        inwards = reach * min(1, (number + 1) / pace, (duration - number) / pace) + sway * np.sin(number / 5)
        left = width - inwards if from_right else inwards - size
        shown[number] = paste(frame, image, int(left), int(top), 1.0) >= 0.5
    return shown
