"""`YOLO`: the backend's model. It makes a control model for each control tag that it can serve, and dispatches to
them."""

from __future__ import annotations

import logging
from typing import Any, ClassVar
from xml.etree import ElementTree

from control_models.base import ControlModel, ControlPrediction
from control_models.timeline_labels import TimelineLabelsModel
from errors import EncoderError, InvalidConfig, InvalidRequest, Loading, NotReady
from exchange.timeline import Track
from features.cache import Attempts
from features.checkpoints import DEFAULT_MODEL, DOWNLOAD_HOST
from features.counters import COUNTERS
from features.encoder import Encoder, get_encoder
from ml_backend.base import LabelStudioMLBase, ModelResponse, Progress

logger = logging.getLogger(__name__)

PRECISION_WORDS = {"fp32": "32-bit floats", "bf16": "bfloat16", "fp16": "16-bit floats"}

CONTROL_MODELS: tuple[type[ControlModel], ...] = (TimelineLabelsModel,)


class YOLO(LabelStudioMLBase):
    """Labels video with an Ultralytics encoder.

    Raises:
        InvalidConfig: no control tag of the labeling config can be served, or one's attributes can't work.
    """

    counters = COUNTERS

    _health: ClassVar[dict[str, Any]] = {"encoder": "loading"}

    def setup(self) -> None:
        """Makes the control models of the labeling config."""
        self._check_spelling()
        self.control_models: list[ControlModel] = [
            model_class.create(self, control)
            for control in self.label_interface.controls
            for model_class in CONTROL_MODELS
            if model_class.is_control_matched(control)
        ]
        if not self.control_models:
            served = ", ".join(f"<{model_class.control_type}>" for model_class in CONTROL_MODELS)
            raise InvalidConfig(f"The labeling config has no control tag that this backend serves: {served}.")

    def _check_spelling(self) -> None:
        """Label Studio's page takes tags in any case, its API and this backend only as they are documented."""
        names = {"Label"} | {name for one in CONTROL_MODELS for name in (one.control_type, one.object_type)}
        documented = {name.lower(): name for name in names}
        tree = ElementTree.fromstring(self.label_config)
        wrong = {tag.tag for tag in tree.iter() if documented.get(tag.tag.lower(), tag.tag) != tag.tag}
        if wrong:
            spelled = "; ".join(f"<{tag}> as <{documented[tag.lower()]}>" for tag in sorted(wrong))
            raise InvalidConfig(f"Tags are written with their capital letters in the labeling config: {spelled}.")

    @property
    def model_version(self) -> str:
        """The encoder's name and each control model's version, such as `yolov8n-cls-v7 (5 videos)`."""
        return self._joined([model.version for model in self.control_models])

    def _joined(self, versions: list[str]) -> str:
        parts = zip(self.control_models, versions, strict=True)
        return "+".join(dict.fromkeys(f"{model.encoder.name}-{version}" for model, version in parts))

    def predict(
        self, tasks: list[dict[str, Any]], context: dict[str, Any] | None = None, **kwargs: Any
    ) -> ModelResponse:
        """Predicts the tasks' timelines.

        Raises:
            BackendError: of the first task that can't be predicted.
        """
        return ModelResponse(predictions=[self._predict_task(task) for task in tasks])

    def _predict_task(self, task: dict[str, Any]) -> dict[str, Any]:
        predictions: list[ControlPrediction] = []
        versions: list[str] = []
        not_ready: NotReady | None = None
        for control_model in self.control_models:
            try:
                predictions.append(control_model.predict(task))
                # Not the model's present version: a training may have published another one meanwhile.
                versions.append(predictions[-1].version)
            except NotReady as error:
                not_ready = error
                versions.append(control_model.version)
        if not predictions:
            raise not_ready
        return {
            "result": [region for prediction in predictions for region in prediction.regions],
            "score": min(prediction.score for prediction in predictions),
            "model_version": self._joined(versions),
        }

    def is_prepared(self, task: dict[str, Any]) -> bool:
        """Whether the features of the task's videos are cached."""
        return all(control_model.is_prepared(task) for control_model in self.control_models)

    def can_train_at_once(self, tasks: list[dict[str, Any]]) -> bool:
        """Whether a training on the annotated tasks has nothing to extract first."""
        with self.holding_connection():
            return all(control_model.can_train_at_once(tasks) for control_model in self.control_models)

    def prepare(self, task: dict[str, Any], progress: Progress | None = None) -> None:
        """Extracts the features of the task's videos."""
        for control_model in self.control_models:
            control_model.prepare(task, progress, self.control_models)

    def unprepare(self, task: dict[str, Any]) -> None:
        """Drops the features of the task's videos from the cache."""
        for control_model in self.control_models:
            control_model.unprepare(task)

    def tracks(self, task: dict[str, Any]) -> list[Track]:
        """What each control tag says of a prepared task."""
        return [control_model.track(task) for control_model in self.control_models]

    def media(self, task: dict[str, Any]) -> dict[str, str]:
        """Each control tag's name, and its video in the task."""
        return {control_model.from_name: control_model.media(task) for control_model in self.control_models}

    def needs_training(self) -> bool:
        """Whether a classifier fits the present config or encoder no more."""
        return any(control_model.needs_training() for control_model in self.control_models)

    def fingerprint(self) -> str:
        """The encoders' fingerprints, of their files as they are now."""
        return " ".join(model.find_encoder().fingerprint for model in self.control_models)

    def check_ready(self) -> None:
        """Raises NotReady where no control model can predict yet, Loading where one is being loaded."""
        errors: list[NotReady] = []
        for control_model in self.control_models:
            try:
                control_model.check_ready()
            except Loading:
                raise
            except NotReady as error:
                errors.append(error)
        if len(errors) == len(self.control_models):
            raise errors[-1]

    def forget(self) -> None:
        """Removes the project's classifiers."""
        for control_model in self.control_models:
            control_model.forget()

    def roll_back(self, version: int, from_name: str | None = None) -> str:
        """Makes each control tag's classifier the one that it was after the training of that number.

        Args:
            version: the training's number.
            from_name: only this control tag's.

        Returns:
            The model version that is the present one now.

        Raises:
            InvalidRequest: a classifier is gone, or doesn't fit the present config or encoder; nothing is changed.
        """
        chosen = [model for model in self.control_models if from_name in (None, model.from_name)]
        if not chosen:
            raise InvalidRequest(f'The labeling config has no control tag "{from_name}" with a model.')
        found = [(model, model.find_version(version)) for model in chosen]
        for model, classifier in found:
            if classifier is not None:
                model.go_back(classifier)
        return self.model_version

    @classmethod
    def _default_encoder(cls) -> Encoder:
        settings = cls.services.settings
        return get_encoder(
            None, model_root=settings.model_root, precision=settings.precision, fallback=settings.model_fallback
        )

    @classmethod
    def warm_up(cls) -> None:
        """Loads the default encoder, or says why it can't be."""
        try:
            encoder = cls._default_encoder()
            encoder.class_names  # noqa: B018 (loads the model)
        except EncoderError as error:
            cls._health = {"encoder": None, "encoder_error": str(error)}
            return
        cls._health = {
            "encoder": encoder.name,
            "encoder_is_fallback": encoder.is_fallback,
            "device": encoder.device.type,
            "precision": encoder.precision,
        }

    @classmethod
    def start_up_lines(cls) -> list[tuple[int, str]]:
        """The default encoder and the precision."""
        settings = cls.services.settings
        try:
            encoder = cls._default_encoder()
        except EncoderError as error:
            return [(logging.ERROR, f"Encoder: none. {error}")]
        level, line = logging.INFO, f"Encoder: {encoder.name}, {settings.model_root / DEFAULT_MODEL}"
        if encoder.is_fallback:
            level = logging.WARNING
            line = (
                f"Encoder: the bundled EfficientNet-Lite0 stands in for {DEFAULT_MODEL}, which couldn't be downloaded. "
                f"For the real one put {DEFAULT_MODEL} into {settings.model_root}, or give this machine access to "
                f"{DOWNLOAD_HOST}: it is found by itself, and projects are trained again"
            )
        device = "the GPU" if encoder.device.type == "cuda" else "the CPU"
        return [(level, line), (logging.INFO, f"Precision: {PRECISION_WORDS[encoder.precision]}, on {device}")]

    @classmethod
    def health(cls) -> dict[str, Any]:
        """The default encoder, whether it is the bundled one, the device and the precision."""
        return cls._health

    @classmethod
    def shut_down(cls) -> None:
        """Takes back the attempts at videos that are being read: a worker that stops didn't die of them."""
        Attempts.take_back_all()

    def fit(self, event: str, data: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Trains each trainable control model on the project's annotations.

        Returns:
            Name of the control tag -> metrics.
        """
        version = self.next_version()
        results = {model.from_name: model.fit(event, data, version=version, **kwargs) for model in self.control_models}
        return {name: metrics for name, metrics in results.items() if metrics is not None}
