"""What a classifier reads of a video: a row of numbers for each labeling frame, read from disk when it is needed."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from features.array_store import MappedArray
from features.extraction import VideoFeatures


class FeatureSequence:
    """The encoder's features and, behind them, motion: [num_frames, feature_dim + motion_size].

    A slice of it is read and put together when it is asked for, so that neither the arrays, which may be memory-mapped,
    nor those rows of them that labeling frames show are copied as a whole.

    Args:
        video: of `View.WHOLE`.
        index: [num_frames], for each labeling frame the row of `video` that it shows; None for all rows in order.
    """

    def __init__(self, video: VideoFeatures, index: np.ndarray | None = None) -> None:
        self._features, self._motion = video.features, video.motion
        if index is not None and np.array_equal(index, np.arange(len(video.times))):
            index = None
        self._index = index

    def __len__(self) -> int:
        return len(self._features if self._index is None else self._index)

    @property
    def shape(self) -> tuple[int, int]:
        """num_frames, numbers per frame."""
        return len(self), self._features.shape[1] + self._motion.shape[1]

    def __getitem__(self, frames: slice) -> np.ndarray:
        """The rows of a range of frames: [num_frames, numbers] float32."""
        rows = frames if self._index is None else self._index[frames]
        features, motion = self._features[rows], self._motion[rows]
        values = np.concatenate([features, motion], axis=1, dtype=np.float32)
        for array in (self._features, self._motion):
            if isinstance(array, MappedArray):
                array.release()
        return values

    def __array__(self, dtype: DTypeLike = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(dtype or np.float32, copy=False)
