"""Regions to frames and back: the documented examples, exact round trips, and annotations that are odd or wrong."""

import doctest
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from errors import InvalidAnnotation
from learning.events import segments
from utils import converter
from utils.converter import convert_probs_to_timelinelabels, convert_timelinelabels_to_probs

LABELS = ("run", "jump", "fall")
LABEL_MAP = {label: column for column, label in enumerate(LABELS)}

label_arrays = hnp.arrays(bool, st.tuples(st.integers(0, 40), st.just(len(LABELS))))
# Multiples of 1/64 are exact in float32, and so is the comparison with a threshold that is one.
sixty_fourths = st.integers(0, 64).map(lambda n: n / 64)
prob_arrays = hnp.arrays(np.float32, st.tuples(st.integers(0, 40), st.just(len(LABELS))), elements=sixty_fourths)


def region(*ranges, labels=("run",), **fields):
    value = {"ranges": [{"start": start, "end": end} for start, end in ranges], "timelinelabels": list(labels)}
    return {"id": "r1", "type": "timelinelabels", "from_name": "tl", "to_name": "video", "value": value, **fields}


def on_frames(labels_array, label):
    """The 1-based frames on which a label is on."""
    return [frame + 1 for frame, on in enumerate(labels_array[:, LABEL_MAP[label]]) if on]


@st.composite
def normalised_ranges(draw):
    """1-based (start, end) pairs in order, with at least one frame between two."""
    ranges, end = [], 0
    for pause, length in draw(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), max_size=5)):
        start = end + pause + (1 if ranges else 0)
        end = start + length - 1
        ranges.append((start, end))
    return ranges


# The documented examples


def test_regions_become_columns_of_frames():
    regions = [
        {"value": {"ranges": [{"start": 1, "end": 3}], "timelinelabels": ["Label A"]}},
        {"value": {"ranges": [{"start": 3, "end": 4}], "timelinelabels": ["Label B"]}},
    ]
    labels_array, used_labels = convert_timelinelabels_to_probs(regions, {"Label A": 0, "Label B": 1}, max_frame=5)
    np.testing.assert_array_equal(labels_array, [[1, 0], [1, 0], [1, 1], [0, 1], [0, 0]])
    assert used_labels == {"Label A", "Label B"}


def test_probabilities_become_regions():
    probs = np.array([[0.6, 0.4], [0.7, 0.3], [0.2, 0.8]])
    regions = convert_probs_to_timelinelabels(probs, {"Label A": 0, "Label B": 1}, "tl", score_threshold=0.5)
    for found in regions:
        assert found.pop("id")
    assert regions == [
        {
            "type": "timelinelabels",
            "from_name": "tl",
            "to_name": "video",
            "value": {"ranges": [{"start": 1, "end": 2}], "timelinelabels": ["Label A"]},
            "score": pytest.approx(0.65),
        },
        {
            "type": "timelinelabels",
            "from_name": "tl",
            "to_name": "video",
            "value": {"ranges": [{"start": 3, "end": 3}], "timelinelabels": ["Label B"]},
            "score": pytest.approx(0.8),
        },
    ]


def test_docstring_example_is_true():
    result = doctest.testmod(converter)
    assert result.attempted > 0
    assert result.failed == 0


# Round trips


@settings(deadline=None)
@given(label_arrays)
def test_labels_survive_the_way_through_regions(labels):
    regions = convert_probs_to_timelinelabels(labels, LABEL_MAP, "tl")
    back, used_labels = convert_timelinelabels_to_probs(regions, LABEL_MAP, max_frame=len(labels))
    np.testing.assert_array_equal(back, labels)
    assert used_labels == {label for label, column in LABEL_MAP.items() if labels[:, column].any()}


@settings(deadline=None)
@given(prob_arrays, sixty_fourths)
def test_probabilities_come_back_as_frames_at_or_above_the_threshold(probs, threshold):
    regions = convert_probs_to_timelinelabels(probs, LABEL_MAP, "tl", score_threshold=threshold)
    back, _ = convert_timelinelabels_to_probs(regions, LABEL_MAP, max_frame=len(probs))
    np.testing.assert_array_equal(back, probs >= threshold)


@settings(deadline=None)
@given(st.fixed_dictionaries({label: normalised_ranges() for label in LABELS}))
def test_normalised_regions_survive_the_way_through_frames(ranges_of_label):
    regions = [region(span, labels=[label]) for label, ranges in ranges_of_label.items() for span in ranges]
    labels_array, _ = convert_timelinelabels_to_probs(regions, LABEL_MAP)
    back = convert_probs_to_timelinelabels(labels_array, LABEL_MAP, "tl", to_name="video")
    expected = sorted((start, label, end) for label, ranges in ranges_of_label.items() for start, end in ranges)
    found = [
        (span["start"], label, span["end"])
        for r in back
        for span in r["value"]["ranges"]
        for label in r["value"]["timelinelabels"]
    ]
    assert sorted(found) == expected
    assert [start for start, _, _ in found] == [start for start, _, _ in expected]
    assert all(r["score"] == 1 for r in back)


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.lists(st.tuples(st.integers(1, 30), st.integers(0, 10)), max_size=3),
            st.lists(st.sampled_from(LABELS), max_size=3),
        ),
        max_size=6,
    ),
    st.integers(0, 40),
)
def test_a_frame_is_on_exactly_where_some_range_holds_it(drawn, max_frame):
    regions = [region(*((start, start + more) for start, more in ranges), labels=labels) for ranges, labels in drawn]
    labels_array, used_labels = convert_timelinelabels_to_probs(regions, LABEL_MAP, max_frame=max_frame)
    assert labels_array.shape == (max_frame, len(LABELS))
    for label in LABELS:
        frames = [
            frame
            for frame in range(1, max_frame + 1)
            if any(
                label in labels and start <= frame <= start + more for ranges, labels in drawn for start, more in ranges
            )
        ]
        assert on_frames(labels_array, label) == frames
        assert (label in used_labels) == bool(frames)


# Annotations


def test_several_ranges_and_labels_in_one_region():
    labels_array, used_labels = convert_timelinelabels_to_probs(
        [region((1, 2), (5, 6), labels=["run", "fall"])], LABEL_MAP
    )
    assert on_frames(labels_array, "run") == on_frames(labels_array, "fall") == [1, 2, 5, 6]
    assert on_frames(labels_array, "jump") == []
    assert used_labels == {"run", "fall"}


def test_an_instant_is_one_frame():
    labels_array, _ = convert_timelinelabels_to_probs([region((20, 20))], LABEL_MAP, max_frame=40)
    assert on_frames(labels_array, "run") == [20]


def test_without_max_frame_the_array_ends_with_the_last_range():
    labels_array, _ = convert_timelinelabels_to_probs([region((2, 9)), region((3, 4), labels=["jump"])], LABEL_MAP)
    assert labels_array.shape == (9, 3)
    assert labels_array.dtype == np.float32


def test_no_regions():
    labels_array, used_labels = convert_timelinelabels_to_probs([], LABEL_MAP, max_frame=7)
    assert labels_array.shape == (7, 3)
    assert not labels_array.any()
    assert used_labels == set()
    assert convert_timelinelabels_to_probs([], LABEL_MAP)[0].shape == (0, 3)


def test_what_lies_beyond_the_video_is_cut_off():
    regions = [region((8, 99)), region((11, 12), labels=["jump"])]
    labels_array, used_labels = convert_timelinelabels_to_probs(regions, LABEL_MAP, max_frame=10)
    assert on_frames(labels_array, "run") == [8, 9, 10]
    assert used_labels == {"run"}


def test_unknown_labels_are_named_beside_the_known_ones():
    regions = [region((1, 2), labels=["run", "swim"]), region((3, 4), labels=["fly"])]
    with pytest.raises(InvalidAnnotation, match=r"'fly', 'swim'.*'fall', 'jump', 'run'"):
        convert_timelinelabels_to_probs(regions, LABEL_MAP)


def test_results_of_other_types_are_left_alone():
    others = [
        {"id": "c", "type": "choices", "from_name": "quality", "to_name": "video", "value": {"choices": ["good"]}},
        {"type": "relation", "from_id": "a", "to_id": "b", "direction": "right"},
        region((1, 9), labels=["person"], type="videorectangle"),
    ]
    labels_array, used_labels = convert_timelinelabels_to_probs([*others, region((2, 3))], LABEL_MAP, max_frame=9)
    assert on_frames(labels_array, "run") == [2, 3]
    assert used_labels == {"run"}


def test_regions_of_other_control_tags_are_left_alone():
    regions = [region((1, 2)), region((5, 6), from_name="other"), region((3, 4), labels=["swim"], from_name="other")]
    labels_array, _ = convert_timelinelabels_to_probs(regions, LABEL_MAP, from_name="tl")
    assert on_frames(labels_array, "run") == [1, 2]


@pytest.mark.parametrize(("start", "end"), [(0, 3), (1, 3), (1.0, 3.0)])
def test_frame_zero_and_whole_floats_are_frames(start, end):
    labels_array, _ = convert_timelinelabels_to_probs([region((start, end))], LABEL_MAP)
    assert on_frames(labels_array, "run") == [1, 2, 3]


def test_an_instant_at_zero_is_the_first_frame():
    labels_array, _ = convert_timelinelabels_to_probs([region((0, 0))], LABEL_MAP)
    assert on_frames(labels_array, "run") == [1]


@pytest.mark.parametrize("value", [{"ranges": [{"start": 1, "end": 4}]}, {"ranges": [], "timelinelabels": ["run"]}])
def test_a_region_without_labels_or_ranges_marks_nothing(value):
    labels_array, used_labels = convert_timelinelabels_to_probs([{"id": "r1", "value": value}], LABEL_MAP, max_frame=4)
    assert not labels_array.any()
    assert used_labels == set()


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (None, "no list of ranges"),
        ({"timelinelabels": ["run"]}, "no list of ranges"),
        ({"ranges": {"start": 1, "end": 2}, "timelinelabels": ["run"]}, "no list of ranges"),
        ({"ranges": [[1, 2]], "timelinelabels": ["run"]}, "aren't frame numbers"),
        ({"ranges": [{"start": 1}], "timelinelabels": ["run"]}, "aren't frame numbers"),
        ({"ranges": [{"start": 1, "end": None}], "timelinelabels": ["run"]}, "aren't frame numbers"),
        ({"ranges": [{"start": "1", "end": 2}], "timelinelabels": ["run"]}, "aren't frame numbers"),
        ({"ranges": [{"start": True, "end": 2}], "timelinelabels": ["run"]}, "aren't frame numbers"),
        ({"ranges": [{"start": 1.5, "end": 2}], "timelinelabels": ["run"]}, "aren't frame numbers"),
        ({"ranges": [{"start": 1, "end": float("nan")}], "timelinelabels": ["run"]}, "aren't frame numbers"),
        ({"ranges": [{"start": 1, "end": float("inf")}], "timelinelabels": ["run"]}, "aren't frame numbers"),
        ({"ranges": [{"start": 1, "end": 10**400}], "timelinelabels": ["run"]}, "aren't frame numbers"),
        ({"ranges": [{"start": -1, "end": 2}], "timelinelabels": ["run"]}, "aren't frame numbers"),
        ({"ranges": [{"start": 5, "end": 4}], "timelinelabels": ["run"]}, "frame 5, after its end at frame 4"),
        ({"ranges": [{"start": 1, "end": 2}], "timelinelabels": "run"}, "aren't a list of names"),
        ({"ranges": [{"start": 1, "end": 2}], "timelinelabels": [["run"]]}, "aren't a list of names"),
    ],
)
def test_a_malformed_region_is_named(value, fault):
    with pytest.raises(InvalidAnnotation, match=rf"'bad1'.*{fault}"):
        convert_timelinelabels_to_probs([region((1, 2)), {"id": "bad1", "value": value}], LABEL_MAP)


# Predictions


@settings(deadline=None)
@given(prob_arrays)
def test_regions_are_what_label_studio_takes(probs):
    regions = convert_probs_to_timelinelabels(probs, LABEL_MAP, "tl", to_name="clip")
    assert json.loads(json.dumps(regions)) == regions
    assert len({r["id"] for r in regions}) == len(regions)
    starts = [r["value"]["ranges"][0]["start"] for r in regions]
    assert starts == sorted(starts)
    for r in regions:
        assert (r["type"], r["from_name"], r["to_name"]) == ("timelinelabels", "tl", "clip")
        ((start, end),) = [(span["start"], span["end"]) for span in r["value"]["ranges"]]
        (label,) = r["value"]["timelinelabels"]
        values = [float(p) for p in probs[start - 1 : end, LABEL_MAP[label]]]
        assert r["score"] == pytest.approx(sum(values) / len(values))
        assert 0 <= r["score"] <= 1


def test_scores_of_certain_and_of_float32_frames_stay_in_bounds():
    regions = convert_probs_to_timelinelabels(np.ones((1001, 1), dtype=np.float32), {"run": 0}, "tl")
    assert [r["score"] for r in regions] == [1.0]


def test_equal_input_gives_equal_ids_and_other_control_tags_other_ones():
    probs = np.eye(3)
    ids = [r["id"] for r in convert_probs_to_timelinelabels(probs, LABEL_MAP, "tl")]
    assert ids == [r["id"] for r in convert_probs_to_timelinelabels(probs, LABEL_MAP, "tl")]
    assert not set(ids) & {r["id"] for r in convert_probs_to_timelinelabels(probs, LABEL_MAP, "tl2")}


def test_a_threshold_per_label():
    probs = np.array([[0.3, 0.3, 0.9], [0.6, 0.6, 0.9]])
    regions = convert_probs_to_timelinelabels(
        probs, LABEL_MAP, "tl", score_threshold={"run": 0.25, "jump": 0.5, "fall": 0.95}
    )
    spans = [(r["value"]["timelinelabels"], r["value"]["ranges"]) for r in regions]
    assert spans == [(["run"], [{"start": 1, "end": 2}]), (["jump"], [{"start": 2, "end": 2}])]


def test_a_float32_probability_equal_to_the_threshold_counts():
    assert len(convert_probs_to_timelinelabels(np.array([[0.7]], dtype=np.float32), {"run": 0}, "tl", 0.7)) == 1


def test_two_labels_may_read_one_column():
    regions = convert_probs_to_timelinelabels([[0.9], [0.1]], {"run": 0, "sprint": 0}, "tl")
    assert [r["value"]["timelinelabels"] for r in regions] == [["run"], ["sprint"]]
    assert len({r["id"] for r in regions}) == 2


@pytest.mark.parametrize("bad", [float("nan"), 1.5, -0.1])
def test_what_isnt_a_probability_is_refused(bad):
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        convert_probs_to_timelinelabels([[0.2], [bad]], {"run": 0}, "tl")


def test_probs_need_a_column_per_label():
    with pytest.raises(ValueError, match=r"\[num_frames, num_labels\]"):
        convert_probs_to_timelinelabels([0.2, 0.9], {"run": 0}, "tl")


@pytest.mark.parametrize(
    ("mask", "expected"),
    [([], []), ([0, 0], []), ([1], [(0, 1)]), ([1, 1, 0, 1], [(0, 2), (3, 4)]), ([0, 1, 1], [(1, 3)])],
)
def test_segments(mask, expected):
    assert segments(np.array(mask, dtype=bool)) == expected
