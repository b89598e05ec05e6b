"""Who learns in the few-shot benchmark: ours, what came before it, and three baselines.

A learner is made for one project and seed; `annotate(count)` trains on its first `count` videos, and
`probabilities(example)` predicts one. `rules` are the ways to turn probabilities into labels that are scored.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
import torch

from benchmarks.other_tree import new_classifier
from benchmarks.projects import Example, Project
from benchmarks.published_recipe import PublishedRecipe
from benchmarks.window_head import WindowHead

OTHER_TREE = Path(__file__).parent / "other_tree.py"


Rule = Callable[[np.ndarray], np.ndarray]


def from_(threshold: np.ndarray | float) -> Rule:
    """Labels from a probability on."""
    return lambda probs: probs >= threshold


class Learner(Protocol):
    """The interface.

    Attributes:
        features: the attribute of the examples that it reads.
        counts: the annotations after which it is to train, in order.
        rules: after a training, name of the version -> what takes probabilities [num_frames, num_labels] to labels.
    """

    features: ClassVar[str]
    counts: list[int]
    rules: dict[str, Rule]

    def annotate(self, count: int) -> None: ...
    def probabilities(self, example: Example) -> np.ndarray: ...


class Ours:
    """The product's way: a new classifier, trained on all annotations."""

    features = "ours"

    def __init__(self, project: Project, seed: int) -> None:
        self.project, self.seed, self.counts = project, seed, list(project.steps)

    def annotate(self, count: int) -> None:
        annotated = self.project.examples[:count]
        rows = annotated[0].sequence
        self.model = new_classifier(rows.shape[1], len(self.project.labels), rows.layout, self.seed)
        self.model.fit([example.annotated(number) for number, example in enumerate(annotated)])
        self.rules = {"ours": partial(self.model.decisions.labels, frame_rate=annotated[0].frame_rate)}

    def probabilities(self, example: Example) -> np.ndarray:
        return self.model.predict(example.ours, example.frame_rate)


class Published:
    """The published network on the last annotation only; its weights go on from annotation to annotation."""

    features = "square"
    rules: ClassVar = {"published, last": from_(0.5)}

    def __init__(self, project: Project, seed: int) -> None:
        torch.manual_seed(seed)
        self.project, self.counts = project, list(range(1, max(project.steps) + 1))
        self.model = PublishedRecipe(project.examples[0].square.shape[1], len(project.labels))

    def annotate(self, count: int) -> None:
        self._fit(self.project.examples[count - 1 : count])

    def probabilities(self, example: Example) -> np.ndarray:
        return self.model.predict(example.square)

    def _fit(self, annotated: list[Example]) -> None:
        self.model.fit([example.square for example in annotated], [example.labels for example in annotated])


class PublishedOnAll(Published):
    """The published network, a new one on all annotations so far."""

    rules: ClassVar = {"published, all": from_(0.5)}

    def __init__(self, project: Project, seed: int) -> None:
        super().__init__(project, seed)
        self.seed, self.counts = seed, list(project.steps)

    def annotate(self, count: int) -> None:
        torch.manual_seed(self.seed)
        self.model = PublishedRecipe(self.project.examples[0].square.shape[1], len(self.project.labels))
        self._fit(self.project.examples[:count])


class Window:
    """The window head on appearance and motion; thresholds of a half, or those that suit its training videos best."""

    features = "whole"

    def __init__(self, project: Project, seed: int) -> None:
        self.project, self.seed, self.counts = project, seed, list(project.steps)

    def annotate(self, count: int) -> None:
        annotated = self.project.examples[:count]
        self.model = WindowHead(annotated[0].whole.shape[1], len(self.project.labels), self.seed)
        self.model.fit([example.whole for example in annotated], [example.labels for example in annotated])
        self.rules = {"window head": from_(0.5), "window head, tuned": from_(self.model.thresholds)}

    def probabilities(self, example: Example) -> np.ndarray:
        return self.model.predict(example.whole)


class Before:
    """The classifier of an earlier commit, in a process of its own, on what it read: appearance and motion."""

    features = "whole"
    rules: ClassVar = {"before": from_(0.5)}

    def __init__(self, project: Project, seed: int, tree: Path) -> None:
        self.project, self.counts = project, list(project.steps)
        with tempfile.TemporaryDirectory() as folder:
            data, predictions = Path(folder) / "data.npz", Path(folder) / "predictions.npz"
            save_examples(data, [(example.whole, example.labels) for example in project.examples])
            command = [
                sys.executable,
                OTHER_TREE,
                "predict",
                data,
                predictions,
                "--seed",
                seed,
                "--layout",
                json.dumps(project.examples[0].whole_layout),
                "--counts",
                *self.counts,
            ]
            run_in(tree, command)
            with np.load(predictions) as stored:
                self._predictions = dict(stored)

    def annotate(self, count: int) -> None:
        self._count = count

    def probabilities(self, example: Example) -> np.ndarray:
        number = next(number for number, other in enumerate(self.project.examples) if other is example)
        return self._predictions[f"{self._count}-{number}"]


LEARNERS = {
    "ours": Ours,
    "published-last": Published,
    "published-all": PublishedOnAll,
    "window-head": Window,
    "before": Before,
}


def save_examples(path: Path, examples: list[tuple[np.ndarray, np.ndarray]]) -> None:
    """Features and labels as `other_tree.py` reads them."""
    arrays = {f"features-{number}": features for number, (features, _) in enumerate(examples)}
    np.savez(path, **arrays, **{f"labels-{number}": labels for number, (_, labels) in enumerate(examples)})


def run_in(tree: Path, command: list[object]) -> str:
    """Run a command with the modules of a tree of this project; returns what it prints."""
    environment = os.environ | {"PYTHONPATH": str(tree.resolve())}
    return subprocess.run(list(map(str, command)), check=True, env=environment, capture_output=True, text=True).stdout
