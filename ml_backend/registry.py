"""The projects' models, made from their labeling configs and kept while they are in use."""

from __future__ import annotations

import threading
from collections import OrderedDict

from errors import BackendError, InvalidRequest
from ml_backend.base import LabelStudioMLBase
from ml_backend.context import Services
from ml_backend.store import Store

# A model without its encoder is small. More projects at once are unusual, and a dropped model is made again.
MAX_MODELS = 64
# A parsed labeling config takes some thirty times the memory of its text.
MAX_CONFIG_CHARS = 4_000_000


class ModelRegistry:
    """Gives the model of a project: the same object while its labeling config and its encoder's files are the same.

    Args:
        model_class: the backend's model.
        services: passed to the models.
    """

    def __init__(self, model_class: type[LabelStudioMLBase], services: Services) -> None:
        self.model_class = model_class.bind(services)
        self._store: Store = services.store
        self._store.unlearnt = model_class.unlearnt
        self._models: OrderedDict[tuple[str, str], tuple[str, LabelStudioMLBase]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, project_id: str, label_config: str | None = None) -> LabelStudioMLBase:
        """Returns the model of a project.

        Args:
            project_id: the project.
            label_config: its labeling config; by default the stored one.

        Raises:
            InvalidConfig: the labeling config can't be used.
            InvalidRequest: no labeling config is given or stored.
        """
        if label_config is None:
            project = self._store.project(project_id)
            if project is None or not project.label_config:
                raise InvalidRequest(
                    f"Project {project_id or 'without id'} isn't known. Send label_config, or connect this "
                    "backend to the project first (/setup)."
                )
            label_config = project.label_config
        key = (project_id, label_config)
        with self._lock:
            fingerprint, model = self._models.get(key, ("", None))
        if model is None or model.fingerprint() != fingerprint:
            # Without the lock: making a model may load an encoder, and other projects' requests go on meanwhile.
            made = self.model_class(project_id=project_id, label_config=label_config)
            fingerprint = made.fingerprint()
            with self._lock:
                known_fingerprint, known = self._models.get(key, ("", None))
                model = known if known is not None and known_fingerprint == fingerprint else made
                self._models[key] = (fingerprint, model)
        with self._lock:
            if key in self._models:
                self._models.move_to_end(key)
            while len(self._models) > 1 and (len(self._models) > MAX_MODELS or self._config_chars() > MAX_CONFIG_CHARS):
                self._models.popitem(last=False)
        return model

    def train_every(self, project_id: str, label_config: str | None = None) -> int:
        """The `train_every` of a project's model; 1 where its labeling config or encoder can't be used now."""
        try:
            return self.get(project_id, label_config).train_every
        except BackendError:
            return 1

    def _config_chars(self) -> int:
        return sum(len(label_config) for _, label_config in self._models)
