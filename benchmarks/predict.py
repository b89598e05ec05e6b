"""Time to answer `/predict` over HTTP for a video whose features are cached.

The backend runs as `make run` starts it. Beside it, the same prediction the plain way in this process, without HTTP:
the features read whole from a pickle, the classifier read from its file, one window after the other through the LSTM.
`/health` is the floor of HTTP.

    python -m benchmarks.predict [--requests 300] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np

from features.cache import FeatureCache
from features.encoder import get_encoder
from features.sequence import FeatureSequence
from tests.servers import Backend, annotation, region
from tests.videos import write_video
from utils.converter import convert_probs_to_timelinelabels
from utils.neural_nets import MultiLabelLSTM

NUM_FRAMES = 500
CONFIG = (
    '<View><TimelineLabels name="tl" toName="video" model_trainable="true" model_classifier_epochs="20">'
    '<Label value="A"/><Label value="B"/></TimelineLabels><Video name="video" value="$video" frameRate="25"/></View>'
)


def picture(frame: int) -> np.ndarray:
    image = np.full((240, 320, 3), 90, np.uint8)
    image[60:180, 60:200] = (200, 40, 40) if frame // 60 % 2 else (60, 90, 160)
    return image


def milliseconds(act: Callable[[], Any], times: int) -> np.ndarray:
    """[times] durations of `act`."""
    durations = []
    for _ in range(times):
        started = time.perf_counter()
        act()
        durations.append(1000 * (time.perf_counter() - started))
    return np.array(durations)


def plain_prediction(features: Path, classifier: Path) -> list[dict[str, Any]]:
    """The prediction with nothing kept between two requests, window by window."""
    model = MultiLabelLSTM.load(classifier)
    windows, _ = model.preprocess_sequence(joblib.load(features), overlap=0)
    probs = [model.predict(window) for window in windows]
    return convert_probs_to_timelinelabels(np.concatenate(probs)[:NUM_FRAMES], model.get_label_map(), "tl")


def measure(folder: Path, requests: int) -> dict[str, dict[str, float]]:
    """Starts the backend, trains it on one video, and times it: name -> {median, p99} in milliseconds."""
    backend = Backend(folder).start()
    try:
        backend.wait_for_worker()
        video = write_video(backend.videos / "cached.mp4", picture, NUM_FRAMES)
        task = {"id": 1, "data": {"video": str(video)}}
        backend.setup(CONFIG)
        drawn = annotation(1, region(61, 120, "A"), region(181, 240, "B"))
        status = backend.wait_for_job(backend.annotate(CONFIG, task, drawn).json()["job"])
        assert status["job_status"] == "finished", status

        def predict() -> None:
            assert backend.predict(CONFIG, task).status_code == 200

        milliseconds(predict, 10)
        durations = {
            "/predict": milliseconds(predict, requests),
            "/health": milliseconds(backend.health, requests),
        }
        encoder = get_encoder(None, model_root=folder / "models")
        cache = FeatureCache(folder / "cache", 10**10)
        durations["features in the model's hands"] = milliseconds(
            lambda: cache.get(encoder, video).features.sum(dtype=np.float32), requests
        )
        features = folder / "features.pickle"
        joblib.dump(np.asarray(FeatureSequence(cache.get(encoder, video))), features)
        (classifier,) = (folder / "models").glob("*.safetensors")
        durations["the plain way, without HTTP"] = milliseconds(
            lambda: plain_prediction(features, classifier), requests
        )
    finally:
        backend.stop()
    return {
        name: {"median": float(np.median(values)), "p99": float(np.percentile(values, 99))}
        for name, values in durations.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), arguments.requests)
    print(f"{NUM_FRAMES} frames, {arguments.requests} requests, milliseconds")
    print("| | median | p99 |\n| --- | --- | --- |")
    for name, row in figures.items():
        print(f"| {name} | {row['median']:.1f} | {row['p99']:.1f} |")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
