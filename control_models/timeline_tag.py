"""`TimelineTag`: `<TimelineLabels>` of a `<Video>`. Each labeling frame is a row."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from label_studio_sdk.label_interface.control_tags import ControlTag

from control_models.parameters import TimelineLabelsParameters
from control_models.tag import Drawn, Region, Tag, most_probable
from errors import InvalidConfig, InvalidTask
from features.extraction import VideoFeatures
from features.sequence import FeatureSequence
from learning.events import drop_short, merge_gaps
from learning.questions import chance_of_error, questions
from utils.converter import convert_probs_to_timelinelabels, convert_timelinelabels_to_probs, usable_regions
from utils.neural_nets import MultiLabelLSTM
from video.labeling_frames import labeling_frames
from video.timeline import Clock

# Labeling frames × labels of one video: two days at 25 frames a second and 15 labels. A prediction takes a few times
# four bytes for each.
MAX_LABELED_VALUES = 2**26


class TimelineTag(Tag):
    """A `<TimelineLabels>` tag. Arguments and errors are those of `Tag`."""

    control_type = "TimelineLabels"
    example = "<TimelineLabels>"
    label_tag = "Label"
    has_timeline = True
    parameters_type = TimelineLabelsParameters
    parameters: TimelineLabelsParameters

    def __init__(self, control: ControlTag, score_threshold: float) -> None:
        super().__init__(control, score_threshold)
        self._leave_out_marks()

    def _leave_out_marks(self) -> None:
        """Leaves out the labels that describe the annotation and not the video: `model_reviewed_label`,
        `model_query_label`."""
        reviewed, query = self.parameters.model_reviewed_label, self.parameters.model_query_label
        marks = {"model_reviewed_label": reviewed, "model_query_label": query}
        marks = {attribute: label for attribute, label in marks.items() if label is not None}
        learnt = [label for label in self.labels if label not in marks.values()]
        for attribute, label in marks.items():
            if label not in self.labels or not learnt:
                raise InvalidConfig(
                    f'<{self.control_type} name="{self.from_name}" {attribute}="{label}">: it must be one of the '
                    f'tag\'s labels, beside at least one to learn: add <Label value="{label}"/> to those.'
                )
        if query is not None and query == reviewed:
            raise InvalidConfig(
                f'<{self.control_type} name="{self.from_name}" model_query_label="{query}">: it must be another label '
                "than model_reviewed_label, which marks what was answered."
            )
        if query is not None and reviewed is None:
            raise InvalidConfig(
                f'<{self.control_type} name="{self.from_name}" model_query_label="{query}">: it needs a label for what '
                'was answered, since only that is learnt. Add model_reviewed_label="Reviewed" and '
                '<Label value="Reviewed"/>.'
            )
        self.labels = learnt

    def shown(self, features: VideoFeatures, frame_rate: float) -> np.ndarray:
        """The index of the video frame that is shown at each labeling frame's moment.

        Raises:
            InvalidTask: the video has too many labeling frames.
        """
        values = features.duration * frame_rate * len(self.labels)
        if values > MAX_LABELED_VALUES:
            raise InvalidTask(
                f"The video lasts {features.duration:.0f} s, which at {frame_rate:g} labeling frames a second and "
                f"{len(self.labels)} labels are {values:.2g} values to predict; at most {MAX_LABELED_VALUES:.2g} are "
                "possible. Set frameRate to the video's frame rate, for example 25, or split the video."
            )
        return labeling_frames(features.times, features.duration, frame_rate)

    def clock(self, features: VideoFeatures, frame_rate: float) -> Clock:
        """The times of the video's labeling frames and its own frames."""
        return Clock(frame_rate, self.shown(features, frame_rate), features.frame_rate, features.duration)

    def sequence(self, features: VideoFeatures, frame_rate: float) -> FeatureSequence:
        return FeatureSequence(features, self.shown(features, frame_rate))

    def rows(self, probs: np.ndarray, features: VideoFeatures, frame_rate: float) -> np.ndarray:
        return probs[self.shown(features, frame_rate)]

    def shows(self, result: list[Any]) -> set[str]:
        regions, _ = usable_regions(result, self.from_name)
        return set(_labels(regions)) & set(self.labels)

    def is_answered(self, result: list[Any]) -> bool:
        reviewed = self.parameters.model_reviewed_label
        return reviewed is None or reviewed in _labels(usable_regions(result, self.from_name)[0])

    def drawn(self, result: list[Any], num_rows: int) -> Drawn:
        regions, faults = usable_regions(result, self.from_name)
        remarks = [f"is used without a region: {fault}" for fault in faults]
        unknown = sorted({label for label in _labels(regions) if label not in self.control.labels})
        if unknown:
            names = ", ".join(map(repr, unknown))
            remarks.append(f"is used without {names}: the labeling config has no such label.")
        labels = _marks(regions, self.label_map, num_rows)
        if self.parameters.model_reviewed_label is None:
            return Drawn(labels, None, remarks)
        reviewed = _marks(regions, {self.parameters.model_reviewed_label: 0}, num_rows)[:, 0] > 0
        if reviewed.any():
            return Drawn(labels, reviewed, remarks)
        return Drawn(None, reviewed, [*remarks, "marks no frame as reviewed, so it isn't used."])

    def decide(
        self,
        probs: np.ndarray,
        frame_rate: float,
        classifier: MultiLabelLSTM | None = None,
        annotated: np.ndarray | None = None,
    ) -> np.ndarray:
        parameters = self.parameters
        if classifier is None:
            labels = self._allowed(probs >= self.threshold, probs)
        else:
            labels = classifier.decisions.labels(probs, frame_rate, self.threshold, parameters.model_exclusive)
        gap, shortest = (  # in frames; rounded, since 0.28 × 25 is a little more than 7
            round(seconds * frame_rate, 6) for seconds in (parameters.model_merge_gap, parameters.model_min_duration)
        )
        # Before short events are dropped, those that only a gap parts are one.
        labels = merge_gaps(labels, math.floor(gap), parameters.model_exclusive)
        labels = drop_short(labels, math.ceil(shortest))
        if annotated is not None:
            labels[annotated] = self._allowed(probs > 0, probs)[annotated]
        return labels

    def _allowed(self, labels: np.ndarray, probs: np.ndarray) -> np.ndarray:
        """All labels; where they are exclusive, only the most probable one of each frame."""
        return labels & most_probable(probs) if self.parameters.model_exclusive else labels

    def regions(self, probs: np.ndarray, labels: np.ndarray) -> list[Region]:
        return convert_probs_to_timelinelabels(
            probs, self.label_map, self.from_name, to_name=self.to_name, labels=labels
        )

    def questions(self, probs: np.ndarray, frame_rate: float) -> list[Region]:
        """The regions that mark what to ask an annotator, with `model_query_label`. A region's score is the mean chance
        that the labels of its frames aren't all right.

        Args:
            probs: [num_frames, num_labels], 0 or 1 in annotated frames.
            frame_rate: labeling frames per second.
        """
        asked = np.zeros((len(probs), 1), bool)
        for start, end in questions(probs, frame_rate):
            asked[start:end] = True
        columns = {self.parameters.model_query_label: 0}
        chance = chance_of_error(probs)[:, None]
        return convert_probs_to_timelinelabels(chance, columns, self.from_name, to_name=self.to_name, labels=asked)

    def requirements(self) -> dict[str, Any]:
        return super().requirements() | {"reviewed_label": self.parameters.model_reviewed_label}

    def decisions(self) -> dict[str, Any]:
        names = ("model_exclusive", "model_min_duration", "model_merge_gap", "model_query_label")
        return super().decisions() | {name: getattr(self.parameters, name) for name in names}


def _labels(regions: list[Region]) -> Iterator[str]:
    for region in regions:
        yield from region["value"].get("timelinelabels") or []


def _marks(regions: list[Region], columns: dict[str, int], num_frames: int) -> np.ndarray:
    """The marks [num_frames, labels], 1 where a frame has a label. Labels without a column are left out."""
    known = [
        {
            **region,
            "value": {
                **region["value"],
                "timelinelabels": [label for label in region["value"].get("timelinelabels") or [] if label in columns],
            },
        }
        for region in regions
    ]
    return convert_timelinelabels_to_probs(known, columns, num_frames)[0]
