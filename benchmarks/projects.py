"""The few-shot benchmark's projects: videos in the order of annotation, their features and their labels.

Videos and features are made once and kept in benchmarks/data.
"""

import json
from collections.abc import Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from benchmarks.videos.footage import ANNOTATED, DATA, UNSEEN
from benchmarks.videos.scenarios import SCENARIOS, make_video
from features.cache import FeatureCache
from features.checkpoints import bundled_path
from features.encoder import Encoder
from features.sequence import APPEARANCE, MOTION, FeatureSequence
from learning import dataset
from video.preprocessing import View
from video.reader import decode

STEPS = (1, 3, 5, 10, 20)  # annotations after which the never-seen videos are looked at
FOOTAGE_STEPS = (3, 0.6)  # annotations, and the share of all clips
FOOTAGE = "footage"  # the name of the project of real clips
CACHE_SIZE = 10**11
BATCH_SIZE = 16


class Example:
    """One video: its features, extracted when they are first asked for, and its labels.

    Attributes:
        labels: [num_frames, num_labels] in {0, 1}.
    """

    def __init__(self, video: Path, labels: np.ndarray) -> None:
        self.video, self.labels = video, labels

    @cached_property
    def square(self) -> np.ndarray:
        """[num_frames, feature_dim] float32: the published way's features, of the crop that the encoder comes with."""
        path = DATA / "features" / "square" / f"{self.video.stem}.npy"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            frames = list(decode(self.video))
            batches = [frames[start : start + BATCH_SIZE] for start in range(0, len(frames), BATCH_SIZE)]
            features = [encoder().features(encoder().preprocess(batch, View.CROP)) for batch in batches]
            np.save(path, np.concatenate(features))
        return np.load(path)

    @cached_property
    def sequence(self) -> FeatureSequence:
        """What a trainable tag's classifier reads."""
        return FeatureSequence(FeatureCache(DATA / "cache", CACHE_SIZE).get(encoder(), self.video))

    @cached_property
    def ours(self) -> np.ndarray:
        """[num_frames, width] float32: all of it."""
        return np.asarray(self.sequence)

    @cached_property
    def whole(self) -> np.ndarray:
        """[num_frames, feature_dim + motion_size] float32: appearance and motion alone."""
        ends = np.cumsum(list(self.sequence.layout.values()))
        parts = dict(zip(self.sequence.layout, np.split(self.ours, ends[:-1], axis=1), strict=True))
        return np.concatenate([parts[APPEARANCE], parts[MOTION]], axis=1)

    @property
    def whole_layout(self) -> dict[str, int]:
        """Of `whole`."""
        return {name: self.sequence.layout[name] for name in (APPEARANCE, MOTION)}

    @cached_property
    def frame_rate(self) -> float:
        """Frames per second."""
        return FeatureCache(DATA / "cache", CACHE_SIZE).get(encoder(), self.video).frame_rate

    def annotated(self, number: int) -> dataset.Example:
        """What a classifier learns of it, as the task of this number."""
        return dataset.Example(number, self.ours, self.labels, frame_rate=self.frame_rate)


class Project(NamedTuple):
    """A labeling task with a seed.

    Attributes:
        labels: their names.
        examples: the videos, in the order of annotation.
        num_annotated: how many are annotated at most; the others are never seen. None: whatever isn't annotated yet.
        steps: numbers of annotations.
    """

    labels: Sequence[str]
    examples: list[Example]
    num_annotated: int | None
    steps: tuple[int, ...]

    def unseen(self, count: int) -> list[Example]:
        """The videos to predict after `count` annotations."""
        return self.examples[count if self.num_annotated is None else self.num_annotated :]


@cache
def encoder() -> Encoder:
    """The bundled one. Not `get_encoder`: with a network, it would fetch another."""
    return Encoder(bundled_path(), torch.device("cpu"), "bf16", is_fallback=True)


def project(name: str, seed: int, footage: Path | None) -> Project:
    """A scenario's videos, or the real clips in `footage`, shuffled by the seed."""
    videos, labels, names = _clips(footage, seed) if name == FOOTAGE else _drawn(name, seed)
    examples = [Example(video, truth) for video, truth in zip(videos, labels, strict=True)]
    if name == FOOTAGE:
        few, share = FOOTAGE_STEPS
        return Project(names, examples, None, (few, max(few + 1, round(share * len(examples)))))
    return Project(names, examples, ANNOTATED, STEPS)


def _drawn(scenario: str, seed: int) -> tuple[list[Path], list[np.ndarray], Sequence[str]]:
    videos = [DATA / "videos" / f"{scenario}-{seed}-{number}.mp4" for number in range(ANNOTATED + UNSEEN)]
    for number, video in enumerate(videos):
        if not video.with_suffix(".npy").exists():
            np.save(video.with_suffix(".npy"), make_video(scenario, seed, number, video))
    return videos, [np.load(video.with_suffix(".npy")) for video in videos], SCENARIOS[scenario].labels


def _clips(folder: Path, seed: int) -> tuple[list[Path], list[np.ndarray], Sequence[str]]:
    videos = sorted(folder.glob("*.mp4"))
    described = [json.loads(video.with_suffix(".json").read_text()) for video in videos]
    names = sorted({name for clip in described for name in clip["ranges"]})
    labels = []
    for clip in described:
        truth = np.zeros((clip["frames"], len(names)), np.uint8)
        for column, name in enumerate(names):
            for first, last in clip["ranges"].get(name, []):
                truth[first - 1 : last, column] = 1
        labels.append(truth)
    order = np.random.default_rng(seed).permutation(len(videos))
    return [videos[index] for index in order], [labels[index] for index in order], names
