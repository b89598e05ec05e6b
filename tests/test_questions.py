"""What is asked inside a video: spans that are uncertain, apart from each other, and not answered yet."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from learning.questions import MAX_SPANS, SPAN_SECONDS, best_spans, chance_of_error, entropy, questions

RATE = 10.0
LENGTH = round(SPAN_SECONDS * RATE)


def sure(num_frames: int, num_labels: int = 2) -> np.ndarray:
    """Probabilities of 0 and 1, as of annotated frames."""
    return np.tile(np.arange(num_labels) % 2, (num_frames, 1)).astype(np.float32)


def test_a_frame_is_as_uncertain_as_its_labels_together() -> None:
    probs = np.array([[0, 1], [0.5, 1], [0.5, 0.5], [0.25, 1]])
    np.testing.assert_allclose(entropy(probs), [0, 1, 2, 2 - 0.75 * np.log2(3)], atol=1e-9)
    np.testing.assert_allclose(chance_of_error(probs), [0, 0.5, 0.75, 0.25], atol=1e-12)


def test_the_most_uncertain_spans_are_asked_about() -> None:
    probs = sure(400)
    probs[100:130, 0] = 0.4
    probs[300:330, 1] = 0.7
    asked = np.zeros(400, bool)
    for start, end in questions(probs, RATE):
        assert end - start == LENGTH
        asked[start:end] = True
    assert asked[100:130].mean() > 0.6
    assert asked[300:330].mean() > 0.6
    assert not asked[:80].any()
    assert not asked[150:280].any()


def test_a_boundary_lies_within_its_span() -> None:
    """Where a label begins, some frames are uncertain; what comes before and after them is asked about too."""
    probs = sure(300, 1)
    probs[147:153, 0] = probs[217:223, 0] = 0.5
    spans = questions(probs, RATE)
    assert [(start + end) / 2 for start, end in spans] == pytest.approx([150, 220], abs=1)


def test_a_video_that_is_all_alike_is_asked_about_all_over() -> None:
    spans = questions(np.full((1000, 1), 0.5), RATE)
    middles = [0, *((start + end) / 2 for start, end in spans), 1000]
    assert max(after - before for before, after in pairwise(middles)) < 300


def test_spans_are_few_and_do_not_overlap() -> None:
    spans = questions(np.full((1000, 1), 0.5), RATE)
    assert len(spans) == MAX_SPANS
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))
    assert [len(questions(np.full((count, 1), 0.5), RATE)) for count in (3 * LENGTH, 5 * LENGTH)] == [1, 2]


def test_what_is_certain_or_annotated_is_not_asked() -> None:
    assert questions(sure(400), RATE) == []
    assert questions(np.full((400, 2), 0.001), RATE) == []
    probs = np.full((400, 1), 0.5)
    probs[:200] = 1  # as drawn
    assert min(start for start, _ in questions(probs, RATE)) >= 200 - LENGTH // 2


@pytest.mark.parametrize("num_frames", [0, 1, LENGTH - 1])
def test_a_video_shorter_than_a_span_is_asked_about_as_a_whole(num_frames: int) -> None:
    assert questions(np.full((num_frames, 1), 0.5), RATE) == [(0, num_frames)] * (num_frames > 0)


def test_the_best_of_the_spans_that_are_left() -> None:
    values = np.array([0, 1, 1, 0, 0, 3, 0, 2, 2], float)
    assert best_spans(values, 2, 2) == [(7, 9), (4, 6)]
    assert best_spans(values, 2, 9) == [(7, 9), (4, 6), (1, 3)]
