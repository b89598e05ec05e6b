"""Count where on the timeline predictions are wrong, and which label they take for which other.

The kinds of mistakes are those of Ward, Lukowicz, Gellersen, "Performance Metrics for Activity Recognition" (ACM TIST
2, 2011), for each label by itself: a whole event is missed (deletion) or invented (insertion), begins or ends at
another time (underfill, overfill), has gaps (fragmentation), or is joined with another (merge).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from learning.events import segments

# A table of more pairs than that is read by nobody, and would make a training's row large.
MAX_PAIRS = 100
# Of so many edges the median is known well.
MAX_EDGES = 100
EDGES, MISSED, INVENTED, WITHIN = KINDS = ("edges", "missed", "invented", "within")


class Compared(NamedTuple):
    """A run of annotated frames of one video, with its prediction.

    Attributes:
        truth, predicted: [num_frames, num_labels] bool.
        frame_rate: frames per second.
    """

    truth: np.ndarray
    predicted: np.ndarray
    frame_rate: float


def mistakes(runs: Sequence[Compared], labels: Sequence[str]) -> dict[str, Any]:
    """Counts the mistakes of predictions, as JSON.

    A frame with label A for which B is predicted instead counts as A taken for B. Where several labels are predicted
    wrongly, each counts for its part of the frame. Where none is, A is taken for nothing. Where a label is predicted
    and none is missing, nothing is taken for it.

    Args:
        runs: what is compared.
        labels: one for each column.

    Returns:
        labels: label -> seconds by kind of mistake (`KINDS`: at events' edges; of whole events; within or between
        them), and the numbers `events`, `missed_events`, `invented_events`, and `edge_seconds`, a sample of how far the
        edges of the others are off; confusion: [annotated, predicted, seconds] with None for nothing, the longest
        first, where it isn't 0.
    """
    per_label = {label: _of_label(runs, column) for column, label in enumerate(labels)}
    return {"labels": per_label, "confusion": _confusion(runs, labels)}


def _of_label(runs: Sequence[Compared], column: int) -> dict[str, Any]:
    seconds = dict.fromkeys(KINDS, 0.0)
    whole = {MISSED: 0, INVENTED: 0}
    num_events, edges = 0, []
    for run in runs:
        truth, predicted = run.truth[:, column], run.predicted[:, column]
        num_events += len(segments(truth))
        for kind, ours, theirs in ((MISSED, truth, predicted), (INVENTED, predicted, truth)):
            for start, end in segments(ours):
                found = segments(theirs[start:end])
                if not found:
                    whole[kind] += 1
                    seconds[kind] += (end - start) / run.frame_rate
                    continue
                begins, ends = found[0][0], end - start - found[-1][1]
                covered = int(theirs[start:end].sum())
                seconds[EDGES] += (begins + ends) / run.frame_rate
                seconds[WITHIN] += (end - start - covered - begins - ends) / run.frame_rate
                if kind == MISSED:
                    edges += [frames / run.frame_rate for frames in _edges(truth, predicted, start, end, begins, ends)]
    step = -(-len(edges) // MAX_EDGES) or 1
    return {
        **{kind: round(value, 2) for kind, value in seconds.items()},
        "events": num_events,
        "missed_events": whole[MISSED],
        "invented_events": whole[INVENTED],
        "edge_seconds": [round(value, 2) for value in sorted(edges)[step // 2 :: step]],
    }


def _edges(truth: np.ndarray, predicted: np.ndarray, start: int, end: int, begins: int, ends: int) -> Iterator[int]:
    """Yields by how many frames the edges of a found event are off; an edge that isn't there, because the prediction
    joins two events, is left out.

    Args:
        truth, predicted: [num_frames] bool.
        start, end: the event.
        begins, ends: how many frames later the prediction begins in it, and how many earlier it ends.
    """
    extra = predicted & ~truth
    before = int(np.argmin(np.append(extra[:start][::-1], False)))  # the length of the run that ends at the event
    after = int(np.argmin(np.append(extra[end:], False)))
    if not (before and start > before and truth[start - before - 1]):
        yield before or begins
    if not (after and end + after < len(truth) and truth[end + after]):
        yield after or ends


def _confusion(runs: Sequence[Compared], labels: Sequence[str]) -> list[list[Any]]:
    names = [*labels, None]
    seconds = np.zeros((len(names), len(names)))
    for run in runs:
        missed, extra = run.truth & ~run.predicted, run.predicted & ~run.truth
        share = np.zeros((len(missed), len(names)))
        count = extra.sum(axis=1, keepdims=True)
        share[:, :-1] = extra / np.maximum(count, 1)
        share[:, -1:] = count == 0
        seconds[:-1] += missed.T.astype(float) @ share / run.frame_rate
        seconds[-1, :-1] += extra[~missed.any(axis=1)].sum(axis=0) / run.frame_rate
        right = np.diag_indices(len(labels))
        seconds[right] += (run.truth & run.predicted).sum(axis=0) / run.frame_rate
    pairs = [
        [names[row], names[column], round(float(seconds[row, column]), 2)] for row, column in np.argwhere(seconds > 0)
    ]
    return sorted((pair for pair in pairs if pair[2]), key=lambda pair: -pair[2])[:MAX_PAIRS]
