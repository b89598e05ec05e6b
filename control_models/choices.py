"""`ChoicesModel`: choose labels for a video as a whole, by the encoder's own classes or by a trained classifier."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from label_studio_sdk.label_interface.control_tags import ControlTag

from control_models.base import ControlModel
from control_models.parameters import Parameters
from control_models.tag import Drawn, Region, Tag, most_probable
from features.extraction import VideoFeatures
from features.sequence import APPEARANCE, FeatureSequence
from learning.dataset import READ
from utils.neural_nets import MultiLabelLSTM

REGION_TYPE = "choices"


class PooledSequence:
    """A video's features in one row, [1, dim]: the mean of each block over the frames, and the standard deviation of
    appearance.

    Changes and brief things move the deviation more than the mean (benchmarks/tried.md).

    Args:
        frames: the features of the video's frames, at least one.

    Attributes:
        content: hash of the video file's bytes.
        layout: block -> its dimensions, in their order in the row.
    """

    def __init__(self, frames: FeatureSequence) -> None:
        dim = frames.layout[APPEARANCE]  # the first block of a row
        self.content = frames.content
        self.layout = frames.layout | {APPEARANCE: 2 * dim}
        total, squares = np.zeros(frames.shape[1]), np.zeros(dim)
        for start in range(0, len(frames), READ):
            values = frames[start : start + READ].astype(np.float64)
            total += values.sum(axis=0)
            squares += (values[:, :dim] ** 2).sum(axis=0)
        mean = total / len(frames)
        deviation = np.sqrt(np.maximum(squares / len(frames) - mean[:dim] ** 2, 0))
        self._row = np.concatenate([mean[:dim], deviation, mean[dim:]]).astype(np.float32)[None]

    @property
    def shape(self) -> tuple[int, int]:
        """1, dim."""
        return self._row.shape

    def __getitem__(self, rows: slice) -> np.ndarray:
        return self._row[rows]


class ChoicesParameters(Parameters):
    """Attributes of `<Choices>`."""

    control_type = "Choices"


class ChoicesTag(Tag):
    """A `<Choices>` tag that labels a video as a whole. Arguments and errors are those of `Tag`.

    A video is one row (`PooledSequence`).
    """

    control_type = "Choices"
    example = '<Choices model_trainable="true"> of a <Video>'
    label_tag = "Choice"
    has_timeline = False
    parameters_type = ChoicesParameters

    def __init__(self, control: ControlTag, score_threshold: float) -> None:
        super().__init__(control, score_threshold)
        self.is_single = control.attr.get("choice", "single") != "multiple"

    @classmethod
    def is_matched(cls, control: ControlTag) -> bool:
        """Whether the tag is a `<Choices>` of a video with an attribute `model_…`, or with `predicted_values`.

        Others are left alone, since many configs have `<Choices>` for what only people can tell.
        """
        names_classes = any("predicted_values" in label.attr for label in getattr(control, "labels_attrs", {}).values())
        is_asked = names_classes or any(name.startswith("model_") for name in control.attr)
        of_region = {"perregion", "peritem"} & {name.lower() for name, value in control.attr.items() if value == "true"}
        is_of_video = any(tag.tag == cls.object_type for tag in control.objects) and not of_region
        return control.tag == cls.control_type and is_asked and is_of_video and super().is_matched(control)

    def sequence(self, features: VideoFeatures, frame_rate: float) -> PooledSequence:
        return PooledSequence(FeatureSequence(features))

    def rows(self, probs: np.ndarray, features: VideoFeatures, frame_rate: float) -> np.ndarray:
        return probs.mean(axis=0, keepdims=True)

    def is_answered(self, result: list[Any]) -> bool:
        return self.drawn(result, 1).labels is not None

    def shows(self, result: list[Any]) -> set[str]:
        labels = self.drawn(result, 1).labels
        return set() if labels is None else {label for label, column in self.label_map.items() if labels[0, column]}

    def drawn(self, result: list[Any], num_rows: int) -> Drawn:
        remarks: list[str] = []
        chosen: set[str] = set()
        for region in result:
            if not isinstance(region, dict) or region.get("from_name") != self.from_name:
                continue
            if region.get("type") != REGION_TYPE:
                continue
            value = region.get("value")
            choices = value.get("choices") if isinstance(value, dict) else None
            if not isinstance(choices, list) or not all(isinstance(choice, str) for choice in choices):
                remarks.append(f"is used without its choices, which aren't a list of names: {choices!r:.100}.")
                continue
            chosen.update(choices)
        unknown = sorted(chosen - set(self.labels))
        if unknown:
            names = ", ".join(map(repr, unknown))
            remarks.append(f"is used without {names}: the labeling config has no such choice.")
        labels = np.array([[label in chosen for label in self.labels]], np.float32)
        if self.is_single and labels.sum() != 1:  # not answered, or before the config was changed
            return Drawn(None, None, remarks)
        return Drawn(labels, None, remarks)

    def decide(
        self,
        probs: np.ndarray,
        frame_rate: float,
        classifier: MultiLabelLSTM | None = None,
        annotated: np.ndarray | None = None,
    ) -> np.ndarray:
        """As of `Tag`. A trained single choice without a threshold is the most probable label, however probable."""
        if self.threshold is not None:
            chosen = probs >= self.threshold
        else:
            chosen = np.ones(probs.shape, bool) if self.is_single else probs >= classifier.decisions.thresholds.numpy()
        if annotated is not None:
            chosen = np.where(annotated[:, None], probs > 0, chosen)
        return chosen & most_probable(probs) if self.is_single else chosen

    def regions(self, probs: np.ndarray, labels: np.ndarray) -> list[Region]:
        """Makes one region with all chosen labels, none where no label is chosen."""
        (columns,) = np.nonzero(labels[0])
        if not len(columns):
            return []
        return [
            {
                "id": hashlib.blake2b(repr((self.from_name, REGION_TYPE)).encode(), digest_size=8).hexdigest(),
                "type": REGION_TYPE,
                "from_name": self.from_name,
                "to_name": self.to_name,
                "value": {"choices": [self.labels[column] for column in columns]},
                "score": float(probs[0, columns].mean()),
            }
        ]

    def score(self, probs: np.ndarray, classifier: MultiLabelLSTM | None) -> float:
        """As of `Tag`; for exclusive labels the share of the chosen one in the sum of all probabilities."""
        if not self.is_single:
            return super().score(probs, classifier)
        share = float(probs.max() / max(probs.sum(), 1.0 if classifier is None else 1e-9))
        return share if classifier is None else share * float(classifier.decisions.calibration_ratio)

    def requirements(self) -> dict[str, Any]:
        return super().requirements() | {"single": self.is_single}


class ChoicesModel(ControlModel):
    """Serves `<Choices>` connected to a `<Video>`: labels of the video as a whole.

    With `model_trainable="false"` (simple mode) the mean of the frames' class probabilities, mapped to labels, decides.
    With "true" a classifier of the features' mean and deviation decides, trained on the project's annotations. With
    `choice="multiple"` any number of labels is chosen, and an annotation without labels means that there are none.
    Otherwise exactly one is chosen, and a video without exactly one isn't learnt.
    """

    tag_type = ChoicesTag
