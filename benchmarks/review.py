"""Wrong intervals planted in real annotations: how many of them the review shows first, and how many honest ones.

    python -m benchmarks.review ../footage/kiosk ../footage/flies --seeds 0 1 2 3
    python -m benchmarks.review ../footage/kiosk --expected    # how far totals lie from what probabilities let expect

Clips as of benchmarks/fewshot.md. Rule and results: benchmarks/study.md.
"""

import argparse
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import quoteattr

import numpy as np
import torch
from label_studio_sdk.label_interface import LabelInterface

from benchmarks.projects import FOOTAGE, Project, project
from control_models.tag import DEFAULT_THRESHOLD
from control_models.timeline_tag import TimelineTag
from control_models.trainer import Trainer
from learning.dataset import Example
from learning.evaluation import Evaluation
from learning.events import segments
from ml_backend.dashboard.findings import MIN_EVIDENCE
from ml_backend.jobs.review import FOLDS
from study.expected import expected_time, memory_of
from study.review import Doubt, doubts

KINDS = ("shift", "drop", "invent", "swap")
SHOWN = 10
CLIPS_PER_ERROR = 4
MAX_TRIES = 200
# A shift is of half to all of an interval's length, and of so much at least: less is an annotator's tolerance.
MIN_SHIFT_SECONDS = 0.7
# A planted error is found where half of a doubted interval, or half of what was changed, is common to both.
COMMON = 0.5


class Planted(NamedTuple):
    """A wrong interval.

    Attributes:
        clip: the index of the clip.
        kind: of `KINDS`.
        changed: column of a label -> [num_frames] bool, the frames that are wrong.
    """

    clip: int
    kind: str
    changed: dict[int, np.ndarray]


def plant(
    rng: np.random.Generator, labels: list[np.ndarray], kinds: list[str], rate: float
) -> tuple[list[np.ndarray], list[Planted]]:
    """Returns labels [num_frames, num_labels] bool of each clip with a wrong interval of each kind, each in another
    clip, and what was planted."""
    wrong, planted = [one.astype(bool) for one in labels], []
    for kind in kinds:
        for _ in range(MAX_TRIES):
            clip, column = int(rng.integers(len(wrong))), int(rng.integers(wrong[0].shape[1]))
            if any(one.clip == clip for one in planted):
                continue
            before = wrong[clip].copy()
            _change(rng, kind, wrong, clip, column, rate)
            changed = wrong[clip] != before
            if changed.any():
                columns = np.flatnonzero(changed.any(axis=0)).tolist()
                planted.append(Planted(clip, kind, {one: changed[:, one] for one in columns}))
                break
    return wrong, planted


def _change(rng: np.random.Generator, kind: str, labels: list[np.ndarray], clip: int, column: int, rate: float) -> None:
    """Makes one interval wrong, or none where that isn't possible."""
    marks = labels[clip]
    bouts = segments(marks[:, column])
    if kind == "invent":
        lengths = [stop - start for one in labels for start, stop in segments(one[:, column])]
        if not lengths:
            return
        length = min(int(rng.choice(lengths)), len(marks) // 2)
        start = int(rng.integers(len(marks) - length + 1))
        margin = int(rate / 2)
        if not marks[max(0, start - margin) : start + length + margin, column].any():
            marks[start : start + length, column] = True
        return
    if not bouts:
        return
    start, stop = bouts[rng.integers(len(bouts))]
    if kind == "drop":
        marks[start:stop, column] = False
    elif kind == "swap":
        others = [one for one in range(marks.shape[1]) if one != column and not marks[start:stop, one].any()]
        if others:
            marks[start:stop, column] = False
            marks[start:stop, others[rng.integers(len(others))]] = True
    else:
        length = stop - start
        by = int(max(rate * MIN_SHIFT_SECONDS, length * rng.uniform(0.5, 1))) * (1 if rng.random() < 0.5 else -1)
        first, last = max(0, start + by), min(len(marks), stop + by)
        if last - first >= max(3, length / 2):
            marks[start:stop, column] = False
            marks[first:last, column] = True


def timeline_tag(labels: Sequence[str]) -> TimelineTag:
    """A trainable control tag with these labels."""
    tags = "".join(f"<Label value={quoteattr(label)}/>" for label in labels)
    config = f"""<View><TimelineLabels name="tl" toName="video" model_trainable="true">{tags}</TimelineLabels>
<Video name="video" value="$video"/></View>"""
    return TimelineTag(LabelInterface(config).get_control("tl"), DEFAULT_THRESHOLD)


def held_out(data: Project, labels: list[np.ndarray], seed: int) -> Evaluation:
    """The product's cross-validation by video."""
    examples = [
        Example(number, one.sequence, truth, frame_rate=one.frame_rate)
        for number, (one, truth) in enumerate(zip(data.examples, labels, strict=True))
    ]
    order = np.random.default_rng(seed).permutation(len(examples))
    folds = [set(order[start::FOLDS].tolist()) for start in range(min(FOLDS, len(order)))]
    cases = Trainer(timeline_tag(data.labels)).held_out(examples, folds)
    return Evaluation("tl", tuple(data.labels), {}, tuple(cases))


def found(doubt: Doubt, planted: list[Planted], labels: tuple[str, ...], rate: float) -> int | None:
    """The index of the planted error that a doubt is about, or None."""
    for number, one in enumerate(planted):
        for part in doubt.parts if one.clip == doubt.task else ():
            changed = one.changed.get(labels.index(part.label))
            if changed is not None:
                start, stop = round(part.start * rate), round(part.stop * rate)
                common = changed[start:stop].sum()
                if common >= COMMON * (stop - start) or common >= COMMON * changed.sum():
                    return number
    return None


def review(folder: Path, seeds: list[int]) -> None:
    """Prints, for a set of clips, what was found of what was planted."""
    data = project(FOOTAGE, 0, folder)
    rate, count = data.examples[0].frame_rate, max(2, len(data.examples) // CLIPS_PER_ERROR)
    kinds = {kind: [0, 0] for kind in KINDS}
    honest, seconds = [], []
    for seed in seeds:
        chosen = [KINDS[(seed * count + number) % len(KINDS)] for number in range(count)]
        labels, planted = plant(np.random.default_rng(seed), [one.labels for one in data.examples], chosen, rate)
        started = time.monotonic()
        shown = doubts(held_out(data, labels, seed))[:SHOWN]
        seconds.append(time.monotonic() - started)
        hits = [found(doubt, planted, tuple(data.labels), rate) for doubt in shown]
        for number, one in enumerate(planted):
            kinds[one.kind][0] += number in hits
            kinds[one.kind][1] += 1
        strong = [doubt.evidence >= MIN_EVIDENCE for doubt in shown]
        honest.append(
            (hits.count(None), sum(hit is None and is_strong for hit, is_strong in zip(hits, strong, strict=True)))
        )
        missed = [one.kind for number, one in enumerate(planted) if number not in hits]
        print(f"  seed {seed}: planted {[one.kind for one in planted]}, not in the first {SHOWN}: {missed}", flush=True)
    of_all, of_strong = np.mean(honest, axis=0)
    print(
        f"{folder.name}: found {sum(hit for hit, _ in kinds.values())} of {sum(all_ for _, all_ in kinds.values())} "
        f"({', '.join(f'{kind} {hit}/{all_}' for kind, (hit, all_) in kinds.items())}); honest ones in the first "
        f"{SHOWN}: {of_all:.1f}, of evidence {MIN_EVIDENCE:g} and more: {of_strong:.1f}; "
        f"{np.mean(seconds):.0f} s a review",
        flush=True,
    )


def expected(folder: Path) -> None:
    """Prints how far the held-out videos' true total times lie from the expected ones, in standard deviations."""
    data = project(FOOTAGE, 0, folder)
    evaluation = held_out(data, [one.labels.astype(bool) for one in data.examples], 0)
    rate = evaluation.cases[0].example.frame_rate
    memories = {
        "independent frames": lambda marks: 0.0,
        "memory of the prediction": lambda marks: memory_of(marks, rate),
        "all frames wrong together": lambda marks: math.inf,
    }
    for name, memory in memories.items():
        errors = []
        for case in evaluation.cases:
            for column in range(len(evaluation.labels)):
                total = expected_time(case.probabilities[:, column], rate, memory(case.predicted[:, column]))
                errors.append(
                    (case.example.labels[:, column].sum() / rate - total.seconds) / max(total.deviation, 1e-9)
                )
        size = np.abs(errors)
        print(
            f"{folder.name}, {name}: root mean square {np.sqrt(np.mean(size**2)):.2f}; "
            f"{np.mean(size < 1):.0%} within one deviation, {np.mean(size < 2):.0%} within two"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(8)))
    parser.add_argument("--expected", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for folder in arguments.folders:
        expected(folder) if arguments.expected else review(folder, arguments.seeds)


if __name__ == "__main__":
    main()
