"""What a training costs: 20 videos of 300 frames and 100 of 500, beside an earlier commit, in turns.

    python -m benchmarks.training_cost --before ../earlier-tree

The features are there already (synthetic ones, of the bundled encoder's dim, and motion for this
tree), as after extraction. Each training runs in a process of its own. Rule and results: benchmarks/fewshot.md.
"""

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks.learners import OTHER_TREE, run_in, save_examples
from features.motion import MOTION_SIZE

FEATURE_DIM, CELL_DIM, NUM_LABELS = 1280, 6 * 8 * 72, 4
SIZES = ((20, 300), (100, 500))  # videos, frames of each
PROJECT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"


def synthetic_videos(count: int, num_frames: int, input_size: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Features like an encoder's (not negative, a scene of its own per video), to which each label adds a direction."""
    rng = np.random.default_rng(0)
    directions = rng.gamma(0.3, 0.6, (NUM_LABELS, input_size))
    examples = []
    for _ in range(count):
        truth = np.zeros((num_frames, NUM_LABELS), np.float32)
        for column in range(NUM_LABELS):
            for start in rng.integers(0, num_frames - 60, 2):
                truth[start : start + rng.integers(10, 60), column] = 1
        strength = rng.uniform(0.3, 1.0, (1, NUM_LABELS))
        noise = rng.gamma(0.5, 0.8, (num_frames, input_size))
        scene = rng.gamma(0.3, 1.5, input_size)
        examples.append(((scene + noise + (truth * strength) @ directions).astype(np.float32), truth))
    return examples


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, required=True, help="another tree of this project, an earlier commit's")
    parser.add_argument("--repeats", type=int, default=3, help="pairs of trainings per size; the medians count")
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    whole = {"appearance": FEATURE_DIM, "motion": MOTION_SIZE}
    ours = {"appearance": FEATURE_DIM, "cells": CELL_DIM, "motion": MOTION_SIZE}
    trees = {"before": (arguments.before, whole), "ours": (PROJECT, ours)}
    rows = []
    for count, num_frames in SIZES:
        seconds: dict[str, list[float]] = {name: [] for name in trees}
        with tempfile.TemporaryDirectory() as folder:
            for name, (_, layout) in trees.items():
                width = sum(layout.values())
                save_examples(Path(folder) / f"{name}.npz", synthetic_videos(count, num_frames, width))
            for _ in range(arguments.repeats):
                for name, (tree, layout) in trees.items():
                    data = Path(folder) / f"{name}.npz"
                    printed = run_in(tree, [sys.executable, OTHER_TREE, "time", data, "--layout", json.dumps(layout)])
                    seconds[name].append(json.loads(printed)["seconds"])
        medians = {name: statistics.median(times) for name, times in seconds.items()}
        rows.append({"videos": count, "frames": num_frames, **medians, "rounds": seconds})
    lines = ["| videos | frames of each | before | ours |", "| --- | --- | --- | --- |"]
    lines += [f"| {row['videos']} | {row['frames']} | {row['before']:.1f} s | {row['ours']:.1f} s |" for row in rows]
    arguments.output.mkdir(parents=True, exist_ok=True)
    report = {"rows": rows, "torch": torch.__version__, "threads": torch.get_num_threads()}
    (arguments.output / "training_cost.json").write_text(json.dumps(report, indent=1))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
