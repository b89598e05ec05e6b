"""What the classifier finds out by itself: order in time, lasting states, motion, thresholds."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

from learning.blocks import FILTERS, read, rows_of
from learning.calibration import calibrate, logistic
from learning.dataset import ROWS, Dataset, Example, choose_videos
from learning.decisions import PRICE, Decisions, decide, expected_f1
from learning.network import ScoredVideo, best_gate
from learning.probe import Fit, HeldOut, fit_probe
from progress import UNTOLD
from utils.neural_nets import MultiLabelLSTM

FEATURES, MOTION, CELLS = 24, 3, 6


def f1(truth: np.ndarray, found: np.ndarray) -> float:
    return 2 * (truth * found).sum() / (truth.sum() + found.sum())


def fitted(examples: list[tuple[np.ndarray, np.ndarray]], layout: dict[str, int] | None = None) -> MultiLabelLSTM:
    model = MultiLabelLSTM(examples[0][0].shape[1], examples[0][1].shape[1], hidden_size=8, layout=layout)
    model.header["metrics"] = model.partial_fit(*map(list, zip(*examples, strict=True)))
    return model


def learnt(model: MultiLabelLSTM) -> dict[str, dict[str, float]]:
    return model.header["metrics"]["learnt"]


def found(model: MultiLabelLSTM, features: np.ndarray) -> np.ndarray:
    return model.decisions.labels(model.predict(features))


def dataset(examples: list[tuple[np.ndarray, np.ndarray]], masks: list[np.ndarray | None] | None = None) -> Dataset:
    masks = masks or [None] * len(examples)
    rows = [Example(i, *one, reviewed=mask) for i, (one, mask) in enumerate(zip(examples, masks, strict=True))]
    return Dataset(rows, examples[0][1].shape[1])


def probed(examples: list[tuple[np.ndarray, np.ndarray]]) -> Fit:
    return fit_probe(dataset(examples), {"appearance": examples[0][0].shape[1]}, UNTOLD)


# --- What a probe sees


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
    labels = found(model, features)
    assert min(f1(truth[:, column], labels[:, column]) for column in range(2)) > 0.75
    assert all(label["change"] > label["appearance"] for label in learnt(model).values())


def test_labels_lend_each_other_what_they_rest_on() -> None:
    """Two labels move in each video; a third, of one video, moves too, and its scene happens to change with it."""

    def video(seed: int) -> tuple[np.ndarray, np.ndarray]:
        random = np.random.default_rng(seed)
        labels = np.zeros((120, 3), np.float32)
        for column in range(3 if seed == 0 else 2):
            labels[10 + 35 * column : 35 + 35 * column, column] = 1
        scene = random.normal(size=(120, FEATURES)) + 3 * labels[:, 2:]
        moving = 3 * labels + 0.5 * random.normal(size=(120, MOTION))
        return np.concatenate([scene, moving], axis=1).astype(np.float32), labels

    layout = {"appearance": FEATURES, "motion": MOTION}
    shares = fit_probe(dataset([video(seed) for seed in range(5)]), layout, UNTOLD).mixture_weights
    assert sum(shares[name] for name in shares if name.startswith("appearance")).max() < 0.2


def still(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """One scene in all videos; a state that fills a whole video or is missing from it."""
    random = np.random.default_rng(seed)
    truth = np.full((80, 1), seed % 2, np.float32)
    scene, state = np.random.default_rng(99).normal(size=(2, FEATURES))
    features = 3 * scene + truth * state + 0.3 * random.normal(size=(80, FEATURES))
    return features.astype(np.float32), truth


def test_a_state_that_fills_a_video_is_seen_where_the_scene_is_the_same() -> None:
    model = fitted([still(seed) for seed in range(6)])
    assert found(model, still(51)[0]).mean() > 0.9
    assert found(model, still(50)[0]).mean() < 0.1
    described = learnt(model)["0"]
    assert described["appearance"] > described["appearance, mean subtracted"]


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
    assert f1(truth, found(model, features)) > 0.85
    described = learnt(model)["0"]
    assert described["appearance, mean subtracted"] > described["appearance"]


def test_motion_is_used_where_it_is_the_label() -> None:
    def example(seed: int) -> tuple[np.ndarray, np.ndarray]:
        random = np.random.default_rng(seed)
        truth = np.zeros((120, 1), np.float32)
        start = random.integers(10, 70)
        truth[start : start + 30] = 1
        motion = 0.01 + 0.02 * truth + 0.002 * random.random((120, MOTION))
        return np.concatenate([random.normal(size=(120, FEATURES)), motion], axis=1).astype(np.float32), truth

    model = fitted([example(seed) for seed in range(4)], {"appearance": FEATURES, "motion": MOTION})
    features, truth = example(50)
    assert f1(truth, found(model, features)) > 0.9
    assert learnt(model)["0"]["motion"] > learnt(model)["0"]["appearance"]


def test_place_is_used_where_it_is_the_label() -> None:
    """Something is always there, on the left or on the right: the picture as a whole looks the same."""

    def example(seed: int) -> tuple[np.ndarray, np.ndarray]:
        random = np.random.default_rng(seed)
        left = np.repeat(random.random(8) < 0.5, 20).astype(np.float32)
        cells = np.concatenate([np.outer(left, [1, 0, 1]), np.outer(1 - left, [1, 0, 1])], axis=1)
        cells += 0.2 * random.normal(size=cells.shape)
        return np.concatenate([random.normal(size=(160, FEATURES)), cells], axis=1).astype(np.float32), left[:, None]

    examples, (features, truth) = [example(seed) for seed in range(3)], example(50)
    model = fitted(examples, {"appearance": FEATURES, "cells": CELLS})
    assert f1(truth, found(model, features)) > 0.95
    blind = fitted([(one[:, :FEATURES], labels) for one, labels in examples])
    assert f1(truth, found(blind, features[:, :FEATURES])) < 0.75


def test_rows_read_in_pieces_are_those_of_the_whole_video() -> None:
    random = np.random.default_rng(0)
    layout = {"appearance": FEATURES, "cells": CELLS, "motion": MOTION}
    video = random.normal(size=(700, sum(layout.values()))).astype(np.float32)
    frames, rate = np.arange(3, 700, 7), 30.0
    shares: list[float] = []
    rows, mean = rows_of(video, frames, layout, rate, shares.append)
    assert shares == sorted(shares)
    assert len(shares) > 2  # one long video can be cancelled before it is read to its end
    whole, start = read(video, layout, slice(700)), 0
    for name, width in layout.items():
        for number, one in enumerate(FILTERS[name]):
            expected = one(whole[:, start : start + width], rate)[frames]
            np.testing.assert_allclose(rows[name][number], expected, atol=1e-4)
        start += width
    np.testing.assert_allclose(mean, whole.mean(axis=0), atol=1e-5)


def test_scores_read_in_pieces_are_those_of_the_fitted_rows() -> None:
    """The probe's primal weights say of the rows that it was fitted to what its dual says."""
    examples = [swelling(seed) for seed in range(3)]
    fit = probed(examples)
    whole = np.concatenate([fit.probe.scores(video, 25.0) for video, _ in examples])
    pieces = fit.probe.scores(np.concatenate([examples[0][0]] * 3), 25.0)
    assert np.isfinite(whole).all()
    np.testing.assert_allclose(pieces[100:150], whole[100:150], atol=1e-4)  # the same mean, the same neighbours


def test_a_derivative_has_a_sign() -> None:
    change = FILTERS["appearance"][-1]
    rising = change(np.linspace(0, 1, 50)[:, None], 25.0)
    assert (rising[10:40] > 0).all()
    np.testing.assert_allclose(change(np.linspace(1, 0, 50)[:, None], 25.0), -rising, atol=1e-9)


def test_how_often_frames_are_labelled_changes_nothing() -> None:
    def at(rate: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        features, truth = swelling(seed)
        return np.repeat(features, rate // 25, axis=0), np.repeat(truth, rate // 25, axis=0)

    predictions = []
    for rate in (25, 50, 100):
        model = MultiLabelLSTM(FEATURES, 2, hidden_size=8)
        model.fit([Example(seed, *at(rate, seed), frame_rate=rate) for seed in range(4)])
        predictions.append(model.predict(at(rate, 50)[0], rate)[:: rate // 25])
    for prediction in predictions[1:]:
        assert np.abs(prediction - predictions[0]).mean() < 0.06


# --- Which frames


def test_a_short_project_is_used_frame_by_frame() -> None:
    data = dataset([swelling(seed) for seed in range(3)])
    for frames, weights in data.sample():
        np.testing.assert_array_equal(frames, np.arange(300))
        np.testing.assert_allclose(weights, 1)


@pytest.mark.parametrize("num_frames", [20_000, 200_000])
def test_brief_events_of_a_long_video_are_all_among_the_frames(num_frames: int) -> None:
    truth = np.zeros((num_frames, 2), np.uint8)
    for start in range(3000, 19_000, 4000):
        truth[start : start + 15, 0] = 1
    truth[num_frames // 2 :, 1] = 1
    features = np.broadcast_to(np.float32(1), (num_frames, 1))
    ((frames, weights),) = Dataset([Example(1, features, truth)], 2).sample()
    assert truth[frames, 0].sum() == truth[:, 0].sum()
    assert len(frames) < 1.1 * ROWS
    assert weights.sum() == pytest.approx(num_frames, rel=0.02)
    assert weights[truth[frames, 1] > 0].sum() == pytest.approx(num_frames / 2, rel=0.02)


def test_many_short_videos_share_the_same_frames_as_one_long_one() -> None:
    truth = np.zeros((100, 1), np.uint8)
    truth[40:60] = 1
    features = np.ones((100, 1), np.float32)
    data = Dataset([Example(i, features + i, truth) for i in range(1000)], 1)
    assert 0.9 * ROWS < sum(len(frames) for frames, _ in data.sample()) < 1.1 * ROWS


def test_a_brief_label_of_a_long_video_is_learnt() -> None:
    """Four events of 15 frames in 40 minutes."""
    thing = np.random.default_rng(99).normal(size=FEATURES)

    def video(seed: int, num_frames: int) -> tuple[np.ndarray, np.ndarray]:
        random = np.random.default_rng(seed)
        truth = np.zeros((num_frames, 1), np.float32)
        for part in range(4):
            start = part * num_frames // 4 + random.integers(num_frames // 5)
            truth[start : start + 15] = 1
        return (2 + truth * thing + 0.5 * random.normal(size=(num_frames, FEATURES))).astype(np.float32), truth

    model = fitted([video(0, 60_000)])
    features, truth = video(1, 60_000)
    assert f1(truth, found(model, features)) > 0.75


def test_a_project_of_which_half_is_reviewed_is_learnt() -> None:
    model = MultiLabelLSTM(FEATURES, 2, hidden_size=8)
    metrics = model.fit([Example(seed, *swelling(seed), reviewed=np.arange(300) < 150) for seed in range(2)])
    assert np.isfinite(metrics["loss"])
    assert np.isfinite(model.predict(swelling(50)[0])).all()


def test_held_out_scores_know_nothing_of_their_video() -> None:
    """Labels that are chance: a probe that has seen a video scores them well, one that hasn't doesn't."""
    random = np.random.default_rng(0)
    videos = [random.normal(size=(40, 200)).astype(np.float32) for _ in range(4)]
    labels = [(random.random((40, 1)) < 0.5).astype(np.float32) for _ in range(4)]
    fit = probed(list(zip(videos, labels, strict=True)))
    truth = np.concatenate(labels)[:, 0]
    seen = np.concatenate([fit.probe.scores(video, 25.0) for video in videos])[:, 0]
    held_out = fit.held_out.scores[:, 0]
    assert np.corrcoef(truth, seen)[0, 1] > 0.4
    assert abs(np.corrcoef(truth, held_out)[0, 1]) < 0.25


def test_of_labels_at_random_nothing_is_expected() -> None:
    """Each video has a look of its own, by which labels of others can't be told."""

    def expected(seed: int) -> float:
        random = np.random.default_rng(seed)
        videos = [2 * random.normal(size=FEATURES) + random.normal(size=(60, FEATURES)) for _ in range(6)]
        labels = [np.full((60, 1), number % 2, np.float32) for number in range(6)]
        model = MultiLabelLSTM(FEATURES, 1, hidden_size=8)
        return float(model.partial_fit([video.astype(np.float32) for video in videos], labels)["f1_score"])

    assert np.mean([expected(seed) for seed in range(12)]) < 0.8  # 0.67 where all is said


def faint_things(seed: int, shown: bool) -> tuple[np.ndarray, np.ndarray]:
    """Two things that stand out a fiftieth of what else changes; the second one in some videos only."""
    random = np.random.default_rng(seed)
    truth = np.repeat(random.random((8, 2)) < 0.5, 10, axis=0) & (True, shown)
    pictures = np.random.default_rng(99).normal(size=(5, 40))
    features = np.concatenate([truth, 50 * random.normal(size=(len(truth), 3))], axis=1) @ pictures
    return (features + 0.3 * random.normal(size=features.shape)).astype(np.float32), truth.astype(np.float32)


def test_a_penalty_is_chosen_for_labels_of_at_least_three_videos(monkeypatch: pytest.MonkeyPatch) -> None:
    data = dataset([faint_things(seed, shown=seed < 2) for seed in range(4)])
    layout = {"cells": 40}
    chosen = fit_probe(data, layout, UNTOLD).held_out
    monkeypatch.setattr("learning.probe.FACTORS", (1.0,))
    usual = fit_probe(data, layout, UNTOLD).held_out
    monkeypatch.setattr("learning.probe.FACTORS", (0.25,))
    lower = fit_probe(data, layout, UNTOLD).held_out
    np.testing.assert_array_equal(chosen.scores[:, 0], lower.scores[:, 0])
    np.testing.assert_array_equal(chosen.scores[:, 1], usual.scores[:, 1])
    right, before = (np.corrcoef(one.scores[:, 0], one.labels[:, 0])[0, 1] for one in (chosen, usual))
    assert right > before + 0.05


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
    fit = probed(examples)
    truth = examples[1][1][:, 0] > 0
    held_out = fit.held_out.scores[fit.held_out.numbers == 1, 0]
    seen = fit.probe.scores(examples[1][0], 25.0)[:, 0]
    assert np.corrcoef(truth, held_out)[0, 1] > 0.7
    # Scores of another video will be lower than those of one that was seen in part.
    assert held_out[truth].mean() < 0.6 * seen[truth].mean()


def test_a_label_that_one_video_shows_is_found_in_others() -> None:
    model = fitted([scene_with_a_thing(seed, shown=seed == 1) for seed in range(3)])
    features, truth = scene_with_a_thing(50, shown=True)
    assert f1(truth, found(model, features)) > 0.8
    assert found(model, scene_with_a_thing(51, shown=False)[0]).mean() < 0.1


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
    assert f1(truth, found(model, features)) > 0.6


def test_frames_that_are_masked_count_for_nothing() -> None:
    examples = [swelling(seed) for seed in range(3)]
    mask = np.arange(300) < 200
    wrong = [(features, np.where(mask[:, None], labels, 1 - labels)) for features, labels in examples]
    models = []
    for these in (examples, wrong):
        model = MultiLabelLSTM(FEATURES, 2, hidden_size=8)
        model.fit([Example(i, *one, reviewed=mask) for i, one in enumerate(these)])
        models.append(model.predict(swelling(50)[0]))
    np.testing.assert_allclose(models[0], models[1], atol=1e-5)


# --- Videos


def test_of_many_videos_the_last_ones_and_those_that_show_a_label_are_chosen() -> None:
    shown = np.zeros((5000, 2), bool)
    shown[:, 0] = np.random.default_rng(0).random(5000) < 0.5
    shown[::250, 1] = True  # twenty
    order = np.random.default_rng(1).permutation(5000)
    chosen, stands_for = choose_videos(shown, order, limit=300)
    assert 240 <= len(chosen) <= 305  # the second label has fewer than its share
    assert set(np.flatnonzero(order >= 4925)) <= set(chosen)
    assert shown[chosen, 1].sum() == 20
    # What stands for all: the estimates of a weighted sample.
    assert stands_for.sum() == pytest.approx(5000, rel=0.15)
    assert stands_for @ shown[chosen] == pytest.approx(shown.sum(axis=0), rel=0.15)


def test_of_few_videos_all_are_chosen() -> None:
    chosen, stands_for = choose_videos(np.zeros((300, 3), bool), np.arange(300), limit=300)
    np.testing.assert_array_equal(chosen, np.arange(300))
    np.testing.assert_array_equal(stands_for, 1)


def test_a_video_that_stands_for_several_counts_as_many_times() -> None:
    features, labels = swelling(0)
    alone, several = (Dataset([Example(1, features, labels, stands_for=n)], 2).sample()[0] for n in (1.0, 5.0))
    np.testing.assert_array_equal(alone[0], several[0])
    np.testing.assert_allclose(5 * alone[1], several[1])


def test_videos_differ_by_content_not_by_object_nor_by_some_frames() -> None:
    video = np.random.default_rng(0).normal(size=(500, 4)).astype(np.float32)
    other = video.copy()
    other[333, 2] += 1

    def content(features: np.ndarray) -> str:
        return Example(1, features, np.zeros((len(features), 1))).content

    assert content(video) == content(video.copy())
    assert len({content(one) for one in (video, video[:-1], other)}) == 3


def test_two_recordings_that_are_alike_but_for_an_event_keep_their_own() -> None:
    still = np.ones((400, FEATURES), np.float32)
    events = [np.zeros((400, 1), np.float32) for _ in range(2)]
    events[0][20:40], events[1][300:330] = 1, 1
    videos = [still + one * np.random.default_rng(99).normal(size=FEATURES).astype(np.float32) for one in events]
    model = fitted(list(zip(videos, events, strict=True)))
    for video, event in zip(videos, events, strict=True):
        np.testing.assert_array_equal(found(model, video), event > 0)


# --- Calibration


def test_a_logistic_regression_converges() -> None:
    """Of a label of 0.5 % of the frames, told apart well: the gradient of the likelihood is 0."""
    random = np.random.default_rng(0)
    y = random.random(50_000) < 0.005
    x = random.normal(0, 0.01, y.shape) + 0.05 * y
    slope, offset = logistic(x, y, np.ones(len(x)))
    probs = 1 / (1 + np.exp(-slope * x - offset))
    assert abs((probs - y).mean()) < 1e-6
    assert abs(((probs - y) * x).mean()) < 1e-6
    assert slope > 300


def test_frames_of_more_weight_count_more_in_calibration() -> None:
    scores = np.array([[0.0], [0.0], [1.0], [1.0]] * 20)
    labels, numbers = np.array([[0], [1], [0], [1]] * 20), np.repeat(np.arange(20), 4)
    by_weight = []
    for positive in (1.0, 3.0):
        slope, offset = calibrate(scores, labels, np.where(labels[:, 0], positive, 1.0), numbers)
        by_weight.append(1 / (1 + np.exp(-slope[0] - offset[0])))
    np.testing.assert_allclose(by_weight, [0.5, 0.75], atol=0.02)


def test_scores_that_are_low_where_a_label_is_on_say_nothing() -> None:
    labels = np.tile([1, 0, 0, 0], 20)[:, None]
    slope, offset = calibrate(1.0 - labels, labels, np.ones(80), np.repeat(np.arange(20), 4))
    assert slope[0] == 0
    assert 1 / (1 + np.exp(-offset[0])) == pytest.approx(0.25)


def test_probabilities_of_few_videos_are_less_sure() -> None:
    random = np.random.default_rng(0)
    slopes = []
    for num_videos in (2, 50):
        numbers = np.repeat(np.arange(num_videos), 40)
        labels = np.tile(np.repeat([0, 1], 20), num_videos)[:, None]
        scores = labels + 0.3 * random.normal(size=labels.shape)
        slopes.append(calibrate(scores, labels, np.ones(len(scores)), numbers)[0][0])
    assert slopes[0] < 0.9 * slopes[1]


# --- Decisions


def decided(probs: list[np.ndarray], labels: list[np.ndarray]) -> dict[str, torch.Tensor]:
    numbers = np.repeat(np.arange(len(probs)), [len(one) for one in probs])
    data = Dataset([Example(i, one + i, one) for i, one in enumerate(labels)], labels[0].shape[1])
    probs, labels = np.concatenate(probs), np.concatenate(labels)
    return decide(probs, probs, HeldOut(probs, labels, np.ones(len(numbers)), numbers, probs), data)


def test_a_label_that_is_hard_to_find_gets_a_lower_threshold() -> None:
    random = np.random.default_rng(0)
    sure, unsure = random.beta(0.1, 0.1, 5000), random.beta(2, 3, 5000)
    probs = np.stack([sure, unsure], axis=1)
    labels = (random.random(probs.shape) < probs).astype(np.float32)
    easy, hard = decided([probs], [labels])["thresholds"].tolist()
    assert hard < easy <= 0.5
    for column, threshold in enumerate((easy, hard)):  # no other gives calibrated probabilities a much better F1
        every = [f1(labels[:, column], probs[:, column] >= other) for other in np.linspace(0.02, 0.98, 49)]
        assert f1(labels[:, column], probs[:, column] >= threshold) > max(every) - 0.02


def test_an_event_costs_as_much_as_labels_last() -> None:
    """Runs of two seconds: a brief event is none, a gap as brief is filled, and how often frames are labelled changes
    nothing."""
    labels = [np.repeat(np.arange(4) % 2, 50).astype(np.float32)[:, None] for _ in range(6)]
    decisions = Decisions(1)
    decisions.load_state_dict(decided(labels, labels))
    assert decisions.prices.item() == pytest.approx(PRICE * 2 * 6 / 7)
    probs = np.full((150, 1), 0.01, np.float32)
    probs[20:26], probs[50:80], probs[60:62], probs[100:140] = 0.99, 0.9, 0.2, 0.45
    expected = np.zeros(150, bool)
    expected[50:80] = True
    for rate in (25, 50):
        found = decisions.labels(np.repeat(probs, rate // 25, axis=0), rate)[:, 0]
        np.testing.assert_array_equal(found[:: rate // 25], expected)
    assert 6 < 25 * decisions.shortest.item() < 30


def test_the_shorter_of_events_and_gaps_is_typical() -> None:
    often, never = np.array([1] * 30 + [0] * 5 + [1] * 20 + [0] * 3), np.zeros(58)
    labels = np.stack([often, 1 - often, never], axis=1).astype(np.float32)
    data = Dataset([Example(0, labels, labels, frame_rate=10)], 3)
    assert data.typical_runs() == pytest.approx([0.4, 0.4, 5.8])


@pytest.mark.parametrize("seed", range(5))
def test_labels_are_the_best_of_all(seed: int) -> None:
    random = np.random.default_rng(seed)
    decisions = Decisions(2)
    decisions.load_state_dict(
        {
            "thresholds": torch.tensor([0.4, 0.3]),
            "prices": torch.tensor([0.01, 0.06]),
            "transitions": torch.ones(3, 3),
            "calibration_ratio": torch.tensor(1.0),
        }
    )
    probs = random.uniform(0.05, 0.9, (9, 2))
    found = decisions.labels(probs, frame_rate=25)
    for column, (threshold, price) in enumerate(((0.4, 0.01), (0.3, 0.06))):
        gains = np.log(probs[:, column] / threshold)

        def worth(labels: tuple[int, ...], gains: np.ndarray = gains, price: float = price) -> float:
            return gains @ labels - price * 25 * np.abs(np.diff(labels)).sum() / 2

        assert tuple(found[:, column]) == max(product((0, 1), repeat=9), key=worth)


def test_a_threshold_of_the_config_takes_the_place_of_those_learnt() -> None:
    decisions = Decisions(2)
    probs = np.array([[0.2, 0.6], [0.7, 0.3]])
    assert decisions.labels(probs).tolist() == [[False, True], [True, False]]
    assert decisions.labels(probs, threshold=0.65).tolist() == [[False, False], [True, False]]
    assert decisions.labels(probs, threshold=0.6).tolist() == [[False, True], [True, False]]
    assert decisions.labels(probs * 0, threshold=0).all()
    assert decisions.labels(np.zeros((0, 2))).shape == (0, 2)


def test_calibrated_probabilities_have_the_expected_f1() -> None:
    random = np.random.default_rng(0)
    probs = random.beta(0.5, 0.7, (20_000, 2))
    truth = random.random(probs.shape) < probs
    thresholds = np.array([0.4, 0.5])
    true = np.mean([f1(truth[:, column], probs[:, column] >= thresholds[column]) for column in range(2)])
    assert expected_f1(probs, thresholds) == pytest.approx(true, abs=0.01)


def test_an_empty_timeline_is_as_good_as_it_is_sure() -> None:
    assert expected_f1(np.full((50, 1), 0.001), np.array([0.5])) == pytest.approx(0.999)
    # However many frames there are: those of a video are likely or unlikely together.
    assert expected_f1(np.full((5000, 1), 0.3), np.array([0.5])) == pytest.approx(0.7)
    assert expected_f1(np.array([[0.1, 0.4], [0.2, 0.1]]), np.array([0.5, 0.5])) == pytest.approx(0.8 * 0.6)


def test_the_score_falls_with_the_calibration_ratio() -> None:
    labels = [np.repeat([[0.0], [1.0]], 50, axis=0).astype(np.float32) for _ in range(8)]
    right = decided([one * 0.9 + 0.05 for one in labels], labels)
    wrong = decided([(1 - one) * 0.9 + 0.05 for one in labels], labels)
    scores = []
    for found in (right, wrong):
        decisions = Decisions(1)
        decisions.load_state_dict(found)
        scores.append(decisions.expected_f1(labels[0] * 0.9 + 0.05))
    assert scores[0] > 0.85
    assert scores[1] < 0.3


def test_the_score_is_never_above_the_expected_f1() -> None:
    labels = [np.repeat([[0.0], [1.0]], 50, axis=0).astype(np.float32) for _ in range(8)]
    unsure = [one * 0.6 + 0.2 for one in labels]  # and right everywhere
    decisions = Decisions(1)
    decisions.load_state_dict(decided(unsure, labels))
    assert decisions.expected_f1(unsure[0]) == pytest.approx(expected_f1(unsure[0], decisions.thresholds.numpy()))


class Correction(torch.nn.Module):
    """Says of the first label three times as surely what the scores say, and of the second the opposite."""

    def calibrated(self, scores: torch.Tensor) -> torch.Tensor:
        return scores

    def read(self, scores: torch.Tensor) -> torch.Tensor:
        return scores * torch.tensor([3.0, -1.0])


def test_a_correction_counts_where_it_helps_on_held_out_videos() -> None:
    labels = np.repeat(np.float32([[0, 0], [1, 1]]), 5, axis=0)
    scores = 2 * labels - 1
    video = ScoredVideo(scores, labels, np.ones((10, 1), np.float32))
    assert best_gate(Correction(), [video]).tolist() == [1, 0]
    # What doesn't count decides nothing.
    ignored = ScoredVideo(-scores, labels, np.zeros((10, 1), np.float32))
    assert best_gate(Correction(), [video, ignored, ignored]).tolist() == [1, 0]


# --- Starting from another project


def looks_like(seed: int, direction: int, events: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """A label that a direction of the features tells, among much that tells nothing."""
    random = np.random.default_rng(seed)
    truth = np.zeros((200, 1), np.float32)
    for start in random.choice(np.arange(0, 190, 20), events, replace=False):
        truth[start : start + 12] = 1
    state = np.random.default_rng(direction).normal(size=FEATURES)
    features = 1.5 * random.normal(size=(200, FEATURES)) + random.normal(size=FEATURES) + 0.8 * truth * state
    return features.astype(np.float32), truth


def named(examples: list, labels: dict[str, int], start_from: MultiLabelLSTM | None = None) -> MultiLabelLSTM:
    model = MultiLabelLSTM(FEATURES, len(labels), hidden_size=8)
    model.set_label_map(labels)
    features, truths = zip(*examples, strict=True)
    columns = [np.concatenate([t, np.roll(t, 50, axis=0)], axis=1)[:, : len(labels)] for t in truths]
    model.header["metrics"] = model.partial_fit(list(features), columns, start_from=start_from)
    return model


def mean_f1(model: MultiLabelLSTM, column: int = 0) -> float:
    new = [looks_like(seed, direction=1) for seed in range(100, 110)]
    return float(np.mean([f1(truth, found(model, features)[:, [column]]) for features, truth in new]))


def test_a_project_that_starts_from_another_needs_fewer_videos() -> None:
    other = named([looks_like(seed, direction=1) for seed in range(20)], {"Jump": 0})
    few = [looks_like(seed, direction=1) for seed in (50, 51)]
    alone, started = named(few, {"Jump": 0}), named(few, {"Run": 1, "Jump": 0}, other)
    assert mean_f1(started) > mean_f1(alone) + 0.05
    assert learnt(started)["Jump"]["started from"] > 0.2
    assert learnt(started)["Run"]["started from"] < 0.01  # the other project doesn't know it
    assert "started from" not in learnt(alone)["Jump"]


def test_a_classifier_predicts_for_other_labels_those_of_the_same_name() -> None:
    other = named([looks_like(seed, direction=1) for seed in range(4)], {"Jump": 0, "Later": 1})
    borrowed = other.with_labels({"Run": 0, "Later": 1, "Jump": 2})
    features, _ = looks_like(7, direction=1)
    probs, theirs = borrowed.predict(features), other.predict(features)
    assert not probs[:, 0].any()
    assert probs[:, [2, 1]] == pytest.approx(theirs, abs=1e-6)
    assert (borrowed.decisions.labels(probs)[:, [2, 1]] == other.decisions.labels(theirs)).all()
    exclusive = borrowed.decisions.labels(probs, exclusive=True)
    assert not exclusive[:, 0].any()
    assert (exclusive[:, [2, 1]] == other.decisions.labels(theirs, exclusive=True)).all()


def test_a_project_that_misleads_does_no_harm() -> None:
    misleading = named([looks_like(seed, direction=2) for seed in range(20)], {"Jump": 0})
    own = [looks_like(seed, direction=1) for seed in range(50, 60)]
    alone, started = named(own, {"Jump": 0}), named(own, {"Jump": 0}, misleading)
    assert mean_f1(started) > mean_f1(alone) - 0.02
    assert learnt(started)["Jump"]["started from"] < 0.05


def test_a_probe_that_started_from_another_scores_rows_as_it_was_fitted() -> None:
    """The other project's part is folded into the weights: without it, nothing of the label would be left."""
    other = named([looks_like(seed, direction=1) for seed in range(20)], {"Jump": 0})
    few = [looks_like(seed, direction=1) for seed in (50, 51)]
    started = named(few, {"Jump": 0}, other)
    features, _ = looks_like(7, direction=1)
    seen, theirs = (model.probe.scores(features, 25)[:, 0] for model in (started, other))
    assert np.corrcoef(seen, theirs)[0, 1] > 0.9


def test_a_classifier_of_other_features_can_not_be_started_from() -> None:
    other = MultiLabelLSTM(4, 1, hidden_size=8)
    other.set_label_map({"Jump": 0})
    with pytest.raises(ValueError, match="to start from reads"):
        named([looks_like(0, direction=1)], {"Jump": 0}, other)
