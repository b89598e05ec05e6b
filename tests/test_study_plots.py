"""The drawings of a study say what was observed, in numbers and in words."""

from __future__ import annotations

import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from ml_backend.dashboard.study_plots import BINS, MAX_DRAWN, MAX_LABELS, UNITS, Plots, plots
from ml_backend.dashboard.study_tables import MAX_ROWS, shown
from study.budget import Observed
from study.tables import subjects, videos
from video.timeline import Event, Observation

COLOURS = {"tl": {"Rest": "#ff0000", "<b>": "blue"}}
LABELS = tuple(COLOURS["tl"])


def observed(
    *events: tuple[str, float, float], task: int = 1, seconds: float | None = 60, kind: str = "annotations"
) -> Observed:
    found = tuple(Event(*event) for event in events)
    spans = None if seconds is None else ((0.0, seconds),)
    return Observed(
        Observation(f"/data/upload/{task}.mp4?x=/y", f"annotation {task}", found, task), kind, "tl", LABELS, spans
    )


def only(*data: Observed) -> Plots:
    (one,) = plots(data, COLOURS)
    return one


def drawn(svg: str, tag: str = "rect") -> list[dict[str, str]]:
    return [dict(element.attrib) for element in ElementTree.fromstring(svg).iter(tag)]


def test_an_ethogram_is_to_scale() -> None:
    """Of two videos of 60 s and 30 s: a bout from 15 to 30 s lies in the second quarter of the longer one's width."""
    one = only(observed(("Rest", 15, 30), ("<b>", 30, 60)), observed(task=2, seconds=30))
    first, second = one.ethogram
    background, rest, other = drawn(first.drawing)
    assert (float(background["x"]), float(background["width"])) == (0, UNITS)
    assert (float(rest["x"]), float(rest["width"]), rest["color"]) == (UNITS / 4, UNITS / 4, "#ff0000")
    assert float(other["y"]) > float(rest["y"])
    assert [float(rect["width"]) for rect in drawn(second.drawing)] == [UNITS / 2]
    assert (first.name, one.end) == ("1.mp4", "1:00.00")
    said = ElementTree.fromstring(first.drawing).attrib["aria-label"]
    assert said == "1.mp4: Rest 1 times, 15.0 s, from 0:15.00 on; <b> 1 times, 30.0 s, from 0:30.00 on"
    assert ElementTree.fromstring(second.drawing).attrib["aria-label"] == "2.mp4: nothing"


def test_an_actogram_has_the_share_of_each_bin() -> None:
    """Bins of a second: all of the tenth, and half of the eleventh."""
    one = only(observed(("Rest", 10, 11.5)))
    assert one.bin_seconds == 60 / BINS == 1
    rest, other = one.actograms
    (area,) = drawn(rest.lanes[0].drawing, "polygon")
    corners = [tuple(map(float, corner.split(","))) for corner in area["points"].split()]
    heights = {x: 1 - y for x, y in corners if y < 1}
    assert sorted(set(heights.values())) == [0.5, 1]
    assert min(heights) == pytest.approx(UNITS * 10 / 60, abs=0.1)
    assert max(heights) == pytest.approx(UNITS * 12 / 60, abs=0.1)
    assert drawn(other.lanes[0].drawing, "polygon") == []
    said = ElementTree.fromstring(rest.lanes[0].drawing).attrib["aria-label"]
    assert said == "1.mp4: Rest takes 2% of 1:00.00"


def test_transitions_are_counts_and_shares() -> None:
    one = only(observed(("Rest", 0, 1), ("<b>", 2, 3), ("Rest", 4, 5), ("Rest", 6, 7), ("<b>", 8, 9)))
    rest, other = one.steps
    assert [(step.count, round(step.share, 2)) for step in rest[1]] == [(1, 0.33), (2, 0.67)]
    assert [(step.count, step.share) for step in other[1]] == [(1, 1), (0, 0)]
    assert re.findall(r'opacity="([\d.]+)"', rest[1][1].drawing) == ["0.67"]


def test_videos_of_unknown_length_and_without_events_are_drawn() -> None:
    one = only(observed(seconds=None), observed(("Rest", 1, 4), task=2, seconds=None))
    assert one.end == "0:04.00"
    assert len(drawn(one.ethogram[1].drawing)) == 2
    assert plots([], COLOURS) == []


def test_a_page_stays_readable_however_many_videos_there_are() -> None:
    data = [observed(("Rest", 1, 4), task=task) for task in range(MAX_DRAWN + 5)]
    one = only(*data)
    assert (len(one.ethogram), one.left_out) == (MAX_DRAWN, 5)
    many = shown(videos([observed(task=task) for task in range(MAX_ROWS)]))
    assert (len(many.rows), many.left_out) == (MAX_ROWS, MAX_ROWS)
    assert many.rows[0][0] == "0.mp4"


def test_a_page_stays_readable_however_many_labels_there_are() -> None:
    """The pairs of thousands of labels would be millions of cells."""
    labels = tuple(f"L{number}" for number in range(2000))
    often = labels[-MAX_LABELS:]
    events = [(label, float(second), second + 0.5) for second, label in enumerate(["L3", *often, "L4", *often])]
    one = only(replace(observed(*events), labels=labels))
    assert [label for label, _ in one.legend] == list(often)
    assert (len(one.actograms), one.labels_left_out) == (MAX_LABELS, 2000 - MAX_LABELS)
    assert [len(cells) for _, cells in one.steps] == [MAX_LABELS] * MAX_LABELS
    counts = {label: [cell.count for cell in cells] for label, cells in one.steps}
    assert counts[often[0]][1] == 2
    assert sum(counts[often[-1]]) == 0  # what came next isn't drawn


def test_a_table_says_where_rows_come_from_where_they_differ_in_it() -> None:
    assert "From" not in shown(subjects([observed()])).headings
    assert "From" in shown(subjects([observed(), observed(kind="predictions")])).headings


def test_several_annotations_of_a_task_are_told_apart_and_kinds_drawn_apart() -> None:
    data = [observed(), observed(), observed(kind="predictions")]
    annotations, predictions = plots(data, COLOURS)
    assert [lane.name for lane in annotations.ethogram] == ["1.mp4, annotation 1"] * 2
    assert [lane.name for lane in predictions.ethogram] == ["1.mp4"]
