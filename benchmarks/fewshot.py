"""How much is learnt from few annotations: macro-F1 on never-seen videos after 1, 2, 3, 5, 10 and 20 of them.

    python -m benchmarks.fewshot                      # everything: table, JSON and plot in benchmarks/results/
    python -m benchmarks.fewshot --scenarios street kitchen --seeds 0

Rule, data and results: benchmarks/fewshot.md.
"""

import argparse
import json
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch

from benchmarks.published_recipe import PublishedRecipe
from benchmarks.videos.footage import ANNOTATED, DATA, UNSEEN
from benchmarks.videos.scenarios import SCENARIOS, make_video
from features.cache import extract
from features.checkpoints import bundled_path
from features.encoder import Encoder
from learning.metrics import frame_metrics, reliability_curve, segment_f1
from utils.neural_nets import MultiLabelLSTM

STEPS = (1, 2, 3, 5, 10, 20)  # annotations
SEEDS = (0, 1, 2)
RESULTS = Path(__file__).parent / "results"
Example = tuple[np.ndarray, np.ndarray]  # features [num_frames, feature_dim], labels [num_frames, num_labels] in {0, 1}


def examples(scenario: str, seed: int) -> list[Example]:
    """The 32 videos' features by the bundled encoder, and their labels; made once, then read from benchmarks/data."""
    path = DATA / "fewshot" / f"{scenario}-{seed}.npz"
    if not path.exists():
        # Not `get_encoder`: with a network, it would fetch another one.
        encoder = Encoder(bundled_path(), torch.device("cpu"), "bf16", is_fallback=True)
        videos = [DATA / "videos" / f"{scenario}-{seed}-{number}.mp4" for number in range(ANNOTATED + UNSEEN)]
        labels = [make_video(scenario, seed, number, video) for number, video in enumerate(videos)]
        features = [extract(encoder, video).features for video in videos]
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, features=np.stack(features), labels=np.stack(labels))
    with np.load(path) as stored:
        return list(zip(stored["features"], stored["labels"], strict=True))


class Ours:
    """The product's way: a new classifier, trained on all annotations."""

    STEPS = STEPS  # what happened between them leaves no trace

    def __init__(self, feature_dim: int, num_labels: int, seed: int) -> None:
        self._new = partial(MultiLabelLSTM, feature_dim, num_labels, seed=seed)

    def annotate(self, annotated: list[Example]) -> None:
        """Train after the last of the annotations came."""
        self.model = self._new()
        self.model.partial_fit(*map(list, zip(*annotated, strict=True)))

    def predict(self, features: np.ndarray) -> np.ndarray:
        return self.model.predict(features)


class Published:
    """The published way: the last annotation only."""

    STEPS = range(1, ANNOTATED + 1)

    def __init__(self, feature_dim: int, num_labels: int, seed: int) -> None:
        torch.manual_seed(seed)
        self.model = PublishedRecipe(feature_dim, num_labels)

    def annotate(self, annotated: list[Example]) -> None:
        self.model.fit([annotated[-1][0]], [annotated[-1][1]])

    def predict(self, features: np.ndarray) -> np.ndarray:
        return self.model.predict(features)


LEARNERS = {"ours": Ours, "published": Published}


def run(learner: str, scenario: str, seed: int) -> dict[str, Any]:
    """One curve: annotate the first 20 videos in order, look at the 12 others after each of STEPS."""
    torch.set_num_threads(1)  # the processes beside this one have the other cores
    data = examples(scenario, seed)
    names = SCENARIOS[scenario].labels
    student = LEARNERS[learner](data[0][0].shape[1], len(names), seed)
    curve, seconds = {}, []
    for count in student.STEPS:
        started = time.monotonic()
        student.annotate(data[:count])
        seconds.append(time.monotonic() - started)
        if count in STEPS:
            truth, probs = pooled(student, data[ANNOTATED:])
            frames, parts = frame_metrics(truth, probs >= 0.5, names), segment_f1(truth, probs >= 0.5, names)
            per_label = {name: scores["f1"] for name, scores in frames["per_label"].items()}
            curve[count] = {"f1": frames["macro_f1"], "segment_f1": parts["macro_f1"], "per_label": per_label}
    first_truth, first_probs = pooled(student, data[:1])
    sure = probs >= 0.5
    return {
        "learner": learner,
        "scenario": scenario,
        "seed": seed,
        "curve": curve,
        "first_video_f1": frame_metrics(first_truth, first_probs >= 0.5, names)["macro_f1"],
        "reliability": reliability(truth, probs),
        "mean_confidence_when_sure": float(probs[sure].mean()) if sure.any() else None,
        "precision_when_sure": float(truth[sure].mean()) if sure.any() else None,
        "seconds_per_training": seconds,
    }


def pooled(student: Ours | Published, data: list[Example]) -> tuple[np.ndarray, np.ndarray]:
    """Truth and probabilities of all frames of the videos, with an empty frame between two videos."""
    truth = np.concatenate([np.pad(labels, ((0, 1), (0, 0))) for _, labels in data])
    probs = np.concatenate([np.pad(student.predict(features), ((0, 1), (0, 0))) for features, _ in data])
    return truth, probs


def reliability(truth: np.ndarray, probs: np.ndarray) -> dict[str, list[float]]:
    """Sums for a reliability curve that can be added over runs: cases, probability and truth in ten bins."""
    curve = reliability_curve(truth, probs)
    count = curve.count
    return {
        "count": count.tolist(),
        "probability": np.nan_to_num(curve.mean_probability * count).tolist(),
        "true": np.nan_to_num(curve.observed_frequency * count).tolist(),
    }


def mean_curve(runs: list[dict[str, Any]], learner: str, key: str = "f1") -> np.ndarray:
    """Mean over runs of one measure at each of STEPS."""
    return np.mean([[run["curve"][step][key] for step in STEPS] for run in runs if run["learner"] == learner], axis=0)


def table(runs: list[dict[str, Any]], title: str) -> list[str]:
    """A markdown table of the curves, per scenario and over all."""
    lines = [f"### {title}", "", f"| scenario | learner | {' | '.join(map(str, STEPS))} | first video after 20 |"]
    lines.append("|" + " --- |" * (len(STEPS) + 3))
    scenarios = sorted({run["scenario"] for run in runs})
    groups = [(name, [run for run in runs if run["scenario"] == name]) for name in scenarios] + [("**mean**", runs)]
    for name, group in groups:
        for learner in LEARNERS:
            first = np.mean([run["first_video_f1"] for run in group if run["learner"] == learner])
            values = " | ".join(f"{value:.3f}" for value in mean_curve(group, learner))
            lines.append(f"| {name} | {learner} | {values} | {first:.3f} |")
    ours, published = mean_curve(runs, "ours"), mean_curve(runs, "published")
    worst_step = np.diff(ours).min()
    lines += [
        "",
        f"Ours at 3 against published at 20: {ours[2]:.3f} / {published[-1]:.3f}. "
        f"Ours at 20 above published at 20: {ours[-1] - published[-1]:+.3f}. Worst step of ours: {worst_step:+.3f}. "
        f"Segment F1 (IoU 0.5) at 20: {mean_curve(runs, 'ours', 'segment_f1')[-1]:.3f} / "
        f"{mean_curve(runs, 'published', 'segment_f1')[-1]:.3f}.",
        "",
    ]
    return lines


def reliability_table(runs: list[dict[str, Any]], title: str) -> list[str]:
    """Predicted probability against observed frequency on never-seen videos after 20 annotations."""
    lines = [f"### Reliability, {title}", "", "| learner | | " + " | ".join(f"{b / 10:.1f}-" for b in range(10)) + " |"]
    lines.append("|" + " --- |" * 12)
    for learner in LEARNERS:
        sums = [run["reliability"] for run in runs if run["learner"] == learner]
        count, probability, true = (np.sum([s[key] for s in sums], axis=0) for key in ("count", "probability", "true"))
        for name, total in (("predicted", probability), ("observed", true)):
            cells = (
                f"{value:.2f}" if cases else ""
                for value, cases in zip(total / np.maximum(count, 1), count, strict=True)
            )
            lines.append(f"| {learner} | {name} | {' | '.join(cells)} |")
        lines.append(f"| {learner} | frames | {' | '.join(map(str, count))} |")
    return [*lines, ""]


def plot(groups: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """The curves, one panel a group: the mean and each run."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(groups), figsize=(6 * len(groups), 4.2), sharey=True, squeeze=False)
    for axis, (title, runs) in zip(axes[0], groups.items(), strict=True):
        for learner, tint in (("ours", "tab:blue"), ("published", "tab:orange")):
            for one in (one for one in runs if one["learner"] == learner):
                axis.plot(STEPS, [one["curve"][step]["f1"] for step in STEPS], color=tint, alpha=0.2, linewidth=1)
            axis.plot(STEPS, mean_curve(runs, learner), color=tint, marker="o", label=learner)
        axis.set(title=title, xscale="log", xlabel="annotated videos", ylim=(0, 1))
        axis.set_xticks(STEPS, STEPS)
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("macro-F1 on never-seen videos")
    axes[0][0].legend()
    figure.savefig(path, dpi=120, bbox_inches="tight")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenarios", nargs="+", choices=SCENARIOS, default=list(SCENARIOS))
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    for scenario, seed in product(arguments.scenarios, arguments.seeds):
        examples(scenario, seed)  # one after the other: extraction takes every core itself
    with ProcessPoolExecutor(arguments.workers) as pool:
        jobs = list(zip(*product(LEARNERS, arguments.scenarios, arguments.seeds), strict=True))
        runs = list(pool.map(run, *jobs))
    groups = {
        "scenarios of the tuning": [one for one in runs if not SCENARIOS[one["scenario"]].held_out],
        "scenarios kept aside": [one for one in runs if SCENARIOS[one["scenario"]].held_out],
    }
    groups = {title: group for title, group in groups.items() if group}
    lines = [line for title, group in groups.items() for line in table(group, title) + reliability_table(group, title)]
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "fewshot.json").write_text(json.dumps(runs, indent=1))
    (arguments.output / "fewshot.md").write_text("\n".join(lines))
    plot(groups, arguments.output / "fewshot.png")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
