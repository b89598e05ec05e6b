"""How much a projection of the feature map's cells keeps of place, on real clips.

    python -m benchmarks.place FOLDER [FOLDER ...] [--every 1] [--shuffles 6]

A folder holds clips, each with a .json of its labels. Rule and results: benchmarks/README.md.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import average_precision_score, precision_recall_curve

from benchmarks.projects import BATCH_SIZE, FOOTAGE, encoder, project
from features.cells import CELL_DIM, GRID, CellProjection, quantised
from video.preprocessing import View
from video.reader import decode

ANNOTATED = 0.6  # share of the clips that a linear probe is fitted on
RIDGE = 0.03  # of the mean squared length of a row
MAX_ROWS = 700
CHANNELS = 1280
Reduce = Callable[[np.ndarray], np.ndarray]  # [num_frames, cells, channels] -> [num_frames, dim]


def square_root_cells(video: Path, every: int) -> np.ndarray:
    """Signed square roots of all channels of every n-th frame's cells: [num_frames, cells, channels] float16."""
    everything = CellProjection(CHANNELS)
    everything.directions = torch.eye(CHANNELS)
    network = encoder()._model.network
    frames = list(decode(video))[::every]
    parts = []
    for start in range(0, len(frames), BATCH_SIZE):
        with torch.inference_mode():
            batch = encoder().preprocess(frames[start : start + BATCH_SIZE], View.WHOLE)
            parts.append(everything(network._mapped(batch)).half().numpy())
    return np.concatenate(parts).reshape(len(frames), GRID[0] * GRID[1], CHANNELS)


def reductions(videos: list[np.ndarray]) -> dict[str, Reduce]:
    """Ways to reduce the channels: name -> function."""
    sample = np.concatenate([video[::5, ::7].reshape(-1, CHANNELS) for video in videos]).astype(np.float32)
    principal = np.linalg.svd(sample - sample.mean(axis=0), full_matrices=False)[2].T

    def by(directions: np.ndarray) -> Reduce:
        return lambda cells: (cells.astype(np.float32) @ directions).reshape(len(cells), -1)

    def random(dim: int, seed: int) -> np.ndarray:
        return np.linalg.qr(np.random.default_rng(seed).normal(size=(CHANNELS, dim)))[0].astype(np.float32)

    own = by(CellProjection(CHANNELS).directions.numpy())

    def in_bits(cells: np.ndarray) -> np.ndarray:
        stored, scale = quantised(own(cells))
        return stored * scale[:, None]

    return {
        "averaged over the picture": lambda cells: cells.mean(axis=1, dtype=np.float32),
        "all channels": lambda cells: cells.reshape(len(cells), -1).astype(np.float32),
        "96 principal directions of the project": by(principal[:, :96]),
        f"{CELL_DIM} principal directions": by(principal[:, :CELL_DIM]),
        f"{CELL_DIM} random ones, the product's": own,
        "the same in 8 bits": in_bits,
        f"{CELL_DIM} others": by(random(CELL_DIM, 1)),
        "36 random ones": by(random(36, 2)),
    }


def scores(rows: list[np.ndarray], labels: list[np.ndarray], shuffles: int) -> tuple[float, float]:
    """Mean average precision and best F1 over labels and shuffles, of a ridge regression, on clips left out."""
    found = []
    for shuffle in range(shuffles):
        order = np.random.default_rng(shuffle).permutation(len(rows))
        count = max(2, round(ANNOTATED * len(rows)))
        known, truth = (np.concatenate([part[index] for index in order[:count]]) for part in (rows, labels))
        new, expected = (np.concatenate([part[index] for index in order[count:]]) for part in (rows, labels))
        step = max(1, len(known) // MAX_ROWS)
        known, truth = known[::step], truth[::step].astype(float)
        mean = known.mean(axis=0)
        known = known - mean
        kernel = known @ known.T
        kernel += RIDGE * np.trace(kernel) / len(kernel) * np.eye(len(kernel))
        weights = known.T @ np.linalg.solve(kernel, truth - truth.mean(axis=0))
        for column, predicted in zip(expected.T, ((new - mean) @ weights).T, strict=True):
            if 0 < column.sum() < len(column):
                precision, recall, _ = precision_recall_curve(column, predicted)
                best = 2 * precision * recall / np.maximum(precision + recall, 1e-9)
                found.append((average_precision_score(column, predicted), best.max()))
    return tuple(np.mean(found, axis=0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--every", type=int, default=1, help="look at every n-th frame only")
    parser.add_argument("--shuffles", type=int, default=6)
    arguments = parser.parse_args()
    table: dict[str, list[str]] = {}
    for folder in arguments.folders:
        examples = project(FOOTAGE, 0, folder).examples
        videos = [square_root_cells(example.video, arguments.every) for example in examples]
        labels = [example.labels[:: arguments.every] for example in examples]
        lengths = [min(map(len, pair)) for pair in zip(videos, labels, strict=True)]
        for name, reduce in reductions(videos).items():
            rows = [reduce(video[:length]) for video, length in zip(videos, lengths, strict=True)]
            truth = [part[:length] for part, length in zip(labels, lengths, strict=True)]
            table.setdefault(name, []).append("{:.3f} / {:.3f}".format(*scores(rows, truth, arguments.shuffles)))
    names = [folder.name for folder in arguments.folders]
    print(f"| average precision / best F1 | {' | '.join(names)} |\n|" + " --- |" * (len(names) + 1))
    for name, cells in table.items():
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
