"""Draw the demo's videos: short scenes of footballers, with their true timelines.

A ball enters the picture, is kicked once or twice and leaves it, sometimes twice in a video. Kits, pitch, light, places
and times differ from video to video. Everything follows from the video's number, so that the files can be made again
anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

WIDTH, HEIGHT, FRAME_RATE = 640, 360, 25
IN_FRAME, TOUCH = "Ball in frame", "Ball touch"
BALL_RADIUS = 24
GROUND = 312  # height of the players' soles in the picture
# Frames of a kick before and after the contact.
KICK_BEFORE, KICK_AFTER = 6, 7
OUTSIDE = 2 * BALL_RADIUS  # beyond the picture's edge

Colour = tuple[int, int, int]
KITS: list[Colour] = [(240, 210, 60), (200, 40, 45), (245, 245, 245), (240, 130, 30), (40, 60, 170), (120, 30, 120)]
SKINS: list[Colour] = [(226, 180, 150), (160, 110, 80), (110, 75, 55)]
PITCHES: list[Colour] = [(38, 120, 58), (58, 132, 50), (88, 122, 52), (30, 104, 76)]
SKIES: list[Colour] = [(112, 146, 214), (160, 178, 196), (214, 170, 130), (76, 92, 140)]

Timeline = dict[str, list[tuple[int, int]]]  # label -> (first, last) frame, 1-based, both included


@dataclass(frozen=True)
class Player:
    """A footballer at a place, looking left (-1) or right (1)."""

    x: int
    kit: Colour
    skin: Colour


@dataclass
class Move:
    """The ball's way from one place to another, in frames of the video. It begins with a kick if `kicker` is set."""

    start: int
    end: int
    origin: float
    target: float
    lob: float  # height of the flight in pixels, 0 for a ball that rolls
    kicker: Player | None

    def place(self, index: int) -> tuple[float, float]:
        """The ball's centre at a frame's index."""
        share = (index - self.start) / (self.end - self.start)
        x = self.origin + (self.target - self.origin) * share
        return x, GROUND - BALL_RADIUS - self.lob * math.sin(math.pi * share)


@dataclass
class Scene:
    """The events of one video."""

    num_frames: int
    players: list[Player]
    moves: list[Move] = field(default_factory=list)


def write_video(number: int, path: Path) -> Timeline:
    """Draw video `number` (0, 1, 2 …) into an H.264 file. Returns its true timeline."""
    scene, rng = _scene(number)
    with av.open(str(path), "w", container_options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=FRAME_RATE, options={"preset": "veryfast", "crf": "24"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for picture in _pictures(scene, rng):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return timeline(number)


def timeline(number: int) -> Timeline:
    """The true timeline of video `number`."""
    scene, _ = _scene(number)
    indices = range(scene.num_frames)
    touched = [any(_kick(scene, index, player) is not None for player in scene.players) for index in indices]
    return {
        IN_FRAME: _ranges([_ball(scene, index) is not None for index in indices]),
        TOUCH: _ranges(touched),
    }


def num_frames(number: int) -> int:
    """The length of video `number` in frames."""
    return _scene(number)[0].num_frames


def result(marked: Timeline) -> list[dict[str, Any]]:
    """The `result` of a Label Studio annotation, for a config with the tag names `tl` and `video`."""
    return [
        {
            "id": f"{label.split()[-1]}{start}",
            "from_name": "tl",
            "to_name": "video",
            "type": "timelinelabels",
            "value": {"ranges": [{"start": start, "end": end}], "timelinelabels": [label]},
        }
        for label, ranges in marked.items()
        for start, end in ranges
    ]


def _scene(number: int) -> tuple[Scene, np.random.Generator]:
    """The video's scene, and the random generator for drawing it."""
    rng = np.random.default_rng([2026, number])
    return _invent(rng), rng


def _invent(rng: np.random.Generator) -> Scene:
    count = int(rng.integers(1, 3))
    places = [int(rng.integers(220, 420))] if count == 1 else [int(rng.integers(130, 250)), int(rng.integers(390, 510))]
    kit = KITS[rng.integers(len(KITS))]
    players = [Player(x, kit, SKINS[rng.integers(len(SKINS))]) for x in places]
    scene = Scene(int(rng.integers(200, 251)), players)
    now = int(rng.integers(20, 60))
    while now < scene.num_frames - 90:
        now = _attack(scene, now, rng) + int(rng.integers(25, 60))
    return scene


def _attack(scene: Scene, start: int, rng: np.random.Generator) -> int:
    """Add an attack: the ball comes in, goes from player to player and out. Returns the frame after it."""
    leftwards = bool(rng.random() < 0.5)
    players = scene.players[::-1] if leftwards else scene.players
    direction = -1 if leftwards else 1
    entry, exit_ = (WIDTH + OUTSIDE, -OUTSIDE) if leftwards else (-OUTSIDE, WIDTH + OUTSIDE)
    if len(players) == 1 and rng.random() < 0.4:
        exit_ = entry  # back to where it came from
    stops = [entry, *(player.x + direction * -34 for player in players), exit_]
    kickers = [None, *players]
    for origin, target, kicker in zip(stops, stops[1:], kickers, strict=False):
        speed = rng.uniform(7, 12) if kicker else rng.uniform(5, 9)
        end = start + max(12, round(abs(target - origin) / speed))
        lob = float(rng.uniform(40, 150)) if kicker and rng.random() < 0.5 else 0.0
        scene.moves.append(Move(start, end, origin, target, lob, kicker))
        start = end
    return start


def _kick(scene: Scene, index: int, player: Player) -> float | None:
    """How far a player's kick is at a frame's index, in [0, 1]; None where the player stands."""
    for move in scene.moves:
        if move.kicker is player and move.start - KICK_BEFORE <= index <= move.start + KICK_AFTER:
            return (index - move.start + KICK_BEFORE) / (KICK_BEFORE + KICK_AFTER)
    return None


def _ball(scene: Scene, index: int) -> tuple[float, float] | None:
    """The ball's centre; None where less than half of the ball is in the picture."""
    for move in scene.moves:
        if move.start <= index < move.end:
            x, y = move.place(index)
            return (x, y) if 0 <= x < WIDTH else None
    return None


def _ranges(shown: list[bool]) -> list[tuple[int, int]]:
    """Runs of True as 1-based frames."""
    edges = np.flatnonzero(np.diff([0, *map(int, shown), 0]))
    return [(int(start) + 1, int(end)) for start, end in edges.reshape(-1, 2)]


# Drawing


def _pictures(scene: Scene, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Every picture, uint8 [height, width, 3]."""
    background = _background(rng)
    noise = np.repeat(rng.normal(0, 5, (8, HEIGHT, WIDTH, 1)).astype(np.int16), 3, axis=3)
    light = rng.uniform(0.02, 0.08), rng.uniform(20, 60)
    for index in range(scene.num_frames):
        image = background.copy()
        for player in scene.players:
            _draw_player(image, player, _kick(scene, index, player), _facing(scene, index, player))
        for move in scene.moves:
            if move.start <= index < move.end:
                _draw_ball(image, *move.place(index), angle=index * 9)
        brightness = 1 + light[0] * math.sin(index / light[1])
        lit = cv2.convertScaleAbs(image, alpha=brightness)
        yield cv2.add(lit, noise[index % len(noise)], dtype=cv2.CV_8U)


def _background(rng: np.random.Generator) -> np.ndarray:
    image = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    horizon = int(rng.integers(150, 200))
    sky, pitch = SKIES[rng.integers(len(SKIES))], np.array(PITCHES[rng.integers(len(PITCHES))])
    image[:horizon] = np.array(sky) * np.linspace(0.85, 1.05, horizon)[:, None, None]
    stripe, offset = int(rng.integers(50, 110)), int(rng.integers(0, 100))
    for x in range(-offset, WIDTH, stripe):
        shade = 1.0 if (x + offset) // stripe % 2 else 1.18
        image[horizon:, max(x, 0) : max(x + stripe, 0)] = pitch * shade
    image[horizon - 8 : horizon] = (225, 225, 225)
    for _ in range(int(rng.integers(0, 4))):  # trees behind the pitch
        centre = int(rng.integers(0, WIDTH)), horizon - 34
        cv2.circle(image, centre, int(rng.integers(18, 36)), tuple(map(int, pitch * 0.7)), -1, cv2.LINE_AA)
    return image


def _facing(scene: Scene, index: int, player: Player) -> int:
    """The direction, -1 or 1, of the player's next kick, or else of the last one."""
    kicks = [move for move in scene.moves if move.kicker is player]
    coming = [move for move in kicks if move.start + KICK_AFTER >= index] or kicks[-1:]
    return 1 if not coming or coming[0].target > coming[0].origin else -1


def _draw_player(image: np.ndarray, player: Player, kick: float | None, facing: int) -> None:
    x, hip, shoulder = player.x, GROUND - 74, GROUND - 132
    swing = 0.0 if kick is None else math.radians(-45 + 110 * kick) * facing
    lean = 0 if kick is None else -8 * facing
    shorts: Colour = (30, 30, 60)

    def line(start: tuple[int, int], end: tuple[int, int], colour: Colour, width: int) -> None:
        cv2.line(image, start, end, colour, width, cv2.LINE_AA)

    foot = (round(x + 70 * math.sin(swing)), round(hip + 70 * math.cos(swing)))
    line((x - 6 * facing, hip), (x - 10 * facing, GROUND - 4), shorts, 13)
    line((x + 4 * facing, hip), foot if kick is not None else (x + 10 * facing, GROUND - 4), shorts, 13)
    reach = 20 if kick is None else 52
    drop = 50 if kick is None else -8
    for side in (-1, 1):
        line((x + lean + side * 14, shoulder + 10), (x + lean + side * reach, shoulder + drop), player.kit, 11)
    cv2.ellipse(image, (x + lean // 2, (hip + shoulder) // 2), (21, 38), 0, 0, 360, player.kit, -1, cv2.LINE_AA)
    cv2.circle(image, (x + lean, shoulder - 20), 18, player.skin, -1, cv2.LINE_AA)


def _draw_ball(image: np.ndarray, x: float, y: float, angle: float) -> None:
    centre = round(x), round(y)
    cv2.circle(image, centre, BALL_RADIUS, (245, 245, 245), -1, cv2.LINE_AA)
    for turn in range(0, 360, 72):
        spot = math.radians(angle + turn)
        patch = round(x + 14 * math.cos(spot)), round(y + 14 * math.sin(spot))
        cv2.circle(image, patch, 5, (20, 20, 20), -1, cv2.LINE_AA)
    cv2.circle(image, centre, BALL_RADIUS, (20, 20, 20), 2, cv2.LINE_AA)
