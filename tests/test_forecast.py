"""What learning curves and lead times allow to say, and when nothing can be said."""

from __future__ import annotations

import re

import numpy as np
import pytest

from learning.forecast import MIN_TESTS, videos_for
from ml_backend.dashboard.curves import outlook
from ml_backend.dashboard.saved import saved
from ml_backend.store.tables import Training


def curve(counts: np.ndarray) -> np.ndarray:
    """F1 0.8 at 16 videos, 0.9 at 64."""
    return 1 - 0.8 / np.sqrt(counts)


def test_a_curve_without_noise_is_continued() -> None:
    counts = np.arange(1, 11)
    found = videos_for(0.8, counts, curve(counts))
    assert (found.low, found.videos, found.high) == pytest.approx((16, 16, 16), rel=0.05)


def test_the_interval_holds_the_truth() -> None:
    random, counts, tries, held = np.random.default_rng(0), np.arange(1, 13), 100, 0
    for _ in range(tries):
        found = videos_for(0.8, counts, np.clip(curve(counts) + random.normal(0, 0.15, len(counts)), 0, 1))
        held += found.low <= 16 <= found.high
    assert held / tries >= 0.9


def test_too_few_or_equal_tests_say_nothing() -> None:
    assert videos_for(0.8, range(1, MIN_TESTS), [0.5] * (MIN_TESTS - 1)) is None
    assert videos_for(0.8, [3] * MIN_TESTS, [0.5] * MIN_TESTS) is None


def trainings(scores: np.ndarray) -> list[Training]:
    """A first training, and one after each test."""

    def metrics(f1: float) -> dict:
        return {"tl": {"prequential": {"videos": 1, "frames": {"macro_f1": f1}}}}

    tested = [Training(annotated_tasks=count, metrics=metrics(f1)) for count, f1 in enumerate(scores, start=2)]
    return [Training(annotated_tasks=1, metrics={"tl": {"prequential": None}}), *tested]


@pytest.mark.parametrize(
    ("scores", "sentence"),
    [
        (curve(np.arange(1, 4)), "can't be said yet: that takes 3 more tests."),
        (
            curve(np.arange(1, 11)),
            "An F1 of 0.8 needs about 5 more videos (5 to 5), if the curve goes on as it has.",
        ),
        (np.full(12, 0.4), "An F1 of 0.8 isn't in sight"),
        (np.full(12, 0.97), "Its F1 is 0.97: more videos would bring little."),
    ],
)
def test_the_outlook_in_words(scores: np.ndarray, sentence: str) -> None:
    assert sentence in outlook(trainings(scores), "tl")


def effort(seconds: float | None, from_prediction: bool, **counts: dict[str, int]) -> tuple[float | None, dict]:
    return seconds, {"from_prediction": from_prediction, "kept": {}, "changed": {}, "drawn": {}, "removed": {}} | counts


def project(count: int, seed: int = 0) -> list[tuple[float | None, dict]]:
    """Annotations of six events: 60 s for watching, 20 s for each that is drawn, all but every third from a prediction.
    So an hour of corrections, each with one drawn event, does the work of (60 + 6 · 20) / (60 + 20) = 2.25 hours."""
    random, made = np.random.default_rng(seed), []
    for number in range(count):
        if number % 3 == 0:
            drawn, counts = 6, effort(None, False, drawn={"A": 6})[1]
        else:
            drawn, counts = 1, effort(None, True, kept={"A": 3}, changed={"B": 2}, drawn={"B": 1, "Reviewed": 1})[1]
        made.append(((60 + 20 * drawn) * random.lognormal(0, 0.1), counts))
    return made


def test_what_is_saved() -> None:
    efforts = project(30)
    efforts[3] = (7200.0, efforts[3][1])  # away for lunch
    # Only a question was answered; and an import has no marks.
    efforts += [effort(5, True, kept={"A": 2, "Check": 2}, changed={"Reviewed": 1}), (None, None)]
    found = saved(efforts, ["A", "B"])
    ratio, low, high = map(
        float, re.fullmatch(r"An hour .* of (.*) hours of drawing \((.*) to (.*)\)\.", found.headline).groups()
    )
    assert low <= 2.25 <= high
    assert ratio == pytest.approx(2.25, rel=0.1)
    assert found.details[0].endswith("drawn by hand (of 30 videos).")
    assert found.details[2] == (
        "Of 102 predicted events, 62 were kept as predicted, 40 changed and 0 removed; 20 were added by hand."
    )


def test_what_is_missing_is_said() -> None:
    found = saved(project(4), ["A", "B"])
    assert "it takes 2 more videos that are annotated as a whole on Label Studio's page." in found.headline
    assert len(found.details) == 1
    alike = saved([effort(60, True, kept={"A": 2})] * 9, ["A"])
    assert "both videos of which many" in alike.headline


def test_the_saving_holds_the_truth_about_as_often_as_it_says() -> None:
    held = 0
    for seed in range(100):
        low, high = map(float, re.search(r"\((.*) to (.*)\)", saved(project(15, seed), ["A", "B"]).headline).groups())
        held += low <= 2.25 <= high
    assert held >= 85
