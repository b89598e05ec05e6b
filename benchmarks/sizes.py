"""Projects of all sizes: a rare label in two hours, half-reviewed videos, a thousand short ones.

    python -m benchmarks.sizes

Features are synthetic: noise over a scene of each video, to which a label adds a direction. F1 by frame is that of a
new video. Results: benchmarks/fewshot.md.
"""

import argparse
import resource
import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from learning.dataset import FRAME_RATE, Example
from utils.neural_nets import MultiLabelLSTM

LAYOUT = {"appearance": 1280, "cells": 6 * 8 * 72, "motion": 11}
PERIOD = 512  # frames after which the noise repeats
OPEN_FILES = 256


class Video:
    """Features that are made when they are read.

    Attributes:
        labels: [num_frames, 1] in {0, 1}.
    """

    def __init__(self, number: int, num_frames: int, events: int, length: int) -> None:
        random = np.random.default_rng(number)
        self.content, self.layout, self.shape = str(number), LAYOUT, (num_frames, sum(LAYOUT.values()))
        self.labels = np.zeros((num_frames, 1), np.uint8)
        for part in range(events):
            start = part * num_frames // events + random.integers(max(1, num_frames // events - length))
            self.labels[start : start + length] = 1
        self._scene = random.normal(size=self.shape[1]).astype(np.float32)
        self._noise = random.normal(size=(PERIOD, 1)).astype(np.float32)

    def __getitem__(self, frames: slice) -> np.ndarray:
        index = np.arange(*frames.indices(self.shape[0]))
        direction = np.random.default_rng(99).normal(size=self.shape[1]).astype(np.float32)
        noise = self._noise[index % PERIOD] * np.roll(self._scene, 1)
        return self._scene + noise + self.labels[index] * direction


class Case(NamedTuple):
    """What is annotated, which frames of it (a share from the start), and a video that is new."""

    name: str
    videos: list[Video]
    reviewed: float
    new: Video


def cases(hours: float) -> Iterator[Case]:
    long = round(hours * 3600 * FRAME_RATE)
    yield Case(f"{hours:g} hours, 4 events of 15 frames", [Video(0, long, 4, 15)], 1.0, Video(0, 15_000, 4, 15))
    yield Case("2 videos, half reviewed", [Video(n, 462, 4, 40) for n in range(2)], 0.5, Video(9, 462, 4, 40))
    yield Case("1000 videos of 4 s", [Video(n, 100, 1, 20) for n in range(1000)], 1.0, Video(1001, 100, 1, 20))
    yield Case("20 videos of 300 frames", [Video(n, 300, 2, 40) for n in range(20)], 1.0, Video(1001, 300, 2, 40))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=2.0)
    arguments = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES))
    print("| annotated | F1 of a new video | training, seconds of a core | peak MB so far |\n| --- | --- | --- | --- |")
    for case in cases(arguments.hours):
        model = MultiLabelLSTM(sum(LAYOUT.values()), 1, layout=LAYOUT)
        started = time.process_time()
        model.fit(
            [
                Example(
                    number, video, video.labels, reviewed=np.arange(video.shape[0]) < case.reviewed * video.shape[0]
                )
                for number, video in enumerate(case.videos)
            ]
        )
        seconds = time.process_time() - started
        truth, found = case.new.labels > 0, model.decisions.labels(model.predict(case.new))
        f1 = 2 * (truth & found).sum() / (truth.sum() + found.sum())
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"| {case.name} | {f1:.2f} | {seconds:.1f} | {peak:.0f} |", flush=True)


if __name__ == "__main__":
    main()
