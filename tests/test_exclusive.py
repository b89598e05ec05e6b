"""Labels that exclude each other: transitions from annotations, and the best path."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from learning.dataset import Dataset, Example
from learning.decisions import Decisions, decide
from learning.events import drop_short, merge_gaps
from learning.exclusive import best_states, learn_transitions, states_of
from learning.probe import HeldOut


def labels_of(text: str) -> np.ndarray:
    """[num_frames, 2] from a letter a frame: "." none, "a", "b", "x" both."""
    return np.array([[letter in "ax", letter in "bx"] for letter in text], np.float32)


def annotated(*labels: np.ndarray, masks: tuple[np.ndarray | None, ...] = (None,), weights: tuple[float, ...] = (1.0,)):
    features = [np.full((len(target), 1), number, np.float32) for number, target in enumerate(labels)]
    rows = zip(range(len(labels)), features, labels, weights, masks * len(labels), strict=False)
    return Dataset([Example(*row, frame_rate=10) for row in rows], 2)


def test_of_several_labels_in_a_frame_the_one_that_began_last_counts() -> None:
    assert states_of(labels_of("..aaxxbb.")).tolist() == [0, 0, 1, 1, 2, 2, 2, 2, 0]


def test_transitions_follow_the_annotations() -> None:
    transitions = learn_transitions(annotated(labels_of("..aaaabb" * 3 + "..")))
    assert transitions[1, 2] > 0.8 > 0.2 > transitions[1, 0]
    assert np.diag(transitions).tolist() == [0, 0, 0]
    assert transitions.sum(axis=1) == pytest.approx([1, 1, 1])


def test_nothing_is_counted_across_frames_that_were_not_reviewed() -> None:
    target = labels_of("aaaa....bbbb")
    mask = np.array([letter != "." for letter in "aaaa....bbbb"])
    assert learn_transitions(annotated(target, masks=(mask,)))[1].tolist() == pytest.approx([0.5, 0, 0.5])


def test_the_weight_of_an_annotation_counts() -> None:
    data = annotated(labels_of("ab"), labels_of("a."), weights=(3.0, 1.0))
    assert learn_transitions(data)[1] == pytest.approx([1.5 / 5, 0, 3.5 / 5])


@pytest.mark.parametrize("seed", range(5))
def test_the_path_is_the_best_of_all_paths(seed: int) -> None:
    random = np.random.default_rng(seed)
    gains, costs = random.normal(size=(6, 2, 3)), random.uniform(0, 2, (2, 3, 3)) * (1 - np.eye(3))
    for chain, states in enumerate(best_states(gains, costs).T):

        def worth(path: tuple[int, ...], chain: int = chain) -> float:
            return gains[range(6), chain, path].sum() - costs[chain, path[:-1], path[1:]].sum()

        assert tuple(states) == max(product(range(3), repeat=6), key=worth)


def test_flicker_is_smoothed_and_never_two_labels_are_on() -> None:
    target = labels_of("." * 40 + "a" * 40 + "b" * 40 + "." * 40)
    rng = np.random.default_rng(0)
    probs = np.where(target > 0, 0.7, 0.2)
    flipped = rng.random(len(probs)) < 0.1
    probs[flipped] = 0.9 - probs[flipped]
    decisions, data = Decisions(2), annotated(target)
    held_out = HeldOut(probs, target, np.ones(len(probs)), np.zeros(len(probs)), probs)
    decisions.load_state_dict(decide(probs, probs, held_out, data))
    found = decisions.labels(probs, frame_rate=10, exclusive=True)
    assert found.sum(axis=1).max() == 1
    assert np.abs(np.diff(found.astype(int), axis=0)).sum() == 4
    assert (found == (target > 0)).all(axis=1).mean() > 0.95


def test_an_empty_video_has_no_labels() -> None:
    assert Decisions(2).labels(np.zeros((0, 2)), exclusive=True).shape == (0, 2)


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
