"""Scores computed by hand, and compared with scikit-learn and with a matching by linear assignment."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.optimize import linear_sum_assignment
from sklearn.calibration import calibration_curve
from sklearn.metrics import f1_score, precision_recall_fscore_support

from learning.events import segments
from learning.metrics import count_frames, count_segments, reliability_curve, summary


def mask(*spans, num_frames=100):
    """One label's column [num_frames, 1]: on in the half-open spans."""
    column = np.zeros((num_frames, 1), dtype=bool)
    for start, end in spans:
        column[start:end] = True
    return column


def frame_metrics(truth, predicted, label_names):
    return summary(count_frames(truth, predicted), label_names)


def segment_metrics(truth, predicted, label_names, iou=0.5):
    return summary(count_segments(truth, predicted, iou), label_names)


label_pairs = st.integers(1, 40).flatmap(
    lambda num_frames: st.tuples(*[hnp.arrays(bool, (num_frames, 3)) for _ in ("truth", "predicted")])
)


# Frames


def test_frame_metrics_by_hand():
    truth = [[1, 0], [1, 0], [1, 1], [1, 0], [0, 0]]
    predicted = [[1, 1], [1, 0], [0, 1], [0, 0], [1, 0]]
    # "in": 2 hits, 1 false alarm, 2 misses; "hit": 1 hit, 1 false alarm, no miss.
    metrics = frame_metrics(truth, predicted, ["in", "hit"])
    assert metrics["per_label"]["in"] == pytest.approx({"precision": 2 / 3, "recall": 1 / 2, "f1": 4 / 7, "support": 4})
    assert metrics["per_label"]["hit"] == pytest.approx({"precision": 1 / 2, "recall": 1, "f1": 2 / 3, "support": 1})
    assert metrics["macro_f1"] == pytest.approx((4 / 7 + 2 / 3) / 2)


def test_ratios_without_items_are_defined():
    truth = [[1, 0, 0], [1, 0, 0]]
    predicted = [[0, 1, 0], [0, 0, 0]]
    metrics = frame_metrics(truth, predicted, ["missed", "false alarm", "absent"])
    assert metrics["per_label"] == {
        "missed": {"precision": 0, "recall": 0, "f1": 0, "support": 2},
        "false alarm": {"precision": 0, "recall": 0, "f1": 0, "support": 0},
        "absent": {"precision": 1, "recall": 1, "f1": 1, "support": 0},
    }
    assert metrics["macro_f1"] == 0  # "absent" stays out


def test_an_empty_video_predicted_empty_is_right():
    assert frame_metrics(np.zeros((5, 2)), np.zeros((5, 2)), ["a", "b"])["macro_f1"] == 1
    assert segment_metrics(np.zeros((5, 2)), np.zeros((5, 2)), ["a", "b"])["macro_f1"] == 1


@settings(deadline=None)
@given(label_pairs)
def test_frame_metrics_are_scikit_learns(pair):
    truth, predicted = pair
    metrics = frame_metrics(truth, predicted, ["a", "b", "c"])
    precision, recall, f1, support = precision_recall_fscore_support(truth, predicted, average=None, zero_division=0)
    occurring = np.flatnonzero(truth.any(axis=0) | predicted.any(axis=0))
    for column in occurring:
        assert metrics["per_label"]["abc"[column]] == pytest.approx(
            {"precision": precision[column], "recall": recall[column], "f1": f1[column], "support": support[column]}
        )
    if occurring.size:
        macro_f1 = f1_score(truth, predicted, labels=occurring, average="macro", zero_division=0)
        assert metrics["macro_f1"] == pytest.approx(macro_f1)


def test_a_single_label_is_scored_as_that_label():
    metrics = frame_metrics([[1], [1], [0], [0]], [[1], [0], [0], [0]], ["only"])
    assert list(metrics["per_label"]) == ["only"]
    assert metrics["macro_f1"] == pytest.approx(2 / 3)


def test_metrics_can_be_stored_as_json():
    truth, predicted = mask((0, 9)), mask((3, 9))
    for metrics in (frame_metrics(truth, predicted, ["a"]), segment_metrics(truth, predicted, ["a"])):
        assert json.loads(json.dumps(metrics)) == metrics


@pytest.mark.parametrize(
    ("truth", "predicted", "fault"),
    [
        (np.zeros((4, 1)), np.full((4, 1), 0.7), "0 or 1"),
        (np.zeros((4, 1)), np.full((4, 1), np.nan), "0 or 1"),
        (np.zeros((4, 1)), np.zeros((5, 1)), "num_frames"),
        (np.zeros(4), np.zeros(4), "num_frames"),
        (np.zeros((0, 1)), np.zeros((0, 1)), "not empty"),
        (np.zeros((4, 2)), np.zeros((4, 2)), "argument"),
    ],
)
def test_what_cant_be_compared_is_refused(truth, predicted, fault):
    with pytest.raises(ValueError, match=fault):
        frame_metrics(truth, predicted, ["a"])


# Segments


@pytest.mark.parametrize(
    ("true_spans", "predicted_spans", "precision", "recall"),
    [
        ([(0, 10)], [(0, 10)], 1, 1),
        ([(0, 10)], [(0, 5)], 1, 1),  # IoU 5/10, the threshold itself
        ([(0, 10)], [(0, 4)], 0, 0),  # IoU 4/10
        ([(0, 10)], [(5, 15)], 0, 0),  # IoU 5/15
        ([(0, 10)], [(0, 10), (20, 22), (30, 32)], 1 / 3, 1),  # two false alarms
        ([(0, 10), (50, 51)], [(0, 10)], 1, 1 / 2),  # a missed instant counts like a long segment
        ([(0, 10)], [(0, 3), (4, 10)], 1 / 2, 1),  # flicker: 6/10 matches, 3/10 is a false alarm
        ([(0, 10), (12, 22)], [(0, 22)], 0, 0),  # merged: IoU 10/22 with either
        ([(5, 9)], [], 0, 0),
        ([], [(5, 9)], 0, 0),
    ],
)
def test_segment_f1_by_hand(true_spans, predicted_spans, precision, recall):
    scores = segment_metrics(mask(*true_spans), mask(*predicted_spans), ["a"])["per_label"]["a"]
    f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0
    assert scores == pytest.approx({"precision": precision, "recall": recall, "f1": f1, "support": len(true_spans)})


def test_segment_f1_is_a_mean_over_labels_that_occur():
    truth = np.hstack([mask((0, 10)), mask((0, 10)), mask()])
    predicted = np.hstack([mask((1, 10)), mask((50, 60)), mask()])
    assert segment_metrics(truth, predicted, ["right", "wrong", "absent"])["macro_f1"] == pytest.approx(0.5)


def test_a_segment_is_matched_once():
    # At an IoU of 0.3 both halves fit the true segment; one of them must stay a false alarm.
    scores = segment_metrics(mask((0, 10)), mask((0, 4), (5, 10)), ["a"], iou=0.3)["per_label"]["a"]
    assert (scores["precision"], scores["recall"]) == (0.5, 1)


@settings(deadline=None)
@given(label_pairs, st.sampled_from([0.1, 0.25, 0.5, 0.75]))
def test_the_matching_is_the_largest_one(pair, iou):
    truth, predicted = pair
    result = segment_metrics(truth, predicted, ["a", "b", "c"], iou=iou)
    for column, label in enumerate("abc"):
        true_sets = [set(range(*span)) for span in segments(truth[:, column])]
        predicted_sets = [set(range(*span)) for span in segments(predicted[:, column])]
        if not true_sets or not predicted_sets:
            continue
        fits = np.array([[len(t & p) >= iou * len(t | p) for p in predicted_sets] for t in true_sets])
        hits = fits[linear_sum_assignment(fits, maximize=True)].sum()
        assert result["per_label"][label]["recall"] == pytest.approx(hits / len(true_sets))
        assert result["per_label"][label]["precision"] == pytest.approx(hits / len(predicted_sets))


# Calibration


def test_reliability_by_hand():
    probs = [0.0, 0.1, 0.2, 0.9, 0.9, 0.9, 1.0]
    truth = [0, 0, 1, 1, 1, 0, 1]
    curve = reliability_curve(truth, probs, bins=5)
    assert curve.count.tolist() == [3, 0, 0, 0, 4]  # 0.2 is the upper edge of the first bin
    np.testing.assert_allclose(curve.mean_probability, [0.1, np.nan, np.nan, np.nan, 0.925])
    np.testing.assert_allclose(curve.observed_frequency, [1 / 3, np.nan, np.nan, np.nan, 0.75])
    error = (3 * (1 / 3 - 0.1) + 4 * (0.925 - 0.75)) / 7
    assert curve.expected_calibration_error == pytest.approx(error)


def test_reliability_curve_is_scikit_learns():
    rng = np.random.default_rng(0)
    probs = rng.random((300, 4))
    truth = rng.random((300, 4)) < probs**2
    curve = reliability_curve(truth, probs)
    observed_frequency, mean_probability = calibration_curve(truth.ravel(), probs.ravel(), n_bins=10)
    np.testing.assert_allclose(curve.observed_frequency, observed_frequency)
    np.testing.assert_allclose(curve.mean_probability, mean_probability)
    assert curve.count.sum() == 1200
    # The frequency is p² where p is predicted: the mean of p - p² over [0, 1] is 1/6.
    assert curve.expected_calibration_error == pytest.approx(1 / 6, abs=0.03)


def test_calibrated_probabilities_have_a_small_error():
    rng = np.random.default_rng(0)
    probs = rng.random(20_000)
    assert reliability_curve(rng.random(20_000) < probs, probs).expected_calibration_error < 0.02
