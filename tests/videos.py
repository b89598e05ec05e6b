"""Make small video files for the tests."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

Colour = tuple[int, int, int]


def write_video(
    path: str | Path,
    pictures: Sequence[Colour] | Callable[[int], np.ndarray],
    num_frames: int | None = None,
    *,
    rate: float | Fraction = 25,
    size: tuple[int, int] = (320, 240),
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    options: dict[str, str] | None = None,
) -> Path:
    """Write a video and return its path.

    Args:
        path: the suffix decides the container.
        pictures: one RGB colour per frame, or a function of the frame's index giving uint8 [height, width, 3] (needs `num_frames`).
        num_frames: number of frames where `pictures` is a function.
        rate: frames per second.
        size: width, height.
        options: of the encoder.
    """
    width, height = size
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(rate).limit_denominator(100_000), options=options or {})
        stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
        for index in range(num_frames if num_frames is not None else len(pictures)):
            if callable(pictures):
                image = pictures(index)
            else:
                image = np.full((height, width, 3), pictures[index], np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return Path(path)
