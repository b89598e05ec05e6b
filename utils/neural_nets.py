"""The trainable part of the backend: a small bidirectional LSTM over frame features, and its files.

A classifier is data, never code: a safetensors file with a JSON header (architecture, label map and whatever the
caller adds), written beside its destination and renamed, so that a reader sees the old file or the new one,
never half of one.
"""

import copy
import json
import os
import tempfile
import threading
import time
from collections.abc import Sequence as ListOf
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
from learning.calibration import best_gate, calibrate
from learning.decisions import Decisions, decide
from learning.memory import Memory
from learning.readout import VIEWS, Fit, Weights, fit_readout, scores
from learning.smoothing import smooth
from learning.temporal import FEATURE_FILTERS, MOTION_FILTERS, Sequence
from learning.training import LEARNING_RATE, WEIGHT_DECAY, Deadline, Progress, train_on_scores

__all__ = ["BaseNN", "MultiLabelLSTM", "UnusableClassifier", "cached_feature_extraction", "cached_yolo_predict"]

HEADER_KEY = "classifier"  # the one entry of the safetensors metadata; its value is JSON
MAX_LOADED_MODELS = 64  # each of some hundred kilobytes; every training makes a new file
FORMAT_VERSION = 3  # of the header and the tensors; a file of another version is refused, which means: trained again


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
    factors: a readout of every label from the features and what they do in time, fitted in closed form
    (`learning/readout.py`), and a layer on its scores that is trained with the rest. The LSTM learns from held-out
    scores, so that it knows how far they can be trusted on a video that nobody has annotated. What it says is a
    correction of a logistic regression on the readout, and as much of it counts, by label, as helps on videos that it
    wasn't trained on: from few annotations often nothing.

    What a project needs is found out from held-out videos: which parts of the features count and how much of a video's
    own mean (the readout), from which probability on a label is on and how long its events last
    (`learning/decisions.py`). On a video that it was trained on, it says what was drawn (`learning/memory.py`).

    Args:
        input_size: numbers per frame.
        output_size: number of labels.
        fc_size: numbers between the scores and the LSTM.
        hidden_size: units of the LSTM in each direction.
        num_layers: layers of the LSTM.
        sequence_size: frames per training window.
        learning_rate: at its highest, of the layers behind the readout.
        weight_decay: of these layers.
        dropout_rate: between the layer norm and the LSTM.
        device: where to predict and train; None for the CPU, where layers this small are fastest.
        motion_size: how many of the numbers, the last ones, describe motion.
        seed: of the initial weights, the order of windows and dropout. Same seed, data and machine: same model.
    """

    # The network starts as the readout alone, and learns what context in time corrects.
    CORRECTION = 0.1  # of the last layer's usual initial weights
    SCORE_SCALE = 5.0  # scores lie within about [-0.4, 1]; the first layer's initial weights want numbers around 1

    def __init__(
        self,
        input_size: int,
        output_size: int,
        fc_size: int = 128,
        hidden_size: int = 32,
        num_layers: int = 1,
        sequence_size: int = 16,
        learning_rate: float = LEARNING_RATE,
        weight_decay: float = WEIGHT_DECAY,
        dropout_rate: float = 0.2,
        device: str | None = None,
        motion_size: int = 0,
        seed: int = 0,
    ) -> None:
        sizes = {
            "input_size": input_size,
            "output_size": output_size,
            "fc_size": fc_size,
            "hidden_size": hidden_size,
            "num_layers": num_layers,
            "sequence_size": sequence_size,
        }
        super().__init__(
            **sizes,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            dropout_rate=dropout_rate,
            motion_size=motion_size,
            seed=seed,
        )
        for name, value in sizes.items():
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a positive whole number, not {value!r}")
        if not 0 <= motion_size < input_size:
            raise ValueError(f"motion_size must be below input_size {input_size}, not {motion_size}")
        self.input_size, self.output_size, self.sequence_size, self.seed = input_size, output_size, sequence_size, seed
        self.motion_size, self.learning_rate, self.weight_decay = motion_size, learning_rate, weight_decay
        # Made without values: the constructors of torch.nn would draw them from the process's random state.
        self.input_layer = nn.Linear(output_size, fc_size, device="meta")
        self.layer_norm = nn.LayerNorm(fc_size, device="meta")
        self.dropout = SeededDropout(dropout_rate)
        self.lstm = nn.LSTM(fc_size, hidden_size, num_layers, batch_first=True, bidirectional=True, device="meta")
        self.output_layer = nn.Linear(2 * hidden_size, output_size, device="meta")
        # Not `to_empty`, which imports much of PyTorch on first use: two seconds of a process's first request.
        self._apply(lambda values: torch.empty(values.shape, dtype=values.dtype))
        self.register_buffer("slope", torch.ones(output_size))
        self.register_buffer("offset", torch.zeros(output_size))
        self.register_buffer("gate", torch.ones(output_size))
        feature_dim = input_size - motion_size
        self.register_buffer("readout_features", torch.zeros(output_size, len(FEATURE_FILTERS), feature_dim))
        self.register_buffer("readout_motion", torch.zeros(output_size, len(MOTION_FILTERS), motion_size))
        self.register_buffer("readout_mean", torch.zeros(output_size, input_size))
        self.register_buffer("readout_bias", torch.zeros(output_size))
        self.register_buffer("view_shares", torch.zeros(output_size, len(VIEWS)))
        self.register_buffer("label_has_example", torch.zeros(output_size, dtype=torch.bool))
        self.decisions = Decisions(output_size)
        self.memory = Memory()
        self._initialise(hidden_size)
        self.to(device or "cpu")
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
        for parameter in self.output_layer.parameters():
            parameter.data.mul_(self.CORRECTION)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [batch, num_frames, output_size] of features [batch, num_frames, input_size]."""
        by_video = [scores(video, self._readout) for video in x.detach().cpu().numpy()]
        return self.read(torch.from_numpy(np.stack(by_video)).to(x.device))

    def read(self, scores: Tensor) -> Tensor:
        """Logits of the readout's scores, both [batch, num_frames, output_size]: the layers that learn by gradient."""
        projected = self.dropout(self.layer_norm(torch.relu(self.input_layer(self.SCORE_SCALE * scores))))
        correction = self.output_layer(self.lstm(projected)[0])
        return self.slope * scores + self.offset + self.gate * correction

    @property
    def _readout(self) -> Weights:
        return Weights(self.readout_features, self.readout_motion, self.readout_mean, self.readout_bias)

    @property
    def thresholds(self) -> np.ndarray:
        """[output_size]: from which probability on a label is on, for the best F1 on held-out videos."""
        return self.decisions.thresholds.numpy().copy()

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
        sequences: Sequence | ListOf[Sequence],
        labels: ArrayLike | ListOf[ArrayLike],
        weights: ListOf[float] | None = None,
        masks: ListOf[np.ndarray | None] | None = None,
        epochs: int = 1000,
        f1_threshold: float = 0.95,
        accuracy_threshold: float = 1.0,
        time_budget: float | None = None,
        progress: Progress | None = None,
    ) -> dict[str, Any]:
        """Train on everything given, starting from the present weights.

        Pass all annotated videos each time: what is left out is forgotten, and a label without a positive frame
        in this call isn't predicted until it has one again.

        Args:
            sequences: one video's features [num_frames, input_size], or a list of them; only slices of them are read.
            labels: {0, 1} of the same form, [num_frames, num_labels].
            weights: one positive number a sequence (two annotators of one task: 0.5 each); 1 where None.
            masks: [num_frames] bool a sequence, False for frames that count for nothing; None where all count.
            epochs: at most this many passes over the data.
            f1_threshold, accuracy_threshold: training is brought to its end, its learning rate to 0, once the
                macro-F1 or the accuracy on the training data reaches it.
            time_budget: seconds after which training stops; the learning rate falls so that it is 0 by then. The
                readout, the shorter part, is always fitted.
            progress: called after each epoch with its number (from 1) and the metrics so far.

        Returns:
            loss, f1_score (macro), precision, recall (macro too), accuracy (over frames and labels), epoch (how many
            there were), duration (seconds), num_sequences, num_frames, stopped ("f1_threshold", "accuracy_threshold",
            "epochs", "converged" or "time_budget") and learnt (as of `describe`, by column). Loss and scores are those
            of the last epoch, on scores of readouts that had not seen the video: close to what to expect of a new one.

        Raises:
            ValueError: shapes that don't fit, features that aren't finite, labels other than 0 and 1, weights
            below 0, no frame that counts.
        """
        started = time.monotonic()
        videos, targets, weights, masks = self._checked_examples(sequences, labels, weights, masks)
        threads = torch.get_num_threads()
        # Matrices this small are multiplied faster by one thread, and always in the same order.
        torch.set_num_threads(1)
        warm = bool(self.label_has_example.any())
        try:
            fit = fit_readout(videos, targets, weights, masks, self.motion_size)
            self._take(fit)
            counted = [target[mask] for target, mask in zip(targets, masks, strict=True)]
            self.label_has_example = torch.from_numpy(np.concatenate(counted).any(axis=0))
            slope, offset = calibrate(fit.held_out_scores, targets, masks)
            self.slope, self.offset = torch.from_numpy(slope), torch.from_numpy(offset)
            self.gate.fill_(1)
            before = copy.deepcopy(self)
            cut = [self._cut(*one) for one in zip(fit.held_out_scores, targets, masks, weights, strict=True)]
            deadline = Deadline(started, time_budget)
            options = {
                "warm": warm,
                "epochs": epochs,
                "f1_threshold": f1_threshold,
                "accuracy_threshold": accuracy_threshold,
                "deadline": deadline,
                "seed": self.seed,
            }
            metrics = self._train_on(cut, weights, progress=progress, **options)
            held_out = [self._probabilities(values) for values in fit.held_out_scores]
            if max(fit.numbers) > 0 and deadline.share_passed() < 1:
                # Each half of the videos, corrected by a network that was trained on the other half.
                for half in range(2):
                    own = [index for index, number in enumerate(fit.numbers) if number % 2 == half]
                    other = [index for index, number in enumerate(fit.numbers) if number % 2 != half]
                    network = copy.deepcopy(before)
                    network._train_on([cut[i] for i in other], [weights[i] for i in other], progress=None, **options)
                    for index in own:
                        held_out[index] = network._probabilities(fit.held_out_scores[index])
                self.gate.fill_(0)
                plain = [self._probabilities(values) for values in fit.held_out_scores]
                gate, held_out = best_gate(plain, held_out, targets, masks)
                self.gate.copy_(torch.from_numpy(gate))
            self.decisions.take(decide(held_out, targets, masks))
            self.memory.take(videos, targets, weights, masks)
        finally:
            self.eval()
            torch.set_num_threads(threads)
        return metrics | {
            "duration": time.monotonic() - started,
            "num_sequences": len(videos),
            "num_frames": int(sum(mask.sum() for mask in masks)),
            "learnt": self.describe(),
        }

    def _cut(self, scores: np.ndarray, labels: np.ndarray, mask: np.ndarray, weight: float) -> list[Tensor]:
        """One video's windows of scores and labels [num_windows, sequence_size, num_labels], and the weights of their
        frames [num_windows, sequence_size]."""
        windows = self.preprocess_sequence(scores, labels)
        counts = self.preprocess_sequence(mask[:, None].astype(np.float32)).sequence[..., 0]
        return list(map(torch.from_numpy, (windows.sequence, windows.labels, counts * np.float32(weight))))

    def _train_on(self, cut: list[list[Tensor]], weights: list[float], **options: Any) -> dict[str, Any]:
        """Train the layers behind the readout on these videos' windows; the metrics of `train_on_scores`."""
        self.train()
        self.dropout.generator.manual_seed(self.seed)
        scores, labels, frame_weights = map(torch.cat, zip(*cut, strict=True))
        try:
            return train_on_scores(
                self, scores, labels, frame_weights, num_videos=max(1, round(sum(weights))), **options
            )
        finally:
            self.eval()

    def _take(self, fit: Fit) -> None:
        self.readout_features.copy_(fit.weights.features)
        self.readout_motion.copy_(fit.weights.motion)
        self.readout_mean.copy_(fit.weights.mean)
        self.readout_bias.copy_(fit.weights.bias)
        self.view_shares.zero_()
        self.view_shares[:, [VIEWS.index(view) for view in fit.views]] = fit.shares

    def describe(self) -> dict[str, dict[str, float]]:
        """What was found out about each label: label (its column where no label map was set) ->

        centring, how much of a video's own mean is subtracted, in [0, 1]; appearance, change and motion, what its
        readout rests on, adding up to 1; threshold, the probability from which on it is on; smoothing, the frames of
        the median filter: what is shorter than half of it is no event, and a gap of this length none.
        """
        names = {column: label for label, column in self._label_map.items()}
        parts = np.array([[view.appearance, view.change, view.motion] for view in VIEWS])
        parts = parts / parts.sum(axis=1, keepdims=True)
        centring = np.array([view.centring if view.appearance or view.motion else 0.0 for view in VIEWS])
        described = {}
        for column, shares in enumerate(self.view_shares.numpy()):
            appearance, change, motion = (float(value) for value in shares @ parts)
            described[names.get(column, str(column))] = {
                "centring": float(shares @ centring),
                "appearance": appearance,
                "change": change,
                "motion": motion,
                "threshold": float(self.decisions.thresholds[column]),
                "smoothing": int(self.decisions.windows[column]),
            }
        return described

    def predict(self, sequence: Sequence, recall: bool = True) -> np.ndarray:
        """Probabilities of every label in every frame of one video.

        The LSTM runs over the whole sequence, so there are no windows whose borders could show. What flickers is
        smoothed away. A label without an example in the last training has probability 0. Safe to call from several
        threads.

        Args:
            sequence: [num_frames, input_size], of any length; read in blocks.
            recall: on a video of the last training, agree with what was drawn; False: predict it like a new one.

        Returns:
            [num_frames, num_labels] float32.

        Raises:
            ValueError: another shape, or features that aren't finite.
        """
        self._check_features(sequence)
        if sequence.shape[0] == 0:
            return np.zeros((0, self.output_size), dtype=np.float32)
        probs = smooth(self._probabilities(scores(sequence, self._readout)), self.decisions.windows.numpy())
        return self.memory.recall(sequence, probs) if recall else probs

    def predict_labels(self, sequence: Sequence, recall: bool = True) -> np.ndarray:
        """The labels of every frame, [num_frames, num_labels] bool: `predict` at this model's own thresholds."""
        return self.predict(sequence, recall) >= self.thresholds

    def expected_f1(self, probs: np.ndarray) -> float:
        """The macro-F1 to expect of a prediction, in [0, 1]: see `Decisions.expected_f1`."""
        return self.decisions.expected_f1(probs)

    @torch.inference_mode()
    def _probabilities(self, readout_scores: np.ndarray) -> np.ndarray:
        if not np.isfinite(readout_scores).all():
            raise ValueError("features contain NaN or infinity")
        device = self.output_layer.weight.device
        logits = self.read(torch.from_numpy(readout_scores).to(device)[None])[0].cpu()
        return (torch.sigmoid(logits) * self.label_has_example).numpy()

    def _check_features(self, sequence: Sequence) -> None:
        if len(sequence.shape) != 2 or sequence.shape[1] != self.input_size:
            raise ValueError(f"features must have shape [num_frames, {self.input_size}], not {list(sequence.shape)}")

    def _checked_examples(
        self,
        sequences: Sequence | ListOf[Sequence],
        labels: ArrayLike | ListOf[ArrayLike],
        weights: ListOf[float] | None,
        masks: ListOf[np.ndarray | None] | None,
    ) -> tuple[list[Sequence], list[np.ndarray], list[float], list[np.ndarray]]:
        """The examples as lists, or ValueError."""
        if not isinstance(sequences, list | tuple):
            sequences, labels = [sequences], [labels]
        targets = [np.asarray(target, dtype=np.float32) for target in labels]
        weights = [1.0] * len(sequences) if weights is None else [float(weight) for weight in weights]
        masks = [None] * len(sequences) if masks is None else list(masks)
        if not sequences or not len(sequences) == len(targets) == len(weights) == len(masks):
            raise ValueError(
                f"{len(sequences)} sequences, {len(targets)} label arrays, {len(weights)} weights, {len(masks)} masks"
            )
        checked = []
        for video, target, weight, mask in zip(sequences, targets, weights, masks, strict=True):
            self._check_features(video)
            num_frames = video.shape[0]
            if num_frames == 0 or target.shape != (num_frames, self.output_size):
                raise ValueError(
                    f"labels {list(target.shape)} don't fit {num_frames} frames, {self.output_size} labels"
                )
            if not np.isin(target, (0, 1)).all():
                raise ValueError("labels must be 0 or 1")
            if not 0 < weight < float("inf"):
                raise ValueError(f"the weight of a sequence must be a positive number, not {weight}")
            mask = np.ones(num_frames, bool) if mask is None else np.asarray(mask, dtype=bool)
            if mask.shape != (num_frames,):
                raise ValueError(f"a mask of {list(mask.shape)} doesn't fit {num_frames} frames")
            checked.append(mask)
        if not any(mask.any() for mask in checked):
            raise ValueError("no frame counts: each is masked")
        return list(sequences), targets, weights, checked
