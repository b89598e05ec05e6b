"""How much is learnt from few annotations: macro-F1 on never-seen videos after 1, 3, 5, 10 and 20 of them.

    python -m benchmarks.fewshot                           # drawn scenarios: tables, JSON, plot in benchmarks/results/
    python -m benchmarks.fewshot --footage ../footage      # and real clips with labels, after 3 and 60 % of them
    python -m benchmarks.fewshot --before ../earlier-tree  # and the classifier of an earlier commit
    python -m benchmarks.fewshot --scenarios approach motion --seeds 0 --learners ours window-head

What baselines gave is kept in benchmarks/data, so that only ours is trained anew. Rule, data and results:
benchmarks/fewshot.md.
"""

import argparse
import hashlib
import json
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import published_recipe, report, window_head
from benchmarks.learners import LEARNERS, Before, Learner
from benchmarks.projects import FOOTAGE, STEPS, Example, Project, project
from benchmarks.videos.footage import DATA
from benchmarks.videos.scenarios import SCENARIOS
from learning.metrics import count_frames, count_segments, f1_of, macro_f1, reliability_curve

SEEDS = (0, 1, 2)
SHUFFLES = (0, 1, 2, 3, 4)
RESULTS = Path(__file__).parent / "results"
Row = dict[str, Any]


def run(
    learner: str, name: str, seed: int, footage: Path | None, before: Path | None, steps: tuple[int, ...]
) -> list[Row]:
    """One curve: annotate the project's videos in order, look at the never-seen ones after each step."""
    torch.set_num_threads(1)  # the processes beside this one have the other cores
    data = project(name, seed, footage)
    kept = DATA / "runs" / f"{name}-{seed}-{learner}-{version(learner, data, before)}.json"
    rows = json.loads(kept.read_text()) if kept.exists() else []
    wanted = [step for step in data.steps if step in steps or name == FOOTAGE]
    if {row["step"] for row in rows} >= set(wanted):
        return [row for row in rows if row["step"] in wanted]
    data = data._replace(steps=tuple(wanted))
    student = Before(data, seed, before) if learner == "before" else LEARNERS[learner](data, seed)
    rows, seconds = [], []
    for count in student.counts:
        started = time.monotonic()
        student.annotate(count)
        seconds.append(time.monotonic() - started)
        if count in wanted:
            parts = scores(student, data, count)
            rows += [{"scenario": name, "seed": seed, "step": count, "seconds": seconds[-1], **part} for part in parts]
    if learner != "ours":
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(rows))
    return rows


def version(learner: str, data: Project, before: Path | None) -> str:
    """Changes with what a baseline's numbers follow from: its own source and its features."""
    sources = {"window-head": [window_head], "published-all": [published_recipe], "published-last": [published_recipe]}
    text = "".join(Path(module.__file__).read_text() for module in sources.get(learner, []))
    text += str(before) if learner == "before" else ""
    features = getattr(data.examples[0], LEARNERS[learner].features)
    return hashlib.sha256(text.encode() + features.tobytes()).hexdigest()[:12]


def scores(student: Learner, data: Project, count: int) -> list[Row]:
    """A row for each of the learner's versions, after it was trained on `count` videos."""
    unseen, annotated = data.unseen(count), data.examples[:count]
    by_video = [student.probabilities(example) for example in unseen]
    truth, probs = pooled(unseen, by_video)
    own = [student.probabilities(example) for example in annotated]
    rows = []
    for name, rule in student.rules.items():
        _, found = pooled(unseen, list(map(rule, by_video)))
        frames = count_frames(truth, found)
        fits = [
            macro_f1(count_frames(example.labels, rule(mine))) for example, mine in zip(annotated, own, strict=True)
        ]
        own_truth, own_found = pooled(annotated, list(map(rule, own)))
        rows.append(
            {
                "learner": name,
                "f1": macro_f1(frames),
                "best_f1": best_f1(truth, probs),
                "segment_f1": macro_f1(count_segments(truth, found)),
                "per_label": dict(zip(data.labels, f1_of(frames).tolist(), strict=True)),
                "annotated_f1": float(np.mean(fits)),
                "annotated_pooled_f1": macro_f1(count_frames(own_truth, own_found)),
                "first_f1": fits[0],
                "reliability": reliability(truth, probs),
            }
        )
    return rows


def best_f1(truth: np.ndarray, probs: np.ndarray) -> float:
    """The mean F1, over the labels that occur, at the threshold that would have been best for each: what better
    thresholds could bring."""
    found = []
    for true, probabilities in zip(truth.T > 0, probs.T, strict=True):
        if true.any():
            guesses = [probabilities >= threshold for threshold in np.linspace(0.02, 0.98, 49)]
            found.append(max(2 * (true & guess).sum() / (true.sum() + guess.sum()) for guess in guesses))
    return float(np.mean(found))


def pooled(examples: list[Example], probs: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Truth and probabilities of all frames of the videos, with an empty frame between two videos."""
    truth = np.concatenate([np.pad(example.labels, ((0, 1), (0, 0))) for example in examples])
    return truth, np.concatenate([np.pad(part, ((0, 1), (0, 0))) for part in probs])


def reliability(truth: np.ndarray, probs: np.ndarray) -> dict[str, list[float]]:
    """Sums for a reliability curve that can be added over runs: cases, probability and truth in ten bins."""
    curve = reliability_curve(truth, probs)
    return {
        "count": curve.count.tolist(),
        "probability": np.nan_to_num(curve.mean_probability * curve.count).tolist(),
        "true": np.nan_to_num(curve.observed_frequency * curve.count).tolist(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenarios", nargs="*", choices=SCENARIOS, default=list(SCENARIOS))
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS, help="of the drawn scenarios")
    parser.add_argument("--steps", nargs="+", type=int, default=STEPS, help="of the drawn scenarios")
    parser.add_argument("--footage", type=Path, help="folder of real clips, each with a .json of its labels")
    parser.add_argument("--shuffles", nargs="+", type=int, default=SHUFFLES, help="of the real clips")
    parser.add_argument("--before", type=Path, help="another tree of this project, an earlier commit's")
    parser.add_argument("--learners", nargs="+", choices=LEARNERS, default=list(LEARNERS))
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    learners = [name for name in arguments.learners if name != "before" or arguments.before]
    projects = list(product(arguments.scenarios, arguments.seeds))
    if arguments.footage:
        projects += [(FOOTAGE, shuffle) for shuffle in arguments.shuffles]
    for name, seed in projects:
        for example in project(name, seed, arguments.footage).examples:  # one by one: extraction takes every core
            for learner in learners:
                getattr(example, LEARNERS[learner].features)
    jobs = [(learner, name, seed) for (name, seed), learner in product(projects, learners)]
    one_run = partial(run, footage=arguments.footage, before=arguments.before, steps=tuple(arguments.steps))
    with ProcessPoolExecutor(arguments.workers) as pool:
        rows = [row for rows in pool.map(one_run, *zip(*jobs, strict=True)) for row in rows]
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "fewshot.json").write_text("[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n")
    text = report.report(rows)
    (arguments.output / "fewshot.md").write_text(text)
    report.plot(rows, arguments.output / "fewshot.png")
    print(text)


if __name__ == "__main__":
    main()
