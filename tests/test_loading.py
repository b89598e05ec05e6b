"""What a request meets while the encoder is fetched or loaded: an answer within Label Studio's limits."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask

from errors import EncoderError, NotReady
from features import checkpoints
from features.encoder import get_encoder
from ml_backend.settings import Settings
from model import YOLO
from tests.servers import Backend, annotation, region, wait_until
from tests.test_timeline_labels import config, save_classifier

# Label Studio's limit for /setup.
SETUP_SECONDS = 3


def test_requests_right_after_a_start_wait_for_no_download(
    tmp_path: Path, silent_server: tuple[str, list[socket.socket]]
) -> None:
    """The server of the default encoder takes connections and never answers."""
    proxy, connections = silent_server
    backend = Backend(tmp_path, HTTPS_PROXY=proxy, RUN_WORKER="false")
    trainable, simple = config(), config("", ("soccer_ball", "banana"))
    backend.start()
    try:
        for project, text in ((1, trainable), (2, simple)):
            started = time.monotonic()
            answer = backend.setup(text, project)
            assert time.monotonic() - started < SETUP_SECONDS
            assert answer.status_code == 200, answer.text
            assert answer.json()["model_version"].startswith("efficientnet-lite0-")
        video = {"id": 1, "data": {"video": str(backend.videos / "none.mp4")}}
        assert backend.annotate(trainable, video, annotation(1, region(1, 9, "Red"))).status_code == 201
        wait_until(lambda: backend.health()["encoder"] == "efficientnet-lite0", 60, f"the encoder, see {backend.log}")
        assert connections
    finally:
        backend.stop()


def test_simple_mode_while_its_encoder_is_loaded(make_app: Callable[..., Flask], settings: Settings) -> None:
    save_classifier(settings.model_root / "colours.pt", {0: "warm", 1: "cold"})
    client = make_app(YOLO).test_client()
    good, bad = config('model_path="colours.pt"', ("warm", "cold")), config('model_path="colours.pt"', ("Ball", "Box"))
    video = {"id": 1, "data": {"video": str(settings.local_files_document_root / "none.mp4")}}
    versions = set()
    encoder = get_encoder("colours.pt", model_root=settings.model_root)
    with encoder._load_lock:  # as a thread holds it that loads the encoder
        for project, text in (("1", good), ("2", bad)):
            answer = client.post("/setup", json={"project": project, "schema": text})
            assert answer.status_code == 200
            versions.add(answer.json["model_version"])
        answer = client.post("/predict", json={"project": "1", "label_config": good, "tasks": [video]})
        assert answer.status_code == 503
        assert "colours is being loaded" in answer.json["error"]
        assert int(answer.headers["Retry-After"]) > 0
    wait_until(encoder.is_loaded, 60, "the encoder")
    assert client.post("/setup", json={"project": "1", "schema": good}).json["model_version"] in versions
    answer = client.post("/setup", json={"project": "2", "schema": bad})
    assert answer.status_code == 400
    assert "warm, cold" in answer.json["error"]
    assert client.post("/predict", json={"project": "1", "label_config": good, "tasks": [video]}).status_code == 404


def test_a_download_in_the_background_is_said_and_its_failure_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, silent_server: tuple[str, list[socket.socket]]
) -> None:
    url, connections = silent_server
    monkeypatch.setattr(checkpoints, "DOWNLOAD_HOST", url)
    checkpoints.import_ultralytics()

    def ask() -> None:
        get_encoder("yolo11n-cls.pt", model_root=tmp_path, wait=False)

    with pytest.raises(NotReady, match="yolo11n-cls is being fetched"):
        ask()
    connections_closed = len(connections)
    wait_until(lambda: tmp_path / "yolo11n-cls.pt" in checkpoints._background_failures, 30, "the download to fail")
    for _ in range(2):
        with pytest.raises(EncoderError, match="could not be downloaded"):
            ask()
    assert len(connections) == max(1, connections_closed)
    monkeypatch.setattr(checkpoints, "DOWNLOAD_RETRY_AFTER", 0.0)
    with pytest.raises(EncoderError, match="could not be downloaded"):  # while it is tried again
        ask()
    wait_until(lambda: len(connections) == 2, 10, "the next try")
