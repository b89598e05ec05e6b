"""Which annotations are to be looked at again: doubts of held-out models, and annotators' disagreements."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from learning.dataset import Example
from learning.evaluation import Case, Evaluation, kappa_of_sums
from learning.events import segments
from study.agreement import agreements, disagreements
from study.budget import Observed
from study.review import Doubt, Part, doubts, drawn_within, is_confirmed
from video.timeline import Event, Observation

LABELS = ("Rest", "Run")
RATE = 10


def case(
    task: int, drawn: list[tuple[int, int, int]], seen: list[tuple[int, int, int]], sure: float = 0.95, rate: int = RATE
) -> Case:
    """A video of 10 s; drawn and seen are (column, first frame, frame after the last)."""
    truth, probs = np.zeros((10 * rate, 2), bool), np.full((10 * rate, 2), 1 - sure)
    for column, start, stop in drawn:
        truth[start:stop, column] = True
    for column, start, stop in seen:
        probs[start:stop, column] = sure
    return Case(Example(task, truth, truth, frame_rate=rate, annotation=task + 100), probs, probs >= 0.5)


def evaluation(*cases: Case) -> Evaluation:
    return Evaluation("tl", LABELS, dict.fromkeys(LABELS, "red"), cases)


RIGHT = case(1, [(0, 20, 40)], [(0, 20, 40)])


def cohens_kappa(first: np.ndarray, second: np.ndarray) -> float | None:
    """Of two arrays [n] of booleans."""
    return kappa_of_sums(len(first), first.sum(), second.sum(), (first & second).sum())


def places(found: list[Doubt]) -> list[tuple[int, float, float, list[str]]]:
    return [
        (one.task, one.start, one.stop, [f"{'' if part.drawn else 'no '}{part.label}" for part in one.parts])
        for one in found
    ]


def test_each_kind_of_wrong_interval_is_one_place() -> None:
    found = doubts(
        evaluation(
            RIGHT,
            case(2, [(0, 20, 40)], []),  # invented
            case(3, [], [(0, 60, 80)]),  # forgotten
            case(4, [(0, 20, 40)], [(1, 20, 40)]),  # the wrong label
            case(5, [(0, 20, 40)], [(0, 40, 60)]),  # shifted
        )
    )
    assert {found[0].task, found[1].task} == {4, 5}, "two parts are more evidence than one"
    assert sorted(places(found)) == [
        (2, 2.0, 4.0, ["Rest"]),
        (3, 6.0, 8.0, ["no Rest"]),
        (4, 2.0, 4.0, ["Rest", "no Run"]),
        (5, 2.0, 6.0, ["Rest", "no Rest"]),
    ]
    assert found[0].annotation == found[0].task + 100
    assert [Doubt.of_json(json.loads(json.dumps(one.json()))) for one in found] == found


def test_the_surest_and_the_longest_contradiction_comes_first() -> None:
    unsure, sure = case(2, [(0, 20, 40)], [], sure=0.6), case(3, [(0, 20, 40)], [], sure=0.9)
    brief, long = case(4, [(0, 20, 24)], []), case(5, [(0, 20, 60)], [])
    assert [one.task for one in doubts(evaluation(RIGHT, unsure, sure))] == [3, 2]
    assert [one.task for one in doubts(evaluation(RIGHT, brief, long))] == [5, 4]


def test_each_video_has_its_own_frame_rate() -> None:
    slow, fast = case(2, [(0, 20, 40)], []), case(3, [(0, 100, 200)], [], rate=50)
    found = doubts(evaluation(RIGHT, slow, fast))
    assert sorted(places(found)) == [(2, 2.0, 4.0, ["Rest"]), (3, 2.0, 4.0, ["Rest"])]
    assert found[0].evidence == pytest.approx(found[1].evidence)


def test_frames_that_nobody_reviewed_are_not_doubted() -> None:
    wrong = case(2, [(0, 20, 40)], [(0, 70, 90)])
    half = wrong._replace(example=replace(wrong.example, reviewed=np.arange(100) < 50))
    assert places(doubts(evaluation(RIGHT, half))) == [(2, 2.0, 4.0, ["Rest"])]


def confirmed(doubt: Doubt, **changes: Any) -> list[Any]:
    return [
        SimpleNamespace(**{**part._asdict(), "task_id": doubt.task, "control": doubt.control, **changes})
        for part in doubt.parts
    ]


def test_what_was_confirmed_is_not_asked_again_until_the_annotation_changes_there() -> None:
    (doubt,) = doubts(evaluation(RIGHT, case(2, [(0, 20, 40)], [])))
    assert is_confirmed(doubt, confirmed(doubt))
    assert not is_confirmed(doubt, [])
    assert not is_confirmed(doubt, confirmed(doubt, task_id=3))
    assert not is_confirmed(doubt, confirmed(doubt, label="Run"))
    assert is_confirmed(doubt, confirmed(doubt, stop=3.5)), "another model doubts it up to another moment"
    assert not is_confirmed(doubt, confirmed(doubt, stop=2.5)), "most of it is new"
    assert not is_confirmed(doubt, confirmed(doubt, drawn=[[2.0, 3.0]])), "it was drawn shorter then"
    both = doubt._replace(parts=[*doubt.parts, Part("Run", 2.0, 4.0, [], 0.9, 1.0)])
    assert not is_confirmed(both, confirmed(doubt)), "one of two parts"


def test_drawn_within() -> None:
    assert drawn_within([(1, 2), (2, 3), (5, 9)], 1.5, 6) == [[1.5, 3], [5, 6]]
    assert drawn_within([(1, 2)], 2, 6) == []


# -- annotators


def annotation(task: int, *events: tuple[str, float, float], seconds: float | None = 10.0) -> Observed:
    found = tuple(Event(*event) for event in events)
    spans = None if seconds is None else ((0.0, seconds),)
    return Observed(Observation("v.mp4", "annotation", found, task), "annotations", "tl", LABELS, spans)


def test_agreement_by_hand() -> None:
    """One marks 0 to 4 s of ten, the other 2 to 6: they agree on 6 s of 10 where chance gives 5.2."""
    pair = [annotation(1, ("Rest", 0, 4)), annotation(1, ("Rest", 2, 6))]
    rest, run = agreements(pair)
    assert rest.kappa == pytest.approx((0.6 - 0.52) / (1 - 0.52))
    assert run == ("tl", "Run", 1, None, None, None), "nobody marked it: chance agrees fully"
    (only,) = disagreements(pair)
    assert (only.label, only.shared) == ("Rest", pytest.approx(2 / 6))
    assert only.drawn == [[[0, 4]], [[2, 6]]]
    assert agreements([annotation(1, ("Rest", 0, 4)), annotation(2)]) == []


def test_agreement_is_cohens_kappa_of_frames_with_its_bootstrap_interval() -> None:
    rng = np.random.default_rng(3)
    observed, frames = [], []
    for task in range(12):
        pair = []
        for _ in range(2):
            start, length = rng.integers(0, 60), rng.integers(10, 40)
            observed.append(annotation(task, ("Rest", start / 10, (start + length) / 10)))
            marks = np.zeros(100, bool)
            marks[start : start + length] = True
            pair.append(marks)
        frames.append(pair)
    found = agreements(observed)[0]
    assert found.kappa == pytest.approx(cohens_kappa(*np.concatenate(frames, axis=1)))
    draws = rng.integers(12, size=(2000, 12))
    kappas = [cohens_kappa(*np.concatenate([frames[task] for task in draw], axis=1)) for draw in draws]
    assert (found.low, found.high) == pytest.approx(np.percentile(kappas, (2.5, 97.5)), abs=0.04)


@pytest.mark.filterwarnings("ignore:.*is undefined")
@pytest.mark.parametrize(("first", "second"), [("0000", "0000"), ("1111", "1111"), ("0110", "0111"), ("0000", "0001")])
def test_kappa_is_undefined_where_scikit_learns_is(first: str, second: str) -> None:
    arrays = [np.array([mark == "1" for mark in marks]) for marks in (first, second)]
    theirs = cohen_kappa_score(*arrays, labels=[False, True], replace_undefined_by=np.nan)
    assert cohens_kappa(*arrays) == (None if np.isnan(theirs) else pytest.approx(theirs))


def test_what_was_drawn_beyond_the_end_of_a_video_stays_when_its_length_becomes_known() -> None:
    unknown, known = (
        [annotation(1, ("Rest", 2, 10.02), seconds=seconds), annotation(1, seconds=seconds)] for seconds in (None, 10.0)
    )
    assert disagreements(unknown)[0].drawn == disagreements(known)[0].drawn == [[[2, 10.02]], []]


def test_agreement_of_many_bouts_is_that_of_their_frames() -> None:
    marks = np.random.default_rng(5).random((2, 100)) < 0.6
    pair = [annotation(1, *(("Rest", a / 10, b / 10) for a, b in segments(one))) for one in marks]
    assert agreements(pair)[0].kappa == pytest.approx(cohens_kappa(*marks))


def test_a_video_of_unknown_length_ends_with_its_last_event() -> None:
    pair = [annotation(1, ("Rest", 0, 4), seconds=None), annotation(1, ("Rest", 2, 8), seconds=None)]
    assert agreements(pair)[0].kappa == pytest.approx(
        cohens_kappa(*np.array([[1] * 4 + [0] * 4, [0] * 2 + [1] * 6]) > 0)
    )
