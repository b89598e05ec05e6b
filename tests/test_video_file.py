"""The dashboard's video route: a video, as what it is, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from ml_backend.dashboard.video_file import PART_BYTES, UNKNOWN, media_type
from ml_backend.settings import Settings
from tests.test_dashboard import CONFIG, DrawnModel
from tests.videos import write_video

SCRIPT = b"<!doctype html><svg xmlns='http://www.w3.org/2000/svg'><script>document.title='XSS'</script></svg>"
NOT_READ = 99  # DrawnModel's


@pytest.mark.parametrize(
    ("suffix", "codec", "expected"),
    [
        ("mp4", "libx264", "video/mp4"),
        ("mov", "libx264", "video/mp4"),
        ("webm", "libvpx", "video/webm"),
        ("mkv", "libx264", "video/x-matroska"),
        ("avi", "mpeg4", "video/x-msvideo"),
        ("ts", "mpeg2video", "video/mp2t"),
        ("mpg", "mpeg2video", "video/mpeg"),
        ("flv", "flv", "video/x-flv"),
        ("asf", "wmv2", "video/x-ms-asf"),
        ("ogv", "libvpx", "video/ogg"),
    ],
)
def test_the_type_is_what_the_bytes_say(tmp_path: Path, suffix: str, codec: str, expected: str) -> None:
    video = write_video(tmp_path / f"video.{suffix}", [(9, 9, 9)] * 3, codec=codec)
    assert media_type(video.rename(tmp_path / "video.html")) == expected


@pytest.mark.parametrize("content", [b"", b"G", SCRIPT, b"GIF89a", b"G" + b"<script>" * 40, b"RIFF....WAVE"])
def test_other_bytes_are_no_type_that_a_browser_shows(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "video.mp4").write_bytes(content)
    assert media_type(tmp_path / "video.mp4") == UNKNOWN


@pytest.fixture
def client(make_app: Callable[..., Flask]) -> FlaskClient:
    return make_app(type("DrawnModel", (DrawnModel,), {})).test_client()


def serve(client: FlaskClient, settings: Settings, name: str, content: bytes, task: int = 1) -> dict[str, Any]:
    (settings.local_files_document_root / name).write_bytes(content)
    store = client.application.extensions["jobs"].store
    body = {"id": task, "data": {"video": name}}
    store.save_annotations("1", CONFIG, [(body, {"id": task, "result": []})], "ANNOTATION_CREATED")
    return f"/projects/1/tasks/{task}/video/tl"


@pytest.mark.parametrize("name", ["x.html", "x.js", "x.svg", "x.xml", "x.mp4"])
def test_a_script_is_served_as_nothing_that_runs(client: FlaskClient, settings: Settings, name: str) -> None:
    answer = client.get(serve(client, settings, name, SCRIPT))
    assert answer.mimetype == UNKNOWN
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Security-Policy"].startswith("sandbox; default-src 'none'")
    assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"


def test_what_was_not_read_is_not_served(client: FlaskClient, settings: Settings) -> None:
    assert client.get(serve(client, settings, "x.mp4", SCRIPT, NOT_READ)).status_code == 404


def test_a_part_is_bounded(client: FlaskClient, settings: Settings) -> None:
    """Else a paused player would hold a thread for as long as it is paused."""
    content = b"\0\0\0\x18ftypmp42" + bytes(2 * PART_BYTES)
    path = serve(client, settings, "x.mp4", content)
    for asked, start, length in [
        ("bytes=0-", 0, PART_BYTES),
        (f"bytes={PART_BYTES}-", PART_BYTES, PART_BYTES),
        (f"bytes={2 * PART_BYTES}-", 2 * PART_BYTES, 12),
        ("bytes=5-14", 5, 10),
        ("bytes=-7", len(content) - 7, 7),
    ]:
        answer = client.get(path, headers={"Range": asked})
        assert answer.status_code == 206
        assert answer.headers["Content-Range"] == f"bytes {start}-{start + length - 1}/{len(content)}"
        assert answer.data == content[start : start + length]
    assert client.get(path, headers={"Range": f"bytes={len(content)}-"}).status_code == 416
    assert client.get(path).data == content
