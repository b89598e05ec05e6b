"""Videos of plain colours, labelled by their names, and models of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from label_studio_sdk.label_interface import LabelInterface

from ml_backend.settings import Settings
from tests.servers import annotation, region
from tests.videos import write_video
from utils.converter import convert_timelinelabels_to_probs

if TYPE_CHECKING:
    from control_models.timeline_labels import TimelineLabelsModel
    from control_models.timeline_tag import TimelineTag
    from model import YOLO

RED, GREEN, BLUE, GREY = (220, 30, 30), (30, 200, 40), (40, 60, 220), (120, 120, 120)
RED_BLUE = annotation(1, region(21, 40, "Red"), region(61, 80, "Blue"))


def config(
    attributes: str = 'model_trainable="true"', labels: tuple[str, ...] = ("Red", "Blue"), rate: str = "25"
) -> str:
    tags = "".join(f'<Label value="{label}"/>' for label in labels)
    return (
        f'<View><TimelineLabels name="tl" toName="video" {attributes}>{tags}</TimelineLabels>'
        f'<Video name="video" value="$video" frameRate="{rate}"/></View>'
    )


def timeline_tag(*attributes: str, labels: tuple[str, ...] = ("Red", "Blue")) -> TimelineTag:
    """The control tag of `config`."""
    from control_models.timeline_tag import TimelineTag  # it imports PyTorch

    return TimelineTag(LabelInterface(config(*attributes, labels=labels)).get_control("tl"), 0.5)


def control(model: YOLO, index: int = 0) -> TimelineLabelsModel:
    return model.control_models[index]


def task(settings: Settings, task_id: int, colours: list[tuple[int, int, int]], rate: float = 25) -> dict[str, Any]:
    path = settings.local_files_document_root / f"{task_id}.mp4"
    write_video(path, colours, rate=rate, size=(64, 64))
    return {"id": task_id, "data": {"video": str(path)}}


def annotated(task: dict[str, Any], *annotations: dict[str, Any]) -> dict[str, Any]:
    return {**task, "annotations": list(annotations)}


def notes(model: YOLO) -> list[tuple[int, str]]:
    return [(note.task_id, note.text) for note in model.services.store.notes("1")]


def predicted(
    model: YOLO, task: dict[str, Any], labels: tuple[str, ...] = ("Red", "Blue"), frames: int = 100
) -> np.ndarray:
    regions = model.predict([task]).predictions[0]["result"]
    columns = {label: index for index, label in enumerate(labels)}
    return convert_timelinelabels_to_probs(regions, columns, frames)[0]
