"""The learning curve: the F1 on each new video before the model learnt from it, over the number of annotated videos."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ml_backend.dashboard.charts import Series
from ml_backend.store.tables import Training

# A single video says little: a point of the curve is the mean of so many tests.
WINDOW = 5
# Smaller changes of F1 are noise.
TREND = 0.03
# Fewer tests show no trend.
MIN_TESTS_FOR_TREND = 4
# Student's t for a 95 % interval of the mean of 2, 3 … WINDOW values, for which the normal distribution's is too small.
T_95 = (12.706, 4.303, 3.182, 2.776)


class Lesson(NamedTuple):
    """The learning curve of one label.

    Attributes:
        label: the label.
        series: its curve.
        sentence: the last score and the trend in words.
    """

    label: str
    series: Series
    sentence: str


def learning_curve(trainings: Sequence[Training], control: str, colours: dict[str, str]) -> list[Lesson]:
    """The curve of each label of a control tag.

    A point is the mean of the last WINDOW tests, with its 95 % interval by Student's t. A test is a prediction of new
    videos before a training (prequential evaluation). A test in which the label neither occurred nor was predicted is
    left out.

    Args:
        trainings: the project's, oldest first.
        control: the tag's name.
        colours: label -> CSS colour.
    """
    tests: dict[str, list[tuple[int, float]]] = {label: [] for label in colours}
    events = dict.fromkeys(colours, 0)
    for training in trainings:
        metrics = (training.metrics or {}).get(control) or {}
        for label, score in _per_label(metrics, "prequential", "frames").items():
            if label in tests and (score["support"] or score["f1"] < 1):
                tests[label].append((training.annotated_tasks, score["f1"]))
        for label, score in _per_label(metrics, "score", "segments").items():
            if label in events:
                events[label] = score["support"]
    return [_lesson(label, colour, tests[label], events[label]) for label, colour in colours.items()]


def _per_label(metrics: dict[str, Any], test: str, kind: str) -> dict[str, dict[str, float]]:
    return ((metrics.get(test) or {}).get(kind) or {}).get("per_label", {})


def _lesson(label: str, colour: str, tests: list[tuple[int, float]], events: int) -> Lesson:
    means, low, high = [], [], []
    for index in range(len(tests)):
        window = np.array([f1 for _, f1 in tests[max(0, index - WINDOW + 1) : index + 1]])
        error = T_95[len(window) - 2] * window.std(ddof=1) / np.sqrt(len(window)) if len(window) > 1 else 1.0
        means.append(float(window.mean()))
        low.append(max(0.0, means[-1] - error))
        high.append(min(1.0, means[-1] + error))
    series = Series(label, colour, [annotations for annotations, _ in tests], means, low, high)
    return Lesson(label, series, f"{label}: {_words(means)}; {events} annotated event{'s' * (events != 1)}.")


def _words(means: list[float]) -> str:
    if not means:
        return "not tested yet (the first test is on the second annotated video)"
    if len(means) < MIN_TESTS_FOR_TREND:
        return f"{means[-1]:.2f}, too few tests for a trend"
    change = means[-1] - means[max(0, len(means) - 1 - WINDOW)]
    trend = "still rising" if change > TREND else "falling" if change < -TREND else "level"
    return f"{means[-1]:.2f}, {trend}"
