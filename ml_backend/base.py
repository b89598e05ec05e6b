"""The contract between a model and the backend: `LabelStudioMLBase`, with label-studio-ml 2.x's public surface.

A backend written for label-studio-ml 2.x runs here with its import line changed::

    from ml_backend import LabelStudioMLBase, ModelResponse, init_app

    class MyModel(LabelStudioMLBase):
        def predict(self, tasks, context=None, **kwargs):
            return ModelResponse(predictions=[{"result": [], "score": 0.5} for _ in tasks])

    app = init_app(MyModel)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

from prometheus_client.registry import Collector
from pydantic import BaseModel, ConfigDict

from errors import InvalidRequest, Loading, NotReady
from ml_backend.project_model import ProjectModel
from progress import UNTOLD, Progress
from video.timeline import Recording, Track


class ModelResponse(BaseModel):
    """Predictions of a list of tasks, in their order.

    Attributes:
        predictions: each a dict with `result` (a list of regions) and `score`, and optionally its own `model_version`.
        model_version: the version of the predictions that have none of their own.
    """

    model_config = ConfigDict(protected_namespaces=())

    predictions: list[dict[str, Any]]
    model_version: str | None = None


class Ranked(NamedTuple):
    """A task in the order of how much its annotation would teach.

    Attributes:
        task_id: the task.
        cluster: a number that tasks share that are alike, the same in all versions; None for none.
        score: the score of its prediction in Label Studio, which brings the lowest first; None for the model's own.
    """

    task_id: int
    cluster: int | None = None
    score: float | None = None


class LabelStudioMLBase(ProjectModel):
    """A model that serves one Label Studio project with one labeling config.

    Subclasses implement `predict`, usually `fit`, and `setup` for their initialisation. The backend calls `fit` in its
    worker, never twice at once for one project, and `predict` in the web process, possibly in several threads at once.

    A model that does heavy work, or has versions, consists of parts, one for each control tag
    (`control_models/base.py`). `setup` makes them, and the methods under "the parts" call each of them, or its mode.

    Args:
        project_id: Label Studio's id of the project; a suffix after a dot (its creation time) is dropped.
        label_config: the project's labeling config, XML.

    Raises:
        InvalidConfig: the labeling config isn't valid XML.
    """

    # The model's prometheus_client counters, made without a registry, for `/metrics`.
    counters: ClassVar[tuple[Collector, ...]] = ()
    # The attributes of control tags that change no model: a config that differs in these alone starts no training.
    unlearnt: ClassVar[tuple[str, ...]] = ()

    def __init__(self, project_id: str | None = None, label_config: str | None = None) -> None:
        super().__init__(project_id, label_config)
        self.control_models: Sequence[Any] = ()
        self.setup()

    # -- to implement

    def setup(self) -> None:
        """Checks the labeling config, and prepares what `predict` and `fit` share. `__init__` calls it at its end."""

    def predict(
        self, tasks: list[dict[str, Any]], context: dict[str, Any] | None = None, **kwargs: Any
    ) -> ModelResponse | list[dict[str, Any]]:
        """Predicts tasks.

        Args:
            tasks: Label Studio's tasks: `{"id", "data", "annotations" …}`.
            context: an interactive prediction's regions, else None.

        Returns:
            One prediction per task, in order: a `ModelResponse`, or a list of dicts with `result` and `score`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no predict().")

    def fit(self, event: str, data: dict[str, Any], **kwargs: Any) -> dict[str, Any] | None:
        """Trains. Events that come while a training runs or waits lead to one call, with the latest of them.

        Args:
            event: the webhook's action, such as "ANNOTATION_CREATED" or "START_TRAINING".
            data: the webhook's body.
            kwargs: `tasks`, every annotated task of the project (`{"id", "data", "annotations": [{"id", "result"}]}`);
                `from_scratch`, True where the present model must be forgotten; `progress`, a `Progress`, to be
                told the share done.

        Returns:
            JSON for `/job_status` and the stored training. `{"published": False}` marks a model that wasn't kept.
        """
        raise NotImplementedError(f"{type(self).__name__} has no fit().")

    @classmethod
    def warm_up(cls) -> list[tuple[int, str]]:
        """Loads what the first request would wait for. Called in the background when a process starts.

        Returns:
            Log level and sentence of each fact about the model that a worker logs then.
        """
        return []

    @classmethod
    def health(cls) -> dict[str, Any]:
        """Facts about the model for `/health`, such as its device. Returns at once."""
        return {}

    @classmethod
    def facts(cls) -> dict[str, str]:
        """What `health` says, in words for the dashboard: name -> text."""
        return {name.replace("_", " ").capitalize(): str(value) for name, value in cls.health().items()}

    @classmethod
    def shut_down(cls) -> None:
        """Called when a worker stops; its threads may still be working."""

    @property
    def predict_ahead(self) -> int:
        """The number of tasks whose predictions the worker stores in Label Studio after a training."""
        return 0

    @property
    def ranks(self) -> bool:
        """Whether `rank` has an opinion of which tasks' annotation would teach most."""
        return False

    @property
    def train_every(self) -> int:
        """The number of changed annotations after which a training follows by itself; 0 for never."""
        return 1

    @property
    def chooses_next(self) -> bool:
        """Whether Label Studio's stream of tasks follows `rank`."""
        return False

    def rank(self, tasks: list[dict[str, Any]], progress: Progress = UNTOLD) -> list[Ranked]:
        """Orders extracted tasks without annotations: those whose annotation would teach most come first.

        Args:
            tasks: `{"id", "data"}`, in the order of their ids.
            progress: to be told the share done, now and then; it raises where the work must stop.

        Returns:
            The order; empty where the model has no opinion.
        """
        return []

    # -- the parts

    def is_extracted(self, task: dict[str, Any]) -> bool:
        """Whether `predict` of this task is light work. Otherwise the worker calls `extract` first."""
        return all(part.is_extracted(task) for part in self.control_models)

    def can_train_at_once(self, tasks: list[dict[str, Any]]) -> bool:
        """Whether `fit` on these annotated tasks has nothing to extract first. Damaged features may count as intact."""
        if not self.control_models:
            return all(self.is_extracted(task) for task in tasks)
        with self.context.media.holding_connection():
            return all(part.mode.can_train_at_once(tasks) for part in self.control_models)

    def extract(self, task: dict[str, Any], progress: Progress = UNTOLD) -> None:
        """Does the heavy part of a task's prediction, such as the extraction of features, in the worker."""
        for part in self.control_models:
            part.extract(task, progress, self.control_models)

    def evict(self, task: dict[str, Any]) -> None:
        """Drops what `extract` made for a task."""
        for part in self.control_models:
            part.evict(task, self.control_models)

    def tracks(self, task: dict[str, Any], recall: bool = True) -> list[Track]:
        """The tracks of the control tags with a timeline in an extracted task, for the dashboard and exports.

        Args:
            task: the task.
            recall: whether the prediction of an annotated task is what was drawn, and not what the model says itself.

        Raises:
            MediaError: the task's media can't be fetched.
        """
        return [part.track(task, recall) for part in self.control_models if part.has_timeline]

    def recordings(self, task: dict[str, Any]) -> list[Recording]:
        """The videos of the control tags with a timeline in a task, without reading them or predicting.

        Raises:
            MediaError: the task's data names no video.
        """
        return [part.recording(task) for part in self.control_models if part.has_timeline]

    def media(self, task: dict[str, Any]) -> dict[str, str]:
        """Control tag's name -> the address of its media in the task, for the dashboard."""
        return {part.from_name: part.media(task) for part in self.control_models}

    def needs_training(self) -> bool:
        """Whether the stored model doesn't fit the present labeling config or files, and must be trained again."""
        return any(part.mode.needs_training() for part in self.control_models)

    def fingerprint(self) -> str:
        """Identifies the files that a model of this labeling config would be made from now, such as its encoder's. When
        it changes, the model is made again and `needs_training` is called."""
        return " ".join(part.find_encoder().fingerprint for part in self.control_models)

    def check_ready(self) -> None:
        """Raises NotReady where no task of the project can be predicted yet, and Loading where the encoder is being
        loaded: then `/predict` waits, or has the predictions delivered."""
        errors: list[NotReady] = []
        for part in self.control_models:
            try:
                part.mode.ready()
            except Loading:
                raise
            except NotReady as error:
                errors.append(error)
        if errors and len(errors) == len(self.control_models):
            raise errors[-1]

    def roll_back(self, version: int, from_name: str | None = None) -> str:
        """Makes an earlier version the present one, of each control tag's model. Pages and commands roll back by this.

        Args:
            version: the number of the training; each model becomes what it was after that.
            from_name: restricts it to one control tag.

        Returns:
            The new model version.

        Raises:
            InvalidRequest: a version is gone, or doesn't fit the present config or encoder; then nothing is changed.
        """
        chosen = [part for part in self.control_models if from_name in (None, part.from_name)]
        if not chosen:
            raise InvalidRequest(f'The labeling config has no control tag "{from_name}" with a model.')
        for go_back in [part.mode.earlier(version) for part in chosen]:
            go_back()
        return self.model_version

    def forget(self) -> None:
        """Removes the project's models, when it is reset or deleted."""
        for part in self.control_models:
            part.mode.forget()
