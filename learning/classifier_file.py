"""A classifier's file: the base class of networks that are saved and loaded without pickle.

A classifier is data, never code: a safetensors file with a JSON header (architecture, label map and whatever the
caller adds), written beside its destination and renamed, so that a reader sees the old file or the new one,
never half of one.
"""

import json
import os
import tempfile
import threading
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from errors import BackendError

HEADER_KEY = "classifier"  # the one entry of the safetensors metadata; its value is JSON
MAX_LOADED_MODELS = 64  # each of some hundred kilobytes; every training makes a new file
FORMAT_VERSION = 13  # of the header and the tensors; a file of another version is refused, which means: trained again


class UnusableClassifier(BackendError):
    """A classifier file is corrupt, foreign or of another version."""


class BaseNN(nn.Module):
    """What every classifier has: a label map, and a file format without pickle.

    A subclass passes the arguments of its constructor to `super().__init__` as keywords, JSON values only; they
    are stored in the file and rebuild the network on loading.

    Attributes:
        header: the caller's entries of the file it was loaded from or saved to (encoder fingerprint, version,
        metrics).
    """

    def __init__(self, **architecture: Any) -> None:
        super().__init__()
        self.architecture = architecture
        self.header: dict[str, Any] = {}
        self._label_map: dict[str, int] = {}

    def set_label_map(self, label_map: dict[str, int]) -> None:
        """Remember which output column belongs to which label."""
        self._label_map = dict(label_map)

    def get_label_map(self) -> dict[str, int]:
        """Label -> output column; empty where none was set."""
        return dict(self._label_map)

    def save(self, path: str | Path, header: dict[str, Any] | None = None) -> None:
        """Write the classifier to `path`, atomically.

        Args:
            path: the file; its folder is made if missing.
            header: JSON values to store with it (encoder fingerprint, version, metrics); None keeps `self.header`.

        Raises:
            OSError: it can't be written; an earlier file stays.
        """
        path = Path(path)
        if header is not None:
            self.header = dict(header)
        metadata = {
            "format": FORMAT_VERSION,
            "class": type(self).__name__,
            "architecture": self.architecture,
            "label_map": self._label_map,
            "header": self.header,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        try:
            with open(descriptor, "wb") as file:
                file.write(save(self.state_dict(), metadata={HEADER_KEY: json.dumps(metadata)}))
                file.flush()
                # A power cut after the rename must not leave an empty file under the final name.
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    @classmethod
    def load(cls, path: str | Path) -> "BaseNN":
        """Read a classifier that `save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            UnusableClassifier: the file isn't a classifier of this class and format, or is damaged.
        """
        path = Path(path)
        try:
            with safe_open(path, framework="pt") as file:
                metadata = json.loads((file.metadata() or {})[HEADER_KEY])
                if metadata["format"] != FORMAT_VERSION or metadata["class"] != cls.__name__:
                    raise ValueError(f"it holds {metadata['class']} in format {metadata['format']}")
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            with torch.device("meta"):  # whatever sizes the header names, nothing of them is made
                model = cls(**metadata["architecture"])
            model.load_state_dict(tensors, assign=True)
            model.set_label_map(metadata["label_map"])
            model.header = metadata["header"]
        except FileNotFoundError:
            raise
        except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise UnusableClassifier(
                f"{path} is not a usable {cls.__name__} classifier ({error}). Remove the file to start a new one."
            ) from error
        return model

    @classmethod
    def load_cached_model(cls, path: str | Path) -> "BaseNN | None":
        """The classifier in `path`, read again only when the file changed; None where there is no file.

        Every caller gets the same object: call `predict` on it from any number of threads, and train a copy from
        `load`.

        Raises:
            UnusableClassifier: as `load`.
        """
        path = Path(path).absolute()
        try:
            status = path.stat()
            with _loading:
                return _loaded(cls, path, status.st_mtime_ns, status.st_size, status.st_ino)
        except FileNotFoundError:
            return None


_loading = threading.Lock()


@lru_cache(MAX_LOADED_MODELS)
def _loaded(of_class: type[BaseNN], path: Path, *state: int) -> BaseNN:
    """The classifier in a file, by the time, size and inode that the file had then."""
    return of_class.load(path)
