"""`model_region` and `model_image_size`: what part of the pictures is looked at, and in how many pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from features.cache import FeatureCache, extract
from features.encoder import Encoder, get_encoder
from tests.checkpoints import cosine, write_checkpoint, write_timm_weights
from tests.videos import write_video
from video.preprocessing import Region, View, cropped
from video.reader import decode

EXACT = {"pixel_format": "yuv444p", "options": {"qp": "0", "preset": "ultrafast"}}
UPPER_RIGHT = Region(50, 0, 50, 50)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    write_checkpoint(root / "classifier.pt", image_size=64)
    write_checkpoint(root / "detector.pt", "yolov8n", image_size=64)
    for name in ("resnet10t.c3_in1k", "vit_tiny_patch16_224.augreg_in21k_ft_in1k"):
        write_timm_weights(root, name)
    return root


@pytest.fixture(scope="module")
def classifier(models: Path) -> Encoder:
    return get_encoder("classifier.pt", model_root=models, precision="fp32")


def noise(index: int) -> np.ndarray:
    """320×240, new in every picture, in blocks of 20×20 pixels."""
    return np.random.default_rng(index).integers(0, 256, (12, 16, 3), dtype=np.uint8).repeat(20, 0).repeat(20, 1)


@pytest.mark.parametrize("rotation", [0, 90, 180])
@pytest.mark.parametrize("stride", [1, 3])
def test_a_region_is_as_a_video_of_it_alone(classifier, tmp_path, rotation, stride):
    whole = write_video(tmp_path / "whole.mp4", noise, 12, size=(320, 240), rotation=rotation, **EXACT)
    part = write_video(tmp_path / "part.mp4", lambda index: noise(index)[:120, 160:], 12, size=(160, 120), **EXACT)
    looking = classifier.looking_at(UPPER_RIGHT, None)
    found, expected = extract(looking, whole, stride=stride), extract(classifier, part, stride=stride)
    mean = expected.features.mean(axis=0, dtype=np.float32)
    assert cosine(found.features - mean, expected.features - mean).min() > 0.99
    np.testing.assert_allclose(found.motion, expected.motion, atol=0.01)
    probs = extract(looking, whole, View.CROP).probs
    np.testing.assert_allclose(probs, extract(classifier, part, View.CROP).probs, atol=1e-3)
    everything = extract(classifier, whole, stride=stride).features
    assert cosine(everything - mean, expected.features - mean).max() < 0.9


@pytest.mark.parametrize(
    ("asked", "rows", "columns"),
    [
        (None, slice(0, 90), slice(0, 160)),
        (Region(0, 0, 100, 100), slice(0, 90), slice(0, 160)),
        (Region(58, 58, 42, 42), slice(52, 90), slice(92, 160)),
        (Region(50, 50, 1, 1), slice(45, 46), slice(80, 82)),
        (Region(99, 99, 1, 1), slice(89, 90), slice(158, 160)),
    ],
)
def test_a_region_is_every_pixel_that_lies_in_it_in_part(asked, rows, columns):
    picture = np.arange(90 * 160).reshape(90, 160)
    np.testing.assert_array_equal(cropped(picture, asked), picture[rows, columns])


def test_a_region_of_two_pixels_can_be_looked_at(classifier, tmp_path):
    video = write_video(tmp_path / "video.mp4", noise, 3, size=(320, 240))
    found = extract(classifier.looking_at(Region(0, 0, 1, 1), None), video)
    assert np.isfinite(found.features).all()
    assert np.isfinite(found.motion).all()


@pytest.mark.parametrize(
    "name",
    ["classifier.pt", "detector.pt", "timm/resnet10t.c3_in1k", "timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k", None],
)
def test_more_pixels_are_seen(models, tmp_path, name):
    encoder = get_encoder(name, model_root=models, precision="fp32")
    frames = list(decode(write_video(tmp_path / "video.mp4", noise, 2, size=(320, 240))))
    own = encoder.preprocess(frames, View.WHOLE)
    larger = get_encoder(name, model_root=models, precision="fp32", image_size=448)
    seen = larger.preprocess(frames, View.WHOLE)
    assert 448**2 / 1.15 <= seen.shape[2] * seen.shape[3] <= 448**2 * 1.05 or name == "detector.pt"
    assert max(seen.shape[2:]) == 448 or name != "detector.pt"
    assert larger.batch_size < encoder.batch_size == 16
    few_pixels = seen[0].numel() * larger.batch_size <= own[0].numel() * encoder.batch_size * 1.3
    assert few_pixels or larger.batch_size == 1
    features, cells = larger.features_and_cells(seen)
    assert features.shape == (2, encoder.feature_dim)
    assert cells.shape == (2, encoder.cell_dim)


def test_the_crop_of_more_pixels_is_that_of_ultralytics(models, tmp_path):
    from ultralytics.data.augment import classify_transforms

    larger = get_encoder("classifier.pt", model_root=models, precision="fp32", image_size=160)
    frames = list(decode(write_video(tmp_path / "video.mp4", noise, 2, size=(320, 240))))
    from PIL import Image

    pictures = [Image.fromarray(frame.picture.to_ndarray(format="rgb24")) for frame in frames]
    expected = np.stack([classify_transforms(160)(picture).numpy() for picture in pictures])
    np.testing.assert_allclose(larger.preprocess(frames, View.CROP).numpy() / 255, expected, atol=4 / 255)


def test_looks_share_a_network_and_nothing_else(classifier, models, tmp_path):
    looks = [(None, None), (UPPER_RIGHT, None), (Region(0, 0, 50, 50), None), (None, 96), (UPPER_RIGHT, 96)]

    def encoders() -> list[Encoder]:
        options = {"model_root": models, "precision": "fp32"}
        return [get_encoder("classifier.pt", region=part, image_size=size, **options) for part, size in looks]

    assert len({encoder.fingerprint for encoder in encoders()}) == len(looks)
    assert len({id(encoder._model) for encoder in encoders()}) == 1
    assert all(first is second for first, second in zip(encoders(), encoders(), strict=True))
    cache = FeatureCache(tmp_path / "cache", 10**9)
    video = write_video(tmp_path / "video.mp4", noise, 3, size=(320, 240))
    found = [cache.get(encoder, video).features[0].tobytes() for encoder in encoders()]
    assert len(set(found)) == len(looks)
