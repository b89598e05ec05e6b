"""What a classifier reads of a video: a row of numbers for each labeling frame, read from disk when it is needed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import DTypeLike

from features.array_store import MappedArray
from features.extraction import VideoFeatures

APPEARANCE, CELLS, MOTION, SOUND = "appearance", "cells", "motion", "sound"
BLOCKS = (APPEARANCE, CELLS, MOTION, SOUND)  # in the order in which they stand in a row


class FeatureSequence:
    """Blocks of a video's numbers side by side: [num_frames, numbers].

    A slice of it is read and put together when it is asked for, so that neither the arrays, which may be memory-mapped,
    nor those rows of them that labeling frames show are copied as a whole.

    Args:
        video: of `View.WHOLE`.
        index: [num_frames], for each labeling frame the row of `video` that it shows; None for all rows in order.
        blocks: which of `BLOCKS`. Cells are left out where the encoder gives none.

    Attributes:
        content: hash of the video file's bytes.
        layout: block -> how many numbers of a row are its own, in their order.
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
        """num_frames, numbers per frame."""
        return len(self), sum(self.layout.values())

    def __getitem__(self, frames: slice) -> np.ndarray:
        """The rows of a range of frames: [num_frames, numbers] float32."""
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
