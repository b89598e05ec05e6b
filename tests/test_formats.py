"""Each exchange format as its own library reads and writes it, and what is answered to files that can't be read."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import parselmouth
import pympi
import pytest
from hypothesis import given
from hypothesis import strategies as st
from parselmouth import praat
from pyannote.database.util import load_rttm

from errors import InvalidRequest
from terminal.formats import elan, rttm, textgrid
from terminal.formats.files import read_file
from terminal.formats.names import file_name, stems
from terminal.formats.registry import FORMATS
from tests.test_exchange import RATES, drawn_events, drawn_timeline, timeline, written
from video.timeline import Event, Observation

EXAMPLES = Path(__file__).parent / "data" / "formats"


def example(name: str) -> Path:
    return EXAMPLES / f"{name}{FORMATS[name].suffix}"


def read_example(name: str) -> list[Observation]:
    return read_file(FORMATS[name], example(name), ".mp4")


def marked(observation: Observation, rate: float) -> tuple[str, list[tuple[str, int, int]]]:
    return observation.source, [(event.label, *event.frames(rate)) for event in observation.events]


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
    expected = [marked(one.observation, rate) for one in timelines if one.observation.events]
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
    assert read_example("rttm") == [
        Observation("kick.mp4", "", (Event("Ball_in_frame", 0, 2.04), Event("Ball_touch", 0.4, 1.2))),
        Observation("goal.mp4", "", (Event("Ball_touch", 12.345, 13),)),
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


@pytest.mark.parametrize("name", ["elan", "textgrid"])
@given(drawn_events, drawn_events, st.sampled_from(RATES))
def test_tiers_round_trip(name: str, first: list, second: list, rate: float) -> None:
    """Each labeling frame keeps its labels, for each of a video's timelines."""
    before = [drawn_timeline(first, rate), drawn_timeline(second, rate, "yolov8n-cls-v2 (3 videos)")]
    read = {one.source: one for one in FORMATS[name].read(written(name, *before))}
    for one in before:
        after = replace(one, observation=read.pop(one.observation.source, Observation("", "", ())))
        np.testing.assert_array_equal(after.marks(), one.marks())
    assert not read


EVENTS = (
    Event("Ball", 0.4, 1.2, 0.75),
    Event("Tor & <weit>", 1, 12.3456),
    Event('Kopfball "über" 🐕', 0, 0.0404),
    Event("Ball", 1.1, 1.52),
)
LABELS = ("Ball", "Tor & <weit>", 'Kopfball "über" 🐕', "Foul")


def test_a_document_as_pympi_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "kick.eaf"
    made = [timeline(*EVENTS, labels=LABELS, video="/clips/a b/kick.mp4", source=source) for source in ("Ann", "v2")]
    path.write_bytes(written("elan", *made).getvalue())
    document = pympi.Eaf(str(path))
    (media,) = document.get_linked_files()
    assert media["MEDIA_URL"] == "file:///clips/a%20b/kick.mp4"
    assert media["RELATIVE_MEDIA_URL"] == "./kick.mp4"
    assert media["MIME_TYPE"] == "video/mp4"
    assert list(document.get_tier_names()) == [f"{label}, {source}" for source in ("Ann", "v2") for label in LABELS]
    for source in ("Ann", "v2"):
        assert document.get_annotation_data_for_tier(f"Ball, {source}") == [(400, 1520, "Ball")]
        assert document.get_annotation_data_for_tier(f"{LABELS[1]}, {source}") == [(1000, 12346, LABELS[1])]
        assert document.get_annotation_data_for_tier(f"{LABELS[2]}, {source}") == [(0, 40, LABELS[2])]
        assert document.get_annotation_data_for_tier(f"Foul, {source}") == []
    assert document.get_parameters_for_tier("Foul, Ann")["ANNOTATOR"] == "Ann"


def test_a_document_of_pympi() -> None:
    assert read_example("elan") == [
        Observation("/videos/kick.mp4", "Ann", (Event("Ball in frame", 0, 2.04), Event("Ball touch", 0.4, 1.2))),
        Observation("/videos/kick.mp4", "Ben", (Event("Ball touch", 0.44, 1.24),)),
    ]


def document(annotation: str = 'TIME_SLOT_REF1="a" TIME_SLOT_REF2="b"', media: str = 'MEDIA_URL="kick.mp4"') -> bytes:
    """An annotation from 0.4 to 1.2 s, as some version of ELAN writes it."""
    return f"""<?xml version="1.0" encoding="UTF-8"?>
        <ANNOTATION_DOCUMENT>
          <HEADER TIME_UNITS="milliseconds"><MEDIA_DESCRIPTOR MIME_TYPE="video/mp4" {media}/></HEADER>
          <TIME_ORDER>
            <TIME_SLOT TIME_SLOT_ID="a" TIME_VALUE="400"/><TIME_SLOT TIME_SLOT_ID="b" TIME_VALUE="1200"/>
            <TIME_SLOT TIME_SLOT_ID="open"/>
          </TIME_ORDER>
          <TIER TIER_ID="Touch">
            <ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a1" {annotation}>
              <ANNOTATION_VALUE>Ball</ANNOTATION_VALUE>
            </ALIGNABLE_ANNOTATION></ANNOTATION>
          </TIER>
        </ANNOTATION_DOCUMENT>""".encode()


def test_the_picture_of_a_document_may_begin_earlier_than_its_time() -> None:
    (observation,) = elan.read(io.BytesIO(document(media='MEDIA_URL="kick.mp4" TIME_ORIGIN="2500"')))
    assert observation == Observation("kick.mp4", "", (Event("Ball", 2.9, 3.7),))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"label,start\n", "isn't XML"),
        (b"", "isn't XML"),
        (document()[:-30], "isn't XML"),
        (b'<?xml version="1.0" encoding="klingon"?><a/>', "isn't XML"),
        (b"<html/>", "its root is <html>"),
        (b'<ANNOTATION_DOCUMENT><HEADER TIME_UNITS="PAL-frames"/></ANNOTATION_DOCUMENT>', "The times are PAL-frames"),
        (b"<ANNOTATION_DOCUMENT/>", "No video is linked"),
        (document('TIME_SLOT_REF1="a" TIME_SLOT_REF2="open"'), r"Tier 'Touch', annotation a1 \('Ball'\) isn't aligned"),
        (document('TIME_SLOT_REF1="a" TIME_SLOT_REF2="gone"'), "annotation a1 .* isn't aligned"),
        (document('TIME_SLOT_REF1="b" TIME_SLOT_REF2="a"'), "annotation a1 .* lasts from 1.2 to 0.4 s"),
        (document(media='MEDIA_URL="kick.mp4" TIME_ORIGIN="-500"'), "annotation a1 .* lasts from -0.1 to 0.7 s"),
        (document(media='MEDIA_URL="kick.mp4" TIME_ORIGIN="soon"'), "TIME_ORIGIN .* 'soon'"),
    ],
)
def test_a_document_that_cannot_be_read(content: bytes, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        elan.read(io.BytesIO(content))


def tier_of_praat(grid: parselmouth.TextGrid, number: int) -> list[tuple[float, float, str]]:
    """The intervals that have a text, by Praat's own commands."""
    found = []
    for index in range(1, praat.call(grid, "Get number of intervals", number) + 1):
        text = praat.call(grid, "Get label of interval", number, index)
        times = (praat.call(grid, f"Get {end} time of interval", number, index) for end in ("start", "end"))
        if text:
            found.append((*(round(time, 6) for time in times), text))
    return found


def test_a_textgrid_as_praat_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "kick.TextGrid"
    path.write_bytes(written("textgrid", timeline(*EVENTS, labels=LABELS), timeline(source="v2")).getvalue())
    grid = parselmouth.read(str(path))
    names = [praat.call(grid, "Get tier name", number) for number in range(1, 7)]
    assert names == [*(f"{label} @ annotation 1" for label in LABELS), "Ball @ v2", "Goal @ v2"]
    assert tier_of_praat(grid, 1) == [(0.4, 1.52, "Ball")]
    assert tier_of_praat(grid, 2) == [(1, 12.3456, LABELS[1])]
    assert tier_of_praat(grid, 3) == [(0, 0.0404, LABELS[2])]
    assert tier_of_praat(grid, 4) == tier_of_praat(grid, 5) == []
    assert praat.call(grid, "Get end time") == 16


def test_a_textgrid_of_praat() -> None:
    events = Event('Kopfball "über" 🐕', 0.4, 1.2), Event("Hop", 2.04, 2.04)
    assert read_example("textgrid") == [Observation("textgrid.mp4", "", events)]


@pytest.mark.parametrize("command", ["text", "short text"])
@pytest.mark.parametrize("text", ["Ball", 'über "Ball"'])
def test_praats_ways_of_writing(command: str, text: str, tmp_path: Path) -> None:
    grid = praat.call("Create TextGrid", 1.0, 2.5, "Ball", "")
    praat.call(grid, "Insert boundary", 1, 1.25)
    praat.call(grid, "Set interval text", 1, 2, text)
    praat.call(grid, f"Save as {command} file", str(tmp_path / "kick.TextGrid"))
    with (tmp_path / "kick.TextGrid").open("rb") as file:
        assert textgrid.read(file) == [Observation("", "", (Event(text, 1.25, 2.5),))]


GRID = b'"ooTextFile"\n"TextGrid"\n0\n2\n<exists>\n1\n"IntervalTier"\n"Ball"\n0\n2\n1\n'


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "isn't a TextGrid"),
        (b'"ooTextFile"\n"Sound"\n0\n2\n', "isn't a TextGrid"),
        (b"\xff\x00\xd8", "isn't text in UTF-8 or UTF-16"),
        (b"\xfe\xff\xd8\x00", "isn't text in UTF-8 or UTF-16"),
        (b"ooBinaryFile\x08TextGrid", "save it as a text file in Praat"),
        (GRID, "Tier 1 can't be read: the file ends early"),
        (GRID + b'0\n"x"\n2\n', "Tier 1 can't be read: could not convert"),
        (GRID.replace(b"IntervalTier", b"Pitch"), "Tier 1 can't be read: it is of the class 'Pitch'"),
        (GRID + b'1\n0.5\n"Kick"\n', r"Tier 1 \('Ball'\): 'Kick' lasts from 1 to 0.5 s"),
        (GRID + b'-1\n0.5\n"Kick"\n', r"Tier 1 \('Ball'\): 'Kick' lasts from -1 to 0.5 s"),
    ],
)
def test_a_textgrid_that_cannot_be_read(content: bytes, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        textgrid.read(io.BytesIO(content))
