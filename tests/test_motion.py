"""The motion descriptor: the camera's translation taken out, and the same numbers whatever the batches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from av.video.reformatter import VideoReformatter

from features.extraction import extract
from features.motion import LAGS, MOTION_SIZE, VALUES_PER_LAG, History, describe
from tests.brightness import BrightnessEncoder
from tests.videos import write_video
from video.preprocessing import View, small_grey
from video.reader import decode

SIZE = (64, 112)  # rows, columns
FINENESS = 8  # pixels of the drawing for one of the picture


@pytest.fixture(scope="module")
def texture() -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 256, (1600, 2400)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 10)
    return np.uint8(255 * (smooth - smooth.min()) / (smooth.max() - smooth.min()))


def scene(
    texture: np.ndarray, camera: tuple[float, float] = (0, 0), thing: tuple[float, float] | None = None
) -> np.ndarray:
    """What a camera sees of the texture, in small pixels, with a bright thing in front of it."""
    rows, columns = (FINENESS * side for side in SIZE)
    x, y = (round(FINENESS * (60 + value)) for value in camera)
    picture = texture[y : y + rows, x : x + columns].copy()
    if thing is not None:
        cv2.circle(picture, tuple(round(FINENESS * value) for value in thing), 5 * FINENESS, 255, -1)
    return cv2.resize(picture, SIZE[::-1], interpolation=cv2.INTER_AREA)


def motion(draw: Callable[[int], np.ndarray], num_frames: int = 20, rate: float = 25) -> np.ndarray:
    """Differences of the picture and of its most moving cells, [num_frames, lags, 2]."""
    return numbers(draw, num_frames, rate)[:, :-1].reshape(num_frames, len(LAGS), VALUES_PER_LAG)


def growth(draw: Callable[[int], np.ndarray]) -> np.ndarray:
    """Of what moves, from the frame on that has an earlier one to compare with."""
    return numbers(draw, 20, 25)[2:, -1]


def numbers(draw: Callable[[int], np.ndarray], num_frames: int, rate: float) -> np.ndarray:
    """[num_frames, MOTION_SIZE]."""
    history = History()
    described = describe([history.add(index / rate, draw(index)) for index in range(num_frames)]).astype(float)
    assert described.shape == (num_frames, MOTION_SIZE)
    return described


def test_nothing_moves(texture):
    assert not motion(lambda index: scene(texture)).any()


def test_zeros_before_the_videos_start(texture):
    differences = motion(lambda index: scene(texture, thing=(20 + 3 * index, 30)))
    for lag, frames in enumerate((1, 2, 4, 8, 16)):
        assert not differences[:frames, lag].any()
        assert differences[frames:, lag].all()


@pytest.mark.parametrize("velocity", [(1.3, 0.0), (-2.5, 0.6), (0.0, -1.7)])
def test_the_cameras_translation_is_found_and_taken_out(texture, velocity):
    differences = motion(lambda index: scene(texture, (velocity[0] * index, velocity[1] * index)))
    uncompensated = [
        np.abs(scene(texture, (velocity[0] * 8, velocity[1] * 8)).astype(float) - scene(texture)).mean() / 255
    ]
    assert differences[8:, 3, 0].mean() < 0.15 * uncompensated[0]


def test_what_moves_before_a_camera_that_pans_stands_out(texture):
    def panned(index: int) -> np.ndarray:
        return scene(texture, (1.3 * index, 0), thing=(60 + 20 * np.sin(index), 32))

    differences = motion(panned)
    alone = motion(lambda index: scene(texture, (1.3 * index, 0)))
    assert differences[12:, 1, 1].mean() > 8 * alone[12:, 1, 1].mean()
    assert differences[12:, 1, 1].mean() > 3 * differences[12:, 1, 0].mean()


@pytest.mark.parametrize("place", [(20, 20), (98, 10), (60, 40)])
def test_a_thing_that_moves_says_about_the_same_wherever_it_is(texture, place):
    def moving(x: float, y: float) -> np.ndarray:
        differences = motion(lambda index: scene(texture // 2, thing=(x, y + 4 * (index % 2))))
        return differences[1:, 0].mean(axis=0)

    np.testing.assert_allclose(moving(*place), moving(60, 20), rtol=0.5)


def test_what_shakes_and_what_moves_on_differ_in_the_longer_lags(texture):
    shaking = motion(lambda index: scene(texture, thing=(50 + 3 * (index % 2), 32)))
    moving = motion(lambda index: scene(texture, thing=(30 + 3 * index, 32)))
    np.testing.assert_allclose(shaking[16:, 0, 0], moving[16:, 0, 0], rtol=0.3)
    assert (moving[16:, 2, 0] > 2 * shaking[16:, 2, 0]).all()


def test_light_that_changes_everywhere_is_no_movement(texture):
    dim = texture // 2 + 40
    differences = motion(lambda index: np.uint8(scene(dim) + 2 * index))
    assert differences.max() < 0.003


def test_a_cut_is_no_camera_movement(texture):
    other = 255 - texture[::-1, ::-1]
    differences = motion(lambda index: scene(texture if index < 15 else other))
    assert not differences[:15].any()
    for lag, frames in enumerate((1, 2, 4, 8)):  # as different as the two pictures are, until both are the new one
        difference = np.abs(
            scene(other) - scene(texture).astype(float) - np.median(scene(other)) + np.median(scene(texture))
        )
        np.testing.assert_allclose(differences[15 : 15 + frames, lag, 0], difference.mean() / 255, rtol=0.25)


def test_lags_are_times_not_frames(texture):
    def at(moment: float) -> np.ndarray:
        return scene(texture, thing=(20 + 30 * moment, 32))

    slow = motion(lambda index: at(index / 25), 26, rate=25)
    fast = motion(lambda index: at(index / 50), 51, rate=50)
    np.testing.assert_allclose(fast[::2], slow, atol=2e-3)


def test_a_blank_picture_and_times_that_stand_still(texture):
    history = History()
    blank = np.zeros(SIZE, np.uint8)
    moments = [history.add(1.0, blank if index % 2 else scene(texture)) for index in range(2000)]
    assert np.isfinite(describe(moments[-20:])).all()
    assert len(history._times) <= 800


def test_another_picture_size_starts_anew(texture):
    history = History()
    moments = [history.add(index / 25, scene(texture)[: 64 if index < 30 else 48]) for index in range(60)]
    numbers = describe(moments[20:40])
    assert numbers.shape == (20, MOTION_SIZE)
    assert moments[30].earlier == [None] * 5


# --- In the extraction


@pytest.fixture(scope="module")
def video(texture: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """53 frames: a thing that moves before a camera that pans."""

    def picture(index: int) -> np.ndarray:
        grey = scene(texture, (0.7 * index, 0), thing=(20 + index, 20 + 10 * np.sin(index)))
        return cv2.resize(grey, (320, 180))[..., None].repeat(3, 2)

    return write_video(tmp_path_factory.mktemp("motion") / "video.mp4", picture, 53, size=(320, 180))


@pytest.mark.parametrize("batch_size", [1, 5, 16])
def test_the_extraction_gives_the_same_motion_whatever_the_batches(video, monkeypatch, batch_size):
    history, reformatter = History(), VideoReformatter()
    expected = describe([history.add(frame.time, small_grey(reformatter, frame)) for frame in decode(video)])
    monkeypatch.setattr(BrightnessEncoder, "batch_size", batch_size)
    result = extract(BrightnessEncoder(), video)
    assert result.motion.dtype == np.float16
    assert np.count_nonzero(result.motion[17:]) > 0.9 * result.motion[17:].size
    np.testing.assert_array_equal(result.motion, expected)


def test_with_a_stride_motion_is_that_of_all_frames(video):
    np.testing.assert_array_equal(
        extract(BrightnessEncoder(), video, stride=7).motion, extract(BrightnessEncoder(), video).motion
    )


def test_a_long_stride_holds_few_pictures(video, monkeypatch):
    monkeypatch.setattr("features.extraction.MAX_BATCH_SPAN", 10)
    encoder = BrightnessEncoder()
    result = extract(encoder, video, stride=10)
    assert encoder.largest_batch == 1
    np.testing.assert_array_equal(result.motion, extract(BrightnessEncoder(), video).motion)


def test_class_probabilities_need_no_motion(video):
    assert extract(BrightnessEncoder(), video, View.CROP).motion is None


def test_the_small_picture_is_the_whole_one_upright(tmp_path):
    def corner(index: int) -> np.ndarray:
        picture = np.zeros((180, 320, 3), np.uint8)
        picture[:45, :80] = 255  # the left of the top
        return picture

    for rotation in (0, 90, 180, 270):
        path = write_video(tmp_path / f"{rotation}.mp4", corner, 1, size=(320, 180), rotation=rotation)
        grey = small_grey(VideoReformatter(), next(decode(path))).astype(float)
        assert grey.shape == (64, 112)
        expected = np.zeros((64, 112))
        expected[:16, :28] = 1
        assert np.corrcoef(grey.ravel(), expected.ravel())[0, 1] > 0.98


@pytest.mark.parametrize("rate", [0.02, -0.02])  # of the size, a frame
@pytest.mark.parametrize("look", ["disc", "square"])
def test_what_comes_nearer_grows_and_what_goes_away_shrinks(texture, rate, look):
    def nearing(index: int) -> np.ndarray:
        picture, size = scene(texture // 3), 10 * (1 + rate) ** (index - 10)
        y, x = np.arange(SIZE[0])[:, None] - 30.0, np.arange(SIZE[1]) - (40.0 + index)
        distance = np.hypot(x, y) if look == "disc" else np.maximum(abs(x), abs(y))
        edge = np.clip(size - distance + 0.5, 0, 1)
        return np.uint8(picture * (1 - edge) + 255 * edge)

    found = growth(nearing)
    np.testing.assert_allclose(found.mean(), 2 * rate, rtol=0.5)  # two frames are the lag's 0.08 s
    assert (np.sign(found) == np.sign(rate)).mean() > 0.9


def test_what_moves_on_does_not_grow(texture):
    assert abs(growth(lambda index: scene(texture // 3, thing=(30 + index, 32))).mean()) < 0.01


def test_what_stands_still_does_not_grow(texture):
    assert not growth(lambda index: scene(texture)).any()
