"""The order of tasks: what is least certain and resembles nothing annotated comes first, and nothing twice alike."""

from __future__ import annotations

import numpy as np
import pytest

from learning.order import comparable, distances, examples, summary, teaching_order
from progress import Progress


def groups(*sizes: int, spread: float = 0.1) -> np.ndarray:
    """Points around the corners of a simplex, [sum of sizes, number of groups]."""
    random = np.random.default_rng(0)
    corners = 10 * np.eye(len(sizes)).repeat(sizes, axis=0)
    return corners + spread * random.normal(size=corners.shape)


def test_the_largest_group_comes_first_and_no_group_twice_before_all_were() -> None:
    found = examples(groups(3, 8, 5), np.zeros((0, 3)), 99)
    assert [int(np.searchsorted([3, 11], index, side="right")) for index in found[:3]] == [1, 2, 0]
    assert sorted(found) == list(range(16))


def test_what_resembles_an_annotated_video_is_no_example() -> None:
    rows = groups(3, 8, 5)
    found = examples(rows, rows[[4]], 2)
    assert [int(np.searchsorted([3, 11], index, side="right")) for index in found] == [2, 0]
    assert examples(np.zeros((0, 2)), np.zeros((0, 2))) == []


def test_an_outlier_waits_for_a_group() -> None:
    rows = np.concatenate([groups(1, 6), [[40.0, 40.0]]])
    assert examples(rows, rows[[0]])[0] in range(1, 7)


def test_videos_count_by_their_weight() -> None:
    rows = groups(4, 4)
    heavy = np.array([1.0] * 4 + [9.0] * 4)
    assert examples(rows, rows[:0], 1, heavy)[0] >= 4
    assert examples(rows, rows[:0], 1, heavy[::-1])[0] < 4


def test_the_work_ends_where_it_must_stop() -> None:
    def stop(share: float) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        examples(groups(3, 3), np.zeros((0, 2)), progress=Progress(stop))


def test_the_least_certain_comes_first_and_what_is_alike_later() -> None:
    uncertainty = np.array([0.9, 0.8, 0.7, 0.2, 0.1])
    assert teaching_order(uncertainty, np.array([0, 0, 0, 1, 1]), np.zeros(2)) == [0, 3, 1, 4, 2]
    assert teaching_order(uncertainty, np.array([0, 0, 0, 1, 1]), np.array([1, 0])) == [3, 0, 4, 1, 2]
    assert teaching_order(uncertainty, np.zeros(5, int), np.zeros(1)) == [0, 1, 2, 3, 4]
    assert teaching_order(np.zeros(0), np.zeros(0, int), np.zeros(1)) == []


@pytest.mark.parametrize("num_frames", [1, 31, 32, 100, 1000])
def test_a_summary_is_of_frames_all_over_the_video(num_frames: int) -> None:
    ramp = np.linspace(0, 1, num_frames)[:, None]
    mean, deviation = summary(ramp, {"cells": 1})
    assert mean[0] == pytest.approx(ramp.mean(), abs=0.05)
    assert deviation[0] == pytest.approx(ramp.std(), abs=0.03)


def test_blocks_of_any_unit_count_alike() -> None:
    random = np.random.default_rng(1)
    small, large = random.normal(size=(2, 6, 4))
    rows = comparable([[one, 1000 * other, np.zeros(3)] for one, other in zip(small, large, strict=True)])
    assert rows.shape == (6, 8)  # without the block that is the same in all videos
    assert (rows[:, :4] ** 2).sum() == pytest.approx((rows[:, 4:] ** 2).sum())
    assert comparable([[np.ones(2)]]).shape == (1, 1)


def test_distances() -> None:
    np.testing.assert_allclose(distances(np.array([[0.0, 0], [3, 4]]), np.array([[0.0, 0]])), [[0], [5]])
