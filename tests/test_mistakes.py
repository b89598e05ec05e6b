"""Where predictions are wrong, on timelines that can be counted by hand."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from learning.mistakes import KINDS, Compared, mistakes

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
