"""Effects on a whole picture: (frame [height, width, 3] float32, strength in [0, 1], rng) -> frame."""

from collections.abc import Callable

import cv2
import numpy as np

Effect = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]


def flare(frame: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """A light's burst from a point."""
    height, width = frame.shape[:2]
    layer = np.zeros(frame.shape[:2], np.float32)
    centre = (int(rng.integers(90, width - 90)), int(rng.integers(60, height - 60)))
    for angle in np.linspace(0, 2 * np.pi, 9)[:-1]:
        tip = (int(centre[0] + 60 * np.cos(angle)), int(centre[1] + 60 * np.sin(angle)))
        cv2.line(layer, centre, tip, 1.0, 5)
    cv2.circle(layer, centre, 22, 1.0, -1)
    layer = cv2.GaussianBlur(layer, (0, 0), 5) * strength
    return frame + (255 - frame) * layer[..., None]


def splash(frame: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    height, width = frame.shape[:2]
    centre = np.array([rng.integers(100, width - 100), rng.integers(90, height - 50)])
    layer = frame.copy()
    for _ in range(26):
        drop = centre + rng.normal(size=2) * 26
        cv2.circle(layer, (int(drop[0]), int(drop[1])), int(rng.integers(3, 10)), (110.0, 30.0, 20.0), -1)
    return frame + (layer - frame) * strength


def haze(frame: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Steam or smoke: soft light blobs in a part of the picture."""
    height, width = frame.shape[:2]
    small = rng.random((6, 8)).astype(np.float32) ** 2
    small *= np.linspace(0.2, 1, 6, dtype=np.float32)[::-1, None]
    density = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC).clip(0, 1)[..., None]
    return frame + (225 - frame) * density * 0.75 * strength


def celebration(frame: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    layer = frame.copy()
    where = (int(rng.integers(60, 110)), int(rng.integers(90, 170)))
    cv2.putText(layer, "GOAL!", where, cv2.FONT_HERSHEY_DUPLEX, 2.0, (255.0, 230.0, 40.0), 5)
    return frame + (layer - frame) * strength


def replay(frame: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """A dark frame around the picture."""
    height, width = frame.shape[:2]
    layer = frame * 0.35
    layer[28:-28, 52:-52] = frame[28:-28, 52:-52]
    cv2.rectangle(layer, (52, 28), (width - 52, height - 28), (200.0, 200.0, 200.0), 2)
    return frame + (layer - frame) * strength


def lightning(frame: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    height, width = frame.shape[:2]
    layer = frame + (255 - frame) * 0.2
    point = np.array([rng.integers(100, width - 100), 0])
    while point[1] < height * 0.7:
        following = point + np.array([rng.integers(-22, 23), rng.integers(14, 30)])
        cv2.line(layer, tuple(map(int, point)), tuple(map(int, following)), (250.0, 250.0, 255.0), 3)
        point = following
    return frame + (layer - frame) * strength


def dusk(frame: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    return frame * (1 - strength * np.array([0.65, 0.55, 0.35], np.float32))


def sparks(frame: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    height, width = frame.shape[:2]
    layer = frame.copy()
    origin = np.array([rng.integers(100, width - 100), rng.integers(70, height - 70)])
    for _ in range(34):
        near, far = np.sort(rng.uniform(4, 62, 2))
        direction = rng.normal(size=2)
        direction /= np.linalg.norm(direction)
        start, end = (origin + direction * near).astype(int), (origin + direction * far).astype(int)
        cv2.line(layer, tuple(map(int, start)), tuple(map(int, end)), (255.0, 200.0, 60.0), 2)
    return frame + (layer - frame) * strength


def alarm(frame: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """A red lamp and its glow."""
    width = frame.shape[1]
    layer = np.zeros(frame.shape[:2], np.float32)
    cv2.circle(layer, (int(rng.integers(70, width - 70)), 50), 26, 1.0, -1)
    glow = cv2.GaussianBlur(layer, (0, 0), 14)[..., None] * strength * 1.2
    return frame + (np.array([255, 20, 20], np.float32) - frame) * glow.clip(0, 1)
