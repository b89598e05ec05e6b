"""What predictions save: the time of annotations that hold predicted events, against that of those drawn by hand."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np

# Of fewer videos the median is one video's.
MIN_VIDEOS = 3
RESAMPLES = 1000
SECONDS_OF_A_MINUTE = 60


class Saved(NamedTuple):
    """What was saved.

    Attributes:
        headline: what an hour of corrections does, or why that can't be said.
        details: how it was counted, and what became of the predicted events; sentences.
    """

    headline: str
    details: list[str]


def saved(
    efforts: Sequence[tuple[float | None, dict[str, Any] | None]], labels: Collection[str], seed: int = 0
) -> Saved:
    """Compares the median lead times of both kinds of annotations, with the bootstrap's 95 % interval of their ratio
    (Efron 1979, percentiles).

    A median, since a lead time goes on while the annotator is away. Where predicted marks of other labels are left or
    were given another label, only questions inside the video were answered, so its time isn't compared.

    Args:
        efforts: lead time in seconds and origins of each annotation, as of `Annotations.efforts`.
        labels: what is learnt.
        seed: of the draws.
    """
    timed = [(seconds, counts) for seconds, counts in efforts if seconds and counts and _is_whole(counts, labels)]
    drawn = np.array([seconds for seconds, counts in timed if not (counts["kept"] or counts["changed"])])
    corrected = np.array([seconds for seconds, counts in timed if counts["kept"] or counts["changed"]])
    became = _became([counts for _, counts in efforts if counts and counts["from_prediction"]], labels)
    missing = [
        f"{MIN_VIDEOS - len(times)} more video{'s' * (MIN_VIDEOS - len(times) > 1)} {how}"
        for times, how in ((drawn, "drawn by hand"), (corrected, "with events of a prediction"))
        if len(times) < MIN_VIDEOS
    ]
    if missing:
        return Saved(f"What predictions save can't be said yet: it takes {' and '.join(missing)}.", became)
    random = np.random.default_rng(seed)
    medians = [
        np.median(times[random.integers(len(times), size=(RESAMPLES, len(times)))], axis=1)
        for times in (drawn, corrected)
    ]
    low, high = np.percentile(medians[0] / medians[1], (2.5, 97.5))
    ratio = float(np.median(drawn) / np.median(corrected))
    headline = f"An hour of corrections does the work of {_hours(ratio)} of drawing ({low:.1f} to {high:.1f})."
    times = (
        f"Drawn by hand, a video took {_minutes(np.median(drawn))} (median of {len(drawn)}); with events of a "
        f"prediction, {_minutes(np.median(corrected))} (of {len(corrected)})."
    )
    gained = float(len(corrected) * (np.median(drawn) - np.median(corrected)))
    total = f"In all, corrections {'saved' if gained >= 0 else 'cost'} about {_minutes(abs(gained))}."
    return Saved(headline, [times, total, *became])


def _is_whole(counts: dict[str, Any], labels: Collection[str]) -> bool:
    """Whether all of the video was annotated."""
    return {*counts["kept"], *counts["changed"]} <= set(labels)


def _became(corrected: list[dict[str, Any]], labels: Collection[str]) -> list[str]:
    """What became of the predicted events."""
    if not corrected:
        return []
    names = ("kept", "changed", "removed", "drawn")
    kept, changed, removed, drawn = (
        sum(one[name].get(label, 0) for one in corrected for label in labels) for name in names
    )
    predicted = kept + changed + removed
    return [
        f"Of {predicted} predicted event{'s' * (predicted != 1)}, {kept} {'was' if kept == 1 else 'were'} kept as "
        f"predicted, {changed} changed and {removed} removed; {drawn} {'was' if drawn == 1 else 'were'} added by hand."
    ]


def _minutes(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = seconds / SECONDS_OF_A_MINUTE
    return f"{minutes:.1f} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def _hours(ratio: float) -> str:
    return f"{ratio:.1f} hour{'s' * (f'{ratio:.1f}' != '1.0')}"
