"""The trainable classifier: what it learns, what it refuses, and its files."""

import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from learning import network
from learning.dataset import ROWS, Example
from learning.network import NETWORK_MAX_VIDEOS, NETWORK_VIDEOS, train
from progress import Progress
from utils.neural_nets import MultiLabelLSTM, UnusableClassifier

FEATURES = 24
LABELS = {"Ball": 0, "Cat": 1}


def video(seed: int, frames: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Noise over a scene of its own, to which each label adds its fixed direction while it lasts."""
    random = np.random.default_rng(seed)
    scene = random.normal(size=FEATURES)
    labels = np.zeros((frames, 2), dtype=np.float32)
    for column in range(2):
        start = random.integers(frames // 12, frames * 7 // 12)
        labels[start : start + 18, column] = 1
    directions = np.random.default_rng(99).normal(size=(2, FEATURES)) * 2
    return (scene + 0.3 * random.normal(size=(frames, FEATURES)) + labels @ directions).astype(np.float32), labels


def small_model(seed: int = 0, **changes: int) -> MultiLabelLSTM:
    model = MultiLabelLSTM(**({"input_size": FEATURES, "output_size": 2, "hidden_size": 8, "seed": seed} | changes))
    model.set_label_map(LABELS)
    return model


def frame_f1(truth: np.ndarray, predicted: np.ndarray) -> float:
    return 2 * (truth * predicted).sum() / (truth.sum() + predicted.sum())


def test_the_first_classifier_of_a_process_imports_nothing() -> None:
    """It is made in a request; PyTorch imports its compiler's modules in surprising places, which takes seconds."""
    program = """
import sys
from utils.neural_nets import MultiLabelLSTM
before = set(sys.modules)
MultiLabelLSTM(24, 2)
print(len(set(sys.modules) - before))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 20


def test_learns_several_videos_and_fills_in_one_never_seen() -> None:
    model = small_model()
    metrics = model.partial_fit(*zip(*(video(seed) for seed in range(4)), strict=True), epochs=300)
    features, truth = video(seed=50)
    probabilities = model.predict(features)
    assert probabilities.shape == (60, 2)
    assert frame_f1(truth, probabilities > 0.5) > 0.85
    assert metrics["f1_score"] >= 0.9
    assert metrics["num_sequences"] == 4
    assert metrics["num_frames"] == 240


def test_one_sequence_is_taken_without_a_list() -> None:
    features, truth = video(seed=1)
    model = small_model()
    metrics = model.partial_fit(features, truth, epochs=300)
    assert metrics["num_sequences"] == 1
    assert frame_f1(truth, model.predict(features) > 0.5) > 0.9


def test_same_seed_same_model_and_the_global_random_state_is_untouched() -> None:
    examples = list(map(list, zip(*(video(seed) for seed in range(NETWORK_VIDEOS)), strict=True)))
    state = torch.get_rng_state()
    predictions, networks = [], []
    for seed in (3, 3, 4):
        model = small_model(seed)
        model.partial_fit(*examples, f1_threshold=2, accuracy_threshold=2)
        predictions.append(model.predict(video(seed=50)[0]))
        networks.append(model.output_layer.weight.detach().clone())
        torch.rand(1)  # another user of the global generator between the trainings
    torch.set_rng_state(state)
    small_model().partial_fit(*examples, epochs=2, f1_threshold=2, accuracy_threshold=2)
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(predictions[0], predictions[1])
    assert torch.equal(networks[0], networks[1])
    assert not torch.equal(networks[0], networks[2])


def test_training_again_knows_nothing_of_what_was_learnt_before() -> None:
    first, second = video(seed=1), video(seed=2)
    model, other = small_model(), small_model()
    model.partial_fit(*first)
    model.partial_fit(*second)
    other.partial_fit(*second)
    for features in (first[0], video(seed=50)[0]):
        np.testing.assert_array_equal(model.predict(features), other.predict(features))


def test_what_no_held_out_video_shows_to_help_is_left_out() -> None:
    for num_videos in (1, NETWORK_VIDEOS - 1):
        model = small_model()
        examples = map(list, zip(*(video(seed) for seed in range(num_videos)), strict=True))
        model.partial_fit(*examples, f1_threshold=2, accuracy_threshold=2)
        assert not model.gate.any()


def test_more_videos_than_frames_to_fit_to_are_learnt() -> None:
    examples = [tuple(part[:3] for part in video(seed)) for seed in range(ROWS + 50)]
    labels = [np.float32([[1, 0], [0, 0], [0, 1]])] * len(examples)
    metrics = small_model().partial_fit(
        [features for features, _ in examples], labels, f1_threshold=2, accuracy_threshold=2
    )
    assert metrics["num_sequences"] == len(examples)
    assert metrics["epoch"] >= 1


def test_the_layers_behind_the_probe_are_trained_on_so_many_videos_that_only_some_are_read() -> None:
    examples = list(map(list, zip(*(video(seed, frames=24) for seed in range(NETWORK_MAX_VIDEOS + 10)), strict=True)))
    assert small_model().partial_fit(*examples, f1_threshold=2, accuracy_threshold=2)["epoch"] >= 1


def test_where_the_layers_behind_the_probe_help_they_learn_from_all_videos(monkeypatch: pytest.MonkeyPatch) -> None:
    examples = list(map(list, zip(*(video(seed) for seed in range(NETWORK_VIDEOS)), strict=True)))
    learnt_from = []

    def learn(model: torch.nn.Module, videos: list[object], *rest: object) -> int:
        learnt_from.append(len(videos))
        return train(model, videos, *rest)

    monkeypatch.setattr(network, "train", learn)
    for gain in (2.0, -1e9):  # the loss has to fall by more than all of it, and may rise
        monkeypatch.setattr(network, "LEAST_GAIN", gain)
        model = small_model()
        model.partial_fit(*examples, f1_threshold=2, accuracy_threshold=2)
        assert bool(model.gate.all()) == (gain < 0)
    assert learnt_from == [NETWORK_VIDEOS // 2, NETWORK_VIDEOS // 2, NETWORK_VIDEOS]


def test_windows_cover_every_frame_with_the_overlap_and_pad_the_last_one() -> None:
    model = small_model(sequence_size=16)
    features, labels = video(seed=1, frames=40)
    windows, label_windows = model.preprocess_sequence(features, labels, overlap=2)
    # Windows start every 14 frames, at 0, 14 and 28; the last has 12 real frames.
    assert windows.shape == (3, 16, FEATURES)
    np.testing.assert_array_equal(windows[1], features[14:30])
    np.testing.assert_array_equal(label_windows[2, :12], labels[28:])
    assert not windows[2, 12:].any()
    assert model.preprocess_sequence(features)[1] is None


@pytest.mark.parametrize(("frames", "expected"), [(1, 1), (15, 1), (16, 1), (17, 2), (30, 2), (31, 3)])
def test_number_of_windows_at_the_borders(frames: int, expected: int) -> None:
    windows, _ = small_model(sequence_size=16).preprocess_sequence(np.ones((frames, FEATURES)))
    assert len(windows) == expected


def test_prediction_has_no_seams() -> None:
    """A constant video is constant in the middle: nothing marks the borders of training windows."""
    model = small_model(sequence_size=8)
    examples = zip(*(video(seed) for seed in range(NETWORK_VIDEOS)), strict=True)
    model.partial_fit(*map(list, examples), f1_threshold=2, accuracy_threshold=2)
    model.gate.fill_(1)
    features = np.zeros((200, FEATURES), dtype=np.float32)
    middle = model.predict(features)[80:120]
    assert np.abs(np.diff(middle, axis=0)).max() < 1e-4


def test_a_label_without_an_example_is_never_predicted() -> None:
    model = small_model()
    features, truth = video(seed=1)
    model.partial_fit(features, truth, epochs=50)
    assert model.predict(features)[:, 1].max() > 0.5
    truth[:, 1] = 0
    model.partial_fit(features, truth, epochs=1)
    assert model.predict(features)[:, 1].max() == 0


def test_a_sequence_of_more_weight_wins_a_contradiction() -> None:
    right = [Example(seed, *video(seed)) for seed in range(4)]
    wrong = [Example(one.task_id, one.features, ~one.labels, weight=0.05) for one in right]
    model = small_model()
    model.fit(right + wrong)
    unseen, truth = video(seed=9)
    assert frame_f1(truth, model.predict(unseen) > 0.5) > 0.85


class Cancelled(Exception):
    """What a progress callback raises to end a training."""


@pytest.mark.parametrize("num_videos", [1, NETWORK_VIDEOS])
def test_progress_rises_through_all_parts_and_each_can_be_cancelled(num_videos: int) -> None:
    examples = list(map(list, zip(*(video(seed) for seed in range(num_videos)), strict=True)))
    options = {"f1_threshold": 2, "accuracy_threshold": 2}
    shares: list[float] = []
    small_model().partial_fit(*examples, **options, progress=Progress(shares.append))
    assert shares == sorted(shares)
    assert shares[-1] == 1
    for at in {0, len(shares) // 3, len(shares) // 2, len(shares) - 1}:
        seen = 0

        def cancel(share: float) -> None:
            nonlocal seen
            seen += 1
            if seen > at:  # noqa: B023 (called within the loop)
                raise Cancelled

        with pytest.raises(Cancelled):
            small_model().partial_fit(*examples, **options, progress=Progress(cancel))
        assert seen == at + 1


@pytest.mark.parametrize("frames", [0, 1, 2, 500])
def test_any_length_is_predicted(frames: int) -> None:
    model = small_model()
    model.partial_fit(*video(seed=1), epochs=2)
    assert model.predict(np.zeros((frames, FEATURES))).shape == (frames, 2)


def test_features_that_are_all_zero_teach_nothing_and_break_nothing() -> None:
    model = small_model()
    model.partial_fit(np.zeros((60, FEATURES), np.float32), video(seed=1)[1])
    assert np.isfinite(model.predict(video(seed=2)[0])).all()


def test_bad_examples_are_refused_with_a_sentence() -> None:
    model = small_model()
    features, truth = video(seed=1)
    broken = features.copy()
    broken[3, 3] = np.nan
    for sequences, labels, message in [
        (features[:, :5], truth, "shape"),
        (features, truth[:10], "don't fit"),
        (features, truth[:, :1], "2 columns"),
        (broken, truth, "NaN"),
        ([features, features], [truth], "2 sequences, 1 label"),
        ([], [], "no frame"),
        (features, truth * 2, "0 or 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            model.partial_fit(sequences, labels)
    with pytest.raises(ValueError, match="weight"):
        Example(1, features, truth, weight=-1.0)
    with pytest.raises(ValueError, match="NaN"):
        model.predict(broken)
    with pytest.raises(ValueError, match="hidden_size"):
        MultiLabelLSTM(4, 2, hidden_size=0)


def test_a_saved_model_comes_back_with_its_header(tmp_path) -> None:
    model = small_model(num_layers=2)
    model.partial_fit(*video(seed=1), epochs=5)
    path = tmp_path / "deep" / "model.safetensors"
    model.save(path, {"encoder": "abc", "version": "7", "metrics": {"f1": 0.5}})
    loaded = MultiLabelLSTM.load(path)
    assert loaded.header == {"encoder": "abc", "version": "7", "metrics": {"f1": 0.5}}
    assert loaded.get_label_map() == LABELS
    features, _ = video(seed=2)
    np.testing.assert_array_equal(loaded.predict(features), model.predict(features))
    assert [file.name for file in path.parent.iterdir()] == ["model.safetensors"]


def test_a_failed_save_leaves_the_old_file(tmp_path) -> None:
    path = tmp_path / "model.safetensors"
    model = small_model()
    model.save(path, {"version": "1"})
    with pytest.raises(TypeError):
        model.save(path, {"version": object()})
    assert MultiLabelLSTM.load(path).header == {"version": "1"}
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]


def test_foreign_and_damaged_files_are_refused(tmp_path) -> None:
    path = tmp_path / "model.safetensors"
    small_model().save(path, {})
    whole = path.read_bytes()
    for content in (
        b"",
        b"not a model",
        whole[: len(whole) // 2],
        whole.replace(b'\\"input_size\\": 24', b'\\"input_size\\": 25'),
    ):
        assert content != whole
        path.write_bytes(content)
        with pytest.raises(UnusableClassifier, match="Remove the file"):
            MultiLabelLSTM.load(path)
    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(UnusableClassifier, match="not a usable"):
        MultiLabelLSTM.load(path)
    with pytest.raises(FileNotFoundError):
        MultiLabelLSTM.load(tmp_path / "missing")


def test_cached_models_follow_the_file(tmp_path) -> None:
    path = tmp_path / "model.safetensors"
    assert MultiLabelLSTM.load_cached_model(path) is None
    small_model().save(path, {"version": "1"})
    first = MultiLabelLSTM.load_cached_model(path)
    assert MultiLabelLSTM.load_cached_model(path) is first
    small_model().save(path, {"version": "2"})
    assert MultiLabelLSTM.load_cached_model(path).header == {"version": "2"}
    path.unlink()
    assert MultiLabelLSTM.load_cached_model(path) is None


def test_a_cached_model_predicts_the_same_in_many_threads(tmp_path) -> None:
    path = tmp_path / "model.safetensors"
    model = small_model()
    model.partial_fit(*video(seed=1), epochs=20)
    model.save(path, {})
    features, _ = video(seed=2)
    expected = model.predict(features)
    results: list[np.ndarray] = []
    threads = [
        threading.Thread(target=lambda: results.append(MultiLabelLSTM.load_cached_model(path).predict(features)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8
    for result in results:
        np.testing.assert_array_equal(result, expected)
