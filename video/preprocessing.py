"""Turn decoded frames into the pictures that a network takes, as Ultralytics does it."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from av.video.reformatter import VideoReformatter

from video.reader import Frame

Transform = Callable[[np.ndarray], np.ndarray]  # uint8 RGBA [height, width, 4] -> uint8 RGB [height, width, 3]


def upright(reformatter: VideoReformatter, frame: Frame) -> np.ndarray:
    """A frame as uint8 RGBA [height, width, 4].

    BT.601 whatever the file declares, as OpenCV reads videos and so Ultralytics sees them. In one thread: where the
    width is no multiple of 16, the conversion writes past the end of a row, into what another thread has done.
    """
    rgba = reformatter.reformat(
        frame.picture, format="rgba", src_colorspace="ITU601", dst_colorspace="ITU601", threads=1
    )
    return np.ascontiguousarray(np.rot90(rgba.to_ndarray(), -frame.rotation // 90))


def resize_and_crop(size: int | Sequence[int], crop: Sequence[int], interpolation: Any, exact: bool) -> Transform:
    """Torchvision's resize and centre crop.

    Exactly as Ultralytics does it, on PIL images; or on tensors, several times as fast, where one value in a thousand
    comes out different by 1 of 255.

    Args:
        size: of the shorter edge, or height and width.
        crop: height and width.
        interpolation: torchvision's InterpolationMode.
        exact: on PIL images.
    """
    import cv2
    from PIL import Image
    from torchvision.transforms.v2.functional import center_crop, resize

    def transform_image(rgba: np.ndarray) -> np.ndarray:
        height, width = rgba.shape[:2]
        picture = Image.frombytes("RGB", (width, height), rgba.data, "raw", "RGBX")
        return np.asarray(center_crop(resize(picture, size, interpolation), crop))

    def transform_tensor(rgba: np.ndarray) -> np.ndarray:
        # All four channels: the vectorised resampling works on four and would have to pack three.
        picture = resize(torch.from_numpy(rgba).permute(2, 0, 1), size, interpolation, antialias=True)
        return cv2.cvtColor(center_crop(picture, crop).permute(1, 2, 0).numpy(), cv2.COLOR_RGBA2RGB)

    return transform_image if exact else transform_tensor


def letterbox(size: list[int], stride: int) -> Transform:
    """Ultralytics' preprocessing of the other tasks."""
    from ultralytics.data.augment import LetterBox

    transform = LetterBox(size, auto=True, stride=stride)
    return lambda rgba: transform(image=np.ascontiguousarray(rgba[..., :3]))
