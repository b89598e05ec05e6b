"""The learning curve and its uncertainty."""

from __future__ import annotations

import re

import numpy as np
import pytest
from scipy import stats

from ml_backend.dashboard.curves import WINDOW, learning_curve
from ml_backend.dashboard.quality import quality
from ml_backend.store.tables import Training


def trainings(scores: list[float]) -> list[Training]:
    """One training a score of the test before it."""

    def metrics(f1: float) -> dict:
        return {"tl": {"prequential": {"frames": {"per_label": {"A": {"f1": f1, "support": 9}}}}}}

    return [Training(annotated_tasks=number, metrics=metrics(f1)) for number, f1 in enumerate(scores, start=2)]


@pytest.mark.parametrize("count", range(2, WINDOW + 1))
def test_the_band_is_students_interval_of_the_mean(count: int) -> None:
    scores = np.linspace(0.5, 0.501, count)
    (lesson,) = learning_curve(trainings(list(scores)), "tl", {"A": "red"})
    expected = stats.t.interval(0.95, count - 1, loc=scores.mean(), scale=stats.sem(scores))
    assert (lesson.series.low[-1], lesson.series.high[-1]) == pytest.approx(expected, abs=1e-5)


def test_the_band_covers_as_often_as_it_says() -> None:
    """95 % of the bands of five tests hold the true mean; by the normal distribution 88 % did."""
    random, covered, tries = np.random.default_rng(0), 0, 2000
    for _ in range(tries):
        (lesson,) = learning_curve(trainings(list(random.normal(0.5, 0.05, WINDOW))), "tl", {"A": "red"})
        covered += lesson.series.low[-1] <= 0.5 <= lesson.series.high[-1]
    assert 0.935 < covered / tries < 0.965


def test_a_single_test_says_next_to_nothing() -> None:
    (lesson,) = learning_curve(trainings([0.9]), "tl", {"A": "red"})
    assert (lesson.series.low, lesson.series.high) == ([0.0], [1.0])


def test_before_the_first_training_ends_nothing_is_said_of_events() -> None:
    """It was "0 annotated events" while the training on three of them ran."""
    (lesson,) = learning_curve([Training(annotated_tasks=1, metrics=None)], "tl", {"A": "red"})
    assert lesson.sentence == "A: not tested yet (a test is what is annotated after a training)."


def test_tests_of_one_video_stand_side_by_side() -> None:
    """More and more of a long video is reviewed: each time is a test, and the number of videos stays one."""
    of_one = trainings([0.2, 0.4, 0.6])
    for training in of_one:
        training.annotated_tasks = 1
    chart = quality(of_one, "tl", {"A": "red"}, has_timeline=True).chart
    assert ">tests<" in chart
    (line,) = re.findall(r'<polyline[^>]*points="([^"]*)"', chart)
    assert len({point.split(",")[0] for point in line.split()}) == 3
    assert ">annotated videos<" in quality(trainings([0.2, 0.4, 0.6]), "tl", {"A": "red"}, has_timeline=True).chart
