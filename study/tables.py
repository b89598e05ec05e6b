"""The tables of a study: time budgets of each video and of each subject, and transitions, as rows and as CSV."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple, TextIO

import numpy as np

from study.budget import Budget, Observed, expected_time, time_budget
from study.expected import ExpectedTime
from study.transitions import transitions
from utils.cells import to_cell
from video.timeline import SECONDS_DIGITS

Cell = str | int | float | None
BUDGET = ("count", "total_seconds", "mean_seconds", "sd_seconds", "share", "latency_seconds", "per_minute")
EXPECTED = ("expected_seconds", "expected_sd_seconds")


class Table(NamedTuple):
    """A table.

    Attributes:
        columns: their names; times are in seconds.
        rows: a cell for each column, None where there is no value.
    """

    columns: tuple[str, ...]
    rows: list[tuple[Cell, ...]]

    def records(self) -> list[dict[str, Cell]]:
        """A dict for each row, with numbers rounded to microseconds."""
        return [{name: _rounded(value) for name, value in zip(self.columns, row, strict=True)} for row in self.rows]

    def write(self, file: TextIO) -> None:
        """Writes it as CSV."""
        writer = csv.writer(file)
        writer.writerow(self.columns)
        for record in self.records():
            writer.writerow(to_cell(value) if isinstance(value, str) else value for value in record.values())


def _rounded(value: Cell) -> Cell:
    return round(value, SECONDS_DIGITS) if isinstance(value, float) else value


def videos(observed: Sequence[Observed]) -> Table:
    """A row for each observation of a video and each label."""
    rows: list[tuple[Cell, ...]] = []
    for one in observed:
        found = one.observation
        head = (one.subject, found.video, found.task, found.source, one.control)
        for label in one.labels:
            # A row of its own counts whole.
            budget = time_budget([replace(one, weight=1.0)], label)
            rows.append((*head, label, one.seconds, *_values(budget), *_expected(one.expected.get(label))))
    columns = ("subject", "video", "task", "source", "control", "label", "observed_seconds", *BUDGET, *EXPECTED)
    return Table(columns, rows)


def subjects(observed: Sequence[Observed]) -> Table:
    """A row for each kind of observation, subject and label; the rows of one video's annotations count as one video."""
    rows: list[tuple[Cell, ...]] = []
    for (kind, control, subject), group in grouped(observed, by_subject=True):
        known = [(one.seconds, one.weight) for one in group if one.seconds is not None]
        seconds = sum(length * weight for length, weight in known) if known else None
        head = (subject, kind, control)
        for label in group[0].labels:
            values = (*_values(time_budget(group, label)), *_expected(expected_time(group, label)))
            rows.append((*head, label, round(sum(one.weight for one in group)), seconds, *values))
    columns = ("subject", "from", "control", "label", "videos", "observed_seconds", *BUDGET, *EXPECTED)
    return Table(columns, rows)


def transition_rows(observed: Sequence[Observed]) -> Table:
    """A row for each kind of observation, subject and pair of labels."""
    rows: list[tuple[Cell, ...]] = []
    for (kind, control, subject), group in grouped(observed, by_subject=True):
        labels = group[0].labels
        counts = transitions(group, labels)
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1e-9)
        for row, label in enumerate(labels):
            for column, following in enumerate(labels):
                values = (float(counts[row, column]), float(shares[row, column]) if counts[row].any() else None)
                rows.append((subject, kind, control, label, following, *values))
    return Table(("subject", "from", "control", "label", "next_label", "count", "share"), rows)


TABLES = {"videos": videos, "subjects": subjects, "transitions": transition_rows}


def grouped(observed: Sequence[Observed], by_subject: bool) -> Iterator[tuple[tuple[str, str, str], list[Observed]]]:
    """Yields (kind, control, subject) with their observations in order; the subject is empty unless `by_subject`."""
    groups: dict[tuple[str, str, str], list[Observed]] = {}
    for one in observed:
        groups.setdefault((one.kind, one.control, one.subject if by_subject else ""), []).append(one)
    yield from sorted(groups.items())


def _values(budget: Budget) -> tuple[Cell, ...]:
    count = int(budget.count) if budget.count == int(budget.count) else budget.count
    return (count, *budget[2:])


def _expected(expected: ExpectedTime | None) -> tuple[Cell, ...]:
    return (None, None) if expected is None else tuple(expected)
