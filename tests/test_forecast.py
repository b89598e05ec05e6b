"""What learning curves and lead times allow to say, and when nothing can be said."""

from __future__ import annotations

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
            "An F1 of 0.8 asks for about 5 more videos (5 to 5), if the curve goes on as it has.",
        ),
        (np.full(12, 0.4), "An F1 of 0.8 isn't in sight"),
        (np.full(12, 0.97), "Its F1 is 0.97: more videos would bring little."),
    ],
)
def test_the_outlook_in_words(scores: np.ndarray, sentence: str) -> None:
    assert sentence in outlook(trainings(scores), "tl")


def effort(seconds: float | None, from_prediction: bool, **counts: dict[str, int]) -> tuple[float | None, dict]:
    return seconds, {"from_prediction": from_prediction, "kept": {}, "changed": {}, "drawn": {}, "removed": {}} | counts


def test_what_is_saved() -> None:
    drawn = [effort(seconds, False, drawn={"A": 4}) for seconds in (180, 200, 7200)]  # one went to lunch
    corrected = [effort(seconds, True, kept={"A": 3}, changed={"B": 1}) for seconds in (40, 50, 60)]
    corrected.append(effort(50, True, kept={"B": 1}, removed={"A": 1, "Check": 3}, drawn={"B": 1, "Reviewed": 1}))
    # Only a question was answered.
    asked = effort(5, True, kept={"A": 2, "Check": 2}, changed={"Reviewed": 1})
    found = saved([*drawn, *corrected, asked, (None, None)], ["A", "B"])
    assert found.headline.startswith("An hour of corrections does the work of 4.0 hours of drawing (")
    assert found.details == [
        "Drawn by hand, a video took 3.3 min (median of 3); with events of a prediction, 50 s (of 4).",
        "In all, corrections saved about 10.0 min.",
        "Of 16 predicted events, 12 were kept as predicted, 3 changed and 1 removed; 1 was added by hand.",
    ]


def test_what_is_missing_is_said() -> None:
    found = saved([effort(180, False), effort(190, False), effort(None, True, kept={"A": 1})], ["A"])
    assert found.headline == (
        "What predictions save can't be said yet: it takes 1 more video drawn by hand and 3 more videos with events "
        "of a prediction."
    )
    assert found.details == [
        "Of 1 predicted event, 1 was kept as predicted, 0 changed and 0 removed; 0 were added by hand."
    ]
