"""Load Ultralytics' checkpoints as encoders."""

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from errors import EncoderError
from features.checkpoints import import_ultralytics
from features.network import Parts
from video.preprocessing import Transform, View, letterbox, resize_and_crop, resize_whole

MIN_STRIDE = 32  # Ultralytics rounds image sizes up to a multiple of it, for every model


class _Layers(nn.Module):
    """The layers of an Ultralytics model before its head, with their skip connections."""

    def __init__(self, layers: Sequence[nn.Module], saved: Sequence[int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.saved = frozenset(saved)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outputs: list[torch.Tensor | None] = []
        for index, layer in enumerate(self.layers):
            if layer.f != -1:  # the layer that gives the input; -1 is the one before
                x = outputs[layer.f] if isinstance(layer.f, int) else [x if f == -1 else outputs[f] for f in layer.f]
            x = layer(x)
            outputs.append(x if index in self.saved else None)
        return x


def load_yolo(path: Path, exact: bool) -> Parts:
    """Loads the parts of an Ultralytics checkpoint; `exact` as of `resize_and_crop`.

    Raises:
        EncoderError: the file is no checkpoint, or one that can't be used.
    """
    import_ultralytics()
    from ultralytics import YOLO
    from ultralytics.nn.modules import Classify
    from ultralytics.utils.checks import check_imgsz

    try:
        yolo = YOLO(str(path))
        model = yolo.model.eval()
        model.fuse(verbose=False)
        *layers, head = model.model
        stride = max(MIN_STRIDE, int(model.stride.max()))
        size = check_imgsz(yolo.overrides["imgsz"], stride=stride, min_dim=2)
    except Exception as error:  # a damaged pickle can raise anything
        raise EncoderError(
            f"{path.name} in MODEL_ROOT can't be loaded as an Ultralytics checkpoint: {error}"
        ) from error
    trunk = _Layers(layers, model.save)
    own_size = math.isqrt(math.prod(size))

    def scaled(sides: int | list[int], image_size: int) -> int | list[int]:
        """Scales sides from the model's own size to another one."""
        if isinstance(sides, int):
            return sides * image_size // own_size
        return [side * image_size // own_size for side in sides]

    if not isinstance(head, Classify):
        return Parts(
            trunk, None, lambda side: dict.fromkeys(View, letterbox(scaled(size, side), stride)), own_size, stride
        )
    resize, crop, normalize = _classifier_transforms(path, model, size)

    def transforms(image_size: int) -> dict[View, Transform]:
        sides = scaled(resize.size, image_size), scaled(list(crop.size), image_size)
        area = math.prod(scaled(size, image_size))
        return {
            View.CROP: resize_and_crop(*sides, resize.interpolation, exact),
            View.WHOLE: resize_whole(area, stride, resize.interpolation),
        }

    return Parts(
        nn.Sequential(trunk, head.conv),
        head.linear,
        transforms,
        own_size,
        stride,
        [float(value) for value in normalize.mean],
        [float(value) for value in normalize.std],
        dict(model.names),
    )


def _classifier_transforms(path: Path, model: nn.Module, size: list[int]) -> tuple[Any, Any, Any]:
    """Resize, centre crop and normalisation, as Ultralytics' ClassificationPredictor chooses them.

    They are those of the checkpoint where these fit its image size, else Ultralytics' defaults.
    """
    from torchvision import transforms
    from ultralytics.data.augment import classify_transforms

    own = getattr(model, "transforms", None)
    own_size = getattr(own.transforms[0], "size", size) if own is not None else None
    own_size = [own_size, own_size] if isinstance(own_size, int) else own_size
    steps = (own if own_size is not None and list(own_size) == size else classify_transforms(size)).transforms
    expected = (transforms.Resize, transforms.CenterCrop, transforms.ToTensor, transforms.Normalize)
    if tuple(map(type, steps)) != expected:
        raise EncoderError(f"{path.name} in MODEL_ROOT has transforms of its own that can't be used.")
    return steps[0], steps[1], steps[3]


def speed_up(network: nn.Module) -> None:
    """Replaces two operations of Ultralytics' modules by faster ones, which saves 9 % of an extraction in bfloat16.

    Convolution and SiLU become one operation of oneDNN, the one that torch.compile chooses; it rounds to bfloat16 once
    instead of twice. A bottleneck's input, which is half of the channels of another tensor, is copied before it is
    added, since adding is slow across gaps in memory.
    """
    import_ultralytics()
    from ultralytics.nn.modules import Bottleneck, Conv

    for module in network.modules():
        if isinstance(module, Conv) and isinstance(module.act, nn.SiLU):
            module.forward = partial(_convolve_and_silu, module.conv)
        elif type(module) is Bottleneck and module.add:
            module.forward = partial(_add_bottleneck, module)


def _add_bottleneck(bottleneck: nn.Module, x: torch.Tensor) -> torch.Tensor:
    x = x.contiguous(memory_format=torch.channels_last)
    return bottleneck.cv2(bottleneck.cv1(x)).add_(x)


def _convolve_and_silu(conv: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    geometry = (conv.padding, conv.stride, conv.dilation, conv.groups)
    return torch.ops.mkldnn._convolution_pointwise(x, conv.weight, conv.bias, *geometry, "swish", [], "")
