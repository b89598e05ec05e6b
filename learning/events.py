"""Runs of frames in arrays of labels."""

import numpy as np
from numpy.typing import ArrayLike


def segments(mask: ArrayLike) -> list[tuple[int, int]]:
    """Finds the runs of True in `mask` [num_frames]: (start, end) indices, 0-based, the end excluded, in order."""
    steps = np.diff(np.asarray(mask, dtype=np.int8), prepend=0, append=0)
    edges = np.flatnonzero(steps).tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))


def check_probabilities(probs: np.ndarray) -> None:
    """Raises ValueError where `probs` holds NaN or values outside [0, 1]."""
    if not np.all((probs >= 0) & (probs <= 1)):
        raise ValueError("probs must lie in [0, 1]; they hold NaN or values outside")
