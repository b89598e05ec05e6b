"""One scene before a fixed camera in all videos of a project: states that last, and a gripper that changes them."""

import cv2
import numpy as np

from benchmarks.videos import things
from benchmarks.videos.drawing import lit, marked, stamp, wander
from benchmarks.videos.footage import NUM_FRAMES, Size

SIZE: Size = (320, 240)
# Of a state: absent from the whole video, there for the whole video, coming or going within it.
NEVER, ALWAYS = 0.35, 0.4
CHANGE = 9  # frames that a change takes; the label holds from its middle
NEAR, FAR = (30, 44), (92, 140)  # pixels between two mice
TABLE, RAIL = 196, 26  # heights of the gripper's table and rail
DIP, GRIP = (8, 12), (3, 5)  # frames to go down or up, and to close or open

Pose = tuple[float, float, float, float, bool]  # x, depth and how closed, both in [0, 1], the thing's x, held


def states(rng: np.random.Generator, project: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Two mice that walk about, close to each other or not; a box's lid; a small lamp. All states are independent."""
    scene = _floor(project)
    box = np.array([project.integers(20, 60), project.integers(8, 20)])
    hinge = np.add(box, (70, 20))
    lamp = (int(project.integers(150, 300)), int(project.integers(14, 30)))
    fur = things.mouse(project)
    amounts = {name: _state(rng) for name in ("Close", "Lid open", "Lamp on")}
    cv2.rectangle(scene, np.add(box, (0, 20)), np.add(box, (70, 52)), (120, 85, 60), -1)
    cv2.circle(scene, lamp, 9, (70, 70, 70), -1)
    stamp(scene, things.plate(rng), rng.uniform([30, 90], [290, 220]), 48)  # moved from video to video
    middle = wander(rng, np.array([80, 125]), np.array([240, 185]), pace=1.2)
    bearing = np.cumsum(rng.normal(size=NUM_FRAMES) * 0.02) + rng.uniform(0, 2 * np.pi)
    near, far = rng.uniform(*NEAR), rng.uniform(*FAR)
    gap = far + (near - far) * amounts["Close"] + 3 * np.sin(np.arange(NUM_FRAMES) / rng.uniform(6, 15))
    apart = gap[:, None] / 2 * np.stack([np.cos(bearing), 0.7 * np.sin(bearing)], axis=1)
    mice = [(middle + side * apart).clip([22, 85], [298, 222]) for side in (-1, 1)]
    turns = [rng.uniform(0, 360) + 40 * np.sin(np.arange(NUM_FRAMES) / rng.uniform(10, 30)) for _ in mice]
    frames = np.repeat(scene[None], NUM_FRAMES, axis=0)
    for number, frame in enumerate(frames):
        angle = np.radians(70 * amounts["Lid open"][number])
        tip = hinge - [70 * np.cos(angle), 28 * np.sin(angle)]
        cv2.line(frame, tuple(map(int, hinge)), tuple(map(int, tip)), (90, 60, 40), 6)
        glow = 70 + amounts["Lamp on"][number] * np.array([180, 160, 40])
        cv2.circle(frame, lamp, 6, tuple(map(float, glow)), -1)
        for places, turn in zip(mice, turns, strict=True):
            stamp(frame, fur, places[number], 58, turn[number])
    _expose(frames, rng)
    return frames, np.stack([amount >= 0.5 for amount in amounts.values()], axis=1).astype(np.uint8)


def gripper(rng: np.random.Generator, project: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A gripper on a rail picks up a thing, carries it and puts it down elsewhere, or goes down for nothing."""
    scene = _floor(project)
    cv2.rectangle(scene, (0, TABLE), (SIZE[0], SIZE[1]), tuple(map(int, project.integers(60, 160, 3))), -1)
    cv2.rectangle(scene, (0, RAIL - 8), (SIZE[0], RAIL), (70, 75, 80), -1)
    looks = (things.crate, things.cup, things.pot, things.ball, things.barrel)
    item, size = looks[rng.integers(len(looks))](rng), rng.uniform(36, 54)
    path, parts = _errand(rng)
    frames = np.repeat(scene[None], NUM_FRAMES, axis=0)
    for frame, (x, depth, closed, item_x, held) in zip(frames, path, strict=True):
        tool = RAIL + 30 + depth * (TABLE - RAIL - 30 - 0.55 * size)
        stamp(frame, item, np.array([x, tool + 0.25 * size] if held else [item_x, TABLE - 0.3 * size]), size)
        cv2.line(frame, (int(x), RAIL), (int(x), int(tool - 16)), (150, 155, 160), 9)
        spread = 0.28 * size + 12 * (1 - closed)
        cv2.line(frame, (int(x - spread), int(tool - 16)), (int(x + spread), int(tool - 16)), (40, 45, 50), 7)
        for side in (-1, 1):
            cv2.line(
                frame,
                (int(x + side * spread), int(tool - 16)),
                (int(x + side * spread), int(tool + 0.3 * size)),
                (40, 45, 50),
                6,
            )
    _expose(frames, rng)
    return frames, marked(parts, ("Picks up", "Carries", "Puts down"))


def _floor(project: np.random.Generator) -> np.ndarray:
    """An empty scene [height, width, 3] uint8: a textured floor and wall."""
    base = project.uniform(90, 170, 3)
    texture = cv2.resize(project.random((15, 20, 1)).astype(np.float32), SIZE, interpolation=cv2.INTER_CUBIC)
    scene = (base + (texture[..., None] - 0.5) * 50).clip(0, 255)
    scene[:70] *= 0.75
    return scene.astype(np.uint8)


def _expose(frames: np.ndarray, rng: np.random.Generator) -> None:
    """Light and colour of the day, another in every video, in place: brightness says nothing about the states."""
    day = rng.uniform(0.75, 1.15) * rng.uniform(0.95, 1.05, 3)
    for frame in frames:
        frame[:] = cv2.multiply(frame, (*day, 1.0))
    lit(frames, rng, strength=0.08)


def _state(rng: np.random.Generator) -> np.ndarray:
    """How much of a state is there [num_frames], in [0, 1]: mostly none or all of it for the whole video."""
    kind = rng.random()
    if kind < NEVER + ALWAYS:
        return np.full(NUM_FRAMES, float(kind >= NEVER))
    changes = np.sort(rng.choice(np.arange(25, NUM_FRAMES - 25, 30), rng.integers(1, 3), replace=False))
    level = (np.searchsorted(changes, np.arange(NUM_FRAMES), side="right") + rng.integers(2)) % 2
    padded = np.pad(level.astype(float), CHANGE // 2, mode="edge")
    return np.convolve(padded, np.ones(CHANGE) / CHANGE, mode="valid")


def _errand(
    rng: np.random.Generator,
) -> tuple[list[Pose], list[tuple[str, int, int]]]:
    """What the gripper does: its pose in each frame, and the phases."""
    x, item_x, held = rng.uniform(40, 280), rng.uniform(50, 270), bool(rng.random() < 0.4)
    skipped = int(rng.integers(0, 40))  # frames before the video begins
    path: list[Pose] = []
    parts: list[tuple[str, int, int]] = []

    def record(kind: str, begin: int) -> None:
        start, end = max(begin - skipped, 0), min(len(path) - skipped, NUM_FRAMES)
        if end > start:
            parts.append((kind, start, end))

    while len(path) < NUM_FRAMES + skipped:
        in_vain = not held and rng.random() < 0.35
        goal = rng.uniform(40, 280) if held or in_vain else item_x
        while in_vain and abs(goal - item_x) < 65:
            goal = rng.uniform(40, 280)
        begin = len(path)
        for share in np.linspace(0, 1, int(rng.integers(14, 36))):
            path.append((x + share * (goal - x), 0.0, float(held), item_x, held))
        if held:
            record("Carries", begin)
        path += [(goal, 0.0, float(held), item_x, held)] * int(rng.integers(0, 8))
        x, begin = goal, len(path)
        for share in np.linspace(0, 1, int(rng.integers(*DIP, endpoint=True))):
            path.append((x, share, float(held), item_x, held))
        for share in np.linspace(0, 1, int(rng.integers(*GRIP, endpoint=True))):
            path.append((x, 1.0, 1 - share if held else share, x if held else item_x, held))
        released = held
        held, item_x = (not held and not in_vain), (x if held else item_x)
        for share in np.linspace(1, 0, int(rng.integers(*DIP, endpoint=True))):
            path.append((x, share, float(held), item_x, held))
        if released or held:
            record("Puts down" if released else "Picks up", begin)
    return path[skipped : skipped + NUM_FRAMES], parts
