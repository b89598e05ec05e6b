"""FiftyOne's temporal detections: the `labels.json` of a `FiftyOneTemporalDetectionDataset`.

    fiftyone.Dataset.from_dir(dataset_type=fiftyone.types.FiftyOneTemporalDetectionDataset,
                              data_path=FOLDER_OF_VIDEOS, labels_path="labels.json")

FiftyOne finds a video in the folder by its name without suffix. It counts the file's own frames from 1, both ends
included.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

from video.task_data import file_path
from video.timeline import Timeline


def write(timelines: Sequence[Timeline], file: TextIO) -> None:
    """Writes the timelines' events by video. The attribute `source` tells the timelines of a video apart."""
    classes = list(dict.fromkeys(label for timeline in timelines for label in timeline.labels))
    names = _names({timeline.observation.video for timeline in timelines})
    detections: dict[str, list[dict[str, Any]]] = {}
    for timeline in timelines:
        found = detections.setdefault(names[timeline.observation.video], [])
        for event in timeline.observation.events:
            detection: dict[str, Any] = {
                "label": classes.index(event.label),
                "support": list(timeline.clock.file_frames(event)),
                "attributes": {"source": timeline.observation.source},
            }
            found.append(detection if event.score is None else detection | {"confidence": event.score})
    json.dump({"classes": classes, "labels": detections}, file, indent=1, ensure_ascii=False)


def _names(videos: Iterable[str]) -> dict[str, str]:
    """The name of each video without suffix, or its path without suffix where another video has the same name."""
    paths = {video: file_path(video) for video in videos}
    stems = Counter(path.stem for path in paths.values())
    return {
        video: path.stem if stems[path.stem] == 1 else str(path.parent / path.stem) for video, path in paths.items()
    }
