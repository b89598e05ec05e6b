"""What predictions save: the time that annotations took, against the time to draw all of their events by hand."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np

from words import counted

# Through fewer points any line goes; of more than so many, the latest are taken.
MIN_VIDEOS, MAX_VIDEOS = 6, 40
RESAMPLES = 400
# Of the draws, that must say something.
MIN_SHARE = 0.9
SECONDS_OF_A_MINUTE = 60
# By which names `origins` counts events that were drawn by hand, and those that were taken from a prediction.
DRAWN, TAKEN = ("drawn",), ("kept", "changed")


class Saved(NamedTuple):
    """What was saved.

    Attributes:
        headline: what an hour of corrections does, or why that can't be said.
        details: how it was counted, and what became of the predicted events; sentences.
    """

    headline: str
    details: list[str]


class _Line(NamedTuple):
    """How long annotations take: `watching + drawing * number of events drawn by hand`, in seconds."""

    watching: np.ndarray  # [num_draws]
    drawing: np.ndarray  # [num_draws]; NaN where all of a draw have as many events


def saved(efforts: Sequence[tuple[float | None, dict[str, Any] | None]], labels: Collection[str]) -> Saved:
    """Estimates how long the annotations that hold predicted events would have taken by hand.

    The time of an annotation is a line over the number of its events that were drawn by hand, fitted by the median of
    the slopes between all pairs (Theil 1950, Sen, "Estimates of the Regression Coefficient Based on Kendall's Tau",
    1968), since a lead time goes on while the annotator is away. The interval is the bootstrap's of 95 % (Efron 1979,
    percentiles).

    An annotation that only answers questions inside a video isn't counted: predicted marks of labels that aren't learnt
    are left in it, or were given another label.

    Args:
        efforts: lead time in seconds and origins of each annotation, as of `Annotations.efforts`.
        labels: what is learnt.
    """
    became = _became([counts for _, counts in efforts if counts and counts["from_prediction"]], labels)
    timed = [(seconds, counts) for seconds, counts in efforts if seconds and counts and _is_whole(counts, labels)]
    timed = timed[-MAX_VIDEOS:]
    if len(timed) < MIN_VIDEOS:
        missing = MIN_VIDEOS - len(timed)
        return Saved(
            f"What predictions save can't be said yet: it takes {counted(missing, 'more video')} that are annotated as "
            "a whole on Label Studio's page.",
            became,
        )
    seconds = np.array([seconds for seconds, _ in timed])
    drawn, taken = (np.array([_events(counts, names, labels) for _, counts in timed]) for names in (DRAWN, TAKEN))
    draws = np.random.default_rng(0).integers(len(timed), size=(RESAMPLES, len(timed)))
    draws = np.concatenate([np.arange(len(timed))[None], draws])
    line = _line(drawn[draws], seconds[draws])
    actual, by_hand = (
        ((line.watching[:, None] + line.drawing[:, None] * events) * (taken > 0)).sum(axis=1)
        for events in (drawn, drawn + taken)
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = by_hand / actual
    said = np.isfinite(ratios)
    if not said[0] or said.mean() < MIN_SHARE:
        return Saved(
            "What predictions save can't be said yet: it takes both videos of which many and videos of which few "
            "events were drawn by hand.",
            became,
        )
    low, high = np.percentile(ratios[1:][said[1:]], (2.5, 97.5))
    return Saved(
        f"An hour of corrections does the work of {_hours(ratios[0])} of drawing ({low:.1f} to {high:.1f}).",
        [
            f"An annotation takes {_time(line.watching[0])}, and {_time(line.drawing[0])} more for each event that is "
            f"drawn by hand (of {len(timed)} videos).",
            f"In all, predictions saved about {_time(by_hand[0] - actual[0])}.",
            *became,
        ],
    )


def _is_whole(counts: dict[str, Any], labels: Collection[str]) -> bool:
    """Whether all of the video was annotated."""
    return {*counts["kept"], *counts["changed"]} <= set(labels)


def _events(counts: dict[str, Any], names: tuple[str, ...], labels: Collection[str]) -> int:
    return sum(counts[name].get(label, 0) for name in names for label in labels)


def _line(events: np.ndarray, seconds: np.ndarray) -> _Line:
    """Fits a line to each draw of events and seconds, both [num_draws, num_videos]."""
    first, second = np.triu_indices(events.shape[1], k=1)
    apart = (events[:, second] - events[:, first]).astype(float)
    apart[apart == 0] = np.nan
    slopes = (seconds[:, second] - seconds[:, first]) / apart
    known = ~np.isnan(slopes).all(axis=1)
    drawing = np.full(len(events), np.nan)
    drawing[known] = np.maximum(np.nanmedian(slopes[known], axis=1), 0)
    return _Line(np.maximum(np.median(seconds - drawing[:, None] * events, axis=1), 0), drawing)


def _became(corrected: list[dict[str, Any]], labels: Collection[str]) -> list[str]:
    """What became of the predicted events."""
    if not corrected:
        return []
    names = ("kept", "changed", "removed", "drawn")
    kept, changed, removed, drawn = (sum(_events(one, (name,), labels) for one in corrected) for name in names)
    predicted = kept + changed + removed
    return [
        f"Of {counted(predicted, 'predicted event')}, {kept} {'was' if kept == 1 else 'were'} kept as "
        f"predicted, {changed} changed and {removed} removed; {drawn} {'was' if drawn == 1 else 'were'} added by hand."
    ]


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = seconds / SECONDS_OF_A_MINUTE
    return f"{minutes:.1f} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def _hours(ratio: float) -> str:
    return f"{ratio:.1f} hour{'s' * (f'{ratio:.1f}' != '1.0')}"
