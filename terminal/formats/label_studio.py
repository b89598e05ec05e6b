"""Label Studio's JSON: a list of tasks with annotations, for its Import."""

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
    """Makes tasks with observations as annotations. The observations of one video are in one task.

    Args:
        observations: the observations.
        frame_rate: labeling frames per second of the project.
        data_key: the key of the task's data that the video tag shows.
        from_name: name of the control tag.
        to_name: name of the video tag.
        url: makes the task's URL of an observation's video.
    """
    tasks: dict[str, dict[str, Any]] = {}
    for observation in observations:
        task = tasks.setdefault(observation.video, {"data": {data_key: url(observation.video)}, "annotations": []})
        task["annotations"].append({"result": regions_of_events(observation.events, frame_rate, from_name, to_name)})
    return list(tasks.values())
