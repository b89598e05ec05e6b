"""Extraction and its cache: the right frames in order, the same numbers every time, nothing stale or broken."""

import os
import pickle
import random
import re
import resource
import shutil
import signal
import subprocess
import threading
import time
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from errors import CacheUnwritable, MediaError, UnreadableVideo
from features import array_store, attempts, extraction, file_hashes
from features import cache as cache_module
from features.cache import (
    CacheParams,
    FeatureCache,
    VideoFeatures,
    cached_feature_extraction,
    cached_yolo_predict,
    extract,
)
from features.cache_folder import STALE_AFTER, usage
from features.encoder import Encoder, get_encoder
from features.motion import MOTION_SIZE
from features.sequence import FeatureSequence
from progress import Progress
from tests import processes
from tests.brightness import BrightnessEncoder
from tests.checkpoints import write_checkpoint
from tests.servers import mount
from tests.videos import write_video
from video.preprocessing import View
from video.reader import Frame, decode


def grey(*levels: int) -> list[tuple[int, int, int]]:
    return [(level, level, level) for level in levels]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A MODEL_ROOT with a small classifier in it."""
    root = tmp_path_factory.mktemp("models")
    write_checkpoint(root / "classifier.pt", image_size=64)
    return root


@pytest.fixture(scope="session")
def classifier(models: Path) -> Encoder:
    return get_encoder("classifier.pt", model_root=models, precision="fp32")


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three videos of noise of 21, 40 and 65 frames: no multiples of a batch."""
    folder = tmp_path_factory.mktemp("videos")
    generator = np.random.default_rng(0)
    noise = generator.integers(0, 256, (65, 9, 12, 3), dtype=np.uint8).repeat(10, 1).repeat(10, 2)
    return [
        write_video(folder / f"{count}.mp4", lambda index, c=count: noise[(index * c) % 65], count, size=(120, 90))
        for count in (21, 40, 65)
    ]


@pytest.fixture
def cache(tmp_path: Path) -> FeatureCache:
    return FeatureCache(tmp_path / "cache", size_limit=10**9)


def assert_same(a: VideoFeatures, b: VideoFeatures) -> None:
    for array in ("features", "probs", "times"):
        np.testing.assert_array_equal(getattr(a, array), getattr(b, array))


# --- Extraction


def test_every_frame_in_order(tmp_path):
    levels = [20 + 2 * index for index in range(100)]
    video = write_video(tmp_path / "video.mp4", grey(*levels), rate=10)
    result = extract(BrightnessEncoder(), video)
    assert result.features.shape == (100, 316)
    assert result.features.dtype == np.float16
    np.testing.assert_allclose(result.features[:, 0], levels, atol=3)
    assert result.probs is None
    np.testing.assert_allclose(result.times, np.arange(100) / 10)
    assert result.times.dtype == np.float64
    assert result.duration == pytest.approx(10)
    assert result.frame_rate == 10
    assert result.broken_frames == 0
    assert not result.truncated


def test_the_crop_gives_probabilities_and_nothing_else(tmp_path):
    levels = [20 + 2 * index for index in range(100)]
    video = write_video(tmp_path / "video.mp4", grey(*levels), rate=10)
    result = extract(BrightnessEncoder(), video, View.CROP)
    assert result.features is None
    assert result.probs.shape == (100, 2)
    assert result.probs.dtype == np.float32
    np.testing.assert_allclose(255 * result.probs[:, 0], levels, atol=3)
    np.testing.assert_allclose(result.probs.sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(result.times, np.arange(100) / 10)


def test_the_pipeline_gives_what_the_encoder_gives(classifier, videos):
    frames = list(decode(videos[1]))
    expected = [classifier.features(classifier.preprocess([frame], View.WHOLE)) for frame in frames]
    features = extract(classifier, videos[1]).features
    np.testing.assert_allclose(features, np.concatenate(expected), rtol=1e-3, atol=1e-4)  # 16 bits
    expected = [classifier.probabilities(classifier.preprocess([frame], View.CROP)) for frame in frames]
    np.testing.assert_allclose(extract(classifier, videos[1], View.CROP).probs, np.concatenate(expected), atol=1e-5)


@pytest.mark.parametrize("view", View)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_other_videos_before_or_beside_change_nothing(models, videos, precision, view):
    encoder = get_encoder("classifier.pt", model_root=models, precision=precision)
    alone = [extract(encoder, video, view) for video in videos]
    for video, expected in zip(videos * 2, alone * 2, strict=True):
        assert_same(extract(encoder, video, view), expected)
    with ThreadPoolExecutor(3) as pool:
        for result, expected in zip(
            pool.map(lambda video: extract(encoder, video, view), videos * 2), alone * 2, strict=True
        ):
            assert_same(result, expected)


def test_workers_keep_to_one_core_when_another_extraction_ends(videos):
    torch.set_num_threads(2)
    extraction._default_threads.cache_clear()
    with extraction._worker_threads(1) as pool:
        pool.submit(int).result()  # the worker has started, but computed nothing yet
        with extraction._worker_threads(1):
            pass
        assert pool.submit(torch.get_num_threads).result() == 1


def test_pytorch_keeps_its_number_of_threads(videos):
    torch.set_num_threads(2)
    extraction._default_threads.cache_clear()
    extract(BrightnessEncoder(), videos[0])
    assert torch.get_num_threads() == 2
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(torch.get_num_threads).result() == 2


@pytest.mark.parametrize("num_frames", [1, 4, 5, 6, 100])
def test_stride_interpolates_between_every_nth_frame(tmp_path, num_frames):
    levels = 40 + 100 * np.random.default_rng(0).random(num_frames)
    video = write_video(tmp_path / "video.mp4", grey(*levels.astype(int)), options={"crf": "0"})
    encoder = BrightnessEncoder()
    every = extract(BrightnessEncoder(), video)
    result = extract(encoder, video, stride=5)
    assert encoder.num_encoded == len(levels[::5])
    np.testing.assert_array_equal(result.times, every.times)
    expected = np.interp(np.arange(num_frames), np.arange(0, num_frames, 5), every.features[::5, 0])
    np.testing.assert_allclose(result.features[:, 7], expected, rtol=1e-3)  # 16 bits
    assert result.features.dtype == np.float16
    np.testing.assert_array_equal(result.features[::5], every.features[::5])
    np.testing.assert_allclose(extract(encoder, video, View.CROP, stride=5).probs.sum(1), 1, atol=1e-6)


def test_stride_interpolates_in_time_where_frames_come_irregularly(tmp_path):
    times = [0, 0.04, 0.4, 2.4, 2.44, 2.48]
    video = write_video(tmp_path / "video.mp4", grey(50, 50, 50, 110, 110, 110), times=times, options={"crf": "0"})
    first, last = extract(BrightnessEncoder(), video).features[[0, 3], 0]
    result = extract(BrightnessEncoder(), video, stride=3).features[:, 0]
    np.testing.assert_allclose(result[:4], np.interp(times[:4], [0, 2.4], [first, last]), rtol=1e-3)
    np.testing.assert_array_equal(result[3:], last)


def test_a_picture_size_that_changes_starts_a_new_batch(tmp_path, monkeypatch):
    small = write_video(tmp_path / "small.mp4", grey(*[60] * 10), size=(64, 64))
    large = write_video(tmp_path / "large.mp4", grey(*[160] * 10), size=(128, 64))

    class Spliced:
        average_rate, duration, broken_frames, truncated, has_sound = 25.0, 0.8, 0, False, False

        def __iter__(self):
            yield from decode(small)
            for frame in decode(large):
                yield frame._replace(time=frame.time + 0.4)

    monkeypatch.setattr(extraction, "decode", lambda path, threads: Spliced())
    encoder = BrightnessEncoder()
    result = extract(encoder, small)
    assert encoder.largest_batch == 10
    np.testing.assert_allclose(result.features[:, 0], [60] * 10 + [160] * 10, atol=3)


def test_batches_of_large_pictures_are_small(tmp_path, monkeypatch):
    monkeypatch.setattr(extraction, "MAX_BATCH_PIXELS", 4 * 320 * 240)
    video = write_video(tmp_path / "video.mp4", grey(*range(50, 100)), size=(320, 240))
    encoder = BrightnessEncoder()
    extract(encoder, video)
    assert encoder.largest_batch == 4


def test_decoding_waits_for_encoding(tmp_path, monkeypatch):
    video = write_video(tmp_path / "video.mp4", grey(*[50] * 400), size=(64, 64))
    num_decoded = 0

    def counting_decode(path: Path, threads: int):
        reader = decode(path, threads)
        next_frame = type(reader).__next__

        class Counting(type(reader)):
            def __next__(self) -> Frame:
                nonlocal num_decoded
                num_decoded += 1
                return next_frame(self)

        reader.__class__ = Counting
        return reader

    ahead = []
    encoder = BrightnessEncoder(work=lambda: (time.sleep(0.01), ahead.append(num_decoded - encoder.num_encoded)))
    monkeypatch.setattr(extraction, "decode", counting_decode)
    monkeypatch.setattr(extraction.joblib, "cpu_count", lambda: 2)
    extract(encoder, video)
    assert num_decoded > 400
    # 2 encoding, 2 queued, 1 finished, 1 being decoded, 1 counted
    assert max(ahead) <= 7 * encoder.batch_size


@pytest.mark.parametrize(("device", "workers", "decoders"), [("cpu", 12, 4), ("cuda", 4, 6)])
def test_with_a_gpu_fewer_threads_encode_and_more_decode(tmp_path, monkeypatch, device, workers, decoders):
    video = write_video(tmp_path / "video.mp4", grey(*[50] * 40), size=(64, 64))
    started = []

    def decoding(path: Path, threads: int):
        started.append(threads)
        return decode(path, threads)

    def encoding(workers: int, *arguments: Any, **options: Any) -> ThreadPoolExecutor:
        started.append(workers)
        return ThreadPoolExecutor(workers, *arguments, **options)

    monkeypatch.setattr(extraction, "decode", decoding)
    monkeypatch.setattr(extraction, "ThreadPoolExecutor", encoding)
    monkeypatch.setattr(extraction.joblib, "cpu_count", lambda: 12)
    encoder = BrightnessEncoder()
    encoder.device = torch.device(device)
    assert len(extract(encoder, video).times) == 40
    assert started == [decoders, workers]


def test_an_error_ends_the_extraction_and_its_threads(tmp_path):
    video = write_video(tmp_path / "video.mp4", grey(*[50] * 400), size=(64, 64))

    def fail() -> None:
        raise RuntimeError("out of memory")

    encoder = BrightnessEncoder(work=fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        extract(encoder, video)
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("encoder")]


def test_an_interrupted_caller_ends_the_extraction_and_its_threads(tmp_path):
    video = write_video(tmp_path / "video.mp4", grey(*[50] * 400), size=(64, 64))

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    encoder = BrightnessEncoder()
    with pytest.raises(KeyboardInterrupt):
        extract(encoder, video, progress=Progress(interrupt))
    assert encoder.num_encoded < 400
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("encoder")]


def test_no_video_at_all(tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(UnreadableVideo):
        extract(BrightnessEncoder(), tmp_path / "text.mp4")
    with pytest.raises(MediaError):
        extract(BrightnessEncoder(), tmp_path / "missing.mp4")


def test_progress_rises_to_the_end(videos):
    done: list[float] = []
    extract(BrightnessEncoder(), videos[2], progress=Progress(done.append))
    assert len(done) == 5
    assert done == sorted(done)
    assert 0 < done[0] < 0.5
    assert 0.95 < done[-1] <= 1


# --- What is found in the cache


@pytest.fixture
def no_decoding(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Call it, and every decoding fails from then on."""

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("decoded a video whose features are cached")

    def forbid() -> None:
        monkeypatch.setattr(cache_module, "open_video", fail)
        monkeypatch.setattr(extraction, "decode", fail)

    return forbid


def test_a_hit_decodes_nothing_and_maps_the_arrays(cache, classifier, videos, no_decoding, tmp_path):
    first = cache.get(classifier, videos[0])
    assert_same(first, extract(classifier, videos[0]))
    no_decoding()
    for again in (
        cache.get(classifier, videos[0]),
        FeatureCache(tmp_path / "cache", 10**9).peek(classifier, videos[0]),
    ):
        assert_same(again, first)
        assert isinstance(again.features, array_store.MappedArray)
        assert again.probs is None
        assert not again.features.flags.writeable
        assert (again.duration, again.frame_rate, again.broken_frames, again.truncated, again.content) == (
            first.duration,
            first.frame_rate,
            first.broken_frames,
            first.truncated,
            first.content,
        )


def test_a_renamed_video_hits_and_a_replaced_one_misses(cache, videos, tmp_path):
    encoder = BrightnessEncoder()
    video = Path(shutil.copy(videos[0], tmp_path / "a.mp4"))
    first = cache.get(encoder, video)
    renamed = video.rename(tmp_path / "b.mp4")
    assert cache.peek(encoder, renamed) is None  # its content isn't known before somebody reads it
    assert_same(cache.get(encoder, renamed), first)
    assert_same(cache.peek(encoder, renamed), first)
    assert encoder.num_encoded == 21
    shutil.copy(videos[1], renamed)
    assert cache.peek(encoder, renamed) is None
    assert len(cache.get(encoder, renamed).times) == 40


def test_a_changed_byte_of_the_same_size_misses(cache, videos, tmp_path):
    video = Path(shutil.copy(videos[0], tmp_path / "a.mp4"))
    cache.get(BrightnessEncoder(), video)
    status = video.stat()
    content = bytearray(video.read_bytes())
    content[-1] ^= 1
    video.write_bytes(content)
    os.utime(video, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert cache.peek(BrightnessEncoder(), video) is None


def test_another_encoder_precision_or_stride_misses(cache, models, classifier, videos):
    cache.get(classifier, videos[0])
    assert cache.peek(get_encoder("classifier.pt", model_root=models, precision="bf16"), videos[0]) is None
    assert cache.peek(BrightnessEncoder(), videos[0]) is None
    assert cache.peek(classifier, videos[0], stride=2) is None
    assert cache.peek(classifier, videos[0], View.CROP) is None
    assert cache.peek(classifier, videos[0]) is not None


def test_a_machine_without_gpu_finds_what_one_with_a_gpu_extracted(cache, models, videos):
    """What PRECISION=auto means there, and the device, are no part of what features are found by."""
    path = models / "classifier.pt"
    here = Encoder(path, torch.device("cpu"), "fp32", asked_precision="auto")
    there = Encoder(path, torch.device("cuda"), "fp16", asked_precision="auto")
    cache.get(here, videos[0])
    assert cache.peek(there, videos[0]) is not None
    assert cache.peek(Encoder(path, torch.device("cuda"), "fp16"), videos[0]) is None


def test_two_views_are_extracted_in_one_decoding_and_cached_apart(cache, classifier, videos, monkeypatch, tmp_path):
    opened = []
    open_video = cache_module.open_video
    monkeypatch.setattr(cache_module, "open_video", lambda path, device: (opened.append(path), open_video(path))[1])
    both = cache.get_views(classifier, videos[0], set(View))
    assert len(opened) == 1
    for view in View:
        assert_same(both[view], extract(classifier, videos[0], view))
        assert_same(cache.peek(classifier, videos[0], view), both[view])
    assert list((tmp_path / "cache" / "unfinished").iterdir()) == []
    cache.get(classifier, videos[1], View.CROP)
    written = {path: path.stat().st_ino for path in (tmp_path / "cache" / "features").rglob("probs.npy")}
    both = cache.get_views(classifier, videos[1], set(View))  # extracts only the missing one
    assert len(opened) == 3
    assert {path: path.stat().st_ino for path in written} == written
    assert both[View.CROP].probs is not None


def test_each_view_stores_only_what_it_gives(cache, classifier, videos, tmp_path):
    cache.get(classifier, videos[2], View.CROP)
    assert {path.name for path in (tmp_path / "cache").rglob("*.npy")} == {"times.npy", "probs.npy"}
    size = usage(tmp_path / "cache" / "features")
    cache.get(classifier, videos[2])
    assert (
        usage(tmp_path / "cache" / "features") - size
        < 65 * (2 * classifier.feature_dim + classifier.cell_dim + 8 + 512) + 4096
    )


def test_peek_neither_decodes_nor_waits(cache, videos, no_decoding):
    started, finish = threading.Event(), threading.Event()
    encoder = BrightnessEncoder(work=lambda: (started.set(), finish.wait()))
    with ThreadPoolExecutor(1) as pool:
        extraction = pool.submit(cache.get, encoder, videos[0])
        started.wait()
        assert cache.peek(encoder, videos[0]) is None
        finish.set()
        extraction.result()
    no_decoding()
    assert cache.peek(encoder, videos[0]) is not None
    assert cache.peek(encoder, videos[1]) is None


def test_contents_are_hashed_once(cache, videos, monkeypatch, tmp_path):
    cache.get(BrightnessEncoder(), videos[0])

    def fail(path: str) -> str:
        raise AssertionError(f"hashed {path} again")

    monkeypatch.setattr(file_hashes, "file_hash", fail)
    assert cache.peek(BrightnessEncoder(), videos[0]) is not None
    assert FeatureCache(tmp_path / "cache", 10**9).peek(BrightnessEncoder(), videos[0]) is not None


def test_a_look_up_costs_a_stat_of_the_video_and_one_of_its_item(cache, videos, monkeypatch):
    encoder, asked, stat = BrightnessEncoder(), [], os.stat
    cache.get(encoder, videos[0])
    assert cache.has(encoder, videos[0])

    def fail(*_: object) -> None:
        raise AssertionError("a folder is walked, or a file read")

    monkeypatch.setattr(os, "stat", lambda path, **options: (asked.append(path), stat(path, **options))[1])
    for name in ("listdir", "scandir", "open"):
        monkeypatch.setattr(os, name, fail)
    monkeypatch.setattr("builtins.open", fail)
    assert cache.has(encoder, videos[0])
    assert len(asked) <= 2


def test_a_missing_file(cache, tmp_path):
    with pytest.raises(MediaError, match=r"nothing\.mp4 does not exist"):
        cache.peek(BrightnessEncoder(), tmp_path / "nothing.mp4")
    with pytest.raises(MediaError, match="does not exist"):
        cache.get(BrightnessEncoder(), tmp_path)


def test_an_encoder_without_classes(cache, videos, tmp_path):
    write_checkpoint(tmp_path / "detector.pt", "yolov8n", image_size=64)
    encoder = get_encoder("detector.pt", model_root=tmp_path)
    cache.get(encoder, videos[0], View.CROP)
    assert cache.peek(encoder, videos[0], View.CROP).probs.shape == (21, 0)
    assert cache.get(encoder, videos[0]).features.shape == (21, encoder.feature_dim)


def test_the_documented_functions(tmp_path, videos):
    encoder = BrightnessEncoder()
    params = CacheParams(tmp_path / "cache", 10**9, stride=2)
    for _ in range(2):
        assert cached_feature_extraction(encoder, videos[0], params).shape == (21, 316)
        assert cached_yolo_predict(encoder, videos[0], params).shape == (21, 2)
    assert encoder.num_encoded == 2 * 11


# --- Many at once


def test_requests_for_the_same_video_at_once_extract_once(videos, tmp_path):
    encoder = BrightnessEncoder(work=lambda: time.sleep(0.1))
    caches = [FeatureCache(tmp_path / "cache", 10**9) for _ in range(4)]
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda cache: cache.get(encoder, videos[1]), caches * 2))
    assert encoder.num_encoded == 40
    for result in results:
        assert_same(result, results[0])


def sum_of_features(cache_dir: Path, video: Path) -> tuple[tuple[int, ...], float]:
    features = FeatureCache(cache_dir, 10**9).get(BrightnessEncoder(), video).features
    return features.shape, float(features.sum())


def test_two_processes_at_once_both_get_features(videos, tmp_path):
    first, second = processes.run_at_once(2, sum_of_features, tmp_path, videos[2])
    assert first == second
    assert first[0] == (65, 316)


def read_at_random(cache_dir: Path, videos: list[Path]) -> int:
    """Two threads read videos of even brightness from a cache that holds only one of them; how often they did."""

    def work(seed: int) -> int:
        cache, choose = FeatureCache(cache_dir, 1000), random.Random(seed)
        for _ in range(60):
            index = choose.randrange(len(videos))
            assert abs(cache.get(BrightnessEncoder(), videos[index]).features - (10 * index + 20)).max() <= 3
        return 60

    with ThreadPoolExecutor(2) as pool:
        return sum(pool.map(work, range(2)))


def test_processes_that_drop_each_others_items_all_get_features(many_videos, tmp_path):
    assert processes.run_at_once(3, read_at_random, tmp_path, many_videos[:3]) == [120] * 3


# --- Limits and accidents


@pytest.fixture(scope="session")
def many_videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Twelve videos whose features take 20 kB each."""
    folder = tmp_path_factory.mktemp("many")
    return [
        write_video(folder / f"{index}.mp4", grey(*[10 * index + 20] * 20), size=(64, 64), rate=20)
        for index in range(12)
    ]


def size_by_inode(folder: Path) -> dict[int, int]:
    """Sizes of the files in a folder, each counted once even if it is moved meanwhile."""
    sizes = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                status = os.stat(os.path.join(parent, name))
                sizes[status.st_ino] = status.st_size
    return sizes


def test_the_size_limit_is_kept_while_extractions_run(many_videos, tmp_path):
    limit = 110_000
    caches = [FeatureCache(tmp_path / "cache", limit) for _ in range(2)]
    sizes, stop = [], threading.Event()

    def watch() -> None:
        while not stop.is_set():
            with cache_module._room_lock:  # nothing is dropped or begun while the files are counted
                sizes.append(sum(size_by_inode(tmp_path / "cache").values()))

    encoder = BrightnessEncoder(work=lambda: time.sleep(0.02))
    favourite = many_videos[0]
    with ThreadPoolExecutor(3) as pool:
        watcher = pool.submit(watch)
        try:
            caches[0].get(encoder, favourite)
            for first, second in zip(many_videos[1::2], many_videos[2::2], strict=False):
                results = list(
                    pool.map(lambda job: job[0].get(encoder, job[1]), zip(caches, (first, second), strict=True))
                )
                for result, video in zip(results, (first, second), strict=True):
                    np.testing.assert_allclose(result.features[:, 0], 10 * int(video.stem) + 20, atol=3)
                assert caches[0].peek(encoder, favourite) is not None  # read again and again, so never dropped
        finally:
            stop.set()
        watcher.result()
    assert max(sizes) <= limit
    assert max(sizes) > 0.6 * limit
    cached = [caches[0].peek(encoder, video) is not None for video in many_videos]
    assert 3 <= sum(cached) <= 5
    assert cached[0]
    assert cached[10]


def test_the_oldest_goes_first_and_arrays_in_use_stay_valid(many_videos, tmp_path):
    cache = FeatureCache(tmp_path / "cache", 70_000)
    encoder = BrightnessEncoder()
    in_use = cache.get(encoder, many_videos[0])
    for video in many_videos[1:6]:
        cache.get(encoder, video)
    assert [cache.peek(encoder, video) is not None for video in many_videos[:6]] == [False] * 3 + [True] * 3
    np.testing.assert_allclose(in_use.features[:, 0], 20, atol=3)


def test_what_is_larger_than_the_limit_is_kept_alone(many_videos, tmp_path):
    cache = FeatureCache(tmp_path / "cache", 1000)
    encoder = BrightnessEncoder()
    for video in many_videos[:3]:
        cache.get(encoder, video)
        assert cache.peek(encoder, video) is not None
    assert [cache.peek(encoder, video) is not None for video in many_videos[:3]] == [False, False, True]


def item_of(cache_dir: Path) -> Path:
    (facts,) = (cache_dir / "features").rglob(array_store.FACTS)
    return facts.parent


@pytest.mark.parametrize("damage", ["cut off", "emptied", "removed", "facts overwritten", "facts emptied", "header"])
def test_a_damaged_item_is_extracted_again(cache, videos, tmp_path, damage):
    encoder = BrightnessEncoder()
    expected = extract(encoder, videos[0])
    cache.get(encoder, videos[0])
    item = item_of(tmp_path / "cache")
    array = item / "features.npy"
    match damage:
        case "cut off":
            os.truncate(array, array.stat().st_size // 2)
        case "emptied":
            array.write_bytes(b"")
        case "removed":
            array.unlink()
        case "facts overwritten":
            (item / array_store.FACTS).write_text("no JSON")
        case "facts emptied":
            (item / array_store.FACTS).write_text("{}")
        case "header":
            array.write_bytes(b"garbage" + array.read_bytes()[7:])
    assert cache.peek(encoder, videos[0]) is None
    assert_same(cache.get(encoder, videos[0]), expected)
    assert_same(cache.peek(encoder, videos[0]), expected)


def test_a_failed_extraction_leaves_nothing(cache, videos, tmp_path):
    def fail() -> None:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError):
        cache.get(BrightnessEncoder(work=fail), videos[2])
    assert usage(tmp_path / "cache" / "unfinished") == 0
    assert cache.peek(BrightnessEncoder(), videos[2]) is None
    assert len(cache.get(BrightnessEncoder(), videos[2]).times) == 65


def test_a_video_replaced_while_it_is_read_is_refused(cache, videos, tmp_path):
    video = Path(shutil.copy(videos[1], tmp_path / "video.mp4"))
    encoder = BrightnessEncoder(work=lambda: shutil.copy(videos[0], video))
    with pytest.raises(MediaError, match="was replaced while it was read"):
        cache.get(encoder, video)
    assert cache.peek(encoder, videos[0]) is None
    assert cache.peek(encoder, videos[1]) is None


def extract_half(cache_dir: Path, video: Path, half_way: Any) -> None:
    def work() -> None:
        if encoder.num_encoded:
            half_way.set()
            signal.pause()

    encoder = BrightnessEncoder(work=work)
    FeatureCache(cache_dir, 10**9).get(encoder, video)


def test_a_killed_extraction_leaves_nothing_that_is_trusted(videos, tmp_path):
    half_way = processes.context().Event()
    process = processes.start(extract_half, tmp_path, videos[2], half_way)
    half_way.wait()
    process.kill()
    process.join()
    assert usage(tmp_path / "unfinished") > 0

    cache = FeatureCache(tmp_path, 10**9)
    assert cache.peek(BrightnessEncoder(), videos[2]) is None
    result = cache.get(BrightnessEncoder(), videos[2])
    assert_same(result, extract(BrightnessEncoder(), videos[2]))
    assert usage(tmp_path / "unfinished") > 0  # it might still be running somewhere
    long_ago = time.time() - STALE_AFTER - 1
    for path in [*(tmp_path / "unfinished").rglob("*"), *(tmp_path / "unfinished").iterdir()]:
        os.utime(path, (long_ago, long_ago))
    cache.get(BrightnessEncoder(), videos[1])
    assert usage(tmp_path / "unfinished") == 0


def extract_and_die(cache_dir: Path, video: Path) -> None:
    encoder = BrightnessEncoder(work=lambda: os.kill(os.getpid(), signal.SIGKILL))
    FeatureCache(cache_dir, 10**9).get(encoder, video)


def test_a_video_that_kills_its_process_is_given_up_whatever_its_name(videos, tmp_path):
    for number in range(attempts.MAX_DEATHS):
        video = shutil.copy(videos[2], tmp_path / f"{number}.mp4")
        process = processes.start(extract_and_die, tmp_path / "cache", video)
        process.join()
        assert process.exitcode == -signal.SIGKILL
    cache = FeatureCache(tmp_path / "cache", 10**9)
    with pytest.raises(UnreadableVideo, match=r"other\.mp4 is given up: the worker died 3 times"):
        cache.get(BrightnessEncoder(), shutil.copy(videos[2], tmp_path / "other.mp4"))
    assert len(cache.get(BrightnessEncoder(), videos[1]).times) > 0
    cache.forget(tmp_path / "other.mp4")
    assert len(cache.get(BrightnessEncoder(), videos[2]).times) == 65


def test_an_extraction_that_ends_is_no_death(cache, videos):
    def fail() -> None:
        raise RuntimeError("stopped")

    for _ in range(attempts.MAX_DEATHS + 1):
        with pytest.raises(RuntimeError):
            cache.get(BrightnessEncoder(work=fail), videos[2])
    assert len(cache.get(BrightnessEncoder(), videos[2]).times) == 65


def test_a_declared_length_drops_nothing(cache, videos, tmp_path):
    """A file of 2 kB that declares 13 hours at 1000 pictures a second."""
    moments = [0.0, 0.001, 47_000.0]
    liar = write_video(tmp_path / "liar.mkv", grey(20, 30, 40), times=moments, rate=1000, size=(64, 64))
    cache = FeatureCache(tmp_path / "small", 200_000)
    cache.get(BrightnessEncoder(), videos[0])
    assert len(cache.get(BrightnessEncoder(), liar).times) == 3
    assert cache.peek(BrightnessEncoder(), videos[0]) is not None


def test_cached_arrays_hold_no_file_open(cache, many_videos):
    def open_files() -> int:
        return len(os.listdir("/proc/self/fd"))

    encoder = BrightnessEncoder()
    before = open_files()
    held = [cache.get(encoder, video) for video in many_videos]
    assert open_files() <= before + 2
    assert [int(video.features[0, 0]) for video in held] == pytest.approx(range(20, 140, 10), abs=3)


def test_too_many_open_files_are_no_damage(cache, videos):
    encoder = BrightnessEncoder()
    cache.get(encoder, videos[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            cache.get(encoder, videos[0])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert encoder.num_encoded == len(cache.peek(encoder, videos[0]).times)


def test_the_cache_holds_no_pickle_and_runs_none(cache, videos, tmp_path):
    cache.get(BrightnessEncoder(), videos[0])
    assert not list((tmp_path / "cache").rglob("*.pkl"))
    ran = tmp_path / "ran"
    payload = pickle.dumps(_Touch(ran))
    for folder in [path for path in (tmp_path / "cache").rglob("*") if path.is_dir()]:
        (folder / "output.pkl").write_bytes(payload)
        (folder / "metadata.json").write_text("{}")
    again = FeatureCache(tmp_path / "cache", 10**9)
    assert again.peek(BrightnessEncoder(), videos[0]) is not None
    again.get(BrightnessEncoder(), videos[1])
    assert not ran.exists()


def test_a_link_to_itself_does_not_exist(tmp_path):
    loop = tmp_path / "loop.mp4"
    loop.symlink_to(loop)
    with pytest.raises(MediaError, match="does not exist"):
        FeatureCache(tmp_path / "cache", 10**9).get(BrightnessEncoder(), loop)


def test_a_read_only_or_full_cache_serves_what_it_has(videos, tmp_path):
    folder = tmp_path / "mounted"
    folder.mkdir()
    mount("-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder))
    try:
        cache = FeatureCache(folder, 10**9)
        expected = cache.get(BrightnessEncoder(), videos[0])
        mount("-o", "remount,ro", str(folder))
        assert_same(FeatureCache(folder, 10**9).get(BrightnessEncoder(), videos[0]), expected)
        with pytest.raises(CacheUnwritable, match=r"can't be written \(Read-only file system\)"):
            cache.get(BrightnessEncoder(), videos[1])
        mount("-o", "remount,rw", str(folder))
        with suppress(OSError), (folder / "full").open("wb") as file:
            file.write(bytes(1 << 20))
        with pytest.raises(CacheUnwritable, match="No space left"):
            cache.get(BrightnessEncoder(), videos[2])
        assert_same(cache.get(BrightnessEncoder(), videos[0]), expected)
        (folder / "full").unlink()
        assert len(cache.get(BrightnessEncoder(), videos[2]).times) == 65
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


class _Touch:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


# --- What a classifier reads


@pytest.mark.parametrize("index", [None, [0, 0, 1, 5, 5, 9, 20, 20], list(range(21)), list(range(20))])
def test_a_sequence_is_read_in_blocks(videos, index):
    video = extract(BrightnessEncoder(), videos[0])
    sequence = FeatureSequence(video, None if index is None else np.array(index), ("appearance", "motion"))
    rows = range(21) if index is None else index
    expected = np.concatenate([video.features, video.motion], axis=1).astype(np.float32)[list(rows)]
    assert sequence.shape == expected.shape
    assert len(sequence) == len(rows)
    for block in (slice(0, 3), slice(3, 8), slice(6, 100), slice(4, 4)):
        np.testing.assert_array_equal(sequence[block], expected[block])
        assert sequence[block].dtype == np.float32
    np.testing.assert_array_equal(np.asarray(sequence, np.float64), expected)


def test_rows_of_labeling_frames_are_not_copied_as_a_whole(cache, tmp_path):
    video = write_video(tmp_path / "video.mp4", grey(*[100] * 300), size=(64, 64))
    encoder = BrightnessEncoder()
    encoder.feature_dim = 4000
    cached = cache.get(encoder, video)
    index = np.arange(300).repeat(40)
    tracemalloc.start()
    try:
        sequence = FeatureSequence(cached, index)
        total = sum(float(sequence[start : start + 100].sum()) for start in range(0, len(sequence), 100))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert total > 0
    assert peak < 0.1 * 4 * sequence.shape[0] * sequence.shape[1]


def test_what_was_read_of_a_file_is_not_held(tmp_path):
    np.save(tmp_path / "features.npy", np.random.default_rng(0).random((20_000, 400), np.float32))
    features = array_store.map_array(tmp_path / "features.npy")
    motion = np.zeros((20_000, MOTION_SIZE), np.float16)
    sequence = FeatureSequence(VideoFeatures(np.arange(20_000) / 25, 800, 25, 0, False, "", features, motion))

    def held() -> int:
        """Resident kilobytes of the file's mapping."""
        mapping = Path("/proc/self/smaps").read_text().split("/features.npy\n")[1]
        return int(re.search(r"^Rss: +(\d+) kB", mapping, re.MULTILINE)[1])

    total = sum(float(sequence[start : start + 256].sum()) for start in range(0, 20_000, 256))
    assert total == pytest.approx(np.asarray(sequence).sum(), rel=1e-3)
    assert held() < 1000  # of 31,250
