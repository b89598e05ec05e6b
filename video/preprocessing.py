"""Turn decoded frames into the pictures that a network takes."""

import math
from collections.abc import Callable, Sequence
from enum import Enum
from functools import lru_cache
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from av.video.reformatter import VideoReformatter

from video.reader import Frame

Transform = Callable[[np.ndarray], np.ndarray]  # uint8 RGBA [height, width, 4] -> uint8 RGB [height, width, 3]

AREA_TOLERANCE = 1.05  # times the model's own pixels; bounds the time of a picture
PIXEL_TOLERANCE = 1e-6  # percentages aren't exact in floating point: 58 % of 100 pixels are 58, not 59
GREY_AREA, GREY_MULTIPLE = 64 * 112, 8  # pixels of a small grey picture; 64 rows for 16:9


class Region(NamedTuple):
    """A part of the upright picture, in per cent of its width and height, as Label Studio counts."""

    x: float  # of the left edge
    y: float  # of the upper edge
    width: float
    height: float


class View(str, Enum):
    """The part of a picture that a network is shown. The values are part of the cache's keys."""

    CROP = "crop"  # Ultralytics' resize and centre crop, for class probabilities: the model was trained so
    WHOLE = "whole"  # the whole picture at the same number of pixels, for features


def upright(reformatter: VideoReformatter, frame: Frame) -> np.ndarray:
    """Converts a frame to an upright picture, uint8 RGBA [height, width, 4].

    The conversion is by BT.601, whatever the file declares, as in OpenCV and therefore in Ultralytics. It uses one
    thread: where the width is no multiple of 16, it writes past the end of a row, into another thread's result.
    """
    rgba = reformatter.reformat(
        frame.picture, format="rgba", src_colorspace="ITU601", dst_colorspace="ITU601", threads=1
    )
    return np.ascontiguousarray(np.rot90(rgba.to_ndarray(), -frame.rotation // 90))


def cropped(picture: np.ndarray, region: Region | None) -> np.ndarray:
    """Cuts the region out of an upright picture [height, width, …], with all pixels that lie partly in it."""
    if region is None:
        return picture
    height, width = picture.shape[:2]
    rows, columns = _pixels(region.y, region.height, height), _pixels(region.x, region.width, width)
    return np.ascontiguousarray(picture[rows, columns])


def _pixels(start: float, length: float, total: int) -> slice:
    first = min(math.floor(start * total / 100 + PIXEL_TOLERANCE), total - 1)
    return slice(first, max(first + 1, math.ceil((start + length) * total / 100 - PIXEL_TOLERANCE)))


def small_grey(reformatter: VideoReformatter, frame: Frame, region: Region | None = None) -> np.ndarray:
    """Averages the upright picture or its region to about `GREY_AREA` grey pixels: uint8 [rows, columns], both
    multiples of 8."""
    picture = frame.picture
    if region is not None:
        grey = reformatter.reformat(picture, format="gray", threads=1).to_ndarray()
        part = cropped(np.rot90(grey, -frame.rotation // 90), region)
        height, width = whole_size(part.shape[1], part.shape[0], GREY_AREA, GREY_MULTIPLE)
        return cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA)
    height, width = whole_size(picture.width, picture.height, GREY_AREA, GREY_MULTIPLE)
    grey = reformatter.reformat(picture, width, height, "gray", interpolation="AREA", threads=1).to_ndarray()
    return np.ascontiguousarray(np.rot90(grey, -frame.rotation // 90))


def resize_and_crop(size: int | Sequence[int], crop: Sequence[int], interpolation: Any, exact: bool) -> Transform:
    """Makes the transform of torchvision's resize and centre crop.

    Exact, it works on PIL images as Ultralytics does. Else it works on tensors, which is several times as fast; one
    value in a thousand then differs by 1 of 255.

    Args:
        size: of the shorter edge, or height and width.
        crop: height and width.
        interpolation: torchvision's InterpolationMode.
        exact: whether to work on PIL images.
    """
    from PIL import Image
    from torchvision.transforms.v2.functional import center_crop, resize

    def transform_image(rgba: np.ndarray) -> np.ndarray:
        height, width = rgba.shape[:2]
        picture = Image.frombytes("RGB", (width, height), rgba.data, "raw", "RGBX")
        return np.asarray(center_crop(resize(picture, size, interpolation), crop))

    def transform_tensor(rgba: np.ndarray) -> np.ndarray:
        # All four channels: the vectorised resampling works on four, and would have to pack three.
        picture = resize(torch.from_numpy(rgba).permute(2, 0, 1), size, interpolation, antialias=True)
        return cv2.cvtColor(center_crop(picture, crop).permute(1, 2, 0).numpy(), cv2.COLOR_RGBA2RGB)

    return transform_image if exact else transform_tensor


@lru_cache(maxsize=64)
def whole_size(width: int, height: int, area: int, multiple: int) -> tuple[int, int]:
    """Chooses height and width, both multiples of `multiple`, of a small picture that shows all of a larger one.

    Among the sizes with at most `AREA_TOLERANCE` times the area, it takes the one with the nearest aspect ratio and
    area. 16:9 is stretched by 1 % (160×288 for 224² and 32), 4:3 isn't stretched.
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
    """Makes the transform that resizes the whole picture to `whole_size`, antialiased.

    Args:
        area: pixels of the picture that the model was made for.
        multiple: the number of which both sides must be multiples.
        interpolation: torchvision's InterpolationMode.
    """
    from torchvision.transforms.v2.functional import resize

    def transform(rgba: np.ndarray) -> np.ndarray:
        size = whole_size(rgba.shape[1], rgba.shape[0], area, multiple)
        picture = resize(torch.from_numpy(rgba).permute(2, 0, 1), size, interpolation, antialias=True)
        return cv2.cvtColor(picture.permute(1, 2, 0).numpy(), cv2.COLOR_RGBA2RGB)

    return transform


def letterbox(size: list[int], stride: int) -> Transform:
    """Makes Ultralytics' transform for detection, segmentation and pose: the whole picture, padded."""
    from ultralytics.data.augment import LetterBox

    transform = LetterBox(size, auto=True, stride=stride)
    return lambda rgba: transform(image=np.ascontiguousarray(rgba[..., :3]))
