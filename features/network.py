"""The network of an encoder: normalised pictures in, pooled features out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from video.preprocessing import Transform, View


@dataclass(frozen=True)
class Parts:
    """A checkpoint taken apart."""

    trunk: nn.Module  # normalised pictures, or what the stem makes of them -> feature map or pooled features
    linear: nn.Linear | None  # pooled features -> class logits
    transforms: Mapping[View, Transform]
    multiple: int  # of which the sides of a picture are multiples
    mean: Sequence[float] = (0.0, 0.0, 0.0)  # of the network's input, pixels in [0, 1]
    std: Sequence[float] = (1.0, 1.0, 1.0)
    class_names: dict[int, str] = field(default_factory=dict)
    stem: nn.Module = field(default_factory=nn.Identity)  # first layers, which need float32


class Network(nn.Module):
    """Pictures to pooled features; `linear` makes class logits of them, where there are classes.

    Stem, pooling and last layer compute in float32, the trunk between them in `dtype`.
    """

    def __init__(self, parts: Parts, dtype: torch.dtype) -> None:
        super().__init__()
        self.stem = parts.stem
        self.trunk = parts.trunk.to(dtype)
        self.linear = parts.linear
        self.dtype = dtype
        self.input_dtype = next(self.stem.parameters(), torch.empty(0, dtype=dtype)).dtype
        self.has_mean = any(parts.mean)
        self.register_buffer("mean", 255 * _per_channel(parts.mean))
        self.register_buffer("scale", 1 / (255 * _per_channel(parts.std)))
        self.eval().requires_grad_(False)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        x = pictures.to(self.input_dtype, memory_format=torch.channels_last)
        if self.has_mean:
            x.sub_(self.mean)  # before scaling: pixels and their differences from 127.5 are exact in bfloat16
        x = self.trunk(self.stem(x.mul_(self.scale)).to(self.dtype)).float()
        return x.mean((2, 3)) if x.ndim == 4 else x


def _per_channel(values: Sequence[float]) -> torch.Tensor:
    """Broadcasts over a batch; a scalar where all channels are equal, since that is many times faster on a CPU."""
    return torch.tensor(values[0]) if len(set(values)) == 1 else torch.tensor(values).view(1, 3, 1, 1)
