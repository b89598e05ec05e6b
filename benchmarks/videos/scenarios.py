"""The scenarios of the few-shot benchmark and their videos, exact to the frame.

A scenario is a labeling task; with a seed it is a project of 20 videos to annotate and 12 that are never seen.
Everything follows from (scenario, seed, number of the video), so the files can be made again anywhere.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import numpy as np

from benchmarks.videos import appearing, changing, moving, sounding, staying
from benchmarks.videos.drawing import write_video

# (rng of the video, rng of the project) -> frames [num_frames, height, width, 3], labels [num_frames, num_labels], and
# sound [num_samples] where there is any
Draw = Callable[[np.random.Generator, np.random.Generator], tuple[np.ndarray, ...]]


class Group(str, Enum):
    """What a scenario is for. The values are headings of the report."""

    TUNING = "Scenarios of the tuning"
    KEPT_ASIDE = "Scenarios kept aside"  # nothing is tuned on them
    SIMPLER = "Simpler relatives of hard scenarios"  # they tell what makes the others hard
    SOUND = "Scenarios with sound"  # in the one it decides, in the other it misleads; the others have none


@dataclass(frozen=True)
class Scenario:
    """A labeling task.

    Attributes:
        labels: their names, in the order of the columns.
        task: things that appear, with events spread over the project's videos; or a function that draws one video.
        group: what it is for.
    """

    labels: tuple[str, ...]
    task: appearing.Task | Draw
    group: Group = Group.TUNING


def _of_things(task: appearing.Task, group: Group = Group.TUNING) -> Scenario:
    return Scenario(tuple(task.labels), task, group)


SCENARIOS = {
    "approach": Scenario(("approaches", "retreats"), changing.approach),
    "motion": Scenario(("moves", "shakes"), moving.motion),
    "states": Scenario(("Close", "Lid open", "Lamp on"), staying.states),
    "edges": _of_things(appearing.EDGES),
    "camera": Scenario(("moves",), moving.camera),
    "street": _of_things(appearing.STREET),
    "kitchen": _of_things(appearing.KITCHEN),
    "broadcast": _of_things(appearing.BROADCAST),
    "gate": Scenario(("opens", "closes", "pumps"), changing.gate, Group.KEPT_ASIDE),
    "gripper": Scenario(("Picks up", "Carries", "Puts down"), staying.gripper, Group.KEPT_ASIDE),
    "wildlife": _of_things(appearing.WILDLIFE, Group.KEPT_ASIDE),
    "workshop": _of_things(appearing.WORKSHOP, Group.KEPT_ASIDE),
    "docking": Scenario(("approaches", "retreats"), changing.docking, Group.SIMPLER),
    "porch": _of_things(appearing.PORCH, Group.SIMPLER),
    "heard": Scenario(sounding.SOUNDS, sounding.heard, Group.SOUND),
    "misheard": Scenario(("Close", "Lid open", "Lamp on"), sounding.misheard, Group.SOUND),
}


def draw_video(scenario: str, seed: int, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Frames [num_frames, height, width, 3], labels [num_frames, num_labels] in {0, 1} and sound [num_samples] of one
    video, 0 to 31."""
    name = zlib.crc32(scenario.encode())
    task = SCENARIOS[scenario].task
    of_video, of_project = np.random.default_rng([seed, name, number]), np.random.default_rng([seed, name])
    if isinstance(task, appearing.Task):
        drawn = appearing.draw(task, appearing.occurrences(task, of_project)[number], of_video)
    else:
        drawn = task(of_video, of_project)
    frames, labels, *sound = drawn
    return frames, labels, sound[0] if sound else None


def make_video(scenario: str, seed: int, number: int, path: Path) -> np.ndarray:
    """Write one video to `path` (H.264, and AAC where there is sound) and return its labels [num_frames, num_labels] in
    {0, 1}."""
    frames, labels, sound = draw_video(scenario, seed, number)
    write_video(frames, path, sound)
    return labels
