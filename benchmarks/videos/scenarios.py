"""The scenarios of the few-shot benchmark and their videos, exact to the frame.

A scenario is a labeling task; with a seed it is a project of 20 videos to annotate and 12 that are never seen.
Everything follows from (scenario, seed, number of the video), so the files can be made again anywhere.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.videos import appearing, changing, moving, staying
from benchmarks.videos.drawing import write_video

# (rng of the video, rng of the project) -> frames [num_frames, height, width, 3], labels [num_frames, num_labels]
Draw = Callable[[np.random.Generator, np.random.Generator], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Scenario:
    """A labeling task.

    Attributes:
        labels: their names, in the order of the columns.
        task: things that appear, with events spread over the project's videos; or a function that draws one video.
        held_out: whether nothing is tuned on it.
    """

    labels: tuple[str, ...]
    task: appearing.Task | Draw
    held_out: bool = False


def _of_things(task: appearing.Task, held_out: bool = False) -> Scenario:
    return Scenario(tuple(task.labels), task, held_out)


SCENARIOS = {
    "approach": Scenario(("approaches", "retreats"), changing.approach),
    "motion": Scenario(("moves", "shakes"), moving.motion),
    "states": Scenario(("Close", "Lid open", "Lamp on"), staying.states),
    "edges": _of_things(appearing.EDGES),
    "camera": Scenario(("moves",), moving.camera),
    "street": _of_things(appearing.STREET),
    "kitchen": _of_things(appearing.KITCHEN),
    "broadcast": _of_things(appearing.BROADCAST),
    "gate": Scenario(("opens", "closes", "pumps"), changing.gate, held_out=True),
    "gripper": Scenario(("Picks up", "Carries", "Puts down"), staying.gripper, held_out=True),
    "wildlife": _of_things(appearing.WILDLIFE, held_out=True),
    "workshop": _of_things(appearing.WORKSHOP, held_out=True),
}


def draw_video(scenario: str, seed: int, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Frames [num_frames, height, width, 3] and labels [num_frames, num_labels] in {0, 1} of one video, 0 to 31."""
    name = zlib.crc32(scenario.encode())
    task = SCENARIOS[scenario].task
    of_video, of_project = np.random.default_rng([seed, name, number]), np.random.default_rng([seed, name])
    if isinstance(task, appearing.Task):
        return appearing.draw(task, appearing.occurrences(task, of_project)[number], of_video)
    return task(of_video, of_project)


def make_video(scenario: str, seed: int, number: int, path: Path) -> np.ndarray:
    """Write one video to `path` (H.264) and return its labels [num_frames, num_labels] in {0, 1}."""
    frames, labels = draw_video(scenario, seed, number)
    write_video(frames, path)
    return labels
