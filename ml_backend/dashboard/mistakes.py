"""Where a model was wrong on its latest tests, in words and as a table of which label is taken for which."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from learning.mistakes import EDGES, INVENTED, KINDS, MISSED, WITHIN
from ml_backend.store.tables import Training
from words import counted

# A model that learnt since makes other mistakes.
LATEST_TESTS = 10
# Of more labels a table of all pairs is too wide; the sentences name the pairs that matter.
MAX_TABLE_LABELS = 8
# Shorter mistakes of a kind aren't worth a sentence, in seconds and as a share of the label's time.
MIN_SECONDS, MIN_SHARE = 0.5, 0.05
MAX_SENTENCES = 4
SHADES = 5


class Cell(NamedTuple):
    """A cell of the table.

    Attributes:
        text: seconds or videos, empty for none.
        shade: 0 to SHADES - 1, by its share of the row.
        right: whether annotated and predicted are the same.
    """

    text: str
    shade: int
    right: bool


class Mistakes(NamedTuple):
    """The mistakes on the latest tests.

    Attributes:
        videos: the number of tested videos.
        where: how the wrong time is split up, a sentence, empty where nothing is wrong.
        labels: label -> events, missed, invented, and within how much nine in ten edges are right, as texts.
        taken: sentences about labels that are taken for others.
        columns: the names of the table's columns, empty without a table.
        rows: annotated label -> its cells.
    """

    videos: int
    where: str
    labels: dict[str, tuple[str, str, str, str]]
    taken: list[str]
    columns: list[str]
    rows: dict[str, list[Cell]]


def latest(trainings: Sequence[Training], control: str, labels: Sequence[str], has_timeline: bool) -> Mistakes | None:
    """The mistakes of a control tag's model on the latest tests; None where none was counted.

    Args:
        trainings: the project's, oldest first.
        control: the tag's name.
        labels: the present ones; others are left out.
        has_timeline: whether seconds are counted, and not videos.
    """
    tests = [((training.metrics or {}).get(control) or {}).get("prequential") or {} for training in trainings]
    tests = [test for test in tests if test.get("mistakes")][-LATEST_TESTS:]
    if not tests:
        return None
    seconds: Counter[tuple[str | None, str | None]] = Counter()
    for test in tests:
        for annotated, predicted, length in test["mistakes"]["confusion"]:
            if {annotated, predicted} <= {*labels, None}:
                seconds[annotated, predicted] += length
    by_label = {label: _added(tests, label) for label in labels}
    unit = _seconds if has_timeline else _videos
    small = len(labels) <= MAX_TABLE_LABELS
    return Mistakes(
        sum(test.get("videos", 0) for test in tests),
        _where(list(by_label.values())) if has_timeline else "",
        {label: _texts(counts) for label, counts in by_label.items() if counts} if has_timeline else {},
        _taken(seconds, labels, unit, MIN_SECONDS if has_timeline else 1.0),
        [*labels, "nothing"] if small else [],
        {label or "nothing": _row(seconds, label, labels, unit) for label in [*labels, None]} if small else {},
    )


def _added(tests: list[dict[str, Any]], label: str) -> dict[str, Any]:
    """The counts of a label in all tests; empty where it neither occurred nor was predicted."""
    found = [test["mistakes"]["labels"][label] for test in tests if label in test["mistakes"]["labels"]]
    counts: dict[str, Any] = {
        name: sum(one[name] for one in found) for name in (*KINDS, "events", "missed_events", "invented_events")
    }
    counts["edge_seconds"] = [value for one in found for value in one["edge_seconds"]]
    return counts if counts["events"] or counts["invented_events"] else {}


def _where(by_label: list[dict[str, Any]]) -> str:
    found = [counts for counts in by_label if counts]
    wrong = {kind: sum(counts[kind] for counts in found) for kind in KINDS}
    total = sum(wrong.values())
    if not total:
        return ""
    events, missed, invented = (
        sum(counts[name] for counts in found) for name in ("events", "missed_events", "invented_events")
    )
    edges = [value for counts in found for value in counts["edge_seconds"]]
    parts = {
        EDGES: f"at the edges of events{f', of which nine in ten are right within {_most(edges)}' if edges else ''}",
        MISSED: f"in events that it missed ({missed} of {events})",
        INVENTED: f"in events that it invented ({invented})",
        WITHIN: "in gaps that it made within events, or filled between them",
    }
    shares = sorted(((kind, wrong[kind] / total) for kind in KINDS if wrong[kind]), key=lambda one: -one[1])
    words = "; ".join(f"{share:.0%} {parts[kind]}".replace("%", " %", 1) for kind, share in shares)
    return f"It was wrong for {_seconds(total)} in all: {words}."


def _texts(counts: dict[str, Any]) -> tuple[str, str, str, str]:
    edges = counts["edge_seconds"]
    off = _most(edges) if edges else "–"
    return (str(counts["events"]), str(counts["missed_events"]), str(counts["invented_events"]), off)


def _taken(seconds: Counter, labels: Sequence[str], unit: Callable[[float], str], least: float) -> list[str]:
    totals = {label: sum(length for (one, _), length in seconds.items() if one == label) for label in (*labels, None)}
    found = []
    for (annotated, predicted), length in seconds.most_common():
        if annotated == predicted or length < least or length < MIN_SHARE * (totals[annotated] or length):
            continue
        if annotated is None:
            found.append(f"{predicted} is predicted in addition to what is annotated: {unit(length)}.")
        else:
            share = f"{unit(length)} of {unit(totals[annotated])}"
            found.append(
                f"{annotated} is taken for {predicted}: {share}."
                if predicted is not None
                else f"{annotated} is overlooked: {share}."
            )
    return found[:MAX_SENTENCES]


def _row(seconds: Counter, label: str | None, labels: Sequence[str], unit: Callable[[float], str]) -> list[Cell]:
    lengths = [seconds[label, other] for other in (*labels, None)]
    total = sum(lengths) or 1.0
    return [
        Cell(
            unit(length) if length else "",
            min(SHADES - 1, int(SHADES * length / total)),
            label is not None and label == other,
        )
        for length, other in zip(lengths, (*labels, None), strict=True)
    ]


def _most(edges: list[float]) -> str:
    """Within how many seconds nine in ten edges are right."""
    return f"{np.percentile(edges, 90, method='higher'):.1f} s"


def _seconds(length: float) -> str:
    if length >= 120:
        return f"{length / 60:.0f} min" if length < 7200 else f"{length / 3600:.1f} h"
    return f"{length:.1f} s" if length < 9.95 else f"{length:.0f} s"


def _videos(count: float) -> str:
    return counted(round(count), "video")
