"""Labels that exclude each other: durations and transitions from annotations, and the path that is decoded."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from learning.events import drop_short, merge_gaps
from learning.exclusive import StateModel, decode, learn_states, states_of


def labels_of(text: str) -> np.ndarray:
    """[num_frames, 2] from a letter a frame: "." none, "a", "b", "x" both."""
    return np.array([[letter in "ax", letter in "bx"] for letter in text], np.float32)


def everything(*labels: np.ndarray) -> list[np.ndarray]:
    return [np.ones(len(target), bool) for target in labels]


def test_of_several_labels_in_a_frame_the_one_that_began_last_counts() -> None:
    assert states_of(labels_of("..aaxxbb.")).tolist() == [0, 0, 1, 1, 2, 2, 2, 2, 0]


def test_durations_are_seconds_and_transitions_follow_the_annotations() -> None:
    labels = [labels_of("..aaaabb" * 3 + "..")]
    model = learn_states(labels, everything(*labels), [1.0], [2])
    assert model.durations == pytest.approx([1.0, 2.0, 1.0])
    assert model.transitions[1, 2] > 0.8 > 0.2 > model.transitions[1, 0]
    assert np.diag(model.transitions).tolist() == [0, 0, 0]
    assert model.transitions.sum(axis=1) == pytest.approx([1, 1, 1])
    assert model.shares.sum() == pytest.approx(1)


def test_nothing_is_counted_across_frames_that_were_not_reviewed() -> None:
    target = labels_of("aaaa....bbbb")
    mask = np.array([letter != "." for letter in "aaaa....bbbb"])
    model = learn_states([target], [mask], [1.0], [1])
    assert model.transitions[1].tolist() == pytest.approx([0.5, 0, 0.5])
    assert model.durations[1:] == pytest.approx([4, 4])


def test_the_weight_of_an_annotation_counts() -> None:
    long, short = labels_of("aaaaaaaa."), labels_of("aa.")
    model = learn_states([long, short], everything(long, short), [3.0, 1.0], [1, 1])
    assert model.durations[1] == pytest.approx((3 * 8 + 2) / 4)


@pytest.mark.parametrize("seed", range(5))
def test_the_path_is_the_best_of_all_paths(seed: int) -> None:
    rng = np.random.default_rng(seed)
    probs = rng.uniform(0.02, 0.98, (6, 2))
    transitions = rng.uniform(0.1, 1, (3, 3)) * (1 - np.eye(3))
    transitions /= transitions.sum(axis=1, keepdims=True)
    shares = rng.uniform(0.1, 1, 3)
    model = StateModel(transitions, rng.uniform(1, 5, 3), shares / shares.sum())
    odds = np.concatenate([np.ones((6, 1)), probs / (1 - probs)], axis=1)
    likelihood = odds / odds.sum(axis=1, keepdims=True) / model.shares
    stay = 1 - 1 / np.maximum(model.durations * 2, 2)

    def probability(path: tuple[int, ...]) -> float:
        value = model.shares[path[0]] * likelihood[0, path[0]]
        for frame in range(1, 6):
            before, state = path[frame - 1], path[frame]
            move = stay[state] if before == state else (1 - stay[before]) * transitions[before, state]
            value *= move * likelihood[frame, state]
        return value

    best = max(product(range(3), repeat=6), key=probability)
    found = decode(probs, model, frame_rate=2)
    assert (found @ [1, 2]).tolist() == list(best)


def test_flicker_is_smoothed_and_never_two_labels_are_on() -> None:
    target = labels_of("." * 40 + "a" * 40 + "b" * 40 + "." * 40)
    model = learn_states([target], everything(target), [1.0], [10])
    rng = np.random.default_rng(0)
    probs = np.where(target > 0, 0.7, 0.2)
    flipped = rng.random(len(probs)) < 0.1
    probs[flipped] = 0.9 - probs[flipped]
    found = decode(probs, model, frame_rate=10)
    assert found.sum(axis=1).max() == 1
    assert np.abs(np.diff(found.astype(int), axis=0)).sum() == 4
    assert (found == (target > 0)).all(axis=1).mean() > 0.95


def test_an_empty_video_has_no_labels() -> None:
    target = labels_of("a.")
    model = learn_states([target], everything(target), [1.0], [1])
    assert decode(np.zeros((0, 2)), model, 1).shape == (0, 2)


@pytest.mark.parametrize(
    ("text", "gap", "shortest", "expected"),
    [
        ("..aa.aa...aa..", 1, 0, "..aaaaa...aa.."),
        ("..aa.aa...aa..", 3, 0, "..aaaaaaaaaa.."),
        ("a.aaa..", 0, 2, "..aaa.."),
        ("a.a....a", 1, 3, "aaa....."),
    ],
)
def test_gaps_are_merged_before_short_events_are_dropped(text: str, gap: int, shortest: int, expected: str) -> None:
    found = drop_short(merge_gaps(labels_of(text) > 0, gap), shortest)
    assert (found == labels_of(expected)).all()
