"""Each exchange format as its own library reads and writes it, and what is answered to files that can't be read."""

from __future__ import annotations

import io
import json
import re
import sys
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
from terminal.formats import elan, nwb, rttm, textgrid
from terminal.formats.files import check_output, read_file
from terminal.formats.names import stems
from terminal.formats.registry import FORMATS
from tests.test_exchange import RATES, clock, drawn_events, drawn_timeline, timeline, written
from video.task_data import file_name
from video.timeline import Event, Observation

EXAMPLES = Path(__file__).parent / "data" / "formats"


def example(name: str) -> Path:
    return EXAMPLES / f"{name}{FORMATS[name].suffix}"


def read_example(name: str) -> list[Observation]:
    return read_file(FORMATS[name], example(name), ".mp4")


def marked(observation: Observation, rate: float) -> tuple[str, list[tuple[str, int, int]]]:
    return observation.source, [(event.label, *event.frames(rate)) for event in observation.events]


def test_every_format_has_an_example_and_it_is_said_who_wrote_it() -> None:
    assert {path.name for path in EXAMPLES.iterdir()} == {"README.md", *(example(name).name for name in FORMATS)}
    said = set(re.findall(r"^\| `(\S+)` \| .+ \| .+ \|$", (EXAMPLES / "README.md").read_text(), re.MULTILINE))
    assert said == {path.name for path in EXAMPLES.iterdir()} - {"README.md"}


def test_examples_of_tables_and_of_boris() -> None:
    assert read_example("events") == [
        Observation("kick.mp4", "", (Event("Ball in frame", 0, 2.04), Event("Ball touch", 0.4, 1.2))),
        Observation("goal.mp4", "", (Event("Ball touch", 12.345, 13),)),
    ]
    assert read_example("boris") == [
        Observation("/videos/kick.mp4", "first half", (Event("Ball touch", 0.4, 1.2), Event("Hop", 2.04, 2.04)))
    ]


def test_examples_of_what_is_exported_only() -> None:
    events = Event.of_frames("Ball", 2, 3, 10), Event.of_frames("Goal", 3, 4, 10)
    made = timeline(*events, video="kick.mp4", clock=clock(10, 25, 0.4))
    assert written("frames", made).getvalue() == example("frames").read_bytes().decode()
    assert json.load(written("fiftyone", made)) == json.loads(example("fiftyone").read_text())


@pytest.mark.parametrize(
    ("video", "name"),
    [
        ("/videos/a b/kick.mp4", "kick.mp4"),
        ("/data/local-files/?d=kick.mp4", "kick.mp4"),
        ("/data/local-files/?d=a/kick 50%?.mp4", "kick 50%?.mp4"),
        ("/data/local-files/?d=a%20b/kick%20%26%2050%25.mp4", "kick & 50%.mp4"),
        ("/videos/kick%20.mp4", "kick%20.mp4"),
        ("/data/upload/3/0a1b-kick.mp4", "0a1b-kick.mp4"),
        ("https://example.org/a/kick.mp4?key=a/b", "kick.mp4"),
        ("s3://bucket/kick.mp4", "kick.mp4"),
        ("who?.mp4", "who?.mp4"),
    ],
)
def test_the_name_of_a_videos_file(video: str, name: str) -> None:
    assert file_name(video) == name


def test_a_file_can_have_the_name_of_any_video(tmp_path: Path) -> None:
    videos = [
        "é" * 300 + ".mp4",
        "/data/local-files/?d=%00kick%0A.mp4",
        "\ud83d.mp4",
        "/data/local-files/?d=..%2Fa.mp4",
    ]
    for name in stems(videos).values():
        (tmp_path / f"{name} (2).TextGrid").write_text("")
    assert len(list(tmp_path.iterdir())) == len(videos)


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
        ("", "No line begins with SPEAKER"),
        ("label,start\nBall,1\n", "No line begins with SPEAKER"),
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


def document_until(time: str) -> str:
    """A document of ELAN with an annotation that ends at a time."""
    slots = f'<TIME_SLOT TIME_SLOT_ID="a" TIME_VALUE="0"/><TIME_SLOT TIME_SLOT_ID="b" TIME_VALUE="{time}"/>'
    return (
        '<ANNOTATION_DOCUMENT><HEADER><MEDIA_DESCRIPTOR MEDIA_URL="a.mp4"/></HEADER>'
        f'<TIME_ORDER>{slots}</TIME_ORDER><TIER TIER_ID="Kick"><ANNOTATION>'
        '<ALIGNABLE_ANNOTATION TIME_SLOT_REF1="a" TIME_SLOT_REF2="b"/></ANNOTATION></TIER></ANNOTATION_DOCUMENT>'
    )


def boris_project(events: str, kind: str = '"State event"') -> str:
    behaviours = f'{{"0": {{"code": "Kick", "type": {kind}}}}}'
    observation = f'{{"type": "MEDIA", "file": {{"1": ["a.mp4"]}}, "events": {events}}}'
    return f'{{"behaviors_conf": {behaviours}, "observations": {{"first": {observation}}}}}'


TABLE = "label,start_seconds,stop_seconds,score\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("events", f"{TABLE}Kick,0,1,nan\n"),
        ("events", f"{TABLE}Kick,0,1,-inf\n"),
        ("events", f"{TABLE}Kick,0,1e308,\n"),
        ("events", f'{TABLE}"{"Kick" * 50_000}'),
        ("boris", boris_project('[[NaN, "", "Kick", ""], [NaN, "", "Kick", ""]]')),
        ("boris", boris_project('[[0, "", "Kick", ""], [Infinity, "", "Kick", ""]]')),
        ("boris", boris_project('[[0, "", "Kick"]]')),
        ("boris", boris_project('[[0, "", "Kick", ""]]', kind="null")),
        ("boris", '{"behaviors_conf": {}, "observations": {"first": 3}}'),
        ("boris", "[" * 100_000),
        ("elan", document_until("9" * 4000)),
        ("elan", '<?xml version="1.0" encoding="utf-7"?><ANNOTATION_DOCUMENT/>'),
        ("rttm", "SPEAKER kick 1 0 1e308 <NA> <NA> Kick <NA> <NA>\n"),
    ],
)
def test_damaged_and_hostile_files_are_answered_with_a_sentence(name: str, content: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text(content)
    with pytest.raises(InvalidRequest, match=f"^{re.escape(str(path))}: .+\\.$"):
        read_file(FORMATS[name], path, ".mp4")


def test_entities_of_a_document_are_not_multiplied(tmp_path: Path) -> None:
    entities = "".join(f'<!ENTITY e{level} "{f"&e{level - 1};" * 10}">' for level in range(1, 12))
    path = tmp_path / "bomb.eaf"
    path.write_text(f'<!DOCTYPE a [<!ENTITY e0 "ha">{entities}]><ANNOTATION_DOCUMENT>&e11;</ANNOTATION_DOCUMENT>')
    with pytest.raises(InvalidRequest, match="isn't XML"):
        read_file(FORMATS["elan"], path)


def test_nwb_round_trip_as_pynwb_reads_it(tmp_path: Path) -> None:
    import pynwb  # takes seconds, and only these tests need it

    before = (
        timeline(*EVENTS, labels=LABELS),
        timeline(source="annotation 2"),
        timeline(Event("Ball", 1, 12.345678, 0.5), source="runs/v2: 3 videos"),
    )
    path = tmp_path / "kick.nwb"
    path.write_bytes(written("nwb", *before).getvalue())
    assert pynwb.validate(path=str(path)) == []
    with pynwb.NWBHDF5IO(path, "r") as opened:
        session = opened.read()
        assert set(session.intervals) == {"annotation 1", "annotation 2", "runs-v2- 3 videos"}
        assert list(session.acquisition["video"].external_file) == ["a/kick.mp4"]
        assert session.acquisition["video"].rate == 25
        table = session.intervals["runs-v2- 3 videos"].to_dataframe()
    assert table.to_dict("records") == [{"start_time": 1, "stop_time": 12.345678, "label": "Ball", "score": 0.5}]
    read = {one.source: one for one in read_file(FORMATS["nwb"], path)}
    for one, source in zip(before, ("annotation 1", "annotation 2", "runs-v2- 3 videos"), strict=True):
        assert read[source] == Observation("a/kick.mp4", source, one.observation.events)


def test_a_session_of_pynwb() -> None:
    """The video begins 2.5 s after the session, and the trials of another program aren't labels."""
    events = Event("Ball touch", 0.4, 1.2), Event("Ball in frame", 0, 2.04)
    assert read_example("nwb") == [Observation("./kick.mp4", "behaviours", events)]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "isn't a file of NWB"),
        ("no video", "names no video"),
        ("no table", r"no table of time intervals has a column 'label'. There are: 'trials' \(start_time, stop_time\)"),
        ("early", r"Table 'drawn', row 1: 'Ball' lasts from -1.5 to 1 s"),
    ],
)
def test_a_session_that_cannot_be_read(content: str, words: str, tmp_path: Path) -> None:
    import pynwb

    path = tmp_path / "kick.nwb"
    session = pynwb.NWBFile("a", "b", nwb.UNKNOWN_TIME)
    if content != "no video":
        video = {"unit": "n.a.", "format": "external", "external_file": ["a.mp4"], "starting_frame": [0]}
        video |= {"rate": 25.0, "starting_time": 2.0, "num_samples": 9}
        session.add_acquisition(pynwb.image.ImageSeries(name="video", **video))
    if content == "no table":
        session.add_trial(start_time=0.0, stop_time=1.0)
    if content == "early":
        table = pynwb.epoch.TimeIntervals(name="drawn")
        table.add_column("label", "the label")
        table.add_interval(start_time=0.5, stop_time=3.0, label="Ball")
        session.add_time_intervals(table)
    with pynwb.NWBHDF5IO(path, "w") as target:
        target.write(session)
    if not content:
        path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(InvalidRequest, match=f"(?i){re.escape(str(path))}: .*{words}"):
        read_file(FORMATS["nwb"], path)


def test_sleap_round_trip_as_sleap_io_reads_it(tmp_path: Path) -> None:
    sleap_io = pytest.importorskip("sleap_io", reason="sleap-io isn't installed: pip install sleap-io")
    drawn = timeline(Event.of_frames("Ball", 11, 30, 25), Event.of_frames("Goal", 1, 400, 25))
    predicted = timeline(Event.of_frames("Goal", 5, 5, 10, 0.5), source="v2", clock=clock(10, 25), video="goal.mp4")
    path = tmp_path / "timelines.slp"
    path.write_bytes(written("sleap", drawn, predicted).getvalue())
    labels = sleap_io.load_slp(str(path), open_videos=False)
    assert [one.name for one in labels.event_types] == ["Ball", "Goal"]
    assert [(one.type.name, one.start_frame, one.end_frame, one.source) for one in labels.events] == [
        ("Goal", 0, 399, "annotation 1"),
        ("Ball", 10, 29, "annotation 1"),
        ("Goal", 11, 11, "v2"),  # labeling frame 5's middle is at 0.45 s, where frame 11 is shown, from 0.44 s on
    ]
    assert [one.is_predicted for one in labels.events] == [False, False, True]
    assert {str(video.filename): video.fps for video in labels.videos} == {"a/kick.mp4": 25, "goal.mp4": 25}
    first, second = read_file(FORMATS["sleap"], path)
    assert (first.video, first.source, set(first.events)) == (
        "a/kick.mp4",
        "annotation 1",
        set(drawn.observation.events),
    )
    assert second == Observation("goal.mp4", "v2", (Event("Goal", 0.44, 0.48, 0.5),))
    assert second.events[0].frames(10) == (5, 5)


def test_labels_of_sleap_io() -> None:
    pytest.importorskip("sleap_io", reason="sleap-io isn't installed: pip install sleap-io")
    assert read_example("sleap") == [
        Observation("videos/kick.mp4", "Ann", (Event("Ball touch", 0.4, 1.2),)),
        Observation("videos/kick.mp4", "model", (Event("Ball touch", 0.44, 1.2, 0.75),)),
        Observation("videos/goal.mp4", "", (Event("Hop", 2, 2.033333),)),
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "isn't a file of SLEAP"),
        ("none", "The file has no events"),
        ("no rate", "The frame rate of a.mp4 isn't known"),
    ],
)
def test_labels_of_sleap_that_cannot_be_read(content: str, words: str, tmp_path: Path) -> None:
    sleap_io = pytest.importorskip("sleap_io", reason="sleap-io isn't installed: pip install sleap-io")
    path = tmp_path / "a.slp"
    video = sleap_io.Video(filename="a.mp4", open_backend=False)
    events = [sleap_io.UserEvent(type="Hop", video=video, start_frame=3)] if content == "no rate" else []
    sleap_io.save_slp(sleap_io.Labels(videos=[video], events=events), str(path), verbose=False)
    if not content:
        path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(InvalidRequest, match=f"{re.escape(str(path))}: .*{words}"):
        read_file(FORMATS["sleap"], path)


@pytest.mark.parametrize(("name", "module"), [("sleap", "sleap_io"), ("nwb", "pynwb")])
def test_a_missing_library_is_named_before_the_work(
    name: str, module: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    words = rf"needs {module}, which isn't installed: \S+ -m pip install '{module.replace('_', '-')}>="
    with pytest.raises(InvalidRequest, match=words):
        check_output(FORMATS[name], tmp_path / "a")
    with pytest.raises(InvalidRequest, match=words):
        read_example(name)
    assert not (tmp_path / "a").exists()
