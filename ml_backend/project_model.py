"""`ProjectModel`: what every model of a project can ask for, beside the contract of `ml_backend/base.py`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, TypeVar

from label_studio_sdk._extensions.label_studio_tools.core.label_config import parse_config
from label_studio_sdk.label_interface import LabelInterface

from errors import InvalidConfig, InvalidRequest
from ml_backend.context import Context, Services
from ml_backend.label_map import build_label_map
from ml_backend.label_studio import client as label_studio
from ml_backend.settings import Settings, get_settings
from ml_backend.store import Store
from ml_backend.store.models import TRAININGS

# A value of a task's data that names a file.
FILE = re.compile(r"(https?|s3|gs|azure-blob)://|/data/(upload|local-files)/")


Model = TypeVar("Model", bound="ProjectModel")


class ProjectModel:
    """A model of one project: its labeling config, its stored values and versions, and the files of its tasks.

    The names and signatures are label-studio-ml 2.x's.

    Args:
        project_id: Label Studio's id of the project; a suffix after a dot (its creation time) is dropped.
        label_config: the project's labeling config, XML.

    Raises:
        InvalidConfig: the labeling config isn't valid XML.
    """

    INITIAL_MODEL_VERSION = "0.0.1"

    services: ClassVar[Services | None] = None

    def __init__(self, project_id: str | None = None, label_config: str | None = None) -> None:
        self.project_id = str(project_id or "").split(".")[0]
        store, in_request = (self.services.store, self.services.in_request) if self.services else (None, lambda: False)
        self.context = Context.of(self.project_id, self.settings, store, in_request)
        self._values: dict[str, str] = {}
        self._extra_params: dict[str, Any] = {}
        self._label_interface: LabelInterface | None = None
        if label_config is not None:
            self.use_label_config(label_config)

    @classmethod
    def bind(cls: type[Model], services: Services) -> type[Model]:
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
            Class name -> label, as of `label_map.classes_of_labels`; the last of several labels counts.
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
