"""The contract between a model and the backend: `LabelStudioMLBase`, with label-studio-ml 2.x's public surface.

A backend written for label-studio-ml 2.x runs here with its import line changed::

    from ml_backend import LabelStudioMLBase, ModelResponse, init_app

    class MyModel(LabelStudioMLBase):
        def predict(self, tasks, context=None, **kwargs):
            return ModelResponse(predictions=[{"result": [], "score": 0.5} for _ in tasks])

    app = init_app(MyModel)
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from label_studio_sdk._extensions.label_studio_tools.core.label_config import parse_config
from label_studio_sdk.label_interface import LabelInterface
from prometheus_client.registry import Collector
from pydantic import BaseModel, ConfigDict

from errors import InvalidConfig, InvalidRequest, Loading, NotReady
from ml_backend.context import Context
from ml_backend.label_map import build_label_map
from ml_backend.label_studio import client as label_studio
from ml_backend.settings import Settings, get_settings
from ml_backend.store import Store
from ml_backend.store.models import TRAININGS
from video.timeline import Track

Progress = Callable[[float], None]

# A value of a task's data that names a file.
FILE = re.compile(r"(https?|s3|gs|azure-blob)://|/data/(upload|local-files)/")


class ModelResponse(BaseModel):
    """Predictions of a list of tasks, in their order.

    Attributes:
        predictions: each a dict with `result` (a list of regions) and `score`, and optionally its own `model_version`.
        model_version: the version of the predictions that have none of their own.
    """

    model_config = ConfigDict(protected_namespaces=())

    predictions: list[dict[str, Any]]
    model_version: str | None = None


@dataclass(frozen=True)
class Services:
    """What the backend gives to its models.

    Attributes:
        settings: the environment.
        store: the state; without one a model's values are kept in memory.
        in_request: whether the caller's thread answers a request now.
    """

    settings: Settings
    store: Store | None = None
    in_request: Callable[[], bool] = lambda: False


class LabelStudioMLBase:
    """A model that serves one Label Studio project with one labeling config.

    Subclasses implement `predict`, usually `fit`, and `setup` for their initialisation. The backend calls `fit` in its
    worker, never twice at once for one project, and `predict` in the web process, possibly in several threads at once.

    A model that does heavy work, or has versions, consists of parts, one for each control tag
    (`control_models/base.py`). `setup` makes them, and the methods under "the parts" call each of them.

    Args:
        project_id: Label Studio's id of the project; a suffix after a dot (its creation time) is dropped.
        label_config: the project's labeling config, XML.

    Raises:
        InvalidConfig: the labeling config isn't valid XML.
    """

    INITIAL_MODEL_VERSION = "0.0.1"

    services: ClassVar[Services | None] = None
    # The model's prometheus_client counters, made without a registry, for `/metrics`.
    counters: ClassVar[tuple[Collector, ...]] = ()

    def __init__(self, project_id: str | None = None, label_config: str | None = None) -> None:
        self.project_id = str(project_id or "").split(".")[0]
        store, in_request = (self.services.store, self.services.in_request) if self.services else (None, lambda: False)
        self.context = Context.of(self.project_id, self.settings, store, in_request)
        self.control_models: Sequence[Any] = ()
        self._values: dict[str, str] = {}
        self._extra_params: dict[str, Any] = {}
        self._label_interface: LabelInterface | None = None
        if label_config is not None:
            self.use_label_config(label_config)
        self.setup()

    @classmethod
    def bind(cls, services: Services) -> type[LabelStudioMLBase]:
        """Returns a subclass with the backend's services."""
        return type(cls.__name__, (cls,), {"services": services, "__module__": cls.__module__, "__doc__": cls.__doc__})

    @property
    def settings(self) -> Settings:
        """The backend's settings."""
        return self.services.settings if self.services else get_settings()

    @property
    def store(self) -> Store | None:
        """The backend's state; None where the model is used without a backend."""
        return self.context.store

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
                `from_scratch`, True where the present model must be forgotten; `progress`, a function of the share
                done, in [0, 1].

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
    def shut_down(cls) -> None:
        """Called when a worker stops; its threads may still be working."""

    # -- the parts

    def is_extracted(self, task: dict[str, Any]) -> bool:
        """Whether `predict` of this task is light work. Otherwise the worker calls `extract` first."""
        return all(part.is_extracted(task) for part in self.control_models)

    def can_train_at_once(self, tasks: list[dict[str, Any]]) -> bool:
        """Whether `fit` on these annotated tasks has nothing to extract first. Damaged features may count as intact."""
        if not self.control_models:
            return all(self.is_extracted(task) for task in tasks)
        with self.context.media.holding_connection():
            return all(part.can_train_at_once(tasks) for part in self.control_models)

    def extract(self, task: dict[str, Any], progress: Progress | None = None) -> None:
        """Does the heavy part of a task's prediction, such as the extraction of features, in the worker."""
        for part in self.control_models:
            part.extract(task, progress, self.control_models)

    def evict(self, task: dict[str, Any]) -> None:
        """Drops what `extract` made for a task."""
        for part in self.control_models:
            part.evict(task)

    def tracks(self, task: dict[str, Any]) -> list[Track]:
        """The tracks of the control tags with a timeline in an extracted task, for the dashboard and exports.

        Raises:
            MediaError: the task's media can't be fetched.
        """
        return [part.track(task) for part in self.control_models if part.has_timeline]

    def media(self, task: dict[str, Any]) -> dict[str, str]:
        """Control tag's name -> the address of its media in the task, for the dashboard."""
        return {part.from_name: part.media(task) for part in self.control_models}

    def needs_training(self) -> bool:
        """Whether the stored model doesn't fit the present labeling config or files, and must be trained again."""
        return any(part.needs_training() for part in self.control_models)

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
                part.check_ready()
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
        for go_back in [part.earlier(version) for part in chosen]:
            go_back()
        return self.model_version

    def forget(self) -> None:
        """Removes the project's models, when it is reset or deleted."""
        for part in self.control_models:
            part.forget()

    # -- the labeling config

    def use_label_config(self, label_config: str) -> None:
        """Parses a labeling config and uses it from now on.

        Raises:
            InvalidConfig: it isn't valid XML, or a tag refers to a missing one.
        """
        try:
            self._label_interface = LabelInterface(label_config)
        except Exception as error:  # the SDK raises lxml's and its own types
            raise InvalidConfig(f"The labeling config can't be read: {error}") from error

    @property
    def label_interface(self) -> LabelInterface:
        """The parsed labeling config (label-studio-sdk).

        Raises:
            InvalidRequest: no labeling config is known.
        """
        if self._label_interface is None:
            raise InvalidRequest("The project's labeling config isn't known. Send label_config, or call /setup first.")
        return self._label_interface

    @property
    def label_config(self) -> str:
        """The labeling config, XML."""
        return self.label_interface.config

    @property
    def parsed_label_config(self) -> dict[str, Any]:
        """The labeling config as Label Studio's dict of control tags."""
        return parse_config(self.label_config)

    def get_first_tag_occurence(
        self,
        control_type: str | tuple[str, ...],
        object_type: str | tuple[str, ...],
        name_filter: Callable[[str], bool] | None = None,
        to_name_filter: Callable[[str], bool] | None = None,
    ) -> tuple[str, str, str]:
        """Finds the first control tag of a type that is connected to an object tag of a type.

        Args:
            control_type: tag name or names, such as "TimelineLabels".
            object_type: tag name or names, such as "Video".
            name_filter: accepts a control's name.
            to_name_filter: accepts an object's name.

        Returns:
            The control's name, the object's name, and the task-data key that the object shows.

        Raises:
            InvalidConfig: the labeling config has none.
        """
        try:
            return self.label_interface.get_first_tag_occurence(control_type, object_type, name_filter, to_name_filter)
        except ValueError as error:
            raise InvalidConfig(f"The labeling config has no {control_type} connected to a {object_type}.") from error

    def build_label_map(self, tag_name: str, names: Iterable[str]) -> dict[str, str]:
        """Maps a model's class names to the labels of a control tag.

        Args:
            tag_name: the control tag's name.
            names: the model's class names.

        Returns:
            Class name -> label, as of `label_map.build_label_map`.
        """
        return build_label_map(self.label_interface.get_control(tag_name), names)

    # -- version, parameters, values

    @property
    def model_version(self) -> str:
        """The version in the answers of `/setup` and in predictions."""
        return self.get("model_version") or self.INITIAL_MODEL_VERSION

    def bump_model_version(self) -> str:
        """Raises the last number of the model version, and returns the new version."""
        *head, last = self.model_version.split(".")
        version = ".".join([*head, str(int(last) + 1)])
        self.set("model_version", version)
        return version

    def next_version(self) -> int:
        """A number that no earlier training of the project had, even if its model was deleted."""
        if self.store:
            return self.store.increment_value(self.project_id, TRAININGS)
        number = int(self.get(TRAININGS) or 0) + 1
        self.set(TRAININGS, str(number))
        return number

    @property
    def extra_params(self) -> dict[str, Any]:
        """The connection's extra parameters, from `/setup`."""
        stored = self.get("extra_params")
        return json.loads(stored) if stored else self._extra_params

    def set_extra_params(self, extra_params: dict[str, Any] | str | None) -> None:
        """Stores the connection's extra parameters: a dict, or JSON text as Label Studio sends it.

        Raises:
            InvalidRequest: the text isn't a JSON object.
        """
        if isinstance(extra_params, str):
            try:
                extra_params = json.loads(extra_params) if extra_params.strip() else {}
            except ValueError as error:
                raise InvalidRequest(f"extra_params isn't JSON: {error}") from error
        if not isinstance(extra_params or {}, dict):
            raise InvalidRequest("extra_params must be a JSON object.")
        self.set("extra_params", json.dumps(extra_params or {}))

    def get(self, key: str) -> str | None:
        """The project's value of a key, or None."""
        if self.store:
            return self.store.get_value(self.project_id, key)
        return self._values.get(key)

    def set(self, key: str, value: str) -> None:
        """Stores a value for the project, across processes and restarts."""
        if self.store:
            self.store.set_value(self.project_id, key, value)
        else:
            self._values[key] = value

    def has(self, key: str) -> bool:
        """Whether the project has a value of a key."""
        return self.get(key) is not None

    # -- media

    @property
    def connection(self) -> label_studio.Connection:
        """Label Studio's address and key: the environment's, else those of `/setup`."""
        return self.context.media.connection

    def get_local_path(
        self,
        url: str,
        project_dir: str | None = None,
        ls_host: str | None = None,
        ls_access_token: str | None = None,
        task_id: int | None = None,
        check: Callable[[], None] = lambda: None,
        **kwargs: Any,
    ) -> str:
        """Returns the path of a local copy of a task's file, after a download where needed.

        Args:
            url: a value of the task's data: a path under LOCAL_FILES_DOCUMENT_ROOT, `/data/upload/…`,
                `/data/local-files/?d=…`, a cloud URI or an http(s) URL.
            project_dir: kept for 2.x's signature; the cache folder is the backend's.
            ls_host: another Label Studio URL.
            ls_access_token: another API key.
            task_id: needed for cloud URIs.
            check: called regularly during a download; an exception that it raises ends it.

        Raises:
            MediaError: the file can't be fetched; the message says why.
        """
        connection = self.connection
        if ls_host or ls_access_token:
            # A key is sent to its own address only.
            own_key = connection.api_key if ls_host in (None, connection.url) else None
            connection = label_studio.Connection(ls_host or connection.url, ls_access_token or own_key)
        return str(self.context.media.files.get(url, connection, task_id, check))

    def preload_task_data(self, task: Any, value: Any = None) -> Any:
        """Returns a task's data in which each file is replaced by the path of a local copy.

        Args:
            task: the task, for its id.
            value: the part to replace; by default the whole task.
        """
        value = task if value is None else value
        if isinstance(value, dict):
            return {key: self.preload_task_data(task, item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.preload_task_data(task, item) for item in value]
        if isinstance(value, str) and FILE.match(value):
            return self.get_local_path(value, task_id=task.get("id"))
        return value
