"""Where in the picture what is: the cells of an encoder's feature map."""

import numpy as np
import pytest
import torch

from features.cache import FeatureCache, extract
from features.cells import CELL_DIM, GRID, CellProjection, quantised
from features.encoder import Encoder, get_encoder
from features.sequence import APPEARANCE, BLOCKS, CELLS, MOTION, SOUND, FeatureSequence
from features.sound import SOUND_SIZE
from tests.checkpoints import write_checkpoint, write_timm_weights
from tests.videos import write_video
from video.preprocessing import View
from video.reader import decode


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    write_checkpoint(root / "classifier.pt", image_size=96)
    write_checkpoint(root / "detector.pt", "yolov8n", image_size=320)
    for name in ("resnet10t.c3_in1k", "vit_tiny_patch16_224.augreg_in21k_ft_in1k"):
        write_timm_weights(root, name)
    return root


@pytest.fixture(scope="module")
def classifier(models) -> Encoder:
    return get_encoder("classifier.pt", model_root=models, precision="fp32")


@pytest.fixture(scope="module")
def corner(tmp_path_factory):
    """A bright square that is in the upper left of the first 20 pictures, then in the lower right."""

    def draw(index: int) -> np.ndarray:
        picture = np.full((120, 160, 3), 60, np.uint8)
        picture[(slice(5, 40) if index < 20 else slice(80, 115)), (slice(5, 45) if index < 20 else slice(115, 155))] = (
            250,
            200,
            20,
        )
        return picture

    return write_video(tmp_path_factory.mktemp("corner") / "video.mp4", draw, 40, size=(160, 120))


def by_place(cells: np.ndarray) -> np.ndarray:
    return cells.reshape(len(cells), *GRID, -1)


@pytest.mark.parametrize("shape", [(6, 8), (5, 9), (9, 5), (7, 7), (1, 3), (20, 20)])
def test_a_cell_is_the_mean_of_the_part_of_the_map_that_it_covers(shape):
    feature_map = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 40, *shape)).astype(np.float32))
    projection = CellProjection(40)
    cells = by_place(projection(feature_map).numpy())
    assert cells.shape == (2, *GRID, 40)
    roots = torch.sign(feature_map) * feature_map.abs().sqrt()
    # Each position in as many equal parts as the grid has cells, and the other way round: no part is cut.
    fine = roots.repeat_interleave(GRID[0], 2).repeat_interleave(GRID[1], 3)
    expected = torch.nn.functional.avg_pool2d(fine, shape).permute(0, 2, 3, 1) @ projection.directions
    np.testing.assert_allclose(cells, expected, atol=1e-4)


def test_directions_are_orthogonal_keep_lengths_and_never_change():
    projection = CellProjection(1280)
    assert projection.size == GRID[0] * GRID[1] * CELL_DIM
    gram = projection.directions.T @ projection.directions
    np.testing.assert_allclose(gram, np.eye(CELL_DIM) * 1280 / CELL_DIM, atol=1e-4)
    assert torch.equal(projection.directions, CellProjection(1280).directions)


def test_eight_bits_keep_numbers_to_half_a_step():
    values = np.random.default_rng(0).normal(size=(50, 300)) * np.geomspace(1e-3, 1e3, 50)[:, None]
    values[7] = 0
    stored, scale = quantised(values)
    assert stored.dtype == np.int8
    error = np.abs(stored * scale[:, None] - values).max(axis=1)
    assert (error <= np.abs(values).max(axis=1) / 127 / 2 * 1.001).all()


@pytest.mark.parametrize(
    "name", ["classifier.pt", "detector.pt", "timm/resnet10t.c3_in1k"], ids=["classifier", "detector", "timm"]
)
def test_cells_tell_places_apart(models, corner, name):
    encoder = get_encoder(name, model_root=models, precision="fp32")
    video = extract(encoder, corner)
    assert video.cells.shape == (40, encoder.cell_dim)
    cells = by_place(video.cells * video.cell_scale[:, None])
    moved = np.abs(cells[:20].mean(axis=0) - cells[20:].mean(axis=0)).sum(axis=2)
    corners = moved[0, 0] + moved[-1, -1]
    assert corners > moved[0, -1] + moved[-1, 0]


def test_a_network_of_tokens_has_no_cells(models, corner):
    encoder = get_encoder("timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k", model_root=models, precision="fp32")
    video = extract(encoder, corner)
    assert video.cells.shape == (40, 0) == (40, encoder.cell_dim)
    assert CELLS not in FeatureSequence(video, blocks=BLOCKS).layout


def test_features_are_the_same_with_and_without_cells(classifier, corner):
    batch = classifier.preprocess(list(decode(corner)), View.WHOLE)
    features, cells = classifier.features_and_cells(batch)
    np.testing.assert_array_equal(features, classifier.features(batch))
    video = extract(classifier, corner)
    scale = np.abs(cells).max(axis=1)[:, None]
    np.testing.assert_allclose(video.cells * video.cell_scale[:, None] / scale, cells / scale, atol=0.5 / 127 + 1e-3)


def test_between_every_nth_frame_cells_are_interpolated(classifier, corner):
    whole, thinned = extract(classifier, corner), extract(classifier, corner, stride=4)
    cells = thinned.cells * thinned.cell_scale[:, None]
    known = whole.cells * whole.cell_scale[:, None]
    step = thinned.cell_scale.max()
    np.testing.assert_allclose(cells[16], known[16], atol=step)
    np.testing.assert_allclose(cells[18], (known[16] + known[20]) / 2, atol=2 * step)


@pytest.mark.parametrize("blocks", [BLOCKS, (CELLS,), (SOUND, APPEARANCE), (MOTION, CELLS)])
@pytest.mark.parametrize("index", [None, [0, 0, 3, 39, 39]])
def test_a_sequence_has_the_blocks_that_are_asked_for(classifier, corner, tmp_path, blocks, index):
    video = FeatureCache(tmp_path, 10**9).get(classifier, corner)
    sequence = FeatureSequence(video, None if index is None else np.array(index), blocks)
    parts = {
        APPEARANCE: video.features,
        CELLS: video.cells * video.cell_scale[:, None],
        MOTION: video.motion,
        SOUND: video.sound,
    }
    chosen = [block for block in BLOCKS if block in blocks]
    assert list(sequence.layout) == chosen
    assert sequence.layout == {block: parts[block].shape[1] for block in chosen}
    rows = np.arange(40) if index is None else np.array(index)
    expected = np.concatenate([parts[block] for block in chosen], axis=1, dtype=np.float32)[rows]
    assert sequence.shape == expected.shape
    np.testing.assert_allclose(np.asarray(sequence), expected, rtol=1e-6)
    np.testing.assert_allclose(sequence[1:3], expected[1:3], rtol=1e-6)
    assert sequence.content == video.content


def test_an_hour_takes_at_most_600_megabytes():
    from features.checkpoints import bundled_path
    from features.extraction import rows

    encoder = Encoder(bundled_path(), torch.device("cpu"), "fp32", is_fallback=True)
    arrays = rows(encoder, View.WHOLE)
    assert arrays["sound"].shape == (SOUND_SIZE,)
    assert 3600 * 25 * sum(array.nbytes for array in arrays.values()) <= 600e6
