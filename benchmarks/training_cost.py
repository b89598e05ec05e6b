"""What training costs: seconds per training and per epoch at 1, 10 and 100 videos of 500 frames, beside the plain loop.

    python -m benchmarks.training_cost

The features are there already (synthetic ones, of the bundled encoder's 1280 numbers a frame), as after
extraction. The plain loop is the published recipe's: PyTorch's DataLoader over overlapping windows, and macro-F1
and accuracy of the whole set after each epoch. Epochs are timed in turns, ours and the plain loop's, and the
median of the ratios is given, because other load on the machine then meets both. Rule and results:
benchmarks/fewshot.md.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.published_recipe import PublishedRecipe
from utils.neural_nets import MultiLabelLSTM

FEATURE_DIM, NUM_LABELS, NUM_FRAMES = 1280, 4, 500
VIDEOS = (1, 10, 100)
RESULTS = Path(__file__).parent / "results"
MAX_PLAIN_EPOCHS = 100
OUT_OF_REACH = 2.0  # a threshold that no F1 and no accuracy reaches: all epochs are run


def synthetic_videos(count: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Features like an encoder's (not negative, a scene of its own per video), to which each label adds a direction."""
    rng = np.random.default_rng(0)
    directions = rng.gamma(0.3, 0.6, (NUM_LABELS, FEATURE_DIM))
    sequences, labels = [], []
    for _ in range(count):
        truth = np.zeros((NUM_FRAMES, NUM_LABELS), np.float32)
        for column in range(NUM_LABELS):
            for start in rng.integers(0, NUM_FRAMES - 60, 2):
                truth[start : start + rng.integers(10, 60), column] = 1
        strength = rng.uniform(0.3, 1.0, (1, NUM_LABELS))
        noise = rng.gamma(0.5, 0.8, (NUM_FRAMES, FEATURE_DIM))
        scene = rng.gamma(0.3, 1.5, FEATURE_DIM)
        sequences.append((scene + noise + (truth * strength) @ directions).astype(np.float32))
        labels.append(truth)
    return sequences, labels


def epoch_of_ours(sequences: list[np.ndarray], labels: list[np.ndarray], epochs: int) -> float:
    """Seconds, as the median of those between the ends of two epochs."""
    ends: list[float] = []
    MultiLabelLSTM(FEATURE_DIM, NUM_LABELS).partial_fit(
        sequences,
        labels,
        epochs=epochs,
        f1_threshold=OUT_OF_REACH,
        accuracy_threshold=OUT_OF_REACH,
        progress=lambda *_: ends.append(time.monotonic()),
    )
    return float(np.median(np.diff(ends)))


def epoch_of_the_plain_loop(sequences: list[np.ndarray], labels: list[np.ndarray], epochs: int) -> float:
    """Seconds, as what each epoch after the first adds."""

    def fit(epochs: int) -> float:
        model = PublishedRecipe(FEATURE_DIM, NUM_LABELS)
        started = time.monotonic()
        model.fit(sequences, labels, epochs, f1_threshold=OUT_OF_REACH, accuracy_threshold=OUT_OF_REACH)
        return time.monotonic() - started

    return (fit(epochs) - fit(1)) / (epochs - 1)


def training_of_the_plain_loop(sequences: list[np.ndarray], labels: list[np.ndarray]) -> tuple[float, int]:
    """Seconds and epochs until its thresholds, or `MAX_PLAIN_EPOCHS`."""
    model = PublishedRecipe(FEATURE_DIM, NUM_LABELS)
    started = time.monotonic()
    epochs = model.fit(sequences, labels, MAX_PLAIN_EPOCHS)
    return time.monotonic() - started, epochs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="pairs of timings per size; the median counts")
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    training_of_the_plain_loop(*synthetic_videos(1))  # torch loads parts of itself on first use
    rows = []
    for count in VIDEOS:
        sequences, labels = synthetic_videos(count)
        epochs = max(3, 60 // count)
        pairs = [
            (epoch_of_ours(sequences, labels, epochs), epoch_of_the_plain_loop(sequences, labels, epochs))
            for _ in range(arguments.repeats)
        ]
        metrics = MultiLabelLSTM(FEATURE_DIM, NUM_LABELS).partial_fit(sequences, labels)
        plain_seconds, plain_epochs = training_of_the_plain_loop(sequences, labels)
        rows.append(
            {
                "videos": count,
                "training_seconds": metrics["duration"],
                "training_epochs": metrics["epochs"],
                "plain_training_seconds": plain_seconds,
                "plain_training_epochs": plain_epochs,
                "ours_seconds_per_epoch": statistics.median(ours for ours, _ in pairs),
                "plain_seconds_per_epoch": statistics.median(plain for _, plain in pairs),
                "ratio": statistics.median(plain / ours for ours, plain in pairs),
            }
        )
    lines = [
        "| videos | training (epochs) | the plain loop's | an epoch | the plain loop's | ratio |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {row['videos']} | {row['training_seconds']:.1f} s ({row['training_epochs']}) | "
        f"{row['plain_training_seconds']:.1f} s ({row['plain_training_epochs']}) | "
        f"{row['ours_seconds_per_epoch']:.4f} s | {row['plain_seconds_per_epoch']:.4f} s | {row['ratio']:.1f} |"
        for row in rows
    ]
    arguments.output.mkdir(parents=True, exist_ok=True)
    report = {"rows": rows, "torch": torch.__version__, "threads": torch.get_num_threads()}
    (arguments.output / "training_cost.json").write_text(json.dumps(report, indent=1))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
