"""Which annotations teach most: the order of tasks, and questions inside videos.

    python -m benchmarks.teaching order --footage ../footage/robotg1 ../footage/kiosk --scenarios street
    python -m benchmarks.teaching questions …
    python -m benchmarks.teaching report                # the tables of what was run so far, kept in benchmarks/data

Rule and results: benchmarks/teaching.md.
"""

import argparse
import json
import time
from collections.abc import Callable
from itertools import pairwise, product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks.other_tree import new_classifier
from benchmarks.projects import FOOTAGE, project
from benchmarks.videos.footage import DATA
from benchmarks.videos.scenarios import SCENARIOS
from learning.dataset import Example
from learning.metrics import count_frames, macro_f1
from learning.order import comparable, distances, examples, summary, teaching_order
from learning.questions import MAX_SHARE, MAX_SPANS, SPAN_SECONDS, best_spans, chance_of_error, entropy, questions
from utils.neural_nets import MultiLabelLSTM

TESTED = 0.4  # share of real clips that are never annotated
PIECE_SECONDS = 3.0  # real clips are cut into tasks of about this length
DRAWN_SEEDS = 3  # of a scenario's videos; further seeds shuffle and divide them otherwise
GOAL, ENOUGH = 0.8, 0.95  # an F1; a share of the F1 of full annotation
ORDER_STEPS = (1, 2, 3, 5, 7, 10, 14)  # annotations after which a model is trained and orders the rest
Row = dict[str, Any]


class Clip(NamedTuple):
    """A task: [num_frames, dim] features, [num_frames, num_labels] labels in {0, 1}."""

    features: np.ndarray
    labels: np.ndarray
    frame_rate: float


class Set(NamedTuple):
    """The tasks to annotate, and clips that are only tested on."""

    labels: list[str]
    layout: dict[str, int]
    pool: list[Clip]
    unseen: list[Clip]


def load(name: str, seed: int, footage: Path | None, cut: bool) -> Set:
    """A drawn scenario's videos, or real clips of a folder, in an order that follows from the seed."""
    data = project(FOOTAGE if footage else name, seed if footage else seed % DRAWN_SEEDS, footage)
    clips = [Clip(example.ours, example.labels, example.frame_rate) for example in data.examples]
    clips = [clip._replace(features=clip.features[: len(clip.labels)]) for clip in clips]
    random = np.random.default_rng(seed)
    if footage:
        count = max(2, round(TESTED * len(clips)))
        unseen, pool = clips[:count], clips[count:]
        if cut:
            pool = [piece for clip in pool for piece in pieces(clip)]
        pool = [pool[index] for index in random.permutation(len(pool))]
    else:
        clips = [clips[index] for index in random.permutation(len(clips))]
        pool, unseen = clips[: data.num_annotated], clips[data.num_annotated :]
    return Set(list(data.labels), data.examples[0].sequence.layout, pool, unseen)


def pieces(clip: Clip) -> list[Clip]:
    count = max(1, round(len(clip.labels) / (PIECE_SECONDS * clip.frame_rate)))
    ends = np.linspace(0, len(clip.labels), count + 1).astype(int)
    parts = [slice(start, end) for start, end in pairwise(ends)]
    return [Clip(clip.features[part], clip.labels[part], clip.frame_rate) for part in parts]


def trained(data: Set, clips: list[Clip], masks: list[np.ndarray | None] | None = None) -> MultiLabelLSTM:
    model = new_classifier(clips[0].features.shape[1], len(data.labels), data.layout, 0)
    examples = [
        Example(number, clip.features, clip.labels, reviewed=mask, frame_rate=clip.frame_rate)
        for number, (clip, mask) in enumerate(zip(clips, masks or [None] * len(clips), strict=True))
    ]
    model.header["metrics"] = model.fit(examples)
    return model


def score(data: Set, model: MultiLabelLSTM) -> float:
    """Macro-F1 over all frames of the unseen clips and the labels that they show or are said to show."""
    found = [
        model.decisions.labels(model.predict(clip.features, clip.frame_rate), clip.frame_rate) for clip in data.unseen
    ]
    truth = np.concatenate([clip.labels for clip in data.unseen])
    return macro_f1(count_frames(truth, np.concatenate(found)))


# -- the order of tasks


class State(NamedTuple):
    """What an order may look at.

    Attributes:
        scores, uncertainty: [num_left], expected F1 and mean uncertainty of the tasks that are left.
        features, known: [num_left, dim] and [num_annotated, dim].
    """

    scores: np.ndarray
    uncertainty: np.ndarray
    features: np.ndarray
    known: np.ndarray
    random: np.random.Generator


def farthest_first(state: State, weights: np.ndarray, count: int) -> list[int]:
    """Farthest-first traversal (Gonzalez, "Clustering to minimize the maximum intercluster distance", 1985), as of
    core-sets for active learning (Sener, Savarese, ICLR 2018), with weighted distances."""
    nearest = distances(state.features, state.known).min(axis=1)
    found: list[int] = []
    while len(found) < count:
        best = int(np.argmax(weights * nearest))
        found.append(best)
        nearest = np.minimum(nearest, distances(state.features, state.features[[best]])[:, 0])
        nearest[best] = -1
    return found


def of_clusters(state: State, uncertainty: np.ndarray, count: int) -> list[int]:
    """The product's order, with another uncertainty."""
    centres = np.concatenate([state.known, state.features[examples(state.features, state.known)]])
    clusters = distances(state.features, centres).argmin(axis=1)
    return teaching_order(uncertainty, clusters, np.arange(len(centres)) < len(state.known))[:count]


def representative(state: State, weights: np.ndarray | None, count: int) -> list[int]:
    """What resembles many and nothing annotated."""
    return examples(state.features, state.known, count, weights)


Order = Callable[[State, int], list[int]]
ORDERS: dict[str, Order] = {
    "random": lambda s, n: s.random.permutation(len(s.scores))[:n].tolist(),
    "lowest score": lambda s, n: np.argsort(s.scores)[:n].tolist(),
    "most uncertain": lambda s, n: np.argsort(-s.uncertainty)[:n].tolist(),
    "farthest first": lambda s, n: farthest_first(s, np.ones(len(s.scores)), n),
    "farthest first, by score": lambda s, n: farthest_first(s, 1 - s.scores, n),
    "farthest first, by uncertainty": lambda s, n: farthest_first(s, s.uncertainty, n),
    "representative, by score": lambda s, n: representative(s, 1 - s.scores, n),
    "representative, by uncertainty": lambda s, n: representative(s, s.uncertainty, n),
    "representative": lambda s, n: representative(s, None, n),
    "representative, what labels rest on": lambda s, n: representative(s, None, n),
    "Label Studio's stream": lambda s, n: of_clusters(s, -s.scores, n),
    "most uncertain of each cluster": lambda s, n: of_clusters(s, s.uncertainty, n),
}
# What a label's blocks see of a summary's vectors: mean and deviation of each block of the layout.
SEEN = {
    "appearance": ["appearance mean"],
    "appearance, mean subtracted": ["appearance deviation"],
    "change": ["appearance deviation"],
    "place": ["cells mean"],
    "motion": ["motion mean"],
    "motion, mean subtracted": ["motion deviation"],
    "sound": ["sound mean"],
    "motion, change and appearance, mean subtracted": ["appearance deviation", "motion deviation"],
}


def rested_on(model: MultiLabelLSTM, parts: list[list[np.ndarray]], layout: dict[str, int]) -> np.ndarray:
    """Summaries side by side, each vector by how much the labels rest on what it tells."""
    names = [f"{block} {kind}" for block in layout for kind in ("mean", "deviation")]
    share = dict.fromkeys(names, 0.0)
    known = model.label_has_example.numpy()
    for label, learnt in zip(known, model.header["metrics"]["learnt"].values(), strict=True):
        for block, seen in SEEN.items():
            for name in seen:
                if name in share:
                    share[name] += label * learnt.get(block, 0.0) / len(seen)
    total = max(sum(share.values()), 1e-9)
    blocks = [comparable([[video[place]] for video in parts]) for place in range(len(names))]
    return np.concatenate([b * np.sqrt(share[n] / total) for n, b in zip(names, blocks, strict=True)], axis=1)


def order_curve(data: Set, name: str, seed: int, first: MultiLabelLSTM) -> list[tuple[int, float]]:
    """F1 on the unseen clips after each of the steps; the first task is the same for all orders."""
    parts = [summary(clip.features, data.layout) for clip in data.pool]
    features = comparable(parts)
    random = np.random.default_rng([seed, 1])
    chosen, model = [0], first
    curve = [(1, score(data, model))]
    for step in ORDER_STEPS[1:]:
        left = [index for index in range(len(data.pool)) if index not in chosen]
        if step >= len(data.pool):
            break
        if name.endswith("what labels rest on"):
            features = rested_on(model, parts, data.layout)
        probs = [model.predict(data.pool[i].features, data.pool[i].frame_rate) for i in left]
        state = State(
            np.array([model.decisions.expected_f1(part) for part in probs]),
            np.array([chance_of_error(part).mean() for part in probs]),
            features[left],
            features[chosen],
            random,
        )
        chosen += [left[index] for index in ORDERS[name](state, step - len(chosen))]
        model = trained(data, [data.pool[index] for index in chosen])
        curve.append((step, score(data, model)))
    return curve


# -- questions inside videos


class Video(NamedTuple):
    """What a choice of spans may look at.

    Attributes:
        probs: [num_frames, num_labels], 0 or 1 where it was watched.
        watched: [num_frames] bool.
        unknown: [num_labels] bool, labels that nothing that was watched has shown.
        features: [num_frames, dim], all blocks at the same scale.
    """

    probs: np.ndarray
    watched: np.ndarray
    unknown: np.ndarray
    features: np.ndarray
    frame_rate: float
    random: np.random.Generator

    @property
    def budget(self) -> tuple[int, int]:
        """Length and number of the product's spans."""
        length = min(max(1, round(SPAN_SECONDS * self.frame_rate)), len(self.probs))
        return length, min(MAX_SPANS, max(1, int(MAX_SHARE * len(self.probs) / length)))

    @property
    def doubted(self) -> np.ndarray:
        """As `TrainedMode.doubted`."""
        return np.where(self.watched[:, None] | ~self.unknown, self.probs, 0.5)


Spans = list[tuple[int, int]]


def random_spans(video: Video) -> Spans:
    """At random, of frames that weren't watched as far as there are any."""
    length, count = video.budget
    unwatched = np.convolve(~video.watched, np.ones(length), "valid") / length
    starts, found = video.random.permutation(len(unwatched)), []
    for least in (0.99, 0.5, 0.01):
        for start in starts:
            apart = all(abs(start - other) >= length for other, _ in found)
            if len(found) < count and apart and unwatched[start] >= least:
                found.append((int(start), int(start) + length))
    return found


def least_confident(video: Video) -> Spans:
    return best_spans(chance_of_error(video.probs), *video.budget)


def uncertain(video: Video) -> Spans:
    return best_spans(entropy(video.probs), *video.budget)


def different(video: Video) -> Spans:
    """The product's values times the distance in features to what was chosen or watched."""
    length, count = video.budget
    values = np.convolve(entropy(video.doubted), np.ones(length), "valid") / length
    sums = np.concatenate([np.zeros((1, video.features.shape[1])), np.cumsum(video.features, axis=0, dtype=np.float64)])
    means = (sums[length:] - sums[:-length]) / length
    own = [i for i in range(0, len(means), max(1, length // 2)) if video.watched[i : i + length].mean() > 0.5]
    nearest = distances(means, means[own]).min(axis=1) if own else np.ones(len(means))
    found: Spans = []
    while len(found) < count and values.max() > 0:
        start = int(np.argmax(values * nearest))
        found.append((start, start + length))
        values[max(0, start - length + 1) : start + length] = 0
        to_start = distances(means, means[[start]])[:, 0]
        nearest = np.minimum(nearest, to_start) if own or len(found) > 1 else to_start
    return found


CHOICES: dict[str, Callable[[Video], Spans]] = {
    "whole videos": lambda video: [(0, len(video.probs))],
    "random spans": random_spans,
    "least confident spans": least_confident,
    "spans of highest entropy": uncertain,
    "and unknown labels": lambda video: questions(video.doubted, video.frame_rate),
    "and different": different,
}


def scaled(data: Set) -> list[np.ndarray]:
    """Each clip's features, every block at the same scale."""
    parts, start = [], 0
    for name, width in data.layout.items():
        values = [clip.features[:, start : start + width] for clip in data.pool]
        start += width
        if name in ("appearance", "motion"):
            values = [np.copysign(np.sqrt(np.abs(part)), part) for part in values]
        mean = np.concatenate(values).mean(axis=0)
        values = [part - mean for part in values]
        size = np.sqrt(np.mean([(part**2).sum(axis=1).mean() for part in values]))
        if size > 1e-6:
            parts.append([part / size for part in values])
    return [np.concatenate(blocks, axis=1) for blocks in zip(*parts, strict=True)]


def question_curve(data: Set, name: str, seed: int, first: MultiLabelLSTM, visits: int) -> list[tuple[int, float]]:
    """(frames watched, F1 on the unseen clips) after each visit. The first clip is watched whole by all; then the clips
    are visited in turn, again and again, and spans of each are watched."""
    features, random, model = scaled(data), np.random.default_rng([seed, 2]), first
    watched = [np.zeros(len(clip.labels), bool) for clip in data.pool]
    watched[0][:] = True
    curve = [(int(watched[0].sum()), score(data, model))]
    number = 0
    for visit in range(1, visits + 1):
        number = visit % len(data.pool)
        if watched[number].all():
            continue
        clip, mine = data.pool[number], watched[number]
        probs = model.predict(clip.features, clip.frame_rate)
        probs = np.where(mine[:, None], clip.labels, probs).astype(np.float32)
        unknown = ~model.label_has_example.numpy()
        video = Video(probs, mine, unknown, features[number], clip.frame_rate, random)
        for start, end in CHOICES[name](video):
            mine[start:end] = True
        looked = [(clip, seen) for clip, seen in zip(data.pool, watched, strict=True) if seen.any()]
        model = trained(data, *map(list, zip(*looked, strict=True)))
        curve.append((int(sum(seen.sum() for seen in watched)), score(data, model)))
    return curve


def long_curve(data: Set, name: str, seed: int, first: MultiLabelLSTM) -> list[tuple[int, float]]:
    """The same where all clips are one long recording, of which as many spans are watched at a time as of a video,
    until half of it was. The model knows where its clips end."""
    features, random, model = np.concatenate(scaled(data)), np.random.default_rng([seed, 3]), first
    labels = np.concatenate([clip.labels for clip in data.pool])
    ends = np.cumsum([len(clip.labels) for clip in data.pool])
    watched = np.arange(len(labels)) < ends[0]
    curve = [(int(watched.sum()), score(data, model))]
    while watched.mean() < 0.5:
        probs = np.concatenate([model.predict(clip.features, clip.frame_rate) for clip in data.pool])
        probs = np.where(watched[:, None], labels, probs).astype(np.float32)
        unknown = ~model.label_has_example.numpy()
        spans = CHOICES[name](Video(probs, watched, unknown, features, data.pool[0].frame_rate, random))
        if name == "whole videos":
            spans = [(0, int(ends[ends > watched.sum()][0]))]
        if not spans:
            break
        for start, end in spans:
            watched[start:end] = True
        masks = np.split(watched, ends[:-1])
        looked = [(clip, mask) for clip, mask in zip(data.pool, masks, strict=True) if mask.any()]
        model = trained(data, *map(list, zip(*looked, strict=True)))
        curve.append((int(watched.sum()), score(data, model)))
    return curve


# -- tables


def report(what: str, ways: dict[str, Any]) -> str:
    """A table of what was kept: a row for each way, a cell for each set, of the splits on which all ways were run."""
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for path in sorted((DATA / "teaching").glob(f"{what}-*.json")):
        _, name, seed, way = path.stem.split("-", 3)
        if way in ways:
            found.setdefault(name, {}).setdefault(int(seed), {})[way] = json.loads(path.read_text())
    cells: dict[str, list[str]] = {way: [] for way in ways}
    heads = []
    for name, splits in found.items():
        complete = [split for split in splits.values() if split.keys() >= ways.keys()]
        if len(complete) < 2:
            continue
        heads.append(f"{name} ({len(complete)})")
        for way in ways:
            one = order_cell if what == "order" else question_cell
            cells[way].append(one(complete, way))
    rows = [f"| {way} | " + " | ".join(row) + " |" for way, row in cells.items()]
    return "\n".join([f"| | {' | '.join(heads)} |", "|" + " --- |" * (len(heads) + 1), *rows])


def order_cell(splits: list[dict[str, Any]], way: str) -> str:
    """Mean F1 after 2 annotations and more less that of random order, and the annotations to an F1 of 0.8."""
    gains, counts = [], []
    for split in splits:
        own, other = (np.array(split[one]["curve"])[1:, 1].mean() for one in (way, "random"))
        gains.append(own - other)
        counts.append(next((step for step, f1 in split[way]["curve"] if f1 >= GOAL), np.inf))
    reached = f"{np.median(counts):.0f}" if np.isfinite(np.median(counts)) else "not"
    return f"{spread(gains)}; {reached}"


def question_cell(splits: list[dict[str, Any]], way: str) -> str:
    """Mean F1 over the frames watched less that of random spans, and the share of frames watched until 95 % of the F1
    of full annotation."""
    gains, shares = [], []
    for split in splits:
        end = min(split[one]["curve"][-1][0] for one in split if one != "whole videos")
        start = split[way]["curve"][0][0]
        frames = np.linspace(start, max(end, start + 1), 200)
        own, other = (
            np.interp(frames, *zip(*split[one]["curve"], strict=True)).mean() for one in (way, "random spans")
        )
        gains.append(own - other)
        goal = ENOUGH * split[way]["full"]
        reached = next((at for at, f1 in split[way]["curve"] if f1 >= goal), split[way]["frames"])
        shares.append(reached / split[way]["frames"])
    return f"{spread(gains)}; {np.mean(shares):.2f}"


def spread(values: list[float]) -> str:
    """Mean and standard error."""
    return f"{np.mean(values):+.3f} ± {np.std(values, ddof=1) / len(values) ** 0.5:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("order", "questions", "long", "report"))
    parser.add_argument("--footage", type=Path, nargs="*", default=[], help="folders of real clips")
    parser.add_argument("--scenarios", nargs="*", choices=SCENARIOS, default=[])
    parser.add_argument("--seeds", nargs="+", type=int, default=(0, 1, 2))
    parser.add_argument("--ways", nargs="+")
    arguments = parser.parse_args()
    if arguments.what == "report":
        print(report("order", ORDERS), report("questions", CHOICES), report("long", CHOICES), sep="\n\n")
        return
    torch.set_num_threads(1)
    sets = [(folder.name, folder) for folder in arguments.footage] + [(name, None) for name in arguments.scenarios]
    ways = arguments.ways or (ORDERS if arguments.what == "order" else CHOICES)
    for seed, (name, folder) in product(arguments.seeds, sets):
        data, first = None, None
        for way in ways:
            kept = DATA / "teaching" / f"{arguments.what}-{name}-{seed}-{way}.json"
            if kept.exists():
                continue
            started = time.monotonic()
            data = data or load(name, seed, folder, cut=arguments.what == "order")
            first = first or trained(data, data.pool[:1])
            if arguments.what == "order":
                found = {"curve": order_curve(data, way, seed, first)}
            else:
                visits = min(2 * len(data.pool), 16)
                long = arguments.what == "long"
                curve = long_curve(data, way, seed, first) if long else question_curve(data, way, seed, first, visits)
                found = {"curve": curve}
                found["frames"] = sum(len(clip.labels) for clip in data.pool)
                full = DATA / "teaching" / f"full-{name}-{seed}.json"
                if not full.exists():
                    full.write_text(json.dumps(score(data, trained(data, data.pool))))
                found["full"] = json.loads(full.read_text())
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps(found))
            seconds = time.monotonic() - started
            print(name, seed, way, [(at, round(f1, 3)) for at, f1 in found["curve"]], f"{seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
