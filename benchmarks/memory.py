"""How much memory a long video takes: its extraction, a training on it, its prediction; and how much disk.

    python -m benchmarks.memory [--minutes 120] [--only extraction training prediction] [--json FILE]
    python -m benchmarks.memory --against CHECKOUT   beside another commit, checked out there

Data: a video of 25 frames a second, of small noisy pictures, for the extraction, with a network of random weights that
is quick; random features of dim 1280, and three short videos beside them for training and prediction.
Rule: peak resident memory of a process of its own that does the one thing, and of that what isn't a file's pages, which
the kernel may drop at any moment (`RssAnon`); both less what the process took before it began. The size of the features
is that of their rows as they are cached.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import Any

import numpy as np

from features.encoder import Encoder, get_encoder
from features.extraction import rows
from features.motion import MOTION_SIZE
from tests.checkpoints import write_checkpoint
from tests.videos import write_video
from video.preprocessing import View

FRAME_RATE = 25
FEATURE_DIM = 1280
BLOCK = 10_000  # rows that are written at once
PROJECT = Path(__file__).parent.parent

# What every process begins with: `measure(act)` prints what `act` adds to the peak, in bytes.
MEASURE = """
    import sys, threading, time
    from pathlib import Path
    import numpy as np

    def resident():
        lines = dict(line.split(":") for line in open("/proc/self/status"))
        return [1024 * int(lines[name].split()[0]) for name in ("VmRSS", "RssAnon")]

    def measure(act):
        before, peak, done = resident(), [0, 0], threading.Event()
        def watch():
            while not done.wait(0.005):
                peak[:] = map(max, peak, resident())
        watcher = threading.Thread(target=watch)
        watcher.start()
        start = time.perf_counter()
        act()
        done.set()
        watcher.join()
        print("RESULT", *(b - a for a, b in zip(before, peak)), time.perf_counter() - start)
"""
EXTRACTION = """
    try:
        from features.cache import FeatureCache
        from features.encoder import get_encoder
    except ImportError:  # before features/ was a package of its own
        from utils.encoder import get_encoder
        from utils.features import FeatureCache
    folder = Path(sys.argv[1])
    encoder = get_encoder("model.pt", model_root=folder)
    encoder.feature_dim
    measure(lambda: FeatureCache(folder / "cache", 10**11).get(encoder, folder / "video.mkv"))
"""
CLASSIFIER = """
    from utils.neural_nets import MultiLabelLSTM
    folder = Path(sys.argv[1])
    try:
        from features.extraction import VideoFeatures
        from features.sequence import FeatureSequence
        features, motion = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("features", "motion"))
        times = np.arange(len(features)) / 25
        video = VideoFeatures(times, len(features) / 25, 25.0, 0, False, "", features, motion)
        sequence = FeatureSequence(video)
    except ImportError:
        sequence = np.load(folder / "features32.npy", mmap_mode="r")
    rng = np.random.default_rng(0)
    short = [rng.random((500, sequence.shape[1]), np.float32) for _ in range(3)]
    labels = [rng.random((len(rows), 3)) < 0.1 for rows in [*short, sequence]]
    model = MultiLabelLSTM(sequence.shape[1], 3)
"""
TRAINING = CLASSIFIER + "    measure(lambda: model.partial_fit([*short, sequence], labels))\n"
PREDICTION = (
    CLASSIFIER
    + """
    model.partial_fit(short, labels[:3])
    measure(lambda: model.predict(sequence))
"""
)
PROGRAMS = {"extraction": EXTRACTION, "training": TRAINING, "prediction": PREDICTION}


def make_data(folder: Path, minutes: float, parts: list[str], earlier: bool) -> None:
    """The video and the network, or the features of a video as long; for an earlier commit also in 32 bits."""
    num_frames = round(60 * minutes * FRAME_RATE)
    rng = np.random.default_rng(0)
    if "extraction" in parts:
        write_checkpoint(folder / "model.pt", image_size=32)
        noise = rng.integers(0, 256, (64, 48, 64, 3), np.uint8)
        write_video(folder / "video.mkv", lambda index: noise[index % 64], num_frames, size=(64, 48), codec="mpeg4")
    if {"training", "prediction"} & set(parts):
        write_rows(folder / "features.npy", num_frames, FEATURE_DIM, np.float16, rng)
        write_rows(folder / "motion.npy", num_frames, MOTION_SIZE, np.float16, rng)
        if earlier:
            write_rows(folder / "features32.npy", num_frames, FEATURE_DIM, np.float32, rng)


def write_rows(path: Path, count: int, width: int, dtype: type, rng: np.random.Generator) -> None:
    """Random values [count, width] in a file."""
    array = np.lib.format.open_memmap(path, "w+", dtype, (count, width))
    for start in range(0, count, BLOCK):
        array[start : start + BLOCK] = rng.random((min(BLOCK, count - start), width), np.float32)
    array.flush()


def measured(part: str, folder: Path, checkout: Path) -> dict[str, float]:
    """What one process of a checkout takes, in bytes and seconds."""
    command = [sys.executable, "-c", textwrap.dedent(MEASURE) + textwrap.dedent(PROGRAMS[part]), str(folder)]
    answer = subprocess.run(command, cwd=checkout, check=True, capture_output=True, text=True).stdout
    line = next(line for line in answer.splitlines() if line.startswith("RESULT"))
    return dict(zip(("peak", "anonymous", "seconds"), map(float, line.split()[1:]), strict=True))


def bytes_per_hour(encoder: Encoder) -> dict[str, int]:
    """What the cache holds of an hour, for each view."""
    frames = 3600 * FRAME_RATE
    return {view.value: frames * sum(row.nbytes for row in rows(encoder, view).values()) for view in View}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--only", nargs="+", choices=PROGRAMS, default=list(PROGRAMS))
    parser.add_argument("--against", type=Path, help="a checkout of another commit")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    checkouts = {"here": PROJECT} | ({"there": arguments.against.resolve()} if arguments.against else {})
    figures: dict[str, Any] = {"minutes": arguments.minutes}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_data(folder, arguments.minutes, arguments.only, "there" in checkouts)
        write_checkpoint(folder / "default.pt")
        figures["cache bytes an hour"] = bytes_per_hour(get_encoder("default.pt", model_root=folder))
        size = 60 * arguments.minutes * FRAME_RATE * 2 * (FEATURE_DIM + MOTION_SIZE)
        print(f"Cached, an hour: {figures['cache bytes an hour']}. Features of this video: {size / 1e6:.0f} MB.\n")
        print("| | | peak MB | times the features | without files' pages | seconds |\n" + "| --- " * 6 + "|")
        for part in arguments.only:
            for where, checkout in checkouts.items():
                figures[f"{part} {where}"] = row = measured(part, folder, checkout)
                shares = [f"{row[key] / size:.2f}" for key in ("peak", "anonymous")]
                print(
                    f"| {part} | {where} | {row['peak'] / 1e6:.0f} | {shares[0]} | {shares[1]} | {row['seconds']:.0f} |"
                )
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
