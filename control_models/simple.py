"""`SimpleMode`: the encoder's own classes, mapped to labels. Nothing is learnt."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np

from control_models.mode import Mode
from control_models.tag import Tag
from errors import InvalidConfig, Loading
from features.cache import VideoFeatures
from features.encoder import Encoder
from ml_backend.label_map import classes_of_labels

# A request waits for the encoder so long, so that a config that can't be used is refused at once; Label Studio waits a
# second for a webhook's answer. Otherwise the next request refuses it.
LOADING_PATIENCE = 0.5  # seconds


class SimpleMode(Mode):
    """Predicts a control tag's labels by an encoder's classes.

    Args:
        tag: the control tag.
        encoder: the encoder.
        in_request: whether the caller's thread answers a request now; then it loads no network.

    Raises:
        InvalidConfig: no label is a class.
        EncoderError: the encoder can't be loaded.
    """

    def __init__(self, tag: Tag, encoder: Encoder, in_request: Callable[[], bool]) -> None:
        self._tag = tag
        self._encoder = encoder
        self._in_request = in_request
        self._check_classes(LOADING_PATIENCE)

    def _check_classes(self, patience: float = 0.0) -> bool:
        """Checks the labels against the classes. Returns False where a request would have to wait longer than
        `patience` seconds for the encoder, which is then loaded in the background."""
        if self._in_request() and not self._encoder.is_loaded(patience):
            return False
        _ = self.class_columns
        return True

    @cached_property
    def class_columns(self) -> dict[str, list[int]]:
        """Label -> columns of the encoder's class probabilities. Errors as of the class."""
        tag, names = self._tag, self._encoder.class_names
        if not names:
            raise InvalidConfig(
                f'<{tag.control_type} name="{tag.from_name}"> maps classes to labels, but {self._encoder.name} '
                'has none: it isn\'t a classifier. Set model_trainable="true", or model_path to a classifier.'
            )
        column = {name: index for index, name in names.items()}
        classes = classes_of_labels(tag.control, names.values())
        if not any(classes.values()):
            examples = ", ".join(list(names.values())[:5])
            raise InvalidConfig(
                f'No label of <{tag.control_type} name="{tag.from_name}"> is a class of {self._encoder.name} (such as '
                f'{examples}). Name the labels like classes, give them predicted_values="class,class", or set '
                'model_trainable="true" to train on your own labels.'
            )
        # All labels but those that say something of the annotation, such as that which marks reviewed frames.
        return {label: [column[name] for name in classes[label]] for label in tag.labels}

    def ready(self) -> None:
        """Raises Loading where the encoder is being loaded; other errors as of the class."""
        if not self._check_classes():
            raise Loading(f"The encoder {self._encoder.name} is being loaded.")

    @property
    def version(self) -> str:
        """A hash of everything that the predictions depend on. Errors as of the class."""
        self._check_classes()
        labels = {label: tag.attr.get("predicted_values") for label, tag in self._tag.control.labels_attrs.items()}
        state = [self._encoder.fingerprint, labels, self._tag.parameters.model_dump()]
        return "simple-" + hashlib.sha256(json.dumps(state).encode()).hexdigest()[:8]

    def probabilities(
        self, features: VideoFeatures, frame_rate: float, classifier: None, task: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """As of `Mode`; no row is annotated, since nothing is recalled."""
        probs = np.zeros((len(features.times), len(self._tag.labels)), np.float32)
        for label, columns in self.class_columns.items():
            # Classes exclude each other, so the probability of a label is the sum of its classes'.
            probs[:, self._tag.label_map[label]] = features.probs[:, columns].sum(axis=1).clip(0, 1)
        rows = self._tag.rows(probs, features, frame_rate)
        return rows, np.zeros(len(rows), bool)
