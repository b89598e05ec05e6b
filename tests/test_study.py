"""Time budgets, transitions and expected times, against values counted by hand and against simulation."""

from __future__ import annotations

import csv
import io
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.budget import Observed, expected_time, time_budget
from study.expected import ExpectedTime, memory_of
from study.expected import expected_time as expected_of_probabilities
from study.tables import subjects, transition_rows, videos
from study.transitions import transitions
from video.timeline import Event, Observation

LABELS = ("Rest", "Run", "Groom")


def observed(
    *events: tuple[str, float, float],
    spans: tuple[tuple[float, float], ...] | None = ((0.0, 60.0),),
    subject: str = "",
    weight: float = 1.0,
    task: int = 1,
) -> Observed:
    found = tuple(Event(*one) for one in events)
    return Observed(
        Observation(f"{task}.mp4", f"annotation {task}", found, task),
        "annotations",
        "tl",
        LABELS,
        spans,
        subject,
        weight,
    )


def test_a_budget_is_what_a_hand_counts() -> None:
    """A minute: rest for 10 s from the start, again from 20 to 26 s, and from 40 to 42 s."""
    budget = time_budget([observed(("Rest", 0, 10), ("Run", 12, 15), ("Rest", 20, 26), ("Rest", 40, 42))], "Rest")
    assert budget.count == 3
    assert budget.total == 18
    assert budget.mean == 6
    assert budget.deviation == 4  # of 10, 6 and 2: (16 + 0 + 16) / 2 = 16
    assert budget.share == pytest.approx(0.3)
    assert budget.latency == 0
    assert budget.rate == 3
    run = time_budget([observed(("Run", 12, 15))], "Run")
    assert (run.latency, run.deviation) == (12, None)
    assert time_budget([observed(("Run", 12, 15))], "Groom") == ("Groom", 0, 0, None, None, 0, None, 0)


def test_events_that_overlap_are_one_bout_and_those_that_touch_are_two() -> None:
    assert observed(("Rest", 1, 4), ("Rest", 3, 6)).bouts("Rest") == [(1, 6)]
    assert observed(("Rest", 1, 4), ("Rest", 4, 6)).bouts("Rest") == [(1, 4), (4, 6)]
    assert observed(("Rest", 1, 9), ("Rest", 3, 6)).bouts("Rest") == [(1, 9)]


def test_what_was_not_observed_does_not_count() -> None:
    """Seconds 10 to 20 and 30 to 40 were looked at; the label begins at 35, after 15 observed seconds."""
    one = observed(("Run", 2, 8), ("Run", 35, 50), spans=((30, 40), (10, 20)))
    budget = time_budget([one], "Run")
    assert (budget.count, budget.total, budget.share) == (1, 5, 0.25)
    assert budget.latency == 15
    assert budget.rate == 3
    unknown = time_budget([observed(("Run", 2, 8), spans=None)], "Run")
    assert (unknown.count, unknown.total, unknown.share, unknown.latency, unknown.rate) == (1, 6, None, 2, None)


def test_several_annotations_of_a_video_count_as_one() -> None:
    """Two people marked 4 s and 8 s in the first video; nobody marked anything in the second."""
    both = [
        observed(("Rest", 0, 4), weight=0.5),
        observed(("Rest", 0, 8), weight=0.5),
        observed(task=2),
    ]
    budget = time_budget(both, "Rest")
    assert (budget.count, budget.total, budget.mean) == (1, 6, 6)
    assert budget.share == pytest.approx(6 / 120)
    assert budget.rate == pytest.approx(0.5)


def test_transitions_follow_the_order_of_beginnings() -> None:
    """Rest, run, rest, groom and run at one moment, rest: counted by hand."""
    one = observed(("Rest", 0, 3), ("Run", 3, 5), ("Rest", 6, 8), ("Groom", 9, 12), ("Run", 9, 10), ("Rest", 20, 30))
    counts = transitions([one], LABELS)
    assert counts.tolist() == [[0, 2, 1], [2, 0, 0], [1, 0, 0]]
    apart = observed(("Rest", 0, 3), ("Run", 3, 5), ("Rest", 40, 45), spans=((0, 10), (30, 60)))
    assert transitions([apart], LABELS).sum() == 1, "nothing is known of what lay between"


def test_the_tables_have_a_row_for_each_label_also_where_it_does_not_occur() -> None:
    data = [
        observed(("Rest", 0, 10), subject="=mouse", task=1),
        observed(("Run", 5, 10), ("Run", 15, 20), subject="=mouse", task=2),
        observed(("Rest", 30, 60), subject="rat", task=3),
    ]
    each = videos(data)
    assert len(each.rows) == 9
    row = dict(zip(each.columns, each.rows[4], strict=True))
    assert (row["video"], row["label"], row["count"], row["total_seconds"]) == ("2.mp4", "Run", 2, 10)
    by = subjects(data)
    rows = {(row[0], row[3]): dict(zip(by.columns, row, strict=True)) for row in by.rows}
    assert len(rows) == 6
    assert rows["=mouse", "Run"]["videos"] == 2
    assert rows["=mouse", "Run"]["share"] == pytest.approx(10 / 120)
    assert rows["rat", "Rest"]["latency_seconds"] == 30
    assert rows["rat", "Groom"]["latency_seconds"] is None
    unknown = subjects([observed(("Rest", 0, 10), spans=None)])
    assert dict(zip(unknown.columns, unknown.rows[0], strict=True))["observed_seconds"] is None
    steps = {tuple(row[:5]): row[5:] for row in transition_rows(data).rows}
    assert steps["=mouse", "annotations", "tl", "Run", "Run"] == (1, 1)
    assert steps["rat", "annotations", "tl", "Run", "Run"] == (0, None)
    file = io.StringIO()
    by.write(file)
    (first, *_) = csv.DictReader(io.StringIO(file.getvalue()))
    assert first["subject"] == "'=mouse", "no spreadsheet program takes it for a formula"
    assert first["expected_seconds"] == ""


@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(1, 20)), max_size=8),
    st.lists(st.tuples(st.integers(0, 50), st.integers(1, 20)), min_size=1, max_size=4),
)
def test_totals_are_the_marked_frames(drawn: list[tuple[int, int]], looked_at: list[tuple[int, int]]) -> None:
    """With an arbitrary set of events and observed intervals, counted a second way: second by second."""
    marks, seen = np.zeros(80, bool), np.zeros(80, bool)
    for start, length in drawn:
        marks[start : start + length] = True
    for start, length in looked_at:
        seen[start : start + length] = True
    one = observed(
        *(("Rest", start, start + length) for start, length in drawn),
        spans=tuple((start, start + length) for start, length in looked_at),
    )
    budget = time_budget([one], "Rest")
    assert budget.total == (marks & seen).sum()
    assert budget.share == pytest.approx((marks & seen).sum() / seen.sum())


# -- what probabilities let expect


def test_independent_frames_and_frames_that_are_wrong_together() -> None:
    probs = np.full(100, 0.5)
    assert expected_of_probabilities(probs, 10, 0) == pytest.approx((5, math.sqrt(100 * 0.25) / 10))
    assert expected_of_probabilities(probs, 10, math.inf) == pytest.approx((5, 5))
    between = expected_of_probabilities(probs, 10, 1).deviation
    assert 0.5 < between < 5
    assert expected_of_probabilities(np.array([0.0, 1.0, 1.0]), 1, 5) == (2, 0)
    assert expected_of_probabilities(np.zeros(0), 1, 5) == (0, 0)


def test_the_deviation_is_that_of_a_two_state_process() -> None:
    """4000 simulated videos of a process whose bouts last 2 s and whose gaps last 6 s on average."""
    rng = np.random.default_rng(0)
    rate, on, off, num_frames = 10, 2.0, 6.0, 600
    stop, start = 1 - math.exp(-1 / (rate * on)), 1 - math.exp(-1 / (rate * off))
    share = start / (start + stop)
    states = rng.random(4000) < share
    totals, marks = np.zeros(4000), []
    for _ in range(num_frames):
        totals += states / rate
        marks.append(states[:300].copy())
        draw = rng.random(4000)
        states = np.where(states, draw >= stop, draw < start)
    memory = np.mean([memory_of(np.array(marks)[:, video], rate) for video in range(300)])
    assert memory == pytest.approx(1 / (1 / on + 1 / off), rel=0.15)
    expected = expected_of_probabilities(np.full(num_frames, share), rate, 1 / (1 / on + 1 / off))
    assert expected.seconds == pytest.approx(totals.mean(), rel=0.05)
    assert expected.deviation == pytest.approx(totals.std(), rel=0.1)


def test_memory_by_hand() -> None:
    marks = np.zeros(100, bool)
    marks[20:30] = marks[60:80] = True  # bouts of 10 and 20 frames, gaps of 20, 30 and 20
    assert memory_of(marks, 10) == pytest.approx(1 / (1 / 1.5 + 3 / 7))
    assert memory_of(np.zeros(50, bool), 10) == memory_of(np.ones(50, bool), 10) == 5


def test_errors_of_videos_add_as_variances() -> None:
    one = observed()
    data = [
        Observed(one.observation, "predictions", "tl", LABELS, one.spans, expected={"Rest": ExpectedTime(*pair)})
        for pair in ((10, 3), (20, 4))
    ]
    assert expected_time(data, "Rest") == (30, 5)
    assert expected_time([*data, one], "Rest") is None
