"""The trainable classifier of frame features, `MultiLabelLSTM`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from features.cache import cached_feature_extraction, cached_yolo_predict
from learning.blocks import FILTERS
from learning.calibration import calibrate
from learning.classifier_file import BaseNN, UnusableClassifier
from learning.dataset import FRAME_RATE, Dataset, Example, FrameFeatures
from learning.decisions import Decisions, decide
from learning.metrics import held_out_metrics
from learning.network import LAYER_SIZE, MAX_LAYERS, NETWORK_VIDEOS, SeededDropout, cut_windows, train_and_gate
from learning.probe import Probe, fit_probe
from progress import UNTOLD, Progress

__all__ = ["BaseNN", "MultiLabelLSTM", "UnusableClassifier", "cached_feature_extraction", "cached_yolo_predict"]


class MultiLabelLSTM(BaseNN):
    """Frame features -> probability of every label in every frame.

    linear -> layer norm -> dropout -> bidirectional LSTM -> linear. The first linear layer has two factors: a linear
    probe of every label, fitted in closed form (`learning/probe.py`), and a layer on its scores. A label's log-odds are
    a logistic regression on its scores (`learning/calibration.py`) and, from `NETWORK_VIDEOS` annotated videos on, as
    much of what the LSTM adds as helps on videos that it wasn't trained on.

    The thresholds of the labels, and how long events last, are found from held-out videos (`learning/decisions.py`).
    All of it runs on the CPU, where layers this small are fastest.

    Args:
        input_size: dim of a frame's features.
        output_size: number of labels.
        hidden_size: units of the LSTM in each direction.
        num_layers: layers of the LSTM.
        sequence_size: frames per training window.
        layout: the blocks that a row consists of, name -> dim, in their order: "appearance",
            "cells", "motion", "sound", any of them. None: all of it is appearance.
        seed: of the initial weights, the order of windows and dropout. Same seed, data and machine: same model.

    Attributes:
        decisions: makes labels of probabilities.
    """

    def __init__(
        self,
        input_size: int,
        output_size: int,
        hidden_size: int = 32,
        num_layers: int = 1,
        sequence_size: int = 16,
        layout: dict[str, int] | None = None,
        seed: int = 0,
    ) -> None:
        self.layout = dict(layout or {"appearance": input_size})
        sizes = {"input_size": input_size, "output_size": output_size, "hidden_size": hidden_size}
        # As pairs: the order of a JSON object's keys isn't guaranteed.
        pairs = list(self.layout.items())
        super().__init__(**sizes, num_layers=num_layers, sequence_size=sequence_size, layout=pairs, seed=seed)
        if sum(self.layout.values()) != input_size or not set(self.layout) <= set(FILTERS):
            raise ValueError(f"the layout {self.layout} isn't one of {', '.join(FILTERS)} that add up to {input_size}")
        if num_layers > MAX_LAYERS:
            raise ValueError(f"{num_layers} layers are more than {MAX_LAYERS}")
        self.input_size, self.output_size, self.sequence_size, self.seed = input_size, output_size, sequence_size, seed
        # Made without values: the constructors of torch.nn would draw them from the process's random state.
        self.input_layer = nn.Linear(output_size, LAYER_SIZE, device="meta")
        self.layer_norm = nn.LayerNorm(LAYER_SIZE)
        self.dropout = SeededDropout()
        self.lstm = nn.LSTM(LAYER_SIZE, hidden_size, num_layers, batch_first=True, bidirectional=True, device="meta")
        self.output_layer = nn.Linear(2 * hidden_size, output_size, device="meta")
        # Not `to_empty`, which imports much of PyTorch on first use: two seconds of a process's first request.
        self._apply(lambda values: torch.empty(values.shape))
        for name, values in {
            **{f"probe_{name}": torch.zeros(len(FILTERS[name]), w, output_size) for name, w in self.layout.items()},
            "probe_mean": torch.zeros(input_size, output_size),
            "probe_bias": torch.zeros(output_size),
            "slope": torch.ones(output_size),
            "offset": torch.zeros(output_size),
            "gate": torch.zeros(output_size),
            "label_has_example": torch.zeros(output_size, dtype=torch.bool),
        }.items():
            self.register_buffer(name, values)
        self.decisions = Decisions(output_size)
        self.initialise()
        self.eval()

    def initialise(self) -> None:
        """Fills weights as torch.nn does: uniform within 1 / sqrt(fan in). The last layer begins with zeros, and so the
        network as the probe alone."""
        generator = torch.Generator().manual_seed(self.seed)
        self.layer_norm.reset_parameters()
        for layer, fan_in in ((self.input_layer, self.output_size), (self.lstm, self.lstm.hidden_size)):
            for values in layer.parameters():
                nn.init.uniform_(values, -(fan_in**-0.5), fan_in**-0.5, generator=generator)
        for values in self.output_layer.parameters():
            nn.init.zeros_(values)

    @property
    def probe(self) -> Probe:
        """The linear probe of every label."""
        weights = {name: self.get_buffer(f"probe_{name}").numpy() for name in self.layout}
        return Probe(weights, self.probe_mean.numpy(), self.probe_bias.numpy())

    def forward(self, x: Tensor) -> Tensor:
        """Logits [batch, num_frames, output_size] of features [batch, num_frames, input_size] at 25 frames a second."""
        by_video = [self.probe.scores(video, FRAME_RATE) for video in x.detach().numpy()]
        return self._logits(torch.from_numpy(np.stack(by_video)))

    def calibrated(self, scores: Tensor) -> Tensor:
        """Logits of the probe's scores, both [batch, num_frames, output_size]."""
        return self.slope * scores + self.offset

    def read(self, scores: Tensor) -> Tensor:
        """The same, with all that the network adds."""
        logits = self.calibrated(scores)
        return logits + self.output_layer(self.lstm(self.dropout(self.layer_norm(self.input_layer(logits))))[0])

    def _logits(self, scores: Tensor) -> Tensor:
        """The same, with what the network adds where that helps."""
        plain = self.calibrated(scores)
        return plain + self.gate * (self.read(scores) - plain) if self.gate.any() else plain

    def preprocess_sequence(
        self, sequence: ArrayLike, labels: ArrayLike | None = None, overlap: int = 2
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Cut a sequence [num_frames, dim], and its labels where given, into windows of `sequence_size` frames: see
        `cut_windows`."""
        windows = cut_windows(sequence, self.sequence_size, overlap)
        return windows, None if labels is None else cut_windows(labels, self.sequence_size, overlap)

    def partial_fit(
        self,
        sequences: FrameFeatures | Sequence[FrameFeatures],
        labels: ArrayLike | Sequence[ArrayLike],
        **options: Any,
    ) -> dict[str, Any]:
        """As `fit`, of arrays.

        Args:
            sequences: one video's features [num_frames, input_size], or a list of them.
            labels: {0, 1} of the same form, [num_frames, num_labels].
            **options: of `fit`.
        """
        if not isinstance(sequences, list | tuple):
            sequences, labels = [sequences], [labels]
        if len(sequences) != len(labels):
            raise ValueError(f"{len(sequences)} sequences, {len(labels)} label arrays")
        examples = [Example(number, *pair) for number, pair in enumerate(zip(sequences, labels, strict=True))]
        return self.fit(examples, **options)

    def fit(
        self,
        examples: Sequence[Example],
        start_from: "MultiLabelLSTM | None" = None,
        epochs: int = 1000,
        f1_threshold: float = 0.95,
        accuracy_threshold: float = 1.0,
        progress: Progress = UNTOLD,
    ) -> dict[str, Any]:
        """Train on everything given, and on nothing else.

        Pass all annotated videos each time. Others are forgotten, and a label without a frame isn't predicted.

        Args:
            examples: at least one; only slices of their features are read.
            start_from: another project's classifier for the same features. Its probe of labels of the same name is
                weighted by how well it predicts held-out videos.
            epochs: at most this many passes of the network over its windows.
            f1_threshold, accuracy_threshold: the network isn't trained where the probe's macro-F1 or accuracy on
                held-out videos reaches it.
            progress: called with the share done, in [0, 1], about each second; an exception that it raises ends the
                training.

        Returns:
            loss, f1_score (macro), accuracy (over frames and labels), all on held-out videos: what to expect of a new
            one; epoch (the network's), num_sequences, num_frames, stopped ("f1_threshold",
            "accuracy_threshold", "few_videos", "epochs" or "converged"); learnt, by label (or column, where no label
            map was set): the mixture weights of `BLOCKS` and of the classifier that it started from, which add up to 1;
            threshold; shortest, the seconds that even a certain event must last; network, how much of the LSTM's
            correction counts.

        Raises:
            ValueError: shapes that don't fit, features that aren't finite, or no frame that counts.
        """
        for example in examples:
            self._check_features(example.features)
        data = Dataset(examples, self.output_size)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # matrices this small are multiplied faster by one thread, and in the same order
        try:
            fit = fit_probe(data, self.layout, progress.part(0.0, 0.8), NETWORK_VIDEOS, self._start(start_from))
            held_out, probe = fit.held_out, fit.probe
            slope, offset = calibrate(*held_out[:4])
            for name, values in {
                **{f"probe_{name}": weights for name, weights in probe.weights.items()},
                **{"probe_mean": probe.mean, "probe_bias": probe.bias, "slope": slope, "offset": offset},
                "gate": np.zeros(self.output_size),
                "label_has_example": data.shown.any(axis=0),
            }.items():
                self.get_buffer(name).copy_(torch.from_numpy(values))
            probs, unseen = map(self._probabilities, (held_out.scores, held_out.unseen))
            self.decisions.load_state_dict(decide(probs, unseen, held_out, data))
            metrics = held_out_metrics(held_out.labels, unseen, held_out.weights, self.decisions.thresholds.numpy())
            passes, reason = 0, "few_videos"
            if metrics["f1_score"] >= f1_threshold:
                reason = "f1_threshold"
            elif metrics["accuracy"] >= accuracy_threshold:
                reason = "accuracy_threshold"
            elif data.num_videos >= NETWORK_VIDEOS:
                passes = train_and_gate(self, data, fit, epochs, progress.part(0.8, 1.0))
                reason = "epochs" if passes >= epochs else "converged"
            progress(1.0)
        finally:
            self.eval()
            torch.set_num_threads(threads)
        return metrics | {
            "epoch": passes,
            "stopped": reason,
            "num_sequences": len(examples),
            "num_frames": int(sum(example.reviewed.sum() for example in examples)),
            "learnt": self._learnt(fit.mixture_weights),
        }

    def _start(self, other: "MultiLabelLSTM | None") -> Probe | None:
        """Another classifier's probe of this one's labels, None where they share none."""
        if other is None or not other.get_label_map().keys() & self._label_map.keys():
            return None
        if other.layout != self.layout:
            raise ValueError(f"the classifier to start from reads {other.layout}, and not {self.layout}")
        return other.with_labels(self._label_map).probe

    def with_labels(self, label_map: dict[str, int]) -> "MultiLabelLSTM":
        """This classifier for other labels: those of the same name are predicted as here, without what the LSTM adds,
        and the others not at all.

        Args:
            label_map: label -> column.
        """
        other = type(self)(**self.architecture | {"output_size": len(label_map)})
        other.set_label_map(label_map)
        shared = [(column, self._label_map[label]) for label, column in label_map.items() if label in self._label_map]
        to, of = np.array(shared, int).reshape(-1, 2).T
        to_state, of_state = (np.append(0, columns + 1) for columns in (to, of))
        for name, values in self.named_buffers():
            mine = other.get_buffer(name)
            if name.endswith("transitions"):
                mine[np.ix_(to_state, to_state)] = values[np.ix_(of_state, of_state)]
            elif not values.ndim:
                mine.copy_(values)
            elif name != "gate":
                mine[..., to] = values[..., of]
        return other

    def _learnt(self, mixture_weights: dict[str, np.ndarray]) -> dict[str, dict[str, float]]:
        values = mixture_weights | {
            "threshold": self.decisions.thresholds,
            "shortest": self.decisions.shortest,
            "network": self.gate,
        }
        names = {column: label for label, column in self._label_map.items()}
        return {
            names.get(column, str(column)): {name: float(by_label[column]) for name, by_label in values.items()}
            for column in range(self.output_size)
        }

    def predict(
        self,
        sequence: FrameFeatures,
        frame_rate: float = FRAME_RATE,
        progress: Progress = UNTOLD,
    ) -> np.ndarray:
        """Probabilities of every label in every frame of one video.

        The LSTM runs over the whole sequence, so there are no windows whose borders could show. A label without an
        example in the last training has probability 0. Safe to call from several threads.

        Args:
            sequence: [num_frames, input_size], of any length; read in pieces.
            frame_rate: its frames per second.
            progress: told the share done, in [0, 1]; what it raises ends the prediction.

        Returns:
            [num_frames, num_labels] float32.

        Raises:
            ValueError: another shape, or features that aren't finite.
        """
        self._check_features(sequence)
        if sequence.shape[0] == 0:
            return np.zeros((0, self.output_size), dtype=np.float32)
        return self._probabilities(self.probe.scores(sequence, frame_rate, progress))

    @torch.inference_mode()
    def _probabilities(self, scores: np.ndarray) -> np.ndarray:
        if not np.isfinite(scores).all():
            raise ValueError("features contain NaN or infinity")
        values = torch.from_numpy(scores)[None]
        return (torch.sigmoid(self._logits(values)[0]) * self.label_has_example).numpy()

    def _check_features(self, sequence: FrameFeatures) -> None:
        if len(sequence.shape) != 2 or sequence.shape[1] != self.input_size:
            raise ValueError(f"features must have shape [num_frames, {self.input_size}], not {list(sequence.shape)}")
