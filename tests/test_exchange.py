"""Exports and imports: what is written says what was drawn, other programs understand it, and it comes back."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from errors import InvalidRequest
from terminal.formats import boris, event_csv
from terminal.formats.label_studio import tasks_with_annotations
from terminal.formats.registry import FORMATS
from tests.servers import region
from utils.cells import FORMULA, TEXT, from_cell, to_cell
from video.labeling_frames import labeling_frames
from video.timeline import Clock, Event, Observation, Timeline, events_of_regions, regions_of_events

RATES = (1, 10, 12.5, 24, 25, 29.97, 30, 60, 120)
LABELS = ("Ball", "Tor, weit", 'Sprung "hoch"', "=1+1", "🐕")
NUM_FRAMES = 400


def clock(frame_rate: float = 25, file_rate: float = 25, seconds: float = 16) -> Clock:
    times = np.arange(round(seconds * file_rate)) / file_rate
    return Clock(frame_rate, labeling_frames(times, seconds, frame_rate), file_rate, seconds)


def timeline(*events: Event, source: str = "annotation 1", video: str = "a/kick.mp4", **keys: object) -> Timeline:
    observation = Observation(video, source, events, task=7)
    return Timeline(observation, **{"clock": clock(), "labels": ("Ball", "Goal"), **keys})


def written(name: str, *timelines: Timeline) -> io.StringIO | io.BytesIO:
    file = io.BytesIO() if FORMATS[name].binary else io.StringIO(newline="")
    FORMATS[name].write(timelines, file)
    file.seek(0)
    return file


frame_ranges = st.tuples(st.integers(1, NUM_FRAMES), st.integers(0, 60)).map(lambda r: (r[0], min(sum(r), NUM_FRAMES)))
drawn_events = st.lists(st.tuples(st.sampled_from(LABELS), frame_ranges, st.none() | st.floats(0, 1)), max_size=12)


def drawn_timeline(events: list, rate: float, source: str = "annotation 1") -> Timeline:
    made = [Event.of_frames(label, *frames, rate, score) for label, frames, score in events]
    return Timeline(Observation("kick, 1.mp4", source, made, 7), clock(rate, 25, NUM_FRAMES / rate), LABELS)


@given(frame_ranges, st.sampled_from(RATES))
def test_frames_survive_seconds(frames: tuple[int, int], rate: float) -> None:
    assert Event.of_frames("Ball", *frames, rate).frames(rate) == frames


@given(drawn_events, st.sampled_from(RATES))
def test_regions_round_trip(events: list, rate: float) -> None:
    made = drawn_timeline(events, rate).observation.events
    assert events_of_regions(regions_of_events(made, rate, "tl", "video"), rate) == list(made)


@given(drawn_events, drawn_events, st.sampled_from(RATES))
def test_event_csv_round_trip(first: list, second: list, rate: float) -> None:
    timelines = [drawn_timeline(first, rate), drawn_timeline(second, rate, "yolov8n-cls-v2")]
    observations = event_csv.read(written("events", *timelines))
    assert observations == [one.observation for one in timelines if one.observation.events]


@given(drawn_events, st.sampled_from(RATES))
def test_boris_round_trip(events: list, rate: float) -> None:
    before = drawn_timeline(events, rate)
    (observation,) = boris.read(written("boris", before))
    after = Timeline(observation, before.clock, LABELS)
    np.testing.assert_array_equal(after.marks(), before.marks())


def test_seconds_and_both_kinds_of_frames_in_an_event_csv() -> None:
    # Labelled at 25 in a file of 50 frames a second: labeling frame 11 is shown from 0.40 s on, its middle at 0.42 s is
    # the file's 22nd frame, which is shown from 0.42 s on.
    event = Event.of_frames("Ball", 11, 30, 25, score=0.75)
    table = pd.read_csv(written("events", timeline(event, clock=clock(25, 50))))
    (row,) = table.to_dict("records")
    assert row == {
        "video": "a/kick.mp4",
        "task": 7,
        "source": "annotation 1",
        "label": "Ball",
        "start_seconds": 0.4,
        "stop_seconds": 1.2,
        "start_frame": 11,
        "stop_frame": 30,
        "start_file_frame": 22,
        "stop_file_frame": 60,
        "score": 0.75,
    }


@given(drawn_events, st.sampled_from(RATES))
def test_a_frame_csv_has_a_row_for_each_frame(events: list, rate: float) -> None:
    made = drawn_timeline(events, rate)
    table = pd.read_csv(written("frames", made))
    assert len(table) == made.clock.num_frames
    assert table["frame"].tolist() == list(range(1, made.clock.num_frames + 1))
    np.testing.assert_array_equal(table[list(map(to_cell, LABELS))].to_numpy(), made.marks())
    assert not any(column.startswith("probability") for column in table)


def test_a_frame_csv_shows_probabilities_beside_annotations() -> None:
    probabilities = np.linspace(0, 1, 800, dtype=np.float32).reshape(400, 2)
    annotated, predicted = timeline(), timeline(source="v2", probabilities=probabilities)
    table = pd.read_csv(written("frames", annotated, predicted))
    assert len(table) == 800
    assert table["probability of Ball"][:400].isna().all()
    np.testing.assert_allclose(table["probability of Ball"][400:], probabilities[:, 0], atol=1e-4)


def test_a_boris_project_as_boris_reads_it() -> None:
    """By BORIS' rules: an ethogram with every label, and pairs of state changes, of one behaviour in turn."""
    events = (
        Event.of_frames("Ball", 1, 10, 25, 0.9),
        Event.of_frames("Ball", 11, 20, 25),
        Event.of_frames("Goal", 5, 15, 25),
    )
    project = json.load(written("boris", timeline(*events), timeline(source="v2"), timeline(source="v2")))
    assert [entry["code"] for entry in project["behaviors_conf"].values()] == ["Ball", "Goal"]
    assert {entry["type"] for entry in project["behaviors_conf"].values()} == {"State event"}
    assert list(project["observations"]) == [
        "task 7 kick.mp4, annotation 1",
        "task 7 kick.mp4, v2",
        "task 7 kick.mp4, v2 (2)",
    ]
    observation = project["observations"]["task 7 kick.mp4, annotation 1"]
    assert observation["file"]["1"] == ["a/kick.mp4"]
    assert observation["media_info"]["length"] == {"a/kick.mp4": 16}
    times = {label: [row[0] for row in observation["events"] if row[2] == label] for label in ("Ball", "Goal")}
    assert times == {"Ball": [0, 0.4, 0.4, 0.8], "Goal": [0.16, 0.6]}
    assert [row[0] for row in observation["events"]] == sorted(row[0] for row in observation["events"])
    assert all(len(row) == 6 for row in observation["events"])


def boris_project(**observation: object) -> io.StringIO:
    ethogram = {"0": {"code": "Ball", "type": "State event"}, "1": {"code": "Hop", "type": "Point event"}}
    whole = {"type": "MEDIA", "file": {"1": ["kick.mp4"], "2": []}, "time offset": 0.0, "events": []} | observation
    return io.StringIO(json.dumps({"behaviors_conf": ethogram, "observations": {"first": whole}}))


def test_a_project_made_with_boris() -> None:
    """Subjects at once, modifiers, a point event, an offset, events of the older five columns."""
    rows = [
        [100.0, "Ann", "Ball", "", ""],
        [100.4, "Ben", "Ball", "", ""],
        [101.0, "Ann", "Ball", "", ""],
        [101.2, "Ben", "Ball", "", "", 30],
        [102.0, "", "Hop", "high", ""],
    ]
    (observation,) = boris.read(boris_project(**{"events": rows, "time offset": 100.0}))
    frames = [(event.label, *event.frames(10)) for event in observation.events]
    assert frames == [("Ball", 1, 10), ("Ball", 5, 12), ("Hop", 21, 21)]
    assert (observation.video, observation.source) == ("kick.mp4", "first")


@pytest.mark.parametrize(
    ("file", "words"),
    [
        (io.StringIO("[1"), "isn't a BORIS project"),
        (io.StringIO("[]"), "isn't a BORIS project"),
        (boris_project(events=[[1.0, "", "Ball", "", ""]]), "'Ball' starts at 1 s and never stops"),
        (boris_project(file={"1": ["a.mp4", "b.mp4"]}), "has 2 media files"),
        (boris_project(events=[["soon", "", "Ball", "", ""]]), "'first' can't be read"),
        (boris_project(events=[[1.0, "", "Hop", "", ""]], **{"time offset": 2}), "before the video's start"),
    ],
)
def test_a_boris_project_that_cannot_be_read(file: io.StringIO, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        boris.read(file)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("label,start_seconds\nBall,1\n", "no column stop_seconds"),
        ("", "no column label, start_seconds, stop_seconds"),
        ("label,start_seconds,stop_seconds\nBall,1,x\n", "Line 2: .* must be numbers"),
        ("label,start_seconds,stop_seconds\nBall,2,1\n", "Line 2: start_seconds must be at least 0"),
        ("label,start_seconds,stop_seconds\nBall,nan,1\n", "Line 2: start_seconds must be at least 0"),
        ("label,start_seconds,stop_seconds\n,1,2\n", "Line 2: the label is missing"),
        ("task,label,start_seconds,stop_seconds\nx,Ball,1,2\n", "id of a task"),
    ],
)
def test_an_event_table_that_cannot_be_read(text: str, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        event_csv.read(io.StringIO(text))


@given(st.text(max_size=20), st.sampled_from(["", *FORMULA, TEXT, TEXT + "="]))
def test_no_text_is_a_formula(text: str, start: str) -> None:
    cell = to_cell(start + text)
    assert not cell.startswith(FORMULA)
    assert from_cell(cell) == start + text


@pytest.mark.parametrize("name", ["events", "frames"])
def test_no_cell_of_a_table_is_a_formula(name: str) -> None:
    """A label, an annotator's name and a file's name are anybody's."""
    formula = "=cmd|' /C calc'!A0"
    made = timeline(Event(formula, 1, 2), source=formula, video=formula, labels=("@SUM(1)", formula))
    cells = [cell for row in csv.reader(written(name, made)) for cell in row]
    assert formula not in cells
    assert not [cell for cell in cells if cell.startswith(FORMULA)]
    assert "'" + formula in cells


def test_a_table_of_another_program_becomes_annotations_in_order_of_time() -> None:
    table = "start_seconds,label,stop_seconds,note\n0.4,Ball,1.2,x\n0,Goal,0,instant\n"
    (task,) = tasks_with_annotations(
        event_csv.read(io.StringIO(table)), 25, data_key="video", from_name="tl", to_name="v", url=lambda _: "/kick.mp4"
    )
    assert task["data"] == {"video": "/kick.mp4"}
    (annotation,) = task["annotations"]
    values = [result["value"] for result in annotation["result"]]
    assert values == [region(1, 1, "Goal")["value"], region(11, 30, "Ball")["value"]]
    assert {(r["from_name"], r["to_name"], r["type"]) for r in annotation["result"]} == {("tl", "v", "timelinelabels")}


def test_fiftyone_knows_a_video_of_label_studio_by_its_file_s_name() -> None:
    urls = ("/data/local-files/?d=a%20kick.mp4", "/data/local-files/?d=b/goal.mp4", "/data/upload/1/goal.mp4?key=1.2")
    labels = json.load(written("fiftyone", *(timeline(video=url) for url in urls)))["labels"]
    assert list(labels) == ["a kick", "b/goal", "/data/upload/1/goal"]


def test_fiftyone_counts_the_files_own_frames() -> None:
    # Labelled at 10 in a file of 25: labeling frame 11's middle is at 1.05 s, where the file's frame 27 is shown.
    event = Event.of_frames("Goal", 11, 20, 10, 0.5)
    made = timeline(event, clock=clock(10, 25))
    labels = json.load(written("fiftyone", made, timeline(video="b/kick.mp4"), timeline(video="c/goal.mp4")))
    assert labels == {
        "classes": ["Ball", "Goal"],
        "labels": {
            "a/kick": [{"label": 1, "support": [27, 49], "attributes": {"source": "annotation 1"}, "confidence": 0.5}],
            "b/kick": [],
            "goal": [],
        },
    }


def test_several_labels_and_ranges_of_one_region() -> None:
    drawn = region(3, 4, "Ball", "Goal")
    drawn["value"]["ranges"].append({"start": 8, "end": 8})
    events = events_of_regions([drawn, region(1, 2, "Ball", from_name="other")], 1, from_name="tl")
    assert [(event.label, event.start, event.stop) for event in events] == [
        ("Ball", 2, 4),
        ("Goal", 2, 4),
        ("Ball", 7, 8),
        ("Goal", 7, 8),
    ]
