"""Where predictions are wrong, on timelines that can be counted by hand."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from learning.mistakes import KINDS, Compared, mistakes
from ml_backend.dashboard.mistakes import LATEST_TESTS, MAX_TABLE_LABELS, latest
from ml_backend.store.tables import Training

RATE = 10.0


def timeline(*rows: str) -> np.ndarray:
    """[num_frames, num_labels] of one row a label: "." for off, "#" for on."""
    return np.array([[mark == "#" for mark in row] for row in rows]).T


def of_one(truth: str, predicted: str) -> dict:
    return mistakes([Compared(timeline(truth), timeline(predicted), RATE)], ["A"])["labels"]["A"]


def test_nothing_is_wrong() -> None:
    found = of_one("..###..##", "..###..##")
    assert {kind: found[kind] for kind in KINDS} == dict.fromkeys(KINDS, 0)
    assert (found["events"], found["missed_events"], found["invented_events"]) == (2, 0, 0)
    assert found["edge_seconds"] == [0, 0, 0, 0]


def test_whole_events() -> None:
    found = of_one("###.......", ".......###")
    assert (found["missed"], found["invented"], found["edges"], found["within"]) == (0.3, 0.3, 0, 0)
    assert (found["events"], found["missed_events"], found["invented_events"]) == (1, 1, 1)
    assert found["edge_seconds"] == []


def test_edges() -> None:
    """It begins two frames too early, and ends one too early."""
    found = of_one("....####..", "..#####...")
    assert (found["missed"], found["invented"], found["edges"], found["within"]) == (0, 0, 0.3, 0)
    assert found["edge_seconds"] == [0.1, 0.2]


def test_an_event_in_pieces() -> None:
    found = of_one("########", "##..####")
    assert (found["missed"], found["edges"], found["within"]) == (0, 0, 0.2)


def test_two_events_joined() -> None:
    """Between them there is no edge that could be off."""
    found = of_one(".##..####", ".#######.")
    assert (found["missed"], found["invented"], found["edges"], found["within"]) == (0, 0, 0.1, 0.2)
    assert found["edge_seconds"] == [0, 0.1]


def test_labels_taken_for_each_other() -> None:
    truth = timeline("####......", "......##..", "##########")
    predicted = timeline("##......#.", "..#...#...", "##########")
    found = mistakes([Compared(truth, predicted, RATE)], ["A", "B", "C"])["confusion"]
    assert {(annotated, taken): seconds for annotated, taken, seconds in found} == {
        ("C", "C"): 1.0,
        ("A", "A"): 0.2,
        ("A", "B"): 0.1,
        ("A", None): 0.1,
        ("B", "B"): 0.1,
        ("B", None): 0.1,
        (None, "A"): 0.1,
    }


masks = st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans(), st.booleans()), min_size=1, max_size=60)


@given(masks)
def test_every_wrong_frame_is_counted_once(rows: list[tuple[bool, ...]]) -> None:
    frames = np.array(rows)
    truth, predicted = frames[:, :2], frames[:, 2:]
    found = mistakes([Compared(truth, predicted, 1.0)], ["A", "B"])
    wrong = (truth != predicted).sum(axis=0)
    for label, frames_wrong in zip("AB", wrong, strict=True):
        assert sum(found["labels"][label][kind] for kind in KINDS) == frames_wrong
    annotated = sum(seconds for one, _, seconds in found["confusion"] if one is not None)
    assert round(annotated) == truth.sum()


def after_a_test(truth: np.ndarray, predicted: np.ndarray, labels: list[str], rate: float = RATE) -> Training:
    test = {"videos": 1, "mistakes": mistakes([Compared(truth, predicted, rate)], labels)}
    return Training(metrics={"tl": {"prequential": test}})


def test_the_latest_tests_in_words() -> None:
    labels = ["A", "B"]
    truth = timeline("####################..........", "....................##########")
    predicted = timeline("##########....................", "..........####################")
    found = latest([after_a_test(truth, predicted, labels)] * 30, "tl", labels, has_timeline=True)
    assert found.videos == LATEST_TESTS
    assert found.where == (
        "It was wrong for 20 s in all: 100 % at the edges of events, of which nine in ten are right within 1.0 s."
    )
    assert found.labels == {"A": ("10", "0", "0", "1.0 s"), "B": ("10", "0", "0", "1.0 s")}
    assert found.taken == ["A is taken for B: 10 s of 20 s."]
    assert [cell.text for cell in found.rows["A"]] == ["10 s", "10 s", ""]
    assert [cell.right for cell in found.rows["A"]] == [True, False, False]


def test_videos_as_a_whole_are_counted_as_videos() -> None:
    labels = ["A", "B"]
    trainings = [after_a_test(timeline("#", "."), timeline(".", "#"), labels, rate=1.0) for _ in range(3)]
    found = latest(trainings, "tl", labels, has_timeline=False)
    assert found.taken == ["A is taken for B: 3 videos of 3 videos."]
    assert (found.where, found.labels) == ("", {})


def test_labels_that_are_gone_and_labels_that_are_many() -> None:
    old = after_a_test(timeline("#.", ".#"), timeline("#.", "#."), ["A", "Gone"])
    assert latest([old], "tl", ["A"], has_timeline=True).columns == ["A", "nothing"]
    many = [f"L{number}" for number in range(MAX_TABLE_LABELS + 1)]
    assert latest([old], "tl", many, has_timeline=True).rows == {}
    assert latest([Training(metrics=None)], "tl", ["A"], has_timeline=True) is None
