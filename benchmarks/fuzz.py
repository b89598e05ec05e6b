"""Damaged videos through a running backend: downloaded, decoded, encoded and cached by its worker.

    python -m benchmarks.fuzz --mutants 500 --seed 1

Small good videos of eleven containers are changed at random (seeded), and hand-made ones are added: a file that
declares hours of pictures, 100,000 tiny pictures, pictures of 8K. An HTTP server of this machine serves them; the
backend predicts them all. Printed: how many were predicted and refused, how often the worker was started, the largest
memory of its process, the size of the cache beside its limit, and how long `/health` took at most.
"""

from __future__ import annotations

import argparse
import http.server
import random
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import httpx
import numpy as np

from features.cache_folder import usage
from tests.servers import Backend, wait_until

CONTAINERS = {
    "a.mp4": ("libx264", "yuv420p"),
    "b.webm": ("libvpx-vp9", "yuv420p"),
    "c.avi": ("mjpeg", "yuvj420p"),
    "d.mkv": ("libx265", "yuv420p"),
    "e.ts": ("mpeg2video", "yuv420p"),
    "f.mov": ("prores_ks", "yuv422p10le"),
    "g.avi": ("mpeg4", "yuv420p"),
    "h.flv": ("flv", "yuv420p"),
    "i.asf": ("wmv2", "yuv420p"),
    "j.m4v": ("mpeg4", "yuv420p"),
    "k.mpg": ("mpeg1video", "yuv420p"),
}
PICTURES, SIZE = 12, (96, 64)
BATCH = 25  # tasks in a request
CACHE_LIMIT = 10**9  # room for the 100,000 pictures
CONFIG = (
    '<View><Video name="video" value="$video" frameRate="25"/><TimelineLabels name="tl" toName="video">'
    '<Label value="Fish" predicted_values="tench"/></TimelineLabels></View>'
)


def write(path: Path, codec: str, pixels: str, times: list[int], size: tuple[int, int], unit: Fraction) -> None:
    """A video of grey pictures, each at a time that counts units of seconds."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = *size, pixels
        stream.codec_context.time_base = unit
        if codec == "libx265":
            stream.options = {"x265-params": "log-level=none"}
        for number, moment in enumerate(times):
            picture = np.full((size[1], size[0], 3), 9 * number % 256, np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = moment, unit
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def mutants(folder: Path, count: int, seed: int) -> Iterator[Path]:
    """Changed copies of a good video of each container."""
    rng = random.Random(seed)
    originals = []
    for name, (codec, pixels) in CONTAINERS.items():
        write(folder / name, codec, pixels, list(range(PICTURES)), SIZE, Fraction(1, 25))
        originals.append(folder / name)
    for number in range(count):
        original = originals[number % len(originals)]
        path = folder / f"{number}{original.suffix}"
        path.write_bytes(change(bytearray(original.read_bytes()), rng))
        yield path


def change(data: bytearray, rng: random.Random) -> bytes:
    """Data with flipped bits, a lost tail, other numbers in its head, or parts swapped, emptied or repeated."""
    size = len(data)
    start, length = rng.randrange(size), rng.choice([4, 64, 1024])
    match rng.choice(["bits", "tail", "head", "swap", "zero", "repeat"]):
        case "bits":
            for _ in range(rng.choice([1, 10, 200])):
                data[rng.randrange(size)] ^= 1 << rng.randrange(8)
        case "tail":
            del data[max(start, 1) :]
        case "head":
            for _ in range(rng.choice([1, 4])):
                place, width = rng.randrange(min(size, 2048) - 8), rng.choice([1, 2, 4, 8])
                value = rng.choice([0, 1, 2 ** (8 * width) - 1, 2 ** (8 * width - 1)])
                data[place : place + width] = value.to_bytes(width, rng.choice(["big", "little"]))
        case "swap":
            other = rng.randrange(size)
            data[start : start + length], data[other : other + length] = (
                data[other : other + length],
                data[start : start + length],
            )
        case "zero":
            data[start : start + length] = bytes(len(data[start : start + length]))
        case "repeat":
            data[start:start] = data[start : start + length] * 8
    return bytes(data)


def hand_made(folder: Path) -> list[Path]:
    """Videos that are larger than they look."""
    write(folder / "far.mkv", "libx264", "yuv420p", [0, 1000, 172_000_000], (64, 64), Fraction(1, 1000))
    write(folder / "many.mp4", "libx264", "yuv420p", list(range(100_000)), (16, 16), Fraction(1, 1000))
    write(folder / "large.mp4", "mjpeg", "yuvj420p", [0, 1, 2], (7680, 4320), Fraction(1, 25))
    return [folder / "far.mkv", folder / "many.mp4", folder / "large.mp4"]


class Watch:
    """Notes the worker's memory, its processes, and how long `/health` takes, once a second."""

    def __init__(self, backend: Backend) -> None:
        self.peak, self.slowest, self.workers = 0, 0.0, set()
        self._backend, self._over = backend, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._over.wait(1.0):
            started = time.monotonic()
            httpx.get(f"{self._backend.url}/health", timeout=60)
            self.slowest = max(self.slowest, time.monotonic() - started)
            try:
                pid = self._backend.worker_pid()
                status = Path(f"/proc/{pid}/status").read_text()
            except (OSError, ValueError, IndexError, subprocess.CalledProcessError):
                continue
            self.workers.add(pid)
            line = next((line for line in status.splitlines() if line.startswith("VmHWM")), "VmHWM: 0")
            self.peak = max(self.peak, int(line.split()[1]) // 1024)

    def stop(self) -> None:
        """Ends it."""
        self._over.set()
        self._thread.join()


def predicted(backend: Backend, tasks: list[tuple[int, str]], seconds: float) -> list[dict]:
    """The answers to a batch, once no video of it is being extracted any more."""
    body = [{"id": number, "data": {"video": url}} for number, url in tasks]
    answers: list[dict] = []

    def ended() -> bool:
        response = backend.predict(CONFIG, *body)
        if response.status_code == 503:
            return False
        answers[:] = response.json().get("results", [response.json()] * len(tasks))
        return not any("extracted" in answer.get("error", "") or "time for" in str(answer) for answer in answers)

    wait_until(ended, seconds, "the batch")
    return answers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutants", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "served").mkdir()
        handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(folder / "served"))
        http.server.SimpleHTTPRequestHandler.log_message = lambda *_: None
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        backend = Backend(folder / "backend", CACHE_SIZE_LIMIT=str(CACHE_LIMIT)).start()
        backend.wait_for_worker()
        backend.wait_for_encoder(CONFIG)
        watch = Watch(backend)
        paths = [*mutants(folder / "served", arguments.mutants, arguments.seed), *hand_made(folder / "served")]
        tasks = [(number, f"http://127.0.0.1:{server.server_port}/{path.name}") for number, path in enumerate(paths)]
        counts: Counter[str] = Counter()
        reasons: Counter[str] = Counter()
        try:
            for start in range(0, len(tasks), BATCH):
                for (_, url), answer in zip(
                    tasks[start : start + BATCH], predicted(backend, tasks[start : start + BATCH], 1200), strict=True
                ):
                    counts["predicted" if "result" in answer else "refused"] += 1
                    if "error" in answer:
                        reasons[answer["error"].replace(url.rpartition("/")[2], "…")[:60]] += 1
                print(f"{start + BATCH} of {len(tasks)}: {dict(counts)}", flush=True)
        finally:
            watch.stop()
            cached = usage(backend.folder / "cache")
            log = backend.log.read_text()
            backend.stop()
            server.shutdown()
    print(f"{len(tasks)} videos: {counts['predicted']} predicted, {counts['refused']} refused")
    print(*(f"  {count:4d} {reason}" for reason, count in reasons.most_common(8)), sep="\n")
    print(f"worker processes {len(watch.workers)}, its peak {watch.peak} MB, slowest /health {watch.slowest:.2f} s")
    print(f"cache {cached / 1e6:.0f} MB of {CACHE_LIMIT / 1e6:.0f}; tracebacks in the log: {log.count('Traceback')}")


if __name__ == "__main__":
    main()
