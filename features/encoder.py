"""Turn frames into features and class probabilities with a pre-trained image model.

An encoder is a model of Ultralytics or of timm. An Ultralytics classifier gives the input of its last linear layer and
its class probabilities; an Ultralytics model of another task gives the pooled feature map before its head; a timm model
gives the input of its last layer. Where the default checkpoint can't be fetched, a bundled EfficientNet-Lite0 takes its
place.

    encoder = get_encoder(None, model_root=Path("models"))
    features = encoder.features(encoder.preprocess(frames, View.WHOLE))
    probs = encoder.probabilities(encoder.preprocess(frames, View.CROP))
"""

import copy
import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from av.video.reformatter import VideoReformatter

from errors import EncoderError, NotReady
from features.checkpoints import (
    BACKGROUND_PATIENCE,
    DEFAULT_MODEL,
    TIMM_PREFIX,
    TIMM_SUFFIX,
    bundled_path,
    checkpoint_path,
    fetch_asset,
    fetch_in_background,
    file_hash,
    timm_path,
)
from features.network import Network
from features.timm_models import fetch_timm_weights, load_bundled, load_timm
from features.yolo_models import load_yolo, speed_up
from video.preprocessing import Region, Transform, View, cropped, upright
from video.reader import Frame

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# Frames that are encoded together. More aren't faster on a CPU's core. On a GPU they are: each operation waits for
# Python's lock, which other threads hold.
BATCH_SIZES = {"cpu": 16, "cuda": 64}
PREPROCESSING_VERSION = 7  # part of the fingerprint; raise it where the same video would give other features

_lock = threading.Lock()
_encoders: dict[tuple[Path, str], tuple[tuple[int, int], "Encoder"]] = {}


class Encoder:
    """A pre-trained image model with its preprocessing.

    The constructor reads the file's bytes only; the model is loaded on first use. Several threads may use an encoder at
    once.

    Attributes:
        name: the checkpoint's name without its suffix.
        device: the device that it computes on.
        precision: the precision that it computes in: "fp32", "bf16" or "fp16".
        is_fallback: whether this is the bundled encoder in place of the default one.
        region: the part of the pictures that it is shown; None for whole pictures.
        image_size: pixels a side of a square with as many pixels as it is shown; None for the model's own size.
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
        self._is_timm = path.suffix == TIMM_SUFFIX
        self._weights_hash = file_hash(path)
        self.region: Region | None = None
        self.image_size: int | None = None
        self._checkpoint = self  # the encoder whose model is used
        self._variants: dict[tuple[Region | None, int | None], Encoder] = {(None, None): self}
        self._load_lock = threading.Lock()
        self._loader = threading.Thread(target=self._try_to_load, name=f"load {self.name}", daemon=True)

    @property
    def fingerprint(self) -> str:
        """A hash that identifies what this encoder computes. The model isn't loaded for it.

        It covers the weights, the version of the preprocessing, PRECISION, region and image size; for a timm model also
        the name, which tells the architecture. "auto" is one precision here, so that a machine without a GPU finds the
        features that a machine with one extracted.
        """
        weights = self._weights_hash + (self.name if self._is_timm else "")
        parts = [weights, str(PREPROCESSING_VERSION), self._asked_precision]
        parts += [str(look) for look in (self.region, self.image_size) if look is not None]
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]

    def looking_at(self, region: Region | None, image_size: int | None) -> "Encoder":
        """Returns an encoder of the same model with another region and image size, always the same object for these."""
        look = (region, image_size)
        with _lock:
            if look not in self._variants:
                variant = copy.copy(self)
                variant.region, variant.image_size = look
                self._variants[look] = variant
            return self._variants[look]

    def is_loaded(self, within: float = 0.0) -> bool:
        """Whether loading the model has ended, also in an error. It starts to load in the background where needed, and
        waits `within` seconds."""
        with _lock:
            if self._loader.ident is None:
                self._loader.start()
        self._loader.join(within)
        return not self._loader.is_alive()

    def _try_to_load(self) -> None:
        with suppress(EncoderError):  # raised again where the model is used
            _ = self._model

    @property
    def class_names(self) -> dict[int, str]:
        """Index of a class -> its name; empty where the model isn't a classifier."""
        return self._model.class_names

    @property
    def feature_dim(self) -> int:
        """Dimensions of the features."""
        return self._model.feature_dim

    @property
    def cell_dim(self) -> int:
        """Dimensions of all cells together; 0 where the model gives tokens instead of a feature map."""
        return self._model.cell_dim

    @property
    def num_classes(self) -> int:
        """The number of classes; 0 where the model isn't a classifier."""
        return self._model.num_classes

    @property
    def batch_size(self) -> int:
        """Frames to encode together: fewer where more pixels are shown than at the model's own size."""
        more_pixels = max(1.0, (self.image_size or 1) / self._model.image_size) ** 2
        return max(1, int(BATCH_SIZES[self.device.type] / more_pixels))

    def preprocess(self, frames: Sequence[Frame], view: View) -> torch.Tensor:
        """Makes the network's input of frames, which must all have the same size and rotation.

        Returns:
            [num_frames, 3, height, width] uint8 RGB, channels last in memory.
        """
        model, reformatter = self._model, VideoReformatter()
        transform = model.transforms(self.image_size or model.image_size)[view]
        pictures = [transform(cropped(upright(reformatter, frame), self.region)) for frame in frames]
        return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)

    @torch.inference_mode()
    def features(self, batch: torch.Tensor) -> np.ndarray:
        """Computes features, [num_frames, feature_dim] float32, of a batch from `preprocess`."""
        return self._model.network(batch.to(self.device)).cpu().numpy()

    @torch.inference_mode()
    def features_and_cells(self, batch: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Computes features and, in the same pass, the feature map's cells, [num_frames, cell_dim] float32."""
        features, cells = self._model.network.with_cells(batch.to(self.device))
        return features.cpu().numpy(), cells.cpu().numpy()

    @torch.inference_mode()
    def probabilities(self, batch: torch.Tensor) -> np.ndarray:
        """Computes class probabilities, [num_frames, num_classes] float32, of a batch from `preprocess`.

        num_classes is 0 where the model isn't a classifier.
        """
        network = self._model.network
        if network.linear is None:
            return np.empty((len(batch), 0), np.float32)
        return network.linear(network(batch.to(self.device))).softmax(1).cpu().numpy()

    @property
    def _model(self) -> "_Model":
        checkpoint = self._checkpoint
        with checkpoint._load_lock:
            return checkpoint._loaded

    @cached_property
    def _loaded(self) -> "_Model":
        exact = self.precision == "fp32"
        if self.is_fallback:
            parts = load_bundled(self._path, exact)
        else:
            parts = load_timm(self._path) if self._is_timm else load_yolo(self._path, exact)
        if file_hash(self._path) != self._weights_hash:
            raise EncoderError(f"{self._path.name} was replaced while it was loaded. Try again.")
        network = Network(parts, PRECISIONS[self.precision]).to(self.device, memory_format=torch.channels_last)
        computes_bf16 = self.device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported()
        if self.precision == "bf16" and computes_bf16 and not (self.is_fallback or self._is_timm):
            speed_up(network)
        num_classes = 0 if parts.linear is None else parts.linear.out_features
        cell_dim = 0 if network.cells is None else network.cells.size
        dims = (network.feature_dim, cell_dim, num_classes)
        return _Model(network, parts.transforms, parts.image_size, parts.class_names, *dims)


def get_encoder(
    model_path: str | None,
    *,
    model_root: Path,
    precision: str = "auto",
    allow_custom: bool = True,
    fallback: bool = True,
    wait: bool = True,
    region: Region | None = None,
    image_size: int | None = None,
) -> Encoder:
    """Returns the encoder that a labeling config names; the same object as long as its file stays the same.

    Args:
        model_path: the name of a file in `model_root`; or of an official Ultralytics model, or `timm/` and the name of
            a timm model, which are fetched into that folder; None for the default model.
        model_root: the only folder from which checkpoints are loaded.
        precision: "auto", "fp32", "bf16" or "fp16".
        allow_custom: whether `model_path` may be given.
        fallback: whether the bundled encoder takes the place of a default model that can't be fetched.
        wait: whether to fetch a missing file before returning. Otherwise it is fetched in the background, and the
            bundled encoder takes the place of the default model meanwhile.
        region, image_size: as of `Encoder`.

    Raises:
        EncoderError: the model isn't allowed, isn't found or can't be fetched; the message says what to do.
        NotReady: the file is being fetched in the background.
    """
    if model_path is not None and not allow_custom:
        raise EncoderError(
            f'model_path="{model_path}" is not allowed here (ALLOW_CUSTOM_MODEL_PATH=false): remove the attribute.'
        )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    resolved = _resolve_precision(precision, device)
    is_fallback = False
    if model_path is not None and model_path.startswith(TIMM_PREFIX):
        path = timm_path(model_path, Path(model_root))
        _fetch(path, fetch_timm_weights, wait)
    else:
        path = checkpoint_path(DEFAULT_MODEL if model_path is None else model_path, Path(model_root))
        replaceable = fallback and path.name == DEFAULT_MODEL
        try:
            _fetch(path, fetch_asset, wait, patience=0.0 if replaceable else BACKGROUND_PATIENCE)
        except (EncoderError, NotReady):
            if not replaceable:
                raise
            path, is_fallback = bundled_path(), True
    status = path.stat()
    version = (status.st_size, status.st_mtime_ns)
    with _lock:
        known_version, encoder = _encoders.get((path, precision), (None, None))
        if encoder is None or known_version != version:
            encoder = Encoder(path, device, resolved, is_fallback, precision)
            _encoders[path, precision] = (version, encoder)
    return encoder.looking_at(region, image_size)


def _fetch(path: Path, fetch: Callable[[Path], None], wait: bool, patience: float = BACKGROUND_PATIENCE) -> None:
    if wait:
        fetch(path)
    else:
        fetch_in_background(path, fetch, patience)


def _resolve_precision(precision: str, device: torch.device) -> str:
    """The precision on a device. "auto" is half precision on a GPU, and bfloat16 on a CPU that computes in it.

    Raises:
        EncoderError: the precision is unknown.
    """
    if precision == "auto":
        if device.type == "cuda":
            return "fp16"
        return "bf16" if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() else "fp32"
    if precision not in PRECISIONS:
        raise EncoderError(f'PRECISION="{precision}" is unknown: use auto, {", ".join(PRECISIONS)}.')
    return precision


@dataclass(frozen=True)
class _Model:
    network: Network
    transforms: Callable[[int], Mapping[View, Transform]]
    image_size: int
    class_names: dict[int, str]
    feature_dim: int
    cell_dim: int
    num_classes: int
