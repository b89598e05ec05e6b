"""The demo's sample videos, and what the demo says when it can't go on. What it shows is tested in tests/live."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import av
import numpy as np
import pytest

from demo import football
from tests.servers import ROOT, free_port, mount

# Pixels of the pictures' noise and H.264's traces never differ by this much from the still scene; the ball's do.
DIFFERENT = 60
# The ball covers some 1800 pixels where it is wholly in the picture.
MANY_PIXELS = 400
# Around its way in or out, the ball is partly there.
EDGE_FRAMES = 6


@pytest.mark.parametrize("number", [0, 2, 5])
def test_timelines_say_what_the_pictures_show(number: int, tmp_path: Path) -> None:
    path = tmp_path / "video.mp4"
    timeline = football.write_video(number, path)
    with av.open(str(path)) as container:
        pictures = np.stack([frame.to_ndarray(format="gray") for frame in container.decode(video=0)])
    assert 200 <= len(pictures) <= 250
    still = np.median(pictures[:15], axis=0)
    changed = (np.abs(pictures - still) > DIFFERENT).sum(axis=(1, 2))
    in_frame = np.zeros(len(pictures), bool)
    for start, end in timeline[football.IN_FRAME]:
        in_frame[start - 1 : end] = True
        assert (changed[start - 1 + EDGE_FRAMES : end - EDGE_FRAMES] > MANY_PIXELS).all()
    near = np.convolve(in_frame, np.ones(2 * EDGE_FRAMES + 1), "same") > 0
    assert (changed[~near] < MANY_PIXELS).all()
    assert timeline[football.TOUCH]
    for start, end in timeline[football.TOUCH]:
        assert in_frame[start - 1 : end].all()


def test_the_same_number_is_the_same_video(tmp_path: Path) -> None:
    first, second = tmp_path / "first.mp4", tmp_path / "second.mp4"
    assert football.write_video(1, first) == football.write_video(1, second)
    assert first.read_bytes() == second.read_bytes()


def run_demo(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    ports = {"LABEL_STUDIO_PORT": str(free_port()), "PORT": str(free_port()), "DEMO_DATA": str(folder)}
    environment = dict(os.environ) | ports | variables
    return subprocess.run(
        [sys.executable, "-m", "demo", *arguments], env=environment, cwd=ROOT, capture_output=True, text=True
    )


def test_a_taken_port_is_a_sentence(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ended = run_demo(tmp_path / "data", PORT=str(port))
    assert ended.returncode == 1
    assert f"Port {port} is taken" in ended.stdout
    assert f"make demo PORT={port + 1}" in ended.stdout
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "data").exists()


def test_submit_without_a_running_demo_is_a_sentence(tmp_path: Path) -> None:
    ended = run_demo(tmp_path / "data", "submit")
    assert ended.returncode == 1
    assert "Start it in another terminal: make demo" in ended.stdout
    assert "Traceback" not in ended.stderr


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of its own, which is full."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount("-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder))
    with suppress(OSError), (folder / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.skipif(
    not (ROOT / ".label-studio" / "bin" / "label-studio").exists(),
    reason="Label Studio isn't installed here: make test-all installs it",
)
def test_a_full_disk_is_a_sentence(full_disk: Path) -> None:
    for folder in (full_disk, full_disk / "new"):
        ended = run_demo(folder)
        assert ended.returncode == 1
        assert "0 MB left" in ended.stdout or "No space left on device" in ended.stdout
        assert "make demo DEMO_DATA=" in ended.stdout
        assert "Traceback" not in ended.stderr
