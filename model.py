"""`YOLO`: the backend's model. It makes a control model for each control tag that it can serve, and dispatches to
them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, ClassVar
from xml.etree import ElementTree

from control_models.base import ControlModel, ControlPrediction
from control_models.choices import ChoicesModel
from control_models.parameters import UNLEARNT
from control_models.timeline_labels import TimelineLabelsModel
from errors import EncoderError, InvalidAnnotation, InvalidConfig, NotReady
from features.attempts import Attempts
from features.checkpoints import DEFAULT_MODEL, DOWNLOAD_HOST
from features.counters import COUNTERS
from features.encoder import get_encoder
from ml_backend.base import LabelStudioMLBase, ModelResponse, Ranked
from progress import UNTOLD, Progress

logger = logging.getLogger(__name__)

PRECISION_WORDS = {"fp32": "32-bit floats", "bf16": "bfloat16", "fp16": "16-bit floats"}

CONTROL_MODELS: tuple[type[ControlModel], ...] = (TimelineLabelsModel, ChoicesModel)


class YOLO(LabelStudioMLBase):
    """Labels video with an Ultralytics encoder.

    Raises:
        InvalidConfig: no control tag of the labeling config can be served, or one's attributes can't work.
    """

    counters = COUNTERS
    unlearnt = UNLEARNT

    _health: ClassVar[dict[str, Any]] = {"encoder": "loading"}

    def setup(self) -> None:
        """Makes the control models of the labeling config."""
        self._check_spelling()
        self.control_models: Sequence[ControlModel] = [
            model_class(self.context, control)
            for control in self.label_interface.controls
            for model_class in CONTROL_MODELS
            if model_class.is_control_matched(control)
        ]
        if not self.control_models:
            served = ", ".join(model_class.tag_type.example for model_class in CONTROL_MODELS)
            raise InvalidConfig(f"The labeling config has no control tag that this backend serves: {served}.")

    def _check_spelling(self) -> None:
        """Checks the capital letters of tags, which Label Studio's page ignores and its API and this backend need."""
        tags = [one.tag_type for one in CONTROL_MODELS]
        names = {name for tag in tags for name in (tag.control_type, tag.object_type, tag.label_tag)}
        documented = {name.lower(): name for name in names}
        tree = ElementTree.fromstring(self.label_config)
        wrong = {tag.tag for tag in tree.iter() if documented.get(tag.tag.lower(), tag.tag) != tag.tag}
        if wrong:
            spelled = "; ".join(f"<{tag}> as <{documented[tag.lower()]}>" for tag in sorted(wrong))
            raise InvalidConfig(f"The labeling config needs the capital letters of its tags: write {spelled}.")

    @property
    def model_version(self) -> str:
        """The encoder's name and each control model's version, such as `yolov8n-cls-v7 (5 videos)`."""
        return self._joined([model.mode.version for model in self.control_models])

    def _joined(self, versions: list[str]) -> str:
        parts = zip(self.control_models, versions, strict=True)
        return "+".join(dict.fromkeys(f"{model.encoder.name}-{version}" for model, version in parts))

    @property
    def predict_ahead(self) -> int:
        """The number of tasks whose predictions are stored ahead: the least that a control tag's attribute names."""
        return min(model.tag.parameters.model_predict_ahead for model in self.control_models)

    @property
    def ranks(self) -> bool:
        """Whether a control tag learns from annotations."""
        return any(model.tag.parameters.model_trainable for model in self.control_models)

    @property
    def train_every(self) -> int:
        """The number of submissions after which a training follows: the least that a trainable tag's attribute names,
        other than 0."""
        parameters = [model.tag.parameters for model in self.control_models if model.tag.parameters.model_trainable]
        return min(filter(None, (each.model_train_every for each in parameters)), default=0)

    @property
    def chooses_next(self) -> bool:
        """Whether a control tag's attribute says that the stream of tasks follows the ranks."""
        return any(model.tag.parameters.model_choose_next for model in self.control_models)

    def rank(self, tasks: list[dict[str, Any]], progress: Progress = UNTOLD) -> list[Ranked]:
        """Orders extracted tasks without annotations by what they would teach the first trainable control tag."""
        return next((ranked for model in self.control_models if (ranked := model.mode.rank(tasks, progress))), [])

    def predict(
        self, tasks: list[dict[str, Any]], context: dict[str, Any] | None = None, **kwargs: Any
    ) -> ModelResponse:
        """Predicts the tasks' timelines.

        Raises:
            BackendError: a task can't be predicted; the first one's error.
        """
        return ModelResponse(predictions=[self._predict_task(task) for task in tasks])

    def _predict_task(self, task: dict[str, Any]) -> dict[str, Any]:
        predictions: list[ControlPrediction] = []
        versions: list[str] = []
        not_ready: NotReady | None = None
        for control_model in self.control_models:
            try:
                predictions.append(control_model.predict(task))
                # The version that predicted; a training may have published another one meanwhile.
                versions.append(predictions[-1].version)
            except NotReady as error:
                not_ready = error
                versions.append(control_model.mode.version)
        if not predictions:
            raise not_ready
        return {
            "result": [region for prediction in predictions for region in prediction.regions],
            "score": min(prediction.score for prediction in predictions),
            "model_version": self._joined(versions),
        }

    @classmethod
    def warm_up(cls) -> list[tuple[int, str]]:
        """Loads the default encoder; returns its name and precision, or why there is none."""
        settings = cls.services.settings
        try:
            encoder = get_encoder(
                None, model_root=settings.model_root, precision=settings.precision, fallback=settings.model_fallback
            )
            encoder.class_names  # noqa: B018 (loads the model)
        except EncoderError as error:
            cls._health = {"encoder": None, "encoder_error": str(error)}
            return [(logging.ERROR, f"Encoder: none. {error}")]
        cls._health = {
            "encoder": encoder.name,
            "encoder_is_fallback": encoder.is_fallback,
            "device": encoder.device.type,
            "precision": encoder.precision,
        }
        level, line = logging.INFO, f"Encoder: {encoder.name}, {settings.model_root / DEFAULT_MODEL}"
        if encoder.is_fallback:
            level = logging.WARNING
            line = (
                f"Encoder: the bundled EfficientNet-Lite0 stands in for {DEFAULT_MODEL}, which couldn't be downloaded. "
                f"To use {DEFAULT_MODEL}, put it into {settings.model_root}, or give this machine access to "
                f"{DOWNLOAD_HOST}; projects are then trained again by themselves"
            )
        device = "the GPU" if encoder.device.type == "cuda" else "the CPU"
        return [(level, line), (logging.INFO, f"Precision: {PRECISION_WORDS[encoder.precision]}, on {device}")]

    @classmethod
    def health(cls) -> dict[str, Any]:
        """The default encoder, whether it is the bundled one, the device and the precision."""
        return cls._health

    @classmethod
    def facts(cls) -> dict[str, str]:
        """The image network and the device, in words."""
        health = cls._health
        if "encoder_error" in health:
            return {"Image network": f"none: {health['encoder_error']}"}
        if "device" not in health:
            return {"Image network": "being loaded"}
        network = health["encoder"]
        if health["encoder_is_fallback"]:
            network = f"the bundled network stands in for {DEFAULT_MODEL.removesuffix('.pt')}"
        device = {"cpu": "CPU", "cuda": "GPU"}.get(health["device"], health["device"])
        return {"Image network": network, "Computes": f"on the {device}, in {PRECISION_WORDS[health['precision']]}"}

    @classmethod
    def shut_down(cls) -> None:
        """Removes the marks of videos that are being read, since a worker that stops didn't die of them."""
        Attempts.take_back_all()

    def fit(self, event: str, data: dict[str, Any], progress: Progress = UNTOLD, **kwargs: Any) -> dict[str, Any]:
        """Trains each trainable control model on the project's annotations. All are alike to the progress.

        Returns:
            Control tag's name -> metrics, without tags that have no annotation.

        Raises:
            InvalidAnnotation: there is no annotation to train on.
            MediaError: no annotated video can be fetched.
        """
        version = self.next_version()
        results: dict[str, Any] = {}
        nothing: InvalidAnnotation | None = None
        with self.context.notes.anew():
            for part, model in progress.over(self.control_models):
                try:
                    metrics = model.fit(event, data, version=version, progress=part, **kwargs)
                except InvalidAnnotation as error:  # the other control tags are trained all the same
                    nothing = error
                    continue
                if metrics is not None:
                    results[model.from_name] = metrics
        if nothing is not None and not results:
            raise nothing
        return results
