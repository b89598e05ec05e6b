"""Each exchange format as its own library reads and writes it, and what is answered to files that can't be read."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyannote.database.util import load_rttm

from errors import InvalidRequest
from terminal.formats import rttm
from terminal.formats.names import file_name, stems
from terminal.formats.registry import FORMATS
from tests.test_exchange import RATES, drawn_events, drawn_timeline, timeline, written
from video.timeline import Event, Observation

EXAMPLES = Path(__file__).parent / "data" / "formats"


def example(name: str) -> Path:
    return EXAMPLES / f"{name}{FORMATS[name].suffix}"


def without_source(observation: Observation) -> tuple[Any, ...]:
    return observation.video, observation.events


def test_who_wrote_an_example_is_said() -> None:
    said = set(re.findall(r"^\| `(\S+)` \| .+ \| .+ \|$", (EXAMPLES / "README.md").read_text(), re.MULTILINE))
    assert said == {path.name for path in EXAMPLES.iterdir()} - {"README.md"}


@pytest.mark.parametrize(
    ("video", "name"),
    [
        ("/videos/a b/kick.mp4", "kick.mp4"),
        ("/data/local-files/?d=kick.mp4", "kick.mp4"),
        ("/data/local-files/?d=a/kick 50%?.mp4", "kick 50%?.mp4"),
        ("/data/upload/3/0a1b-kick.mp4", "0a1b-kick.mp4"),
        ("https://example.org/a/kick.mp4?key=a/b", "kick.mp4"),
        ("s3://bucket/kick.mp4", "kick.mp4"),
        ("who?.mp4", "who?.mp4"),
    ],
)
def test_the_name_of_a_videos_file(video: str, name: str) -> None:
    assert file_name(video) == name


def test_videos_of_one_name_are_told_apart() -> None:
    assert list(stems(["a/kick.mp4", "b/kick.mp4", "b/kick.mp4", "kick (2).mp4"]).values()) == [
        "kick",
        "kick (2)",
        "kick (2) (2)",
    ]


@given(drawn_events, drawn_events, st.sampled_from(RATES))
def test_rttm_round_trip(first: list, second: list, rate: float) -> None:
    timelines = [drawn_timeline(first, rate), drawn_timeline(second, rate, "yolov8n-cls-v2 (3 videos)")]
    expected = [
        (one.observation.source, [(event.label, *event.frames(rate)) for event in one.observation.events])
        for one in timelines
        if one.observation.events
    ]
    if not expected:
        with pytest.raises(InvalidRequest, match="begins with SPEAKER"):
            rttm.read(written("rttm", *timelines))
        return
    read = rttm.read(written("rttm", *timelines))
    assert {one.video for one in read} == {"kick, 1"}
    assert [(one.source, [(event.label, *event.frames(rate)) for event in one.events]) for one in read] == expected


def test_rttm_as_pyannote_reads_it(tmp_path: Path) -> None:
    events = Event("Ball", 0.4, 1.2, 0.75), Event("Tor, weit", 1, 12.345678)
    path = tmp_path / "a.rttm"
    made = written(
        "rttm",
        timeline(*events),
        timeline(*events, source="v2"),
        timeline(video="b c/kick.mp4"),
        timeline(events[0], video="the goal.mp4"),
    )
    path.write_text(made.getvalue())
    read = load_rttm(path)
    assert {
        name: [(segment.start, round(segment.end, 6), label) for segment, _, label in one.itertracks(yield_label=True)]
        for name, one in read.items()
    } == {
        "kick": [(0.4, 1.2, "Ball")] * 2 + [(1, 12.345678, "Tor,%20weit")] * 2,
        "the%20goal": [(0.4, 1.2, "Ball")],
    }


def test_rttm_of_pyannote() -> None:
    with example("rttm").open() as file:
        assert rttm.read(file) == [
            Observation("kick", "", (Event("Ball_in_frame", 0, 2.04), Event("Ball_touch", 0.4, 1.2))),
            Observation("goal", "", (Event("Ball_touch", 12.345, 13),)),
        ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no line that begins with SPEAKER"),
        ("label,start\nBall,1\n", "no line that begins with SPEAKER"),
        (";; by hand\n\nSPEAKER kick 1 0.4\n", "Line 3 has 4 fields"),
        ("SPEAKER kick 1 soon 0.8 <NA> <NA> Ball <NA> <NA>\n", "Line 1: .* must be numbers"),
        ("SPEAKER kick 1 0.4 -1 <NA> <NA> Ball <NA> <NA>\n", "Line 1: start and duration must be at least 0"),
        ("SPEAKER kick 1 nan 1 <NA> <NA> Ball <NA> <NA>\n", "Line 1: start and duration must be at least 0"),
        ("SPEAKER kick 1 0.4 1 <NA> <NA> Ball nan <NA>\n", "Line 1: .* the confidence a number"),
    ],
)
def test_an_rttm_that_cannot_be_read(text: str, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        rttm.read(io.StringIO(text))
