"""Cells: an encoder's feature map, projected to few dimensions and averaged over the cells of a grid.

Features are averaged over the picture, and say nothing about place. Here the signed square root of each position of the
feature map is taken, projected from hundreds of channels to `CELL_DIM`, and averaged over the position's cell. The grid
is the same for pictures of every shape, so that a project's videos can be compared: a cell is a place relative to the
picture's sides.

The directions are random and orthonormal, from a fixed seed. They depend only on the number of channels, so that a
video's cells don't depend on other videos, and they keep distances as far as so few dimensions can (Johnson and
Lindenstrauss, 1984). benchmarks/README.md compares them with a project's principal directions.

    cells = CellProjection(channels=1280)(feature_map)  # [num_pictures, cell_dim]
    stored, scale = quantised(cells.numpy())
"""

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

GRID = (6, 8)  # rows and columns: about the feature map of a 4:3 picture
CELL_DIM = 72  # dimensions of a cell; with 8 bits each, an hour at 25 frames a second takes 311 MB
CELL_DTYPE = np.int8
SCALE_DTYPE = np.float32
SEED = 0
LEVELS = 127  # of 8 bits on each side of 0


class CellProjection(nn.Module):
    """Maps feature maps [num_pictures, channels, rows, columns] to cells, [num_pictures, rows * columns of GRID * dim].

    The result is float32. The values of a cell stand together; the cells follow each other row by row.

    Args:
        channels: of the feature map. dim is `CELL_DIM`, or `channels` where that is less.
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
        roots = channels_last.abs().sqrt_().copysign_(channels_last)
        projected = (roots @ self.directions.to(roots.dtype)).float()
        rows, columns = (
            _averaging(length, count).to(projected.device)
            for length, count in zip(projected.shape[1:3], GRID, strict=True)
        )
        return torch.einsum("rh,nhwd,cw->nrcd", rows, projected, columns).flatten(1)


@lru_cache(maxsize=64)
def _averaging(length: int, count: int) -> Tensor:
    """The matrix [count, length] of means over `count` equal parts of a line; an edge may cut a position in two."""
    edges = torch.arange(count + 1, dtype=torch.float64) * length / count
    positions = torch.arange(length)
    overlaps = torch.minimum(edges[1:, None], positions + 1) - torch.maximum(edges[:-1, None], positions)
    return (overlaps.clamp(min=0) * count / length).float()


def quantised(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Quantises rows to 8 bits: [num_rows, dim] `CELL_DTYPE`, and the factor of each row, [num_rows]."""
    scale = np.abs(values).max(axis=1, initial=0).astype(SCALE_DTYPE) / LEVELS
    stored = np.rint(values / np.maximum(scale, np.finfo(SCALE_DTYPE).tiny)[:, None])
    return stored.astype(CELL_DTYPE), scale
