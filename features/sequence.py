"""The features of a video's labeling frames, read from disk on demand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import DTypeLike

from features.array_store import MappedArray
from features.extraction import VideoFeatures

APPEARANCE, CELLS, MOTION, SOUND = "appearance", "cells", "motion", "sound"
BLOCKS = (APPEARANCE, CELLS, MOTION, SOUND)  # in their order in a row


class FeatureSequence:
    """A video's blocks of features side by side: [num_frames, dim].

    A slice is read and joined on demand, so that the arrays, which may be memory-mapped, are never copied as a whole.

    Args:
        video: features of `View.WHOLE`.
        index: [num_frames], the row of `video` that each labeling frame shows; None for all rows in order.
        blocks: some of `BLOCKS`. Cells are left out where the encoder gives none.

    Attributes:
        content: hash of the video file's bytes.
        layout: block -> its dimensions, in their order in a row.
    """

    def __init__(self, video: VideoFeatures, index: np.ndarray | None = None, blocks: Sequence[str] = BLOCKS) -> None:
        arrays = {APPEARANCE: video.features, CELLS: video.cells, MOTION: video.motion, SOUND: video.sound}
        self._arrays = {
            block: arrays[block]
            for block in BLOCKS
            if block in blocks and arrays[block] is not None and arrays[block].shape[1]
        }
        self._cell_scale = video.cell_scale
        if index is not None and np.array_equal(index, np.arange(len(video.times))):
            index = None
        self._index = index
        self._num_rows = len(video.times)
        self.content = video.content
        self.layout: dict[str, int] = {block: array.shape[1] for block, array in self._arrays.items()}

    def __len__(self) -> int:
        return self._num_rows if self._index is None else len(self._index)

    @property
    def shape(self) -> tuple[int, int]:
        """num_frames, dim."""
        return len(self), sum(self.layout.values())

    def __getitem__(self, frames: slice) -> np.ndarray:
        """The rows of a range of frames: [num_frames, dim] float32."""
        rows = frames if self._index is None else self._index[frames]
        parts = {block: array[rows] for block, array in self._arrays.items()}
        values = np.concatenate(list(parts.values()), axis=1, dtype=np.float32)
        if CELLS in parts:
            start = self.layout.get(APPEARANCE, 0)
            values[:, start : start + self.layout[CELLS]] *= self._cell_scale[rows][:, None]
        for array in (*self._arrays.values(), self._cell_scale):
            if isinstance(array, MappedArray):
                array.release()
        return values

    def __array__(self, dtype: DTypeLike = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(dtype or np.float32, copy=False)
