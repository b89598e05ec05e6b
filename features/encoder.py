"""Turn frames into features and class probabilities with a pre-trained image model.

An encoder is any Ultralytics model: a classifier gives the input of its last linear layer and its class probabilities,
a model of another task the pooled feature map before its head. Where the default checkpoint can't be fetched, a bundled
EfficientNet-Lite0 takes its place.

    encoder = get_encoder(None, model_root=Path("models"))
    features = encoder.features(encoder.preprocess(frames, View.WHOLE))
    probs = encoder.probabilities(encoder.preprocess(frames, View.CROP))
"""

import hashlib
import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from av.video.reformatter import VideoReformatter
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from errors import EncoderError
from features.checkpoints import (
    DEFAULT_MODEL,
    bundled_path,
    checkpoint_path,
    fetch_asset,
    file_hash,
    import_ultralytics,
)
from video.preprocessing import Transform, View, letterbox, resize_and_crop, resize_whole, upright
from video.reader import Frame

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
PREPROCESSING_VERSION = 3  # part of the fingerprint: raise it whenever the same video would give other numbers
MIN_STRIDE = 32  # Ultralytics rounds image sizes up to a multiple of it, whatever the model

_lock = threading.Lock()
_encoders: dict[tuple[Path, str], tuple[tuple[int, int], "Encoder"]] = {}


class Encoder:
    """A pre-trained image model and the preprocessing that belongs to it.

    Cheap to make: it reads the file's bytes, but loads the model when that is first needed. Safe to use from several
    threads at once.

    Attributes:
        name: the checkpoint's name without its suffix.
        device: what it computes on.
        precision: what it computes in: "fp32", "bf16" or "fp16".
        is_fallback: whether this is the bundled encoder in place of the default one.
    """

    def __init__(
        self,
        path: Path,
        device: torch.device,
        precision: str,
        is_fallback: bool = False,
        asked_precision: str | None = None,
    ) -> None:
        self.name = "efficientnet-lite0" if is_fallback else path.stem
        self.device = device
        self.precision = precision
        self._asked_precision = asked_precision or precision
        self.is_fallback = is_fallback
        self._path = path
        self._weights_hash = file_hash(path)
        self._load_lock = threading.Lock()

    @property
    def fingerprint(self) -> str:
        """Identifies the numbers that this encoder computes; the model isn't loaded for it.

        Layer and input size are not named in it: they follow from the weights and the preprocessing's version. Nor is
        what "auto" means on this machine: what a machine with a GPU extracted is found by one without.
        """
        parts = (self._weights_hash, str(PREPROCESSING_VERSION), self._asked_precision)
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]

    @property
    def class_names(self) -> dict[int, str]:
        """Index of a class -> its name; empty where the model is no classifier."""
        return self._model.class_names

    @property
    def feature_dim(self) -> int:
        """Numbers per frame."""
        return self._model.feature_dim

    @property
    def num_classes(self) -> int:
        """Class probabilities per frame; 0 where the model is no classifier."""
        return self._model.num_classes

    def preprocess(self, frames: Sequence[Frame], view: View) -> torch.Tensor:
        """A view of upright pictures, as the network takes it; they must all have the same size and rotation.

        Returns:
            [num_frames, 3, height, width] uint8 RGB, channels last in memory.
        """
        transform, reformatter = self._model.transforms[view], VideoReformatter()
        pictures = [transform(upright(reformatter, frame)) for frame in frames]
        return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)

    @torch.inference_mode()
    def features(self, batch: torch.Tensor) -> np.ndarray:
        """Features, [num_frames, feature_dim] float32, of what `preprocess` returned."""
        return self._model.network(batch.to(self.device)).cpu().numpy()

    @torch.inference_mode()
    def probabilities(self, batch: torch.Tensor) -> np.ndarray:
        """Class probabilities, [num_frames, num_classes] float32, of what `preprocess` returned.

        num_classes is 0 where the model is no classifier.
        """
        network = self._model.network
        if network.linear is None:
            return np.empty((len(batch), 0), np.float32)
        return network.linear(network(batch.to(self.device))).softmax(1).cpu().numpy()

    @property
    def _model(self) -> "_Model":
        with self._load_lock:
            return self._loaded

    @cached_property
    def _loaded(self) -> "_Model":
        load = _load_bundled if self.is_fallback else _load_yolo
        parts = load(self._path, exact=self.precision == "fp32")
        if file_hash(self._path) != self._weights_hash:
            raise EncoderError(f"{self._path.name} was replaced while it was being loaded: try again.")
        network = _Network(parts, PRECISIONS[self.precision]).to(self.device, memory_format=torch.channels_last)
        if self.precision == "bf16" and self.device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported():
            _speed_up(network)
        with torch.inference_mode():
            features = network(torch.zeros(1, 3, 64, 64, dtype=torch.uint8, device=self.device))
        num_classes = 0 if parts.linear is None else parts.linear.out_features
        return _Model(network, parts.transforms, parts.class_names, features.shape[1], num_classes)


def get_encoder(
    model_path: str | None,
    *,
    model_root: Path,
    precision: str = "auto",
    allow_custom: bool = True,
    fallback: bool = True,
) -> Encoder:
    """The encoder that a labeling config asks for; the same object as long as the file stays the same.

    Args:
        model_path: the name of a file in `model_root`, or of an official Ultralytics model, which is fetched into it;
            None for the default model.
        model_root: the only folder that checkpoints are loaded from.
        precision: "auto", "fp32", "bf16" or "fp16".
        allow_custom: whether `model_path` may be given at all.
        fallback: whether the bundled encoder takes the place of a default model that can't be fetched.

    Raises:
        EncoderError: not allowed, not found or not to be fetched, and what to do about it.
    """
    if model_path is not None and not allow_custom:
        raise EncoderError(
            f'model_path="{model_path}" is not allowed here (ALLOW_CUSTOM_MODEL_PATH=false): remove the attribute.'
        )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    resolved = _resolve_precision(precision, device)
    path = checkpoint_path(DEFAULT_MODEL if model_path is None else model_path, Path(model_root))
    is_fallback = False
    if not path.is_file():
        try:
            fetch_asset(path)
        except EncoderError:
            if not fallback or path.name != DEFAULT_MODEL:
                raise
            path, is_fallback = bundled_path(), True
    status = path.stat()
    version = (status.st_size, status.st_mtime_ns)
    with _lock:
        known_version, encoder = _encoders.get((path, precision), (None, None))
        if encoder is None or known_version != version:
            encoder = Encoder(path, device, resolved, is_fallback, precision)
            _encoders[path, precision] = (version, encoder)
        return encoder


def _resolve_precision(precision: str, device: torch.device) -> str:
    """What "auto" means on a device: half precision on a GPU, bfloat16 on a CPU that computes in it.

    Raises:
        EncoderError: no such precision.
    """
    if precision == "auto":
        if device.type == "cuda":
            return "fp16"
        return "bf16" if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() else "fp32"
    if precision not in PRECISIONS:
        raise EncoderError(f'PRECISION="{precision}" is unknown: use auto, {", ".join(PRECISIONS)}.')
    return precision


@dataclass(frozen=True)
class _Parts:
    """A checkpoint taken apart."""

    trunk: nn.Module  # normalised pictures, or what the stem makes of them -> feature map
    linear: nn.Linear | None  # pooled feature map -> class logits
    transforms: Mapping[View, Transform]
    mean: Sequence[float] = (0.0, 0.0, 0.0)  # of the network's input, pixels in [0, 1]
    std: Sequence[float] = (1.0, 1.0, 1.0)
    class_names: dict[int, str] = field(default_factory=dict)
    stem: nn.Module = field(default_factory=nn.Identity)  # first layers, which need float32


@dataclass(frozen=True)
class _Model:
    network: "_Network"
    transforms: Mapping[View, Transform]
    class_names: dict[int, str]
    feature_dim: int
    num_classes: int


class _Network(nn.Module):
    """Pictures to pooled features; `linear` makes class logits of them, where there are classes.

    Stem, pooling and last layer compute in float32, the trunk between them in `dtype`.
    """

    def __init__(self, parts: _Parts, dtype: torch.dtype) -> None:
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
        return self.trunk(self.stem(x.mul_(self.scale)).to(self.dtype)).float().mean((2, 3))


def _per_channel(values: Sequence[float]) -> torch.Tensor:
    """Broadcasts over a batch; a scalar where all channels are equal, since that is many times faster on a CPU."""
    return torch.tensor(values[0]) if len(set(values)) == 1 else torch.tensor(values).view(1, 3, 1, 1)


class _Layers(nn.Module):
    """The layers of an Ultralytics model before its head, with their skip connections."""

    def __init__(self, layers: Sequence[nn.Module], saved: Sequence[int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.saved = frozenset(saved)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outputs: list[torch.Tensor | None] = []
        for index, layer in enumerate(self.layers):
            if layer.f != -1:  # where the input comes from; -1 is the layer before
                x = outputs[layer.f] if isinstance(layer.f, int) else [x if f == -1 else outputs[f] for f in layer.f]
            x = layer(x)
            outputs.append(x if index in self.saved else None)
        return x


def _load_yolo(path: Path, exact: bool) -> _Parts:
    """Takes an Ultralytics checkpoint apart; `exact` as in `resize_and_crop`.

    Raises:
        EncoderError: not a checkpoint, or not one that can be used.
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
    if not isinstance(head, Classify):
        return _Parts(trunk, None, dict.fromkeys(View, letterbox(size, stride)))
    resize, crop, normalize = _classifier_transforms(path, model, size)
    return _Parts(
        nn.Sequential(trunk, head.conv),
        head.linear,
        {
            View.CROP: resize_and_crop(resize.size, crop.size, resize.interpolation, exact),
            View.WHOLE: resize_whole(math.prod(size), stride, resize.interpolation),
        },
        [float(value) for value in normalize.mean],
        [float(value) for value in normalize.std],
        dict(model.names),
    )


def _classifier_transforms(path: Path, model: nn.Module, size: list[int]) -> tuple[Any, Any, Any]:
    """Resize, centre crop and normalisation, chosen as Ultralytics' ClassificationPredictor does.

    Those of the checkpoint where they fit its image size, else Ultralytics' own.
    """
    from torchvision import transforms
    from ultralytics.data.augment import classify_transforms

    own = getattr(model, "transforms", None)
    own_size = getattr(own.transforms[0], "size", size) if own is not None else None
    own_size = [own_size, own_size] if isinstance(own_size, int) else own_size
    steps = (own if own_size is not None and list(own_size) == size else classify_transforms(size)).transforms
    expected = (transforms.Resize, transforms.CenterCrop, transforms.ToTensor, transforms.Normalize)
    if tuple(map(type, steps)) != expected:
        raise EncoderError(f"{path.name} in MODEL_ROOT has transforms of its own making, which can't be used.")
    return steps[0], steps[1], steps[3]


def _speed_up(network: nn.Module) -> None:
    """Replaces two operations of Ultralytics' modules by faster ones: 9 % of an extraction in bfloat16.

    oneDNN applies SiLU to what it convolves in one operation, the one that torch.compile makes of the two, and rounds
    to bfloat16 once instead of twice. Where a bottleneck adds its input, half of the channels of another tensor, that
    is copied first, since adding is slow across gaps.
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


def _load_bundled(path: Path, exact: bool) -> _Parts:
    """EfficientNet-Lite0 in timm's implementation; the file has its tensors in the same order under other names."""
    import timm
    from torchvision.transforms import InterpolationMode

    model = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    tensors = torch.load(path, map_location="cpu", weights_only=True).values()
    model.load_state_dict(dict(zip(model.state_dict(), tensors, strict=True)))
    _fold_batch_norm(model)
    # Rounded to bfloat16, the weights of the first layers alone would turn features by up to 9 degrees (cosine 0.99).
    stem = nn.Sequential(model.conv_stem, model.bn1, model.blocks[0])
    trunk = nn.Sequential(*model.blocks[1:], model.conv_head, model.bn2)
    # The sizes, interpolation, mean and deviation that timm documents for these weights.
    transforms = {
        View.CROP: resize_and_crop(256, (224, 224), InterpolationMode.BICUBIC, exact),
        View.WHOLE: resize_whole(224 * 224, MIN_STRIDE, InterpolationMode.BICUBIC),
    }
    half = (0.5, 0.5, 0.5)
    return _Parts(trunk, model.classifier, transforms, half, half, _imagenet_names(), stem)


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
    import_ultralytics()
    from ultralytics.utils import ROOT, YAML

    name_of_id = YAML.load(ROOT / "cfg/datasets/ImageNet.yaml")["map"]
    return dict(enumerate(name_of_id[wordnet_id] for wordnet_id in sorted(name_of_id)))
