"""How fast a video becomes features, beside Ultralytics' own prediction with a hook on the last layer.

    python -m benchmarks.extraction [--weights FILE] [--repeats 5] [--only speed sound memory cache f1] [--json FILE]
    python -m benchmarks.extraction --against CHECKOUT   beside the extraction of another commit, checked out there

Data, rule and results: benchmarks/README.md.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import joblib
import numpy as np
import torch

from benchmarks.videos.footage import ANNOTATED, DATA, UNSEEN, clip_file
from benchmarks.videos.scenarios import SCENARIOS, make_video
from features.cache import FeatureCache, extract
from features.checkpoints import bundled_path, import_ultralytics
from features.encoder import Encoder, get_encoder
from features.extraction import open_video
from learning.metrics import count_frames, macro_f1
from tests.checkpoints import cosine, write_checkpoint
from tests.videos import write_video
from utils.neural_nets import MultiLabelLSTM
from video.preprocessing import View

SECONDS = 20  # of each video that is timed
F1_SEEDS = 6
F1_SCENARIOS = ("street", "kitchen", "broadcast")
SOUND_RATE, SOUND_BLOCK = 48000, 1024  # samples a second, and of a frame of AAC
PROJECT = Path(__file__).parent.parent
Footage = dict[str, Path]
Figures = dict[str, Any]


# --- data


def footage() -> Footage:
    """The videos that are timed: name -> file."""
    bikes = looped(source("bikes.mp4", (640, 272)), DATA / "extraction" / "640x272.mp4", SECONDS)
    bunny = source("bigbuckbunny.mp4", (1280, 720))
    large = DATA / "extraction" / "1080p-once.mp4"
    if not large.exists():
        enlarge(bunny, large, (1920, 1080))
    return {
        "640×272": bikes,
        "1280×720": looped(bunny, DATA / "extraction" / "720p.mp4", SECONDS),
        "1920×1080": looped(large, DATA / "extraction" / "1080p.mp4", SECONDS),
    }


def source(name: str, size: tuple[int, int]) -> Path:
    """A real clip; drawn footage where it can't be fetched."""
    try:
        return clip_file(name)
    except subprocess.CalledProcessError:
        print(f"{name} can't be fetched: drawing footage in its place.")
        drawn = DATA / "extraction" / f"drawn-{name}"
        drawn.parent.mkdir(parents=True, exist_ok=True)
        texture = np.random.default_rng(0).integers(0, 256, (size[1] // 8 + 40, size[0] // 8 + 40, 3), np.uint8)
        texture = texture.repeat(8, 0).repeat(8, 1)

        def picture(index: int) -> np.ndarray:
            return texture[index : index + size[1], 2 * (index % 150) :][:, : size[0]]

        return write_video(drawn, picture, 250, size=size)


def enlarge(source: Path, target: Path, size: tuple[int, int]) -> None:
    """Encodes a video again in another size."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(source)) as container:
        pictures = [
            frame.reformat(*size, format="rgb24", interpolation="BICUBIC").to_ndarray()
            for frame in container.decode(video=0)
        ]
    write_video(
        target, lambda index: pictures[index], len(pictures), size=size, options={"preset": "veryfast", "crf": "20"}
    )


def looped(source: Path, target: Path, seconds: float) -> Path:
    """Repeats a video without encoding it again; returns the target."""
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(source)) as given:
        stream = given.streams.video[0]
        packets = [packet for packet in given.demux(stream) if packet.size]
        length = max(packet.pts + packet.duration for packet in packets) - min(packet.pts for packet in packets)
        data = [(bytes(packet), packet.pts, packet.dts, packet.is_keyframe) for packet in packets]
        with av.open(str(target), "w") as container:
            output = container.add_stream_from_template(stream)
            for loop in range(round(seconds / float(length * stream.time_base))):
                for content, pts, dts, is_keyframe in data:
                    packet = av.Packet(content)
                    packet.stream, packet.time_base, packet.is_keyframe = (
                        output,
                        Fraction(stream.time_base),
                        is_keyframe,
                    )
                    packet.pts, packet.dts = pts + loop * length, dts + loop * length
                    container.mux(packet)
    return target


def with_sound(source: Path, target: Path, seconds: float) -> Path:
    """Adds a track of noise (AAC, stereo, 48 kHz) without encoding the pictures again; returns the target."""
    if target.exists():
        return target
    random = np.random.default_rng(0)
    with av.open(str(source)) as given, av.open(str(target), "w") as container:
        stream = given.streams.video[0]
        output = container.add_stream_from_template(stream)
        track = container.add_stream("aac", rate=SOUND_RATE, layout="stereo")
        for packet in given.demux(stream):
            if packet.size:
                packet.stream = output
                container.mux(packet)
        for position in range(0, round(seconds * SOUND_RATE), SOUND_BLOCK):
            noise = random.uniform(-0.3, 0.3, (2, SOUND_BLOCK)).astype(np.float32)
            frame = av.AudioFrame.from_ndarray(noise, format="fltp", layout="stereo")
            frame.sample_rate, frame.pts, frame.time_base = SOUND_RATE, position, Fraction(1, SOUND_RATE)
            container.mux(track.encode(frame))
        container.mux(track.encode(None))
    return target


def weights(given: Path | None) -> Path:
    """The checkpoint that is timed: the given one, or yolov8n-cls with random weights."""
    if given is not None:
        return given.resolve()
    path = DATA / "extraction" / "models" / "yolov8n-cls-random.pt"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_checkpoint(path)
    return path


# --- what is timed


def plain(checkpoint: Path) -> Callable[[Path], tuple[np.ndarray, np.ndarray]]:
    """Ultralytics' own prediction, frame by frame, with a hook on the last layer; it is loaded before."""
    import_ultralytics()
    from ultralytics import YOLO

    yolo = YOLO(str(checkpoint))
    yolo.predict(np.zeros((64, 64, 3), np.uint8), verbose=False)
    head = yolo.predictor.model.model.model[-1]

    def run(video: Path) -> tuple[np.ndarray, np.ndarray]:
        features: list[np.ndarray] = []
        hook = head.linear.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0][0].cpu().numpy()))
        try:
            results = yolo.predict(str(video), stream=True, verbose=False)
            probs = [result.probs.data.cpu().numpy() for result in results]
        finally:
            hook.remove()
        return np.stack(features), np.stack(probs)

    return run


def decode_only(video: Path) -> int:
    """Decodes as the extraction does; returns the number of frames."""
    return sum(1 for _ in open_video(video))


@contextmanager
def forward_only(encoder: Encoder, video: Path) -> Iterator[Callable[[], int]]:
    """Gives a function that encodes prepared batches on all cores and returns the number of frames."""
    batches: list[torch.Tensor] = []
    frames = []
    for frame in open_video(video):
        frames.append(frame)
        if len(frames) == encoder.batch_size:
            batches.append(encoder.preprocess(frames, View.CROP))
            frames = []
    with ThreadPoolExecutor(
        joblib.cpu_count(), initializer=lambda: (torch.get_num_threads(), torch.set_num_threads(1))
    ) as pool:
        yield lambda: sum(map(len, pool.map(encoder.probabilities, batches)))


def cropped_features(encoder: Encoder, video: Path) -> np.ndarray:
    """The features of Ultralytics' own crop: [num_frames, feature_dim]."""
    return np.concatenate([encoder.features(encoder.preprocess([frame], View.CROP)) for frame in open_video(video)])


def timed(act: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and the result."""
    start = time.perf_counter()
    result = act()
    return time.perf_counter() - start, result


def speed(checkpoint: Path, repeats: int) -> Figures:
    """Frames per second of each way and agreement with Ultralytics, per video."""
    baseline = plain(checkpoint)
    encoders = {
        precision: get_encoder(checkpoint.name, model_root=checkpoint.parent, precision=precision)
        for precision in ("fp32", "auto")
    }
    figures = {}
    for name, video in footage().items():
        expected_features, expected_probs = baseline(video)
        frames = len(expected_features)
        seconds: dict[str, list[float]] = {
            key: [] for key in ("baseline", "fp32", "auto", "whole", "decode", "forward")
        }
        agreement = {}
        for key, encoder in encoders.items():  # also warms them up
            probs = extract(encoder, video, View.CROP).probs
            agreement[key] = {
                "cosine": float(cosine(cropped_features(encoder, video), expected_features).min()),
                "probability": float(np.abs(probs - expected_probs).max()),
            }
        with forward_only(encoders["auto"], video) as forward:
            for _ in range(repeats):
                seconds["baseline"].append(timed(lambda video=video: baseline(video))[0])
                for key, encoder in encoders.items():
                    seconds[key].append(
                        timed(lambda encoder=encoder, video=video: extract(encoder, video, View.CROP))[0]
                    )
                seconds["whole"].append(
                    timed(lambda encoder=encoders["auto"], video=video: extract(encoder, video, View.WHOLE))[0]
                )
                seconds["decode"].append(timed(lambda video=video: decode_only(video))[0])
                elapsed, encoded = timed(forward)
                seconds["forward"].append(elapsed * frames / encoded)
        rounds = {key: np.array(values) for key, values in seconds.items()}
        figures[name] = {
            "frames": frames,
            "fps": {key: float(frames / np.median(values)) for key, values in rounds.items()},
            "ratio": {key: float(np.median(rounds["baseline"] / rounds[key])) for key in (*encoders, "whole")},
            "ratios": {key: (rounds["baseline"] / rounds[key]).tolist() for key in (*encoders, "whole")},
            "agreement": agreement,
        }
        print(f"{name}: done", file=sys.stderr)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return {"device": device, "auto": encoders["auto"].precision, "videos": figures}


def sound(checkpoint: Path, repeats: int) -> Figures:
    """A trainable tag's extraction of each video without and with a track of sound, in turns."""
    encoder = get_encoder(checkpoint.name, model_root=checkpoint.parent)
    figures = {}
    for name, silent in footage().items():
        heard = with_sound(silent, silent.with_stem(f"{silent.stem}-heard"), SECONDS)
        frames = len(extract(encoder, silent, View.WHOLE).times)

        def seconds(video: Path) -> tuple[float, float]:
            """By the clock, and of the processor."""
            begun = time.process_time()
            return timed(lambda: extract(encoder, video, View.WHOLE))[0], time.process_time() - begun

        rounds = np.array([[seconds(video) for video in (silent, heard)] for _ in range(repeats)])
        figures[name] = {
            "fps": (frames / np.median(rounds[..., 0], axis=0)).tolist(),
            "ratios": (rounds[:, 0, 0] / rounds[:, 1, 0]).tolist(),
            "cpu_ratio": float(np.median(rounds[:, 0, 1] / rounds[:, 1, 1])),
        }
    return figures


def against(checkpoint: Path, checkout: Path, repeats: int) -> Figures:
    """Frames a second of the features' extraction, here and of another checkout, in turns; per video."""
    program = f"""
        import resource, sys, time
        from pathlib import Path
        try:
            from features.encoder import get_encoder
            from features.extraction import extract
        except ImportError:  # before features/ was a package of its own
            from utils.encoder import get_encoder
            from utils.features import extract
        encoder = get_encoder({checkpoint.name!r}, model_root=Path({str(checkpoint.parent)!r}))
        def cpu():
            used = resource.getrusage(resource.RUSAGE_SELF)
            return used.ru_utime + used.ru_stime
        for line in sys.stdin:
            start, start_cpu = time.perf_counter(), cpu()
            frames = len(extract(encoder, line.strip()).times)
            print(frames, time.perf_counter() - start, cpu() - start_cpu, flush=True)
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    figures = {}
    with (
        subprocess.Popen(command, cwd=PROJECT, **pipes) as here,
        subprocess.Popen(command, cwd=checkout, **pipes) as there,
    ):

        def measured(process: subprocess.Popen, video: Path) -> list[float]:
            print(video, file=process.stdin, flush=True)
            return [float(number) for number in process.stdout.readline().split()]

        for name, video in footage().items():
            rounds = np.array([[measured(process, video) for process in (here, there)] for _ in range(repeats + 1)])
            frames, seconds, cpu = rounds[1:].transpose(2, 0, 1)  # each [repeats, 2]; the first one warms up
            figures[name] = {
                "fps": np.median(frames / seconds, axis=0).tolist(),
                "ratio": float(np.median(seconds[:, 1] / seconds[:, 0])),
                "cpu_ratio": float(np.median(cpu[:, 1] / cpu[:, 0])),
            }
            print(f"{name}: done", file=sys.stderr)
    return figures


def memory(checkpoint: Path) -> Figures:
    """Peak memory in MB of a process that fills the cache with a video of one minute, and of ten."""
    bunny = source("bigbuckbunny.mp4", (1280, 720))
    program = f"""
        import resource, sys, tempfile
        from pathlib import Path
        from features.encoder import get_encoder
        from features.cache import FeatureCache
        encoder = get_encoder({checkpoint.name!r}, model_root=Path({str(checkpoint.parent)!r}))
        with tempfile.TemporaryDirectory() as folder:
            frames = len(FeatureCache(folder, 10**10).get(encoder, sys.argv[1]).times)
        print(frames, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    """
    figures = {}
    for minutes in (1, 10):
        video = looped(bunny, DATA / "extraction" / f"720p-{minutes}min.mp4", 60 * minutes)
        command = [sys.executable, "-c", textwrap.dedent(program), str(video)]
        answer = subprocess.run(command, cwd=PROJECT, check=True, capture_output=True, text=True).stdout
        frames, megabytes = answer.split()
        figures[f"{minutes} min"] = {"frames": int(frames), "MB": float(megabytes)}
    figures["ratio"] = figures["10 min"]["MB"] / figures["1 min"]["MB"]
    return figures


def warm_cache(checkpoint: Path) -> Figures:
    """Milliseconds until the features of 500 cached frames are in the model's hands."""
    encoder = get_encoder(checkpoint.name, model_root=checkpoint.parent)
    with tempfile.TemporaryDirectory() as folder:
        cache = FeatureCache(folder, 10**10)
        video = footage()["640×272"]
        frames = len(cache.get(encoder, video).times)
        milliseconds = [1000 * timed(lambda: np.array(cache.get(encoder, video).features))[0] for _ in range(200)]
    return {"frames": frames, "median": float(np.median(milliseconds)), "p99": float(np.percentile(milliseconds, 99))}


def classifier_f1() -> Figures:
    """Macro-F1 on never-seen videos of classifiers trained on features in fp32 and in bf16, of the bundled encoder.

    Per scenario the mean over networks with other seeds: a seed alone moves the score by up to 0.08.
    """
    cache = FeatureCache(DATA / "extraction" / "cache", 10**10)
    scores: dict[str, dict[str, list[float]]] = {}
    for scenario in F1_SCENARIOS:
        folder = DATA / "extraction" / "f1"
        folder.mkdir(parents=True, exist_ok=True)
        videos = [folder / f"{scenario}-{number}.mp4" for number in range(ANNOTATED + UNSEEN)]
        labels = [make_video(scenario, 0, number, video) for number, video in enumerate(videos)]
        truth, names = np.concatenate(labels[ANNOTATED:]), SCENARIOS[scenario].labels
        scores[scenario] = {}
        for precision in ("fp32", "bf16"):
            encoder = Encoder(bundled_path(), torch.device("cpu"), precision, is_fallback=True)
            features = [cache.get(encoder, video).features for video in videos]
            predictions = []
            for seed in range(F1_SEEDS):
                model = MultiLabelLSTM(encoder.feature_dim, len(names), seed=seed)
                model.partial_fit(features[:ANNOTATED], labels[:ANNOTATED])
                predictions.append(np.concatenate([model.predict(rows) for rows in features[ANNOTATED:]]) >= 0.5)
            scores[scenario][precision] = [macro_f1(count_frames(truth, rows)) for rows in predictions]
        print(f"{scenario}: done", file=sys.stderr)
    return scores


# --- report


def report(figures: Figures) -> list[str]:
    """Markdown tables of what was measured."""
    lines = []
    if "speed" in figures:
        auto = figures["speed"]["auto"]
        columns = [f"video, {figures['speed']['device']}", "Ultralytics", "fp32", "ratio", f"auto ({auto})", "ratio"]
        columns += ["a trainable tag's features", "ratio", "decode alone"]
        columns += [f"forward alone ({auto})", "cosine fp32", "probability fp32", f"cosine {auto}"]
        lines += [f"| {' | '.join(columns)} |", "|" + " --- |" * len(columns)]
        for name, row in figures["speed"]["videos"].items():
            fps, ratio, agreement = row["fps"], row["ratio"], row["agreement"]
            cells = [name, f"{fps['baseline']:.0f}", f"{fps['fp32']:.0f}", f"{ratio['fp32']:.2f}", f"{fps['auto']:.0f}"]
            cells += [f"{ratio['auto']:.2f}", f"{fps['whole']:.0f}", f"{ratio['whole']:.2f}"]
            cells += [f"{fps['decode']:.0f}", f"{fps['forward']:.0f}"]
            cells += [f"{agreement['fp32']['cosine']:.6f}", f"{agreement['fp32']['probability']:.1e}"]
            lines.append(f"| {' | '.join([*cells, format(agreement['auto']['cosine'], '.5f')])} |")
    if "against" in figures:
        lines += ["| video | here | there | ratio | ratio of CPU time |", "|" + " --- |" * 5]
        for name, row in figures["against"].items():
            here, there = row["fps"]
            lines.append(f"| {name} | {here:.0f} | {there:.0f} | {row['ratio']:.3f} | {row['cpu_ratio']:.3f} |")
    if "sound" in figures:
        lines += ["| video | without sound | with sound | ratio | ratio of CPU time |", "|" + " --- |" * 5]
        for name, row in figures["sound"].items():
            without, with_it = row["fps"]
            ratio = np.median(row["ratios"])
            lines.append(f"| {name} | {without:.0f} | {with_it:.0f} | {ratio:.3f} | {row['cpu_ratio']:.3f} |")
    if "memory" in figures:
        one, ten, ratio = (figures["memory"][key] for key in ("1 min", "10 min", "ratio"))
        lines.append(
            f"\nPeak memory, 720p: {one['MB']:.0f} MB for 1 minute, {ten['MB']:.0f} MB for 10: {ratio:.2f} times."
        )
    if "cache" in figures:
        lines.append(
            "\nWarm cache, {frames} frames: median {median:.2f} ms, p99 {p99:.2f} ms.".format(**figures["cache"])
        )
    if "f1" in figures:
        lines += ["", "| Macro-F1 | fp32 | bf16 |", "| --- | --- | --- |"]
        means = {scenario: [np.mean(row["fp32"]), np.mean(row["bf16"])] for scenario, row in figures["f1"].items()}
        means["**mean**"] = list(np.mean(list(means.values()), axis=0))
        lines += [f"| {scenario} | {fp32:.4f} | {bf16:.4f} |" for scenario, (fp32, bf16) in means.items()]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = ("speed", "sound", "memory", "cache", "f1")
    parser.add_argument("--weights", type=Path, help="an Ultralytics classifier; by default one with random weights")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=parts, default=parts)
    parser.add_argument("--against", type=Path, help="time the features' extraction here and in this checkout only")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    checkpoint = weights(arguments.weights)
    measures = {
        "speed": lambda: speed(checkpoint, arguments.repeats),
        "sound": lambda: sound(checkpoint, arguments.repeats),
        "memory": lambda: memory(checkpoint),
        "cache": lambda: warm_cache(checkpoint),
        "f1": classifier_f1,
    }
    figures: Figures = {
        "machine": {"cores": joblib.cpu_count(), "processor": platform.processor(), "load": os.getloadavg()[0]},
        "weights": checkpoint.name,
    }
    if arguments.against:
        figures["against"] = against(checkpoint, arguments.against.resolve(), arguments.repeats)
    for part in () if arguments.against else arguments.only:
        figures[part] = measures[part]()
    print("\n".join(report(figures)))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
