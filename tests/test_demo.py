"""The demo's sample videos, and what the demo says when it can't go on. What it shows is tested in tests/live."""

from __future__ import annotations

import io
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
from rich.console import Console

from demo import football
from demo.own_videos import OwnVideos
from demo.servers import DemoError
from features.cache_folder import CacheFolder
from ml_backend.context import Services
from ml_backend.label_studio.client import Connection
from ml_backend.label_studio.media import MediaFiles
from ml_backend.settings import Settings
from model import YOLO
from tests.http_server import Server
from tests.servers import NO_INTERNET, ROOT, free_port, mount
from tests.videos import write_video

# Pixels of the pictures' noise and H.264's traces never differ by this much from the still scene; the ball's do.
DIFFERENT = 60
# The ball covers some 1800 pixels where it is wholly in the picture.
MANY_PIXELS = 400
# Around its way in or out, the ball is partly there.
EDGE_FRAMES = 6


@pytest.mark.parametrize("number", [0, 2, 5])
def test_timelines_say_what_the_pictures_show_and_each_number_is_one_video(number: int, tmp_path: Path) -> None:
    path, again = tmp_path / "video.mp4", tmp_path / "again.mp4"
    timeline = football.write_video(number, path)
    if number == 2:  # one is enough
        assert football.write_video(number, again) == timeline
        assert again.read_bytes() == path.read_bytes()
    with av.open(str(path)) as container:
        pictures = [frame.to_ndarray(format="gray").astype(np.int16) for frame in container.decode(video=0)]
    assert 200 <= len(pictures) <= 250
    still = np.median(pictures[:15], axis=0).astype(np.int16)
    changed = np.array([(np.abs(picture - still) > DIFFERENT).sum() for picture in pictures])
    in_frame = np.zeros(len(pictures), bool)
    for start, end in timeline[football.IN_FRAME]:
        in_frame[start - 1 : end] = True
        assert (changed[start - 1 + EDGE_FRAMES : end - EDGE_FRAMES] > MANY_PIXELS).all()
    near = np.convolve(in_frame, np.ones(2 * EDGE_FRAMES + 1), "same") > 0
    assert (changed[~near] < MANY_PIXELS).all()
    assert timeline[football.TOUCH]
    for start, end in timeline[football.TOUCH]:
        assert in_frame[start - 1 : end].all()


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


def test_no_proxy_stands_between_the_demo_and_its_servers(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("a" * 40)
    (tmp_path / "annotations.json").write_text("{}")
    label_studio = Server()
    port = str(label_studio.http.server_port)
    run_demo(tmp_path, "submit", LABEL_STUDIO_PORT=port, HTTP_PROXY=NO_INTERNET, http_proxy=NO_INTERNET)
    assert [path for path, _ in label_studio.requests] == ["/api/projects/?page_size=1000"]


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


RED, BLUE = (200, 30, 30), (30, 30, 200)


def own_videos(folder: Path, labels: str | None = "Walking", data: Path | None = None) -> tuple[OwnVideos, str]:
    """The demo's project of a folder, and what it says meanwhile."""
    said = io.StringIO()
    console = Console(file=said, width=1000)
    return OwnVideos(str(folder), labels, data or folder.parent / "demo-data", console), said.getvalue()


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """A folder of videos that differ in their frame rates, names and folders, and of files that can't be annotated."""
    folder = tmp_path / "my clips"
    (folder / "sub").mkdir(parents=True)
    write_video(folder / "a b & 50%.mp4", [RED] * 5, size=(64, 48))
    write_video(folder / "sub" / "über 🚗.webm", [RED] * 12, rate=59.94, size=(64, 48), codec="libvpx-vp9")
    write_video(folder / "old.avi", [BLUE] * 5, size=(64, 48), codec="mpeg4")
    write_video(folder / "mpeg4.mp4", [BLUE] * 5, size=(64, 48), codec="mpeg4")
    write_video(folder / "slow.mp4", [BLUE] * 3, rate=0.5, size=(64, 48))
    (folder / "broken.mp4").write_bytes(b"no video")
    (folder / "._a b.mp4").write_bytes(b"of a Mac")
    (folder / "notes.txt").write_text("no video")
    (folder / os.fsdecode(b"b\xfc.mp4")).write_bytes((folder / "slow.mp4").read_bytes())
    return folder


def test_the_tasks_of_own_videos(clips: Path, settings: Settings) -> None:
    content, said = own_videos(clips, ' Walking,Standing & <co>, "q",,Walking ')
    assert content.tasks == [
        {"video": "/data/local-files/?d=my%20clips/a%20b%20%26%2050%25.mp4", "fps": 25, "name": "a b & 50%.mp4"},
        {"video": "/data/local-files/?d=my%20clips/slow.mp4", "fps": 25, "name": "slow.mp4"},
        {
            "video": "/data/local-files/?d=my%20clips/sub/%C3%BCber%20%F0%9F%9A%97.webm",
            "fps": 59.94,
            "name": "sub/über 🚗.webm",
        },
    ]
    media = MediaFiles(Path(content.environment["LOCAL_FILES_DOCUMENT_ROOT"]), CacheFolder(clips / "cache", 10**6))
    for task in content.tasks:
        assert media.find(task["video"], Connection("http://localhost:8080", "key")) == clips / task["name"]
    (part,) = YOLO.bind(Services(settings, None))("1", content.label_config).control_models
    assert part.tag.labels == ["Walking", "Standing & <co>", '"q"']
    assert [part.tag.frame_rate({"data": task}) for task in content.tasks] == [25, 25, 59.94]
    for words in (
        "broken.mp4 is not a video file that can be read",
        "mpeg4.mp4: browsers don't play the codec mpeg4. Make an MP4 of it: ffmpeg ",
        "old.avi: browsers don't play files of the format avi. Make an MP4 of it: ffmpeg ",
        r"b\udcfc.mp4': the name isn't in UTF-8",
    ):
        assert words in said
    assert said.count("Left out") == 4


def test_a_disk_that_is_short_of_space_is_named(clips: Path, full_disk: Path) -> None:
    said = own_videos(clips, data=full_disk)[1]
    assert f"the disk of {full_disk} has 0 MB left. A folder on another disk: make demo DEMO_DATA=/path" in said
    assert "MB left" not in own_videos(clips)[1]


def test_labels_are_asked_for_once(clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("\n , \nWalking,Standing\n"))
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    content, said = own_videos(clips, None)
    assert said.count("Which labels") == 3
    assert 'value="Walking"' in content.label_config
    assert 'value="Standing"' in content.label_config


@pytest.mark.parametrize(
    ("folder", "labels", "words"),
    [
        ("nowhere/to/be", None, "There is no folder nowhere/to/be. VIDEOS names a folder of videos: make demo "),
        ("Makefile", "a", "Makefile is a file. VIDEOS names the folder"),
        ("/", "a", "VIDEOS can't be /. Name a folder in it"),
        ("docs", "a", r"docs holds no videos \(.avi, .flv"),
        ("docs", " , ", "LABELS names no label. For example: make demo VIDEOS=~/clips LABELS="),
        ("docs", None, "Name the labels, with commas between them: make demo VIDEOS=~/clips LABELS="),
    ],
)
def test_what_cannot_be_a_project_is_a_sentence(
    folder: str, labels: str | None, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(DemoError, match=words):
        own_videos(Path(folder), labels)


def test_labels_without_videos_are_a_sentence(tmp_path: Path) -> None:
    ended = run_demo(tmp_path / "data", LABELS="Walking")
    assert ended.returncode == 1
    assert "LABELS are those of your own videos, whose folder VIDEOS names: make demo" in ended.stdout
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "data").exists()


def test_a_folder_without_a_video_that_can_be_annotated_is_a_sentence(tmp_path: Path) -> None:
    folder = tmp_path / "clips"
    folder.mkdir()
    for number in range(12):
        (folder / f"{number}.mp4").touch()
    said = io.StringIO()
    with pytest.raises(DemoError, match=f"No video in {folder} can be annotated; the reasons stand above."):
        OwnVideos(str(folder), "Walking", tmp_path / "data", Console(file=said, width=1000))
    assert said.getvalue().count("is empty (0 bytes)") == 10
    assert "Left out: 2 more" in said.getvalue()
