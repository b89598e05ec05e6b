"""What the classifier finds out by itself: order in time, lasting states, motion, thresholds; and what it remembers."""

from __future__ import annotations

import numpy as np
import pytest

from learning.calibration import best_gate
from learning.decisions import Decisions, decide, promised_f1
from learning.memory import Memory
from learning.readout import content_key, fit_readout, scores
from learning.temporal import FEATURE_FILTERS, MOTION_FILTERS, QUICK_CHANGE, rooted, rows_of
from utils.neural_nets import MultiLabelLSTM

FEATURES, MOTION = 24, 3


def f1(truth: np.ndarray, found: np.ndarray) -> float:
    return 2 * (truth * found).sum() / (truth.sum() + found.sum())


def fitted(examples: list[tuple[np.ndarray, np.ndarray]], motion_size: int = 0) -> MultiLabelLSTM:
    model = MultiLabelLSTM(examples[0][0].shape[1], examples[0][1].shape[1], hidden_size=8, motion_size=motion_size)
    model.partial_fit(*map(list, zip(*examples, strict=True)))
    return model


# --- What a readout sees


def swelling(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A quantity that rises, stays and falls at any level; the labels are rising and falling."""
    random = np.random.default_rng(seed)
    steps = np.repeat(random.choice([-1, 0, 1], 20), 15)
    level = 8 + 0.15 * np.cumsum(steps) + random.uniform(-2, 2)
    direction = np.random.default_rng(99).normal(size=FEATURES)
    scene = random.normal(size=FEATURES)
    features = np.outer(level, direction) + scene + 0.2 * random.normal(size=(len(steps), FEATURES))
    return features.astype(np.float32), np.stack([steps > 0, steps < 0], axis=1).astype(np.float32)


def test_opening_is_told_from_closing() -> None:
    model = fitted([swelling(seed) for seed in range(6)])
    features, truth = swelling(50)
    found = model.predict_labels(features)
    assert min(f1(truth[:, column], found[:, column]) for column in range(2)) > 0.75
    assert all(label["change"] > 0.5 for label in model.describe().values())


def still(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """One scene in all videos; a state that fills a whole video or is missing from it."""
    random = np.random.default_rng(seed)
    truth = np.full((80, 1), seed % 2, np.float32)
    scene, state = np.random.default_rng(99).normal(size=(2, FEATURES))
    features = 3 * scene + truth * state + 0.3 * random.normal(size=(80, FEATURES))
    return features.astype(np.float32), truth


def test_a_state_that_fills_a_video_is_seen_where_the_scene_is_the_same() -> None:
    model = fitted([still(seed) for seed in range(6)])
    assert model.predict_labels(still(51)[0]).mean() > 0.9
    assert model.predict_labels(still(50)[0]).mean() < 0.1
    assert model.describe()["0"]["centring"] < 0.4


def test_a_scene_that_differs_is_taken_out() -> None:
    def example(seed: int) -> tuple[np.ndarray, np.ndarray]:
        random = np.random.default_rng(seed)
        truth = np.zeros((120, 1), np.float32)
        start = random.integers(10, 70)
        truth[start : start + 30] = 1
        state = np.random.default_rng(99).normal(size=FEATURES)
        features = 4 * random.normal(size=FEATURES) + truth * state + 0.2 * random.normal(size=(120, FEATURES))
        return features.astype(np.float32), truth

    model = fitted([example(seed) for seed in range(6)])
    features, truth = example(50)
    assert f1(truth, model.predict_labels(features)) > 0.85
    assert model.describe()["0"]["centring"] > 0.45


def test_motion_is_used_where_it_is_the_label() -> None:
    def example(seed: int) -> tuple[np.ndarray, np.ndarray]:
        random = np.random.default_rng(seed)
        truth = np.zeros((120, 1), np.float32)
        start = random.integers(10, 70)
        truth[start : start + 30] = 1
        motion = 0.01 + 0.02 * truth + 0.002 * random.random((120, MOTION))
        return np.concatenate([random.normal(size=(120, FEATURES)), motion], axis=1).astype(np.float32), truth

    model = fitted([example(seed) for seed in range(4)], MOTION)
    features, truth = example(50)
    assert f1(truth, model.predict_labels(features)) > 0.9
    assert model.describe()["0"]["motion"] > 0.5


def test_rows_read_in_blocks_are_those_of_the_whole_video() -> None:
    random = np.random.default_rng(0)
    video = random.normal(size=(700, FEATURES + MOTION)).astype(np.float32)
    frames = np.arange(3, 700, 7)
    rows = rows_of(video, frames, MOTION)
    for number, one in enumerate(FEATURE_FILTERS):
        np.testing.assert_allclose(rows.features[number], one(rooted(video[:, :FEATURES]))[frames], atol=1e-4)
    for number, one in enumerate(MOTION_FILTERS):
        np.testing.assert_allclose(rows.motion[number], one(rooted(video[:, FEATURES:]))[frames], atol=1e-4)
    np.testing.assert_allclose(rows.mean, rooted(video).mean(axis=0), atol=1e-5)


def test_a_derivative_has_a_sign() -> None:
    rising = QUICK_CHANGE(np.linspace(0, 1, 50)[:, None])
    assert (rising[10:40] > 0).all()
    np.testing.assert_allclose(QUICK_CHANGE(np.linspace(1, 0, 50)[:, None]), -rising, atol=1e-9)


def test_held_out_scores_know_nothing_of_their_video() -> None:
    """Labels that are chance: a readout that has seen a video scores them well, one that hasn't doesn't."""
    random = np.random.default_rng(0)
    videos = [random.normal(size=(40, 200)).astype(np.float32) for _ in range(4)]
    labels = [(random.random((40, 1)) < 0.5).astype(np.float32) for _ in range(4)]
    fit = fit_readout(videos, labels, [1.0] * 4, [None] * 4, 0)
    truth = np.concatenate(labels)[:, 0]
    seen = np.concatenate([scores(video, fit.weights) for video in videos])[:, 0]
    held_out = np.concatenate(fit.held_out_scores)[:, 0]
    assert np.corrcoef(truth, seen)[0, 1] > 0.4
    assert abs(np.corrcoef(truth, held_out)[0, 1]) < 0.25


def scene_with_a_thing(seed: int, shown: bool) -> tuple[np.ndarray, np.ndarray]:
    """Scenes that differ; a thing, where it is shown, for a third of the video."""
    random = np.random.default_rng(seed)
    truth = np.zeros((90, 1), np.float32)
    truth[30:60] = shown
    thing = np.random.default_rng(99).normal(size=FEATURES)
    features = 2 * random.normal(size=FEATURES) + truth * thing + 0.5 * random.normal(size=(90, FEATURES))
    return features.astype(np.float32), truth


def test_a_label_that_one_video_shows_is_held_out_by_parts_of_it() -> None:
    examples = [scene_with_a_thing(seed, shown=seed == 1) for seed in range(3)]
    fit = fit_readout(*map(list, zip(*examples, strict=True)), [1.0] * 3, [None] * 3, 0)
    truth = examples[1][1][:, 0] > 0
    held_out, seen = fit.held_out_scores[1][:, 0], scores(examples[1][0], fit.weights)[:, 0]
    assert np.corrcoef(truth, held_out)[0, 1] > 0.7
    # Scores of another video will be lower than those of one that was seen in part.
    assert held_out[truth].mean() < 0.6 * seen[truth].mean()
    assert fit.shares[0, 0] > 1 / len(fit.views)


def test_a_label_that_one_video_shows_is_found_in_others() -> None:
    model = fitted([scene_with_a_thing(seed, shown=seed == 1) for seed in range(3)])
    features, truth = scene_with_a_thing(50, shown=True)
    assert f1(truth, model.predict_labels(features)) > 0.8
    assert model.predict_labels(scene_with_a_thing(51, shown=False)[0]).mean() < 0.1


def test_one_short_video_does_not_make_events_of_all_of_a_long_one() -> None:
    """How much of a video an event usually fills isn't known from one: a third of the first, 6 % of the other."""
    random, thing = np.random.default_rng(0), np.random.default_rng(99).normal(size=FEATURES)
    scene = 2 * random.normal(size=FEATURES)

    def video(num_frames: int) -> tuple[np.ndarray, np.ndarray]:
        truth = np.zeros((num_frames, 1), np.float32)
        truth[20:50] = 1
        features = scene + truth * thing + 0.2 * random.normal(size=(num_frames, FEATURES))
        return features.astype(np.float32), truth

    model = fitted([video(95)])
    features, truth = video(500)
    assert f1(truth, model.predict_labels(features)) > 0.6


def test_frames_that_are_masked_count_for_nothing() -> None:
    examples = [swelling(seed) for seed in range(3)]
    mask = np.arange(300) < 200
    wrong = [(features, np.where(mask[:, None], labels, 1 - labels)) for features, labels in examples]
    models = []
    for these in (examples, wrong):
        model = MultiLabelLSTM(FEATURES, 2, hidden_size=8)
        model.partial_fit(*map(list, zip(*these, strict=True)), masks=[mask] * 3, epochs=5)
        models.append(model.predict(swelling(50)[0]))
    np.testing.assert_allclose(models[0], models[1], atol=1e-5)


# --- What was drawn


def test_an_annotated_video_keeps_its_annotation_and_a_loaded_model_too(tmp_path) -> None:
    examples = [(features, np.random.default_rng(1).permutation(labels)) for features, labels in map(swelling, (0, 1))]
    model = fitted(examples)
    model.save(tmp_path / "model.safetensors")
    for one in (model, MultiLabelLSTM.load(tmp_path / "model.safetensors")):
        for features, labels in examples:
            np.testing.assert_array_equal(one.predict_labels(features), labels > 0)
            assert f1(labels, one.predict_labels(features, recall=False)) < 0.9  # they are noise: not learnt by heart
    other = swelling(50)[0]
    np.testing.assert_array_equal(model.predict(other), model.predict(other, recall=False))


def test_two_annotators_of_one_video_are_both_remembered() -> None:
    video = np.random.default_rng(0).normal(size=(10, 4)).astype(np.float32)
    first, second = np.zeros((10, 1), np.float32), np.zeros((10, 1), np.float32)
    first[:4], second[:6] = 1, 1
    memory = Memory()
    memory.take([video, video], [first, second], [0.5, 0.5], [np.ones(10, bool)] * 2)
    recalled = memory.recall(video, np.full((10, 1), 0.5, np.float32))[:, 0]
    np.testing.assert_allclose(recalled, 0.1 + 0.8 * np.array([1] * 4 + [0.5] * 2 + [0] * 4), atol=1e-6)


def test_what_was_not_reviewed_is_predicted_like_a_new_video() -> None:
    video = np.random.default_rng(0).normal(size=(10, 4)).astype(np.float32)
    mask = np.arange(10) < 5
    memory = Memory()
    memory.take([video], [np.ones((10, 1), np.float32)], [1.0], [mask])
    recalled = memory.recall(video, np.full((10, 1), 0.3, np.float32))[:, 0]
    np.testing.assert_allclose(recalled, np.where(mask, 0.2 * 0.3 + 0.8, 0.3), atol=1e-6)


def test_videos_differ_by_content_not_by_object() -> None:
    video = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    assert content_key(video) == content_key(video.copy())
    assert content_key(video) != content_key(video[:-1])


# --- Decisions


def test_a_label_that_is_hard_to_find_gets_a_lower_threshold() -> None:
    random = np.random.default_rng(0)
    labels = [np.repeat(random.random((10, 2)) < 0.4, 20, axis=0).astype(np.float32) for _ in range(12)]
    noise = np.array([0.05, 0.45])
    probs = [np.clip(0.5 + (one - 0.5) * 0.6 + noise * random.normal(size=one.shape), 0, 1) for one in labels]
    decided = decide(probs, labels, [np.ones(200, bool)] * 12)
    easy, hard = decided["thresholds"].tolist()
    assert hard < easy <= 0.5


def test_flicker_is_smoothed_by_how_long_a_labels_events_last() -> None:
    random = np.random.default_rng(0)
    labels = [np.repeat(np.arange(4) % 2, 40).astype(np.float32)[:, None] for _ in range(6)]
    probs = [np.where(random.random(one.shape) < 0.12, 1 - one, one) * 0.8 + 0.1 for one in labels]
    assert decide(probs, labels, [np.ones(160, bool)] * 6)["windows"].item() > 5


def test_the_promised_f1_of_calibrated_probabilities_is_kept() -> None:
    random = np.random.default_rng(0)
    probs = random.beta(0.5, 0.7, (20_000, 2))
    truth = random.random(probs.shape) < probs
    thresholds = np.array([0.4, 0.5])
    true = np.mean([f1(truth[:, column], probs[:, column] >= thresholds[column]) for column in range(2)])
    assert promised_f1(probs, thresholds) == pytest.approx(true, abs=0.01)


def test_an_empty_timeline_is_as_good_as_it_is_sure() -> None:
    assert promised_f1(np.full((50, 1), 0.001), np.array([0.5])) == pytest.approx(0.999)
    unsure = promised_f1(np.full((50, 1), 0.3), np.array([0.5]))
    assert unsure == 0.0  # 15 frames are expected, and none is predicted


def test_the_score_falls_with_the_share_of_promises_kept() -> None:
    labels = [np.repeat([[0.0], [1.0]], 50, axis=0).astype(np.float32) for _ in range(8)]
    right = decide([one * 0.9 + 0.05 for one in labels], labels, [np.ones(100, bool)] * 8)
    wrong = decide([(1 - one) * 0.9 + 0.05 for one in labels], labels, [np.ones(100, bool)] * 8)
    scores = []
    for decided in (right, wrong):
        decisions = Decisions(1)
        decisions.take(decided)
        scores.append(decisions.expected_f1(labels[0] * 0.9 + 0.05))
    assert scores[0] > 0.85
    assert scores[1] < 0.3


def test_the_score_is_never_above_what_the_probabilities_promise() -> None:
    labels = [np.repeat([[0.0], [1.0]], 50, axis=0).astype(np.float32) for _ in range(8)]
    unsure = [one * 0.3 + 0.35 for one in labels]  # and right everywhere
    decisions = Decisions(1)
    decisions.take(decide(unsure, labels, [np.ones(100, bool)] * 8))
    assert decisions.expected_f1(unsure[0]) == pytest.approx(promised_f1(unsure[0], decisions.thresholds.numpy()))


def test_a_correction_counts_as_far_as_it_helps_on_held_out_videos() -> None:
    labels = [np.repeat([[0.0, 0.0, 0.0], [1.0, 1.0, 0.0]], 50, axis=0).astype(np.float32)] * 2
    masks = [np.arange(100) < 90] * 2
    plain = [np.float32(0.3 + 0.4 * one) * [1, 1, 0] for one in labels]  # the third label has no example
    corrected = [np.stack([0.1 + 0.8 * one[:, 0], 0.9 - 0.8 * one[:, 1], 0 * one[:, 2]], axis=1) for one in labels]
    gate, probs = best_gate(plain, corrected, labels, masks)
    np.testing.assert_array_equal(gate, [1, 0, 0])
    for one in probs:
        np.testing.assert_allclose(one[[0, -1]], [[0.1, 0.3, 0], [0.9, 0.7, 0]], atol=1e-5)
