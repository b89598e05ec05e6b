"""The motion descriptor: what moves in the picture, from small grey pictures of each frame and earlier ones.

For each of a few lags, the picture is compared with the one that was shown that long before. First the camera's own
translation is estimated by phase correlation (Kuglin and Hines, "The phase correlation image alignment method", 1975)
and removed, so that a panning camera doesn't hide what moves in front of it. The remaining difference is averaged over
the picture, and over the cells of a grid with the largest differences, so that a small moving thing gives the same
values wherever it is. With the differences of all cells, a linear probe of ten videos learnt the places instead of the
movement (F1 0.64 against 0.90 on a thing that moves, shakes or rests). The translation itself isn't part of the
descriptor: as two more values of each lag it cost 0.05 to 0.1 of the same F1.

Differences have no direction. One more value has: the growth of what moves, which tells approaching from retreating,
whatever the thing looks like; but not before a background that moves itself.

    history = History()
    moments = [history.add(time, grey) for time, grey in pictures]
    describe(moments)  # [num_frames, MOTION_SIZE]
"""

import math
from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
from scipy import fft

# Seconds, from one frame at 25 fps to the time of a slow movement. At short lags, shaking and moving on differ equally
# from the earlier picture; at long ones, shaking differs less.
LAGS = (0.04, 0.08, 0.16, 0.32, 0.64)
GRID = (6, 8)  # rows and columns of cells
MOST_MOVING = 4  # cells
VALUES_PER_LAG = 2
GROWTH_LAG = 1  # index of the lag over which growth is measured; short, since the method assumes small movements
MOTION_SIZE = len(LAGS) * VALUES_PER_LAG + 1
MOTION_DTYPE = np.float16

TIME_TOLERANCE = 1e-3  # seconds by which containers round timestamps
MAX_HISTORY = 800  # pictures: 0.64 s at 1000 frames a second; bounds memory where a file's times stand still
BLUR = 0.8  # pixels, standard deviation; suppresses noise and aliasing
SHIFT_SCALE = 2  # the camera's translation is estimated on pictures this many times smaller
PEAK_RADIUS = 1  # pixels around the correlation's peak, for its centroid
MIN_SHIFT = 0.25  # pixels; smaller shifts are within the estimate's error
MIN_OVERLAP = 0.5  # of each side; a larger shift can't be estimated from these pictures
STILL = 4e4  # regularisation of growth, in summed squares of grey levels and slopes: 0 for still pictures
MIN_POWER = 1e-3  # of a frequency, in grey levels; avoids a division by zero for blank pictures


@dataclass(eq=False)
class Picture:
    """A small grey picture, float32 [rows, columns], blurred, with median 0, and its spectrum once it is computed."""

    grey: np.ndarray
    spectrum: np.ndarray | None = None


class Moment(NamedTuple):
    """A picture, and the earlier one of each of `LAGS`, None before the video's start."""

    picture: Picture
    earlier: list[Picture | None]


class History:
    """The pictures of the last `LAGS[-1]` seconds. All pictures of a video are added in order."""

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=MAX_HISTORY)
        self._pictures: deque[Picture] = deque(maxlen=MAX_HISTORY)
        self._start: float | None = None

    def add(self, time: float, grey: np.ndarray) -> Moment:
        """Adds the next picture, uint8 [rows, columns] at `time` seconds, and returns its moment.

        The earlier pictures are those of the same size whose times are nearest to a lag before.
        """
        if self._pictures and self._pictures[-1].grey.shape != grey.shape:
            self._times.clear()
            self._pictures.clear()
        if not self._times:
            self._start = time
        # One picture older than the longest lag stays, since it may be the nearest.
        while len(self._times) > 1 and self._times[1] < time - LAGS[-1]:
            self._times.popleft()
            self._pictures.popleft()
        blurred = cv2.GaussianBlur(grey.astype(np.float32), (0, 0), BLUR)  # many times as fast as on uint8
        blurred -= _median(grey)
        moment = Moment(Picture(blurred), [self._at(time, lag) for lag in LAGS])
        self._times.append(time)
        self._pictures.append(moment.picture)
        return moment

    def _at(self, time: float, lag: float) -> Picture | None:
        if not self._times or time - lag < self._start - TIME_TOLERANCE:
            return None
        index = min(bisect_left(self._times, time - lag), len(self._times) - 1)
        if index > 0 and time - lag - self._times[index - 1] < self._times[index] - (time - lag):
            index -= 1
        return self._pictures[index]


def _median(grey: np.ndarray) -> np.float32:
    """The median of uint8 values, a whole number, by counting, which is faster than NumPy's."""
    counts = np.bincount(grey.ravel(), minlength=256)
    return np.float32(np.searchsorted(np.cumsum(counts), grey.size / 2))


def describe(moments: Sequence[Moment]) -> np.ndarray:
    """Computes the motion descriptor of consecutive frames.

    Args:
        moments: from `History.add`.

    Returns:
        [num_frames, MOTION_SIZE] `MOTION_DTYPE`. For each lag the mean absolute difference of the picture and that of
        the `MOST_MOVING` cells of `GRID`, in [0, 1], without the camera's translation and without a change of light
        that all pixels share. Then the growth of what moves within `LAGS[GROWTH_LAG]`, as a share of its size. The
        values before the video's start are 0.
    """
    differences = np.zeros((len(moments), len(LAGS), VALUES_PER_LAG), np.float32)
    growth = np.zeros((len(moments), 1), np.float32)
    # There is one shape, unless the pictures of a file change their size.
    for shape in {moment.picture.grey.shape for moment in moments}:
        pairs = [
            (row, lag, moment.picture, earlier)
            for row, moment in enumerate(moments)
            for lag, earlier in enumerate(moment.earlier)
            if earlier is not None and moment.picture.grey.shape == shape
        ]
        if pairs:
            rows, lags, pictures, earlier = zip(*pairs, strict=True)
            cells, means = _differences(pictures, earlier)
            most = np.partition(cells.reshape(len(pairs), -1), -MOST_MOVING)[:, -MOST_MOVING:].mean(axis=1)
            differences[rows, lags] = np.stack([means, most], axis=1)
            for row, lag, picture, before in pairs:
                if lag == GROWTH_LAG:
                    growth[row] = _growth(picture, before)
    return np.concatenate([differences.reshape(len(moments), -1), growth], axis=1).astype(MOTION_DTYPE)


def _differences(pictures: Sequence[Picture], earlier: Sequence[Picture]) -> tuple[np.ndarray, np.ndarray]:
    """The mean absolute differences of pairs: of each cell, [num_pairs, grid rows, grid columns], and of all pixels.

    The camera's translation is removed where that makes the pictures more alike.
    """
    cells = np.empty((len(pictures), *GRID), np.float32)
    means = np.empty(len(pictures), np.float32)
    for pair, (picture, before) in enumerate(zip(pictures, earlier, strict=True)):
        cells[pair], means[pair] = _difference(picture.grey, before.grey)
    shifts = _shifts(pictures, earlier)
    for pair in np.flatnonzero((means > 0) & (np.abs(shifts).max(axis=1) >= MIN_SHIFT)):
        shifted_cells, shifted_mean = _difference(pictures[pair].grey, earlier[pair].grey, shifts[pair])
        if shifted_mean < means[pair]:
            cells[pair], means[pair] = shifted_cells, shifted_mean
    return cells, means


def _growth(picture: Picture, earlier: Picture) -> float:
    """The growth of what moves from the earlier picture to the later one, as a share of its size; negative: it shrinks.

    It solves the optical flow's equation by least squares (Lucas and Kanade, "An iterative image registration
    technique", 1981) for a translation and a growth around any point. Pixels are weighted by their squared difference,
    since a background that stands still says nothing about what moves.
    """
    later = picture.grey
    difference = (later - earlier.grey)[1:-1, 1:-1]
    height, width = difference.shape
    slopes = np.empty((3, height, width), np.float32)
    right, down, outwards = slopes
    np.subtract(later[1:-1, 2:], later[1:-1, :-2], out=right)
    np.subtract(later[2:, 1:-1], later[:-2, 1:-1], out=down)
    x, y = _from_middle(width), _from_middle(height)[:, None]
    scale = 2 / width  # makes the third slope about as large as the other two
    np.add(scale * x * right, scale * y * down, out=outwards)
    slopes = slopes.reshape(3, -1)
    difference = difference.ravel()
    weighted = slopes * (difference * difference)
    normal = weighted @ slopes.T + STILL * np.eye(3, dtype=np.float32)
    # Times two, since the slopes are over two pixels.
    return float(-2 * scale * np.linalg.solve(normal, weighted @ difference)[2])


@lru_cache(maxsize=64)
def _from_middle(length: int) -> np.ndarray:
    return np.arange(length, dtype=np.float32) - np.float32((length - 1) / 2)


def _difference(grey: np.ndarray, earlier: np.ndarray, shift: Sequence[float] = (0.0, 0.0)) -> tuple[np.ndarray, float]:
    """The mean absolute difference of each cell, and of all pixels that both pictures show, after shifting the earlier
    one."""
    height, width = grey.shape
    x, y = map(float, shift)
    if x or y:
        # An interpolated patch of the same size around another middle, which is four times as fast as warpAffine.
        earlier = cv2.getRectSubPix(earlier, (width, height), ((width - 1) / 2 - x, (height - 1) / 2 - y))
        x, y = (int(math.copysign(math.ceil(abs(pixels)), pixels)) for pixels in (x, y))
    cells = _cells(height, width, int(x), int(y))
    difference = grey - earlier
    sums = cells.rows @ np.abs(difference, out=difference) @ cells.columns
    return sums * cells.scale, float(sums.sum()) * cells.total_scale


class Cells(NamedTuple):
    """The grid's cells, without the pixels that a shifted picture doesn't show.

    Attributes:
        rows: [grid rows, height], 1 where a row of pixels belongs to the cell.
        columns: [width, grid columns], the same for columns.
        scale: [grid rows, grid columns], the factor that makes a cell's sum a mean in [0, 1].
        total_scale: the factor for the sum over all cells.
    """

    rows: np.ndarray
    columns: np.ndarray
    scale: np.ndarray
    total_scale: float


@lru_cache(maxsize=4096)
def _cells(height: int, width: int, x: int, y: int) -> Cells:
    rows, columns = _parts(height, GRID[0], y), _parts(width, GRID[1], x).T
    sizes = np.outer(rows.sum(1), columns.sum(0))
    return Cells(rows, columns, (1 / 255 / np.maximum(sizes, 1)).astype(np.float32), 1 / 255 / max(sizes.sum(), 1))


def _parts(length: int, count: int, shift: int) -> np.ndarray:
    """The matrix [count, length] float32: 1 where a pixel belongs to the part and the shifted picture shows it."""
    pixels = np.arange(length)
    shown = (pixels >= shift) & (pixels < length + shift)
    return np.float32((pixels * count // length == np.arange(count)[:, None]) & shown)


def _shifts(pictures: Sequence[Picture], earlier: Sequence[Picture]) -> np.ndarray:
    """The translation right and down in pixels, [num_pairs, 2], by phase correlation."""
    _make_spectra({id(picture): picture for picture in (*pictures, *earlier)}.values())
    cross = np.stack([picture.spectrum for picture in pictures])
    cross *= np.conj(np.stack([picture.spectrum for picture in earlier]))
    cross *= 1 / (np.abs(cross) + MIN_POWER)  # many times as fast as a complex division
    height, width = _small_shape(pictures[0])
    correlation = fft.irfft2(cross, s=(height, width))
    peaks = correlation.reshape(len(pictures), -1).argmax(axis=1)
    offsets = np.arange(-PEAK_RADIUS, PEAK_RADIUS + 1)
    rows = (peaks // width)[:, None] + offsets
    columns = (peaks % width)[:, None] + offsets
    around = correlation[np.arange(len(pictures))[:, None, None], rows[:, :, None] % height, columns[:, None] % width]
    around = np.maximum(around, 0)
    total = np.maximum(around.sum((1, 2)), np.finfo(np.float32).tiny)
    x = peaks % width + (around.sum(1) @ offsets) / total
    y = peaks // width + (around.sum(2) @ offsets) / total
    # A shift beyond half of the picture is one in the other direction.
    shifts = np.stack([(x + width / 2) % width - width / 2, (y + height / 2) % height - height / 2], axis=1)
    possible = (np.abs(shifts) <= MIN_OVERLAP * np.array([width, height])).all(axis=1)
    return SHIFT_SCALE * shifts * possible[:, None]


def _make_spectra(pictures: Sequence[Picture]) -> None:
    """Computes the missing spectra. Two threads may compute the same one, with the same result."""
    missing = [picture for picture in pictures if picture.spectrum is None]
    if not missing:
        return
    height, width = _small_shape(missing[0])
    greys = np.stack([picture.grey for picture in missing])
    small = np.zeros((len(missing), height, width), np.float32)
    for row, column in np.ndindex(SHIFT_SCALE, SHIFT_SCALE):
        small += greys[:, row::SHIFT_SCALE, column::SHIFT_SCALE]
    small -= small.mean(axis=(1, 2), keepdims=True)
    small *= _window(height, width)
    for picture, spectrum in zip(missing, fft.rfft2(small), strict=True):
        picture.spectrum = spectrum


def _small_shape(picture: Picture) -> tuple[int, int]:
    height, width = picture.grey.shape
    return height // SHIFT_SCALE, width // SHIFT_SCALE


@lru_cache(maxsize=16)
def _window(height: int, width: int) -> np.ndarray:
    return cv2.createHanningWindow((width, height), cv2.CV_32F)
