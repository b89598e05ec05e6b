"""Load timm's image models as encoders, among them the bundled one."""

import math
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from errors import EncoderError
from features.checkpoints import download
from features.network import Parts
from video.preprocessing import Transform, View, resize_and_crop, resize_whole

HUB_HOST = "https://huggingface.co"
HUB_TIMEOUT = 30.0  # seconds without a byte
DOWNLOAD_CHUNK = 1 << 20  # bytes
CNN_STRIDE = 32  # the sides of a convolutional network's pictures are multiples of it
# Names that two ImageNet classes each would share.
AMBIGUOUS_NAMES = {134: "crane_(bird)", 517: "crane_(machine)", 638: "maillot_(tights)", 639: "maillot_(tank_suit)"}


def fetch_timm_weights(path: Path) -> None:
    """Downloads the weights of the timm model that the file is named after, unless the file exists.

    Without internet it fails within seconds, and then at once for ten minutes.

    Raises:
        EncoderError: timm has no model of that name, or the weights can't be downloaded.
    """
    if path.is_file():
        return
    config = timm_config(path.stem)
    url = f"{HUB_HOST}/{config.hf_hub_id}/resolve/main/{config.hf_hub_filename or 'model.safetensors'}"
    download(path, HUB_HOST, lambda: _download_file(url, path))


def _download_file(url: str, path: Path) -> None:
    """Downloads a file beside the path, and renames it when it is complete."""
    import requests

    path.parent.mkdir(parents=True, exist_ok=True)
    identity = {"Accept-Encoding": "identity"}  # so that the length can be checked
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        unfinished = Path(folder, path.name)
        with requests.get(url, headers=identity, stream=True, timeout=HUB_TIMEOUT) as response:
            response.raise_for_status()
            with open(unfinished, "wb") as file:
                for chunk in response.iter_content(DOWNLOAD_CHUNK):
                    file.write(chunk)
            expected = int(response.headers["Content-Length"])
        if unfinished.stat().st_size != expected:
            raise OSError(f"{url} broke off after {unfinished.stat().st_size} of {expected} bytes")
        unfinished.replace(path)


class _Trunk(nn.Module):
    """A timm model up to its pooling. It gives a feature map with channels first, or tokens."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.channels_last = getattr(model, "output_fmt", None) == "NHWC"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        given = self.model.forward_features(x)
        return given.permute(0, 3, 1, 2) if self.channels_last else given

    def pool(self, given: torch.Tensor) -> torch.Tensor:
        """Pools as the model's authors do, by token or by average: the input of the last layer."""
        return self.model.forward_head(given.permute(0, 2, 3, 1) if self.channels_last else given, pre_logits=True)


def load_timm(path: Path) -> Parts:
    """Loads the timm model that a safetensors file is named after, with the file's weights.

    A model of tokens is made for one picture size; its positions are interpolated for other sizes.

    Raises:
        EncoderError: timm has no such model, the model takes one picture size only, or the weights don't fit it.
    """
    import timm
    from timm.data import resolve_model_data_config
    from timm.data.transforms import str_to_interp_mode

    sizes = {"dynamic_img_size": True} if timm_config(path.stem).fixed_input_size else {}
    weights = {"file": str(path), "custom_load": False}
    try:
        model = timm.create_model(path.stem, pretrained=True, pretrained_cfg_overlay=weights, **sizes).eval()
    except TypeError as error:
        raise EncoderError(f"timm's {path.stem} takes pictures of one size only: choose another model.") from error
    except Exception as error:  # a file of another model, or a damaged one
        raise EncoderError(f"{path.name} in MODEL_ROOT can't be loaded as timm's {path.stem}: {error}") from error
    config = resolve_model_data_config(model)
    multiple = max(stage["reduction"] for stage in model.feature_info)
    size = math.isqrt(math.prod(config["input_size"][1:]))
    interpolation = str_to_interp_mode(config["interpolation"])
    trunk = _Trunk(model)

    def transforms(image_size: int) -> dict[View, Transform]:
        return dict.fromkeys(View, resize_whole(image_size**2, multiple, interpolation))

    return Parts(trunk, None, transforms, size, multiple, config["mean"], config["std"], pool=trunk.pool)


def timm_config(name: str) -> Any:
    """timm's description of a model and its weights.

    Raises:
        EncoderError: timm has no model of that name.
    """
    from timm.models import get_pretrained_cfg, is_model

    try:
        if is_model(name):
            return get_pretrained_cfg(name, allow_unregistered=False)
    except RuntimeError:  # the model has no weights of that name
        pass
    raise EncoderError(f'timm has no model "{name}"; the names of its models are listed on {HUB_HOST}/timm.')


def load_bundled(path: Path, exact: bool) -> Parts:
    """Loads EfficientNet-Lite0 in timm's implementation. The file has its tensors in that order, under other names."""
    import timm
    from torchvision.transforms import InterpolationMode

    model = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    tensors = torch.load(path, map_location="cpu", weights_only=True).values()
    model.load_state_dict(dict(zip(model.state_dict(), tensors, strict=True)))
    _fold_batch_norm(model)
    # With the first layers' weights alone rounded to bfloat16, features turn by up to 9 degrees (cosine 0.99).
    stem = nn.Sequential(model.conv_stem, model.bn1, model.blocks[0])
    trunk = nn.Sequential(*model.blocks[1:], model.conv_head, model.bn2)
    bicubic = InterpolationMode.BICUBIC

    def transforms(image_size: int) -> dict[View, Transform]:
        return {
            View.CROP: resize_and_crop(256 * image_size // 224, (image_size, image_size), bicubic, exact),
            View.WHOLE: resize_whole(image_size**2, CNN_STRIDE, bicubic),
        }

    half = (0.5, 0.5, 0.5)  # size, interpolation, mean and deviation are those that timm documents for these weights
    return Parts(trunk, model.classifier, transforms, 224, CNN_STRIDE, half, half, _imagenet_names(), stem)


def _fold_batch_norm(model: nn.Module) -> None:
    """Folds timm's batch normalisations into the convolutions before them; their activations stay."""
    from timm.layers import BatchNormAct2d

    for parent in list(model.modules()):
        convolution = ""
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Conv2d):
                convolution = name
            elif isinstance(child, BatchNormAct2d):
                setattr(parent, convolution, fuse_conv_bn_eval(getattr(parent, convolution), child))
                setattr(parent, name, child.act)


def _imagenet_names() -> dict[int, str]:
    """The 1000 ImageNet classes in the spelling of Ultralytics' classifiers; indices follow the WordNet ids' order."""
    from timm.data import ImageNetInfo

    words = ImageNetInfo()
    names = {index: words.index_to_description(index).split(",")[0].replace(" ", "_") for index in range(1000)}
    return names | AMBIGUOUS_NAMES
