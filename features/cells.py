"""Where in the picture what is: an encoder's feature map, in cells of a grid and a few numbers for each.

Features are averaged over the picture, and say nothing about place. Here each position of the feature map is rooted
(signed square root, as features are before a classifier reads them), projected from its hundreds of channels to
`CELL_DIM`, and averaged over the cell that it lies in. The grid is the same for pictures of every shape, so that a
project's videos can be compared: a cell is a place relative to the picture's sides.

The directions are random and orthonormal, from a fixed seed: they follow from nothing but the number of channels, so
that a video's numbers never depend on which others there are, and distances are kept as far as so few numbers can
(Johnson and Lindenstrauss, 1984). What that loses against a project's principal directions: benchmarks/README.md.

    cells = CellProjection(channels=1280)(feature_map)  # [num_pictures, cell_dim]
    stored, scale = quantised(cells.numpy())
"""

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

GRID = (6, 8)  # rows and columns: about the feature map of a 4:3 picture
CELL_DIM = 72  # numbers of a cell: with 8 bits each, an hour at 25 frames a second takes 311 MB
CELL_DTYPE = np.int8
SCALE_DTYPE = np.float32
SEED = 0
LEVELS = 127  # of 8 bits, on each side of 0


class CellProjection(nn.Module):
    """Feature maps [num_pictures, channels, rows, columns] to [num_pictures, GRID rows * GRID columns * dim] float32.

    The numbers of a cell stand together; cells follow each other row by row.

    Args:
        channels: of the feature map; dim is `CELL_DIM`, or as many as there are where that is less.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        dim = min(CELL_DIM, channels)
        gaussian = torch.randn(channels, dim, generator=torch.Generator().manual_seed(SEED), dtype=torch.float64)
        directions = torch.linalg.qr(gaussian)[0] * math.sqrt(channels / dim)  # keeps lengths, on average
        self.register_buffer("directions", directions.float())
        self.size = GRID[0] * GRID[1] * dim

    def forward(self, feature_map: Tensor) -> Tensor:
        channels_last = feature_map.permute(0, 2, 3, 1)
        rooted = channels_last.abs().sqrt_().copysign_(channels_last)
        projected = (rooted @ self.directions.to(rooted.dtype)).float()
        rows, columns = (
            _averaging(length, count).to(projected.device)
            for length, count in zip(projected.shape[1:3], GRID, strict=True)
        )
        return torch.einsum("rh,nhwd,cw->nrcd", rows, projected, columns).flatten(1)


@lru_cache(maxsize=64)
def _averaging(length: int, count: int) -> Tensor:
    """[count, length]: the mean over each of `count` equal parts of a line of positions, which may be cut in two."""
    edges = torch.arange(count + 1, dtype=torch.float64) * length / count
    positions = torch.arange(length)
    shares = torch.minimum(edges[1:, None], positions + 1) - torch.maximum(edges[:-1, None], positions)
    return (shares.clamp(min=0) * count / length).float()


def quantised(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of numbers in 8 bits each: [num_rows, dim] `CELL_DTYPE`, and what to multiply each row by, [num_rows]."""
    scale = np.abs(values).max(axis=1, initial=0).astype(SCALE_DTYPE) / LEVELS
    stored = np.rint(values / np.maximum(scale, np.finfo(SCALE_DTYPE).tiny)[:, None])
    return stored.astype(CELL_DTYPE), scale
