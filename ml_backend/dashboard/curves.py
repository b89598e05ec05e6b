"""The learning curve: the F1 on each new video before the model learnt from it, over the number of annotated videos."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from learning.forecast import MIN_TESTS, videos_for
from ml_backend.dashboard.charts import Series
from ml_backend.store.tables import Training
from words import counted

# A single video says little: a point of the curve is the mean of so many tests.
WINDOW = 5
# Smaller changes of F1 are noise.
TREND = 0.03
# Fewer tests show no trend.
MIN_TESTS_FOR_TREND = 4
# A project that has reached the last of them needs no more videos for its F1.
GOALS = (0.8, 0.9, 0.95)
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
    events: dict[str, int | None] = dict.fromkeys(colours)  # None before the first training
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


def _lesson(label: str, colour: str, tests: list[tuple[int, float]], events: int | None) -> Lesson:
    means, low, high = [], [], []
    for index in range(len(tests)):
        window = np.array([f1 for _, f1 in tests[max(0, index - WINDOW + 1) : index + 1]])
        error = T_95[len(window) - 2] * window.std(ddof=1) / np.sqrt(len(window)) if len(window) > 1 else 1.0
        means.append(float(window.mean()))
        low.append(max(0.0, means[-1] - error))
        high.append(min(1.0, means[-1] + error))
    series = Series(label, colour, [annotations for annotations, _ in tests], means, low, high)
    learnt = "" if events is None else f"; {counted(events, 'annotated event')}"
    return Lesson(label, series, f"{label}: {_words(means)}{learnt}.")


def _words(means: list[float]) -> str:
    if not means:
        return "not tested yet (a test is what is annotated after a training)"
    if len(means) < MIN_TESTS_FOR_TREND:
        return f"{means[-1]:.2f}, too few tests for a trend"
    change = means[-1] - means[max(0, len(means) - 1 - WINDOW)]
    trend = "still rising" if change > TREND else "falling" if change < -TREND else "level"
    return f"{means[-1]:.2f}, {trend}"


# An open page is drawn again and again, and a curve changes with a training only.
_videos_for = lru_cache(maxsize=64)(videos_for)


def outlook(trainings: Sequence[Training], control: str) -> str:
    """How many more annotated videos the next goal asks for, in a sentence (`learning.forecast`).

    Args:
        trainings: the project's, oldest first.
        control: the tag's name.
    """
    tests: list[tuple[int, float]] = []
    for training in trainings:
        test = ((training.metrics or {}).get(control) or {}).get("prequential") or {}
        f1 = (test.get("frames") or {}).get("macro_f1")
        if f1 is not None:
            tests.append((max(1, training.annotated_tasks - test.get("videos", 1)), f1))
    if len(tests) < MIN_TESTS:
        missing = MIN_TESTS - len(tests)
        return f"How many more videos it needs can't be said yet: that takes {counted(missing, 'more test')}."
    reached = float(np.mean([f1 for _, f1 in tests[-WINDOW:]]))
    goal = next((goal for goal in GOALS if reached < goal), None)
    if goal is None:
        return f"Its F1 is {reached:.2f}: more videos would bring little."
    found = _videos_for(goal, *zip(*tests, strict=True))
    if found is None:
        return (
            "How many more videos it needs can't be said yet: all tests are of models that learnt the same number of "
            "videos."
        )
    present = max(training.annotated_tasks for training in trainings)
    low, likely, high = (
        max(1, round(value - present)) if np.isfinite(value) else None
        for value in (found.low, found.videos, found.high)
    )
    if low is None:
        return f"An F1 of {goal:g} isn't in sight: the curve hardly rises from test to test."
    least = counted(low, "more video")
    if likely is None:
        return f"An F1 of {goal:g} needs at least {least}; the tests differ too much to say more."
    about = f"An F1 of {goal:g} needs about {counted(likely, 'more video')}"
    bounds = f"at least {low}" if high is None else f"{low} to {high}"
    return f"{about} ({bounds}), if the curve goes on as it has."
