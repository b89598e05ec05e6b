"""The trainable part of the backend: a small bidirectional LSTM over frame features, and its files.

A classifier is data, never code: a safetensors file with a JSON header (architecture, label map and whatever the
caller adds), written beside its destination and renamed, so that a reader sees the old file or the new one,
never half of one.
"""

import json
import os
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from errors import BackendError
from features.cache import cached_feature_extraction, cached_yolo_predict
from learning.readout import fit_readout, normalised
from learning.smoothing import event_durations, smooth
from learning.training import Deadline, Progress, train_on_scores

__all__ = ["BaseNN", "MultiLabelLSTM", "UnusableClassifier", "cached_feature_extraction", "cached_yolo_predict"]

HEADER_KEY = "classifier"  # the one entry of the safetensors metadata; its value is JSON
MAX_LOADED_MODELS = 64  # each of some hundred kilobytes; every training makes a new file
FORMAT_VERSION = 2  # of the header and the tensors; a file of another version is refused, which means: trained again


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
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        os.close(descriptor)
        try:
            save_file(tensors, temporary, metadata={HEADER_KEY: json.dumps(metadata)})
            with open(temporary, "rb+") as file:
                os.fsync(
                    file.fileno()
                )  # a power cut after the rename must not leave an empty file under the final name
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
            model = cls(**metadata["architecture"])
            model.load_state_dict(tensors)
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
        with _loaded_models_lock:
            try:
                status = path.stat()
                state = (status.st_mtime_ns, status.st_size, status.st_ino)
                if path not in _loaded_models or _loaded_models[path][0] != state:
                    _loaded_models[path] = (state, cls.load(path))
                    while len(_loaded_models) > MAX_LOADED_MODELS:
                        del _loaded_models[next(iter(_loaded_models))]  # loaded longest ago
            except FileNotFoundError:
                _loaded_models.pop(path, None)
                return None
            return _loaded_models[path][1]


_loaded_models: dict[Path, tuple[tuple[int, int, int], BaseNN]] = {}  # (mtime, size, inode) of the file that was read
_loaded_models_lock = threading.Lock()


class Windows(NamedTuple):
    """A sequence cut for training.

    Attributes:
        sequence: [num_windows, sequence_size, numbers] float32, zeros where padded.
        labels: [num_windows, sequence_size, num_labels] float32, or None where no labels were given.
        mask: [num_windows, sequence_size] bool, True for a real frame, False for padding.
    """

    sequence: np.ndarray
    labels: np.ndarray | None
    mask: np.ndarray


class SeededDropout(nn.Module):
    """Dropout with a generator of its own: training neither reads nor disturbs the process's random state."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.generator = torch.Generator()

    def forward(self, values: Tensor) -> Tensor:
        if not self.training:
            return values
        kept = torch.rand(values.shape, generator=self.generator) >= self.rate
        return values * kept / (1 - self.rate)


class MultiLabelLSTM(BaseNN):
    """Frame features -> probability of every label in every frame.

    linear -> ReLU -> layer norm -> dropout -> bidirectional LSTM -> linear. The first linear layer has two
    factors: a readout of every label, fitted in closed form (`learning/readout.py`), and a layer on its scores that
    is trained with the rest. The LSTM learns from held-out scores, so that it knows how far they can be trusted
    on a video that nobody has annotated.

    Args:
        input_size: numbers per frame.
        output_size: number of labels.
        sequence_size: frames per training window.
        hidden_size: units of the LSTM in each direction.
        num_layers: layers of the LSTM.
        seed: of the initial weights, the order of windows and dropout. Same seed, data and machine: same model.
    """

    PROJECTION_SIZE = 128  # between the scores and the LSTM
    DROPOUT = 0.2
    SCORE_SCALE = 5.0  # scores lie within about [-0.4, 1]; the first layer's initial weights want numbers around 1

    def __init__(
        self,
        input_size: int,
        output_size: int,
        sequence_size: int = 16,
        hidden_size: int = 32,
        num_layers: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__(
            input_size=input_size,
            output_size=output_size,
            sequence_size=sequence_size,
            hidden_size=hidden_size,
            num_layers=num_layers,
            seed=seed,
        )
        for name, value in self.architecture.items():
            if not isinstance(value, int) or (value < 1 and name != "seed"):
                raise ValueError(f"{name} must be a positive whole number, not {value!r}")
        self.input_size, self.output_size, self.sequence_size, self.seed = input_size, output_size, sequence_size, seed
        # Made without values: the constructors of torch.nn would draw them from the process's random state.
        self.input_layer = nn.Linear(output_size, self.PROJECTION_SIZE, device="meta")
        self.layer_norm = nn.LayerNorm(self.PROJECTION_SIZE, device="meta")
        self.dropout = SeededDropout(self.DROPOUT)
        self.lstm = nn.LSTM(
            self.PROJECTION_SIZE, hidden_size, num_layers, batch_first=True, bidirectional=True, device="meta"
        )
        self.output_layer = nn.Linear(2 * hidden_size, output_size, device="meta")
        self.to_empty(device="cpu")
        self.register_buffer("readout", torch.zeros(output_size, input_size))
        self.register_buffer("event_durations", torch.zeros(output_size))  # frames, of each label's short events
        self.register_buffer("label_has_example", torch.zeros(output_size, dtype=torch.bool))
        self._initialise(hidden_size)
        self.eval()

    def _initialise(self, hidden_size: int) -> None:
        """Fill the weights as torch.nn does: uniform within 1 / sqrt(fan in), the layer norm the identity."""
        generator = torch.Generator().manual_seed(self.seed)
        nn.init.ones_(self.layer_norm.weight)
        nn.init.zeros_(self.layer_norm.bias)
        for layer, fan_in in (
            (self.input_layer, self.output_size),
            (self.lstm, hidden_size),
            (self.output_layer, 2 * hidden_size),
        ):
            for parameter in layer.parameters():
                nn.init.uniform_(parameter, -(fan_in**-0.5), fan_in**-0.5, generator=generator)

    def forward(self, scores: Tensor) -> Tensor:
        """Logits [batch, num_frames, num_labels] of the readout's scores [batch, num_frames, num_labels]."""
        projected = self.dropout(self.layer_norm(torch.relu(self.input_layer(self.SCORE_SCALE * scores))))
        return self.output_layer(self.lstm(projected)[0])

    def preprocess_sequence(self, sequence: ArrayLike, labels: ArrayLike | None = None, overlap: int = 2) -> Windows:
        """Cut a sequence into windows of `sequence_size` frames for training; the last one is padded.

        Args:
            sequence: [num_frames, numbers], of features or of scores.
            labels: [num_frames, num_labels], or None.
            overlap: frames that neighbouring windows share.
        """
        sequence = np.asarray(sequence, dtype=np.float32)
        step = self.sequence_size - overlap if self.sequence_size > overlap else 1
        starts = np.arange(0, max(len(sequence) - self.sequence_size, 0) + step, step)
        index = starts[:, None] + np.arange(self.sequence_size)
        mask = index < len(sequence)
        index = np.minimum(index, len(sequence) - 1)
        label_windows = None
        if labels is not None:
            label_windows = np.asarray(labels, dtype=np.float32)[index] * mask[..., None]
        return Windows(sequence[index] * mask[..., None], label_windows, mask)

    def partial_fit(
        self,
        sequences: ArrayLike | Sequence[ArrayLike],
        labels: ArrayLike | Sequence[ArrayLike],
        weights: Sequence[float] | None = None,
        epochs: int = 1000,
        f1_threshold: float = 0.95,
        accuracy_threshold: float = 1.0,
        time_budget: float | None = None,
        progress: Progress | None = None,
        masks: Sequence[np.ndarray | None] | None = None,
    ) -> dict[str, Any]:
        """Train on everything given, starting from the present weights.

        Pass all annotated videos each time: what is left out is forgotten, and a label without a positive frame
        in this call isn't predicted until it has one again.

        Args:
            sequences: one video's features [num_frames, input_size], or a list of them.
            labels: {0, 1} of the same form, [num_frames, num_labels].
            weights: one positive number a sequence (two annotators of one task: 0.5 each); 1 where None.
            epochs: at most this many passes over the data.
            f1_threshold, accuracy_threshold: training is brought to its end, its learning rate to 0, once the
                macro-F1 or the accuracy on the training data reaches it.
            time_budget: seconds after which training stops; the learning rate falls so that it is 0 by then. The
                readout, the shorter part, is always fitted.
            progress: called after each epoch with its number (from 1) and the metrics so far.
            masks: for each sequence, [num_frames] bool, which frames count; None, for one or for all: every frame.

        Returns:
            loss, f1 (macro), accuracy (over frames and labels), epochs, duration (seconds), num_sequences,
            num_frames and stopped ("f1_threshold", "accuracy_threshold", "epochs", "converged" or
            "time_budget"). Loss, f1 and accuracy are those of the last epoch, on scores of readouts that had not
            seen the video: close to what to expect of a new one.

        Raises:
            ValueError: shapes that don't fit, features that aren't finite, labels other than 0 and 1, weights
            below 0.
        """
        started = time.monotonic()
        videos, targets, weights = self._checked_examples(sequences, labels, weights)
        if masks is not None:
            videos = [rows if mask is None else rows[mask] for rows, mask in zip(videos, masks, strict=True)]
            targets = [rows if mask is None else rows[mask] for rows, mask in zip(targets, masks, strict=True)]
        threads = torch.get_num_threads()
        # Matrices this small are multiplied faster by one thread, and always in the same order.
        torch.set_num_threads(1)
        warm = bool(self.label_has_example.any())
        self.train()
        self.dropout.generator.manual_seed(self.seed)
        try:
            readout = fit_readout(videos, targets, weights)
            self.readout.copy_(readout.weight)
            self.event_durations.copy_(torch.from_numpy(event_durations(targets)))
            self.label_has_example = torch.from_numpy(np.concatenate(targets).any(axis=0))
            cut = [self.preprocess_sequence(*pair) for pair in zip(readout.held_out_scores, targets, strict=True)]
            frame_weights = [windows.mask * np.float32(weight) for windows, weight in zip(cut, weights, strict=True)]
            metrics = train_on_scores(
                self,
                torch.from_numpy(np.concatenate([windows.sequence for windows in cut])),
                torch.from_numpy(np.concatenate([windows.labels for windows in cut])),
                torch.from_numpy(np.concatenate(frame_weights)),
                num_videos=max(1, round(sum(weights))),
                warm=warm,
                epochs=epochs,
                f1_threshold=f1_threshold,
                accuracy_threshold=accuracy_threshold,
                deadline=Deadline(started, time_budget),
                progress=progress,
                seed=self.seed,
            )
        finally:
            self.eval()
            torch.set_num_threads(threads)
        return metrics | {
            "duration": time.monotonic() - started,
            "num_sequences": len(videos),
            "num_frames": sum(map(len, videos)),
        }

    @torch.inference_mode()
    def predict(self, sequence: ArrayLike) -> np.ndarray:
        """Probabilities of every label in every frame of one video.

        The LSTM runs over the whole sequence, so there are no windows whose borders could show. What flickers for
        less than a quarter of a label's short events is smoothed away. A label without an example in the last
        training has probability 0. Safe to call from several threads.

        Args:
            sequence: [num_frames, input_size], of any length.

        Returns:
            [num_frames, num_labels] float32.

        Raises:
            ValueError: another shape, or features that aren't finite.
        """
        video = self._checked_features(sequence)
        if len(video) == 0:
            return np.zeros((0, self.output_size), dtype=np.float32)
        logits = self((torch.from_numpy(normalised(video)) @ self.readout.T).unsqueeze(0))[0]
        probs = (torch.sigmoid(logits) * self.label_has_example).numpy()
        return smooth(probs, self.event_durations.numpy())

    def _checked_features(self, sequence: ArrayLike) -> np.ndarray:
        video = np.asarray(sequence, dtype=np.float32)
        if video.ndim != 2 or video.shape[1] != self.input_size:
            raise ValueError(f"features must have shape [num_frames, {self.input_size}], not {list(video.shape)}")
        if not np.isfinite(video).all():
            raise ValueError("features contain NaN or infinity")
        return video

    def _checked_examples(
        self,
        sequences: ArrayLike | Sequence[ArrayLike],
        labels: ArrayLike | Sequence[ArrayLike],
        weights: Sequence[float] | None,
    ) -> tuple[list[np.ndarray], list[np.ndarray], list[float]]:
        """The examples as lists of arrays, or ValueError."""
        if isinstance(sequences, np.ndarray | Tensor) and sequences.ndim == 2:
            sequences, labels = [sequences], [labels]
        videos = [self._checked_features(sequence) for sequence in sequences]
        targets = [np.asarray(target, dtype=np.float32) for target in labels]
        weights = [1.0] * len(videos) if weights is None else [float(weight) for weight in weights]
        if not videos or not len(videos) == len(targets) == len(weights):
            raise ValueError(f"{len(videos)} sequences, {len(targets)} label arrays and {len(weights)} weights")
        for video, target, weight in zip(videos, targets, weights, strict=True):
            if len(video) == 0 or target.shape != (len(video), self.output_size):
                raise ValueError(
                    f"labels {list(target.shape)} don't fit {len(video)} frames, {self.output_size} labels"
                )
            if not np.isin(target, (0, 1)).all():
                raise ValueError("labels must be 0 or 1")
            if not 0 < weight < float("inf"):
                raise ValueError(f"the weight of a sequence must be a positive number, not {weight}")
        return videos, targets, weights
