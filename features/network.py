"""The network of an encoder: from pictures to features and cells."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from features.cells import CellProjection
from video.preprocessing import Transform, View


@dataclass(frozen=True)
class Parts:
    """The parts of a checkpoint."""

    trunk: nn.Module  # output of the stem -> feature map, or tokens
    linear: nn.Linear | None  # pooled features -> class logits
    transforms: Callable[[int], Mapping[View, Transform]]  # pixels a side of a square -> transforms
    image_size: int  # pixels a side, for which the model was made
    multiple: int  # both sides of a picture must be multiples of it
    mean: Sequence[float] = (0.0, 0.0, 0.0)  # of the network's input, for pixels in [0, 1]
    std: Sequence[float] = (1.0, 1.0, 1.0)
    class_names: dict[int, str] = field(default_factory=dict)
    stem: nn.Module = field(default_factory=nn.Identity)  # normalised pictures -> input of the trunk, in float32
    pool: Callable[[Tensor], Tensor] = lambda feature_map: feature_map.float().mean((2, 3))  # -> pooled features


class Network(nn.Module):
    """Maps pictures to pooled features, and to cells where the trunk gives a feature map.

    `linear` maps features to class logits where the model has classes. Stem, average pooling and last layer compute in
    float32, the trunk in `dtype`.
    """

    def __init__(self, parts: Parts, dtype: torch.dtype) -> None:
        super().__init__()
        with torch.inference_mode():  # in float32, which every device computes in
            example = parts.trunk(parts.stem(torch.zeros(1, 3, 2 * parts.multiple, 3 * parts.multiple)))
            self.feature_dim: int = parts.pool(example).shape[1]
        self.cells = CellProjection(example.shape[1]) if example.ndim == 4 else None
        self.stem = parts.stem
        self.trunk = parts.trunk.to(dtype)
        self.pool = parts.pool
        self.linear = parts.linear
        self.dtype = dtype
        self.input_dtype = next(self.stem.parameters(), torch.empty(0, dtype=dtype)).dtype
        self.has_mean = any(parts.mean)
        self.register_buffer("mean", 255 * _per_channel(parts.mean))
        self.register_buffer("scale", 1 / (255 * _per_channel(parts.std)))
        self.eval().requires_grad_(False)

    def forward(self, pictures: Tensor) -> Tensor:
        return self.pool(self._mapped(pictures)).float()

    def with_cells(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Computes features [num_pictures, feature_dim] and cells [num_pictures, cell_dim] in one pass."""
        feature_map = self._mapped(pictures)
        pooled = self.pool(feature_map).float()
        return pooled, pooled[:, :0] if self.cells is None else self.cells(feature_map)

    def _mapped(self, pictures: Tensor) -> Tensor:
        x = pictures.to(self.input_dtype, memory_format=torch.channels_last)
        if self.has_mean:
            x.sub_(self.mean)  # before scaling: pixels and their differences from 127.5 are exact in bfloat16
        return self.trunk(self.stem(x.mul_(self.scale)).to(self.dtype))


def _per_channel(values: Sequence[float]) -> torch.Tensor:
    """A tensor that broadcasts over a batch; a scalar where all channels are equal, which a CPU handles faster."""
    return torch.tensor(values[0]) if len(set(values)) == 1 else torch.tensor(values).view(1, 3, 1, 1)
