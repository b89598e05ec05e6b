"""Which label begins after which."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby, pairwise, product
from operator import itemgetter

import numpy as np

from study.budget import Observed, joined


def transitions(observed: Sequence[Observed], labels: Sequence[str]) -> np.ndarray:
    """Counts [len(labels), len(labels)] how often a label of a column begins next after one of a row began.

    Labels that aren't among `labels` are seen, but have no row and no column.
    Labels that begin at one moment have no order: each of them comes after each that began at the moment before. What
    was not observed between two observed intervals separates them. Each observation counts with its weight.
    """
    columns = {label: index for index, label in enumerate(labels)}
    counts = np.zeros((len(labels), len(labels)))
    for one in observed:
        starts = sorted((start, label) for label in one.labels for start, _ in one.bouts(label))
        spans = [(float("-inf"), float("inf"))] if one.spans is None else joined(one.spans)
        for start, stop in spans:
            within = [begin for begin in starts if start <= begin[0] < stop]
            moments = [[columns.get(label) for _, label in group] for _, group in groupby(within, key=itemgetter(0))]
            for before, after in pairwise(moments):
                for row, column in product(before, after):
                    if row is not None and column is not None:
                        counts[row, column] += one.weight
    return counts
