"""Label Studio's JSON: a list of tasks with predictions or annotations, as its Import takes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from video.timeline import Observation, regions_of_events


def tasks_with_annotations(
    observations: Sequence[Observation],
    frame_rate: float,
    *,
    data_key: str,
    from_name: str,
    to_name: str,
    url: Callable[[str], str] = str,
) -> list[dict[str, Any]]:
    """Tasks with the observations as annotations, those of one video in one task.

    Args:
        observations: what was read.
        frame_rate: labeling frames per second of the project.
        data_key: the task-data key that the video tag shows.
        from_name: name of the control tag.
        to_name: name of the video tag.
        url: what the task is to say for an observation's video.
    """
    tasks: dict[str, dict[str, Any]] = {}
    for observation in observations:
        task = tasks.setdefault(observation.video, {"data": {data_key: url(observation.video)}, "annotations": []})
        task["annotations"].append({"result": regions_of_events(observation.events, frame_rate, from_name, to_name)})
    return list(tasks.values())
