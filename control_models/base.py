"""`ControlModel`: one control tag of a labeling config, bound to an encoder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from label_studio_sdk.label_interface.control_tags import ControlTag
from label_studio_sdk.label_interface.object_tags import ObjectTag

from errors import InvalidConfig, MediaError
from exchange.timeline import Track
from features.encoder import Encoder
from ml_backend.base import LabelStudioMLBase, Progress
from video.task_data import task_value

Region = dict[str, Any]


class ControlPrediction(NamedTuple):
    """What a control model says of one task.

    Attributes:
        regions: Label Studio regions.
        score: in [0, 1]; low where the model is unsure.
        version: of the model that said it, as of `ControlModel.version`.
    """

    regions: list[Region]
    score: float
    version: str


class ControlModel(ABC):
    """Predicts and learns the regions of one control tag.

    A subclass names the tags that it serves; `model.py` makes one control model for each such tag of the config.

    Args:
        backend: the project's model, for its labeling config, files and settings.
        control: the control tag.

    Raises:
        InvalidConfig: the tag can't work; the message names tag and attribute.
    """

    control_type: ClassVar[str]  # the control tag's name in the labeling config
    object_type: ClassVar[str]  # the object tag's name that it must be connected to

    def __init__(self, backend: LabelStudioMLBase, control: ControlTag) -> None:
        self.backend = backend
        self.control = control
        self.from_name: str = control.name
        self.object: ObjectTag = self._connected_object()
        self.to_name: str = self.object.name
        self.labels: list[str] = list(control.labels)
        if not self.labels:
            raise InvalidConfig(f'<{self.control_type} name="{self.from_name}"> has no <Label>: add at least one.')

    @classmethod
    def create(cls, mlbackend: LabelStudioMLBase, control: ControlTag) -> ControlModel:
        """The control model of a control tag. Arguments and errors are those of the class."""
        return cls(mlbackend, control)

    @classmethod
    def is_control_matched(cls, control: ControlTag) -> bool:
        """Whether this class serves the control tag."""
        return control.tag == cls.control_type

    def _connected_object(self) -> ObjectTag:
        for tag in self.control.objects:
            if tag.tag == self.object_type:
                return tag
        raise InvalidConfig(
            f'<{self.control_type} name="{self.from_name}" toName="{",".join(self.control.to_name)}"> must be '
            f"connected to a <{self.object_type}>: set toName to the name of one."
        )

    def media(self, task: dict[str, Any]) -> str:
        """The value of the task's data that the control tag's object shows: a path or URL.

        Raises:
            MediaError: there is none.
        """
        expression = self.object.attr.get("value") or f"${self.object.value_name}"
        value = task_value(expression, task.get("data", {}))
        if not isinstance(value, str) or not value:
            raise MediaError(
                f'The task\'s data has no "{expression.lstrip("$")}", which <{self.object_type} '
                f'name="{self.to_name}"> shows.'
            )
        return value

    def get_path(self, task: dict[str, Any], check: Callable[[], None] = lambda: None) -> Path:
        """The local path of the task's file; downloads it where that is needed.

        Args:
            task: the task.
            check: called now and then during a download; what it raises ends it.

        Raises:
            MediaError: the task has no such file, or it can't be had.
        """
        return Path(self.backend.get_local_path(self.media(task), task_id=task.get("id"), check=check))

    def place(self, task: dict[str, Any]) -> Path:
        """Where the task's file is, or would be once it is downloaded: what is cached of it is found by that. Raises
        MediaError where it can't be had whatever is tried."""
        return self.backend.media_place(self.media(task), task.get("id"))

    @abstractmethod
    def find_encoder(self) -> Encoder:
        """The control tag's encoder, as its file is now."""

    @property
    @abstractmethod
    def version(self) -> str:
        """What this control model's predictions depend on, in a word; changes with each training."""

    @abstractmethod
    def is_prepared(self, task: dict[str, Any]) -> bool:
        """Whether `predict` is light work for this task."""

    def can_train_at_once(self, tasks: list[dict[str, Any]]) -> bool:
        """Whether `fit` on these annotated tasks has nothing to prepare first."""
        return all(self.is_prepared(task) for task in tasks)

    @abstractmethod
    def prepare(
        self, task: dict[str, Any], progress: Progress | None = None, others: Sequence[ControlModel] = ()
    ) -> None:
        """Does the heavy part of the task's prediction.

        Args:
            task: the task.
            progress: told the share done, in [0, 1].
            others: control models of the same config, which will be prepared too; what they need of the same file can
                be read along.
        """

    @abstractmethod
    def check_ready(self) -> None:
        """Raises NotReady where no task can be predicted yet; Loading where it can in a moment."""

    @abstractmethod
    def forget(self) -> None:
        """Removes the project's files."""

    @abstractmethod
    def predict(self, task: dict[str, Any]) -> ControlPrediction:
        """Predicts the control tag's regions in a task."""

    @abstractmethod
    def unprepare(self, task: dict[str, Any]) -> None:
        """Drops what `prepare` made of a task."""

    @abstractmethod
    def track(self, task: dict[str, Any]) -> Track:
        """What the control tag says of a prepared task, also where it can't predict yet."""

    @abstractmethod
    def fit(self, event: str, data: dict[str, Any], **kwargs: Any) -> dict[str, Any] | None:
        """Learns from the project's annotations, as `LabelStudioMLBase.fit`; None where there is nothing to learn."""

    @abstractmethod
    def needs_training(self) -> bool:
        """Whether the stored model doesn't fit the present config or encoder, and must be trained again."""
