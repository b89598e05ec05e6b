"""`Tag`: a control tag of the labeling config, and the form of its annotations and predictions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple

import numpy as np
from label_studio_sdk.label_interface.control_tags import ControlTag
from label_studio_sdk.label_interface.object_tags import ObjectTag

from control_models.parameters import Parameters
from errors import InvalidConfig, MediaError
from features.extraction import VideoFeatures
from learning.dataset import FrameFeatures
from learning.decisions import expected_f1
from utils.neural_nets import MultiLabelLSTM
from video.labeling_frames import check_frame_rate, frame_rate
from video.task_data import VARIABLE, task_value

DEFAULT_THRESHOLD = 0.5  # of MODEL_SCORE_THRESHOLD
# Of labels without the attribute background, in turns: colours that colour-blind people tell apart (Okabe and Ito,
# "Color Universal Design", 2008), without yellow, which is hard to see on white.
DEFAULT_COLOURS = ("#009e73", "#0072b2", "#d55e00", "#cc79a7", "#e69f00", "#56b4e9")

Region = dict[str, Any]


class Drawn(NamedTuple):
    """An annotation as arrays.

    Attributes:
        labels: [num_rows, num_labels], 0 or 1; None where the annotation isn't used.
        reviewed: [num_rows] bool, the annotated rows; None for all.
        remarks: notes for the annotator, each the end of a sentence that begins with "Annotation 3 ".
    """

    labels: np.ndarray | None
    reviewed: np.ndarray | None
    remarks: list[str]


class Tag(ABC):
    """A control tag of a labeling config.

    It reads no file and has no state. A video consists of rows, each with labels: the frames of a timeline, or one row
    for the video as a whole.

    Args:
        control: the control tag.
        score_threshold: the default of its attribute `model_score_threshold`.

    Attributes:
        from_name, to_name: names of the control tag and of the object tag that it is connected to.
        parameters: the attributes that steer the model.
        labels: the labels to learn and predict, in the order of the columns.
        label_map: label -> column.
        colours: label -> CSS colour.
        threshold: the probability from which on a row has a label; None where each label's threshold is learnt.

    Raises:
        InvalidConfig: the tag can't be used; the message names tag and attribute.
    """

    control_type: ClassVar[str]  # the control tag's name in the labeling config
    example: ClassVar[str]  # a tag that is served, for messages
    label_tag: ClassVar[str]  # the name of the tags of its labels
    has_timeline: ClassVar[bool]  # whether the rows are the frames of a timeline
    object_type: ClassVar[str] = "Video"  # the name of the object tag that it must be connected to
    parameters_type: ClassVar[type[Parameters]]

    def __init__(self, control: ControlTag, score_threshold: float) -> None:
        self.control = control
        self.from_name: str = control.name
        self.object: ObjectTag = self._connected_object()
        self.to_name: str = self.object.name
        self.labels: list[str] = self.named_labels()
        if not self.labels:
            tag = f'<{self.control_type} name="{self.from_name}">'
            raise InvalidConfig(f"{tag} has no <{self.label_tag}>. Add at least one.")
        self.parameters = self.parameters_type.from_attributes(self.from_name, control.attr, score_threshold)
        given = [control.attr.get(name, "").strip() for name in ("model_score_threshold", "score_threshold")]
        asked = not self.parameters.model_trainable or any(given)
        learnt = not asked and score_threshold == DEFAULT_THRESHOLD
        self.threshold: float | None = None if learnt else self.parameters.model_score_threshold
        check_frame_rate(f'<{self.object_type} name="{self.to_name}"', self._frame_rate_attribute)

    def named_labels(self) -> list[str]:
        """The labels that the config gives the tag: those of its children."""
        return list(self.control.labels)

    def _connected_object(self) -> ObjectTag:
        for tag in self.control.objects:
            if tag.tag == self.object_type:
                return tag
        raise InvalidConfig(
            f'<{self.control_type} name="{self.from_name}" toName="{",".join(self.control.to_name)}"> must be '
            f"connected to a <{self.object_type}>. Set toName to the name of one."
        )

    @classmethod
    def is_matched(cls, control: ControlTag) -> bool:
        """Whether a control tag of the config is of this type, and isn't to be skipped."""
        return control.tag == cls.control_type and not cls.parameters_type.is_skipped(control.name, control.attr)

    @property
    def label_map(self) -> dict[str, int]:
        return {label: column for column, label in enumerate(self.labels)}

    @property
    def colours(self) -> dict[str, str]:
        attributes = {label: tag.attr for label, tag in self.control.labels_attrs.items()}
        return {
            label: attributes.get(label, {}).get("background") or DEFAULT_COLOURS[number % len(DEFAULT_COLOURS)]
            for number, label in enumerate(self.labels)
        }

    # -- of a task

    def media(self, task: dict[str, Any]) -> str:
        """The value of the task's data that the control tag's object shows: a path or URL.

        Raises:
            MediaError: the data has no such value.
        """
        expression = self.object.attr.get("value") or f"${self.object.value_name}"
        value = task_value(expression, task.get("data", {}))
        if not isinstance(value, str) or not value:
            raise MediaError(
                f'The task\'s data has no "{expression.lstrip("$")}", which <{self.object_type} '
                f'name="{self.to_name}"> shows.'
            )
        return value

    def frame_rate(self, task: dict[str, Any]) -> float:
        """Frames per second of Label Studio's timeline for this task, by the rules of its front end.

        Raises:
            InvalidTask: the rate is more than any video has.
        """
        return frame_rate(self._frame_rate_attribute, task.get("data", {}))

    @property
    def frame_rate_key(self) -> str | None:
        """The key of the task's data that holds the frame rate, None where the config says it."""
        attribute = self._frame_rate_attribute or ""
        return attribute[1:] if VARIABLE.fullmatch(attribute) else None

    @property
    def _frame_rate_attribute(self) -> str | None:
        attributes = self.object.attr
        return attributes.get("frameRate", attributes.get("framerate"))

    # -- of a video

    @abstractmethod
    def sequence(self, features: VideoFeatures, frame_rate: float) -> FrameFeatures:
        """The video's features for the classifier, [num_rows, dim].

        Raises:
            InvalidTask: there are too many rows.
        """

    @abstractmethod
    def rows(self, probs: np.ndarray, features: VideoFeatures, frame_rate: float) -> np.ndarray:
        """Turns probabilities of the file's frames, [num_file_frames, num_labels], into those of rows, [num_rows,
        num_labels]. Errors as of `sequence`."""

    # -- of annotations and predictions

    @abstractmethod
    def drawn(self, result: list[Any], num_rows: int) -> Drawn:
        """Makes arrays of an annotation's `result`, without the results of other tags and types."""

    def is_answered(self, result: list[Any]) -> bool:
        """Whether an annotation says anything of the tag. On a timeline no region says that nothing occurs."""
        return True

    @abstractmethod
    def shows(self, result: list[Any]) -> set[str]:
        """The labels that an annotation's `result` has anywhere in the video."""

    @abstractmethod
    def decide(
        self,
        probs: np.ndarray,
        frame_rate: float,
        classifier: MultiLabelLSTM | None = None,
        annotated: np.ndarray | None = None,
    ) -> np.ndarray:
        """Makes labels, [num_rows, num_labels] bool, of probabilities.

        Args:
            probs: [num_rows, num_labels].
            frame_rate: labeling frames per second.
            classifier: what made them, and learnt thresholds and durations; None in simple mode.
            annotated: [num_rows] bool, rows whose probabilities are what was drawn, 0 or 1; they stay as they are.
        """

    @abstractmethod
    def regions(self, probs: np.ndarray, labels: np.ndarray) -> list[Region]:
        """Makes Label Studio's regions of a prediction.

        Args:
            probs: [num_rows, num_labels].
            labels: [num_rows, num_labels] bool, of `decide`.
        """

    def score(self, probs: np.ndarray, classifier: MultiLabelLSTM | None) -> float:
        """The expected F1 of a prediction, in [0, 1]."""
        if classifier is not None:
            return classifier.decisions.expected_f1(probs)
        return expected_f1(probs, np.full(len(self.labels), self.threshold))

    def requirements(self) -> dict[str, Any]:
        """The parts of the config that a classifier is made for. A change of any value starts a new one."""
        return {
            "labels": self.labels,
            "sequence_size": self.parameters.model_classifier_sequence_size,
            "hidden_size": self.parameters.model_classifier_hidden_size,
            "num_layers": self.parameters.model_classifier_num_layers,
            "frame_stride": self.parameters.model_frame_stride,
            "start_from": self.parameters.model_start_from,
        }

    def decisions(self) -> dict[str, Any]:
        """The parts of the config that change predictions without a training."""
        return {"threshold": self.threshold}


def most_probable(probs: np.ndarray) -> np.ndarray:
    """Marks the most probable label of each row, [num_rows, num_labels] bool."""
    return np.arange(probs.shape[1]) == probs.argmax(axis=1)[:, None]
