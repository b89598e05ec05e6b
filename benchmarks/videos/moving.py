"""What only movement tells: a thing moves, shakes or rests and looks the same; or moves while the camera does."""

import cv2
import numpy as np

from benchmarks.videos import things
from benchmarks.videos.drawing import lit, marked, phases, stamp
from benchmarks.videos.footage import NUM_FRAMES, Size, still

SIZE: Size = (320, 240)
LOOKS = (things.car, things.crate, things.ball, things.cat, things.mouse, things.barrel, things.cup, things.deer)
WORLD: Size = (900, 676)  # what the panning camera can see
CENTRE_BOX = np.array([70, 45])  # pixels from the picture's middle; beyond them the camera turns to its thing


def motion(rng: np.random.Generator, project: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Before a fixed camera a thing moves, shakes or rests anywhere; something else may sway slowly beside it."""
    frames = np.repeat(still(rng, SIZE)[None], NUM_FRAMES, axis=0)
    parts = phases(rng, {"moves": (22, 50), "shakes": (22, 50), "rests": (16, 40)})
    path = _travel(rng, parts, np.array([45, 40]), np.array([275, 200]), speed=(1.5, 3.5))
    for kind, start, end in parts:
        if kind == "shakes":
            axis, beat = rng.uniform(0, np.pi), 2 * np.pi / rng.uniform(5, 9)
            swing = rng.uniform(2.5, 6) * np.sin(beat * (np.arange(end - start) + 1))
            path[start:end] += swing[:, None] * [np.cos(axis), np.sin(axis)]
    look, size, tilt = LOOKS[rng.integers(len(LOOKS))](rng), rng.uniform(55, 95), rng.uniform(-20, 20)
    bush, place, sways = things.bush(rng), rng.uniform([30, 30], [290, 210]), rng.random() < 0.5
    sway = 1.5 * np.sin(np.arange(NUM_FRAMES) / rng.uniform(5, 8))
    for number, frame in enumerate(frames):
        if sways:
            stamp(frame, bush, np.add(place, (sway[number], 0)), 60)
        stamp(frame, look, path[number], size, tilt)
    lit(frames, rng)
    return frames, marked(parts, ("moves", "shakes"))


def camera(rng: np.random.Generator, project: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A camera that pans and shakes, and before it a thing that moves by itself or rests in the scene."""
    world = cv2.resize(still(rng, SIZE), WORLD, interpolation=cv2.INTER_CUBIC)
    for _ in range(24):
        look = (*LOOKS, things.bush, things.pot)[rng.integers(len(LOOKS) + 2)]
        stamp(world, look(rng), rng.uniform([0, 0], WORLD), rng.uniform(40, 110), rng.uniform(-20, 20))
    parts = phases(rng, {"moves": (22, 50), "rests": (18, 45)})
    path = _travel(rng, parts, np.array([230, 180]), np.array(WORLD) - [230, 180], speed=(1.8, 4.0))
    view = _camera_path(rng, path)
    look, size, tilt = LOOKS[rng.integers(len(LOOKS))](rng), rng.uniform(60, 95), rng.uniform(-15, 15)
    frames = np.empty((NUM_FRAMES, SIZE[1], SIZE[0], 3), np.uint8)
    for number in range(NUM_FRAMES):
        frames[number] = cv2.getRectSubPix(world, SIZE, tuple(map(float, view[number])))
        stamp(frames[number], look, path[number] - view[number] + np.array(SIZE) / 2, size, tilt)
    lit(frames, rng)
    return frames, marked(parts, ("moves",))


def _travel(
    rng: np.random.Generator,
    parts: list[tuple[str, int, int]],
    low: np.ndarray,
    high: np.ndarray,
    speed: tuple[float, float],
) -> np.ndarray:
    """A path [num_frames, 2] that goes on within the box during phases "moves" and stays where it is in all others."""
    position = rng.uniform(low, high)
    path = np.empty((NUM_FRAMES, 2))
    for kind, start, end in parts:
        heading, turn = rng.uniform(0, 2 * np.pi), rng.uniform(-0.04, 0.04)
        step = rng.uniform(*speed) * (kind == "moves")
        velocity = step * np.array([np.cos(heading), np.sin(heading)])
        for number in range(start, end):
            velocity = velocity @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
            outside = (position + velocity < low) | (position + velocity > high)
            velocity = np.where(outside, -velocity, velocity)
            position = position + velocity
            path[number] = position
    return path


def _camera_path(rng: np.random.Generator, thing: np.ndarray) -> np.ndarray:
    """Where the camera looks [num_frames, 2]: it pans and shakes now and then, and keeps the thing in view."""
    follows = rng.random() < 0.3  # where it does, the thing hardly moves in the picture, and the scene behind it does
    view, velocity = thing[0] + rng.uniform(-1, 1, 2) * CENTRE_BOX, np.zeros(2)
    pans = phases(rng, {"pan": (15, 45), "other pan": (15, 45), "still": (12, 40)})
    shakes = phases(rng, {"shake": (20, 60), "steady": (20, 60)})
    aim, trembling = np.zeros((NUM_FRAMES, 2)), np.zeros((NUM_FRAMES, 2))
    for kind, start, end in pans:
        aim[start:end] = rng.uniform(-3.5, 3.5, 2) * [1, 0.5] * (kind != "still")
    for kind, start, end in shakes:
        trembling[start:end] = rng.normal(size=(end - start, 2)) * rng.uniform(0.8, 2.2) * (kind == "shake")
    path = np.empty((NUM_FRAMES, 2))
    for number in range(NUM_FRAMES):
        away = thing[number] - view
        beyond = np.sign(away) * np.maximum(np.abs(away) - (12 if follows else CENTRE_BOX), 0)
        velocity += 0.2 * (aim[number] + 0.3 * beyond - velocity)
        view = view + velocity
        path[number] = view + trembling[number]
    return path
