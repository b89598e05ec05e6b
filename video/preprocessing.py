"""Turn decoded frames into the pictures that a network takes."""

import math
from collections.abc import Callable, Sequence
from enum import Enum
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from av.video.reformatter import VideoReformatter

from video.reader import Frame

Transform = Callable[[np.ndarray], np.ndarray]  # uint8 RGBA [height, width, 4] -> uint8 RGB [height, width, 3]

AREA_TOLERANCE = 1.05  # times the model's own pixels: more would cost more time than the square picture did
GREY_AREA, GREY_MULTIPLE = 64 * 112, 8  # pixels, of a small grey picture: 64 rows where a picture is 16:9


class View(str, Enum):
    """What a network is shown of a picture. The values are part of the cache's keys."""

    CROP = "crop"  # as the model was trained, for its class probabilities: Ultralytics' resize and centre crop
    WHOLE = "whole"  # the whole picture at the same number of pixels, for features


def upright(reformatter: VideoReformatter, frame: Frame) -> np.ndarray:
    """A frame as uint8 RGBA [height, width, 4].

    BT.601 whatever the file declares, as OpenCV reads videos and so Ultralytics sees them. In one thread: where the
    width is no multiple of 16, the conversion writes past the end of a row, into what another thread has done.
    """
    rgba = reformatter.reformat(
        frame.picture, format="rgba", src_colorspace="ITU601", dst_colorspace="ITU601", threads=1
    )
    return np.ascontiguousarray(np.rot90(rgba.to_ndarray(), -frame.rotation // 90))


def small_grey(reformatter: VideoReformatter, frame: Frame) -> np.ndarray:
    """The whole picture, upright, averaged to about `GREY_AREA` pixels: uint8 [rows, columns], multiples of 8."""
    picture = frame.picture
    height, width = whole_size(picture.width, picture.height, GREY_AREA, GREY_MULTIPLE)
    grey = reformatter.reformat(picture, width, height, "gray", interpolation="AREA", threads=1).to_ndarray()
    return np.ascontiguousarray(np.rot90(grey, -frame.rotation // 90))


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


@lru_cache(maxsize=64)
def whole_size(width: int, height: int, area: int, multiple: int) -> tuple[int, int]:
    """Height and width, multiples of a number, of a small picture that shows all of a larger one.

    Of the sizes with at most `AREA_TOLERANCE` times the area, the one whose aspect ratio and area are nearest. It
    stretches 16:9 by 1 % (160×288 for 224² and 32), 4:3 by nothing.
    """
    limit = max(area * AREA_TOLERANCE, multiple**2)

    def misfit(size: tuple[int, int]) -> float:
        stretch = abs(math.log(size[1] * height / (size[0] * width)))
        return stretch + abs(math.log(size[0] * size[1] / area)) / 2

    longest = int(limit // multiple)
    heights = range(multiple, longest + 1, multiple)
    sizes = [(rows, columns) for rows in heights for columns in range(multiple, int(limit // rows) + 1, multiple)]
    return min(sizes, key=misfit)


def resize_whole(area: int, multiple: int, interpolation: Any) -> Transform:
    """Resizes the whole picture to `whole_size`, antialiased.

    Args:
        area: pixels of the picture that the model was made for.
        multiple: of which both sides must be.
        interpolation: torchvision's InterpolationMode.
    """
    import cv2
    from torchvision.transforms.v2.functional import resize

    def transform(rgba: np.ndarray) -> np.ndarray:
        size = whole_size(rgba.shape[1], rgba.shape[0], area, multiple)
        picture = resize(torch.from_numpy(rgba).permute(2, 0, 1), size, interpolation, antialias=True)
        return cv2.cvtColor(picture.permute(1, 2, 0).numpy(), cv2.COLOR_RGBA2RGB)

    return transform


def letterbox(size: list[int], stride: int) -> Transform:
    """Ultralytics' preprocessing of the other tasks: the whole picture, padded."""
    from ultralytics.data.augment import LetterBox

    transform = LetterBox(size, auto=True, stride=stride)
    return lambda rgba: transform(image=np.ascontiguousarray(rgba[..., :3]))
